"""What scaling curves say: points with intervals, laws, and both in tables and sentences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipelines.corpus.subset import percent
from pipelines.evaluate.scaling.fit import PowerLaw
from pipelines.evaluate.statistics.bootstrap import Interval
from pipelines.facts import Facts
from pipelines.formatting import format_difference, format_interval, format_range


@dataclass(frozen=True, kw_only=True)
class Point:
    """A share of the corpus: the mean over seeds."""

    share: float
    records: float
    """ECGs to train on."""
    patients: float
    steps: float
    """Updates."""
    flops: float
    """Of one training."""
    auc: Interval | None
    """Test macro AUC; the interval is over test patients and seeds. None if a seed was not scored."""
    by_seed: tuple[float, ...]
    """The AUC of each seed, in their order; none if one was not scored."""
    few_labels: dict[str, Interval]
    """The AUC with few labels, by the percentage of the training patients that have one, as far as it was scored."""
    reason: str | None
    """Why it was not scored; None if it was."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A recipe on all shares."""

    name: str
    weights: int
    """Of the encoder."""
    points: tuple[Point, ...]
    """By rising share."""
    untrained: Interval | None
    """Test macro AUC of the same network with its initial weights; None if it was not scored."""
    law: PowerLaw | None
    """1 - AUC against ECGs; None if it cannot be told."""
    why: str
    """Why the law cannot be told; empty if it can."""

    def in_words(self) -> str:
        """Return the law with its intervals and what it predicts, or why it cannot be told."""
        if self.law is None:
            return f"{self.name}: a law cannot be told: {self.why}."
        law = self.law
        twice, largest = law.twice, max(point.records for point in self.points)
        return (
            f"{self.name}: 1 - AUC = {law.scale.value:.3g} N^-{law.exponent.value:.2f} + {law.floor.value:.3f} for N "
            f"ECGs, exponent {format_range(law.exponent.low, law.exponent.high)}, floor "
            f"{format_range(law.floor.low, law.floor.high)}; twice the {largest:,.0f} ECGs are predicted to add "
            f"{format_difference(twice.value, twice.low, twice.high)} to the AUC."
        )


@dataclass(frozen=True, kw_only=True)
class ScalingFacts(Facts):
    """Facts of the products `scaling/curves/<evaluation>-<fixed>`, and the contents of scaling.json."""

    evaluation: str
    title: str
    """Of the evaluation."""
    fixed: str
    """What is the same for every share: `epochs` or `updates`."""
    corpus_digest: str
    """As `CorpusFacts.digest`: of the corpus that shares were taken of."""
    records: int
    """ECGs that the whole corpus trains on."""
    seeds: tuple[int, ...]
    confidence: float
    curves: tuple[Curve, ...] = field(default=())

    def headline(self) -> str:
        """Return what was drawn, in one line."""
        recipes = ", ".join(curve.name for curve in self.curves)
        return f"{self.title}, by ECGs of pretraining, at fixed {self.fixed}: {recipes}"

    def sentences(self) -> list[str]:
        """Return the law of each curve, and what the intervals leave out."""
        said = [curve.in_words() for curve in self.curves]
        if len(self.seeds) == 1:
            said.append("One seed: the intervals leave out how much two trainings of the same share differ.")
        return said

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each point, and one for each untrained network."""
        percentages = list(
            dict.fromkeys(p for curve in self.curves for point in curve.points for p in point.few_labels)
        )
        rows: list[dict[str, Any]] = []
        for curve in self.curves:
            rows.append(
                {
                    "recipe": curve.name,
                    "share": "untrained",
                    "ECGs": 0,
                    "patients": 0,
                    "updates": 0,
                    "test macro AUC": "not scored" if curve.untrained is None else _in_words(curve.untrained),
                    "by seed": "",
                    **{f"{p} % of labels": "" for p in percentages},
                }
            )
            for point in curve.points:
                few = {f"{p} % of labels": _in_words(point.few_labels.get(p)) for p in percentages}
                rows.append(
                    {
                        "recipe": curve.name,
                        "share": f"{percent(point.share)} %",
                        "ECGs": round(point.records),
                        "patients": round(point.patients),
                        "updates": round(point.steps),
                        "test macro AUC": f"not scored: {point.reason}" if point.auc is None else _in_words(point.auc),
                        "by seed": ", ".join(f"{value:.3f}" for value in point.by_seed),
                        **few,
                    }
                )
        return rows


def _in_words(auc: Interval | None) -> str:
    return "" if auc is None else format_interval(auc.value, auc.low, auc.high)
