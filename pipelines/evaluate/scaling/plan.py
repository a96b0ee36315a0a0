"""The trainings that the settings of scaling curves mean. Nothing is trained or written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipelines.cache import Product, Workspace
from pipelines.corpus.index import CorpusIndex
from pipelines.corpus.step import CorpusFacts
from pipelines.corpus.subset import Subset, percent, subsets
from pipelines.evaluate.scaling.config import Fixed, ScalingConfig
from pipelines.evaluate.suite.names import FROZEN, Evaluation, evaluation
from pipelines.harmonize.shards import shards_of
from pipelines.pretrain.recipes import Recipe
from pipelines.pretrain.step import require_judgeable

FEW_LABELS = (1, 10)
"""Percentages of the training patients' labels with which each encoder is probed, too."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training of a plan."""

    curve: str
    subset: Subset
    recipe: Recipe
    """With what share, seed and `fixed` make of it."""
    fixed: Fixed

    @property
    def name(self) -> str:
        """The last part of the names of its products. With all patients, `fixed` makes no difference."""
        share = percent(self.subset.share)
        return f"{self.curve}-{share if self.subset.share == 1 else f'{self.fixed}-{share}'}-seed-{self.subset.seed}"

    @property
    def steps(self) -> int:
        """Its updates."""
        return self.recipe.total_steps(self.subset.records)

    def in_words(self) -> str:
        return f"{self.curve}, {percent(self.subset.share)} % of the patients, seed {self.subset.seed}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All trainings of the settings, the smallest share first, on a corpus."""

    config: ScalingConfig
    evaluation: Evaluation
    corpus: Product
    runs: tuple[Run, ...]

    @property
    def few_labels(self) -> dict[int, Evaluation]:
        """The same evaluation with few labels, by percentage; none if it cannot have them or would train encoders."""
        one = self.evaluation
        if one.percent is not None or one.noise is not None or one.head not in FROZEN:
            return {}
        return {percentage: evaluation(f"{one.name}__labels_{percentage}") for percentage in FEW_LABELS}


def planned(workspace: Workspace, config: ScalingConfig) -> Plan:
    """Return the plan of the settings on the current corpus.

    Raises ValueError if there is no corpus, if it has too few validation ECGs, if a share has too few patients, if two
    shares are the same patients, and if the evaluation's ECGs are not here.
    """
    corpus, judged = workspace.require("corpus"), evaluation(config.evaluation)
    facts = CorpusFacts.of(corpus)
    require_judgeable(facts)
    if not shards_of(workspace, judged.task.source):
        raise ValueError(
            f"evaluation={config.evaluation!r}: no ECGs of {judged.task.source} in {workspace.root}: harmonize them "
            "first, or name an evaluation whose ECGs are here (`ecg evaluate` lists them)"
        )
    index = CorpusIndex(corpus.path).table(["split", "source", "record_id", "patient_id"])
    shares = sorted(config.shares)
    drawn = {seed: dict(zip(shares, subsets(index, shares, seed), strict=True)) for seed in config.seeds}
    runs = [
        Run(
            curve=curve,
            subset=drawn[seed][share],
            recipe=recipe_on(recipe, drawn[seed][share], fixed=config.fixed, whole=facts.train),
            fixed=config.fixed,
        )
        for share in shares
        for seed in config.seeds
        for curve, recipe in config.curves().items()
    ]
    return Plan(config=config, evaluation=judged, corpus=corpus, runs=tuple(runs))


def recipe_on(recipe: Recipe, subset: Subset, *, fixed: Fixed, whole: int) -> Recipe:
    """Return a curve's recipe for a subset of a corpus of `whole` training ECGs.

    The whole share has the recipe as it is but for the seed, so that an encoder that was pretrained already is found.
    At fixed updates the online probe scores after as many updates as it does there.
    """
    recipe = replace(recipe, seed=subset.seed)
    if subset.share == 1:
        return recipe
    if fixed == "updates":
        every = recipe.probe_epochs
        probe_epochs = None if every is None else every * whole / subset.records
        return replace(recipe, epochs=None, steps=recipe.total_steps(whole), probe_epochs=probe_epochs)
    if recipe.steps is None:
        return recipe
    return replace(recipe, steps=None, epochs=recipe.steps * recipe.batch / whole)


def by_curve(runs: Sequence[Run]) -> Mapping[str, list[Run]]:
    """Return the runs of each curve, in their order."""
    curves: dict[str, list[Run]] = {}
    for run in runs:
        curves.setdefault(run.curve, []).append(run)
    return curves
