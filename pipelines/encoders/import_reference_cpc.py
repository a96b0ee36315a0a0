"""Import a published ECG-CPC: read its weights as data, check them, and write them in this project's format.

The file is a Lightning checkpoint, a pickle that holds objects of classes from outside beside the weights. torch opens
it by running it, or refuses it for these classes; here nothing of it is run (`checkpoint_file`), and what is no weight
is passed over. Sizes and length of training are read off the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ecg_model.encoder_file import MOST_CONSTANTS, save_encoder
from ecg_model.published_cpc import (
    PREFIX,
    encoder_names,
    from_published,
    is_legs,
    published_sizes,
    require_recoverable,
)
from ecg_model.s4_encoder import S4Encoder
from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.encoders.checkpoint_file import Checkpoint, require_checkpoint
from pipelines.encoders.names import ENCODER_FILE, REFERENCE_CPC
from pipelines.facts import Facts
from pipelines.formatting import format_name

_REMEDY = "give the .ckpt of ECG-CPC as its authors released it"
_LISTED = 20  # names of what was skipped


@dataclass(frozen=True, kw_only=True)
class ReferenceCPCFacts(Facts):
    """The facts of the product `reference_cpc`."""

    file: str  # the checkpoint's name
    sha256: str  # of the checkpoint
    epoch: int | None = None  # that it states
    weights: int  # the number of parameters
    tokens: int  # the length of training that the weights belong to
    legs: bool  # whether the fixed state space is HiPPO-LegS, as published
    skipped: list[str]  # the first of the classes and functions that the checkpoint names, which were not run

    def in_words(self) -> str:
        """Return what was read, in a line."""
        epoch = "" if self.epoch is None else f"epoch {self.epoch}, "
        space = "as published" if self.legs else "other than published (HiPPO-LegS), and kept"
        return f"{epoch}{self.weights:,} weights, trained on windows of {self.tokens} tokens, state space {space}"


@dataclass(frozen=True, kw_only=True)
class ReadCPC:
    """What was read of a checkpoint."""

    encoder: S4Encoder
    epoch: int | None
    skipped: tuple[str, ...]


def materialize_reference_cpc(workspace: Workspace, file: Path) -> Product:
    """Return the product `reference_cpc`, encoder.safetensors, built once from the checkpoint with this sha256.

    Raises ValueError, in one line, if the file is no checkpoint of an ECG-CPC, and leaves nothing behind.
    """
    require_checkpoint(file, _REMEDY)
    with file.open("rb") as stream:  # opened once, so that the bytes that are read are those that were hashed
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()

        def make(folder: Path) -> dict[str, Any]:
            read = read_cpc(stream)
            save_encoder(folder / ENCODER_FILE, read.encoder)
            return ReferenceCPCFacts(
                file=file.name,
                sha256=sha256,
                epoch=read.epoch,
                weights=sum(value.numel() for value in read.encoder.parameters()),
                tokens=read.encoder.config.tokens,
                legs=all(is_legs(block.s4) for block in read.encoder.s4_blocks),
                skipped=[format_name(name[:80]) for name in read.skipped[:_LISTED]],
            ).to_dict()

        return workspace.build(
            REFERENCE_CPC.product, version=versions.REFERENCE_CPC, config={}, inputs={"file": sha256}, make=make
        )


def read_cpc(stream: BinaryIO) -> ReadCPC:
    """Read an open checkpoint; the encoder is on the CPU, in eval mode. Raises ValueError if it is no ECG-CPC."""
    name = Path(stream.name).name
    stream.seek(0)
    try:
        checkpoint = Checkpoint(stream)
    except ValueError as error:
        raise ValueError(f"{name}: {error}: {_REMEDY}") from error
    try:
        encoder = _encoder(checkpoint)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return ReadCPC(encoder=encoder, epoch=checkpoint.epoch, skipped=checkpoint.skipped)


def stored_names(names: Mapping[str, object]) -> dict[str, str]:
    """Return the published names of an encoder's weights among `names`, each with its name there.

    Names may have a word before them, such as `model.`, if all have the same.
    """
    first = f"{PREFIX}encoder.layers.0.0.weight"
    before = {name.removesuffix(first) for name in names if name.endswith(first)}
    if len(before) != 1:
        return {}
    (word,) = before
    published = {name.removeprefix(word): name for name in names if name.startswith(word)}
    return {name: published[name] for name in encoder_names(published)}


def _encoder(checkpoint: Checkpoint) -> S4Encoder:
    stored = stored_names(checkpoint.tensors)
    if not stored:
        raise ValueError(f"it has no weights of an ECG-CPC, whose names contain {PREFIX!r}: {_REMEDY}")
    config = published_sizes({name: checkpoint.tensors[at].shape for name, at in stored.items()})
    if config.constants > MOST_CONSTANTS:
        raise ValueError(
            f"its sizes ask for {config.constants:,} numbers beside its weights, at most {MOST_CONSTANTS:,} are taken"
        )
    with torch.device("meta"):  # names and shapes only: the weights are the checkpoint's
        encoder = S4Encoder(config)
    weights = checkpoint.read(list(stored.values()))
    state = from_published({name: weights[at] for name, at in stored.items()}, encoder)
    encoder.load_state_dict(state, assign=True)
    require_recoverable(encoder)
    return encoder.eval()
