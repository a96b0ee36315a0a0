"""A model that is to be registered, its scores, and a registered version."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pipelines.tracking  # noqa: F401  # it silences MLflow, before MLflow is imported
from pipelines.encoders.names import ENCODER_FILE, HEAD_FILE, OURS
from pipelines.release.gate import GateVerdict
from pipelines.release.tags import ECGS, kind_of

# isort: split
from mlflow.entities.model_registry import ModelVersion
from mlflow.types import Schema

REGISTERED_NAME = OURS.model
CLASSIFIER_NAME = "ecg-classifier"
FILES = {"encoder": ENCODER_FILE, "head": HEAD_FILE}
"""The files of a registered model."""
MOVED = "moved "


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How an encoder did. `validation` is of the split that the gate looks at: None where it was not scored.

    task: whose probe the gate compares, by name; empty for a model that no gate judges.
    validation: macro AUC of the gate's probe on its validation fold, 0 to 1. data_digest: of the ECGs, labels and
    protocol it was taken on. metrics: whatever else is worth showing.
    """

    validation: float | None = None
    data_digest: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    task: str = ""

    def __post_init__(self) -> None:
        if self.validation is not None and not 0.0 <= self.validation <= 1.0:
            raise ValueError(f"validation {self.validation}: a macro AUC lies between 0 and 1; None for not scored")
        if (self.validation is None) != (self.data_digest is None):
            raise ValueError(
                f"validation {self.validation} with data_digest {self.data_digest}: "
                "give both, or neither where the encoder was not scored"
            )
        for name, value in self.metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"metric {name!r} is {value}: leave out what could not be computed")


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """What is registered: its artifacts by name, the file of `ecg_model.serving` that runs them, and what people and
    MLflow are told of it."""

    files: Mapping[str, Path]
    code: str
    outputs: Schema
    output: str
    description: str

    def digests(self) -> dict[str, str]:
        return {name: _sha256(path) for name, path in self.files.items()}


@dataclass(frozen=True, kw_only=True)
class Release:
    """A version of the registered model. created: by this call. rescored: it was there before, with other scores."""

    name: str
    version: int
    run_id: str
    tags: Mapping[str, str]
    created: bool = False
    rescored: bool = False

    @property
    def model_uri(self) -> str:
        return f"models:/{self.name}/{self.version}"

    @property
    def scores(self) -> Scores:
        return Scores(**json.loads(self.tags["scores"]))

    @property
    def weights(self) -> dict[str, str]:
        """The digests of its files, by name as in `Packaged`; two versions with the same differ in their code alone."""
        return {name: self.tags[f"{name}_digest"] for name in FILES if f"{name}_digest" in self.tags}

    @property
    def simulated(self) -> bool:
        """Whether it was trained on ECGs that a program drew; not so where it does not say, as of before."""
        return self.tags.get(ECGS) == kind_of(simulated=True)

    @property
    def verdict(self) -> GateVerdict | None:
        """What the gate said last; None where it was not asked."""
        rules = self.tags.get("rules")
        return None if rules is None else GateVerdict.from_dict(json.loads(rules))

    @property
    def moves(self) -> dict[str, str]:
        """When the version became champion or was replaced, each with why; the times in UTC, in order."""
        return {key.removeprefix(MOVED): value for key, value in sorted(self.tags.items()) if key.startswith(MOVED)}


def as_release(version: ModelVersion, *, created: bool = False, rescored: bool = False) -> Release:
    return Release(
        name=version.name,
        version=int(version.version),
        run_id=version.run_id or "",
        tags=dict(version.tags),
        created=created,
        rescored=rescored,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
