"""A model to register, its scores, and a registered version."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pipelines.tracking  # noqa: F401  # it silences MLflow, before MLflow is imported
from pipelines.encoders.names import CLASSIFIER, ENCODER_FILE, HEAD_FILE, OURS
from pipelines.hashing import sha256_of_file
from pipelines.release.gate import GateVerdict
from pipelines.release.tags import ECGS, PRETRAINED_ECGS, kind_of

# isort: split
from mlflow.entities.model_registry import ModelVersion
from mlflow.types import ParamSpec, Schema

REGISTERED_NAME = OURS.model
CLASSIFIER_NAME = CLASSIFIER
FILES = {"encoder": ENCODER_FILE, "head": HEAD_FILE}
"""The files of a registered model."""
MOVED = "moved "
"""Prefix of the tags that tell a version's moves, before the time."""
BY_HAND = "promoted by hand"
"""Beginning of the reason of a move that a person decided against the gate."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How an encoder scored."""

    validation: float | None = None
    """Macro AUC of the gate task's probe on validation, 0 to 1; None: not scored."""
    data_digest: str | None = None
    """Digest of the ECGs, labels and protocol of that score."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Other figures, by name."""
    task: str = ""
    """The gate task; empty for a model that no gate judges."""

    def __post_init__(self) -> None:
        if self.validation is not None and not 0.0 <= self.validation <= 1.0:
            raise ValueError(f"validation {self.validation}: a macro AUC lies between 0 and 1; None for not scored")
        if (self.validation is None) != (self.data_digest is None):
            raise ValueError(
                f"validation {self.validation} with data_digest {self.data_digest}: "
                "give both, or neither if the encoder was not scored"
            )
        for name, value in self.metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"metric {name!r} is {value}: leave out a metric that could not be computed")


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """A model to register."""

    files: Mapping[str, Path]
    """Its artifacts, by name as in FILES."""
    code: str
    """The file of `ecg_model.serving` that runs them."""
    params: tuple[ParamSpec, ...]
    """Parameters of a call."""
    outputs: Schema
    output: str
    """What a call returns, for people."""
    description: str

    def digests(self) -> dict[str, str]:
        """Return the sha256 of each file, by name."""
        return {name: sha256_of_file(path) for name, path in self.files.items()}


@dataclass(frozen=True, kw_only=True)
class Release:
    """A version of a registered model."""

    name: str
    version: int
    run_id: str
    tags: Mapping[str, str]
    created: bool = False
    """Whether this call registered it."""
    rescored: bool = False
    """Whether this call gave an existing version other scores."""

    @property
    def model_uri(self) -> str:
        return f"models:/{self.name}/{self.version}"

    @property
    def scores(self) -> Scores:
        return Scores(**json.loads(self.tags["scores"]))

    @property
    def weights(self) -> dict[str, str]:
        """sha256 of its files, by name. Two versions with the same weights differ only in their code."""
        return {name: self.tags[f"{name}_digest"] for name in FILES if f"{name}_digest" in self.tags}

    @property
    def simulated(self) -> bool:
        """Whether it was trained on simulated ECGs. Versions of earlier commits do not say; they count as recorded."""
        return self.tags.get(ECGS) == kind_of(simulated=True)

    @property
    def on_simulated_encoder(self) -> bool:
        """Whether it reads an encoder that was pretrained on simulated ECGs, as far as its tags say."""
        return self.tags.get(PRETRAINED_ECGS) == kind_of(simulated=True)

    @property
    def verdict(self) -> GateVerdict | None:
        """The gate's last verdict; None if it was not judged."""
        rules = self.tags.get("rules")
        return None if rules is None else GateVerdict.from_dict(json.loads(rules))

    @property
    def by_hand(self) -> bool:
        """Whether its last move made it champion by a person's decision."""
        return bool(self.moves) and list(self.moves.values())[-1].startswith(f"champion: {BY_HAND}")

    @property
    def moves(self) -> dict[str, str]:
        """Why the version became champion or was replaced, by time in UTC, in order."""
        return {key.removeprefix(MOVED): value for key, value in sorted(self.tags.items()) if key.startswith(MOVED)}


def as_release(version: ModelVersion, *, created: bool = False, rescored: bool = False) -> Release:
    """Convert MLflow's entity."""
    return Release(
        name=version.name,
        version=int(version.version),
        run_id=version.run_id or "",
        tags=dict(version.tags),
        created=created,
        rescored=rescored,
    )
