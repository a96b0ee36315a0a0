"""Settings of a classifier of one's own. No torch and no MLflow: the launchpad's form is made from them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from pipelines.addresses import shown
from pipelines.encoders.names import CLASSIFIER, OURS, RELEASED
from pipelines.evaluate.probes.config import ProbeConfig

Method = Literal["linear", "attention_pool", "fine_tuned"]
METHODS: tuple[Method, ...] = get_args(Method)
"""The simplest first: of equals it is chosen."""
AUTO = "auto"
Choice = Literal["linear", "attention_pool", "fine_tuned", "auto"]

RESERVED = (OURS.model, *(names.model for names in RELEASED), CLASSIFIER)
"""Registered models with roads of their own."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class OwnClassifierConfig:
    """What a classifier of one's own is made from."""

    labels: str = ""
    """A csv with the columns record_id and label, on the machine that runs the step. Empty: the labels of `drop`."""
    drop: str = ""
    """A harmonized drop of own ECGs whose labels are taken, if `labels` names no csv."""
    name: str = ""
    """The registered model. Empty: ecg-classifier-, and the csv's or the drop's name."""
    source: str = "incoming"
    """The source whose ECGs the csv labels."""
    encoder: str = ""
    """`pretrained` (the data home's own), `reference` or `reference-cpc` (imported), models:/NAME/VERSION,
    models:/NAME@ALIAS or the path of an encoder.safetensors. Empty: the champion of ecg-encoder, or without one the
    data home's own."""
    method: Choice = "linear"
    """How the encoder is read: `linear` (one layer on its embedding), `attention_pool` (a learned query over its
    tokens), `fine_tuned` (the encoder is trained, too), or `auto`, which takes the best of the three on validation."""
    min_positives: int = field(default=10, metadata={"ge": 1})
    """Labels with fewer positives in a split are left out of that split's scores, and listed by name."""

    def __post_init__(self) -> None:
        if bool(self.labels) == bool(self.drop):
            given = "both" if self.labels else "neither"
            raise ValueError(f"labels={self.labels!r}, drop={self.drop!r}: give a csv of labels or a drop, not {given}")
        if self.method not in (*METHODS, AUTO):
            raise ValueError(f"method={self.method!r}: use {', '.join(METHODS)} or {AUTO}")
        if self.min_positives < 1:
            raise ValueError(f"min_positives={self.min_positives}: use at least 1")
        if self.name:
            require_name(self.name)

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods to fit."""
        return METHODS if self.method == AUTO else tuple(method for method in METHODS if method == self.method)

    @property
    def probe(self) -> ProbeConfig:
        """The settings of the probes."""
        return ProbeConfig(min_positives=self.min_positives)

    @property
    def registered_name(self) -> str:
        """The registered model's name. Raises ValueError if it is not allowed."""
        made_of = Path(self.labels).stem if self.labels else self.drop
        words = re.sub(r"[^A-Za-z0-9_.]+", "-", made_of).strip("-._").lower()
        return require_name(self.name or f"{CLASSIFIER}-{words or 'labels'}")


def require_name(name: str) -> str:
    """Return a registered model's name. Raises ValueError if it is not allowed for a classifier of one's own."""
    if name in RESERVED:
        raise ValueError(
            f"name {name!r}: this model has a road of its own, and its versions would be judged against yours; use "
            f"another, such as {CLASSIFIER}-af"
        )
    if not _NAME.fullmatch(name):
        raise ValueError(f"name {shown(name)}: use 1 to 100 letters, digits, '.', '_' and '-', such as {CLASSIFIER}-af")
    return name
