"""Recipes: everything that determines a pretraining's result, apart from the corpus and the device.

Two runs with equal recipes, corpora and devices end with equal weights. Where a run writes and how often it reports is
in `train.RunConfig`. This module imports no torch.
"""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ecg_model import settings
from ecg_model.config import (
    AnyEncoderConfig,
    CPCConfig,
    EncoderConfig,
    JEPAConfig,
    MaskingConfig,
    PredictorConfig,
    S4EncoderConfig,
    S4PredictorConfig,
)
from ecg_model.standard import RATE, SAMPLES, SECONDS

Precision = Literal["bf16", "fp32"]
Select = Literal["last", "best"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Objective, networks and optimisation. The defaults are the paper's multi-block run (Kim, arXiv 2410.08559)."""

    name: str
    """Of the recipe, for people."""
    jepa: JEPAConfig | None = field(default_factory=JEPAConfig)
    """The objective JEPA with its networks; null if another one is set."""
    cpc: CPCConfig | None = field(default=None, metadata=settings.ADDED)
    """The objective CPC with its networks; null if another one is set."""
    batch: int = field(default=64, metadata={"ge": 1})
    """ECGs in a step, over all processes."""
    epochs: float | None = field(default=100.0, metadata={"gt": 0, "lt": 1_000_000})
    """Length in passes over the corpus; null if `steps` is set."""
    steps: int | None = field(default=None, metadata={"ge": 1})
    """Length in updates, whatever the size of the corpus; null if `epochs` is set."""
    warmup_share: float = field(default=0.05, metadata={"ge": 0, "lt": 1})
    """Share of all steps in which the learning rate rises (the paper: 5 of 100 epochs)."""
    peak_lr: float = field(default=5e-5, metadata={"gt": 0, "lt": 1})
    """Learning rate after the warm-up; CPC's S4 blocks and stem have shares of it."""
    edge_lr: float = field(default=1e-6, metadata={"ge": 0, "lt": 1})
    """Learning rate at the first step and at the end of the cosine, at most `peak_lr`."""
    weight_decay: float = field(default=0.05, metadata={"ge": 0, "lt": 1})
    """AdamW's decay: JEPA's of the matrices alone, not of biases and norms; CPC's of all weights."""
    ema_start: float = field(default=0.996, metadata={"ge": 0, "le": 1})
    """Momentum of the moving average that is JEPA's teacher at the first step."""
    ema_end: float = field(default=1.0, metadata={"ge": 0, "le": 1})
    """Its momentum after the last step, at least `ema_start`; linear in between."""
    precision: Precision = "bf16"
    """`bf16` computes the networks under autocast, with weights and optimizer in float32; `fp32` all in float32."""
    seed: int = field(default=0, metadata={"ge": 0, "lt": 2**32})
    """Seed of initial weights, order and crops of the ECGs, masks, negatives, stochastic depth and dropout."""
    clip_norm: float | None = field(default=None, metadata={"gt": 0})
    """Largest norm of all gradients, to which larger ones are scaled (arXiv 1211.5063); null, as in the paper: off."""
    warm_start: str | None = None
    """sha256 of the encoder file that the encoder (and a teacher) begins with; None, as published: random weights."""
    probe_epochs: float | None = field(default=5.0, metadata={"gt": 0})
    """Epochs between two online probes; null: no probe."""
    select: Select = "last"
    """The student that becomes the encoder: after the last step, or at its best probe, which is stored anyway."""

    def __post_init__(self) -> None:
        def require(holds: bool, name: str, remedy: str) -> None:
            if not holds:
                raise ValueError(f"{name}={getattr(self, name)!r}: {remedy}")

        require(_NAME.fullmatch(self.name) is not None, "name", "use lower case letters, digits, '-' and '_'")
        if (self.jepa is None) == (self.cpc is None):
            both = "both are set" if self.cpc is not None else "neither is set"
            raise ValueError(f"jepa and cpc: {both}: a recipe has one objective, set the other to null")
        require(self.batch >= 1, "batch", "use at least 1 ECG")
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"epochs={self.epochs!r} and steps={self.steps!r}: set one of them, the other to none")
        require(self.epochs is None or 0 < self.epochs < 1e6, "epochs", "use a positive number")
        require(self.steps is None or self.steps >= 1, "steps", "use at least 1")
        require(0 <= self.warmup_share < 1, "warmup_share", "use a share from 0 to below 1")
        require(0 < self.peak_lr < 1, "peak_lr", "use a rate between 0 and 1")
        require(0 <= self.edge_lr <= self.peak_lr, "edge_lr", f"use a rate from 0 to peak_lr={self.peak_lr}")
        require(0 <= self.weight_decay < 1, "weight_decay", "use a share from 0 to below 1")
        require(0 <= self.ema_start <= 1, "ema_start", "use a share from 0 to 1")
        require(self.ema_start <= self.ema_end <= 1, "ema_end", f"use a share from ema_start={self.ema_start} to 1")
        require(self.precision in get_args(Precision), "precision", "use 'bf16' or 'fp32'")
        require(0 <= self.seed < 2**32, "seed", "use a number from 0 to 2^32 - 1")
        require(self.clip_norm is None or 0 < self.clip_norm < math.inf, "clip_norm", "use a positive norm, or none")
        require(
            self.warm_start is None or _SHA256.fullmatch(self.warm_start) is not None,
            "warm_start",
            "use the sha256 of an encoder's file in 64 hexadecimal digits, or none",
        )
        require(
            self.probe_epochs is None or 0 < self.probe_epochs < math.inf,
            "probe_epochs",
            "use a positive number of epochs, or none",
        )
        require(self.select in get_args(Select), "select", "use 'last' or 'best'")
        _require_readable(self.encoder, "cpc.encoder" if self.jepa is None else "jepa.encoder")

    @property
    def objective(self) -> JEPAConfig | CPCConfig:
        """The configuration of the objective that is set."""
        chosen = self.jepa or self.cpc
        assert chosen is not None
        return chosen

    @property
    def encoder(self) -> AnyEncoderConfig:
        """The configuration of the encoder."""
        return self.objective.encoder

    @property
    def digest(self) -> str:
        """sha256 of all fields."""
        return settings.digest(self)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return settings.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Read the JSON values of `to_dict`. Raises ValueError for an unknown field and for a value of a wrong type."""
        return settings.from_dict(cls, values)

    def total_steps(self, records: int) -> int:
        """Return the number of updates over a training set of this size, at least 1."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, int(self.epochs * records / self.batch))

    def require_even_shares(self, *, processes: int, accumulate: int) -> None:
        """Raise ValueError if a batch cannot be shared out evenly among processes, and by each in so many parts.

        An encoder with statistics of the batch cannot be trained in parts at all.
        """
        if accumulate > 1 and self.encoder.batch_statistics:
            raise ValueError(
                f"accumulate={accumulate}: the batch norm of this recipe's encoder needs a batch as a whole: use 1; if "
                "the batch does not fit into memory, use recompute, more processes, or a smaller batch"
            )
        parts = processes * accumulate
        if self.batch % parts:
            raise ValueError(
                f"batch={self.batch} cannot be shared out evenly among {processes} processes in {accumulate} parts: "
                f"use a multiple of {parts}"
            )

    def probe_due(self, step: int, records: int) -> bool:
        """Whether the online probe scores the student after this step (0 for the first).

        It does so every `probe_epochs`, and after the last step.
        """
        if self.probe_epochs is None:
            return False
        every = self.probe_epochs * records / self.batch
        return step + 1 == self.total_steps(records) or (step + 1) // every > step // every


def _require_readable(encoder: AnyEncoderConfig, path: str) -> None:
    """Raise ValueError if an encoder cannot be trained on harmonized ECGs. path: its field in the recipe."""
    if encoder.leads not in (8, 12):
        raise ValueError(f"{path}.leads={encoder.leads}: use the 8 leads of an ECG, or 12, which follow from them")
    if encoder.window > SAMPLES:
        size = "samples" if isinstance(encoder, S4EncoderConfig) else "patches"
        raise ValueError(
            f"{path}.{size}={getattr(encoder, size)}: a window of {encoder.window / RATE:g} s: ECGs have {SECONDS} s, "
            f"use fewer {size}"
        )


def demo() -> Recipe:
    """Return a recipe of a minute or two on two cores, whose encoder is better than a random one.

    In such a short run the targets must depend on the ECG from the first step, so the patches are scaled well above
    the positions. With a higher learning rate, or with more steps and weaker patches, the targets fall back to the
    positions alone.
    """
    return Recipe(
        name="demo",
        jepa=JEPAConfig(
            encoder=EncoderConfig(dim=96, depth=2, heads=2, drop_path=0.0, input_scale=5.0, patch_init_scale=25.0),
            predictor=PredictorConfig(dim=48, depth=1, heads=2),
        ),
        batch=32,
        epochs=None,
        steps=500,
        peak_lr=5e-4,
        ema_start=0.97,
    )


def small() -> Recipe:
    """Return a recipe of hours on two cores, or minutes on a GPU.

    With the published scales the positions would dominate the patches throughout such a short run; with these the
    embedding depends on the ECG from the first step. Small batches, a high learning rate and a teacher that follows
    closely make the most of few steps; docs/results.md has the trials.
    """
    return Recipe(
        name="small",
        jepa=JEPAConfig(
            encoder=EncoderConfig(dim=192, depth=4, heads=6, input_scale=5.0, patch_init_scale=50.0),
            predictor=PredictorConfig(dim=96, depth=2, heads=6),
        ),
        batch=32,
        epochs=20.0,
        peak_lr=1e-3,
        ema_start=0.98,
    )


def paper_block() -> Recipe:
    """Return the published multi-block run."""
    return Recipe(name="paper_block", jepa=JEPAConfig(masking=MaskingConfig(kind="block")), batch=64, peak_lr=5e-5)


def paper_random() -> Recipe:
    """Return the published random-masking run."""
    return Recipe(name="paper_random", jepa=JEPAConfig(masking=MaskingConfig(kind="random")), batch=128, peak_lr=2.5e-5)


def paper_cpc() -> Recipe:
    """Return the published contrastive predictive coding on S4 (Al-Masud and Strodthoff, arXiv 2605.12241).

    Its 10 epochs are of 11 million ECGs; on 174,000 they are a sixtieth of the updates.
    """
    return Recipe(
        name="paper_cpc",
        jepa=None,
        cpc=CPCConfig(),
        batch=64,
        epochs=10.0,
        warmup_share=0.0,
        peak_lr=3e-3,
        edge_lr=3e-3,
        weight_decay=1e-3,
        precision="fp32",
    )


def small_cpc() -> Recipe:
    """Return contrastive predictive coding for hours on two cores, or minutes on a GPU; docs/results.md has the trials.

    The input is scaled as in `small`. Crops of 2.5 s at 250 Hz, in tokens of 20 ms.
    """
    encoder = S4EncoderConfig(
        leads=8, rate=250, samples=625, token_samples=5, stem_dim=128, stem_kernel=5, dim=192, input_scale=5.0
    )
    return Recipe(
        name="small_cpc",
        jepa=None,
        cpc=CPCConfig(encoder=encoder, horizon=6, blocks_lr=1.0, stem_lr=1.0),
        batch=32,
        epochs=20.0,
        peak_lr=1e-3,
        weight_decay=1e-3,
    )


def small_s4() -> Recipe:
    """Return JEPA on an S4 encoder that sees both directions: with the sizes of `small_cpc`, else as `small`."""
    encoder = S4EncoderConfig(
        leads=8,
        rate=250,
        samples=625,
        token_samples=5,
        stem_dim=128,
        stem_kernel=5,
        dim=192,
        causal=False,
        input_scale=5.0,
    )
    return Recipe(
        name="small_s4",
        jepa=JEPAConfig(
            encoder=encoder,
            predictor=S4PredictorConfig(),
            masking=MaskingConfig(block_ratio=(0.15, 0.2), per_record=True),
        ),
        batch=32,
        epochs=20.0,
        peak_lr=1e-3,
        ema_start=0.98,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "demo": demo,
    "small": small,
    "paper_block": paper_block,
    "paper_random": paper_random,
    "small_cpc": small_cpc,
    "paper_cpc": paper_cpc,
    "small_s4": small_s4,
}


def recipe_named(name: str, changes: Mapping[str, object] | None = None) -> Recipe:
    """Return the recipe of that name, with fields changed as `changed` does it.

    Raises ValueError as `changed` does, and for an unknown name.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r}: use {', '.join(RECIPES)}")
    return changed(RECIPES[name](), changes or {})


def changed(recipe: Recipe, changes: Mapping[str, object]) -> Recipe:
    """Return a recipe with fields changed: {"peak_lr": 1e-3, "jepa.encoder.dim": "96"}.

    Values may be text or JSON values; `none` is None. A new value of `epochs` or `steps` sets the other to None, unless
    that is among the changes, too. The recipe is checked after all changes. Raises ValueError for an unknown field, for
    a value of a wrong type, and for a value that the recipe refuses; the message names the field.
    """
    values = recipe.to_dict()
    for path, value in changes.items():
        _assign(recipe, values, path, path.split("."), value if isinstance(value, str) else json.dumps(value))
    for length, other in (("epochs", "steps"), ("steps", "epochs")):
        if length in changes and other not in changes and values[length] is not None:
            values[other] = None
    return Recipe.from_dict(values)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the fields that differ between two recipes' dictionaries, as `jepa.encoder.dim: 96 -> 192`."""
    changed: list[str] = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changed += [f"{name}.{inner}" for inner in differences(old, new)]
        elif old != new:
            changed.append(f"{name}: {old!r} -> {new!r}")
    return changed


def _assign(of: Any, values: dict[str, Any], path: str, names: list[str], text: str) -> None:
    """Set one field in the values of a dataclass.

    of: the dataclass that the values are of, with the parts that it has.
    path: the field as the user named it, for messages.
    names: its parts, from this dataclass on.
    """
    cls = type(of)
    hints = get_type_hints(cls)
    name, *inner = names
    if name not in hints:
        raise ValueError(f"{path}: {cls.__name__} has no field {name!r}: use {', '.join(hints)}")
    parts, part = settings.parts(hints[name]), getattr(of, name)
    if parts and not inner:
        raise ValueError(f"{path}: set one of its fields, such as {path}.{next(iter(get_type_hints(parts[0])))}")
    if inner and not parts:
        raise ValueError(f"{path}: {name} has no fields; set {name} itself")
    if inner and part is None:
        raise ValueError(f"{path}: this recipe has no {name}: use a recipe that has it")
    if inner:
        _assign(part, values[name], path, inner, text)
    elif name == settings.KIND:
        raise ValueError(f"{path}: the kind of a part follows from the recipe: use a recipe of that kind")
    else:
        values[name] = _parse(hints[name], path, text)


def _parse(hint: Any, path: str, text: str) -> Any:
    """Convert text to a field's type. Raises ValueError naming the path, the text and the type."""
    if get_origin(hint) in (Union, types.UnionType):
        if text.lower() in ("none", "null"):
            return None
        hint = next(kind for kind in get_args(hint) if kind is not types.NoneType)
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{path}={text!r}: use true or false")
        return text.lower() == "true"
    try:
        if hint in (int, float):
            return hint(text)
        if get_origin(hint) is tuple:
            return [float(value) for value in json.loads(text)]
    except (ValueError, TypeError) as error:
        kind = (
            "a list of numbers such as [0.6,0.7]" if get_origin(hint) is tuple else f"a value of type {hint.__name__}"
        )
        raise ValueError(f"{path}={text!r}: use {kind}") from error
    return text  # one of several words; the dataclass checks which
