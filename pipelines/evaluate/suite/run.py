"""Run an evaluation of the suite: an encoder in it, and the baselines that it has to beat.

Shapes: N test records, C classes, R resamples, B resamples of a block.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.durable import write_atomically
from pipelines.encoders.names import OURS
from pipelines.evaluate.exposure import Overlap, Overlaps
from pipelines.evaluate.features import (
    EncoderSource,
    FeatureConfig,
    FeatureSource,
    OnProgress,
    encoder_and_random_baseline,
)
from pipelines.evaluate.probes.assessment import Points, points
from pipelines.evaluate.probes.attention_pool import AttentionPool
from pipelines.evaluate.probes.comparison import paired_test_scores
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.fine_tune import FineTune
from pipelines.evaluate.probes.fit import accuracy, linear_head
from pipelines.evaluate.probes.handcrafted import HandcraftedSource
from pipelines.evaluate.probes.heads import Head, NearestMean, PaperLoop
from pipelines.evaluate.probes.result import Predictions, ProbeResult, load_result
from pipelines.evaluate.probes.step import DrawFacts, ProbeFacts, materialize_probe
from pipelines.evaluate.probes.stored import Probe, as_ours_was_probed
from pipelines.evaluate.statistics import bootstrap, paired, ranking
from pipelines.evaluate.statistics.bootstrap import Interval, PairedDifference
from pipelines.evaluate.suite import noise
from pipelines.evaluate.suite.names import FROZEN, Evaluation, HeadName
from pipelines.formatting import format_difference, format_range
from pipelines.hashing import digest_of
from pipelines.program import Launch
from pipelines.tasks.catalogue import TASKS
from pipelines.tasks.splits import Split, drawn_by

MEAN_FILE = "mean.json"

LAYERWISE = FineTune(batch=64, rate=4e-3, group_decay=0.1, precision="bf16")
"""The paper's recipe with the learning rates, the batch and the mixed precision of the benchmark (arXiv 2509.25095, by
its code): 1e-3 for the linear layer, 1e-4 and 1e-5 for the groups of layers below. There the rates stay as they are for
100 epochs, of which the best on validation is kept."""


def head_of(evaluation: Evaluation) -> Head | None:
    """Return an evaluation's head; None is the linear one of `ProbeConfig`.

    Without a validation split nothing is chosen: the head has one setting and takes the last epoch.
    """
    chosen = evaluation.task.protocol.has_validation
    keep: Literal["best", "last"] = "best" if chosen else "last"
    heads: dict[HeadName, Head | None] = {
        "linear": None,
        "paper_loop": PaperLoop(),
        "nearest_mean": NearestMean(),
        "attention_pool": AttentionPool() if chosen else AttentionPool(rates=(3e-3,), weight_decays=(1e-2,), keep=keep),
        "fine_tuned": FineTune(keep=keep),
        "fine_tuned_layerwise": replace(LAYERWISE, keep=keep),
    }
    return heads[evaluation.head]


def materialize_evaluation(
    workspace: Workspace,
    evaluation: Evaluation,
    source: FeatureSource,
    config: ProbeConfig | None = None,
    progress: OnProgress | None = None,
    launch: Launch | None = None,
) -> Product:
    """Build `probe/<evaluation>/<source of features>`. Facts are `ProbeFacts`.

    If labels are few it is the mean over the draws: `mean.json` and facts hold the figures, and `draws` names each
    draw's own product, with the ECGs that it was fitted on and chosen on.

    launch: as in `materialize_probe`
    """
    config = config or ProbeConfig()
    features, head = FeatureConfig(leads=evaluation.leads), head_of(evaluation)
    condition = None if evaluation.noise is None else noise.condition(*evaluation.noise)
    products = [
        materialize_probe(
            workspace, task, source, config, features, progress, head=head, condition=condition, launch=launch
        )
        for task in evaluation.draws()
    ]
    if len(products) == 1:
        return products[0]

    def make(folder: Path) -> dict[str, Any]:
        facts = _mean_facts(products, config, chooses=(head or linear_head(config)).chooses).to_dict()
        write_atomically(folder / MEAN_FILE, json.dumps(facts, indent=1, allow_nan=False).encode())
        return facts

    return workspace.build(
        f"probe/{evaluation.name}/{source.name}",
        version=versions.PROBE,
        config={"mean of": [task.to_dict() for task in evaluation.draws()]},
        inputs={product.name: product.digest for product in products},
        make=make,
    )


def _mean_facts(products: Sequence[Product], config: ProbeConfig, *, chooses: bool) -> ProbeFacts:
    """Return the facts of the mean over draws; a mean is scored if every draw is."""
    draws = [ProbeFacts.of(product) for product in products]
    reasons = [draw.reason for draw in draws if not draw.scored]
    macro_auc, mean_accuracy = None, None
    if not reasons:
        results = [load_result(product.path) for product in products]
        macro_auc = _mean(results, config, _macro_auc)
        if all(draw.test_accuracy is not None for draw in draws):
            mean_accuracy = _mean(results, config, _accuracy)
    return ProbeFacts(
        scored=not reasons,
        reason=reasons[0] if reasons else None,
        data_digest=digest_of([draw.data_digest for draw in draws]),
        draws=tuple(_draw_facts(product, chooses=chooses) for product in products),
        window=draws[0].window,
        test_macro_auc=macro_auc,
        test_accuracy=mean_accuracy,
    )


def _draw_facts(product: Product, *, chooses: bool) -> DrawFacts:
    facts = ProbeFacts.of(product)
    assert facts.counts is not None
    return DrawFacts(
        product=product.name,
        fingerprint=product.fingerprint,
        train_records=facts.counts["train"],
        chosen_on=facts.counts["validation"] if chooses else 0,
        test_macro_auc=facts.test_macro_auc,
        omitted=facts.omitted,
    )


def folders_of(workspace: Workspace, product: Product) -> dict[str, Path]:
    """Return the directories of the probes behind an evaluation's product, by task: its own, or each draw's."""
    draws = ProbeFacts.of(product).draws
    if draws is None:
        return {product.name.split("/")[1]: product.path}
    return {draw.product.split("/")[1]: workspace.folder(draw.product) / draw.fingerprint for draw in draws}


def results_of(workspace: Workspace, product: Product) -> list[ProbeResult]:
    """Return the results behind an evaluation's product: one, or one of each draw."""
    return [load_result(folder) for folder in folders_of(workspace, product).values()]


def labels_used(product: Product) -> str | None:
    """Say how many ECGs an evaluation with few labels was fitted on, over the draws, and how many were chosen on.

    Returns None for any other evaluation, and for one of an earlier version that does not have these counts.
    """
    draws = ProbeFacts.of(product).draws
    if not draws or draws[0].chosen_on is None:
        return None
    fitted = sorted(draw.train_records for draw in draws)
    few = f"{fitted[0]:,}" if fitted[0] == fitted[-1] else f"{fitted[0]:,} to {fitted[-1]:,}"
    chosen = draws[0].chosen_on
    return f"fitted on {few} ECGs, {f'chosen on {chosen:,} of validation' if chosen else 'nothing chosen'}"


Figure = Callable[[ProbeResult, Predictions, np.ndarray], tuple[float, np.ndarray]]
"""Returns a figure, and that of each resample, of a result, its test split and (R, N) resamples."""


def _macro_auc(result: ProbeResult, test: Predictions, times_RN: np.ndarray) -> tuple[float, np.ndarray]:
    assert result.scores is not None
    column = [test.classes.index(scored.name) for scored in result.scores.test.classes]
    resampled_RC = ranking.resampled_auc(test.y_NC[:, column], test.score_NC[:, column], times_RN)
    return result.scores.test.macro_auc.value, resampled_RC.mean(axis=1)


def _accuracy(result: ProbeResult, test: Predictions, times_RN: np.ndarray) -> tuple[float, np.ndarray]:
    return accuracy(test, times_RN)


def _mean(results: Sequence[ProbeResult], config: ProbeConfig, figure: Figure) -> Interval:
    """Return a figure's mean over draws, with its interval.

    Each draw is tested on the same records, so each resample is the same for all.
    """
    values, resampled = [], []
    for result in results:
        assert result.predictions is not None
        test = result.predictions.of(Split.TEST)
        times_RN = bootstrap.resample_patients(test.patient, resamples=config.resamples, seed=config.seed)
        value, resampled_R = figure(result, test, times_RN)
        values.append(value)
        resampled.append(resampled_R)
    return bootstrap.interval(float(np.mean(values)), _mean_of(resampled), config.confidence)


def resampled_test_auc(workspace: Workspace, product: Product, config: ProbeConfig) -> np.ma.MaskedArray:
    """Return the test macro AUC of an evaluation in each resample of the test patients, (R,); of draws, their mean.

    The resamples of two evaluations of the same ECGs are the same. Raises ValueError if it was not scored.
    """
    if not ProbeFacts.of(product).scored:
        raise ValueError(f"{product.name} was not scored: {ProbeFacts.of(product).reason}")
    resampled = []
    for result in results_of(workspace, product):
        assert result.predictions is not None
        test = result.predictions.of(Split.TEST)
        times_RN = bootstrap.resample_patients(test.patient, resamples=config.resamples, seed=config.seed)
        resampled.append(_macro_auc(result, test, times_RN)[1])
    return _mean_of(resampled)


def _mean_of(resampled: Sequence[np.ndarray]) -> np.ma.MaskedArray:
    """Return the mean over draws of each resample, (R,)."""
    return np.ma.mean(np.ma.stack(resampled), axis=0)


def paired_lead(
    workspace: Workspace, first: Product, second: Product, config: ProbeConfig, most: int = 0
) -> PairedDifference | None:
    """Return the test macro AUC of a first product of an evaluation minus that of a second, by paired bootstrap.

    Returns None if one of them was not scored.

    most: how often it is resampled at most, see `paired.resampled_until_clear`.
    Raises ValueError if they are not of the same ECGs, labels and protocol.
    """
    facts = [ProbeFacts.of(product) for product in (first, second)]
    if facts[0].data_digest != facts[1].data_digest:
        raise ValueError(f"{first.name} and {second.name} are of other ECGs or protocols: evaluate both again")
    if not all(one.scored for one in facts):
        return None
    draws = list(zip(*(results_of(workspace, product) for product in (first, second)), strict=True))
    pairs = [paired_test_scores(*draw) for draw in draws]
    assert all(pair.patient == pairs[0].patient for pair in pairs)

    def resampled(times_BN: np.ndarray, _: np.ndarray) -> np.ndarray:
        first_B, second_B = (
            _mean_of([ranking.resampled_auc(pair.y_NC, score_NC, times_BN).mean(axis=1) for pair, score_NC in scored])
            for scored in ([(pair, pair.first_NC) for pair in pairs], [(pair, pair.second_NC) for pair in pairs])
        )
        return (first_B - second_B)[:, None]

    difference_R1 = paired.resampled_until_clear(
        resampled, pairs[0].patient, np.array([most]), resamples=config.resamples, seed=config.seed
    )
    value = _mean_test_auc([draw[0] for draw in draws]) - _mean_test_auc([draw[1] for draw in draws])
    return bootstrap.resampled_difference(value, difference_R1[:, 0], config.confidence)


def _mean_test_auc(results: Sequence[ProbeResult]) -> float:
    """Return the mean over draws of the test macro AUC."""
    return float(np.mean([result.scores.test.macro_auc.value for result in results if result.scores is not None]))


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """One source of features in an evaluation."""

    product: Product
    lead: PairedDifference | None
    """Of the evaluated encoder over this source; None for the encoder itself, and if there are no scores."""
    overlap: Overlap | None
    """Of its pretraining data with the test ECGs; None if there are no scores."""
    drawn: str
    """The unit that splits and resamples draw: patient, ECG, or both."""
    points: tuple[Points, ...]
    """Of its test split, or of each draw's; empty if there are no scores."""
    labels_scored: str
    """Over how many of the task's labels its figures are, such as `3 of 9`; of draws that differ, each."""

    @property
    def features(self) -> str:
        """The name of the source of features, and its window if that is not the ECGs'."""
        name, window = self.product.name.rpartition("/")[2], ProbeFacts.of(self.product).window
        return name if window is None else f"{name} ({window})"

    def row(self) -> dict[str, Any]:
        """Return its figures as a row of a table; of draws, their means."""
        facts, lead = ProbeFacts.of(self.product), self.lead
        auc, right = facts.test_macro_auc, facts.test_accuracy
        f1 = [points.f1 for points in self.points if points.f1 is not None]
        used = labels_used(self.product)
        return {
            "features": self.features,
            "test macro AUC": None if auc is None else round(auc.value, 4),
            "interval": "" if auc is None else format_range(auc.low, auc.high),
            "labels scored": self.labels_scored,
            "accuracy": None if right is None else round(right.value, 4),
            "average precision": _rounded([points.average_precision for points in self.points]),
            "F1": _rounded(f1) if len(f1) == len(self.points) else None,
            "Brier score": _rounded([points.brier for points in self.points]),
            "seen": "" if self.overlap is None else self.overlap.in_words(),
            "ahead of it": "" if lead is None else format_difference(lead.value, lead.low, lead.high),
            **({} if used is None else {"labels": used}),
        }


def evaluation_rows(workspace: Workspace, products: Sequence[Product], config: ProbeConfig) -> list[EvaluationRow]:
    """Return a row for each product of an evaluation, the evaluated encoder's first."""
    first, overlaps = products[0], Overlaps(workspace)
    rows = []
    for product in products:
        probes = [Probe.load(folder) for folder in folders_of(workspace, product).values()]
        test = probes[0].test
        scored = ProbeFacts.of(product).scored
        rows.append(
            EvaluationRow(
                product=product,
                lead=None if product is first else paired_lead(workspace, first, product, config),
                overlap=None if test is None else overlaps.of_probe(probes[0]),
                drawn="" if test is None else drawn_by(len(test.record_id), test.unnamed),
                points=tuple(points(probe.result, probe.settings) for probe in probes) if scored else (),
                labels_scored=labels_of_draws([probe.result for probe in probes]),
            )
        )
    return rows


def labels_of_draws(results: Sequence[ProbeResult]) -> str:
    """Return over how many of the task's labels the figures of one result, or of several draws, are; empty of none."""
    return ", ".join(dict.fromkeys(result.scores.test.labels for result in results if result.scores is not None))


def _rounded(values: Sequence[float]) -> float | None:
    """Return the mean to four digits, or None of no values."""
    return round(float(np.mean(values)), 4) if values else None


def evaluate_encoder(
    workspace: Workspace,
    evaluation: Evaluation,
    config: ProbeConfig | None = None,
    encoders: tuple[EncoderSource, EncoderSource] | None = None,
    progress: OnProgress | None = None,
    launch: Launch | None = None,
) -> list[EvaluationRow]:
    """Evaluate an encoder and its baselines; return a row each, the encoder's first.

    config: None is as our encoder was last probed, if the evaluation is the plain probe of a task, else the defaults.
    encoders: an encoder and its random baseline; None is the workspace's own.
    With a head on features the baselines are the random one and handcrafted features, with one on tokens the random one
    alone. A head that trains the encoder has none: its random baseline would cost as much again.

    launch: as in `materialize_probe`
    """
    if config is None and evaluation.name in TASKS:
        task, config = as_ours_was_probed(workspace, evaluation.task)
        evaluation = replace(evaluation, task=task)
    config = config or ProbeConfig()
    encoder, random_baseline = encoders or encoder_and_random_baseline(workspace, OURS)
    head = head_of(evaluation)
    sources: list[FeatureSource] = [encoder]
    if evaluation.head in FROZEN:
        sources.append(random_baseline)
    if head is None or head.takes == "features":
        sources.append(HandcraftedSource())
    products = [materialize_evaluation(workspace, evaluation, source, config, progress, launch) for source in sources]
    return evaluation_rows(workspace, products, config)
