"""Encoders by what people call them: the workspace's, registered versions, files, and the untrained baseline."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipelines.cache import Workspace
from pipelines.encoders.names import ENCODER_FILE, OURS, REFERENCE
from pipelines.evaluate.features import EncoderSource
from pipelines.release.registry import registered_encoder
from pipelines.tracking import Tracking

RANDOM = "random"


@contextmanager
def named_encoders(
    first: str, second: str, workspace: Workspace, tracking: Tracking
) -> Iterator[tuple[tuple[str, EncoderSource], tuple[str, EncoderSource]]]:
    """Two encoders by what people call them, loadable inside the block.

    `pretrained`: the workspace's own. `reference`: the imported one. `models:/<name>@<alias>` or
    `models:/<name>/<version>`: a registered one. `random`: the other's network with its initial weights. Else: an
    encoder file. An encoder that the workspace holds has its name there, so that its features are found; others are
    named by their digest, so that they are computed once. Raises ValueError for what is not there, and for one encoder
    under two names.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = (first, second)
        if names == (RANDOM, RANDOM):
            raise ValueError("both are 'random': name one encoder that it is the untrained baseline of")
        files = {
            name: _file(name, workspace, tracking, Path(folder) / str(number))
            for number, name in enumerate(names)
            if name != RANDOM
        }
        sources = {name: _source(file, workspace) for name, file in files.items()}
        if RANDOM in names:
            (name,) = files
            sources[RANDOM] = _twin(sources[name], workspace)
        if sources[first].digest == sources[second].digest:
            raise ValueError(f"{first} and {second} are one and the same encoder (sha256 {sources[first].digest[:12]})")
        yield _called(first, sources[first]), _called(second, sources[second])


def _called(name: str, source: EncoderSource) -> tuple[str, EncoderSource]:
    """The encoder and its name, which says where it was made for other ECGs than it is tested on."""
    return (name if source.window is None else f"{name} ({source.window})"), source


def _file(name: str, workspace: Workspace, tracking: Tracking, folder: Path) -> Path:
    for encoder_names in (OURS, REFERENCE):
        if name == encoder_names.probe:
            return workspace.require(encoder_names.product).path / ENCODER_FILE
    if name.startswith("models:/"):
        return registered_encoder(name, folder, tracking=tracking)
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"{name!r} is no encoder: give {OURS.probe}, {REFERENCE.probe}, {RANDOM}, models:/<name>@<alias>, "
            "models:/<name>/<version> or an encoder.safetensors"
        )
    return path


def _source(file: Path, workspace: Workspace) -> EncoderSource:
    source = EncoderSource.of_file(file.name, file)
    for encoder_names in (OURS, REFERENCE):
        product = workspace.current(encoder_names.product)
        if product is not None and EncoderSource.of_product(encoder_names.probe, product).digest == source.digest:
            return replace(source, name=encoder_names.probe)
    return replace(source, name=f"encoder-{source.digest[:12]}")


def _twin(source: EncoderSource, workspace: Workspace) -> EncoderSource:
    """The initial weights: of the seed that ours started from where it is ours, of seed 0 where that is not known."""
    for encoder_names in (OURS, REFERENCE):
        if source.name == encoder_names.probe:
            seed = workspace.require(encoder_names.product).facts.get("recipe", {}).get("seed", 0)
            return EncoderSource.random(encoder_names.random_baseline, source.config, seed)
    random_baseline = EncoderSource.random(RANDOM, source.config, 0)
    return replace(random_baseline, name=f"random-{random_baseline.digest[:12]}")
