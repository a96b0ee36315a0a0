"""Heads of a probe: each is fitted to rows of an array and returns a model that gives probabilities.

A head is a frozen dataclass with its settings. `takes` says what x has of each record: `features` float32 (N, D),
`tokens` float16 (N, P, D), which may be on disk, or `signals` int16 microvolt (N, L, T). All are read by `x[rows]`.
Shapes: N records, C classes, D features, P tokens, L leads, T samples, V records of the validation split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from safetensors.numpy import save
from scipy.special import softmax

from ecg_model.ecg_encoder import ECGEncoder
from pipelines.durable import write_atomically
from pipelines.evaluate.features import Rows
from pipelines.evaluate.probes import linear
from pipelines.evaluate.probes.result import Trial
from pipelines.evaluate.statistics import ranking
from pipelines.evaluate.statistics.bootstrap import InsufficientData
from pipelines.program import Launch
from pipelines.tasks.splits import Split

LAYER_FILE = "layer.safetensors"
CHECKPOINTS = "checkpoints"

Takes = Literal["features", "tokens", "signals"]
Distance = Literal["euclid", "cosine"]


@dataclass(frozen=True, kw_only=True)
class FitProblem:
    """The data that a head is fitted to.

    Every class has positives and negatives among the training rows, and if classes exclude each other every training
    row has one.
    """

    x: Rows
    """What the head takes of each record."""
    y_NC: np.ndarray
    """Targets, bool."""
    train: np.ndarray
    """Row numbers."""
    validation: np.ndarray
    """Row numbers; empty if the protocol has no validation split."""
    multi_class: bool
    """Whether classes exclude each other."""
    seed: int
    min_positives: int = 1
    """Classes with fewer positives on validation are left out of a choice."""
    encoder: Callable[[], ECGEncoder] | None = None
    """Loads a new copy of the encoder that x is of, to be trained; heads that take signals need it."""
    folder: Path | None = None
    """Of the product that is being built, if there is one. A head writes the weights that it learned there, and in
    CHECKPOINTS the state from which it resumes after a kill, until the product is complete."""
    launch: Launch | None = None
    """Runs the training of an encoder in a process of its own, on the `Signals` of a product; None: in this process."""

    def validation_auc(self, model: Model) -> float:
        """Return a model's macro AUC on validation. Raises InsufficientData if no class can be scored there."""
        return self.auc_of(model.probabilities(self.x, self.validation))

    def auc_of(self, score_VC: np.ndarray) -> float:
        """Return the macro AUC of scores on the validation rows, (V, C). Raises InsufficientData as above."""
        y_VC = self.y_NC[self.validation]
        scorable_C = scorable(y_VC, self.min_positives, Split.VALIDATION)[0]
        return float(ranking.auc(y_VC[:, scorable_C], score_VC[:, scorable_C]).mean())


class Model(Protocol):
    """A head after its fit."""

    def probabilities(self, x: Rows, rows: np.ndarray) -> np.ndarray:
        """Return probabilities, float64 (len(rows), C): sigmoids, or a softmax if classes exclude each other."""
        ...


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The chosen model, and the settings that were tried."""

    model: Model
    trials: tuple[Trial, ...] = ()
    """Empty if nothing was chosen."""
    penalty: float | None = None
    """Of the chosen model; None for a head without a penalty."""


class Head(Protocol):
    """Settings of a model, and how it is fitted."""

    takes: ClassVar[Takes]
    """What x has of each record."""

    @property
    def chooses(self) -> bool:
        """Whether it makes a choice, for which it needs validation rows."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return everything that its scores depend on, as JSON values."""
        ...

    def fit(self, problem: FitProblem) -> Fit:
        """Fit on the training rows, choose on the validation rows; the same problem gives the same model."""
        ...


@dataclass(frozen=True, kw_only=True)
class LinearFit:
    """A linear layer on features, as a `Model`."""

    layer: linear.LinearModel

    def probabilities(self, x: Rows, rows: np.ndarray) -> np.ndarray:
        return self.layer.probabilities(x[rows])


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """A linear layer, solved for each penalty and chosen on validation; of equals the stronger penalty is chosen.

    Penalties are tried from the strongest on. Two in a row that are no better than the best end the search, since the
    weakest cost most.

    The layer is written as LAYER_FILE: weight (C, D) and bias (C,), float64.
    """

    penalties: tuple[float, ...]

    takes: ClassVar[Takes] = "features"

    @property
    def chooses(self) -> bool:
        return len(self.penalties) > 1

    def to_dict(self) -> dict[str, Any]:
        return {"head": "logistic", "penalties": list(self.penalties)}

    def fit(self, problem: FitProblem) -> Fit:
        x_ND, y_NC = problem.x[problem.train], problem.y_NC[problem.train]
        path = linear.fit_path(x_ND, y_NC, self.penalties, multi_class=problem.multi_class)
        if not len(problem.validation):
            return self._stored(problem, LinearFit(layer=next(path)), self.penalties[0], ())
        models: list[LinearFit] = []
        trials: list[Trial] = []
        best = 0
        for penalty, layer in zip(self.penalties, path, strict=True):
            models.append(LinearFit(layer=layer))
            auc = problem.validation_auc(models[-1])
            trials.append(Trial(penalty=penalty, validation_macro_auc=auc))
            if auc > trials[best].validation_macro_auc:
                best = len(trials) - 1
            if len(trials) - best > 2:
                break
        return self._stored(problem, models[best], self.penalties[best], tuple(trials))

    def _stored(self, problem: FitProblem, model: LinearFit, penalty: float, trials: tuple[Trial, ...]) -> Fit:
        """Return the fit, and write its layer if a product is being built."""
        if problem.folder is not None:
            layer = {"weight": np.ascontiguousarray(model.layer.weight_DC.T), "bias": model.layer.bias_C}
            write_atomically(problem.folder / LAYER_FILE, save(layer))
        return Fit(model=model, trials=trials, penalty=penalty)


@dataclass(frozen=True, kw_only=True)
class PaperLoop:
    """One linear layer by the paper's AdamW loop, which chooses nothing: see `linear.fit_adamw`."""

    takes: ClassVar[Takes] = "features"

    @property
    def chooses(self) -> bool:
        return False

    def to_dict(self) -> dict[str, Any]:
        return {"head": "adamw"}

    def fit(self, problem: FitProblem) -> Fit:
        x_ND, y_NC = problem.x[problem.train], problem.y_NC[problem.train]
        layer = linear.fit_adamw(x_ND, y_NC, multi_class=problem.multi_class, seed=problem.seed)
        return Fit(model=LinearFit(layer=layer))


@dataclass(frozen=True, kw_only=True)
class ClassMeans:
    """The mean of each class's training records, as a `Model`."""

    mean_CD: np.ndarray
    spread: float
    """Mean squared distance of a training record to the mean of its class."""
    distance: Distance

    def probabilities(self, x: Rows, rows: np.ndarray) -> np.ndarray:
        """Return the probabilities of equal spherical Gaussians about the means; the nearest is the most probable.

        They are a softmax of minus half the squared distances over the spread a feature.
        """
        x_ND = _scaled(x[rows], self.distance)
        squared_NC = np.stack([((x_ND - mean_D) ** 2).sum(axis=1) for mean_D in self.mean_CD], axis=1)
        return softmax(-squared_NC * self.mean_CD.shape[1] / (2 * self.spread), axis=1)


@dataclass(frozen=True, kw_only=True)
class NearestMean:
    """The class whose mean over the training records is nearest, of classes that exclude each other.

    Nothing but means is learned.
    """

    distance: Distance = "euclid"
    """`euclid`, or `cosine`, which scales features and then means to length one."""

    takes: ClassVar[Takes] = "features"

    @property
    def chooses(self) -> bool:
        return False

    def __post_init__(self) -> None:
        if self.distance not in ("euclid", "cosine"):
            raise ValueError(f"distance={self.distance!r}: use 'euclid' or 'cosine'")

    def to_dict(self) -> dict[str, Any]:
        return {"head": "nearest_mean", "distance": self.distance}

    def fit(self, problem: FitProblem) -> Fit:
        """Compute the means. Raises ValueError if classes do not exclude each other."""
        if not problem.multi_class:
            raise ValueError("nearest class mean: a record has one nearest mean, so use a multi-class task")
        x_ND = _scaled(problem.x[problem.train], self.distance)
        y_NC = problem.y_NC[problem.train].astype(np.float64)
        mean_CD = _scaled(y_NC.T @ x_ND / y_NC.sum(axis=0)[:, None], self.distance)
        # If features hardly differ, as of a collapsed encoder, the spread is rounding error; it must not be zero.
        least = 1e-12 * float((mean_CD**2).sum(axis=1).max()) + np.finfo(np.float64).tiny
        spread = max(float(((x_ND - y_NC @ mean_CD) ** 2).sum(axis=1).mean()), least)
        return Fit(model=ClassMeans(mean_CD=mean_CD, spread=spread, distance=self.distance))


def scorable(y_NC: np.ndarray, min_positives: int, split: Split) -> tuple[list[int], dict[int, str]]:
    """Return the columns that a split can score, and the reasons why the others cannot be scored.

    Raises InsufficientData if there is none.
    """
    why = {c: ranking.why_not_scorable(y_NC[:, c], min_positives) for c in range(y_NC.shape[1])}
    scorable_C = [c for c, reason in why.items() if reason is None]
    if not scorable_C:
        raise InsufficientData(
            f"no class can be scored on the {split} split of {len(y_NC)} records: none has {min_positives} positives "
            "and a negative there"
        )
    return scorable_C, {c: reason for c, reason in why.items() if reason is not None}


def _scaled(x_ND: np.ndarray, distance: Distance) -> np.ndarray:
    """Return rows (N, D) as float64, scaled to length one for `cosine`; a row of zeros stays zero."""
    x_ND = x_ND.astype(np.float64)
    if distance == "euclid":
        return x_ND
    return x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), np.finfo(np.float64).tiny)
