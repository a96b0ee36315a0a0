"""What is fitted on frozen things: a head is handed rows of an array and gives a model that has probabilities.

A head is a frozen dataclass with its settings. `takes` says what x holds of each record: `features` float32 (N, D),
`tokens` float16 (N, P, D), which may lie on disk, or `signals` int16 microvolt (N, L, T). All are read by `x[rows]`.
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

from ecg_model.encoder import Encoder
from pipelines.cache import write_atomically
from pipelines.evaluate.features import Rows
from pipelines.evaluate.probes import linear
from pipelines.evaluate.probes.result import Trial
from pipelines.evaluate.statistics import ranking
from pipelines.evaluate.statistics.bootstrap import InsufficientData
from pipelines.tasks.splits import Split

LAYER_FILE = "layer.safetensors"
CHECKPOINTS = "checkpoints"

Takes = Literal["features", "tokens", "signals"]
Distance = Literal["euclid", "cosine"]


@dataclass(frozen=True, kw_only=True)
class FitProblem:
    """What a head is fitted to. Every class has positives and negatives among the training rows, and where classes
    exclude each other every training row has one.

    train, validation: row numbers; validation is empty where the protocol has none. encoder: loads a fresh copy of the
    encoder that x is of, to be trained on; heads that take signals need it, and None is given where there is none.
    min_positives: classes with fewer on validation have no part in a choice. folder: of the product that is being made,
    where there is one; a head that trains for long leaves there what it learned, and in CHECKPOINTS what it goes on
    from after a kill, until the product is whole.
    """

    x: Rows
    y_NC: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    multi_class: bool
    seed: int
    min_positives: int = 1
    encoder: Callable[[], Encoder] | None = None
    folder: Path | None = None

    def validation_auc(self, model: Model) -> float:
        """Macro AUC of a model on the validation rows. Raises InsufficientData where no class can be scored there."""
        return self.auc_of(model.probabilities(self.x, self.validation))

    def auc_of(self, score_VC: np.ndarray) -> float:
        """The same of its scores on the validation rows."""
        y_VC = self.y_NC[self.validation]
        scorable_C = scorable(y_VC, self.min_positives, Split.VALIDATION)[0]
        return float(ranking.auc(y_VC[:, scorable_C], score_VC[:, scorable_C]).mean())


class Model(Protocol):
    """A head after its fit."""

    def probabilities(self, x: Rows, rows: np.ndarray) -> np.ndarray:
        """float64 (len(rows), C): a sigmoid a class, or, where classes exclude each other, a row that sums to one."""
        ...


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The chosen model and what was tried; trials are empty where nothing was chosen. penalty: of the chosen model."""

    model: Model
    trials: tuple[Trial, ...] = ()
    penalty: float | None = None


class Head(Protocol):
    """takes: what x has to hold. chooses: whether it makes a choice, for which it needs validation rows."""

    takes: ClassVar[Takes]

    @property
    def chooses(self) -> bool: ...

    def to_dict(self) -> dict[str, Any]:
        """All that its scores depend on, as JSON values."""
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
    """One linear layer solved for each penalty, strongest first; the best on validation is kept, of equals the
    stronger. Two in a row that are no better than the best end the search, since the weakest cost most.

    Leaves it as LAYER_FILE: weight (C, D) and bias (C,), float64.
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
            return self._kept(problem, LinearFit(layer=next(path)), self.penalties[0], ())
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
        return self._kept(problem, models[best], self.penalties[best], tuple(trials))

    def _kept(self, problem: FitProblem, model: LinearFit, penalty: float, trials: tuple[Trial, ...]) -> Fit:
        """With the layer written where a product is being made."""
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
    """mean_CD: of each class's training records. spread: mean squared distance of a training record to its mean."""

    mean_CD: np.ndarray
    spread: float
    distance: Distance

    def probabilities(self, x: Rows, rows: np.ndarray) -> np.ndarray:
        """A softmax of minus half the squared distances over the spread a feature: equal round Gaussians about the
        means. The most probable class is the nearest."""
        x_ND = _scaled(x[rows], self.distance)
        squared_NC = np.stack([((x_ND - mean_D) ** 2).sum(axis=1) for mean_D in self.mean_CD], axis=1)
        return softmax(-squared_NC * self.mean_CD.shape[1] / (2 * self.spread), axis=1)


@dataclass(frozen=True, kw_only=True)
class NearestMean:
    """The class whose mean over the training records is nearest, of classes that exclude each other; nothing is
    learned but means.

    distance: `euclid`, or `cosine`, where features and then means are scaled to length one.
    """

    distance: Distance = "euclid"

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
        """Raises ValueError where classes do not exclude each other."""
        if not problem.multi_class:
            raise ValueError("nearest class mean: a record has one nearest mean, so give a multi-class task")
        x_ND = _scaled(problem.x[problem.train], self.distance)
        y_NC = problem.y_NC[problem.train].astype(np.float64)
        mean_CD = _scaled(y_NC.T @ x_ND / y_NC.sum(axis=0)[:, None], self.distance)
        # Features that hardly differ, as of a collapsed encoder, are told from rounding by nothing.
        least = 1e-12 * float((mean_CD**2).sum(axis=1).max()) + np.finfo(np.float64).tiny
        spread = max(float(((x_ND - y_NC @ mean_CD) ** 2).sum(axis=1).mean()), least)
        return Fit(model=ClassMeans(mean_CD=mean_CD, spread=spread, distance=self.distance))


def scorable(y_NC: np.ndarray, min_positives: int, split: Split) -> tuple[list[int], dict[int, str]]:
    """The columns that a split can score, and why not the others. Raises InsufficientData where there is none."""
    why = {c: ranking.why_not_scorable(y_NC[:, c], min_positives) for c in range(y_NC.shape[1])}
    scorable_C = [c for c, reason in why.items() if reason is None]
    if not scorable_C:
        raise InsufficientData(
            f"no class can be scored on the {split} split of {len(y_NC)} records: none has {min_positives} positives "
            "and a negative there"
        )
    return scorable_C, {c: reason for c, reason in why.items() if reason is not None}


def _scaled(x_ND: np.ndarray, distance: Distance) -> np.ndarray:
    """float64, for `cosine` of length one; a row of zeros stays."""
    x_ND = x_ND.astype(np.float64)
    if distance == "euclid":
        return x_ND
    return x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), np.finfo(np.float64).tiny)
