"""Evaluations of the suite by name, from a shell."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipelines.encoders.names import OURS, REFERENCE, EncoderNames
from pipelines.evaluate.exposure import Overlaps
from pipelines.evaluate.features import OnProgress
from pipelines.evaluate.suite.attention_ablation import against_dense, materialize_dense
from pipelines.evaluate.suite.names import AGAINST_DENSE, DENSE, SUITE, Evaluation, evaluation
from pipelines.evaluate.suite.run import evaluate_encoder
from pipelines.evaluate.waves import tables as wave_views
from pipelines.evaluate.waves.run import KINDS, WAVE_EVALUATIONS, overlap_of_waves, regress_encoder, segment_encoder
from pipelines.harmonize.shards import shards_of
from pipelines.home import Home
from pipelines.pretrain.step import tied
from pipelines.sources import SOURCES
from pipelines.tasks.catalogue import TASKS

Report = Callable[[str, int, int], None]
"""Called with an evaluation's title, the ECGs of a shard that are embedded, and the ECGs of that shard."""

ENCODERS = {encoder_names.probe: encoder_names for encoder_names in (OURS, REFERENCE)}


def listed(home: Home) -> list[tuple[str, str, str]]:
    """A row an evaluation that is kept up to date: its name, its title, and whether its ECGs are here."""
    workspace = home.workspace()
    tasks = [*TASKS.values(), *(one.task for one in SUITE.values())]
    rows = [(task.name, task.title, task.source) for task in tasks]
    for name in AGAINST_DENSE:
        task = evaluation(name).task
        rows.append((f"{DENSE}/{name}", f"{task.title}, CroPA against dense attention", task.source))
    for name in WAVE_EVALUATIONS:
        kind, source = name.split("/")
        rows.append((name, f"{source}: {KINDS[kind]}", source))
    here = {source: bool(shards_of(workspace, source)) for source in {source for _, _, source in rows}}
    return [(name, title, "here" if here[source] else f"no {source}") for name, title, source in rows]


def evaluated(
    home: Home, names: Sequence[str], encoder: str, report: Report
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each evaluation's tables with their rows: the encoder's first, then those of what it has to beat; one row with a
    reason where it could not be scored. Raises ValueError for a name that means nothing, before any is done, and for
    one whose ECGs are not here."""
    workspace, encoder_names = home.workspace(), ENCODERS[encoder]
    asked = [_named(name, encoder_names) for name in names]
    for name, one in zip(names, asked, strict=True):
        source = one[1] if isinstance(one, tuple) else one.task.source
        if not shards_of(workspace, source):
            raise ValueError(f"{name}: no ECGs of {source} in {workspace.root}: harmonize them first")
    for name, one in zip(names, asked, strict=True):

        def progress(done: int, total: int, title: str = name) -> None:
            report(title, done, total)

        if isinstance(one, tuple):
            yield from _waves(home, *one, encoder_names, progress)
            continue
        if name.startswith(f"{DENSE}/"):
            yield name, _against_dense(home, one, progress)
            continue
        standings = evaluate_encoder(workspace, one, encoder_names=encoder_names, progress=progress)
        reason, drawn = standings[0].product.facts["reason"], standings[0].drawn
        if reason is not None:
            yield name, [{"not scored": reason}]
        else:
            yield f"{name}, intervals by {drawn}", [standing.row() for standing in standings]


def _named(name: str, encoder_names: EncoderNames) -> Evaluation | tuple[str, str]:
    """The evaluation of that name, or a kind of waves with its source."""
    kind, _, rest = name.partition("/")
    if kind != DENSE:
        return _wave_evaluation(name) if "/" in name else evaluation(name)
    if encoder_names != OURS:
        raise ValueError(f"{name}: it is about the encoder that was pretrained here, not {encoder_names.probe!r}")
    return evaluation(rest)


def _against_dense(home: Home, asked: Evaluation, progress: OnProgress) -> list[dict[str, Any]]:
    """Pretrains the dense encoder, where it is not there, as long as ours took or longer."""
    workspace = home.workspace()
    way = {"track": home.tracking_uri, "artifact_root": home.artifact_root}
    found = against_dense(workspace, asked, materialize_dense(workspace, _pretrained, **way), progress=progress)
    reason = found.product.facts["reason"]
    return [{"not scored": reason}] if reason else [standing.row() for standing in found.standings]


def _pretrained(command: list[str]) -> None:
    """Run a pretraining to its end; what it says goes to stderr."""
    with subprocess.Popen(tied(command), stdout=subprocess.DEVNULL) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()  # the terminal told it, too: it writes a checkpoint first
            raise
    if code:
        raise ValueError(f"pretraining ended with exit code {code}; the same command goes on from its last checkpoint")


def _wave_evaluation(name: str) -> tuple[str, str]:
    """`segmentation/ludb` as its kind and source."""
    kind, _, source = name.partition("/")
    if kind not in KINDS or source not in SOURCES:
        raise ValueError(f"evaluation {name!r}: use {' or '.join(KINDS)}, a slash, and one of {', '.join(SOURCES)}")
    return kind, source


def _waves(
    home: Home, kind: str, source: str, encoder_names: EncoderNames, progress: OnProgress
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    overlaps = Overlaps(home.workspace())
    if kind == "regression":
        regressed = regress_encoder(home, source, encoder_names=encoder_names, progress=progress)
        seen = f"{regressed.task.title}; seen: {overlap_of_waves(overlaps, regressed.ours).in_words()}"
        yield f"mean absolute errors, {seen}", wave_views.error_rows(regressed.ours, regressed.random_baseline)
        return
    found = segment_encoder(home, source, encoder_names=encoder_names, progress=progress)
    if found.reason is not None:
        yield f"segmentation, {found.task.title}", [{"not scored": found.reason}]
        return
    seen = f"{found.task.title}; seen: {overlap_of_waves(overlaps, found.best).in_words()}"
    yield f"overlap, {seen}", wave_views.overlap_rows(found.products)
    yield "boundaries, fine-tuned, predicted minus annotated", wave_views.boundary_rows(found.best)
    yield "read off the predicted waves", wave_views.read_off_rows(found.best)
