"""Resolve an encoder's name: a workspace product, a registered version, a file, or a random baseline."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from pipelines.cache import Workspace
from pipelines.encoders.names import OURS, RELEASED
from pipelines.evaluate.features import EncoderSource
from pipelines.pretrain.step import EncoderFacts
from pipelines.release.own_source import version_source
from pipelines.release.registry import version_named
from pipelines.tracking import Tracking

RANDOM = "random"


@contextmanager
def named_encoders(
    first: str, second: str, workspace: Workspace, tracking: Tracking
) -> Iterator[tuple[tuple[str, EncoderSource], tuple[str, EncoderSource]]]:
    """Resolve two names, and yield each encoder with its title; both can be loaded inside the block.

        pretrained                                            the workspace's own encoder
        reference, reference-cpc                              the imported encoders
        models:/<name>@<alias> or models:/<name>/<version>    a registered version
        random                                                the other's network with its initial weights
        any other                                             an encoder file

    An encoder of the workspace keeps its name there, so that its cached features are used. Others are named by their
    digest, so that their features are computed once. A registered version answers by the code that it was registered
    with. Raises ValueError if an encoder does not exist, and if both names mean the same encoder.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        names = (first, second)
        if names == (RANDOM, RANDOM):
            raise ValueError("both encoders are 'random': name an encoder to compare with its random baseline")
        sources = {
            name: _named(_source(name, workspace, tracking, Path(folder) / str(number), running), workspace)
            for number, name in enumerate(names)
            if name != RANDOM
        }
        if RANDOM in names:
            (name,) = sources
            sources[RANDOM] = _random_baseline(sources[name], workspace)
        if sources[first].digest == sources[second].digest:
            raise ValueError(f"{first} and {second} are the same encoder (sha256 {sources[first].digest[:12]})")
        yield _titled(first, sources[first]), _titled(second, sources[second])


@contextmanager
def named_encoder(name: str, workspace: Workspace, tracking: Tracking) -> Iterator[EncoderSource]:
    """Resolve one name as `named_encoders` does, other than `random`; the encoder can be loaded inside the block."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        yield _named(_source(name, workspace, tracking, Path(folder), running), workspace)


def _titled(name: str, source: EncoderSource) -> tuple[str, EncoderSource]:
    """Return the encoder with its title, which says if it was made for another window of the ECG."""
    return (name if source.window is None else f"{name} ({source.window})"), source


def _source(name: str, workspace: Workspace, tracking: Tracking, folder: Path, running: ExitStack) -> EncoderSource:
    for encoder_names in (OURS, *RELEASED):
        if name == encoder_names.probe:
            return EncoderSource.of_product(name, workspace.require(encoder_names.product))
    if name.startswith("models:/"):
        return version_source(version_named(name, tracking=tracking), folder, tracking=tracking, running=running)
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"{name!r} is no encoder: give {', '.join(names.probe for names in (OURS, *RELEASED))}, {RANDOM}, "
            "models:/<name>@<alias>, models:/<name>/<version> or an encoder.safetensors"
        )
    return EncoderSource.of_file(path.name, path)


def _named(source: EncoderSource, workspace: Workspace) -> EncoderSource:
    """Return an encoder with the name that its features have in the workspace."""
    for encoder_names in (OURS, *RELEASED):
        product = workspace.current(encoder_names.product)
        if product is not None and EncoderSource.of_product(encoder_names.probe, product).digest == source.digest:
            return replace(source, name=encoder_names.probe)
    return replace(source, name=f"encoder-{source.digest[:12]}")


def _random_baseline(source: EncoderSource, workspace: Workspace) -> EncoderSource:
    """Return the initial weights: of the seed that the workspace's encoder started from, or of seed 0 if unknown."""
    for encoder_names in (OURS, *RELEASED):
        if source.name == encoder_names.probe:
            seed = EncoderFacts.of(workspace.require(encoder_names.product)).seed
            return EncoderSource.random(encoder_names.random_baseline, source.config, seed)
    random_baseline = EncoderSource.random(RANDOM, source.config, 0)
    return replace(random_baseline, name=f"random-{random_baseline.digest[:12]}")
