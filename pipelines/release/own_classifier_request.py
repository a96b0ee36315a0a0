"""What a classifier of one's own is made from: its labels, and the encoder that it reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ecg_model.serving.request import REASON
from pipelines.addresses import shown
from pipelines.cache import Workspace
from pipelines.encoders.names import OURS
from pipelines.evaluate.features import EncoderSource
from pipelines.evaluate.own_code import OwnCodeSource
from pipelines.evaluate.suite.labelled_records import Say
from pipelines.evaluate.suite.own_labels import drop_task, own_task
from pipelines.release.aliases import find_alias
from pipelines.release.model import Release
from pipelines.release.own_classifier_config import OwnClassifierConfig
from pipelines.release.registry import names_version, version_named
from pipelines.release.resolve import RANDOM, named_encoders
from pipelines.release.tags import CHAMPION
from pipelines.tasks.catalogue import LabelTask
from pipelines.tracking import Tracking


def labels_task(workspace: Workspace, config: OwnClassifierConfig, say: Say = lambda line: None) -> LabelTask:
    """Read the labels. say: told how the rows of a csv were understood.

    Raises ValueError as `own_task` and `drop_task` do, and for a label that cannot be served.
    """
    file = Path(config.labels).expanduser()
    if not config.drop and not file.is_file():
        raise ValueError(f"labels {shown(config.labels)}: no such file; give a csv with the columns record_id,label")
    task = drop_task(workspace, config.drop) if config.drop else own_task(workspace, file, config.source, say)
    if REASON in task.names:
        raise ValueError(f"label {REASON!r}: a served model says by it why it refuses an ECG; use another word")
    return task


@dataclass(frozen=True, kw_only=True)
class ChosenEncoder:
    """The encoder that a classifier reads. It can be loaded inside the block that yields it."""

    name: str
    """As it was asked for, with the version that it is."""
    source: EncoderSource
    random: EncoderSource
    """The same network with its initial weights."""
    release: Release | None
    """The registered version, if it was named by one."""
    note: str | None = None
    """What is to be known of the choice."""


@contextmanager
def chosen_encoder(
    encoder: str, workspace: Workspace, tracking: Tracking, *, simulated: bool
) -> Iterator[ChosenEncoder]:
    """Resolve the encoder that a classifier reads, by this checkout's code, which is registered with the classifier.

    encoder: as `OwnClassifierConfig.encoder`
    simulated: whether the labelled ECGs are simulated

    Raises ValueError if there is no encoder, or no such.
    """
    champion = None if encoder else find_alias(CHAMPION, tracking=tracking)
    if not encoder and champion is None and workspace.current(OURS.product) is None:
        raise ValueError(
            f"there is no encoder: {OURS.model} has no champion at {tracking.uri}, and none is pretrained in "
            f"{workspace.root}: run `make demo`, pretrain one, or name one by --encoder"
        )
    named = encoder or (OURS.probe if champion is None else champion.model_uri)
    release = version_named(named, tracking=tracking) if names_version(named) else None
    said = named if release is None or named == release.model_uri else f"{named}, {release.model_uri}"
    said = f"{said}, the champion" if champion is not None else said
    notes = [] if encoder or champion is not None else [f"{OURS.model} has no champion, so it is the data home's own"]
    if release is not None and release.simulated and not simulated:
        notes.append("it was pretrained on simulated ECGs, so expect little of it: pretrain one on recorded ECGs")
    with named_encoders(named, RANDOM, workspace, tracking) as ((_, source), (_, random)):
        if isinstance(source, OwnCodeSource):
            notes.append("it was registered with other code: its weights are run by this checkout's")
            source = EncoderSource(name=source.name, digest=source.file, config=source.config, load=source.load)
            source = replace(source, name=f"encoder-{source.digest[:12]}")
        yield ChosenEncoder(
            name=said, source=source, random=random, release=release, note="; ".join(notes) if notes else None
        )
