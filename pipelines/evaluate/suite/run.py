"""The suite's evaluations, done: an encoder in one of them, beside what it has to beat.

Shapes: R resamples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipelines import versions
from pipelines.cache import Product, Workspace, write_atomically
from pipelines.encoders.names import OURS, EncoderNames
from pipelines.evaluate.exposure import Overlap, Overlaps
from pipelines.evaluate.features import FeatureConfig, FeatureSource, OnProgress, encoder_and_random_baseline
from pipelines.evaluate.probes.assessment import Points, points
from pipelines.evaluate.probes.attention_pool import AttentionPool
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.fine_tune import FineTune
from pipelines.evaluate.probes.fit import accuracy, linear_head
from pipelines.evaluate.probes.handcrafted import HandcraftedSource
from pipelines.evaluate.probes.heads import Head, NearestMean, PaperLoop
from pipelines.evaluate.probes.result import Predictions, ProbeResult, load_result
from pipelines.evaluate.probes.step import materialize_probe
from pipelines.evaluate.probes.stored import Probe
from pipelines.evaluate.statistics import bootstrap, paired, ranking
from pipelines.evaluate.statistics.bootstrap import Interval, PairedDifference
from pipelines.evaluate.suite import noise
from pipelines.evaluate.suite.names import FROZEN, Evaluation, HeadName
from pipelines.hashing import digest_of
from pipelines.tasks.splits import Split, drawn_by

MEAN_FILE = "mean.json"

LAYERWISE = FineTune(batch=64, rate=4e-3, group_decay=0.1, precision="bf16")
"""The paper's recipe with the learning rates, the batch and the mixed precision of the benchmark (arXiv 2509.25095, by
its code): 1e-3 for the linear layer, 1e-4 and 1e-5 for the groups of layers below. There the rates stay as they are for
100 epochs, of which the best on validation is kept."""


def head_of(asked: Evaluation) -> Head | None:
    """Its head; None is the linear one of `ProbeConfig`. Without a validation split nothing is chosen: one setting, and
    the last epoch."""
    chosen = asked.task.protocol.has_validation
    keep: Literal["best", "last"] = "best" if chosen else "last"
    heads: dict[HeadName, Head | None] = {
        "linear": None,
        "paper_loop": PaperLoop(),
        "nearest_mean": NearestMean(),
        "attention_pool": AttentionPool() if chosen else AttentionPool(rates=(3e-3,), weight_decays=(1e-2,), keep=keep),
        "fine_tuned": FineTune(keep=keep),
        "fine_tuned_layerwise": replace(LAYERWISE, keep=keep),
    }
    return heads[asked.head]


def materialize_evaluation(
    workspace: Workspace,
    asked: Evaluation,
    source: FeatureSource,
    config: ProbeConfig | None = None,
    progress: OnProgress | None = None,
) -> Product:
    """The product `probe/<evaluation>/<source of features>`.

    Where labels are few it is of the mean over the draws: `mean.json` and facts hold the figures, `draws` names each
    draw's own product, with the ECGs that it was fitted on and chosen on. Facts are as `materialize_probe` gives them.
    """
    config = config or ProbeConfig()
    features, head = FeatureConfig(leads=asked.leads), head_of(asked)
    condition = None if asked.noise is None else noise.condition(*asked.noise)
    products = [
        materialize_probe(workspace, task, source, config, features, progress, head=head, condition=condition)
        for task in asked.draws()
    ]
    if len(products) == 1:
        return products[0]

    def make(folder: Path) -> dict[str, Any]:
        facts = _mean_facts(products, config, chooses=(head or linear_head(config)).chooses)
        write_atomically(folder / MEAN_FILE, json.dumps(facts, indent=1, allow_nan=False).encode())
        return facts

    return workspace.build(
        f"probe/{asked.name}/{source.name}",
        version=versions.PROBE,
        config={"mean of": [task.to_dict() for task in asked.draws()]},
        inputs={product.name: product.digest for product in products},
        make=make,
    )


def _mean_facts(products: Sequence[Product], config: ProbeConfig, *, chooses: bool) -> dict[str, Any]:
    reasons = [product.facts["reason"] for product in products if not product.facts["scored"]]
    facts: dict[str, Any] = {
        "scored": not reasons,
        "reason": reasons[0] if reasons else None,
        "data_digest": digest_of([product.facts["data_digest"] for product in products]),
        "draws": [
            {
                "product": product.name,
                "fingerprint": product.fingerprint,
                "train_records": product.facts["counts"]["train"],
                "chosen_on": product.facts["counts"]["validation"] if chooses else 0,
                "test_macro_auc": product.facts.get("test_macro_auc"),
                "omitted": product.facts.get("omitted"),
            }
            for product in products
        ],
    }
    if "window" in products[0].facts:
        facts["window"] = products[0].facts["window"]
    if not reasons:
        results = [load_result(product.path) for product in products]
        facts["test_macro_auc"] = asdict(_mean(results, config, _macro_auc).interval(config.confidence))
        if all(result.scores is not None and result.scores.test.accuracy is not None for result in results):
            facts["test_accuracy"] = asdict(_mean(results, config, _accuracy).interval(config.confidence))
    return facts


def folders_of(workspace: Workspace, product: Product) -> dict[str, Path]:
    """The directories of the probes behind an evaluation's product, by task: its own, or that of each draw."""
    draws = product.facts.get("draws")
    if draws is None:
        return {product.name.split("/")[1]: product.path}
    return {draw["product"].split("/")[1]: workspace.folder(draw["product"]) / draw["fingerprint"] for draw in draws}


def results_of(workspace: Workspace, product: Product) -> list[ProbeResult]:
    """The results behind an evaluation's product: one, or one of each draw."""
    return [load_result(folder) for folder in folders_of(workspace, product).values()]


def labels_used(product: Product) -> str | None:
    """Of an evaluation with few labels: the ECGs that it was fitted on, over the draws, and those that were chosen on.
    None for another, and for one of an earlier version, which does not say."""
    draws = product.facts.get("draws", [])
    if not draws or "chosen_on" not in draws[0]:
        return None
    fitted = sorted(draw["train_records"] for draw in draws)
    few = f"{fitted[0]:,}" if fitted[0] == fitted[-1] else f"{fitted[0]:,} to {fitted[-1]:,}"
    chosen = draws[0]["chosen_on"]
    return f"fitted on {few} ECGs, {f'chosen on {chosen:,} of validation' if chosen else 'nothing chosen'}"


@dataclass(frozen=True, kw_only=True)
class _Mean:
    """A figure on the test split, the mean over draws, and that of each resample."""

    value: float
    resampled_R: np.ndarray

    def interval(self, confidence: float) -> Interval:
        return bootstrap.interval(self.value, self.resampled_R, confidence)


Figure = Callable[[ProbeResult, Predictions, np.ndarray], tuple[float, np.ndarray]]
"""Of a result, its test split and (R, N) resamples: a figure, and that of each resample."""


def _macro_auc(result: ProbeResult, test: Predictions, times_RN: np.ndarray) -> tuple[float, np.ndarray]:
    assert result.scores is not None
    column = [test.classes.index(scored.name) for scored in result.scores.test.classes]
    resampled_RC = ranking.resampled_auc(test.y_NC[:, column], test.score_NC[:, column], times_RN)
    return result.scores.test.macro_auc.value, resampled_RC.mean(axis=1)


def _accuracy(result: ProbeResult, test: Predictions, times_RN: np.ndarray) -> tuple[float, np.ndarray]:
    return accuracy(test, times_RN)


def _mean(results: Sequence[ProbeResult], config: ProbeConfig, figure: Figure) -> _Mean:
    """Each draw is tested on the same records, so each resample is the same for all."""
    found = []
    for result in results:
        assert result.predictions is not None
        test = result.predictions.of(Split.TEST)
        times_RN = bootstrap.resample_patients(test.patient, resamples=config.resamples, seed=config.seed)
        found.append(figure(result, test, times_RN))
    values, resampled = zip(*found, strict=True)
    return _Mean(value=float(np.mean(values)), resampled_R=np.ma.mean(np.ma.stack(resampled), axis=0))


def paired_lead(
    workspace: Workspace, first: Product, second: Product, config: ProbeConfig, most: int = 0
) -> PairedDifference | None:
    """Test macro AUC of a first product of an evaluation minus that of a second, by paired bootstrap, by patient; None
    where one of them was not scored. most: resamples, as `statistics.paired_differences` has it.

    Raises ValueError where they are not of the same ECGs, labels and protocol.
    """
    if first.facts["data_digest"] != second.facts["data_digest"]:
        raise ValueError(f"{first.name} and {second.name} are of other ECGs or protocols: evaluate both again")
    if not (first.facts["scored"] and second.facts["scored"]):
        return None
    results = [results_of(workspace, product) for product in (first, second)]
    value, difference_R, seed = 0.0, np.ma.masked_all(0), config.seed
    while (drawn := len(difference_R)) < config.resamples or (
        drawn < most and bootstrap.far_side(difference_R) < paired.FAR_SIDE
    ):
        size = min(paired.BLOCK, (config.resamples if drawn < config.resamples else most) - drawn)
        block = replace(config, resamples=size, seed=seed)
        one, other = (_mean(draws, block, _macro_auc) for draws in results)
        value, seed = one.value - other.value, seed + 1
        difference_R = np.ma.concatenate([difference_R, one.resampled_R - other.resampled_R])
    return bootstrap.resampled_difference(value, difference_R, config.confidence)


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """One source of features in an evaluation. ahead: of the encoder that is evaluated, over this one; None for itself
    and where there are no scores. seen: of the test ECGs, in pretraining. drawn: what splits and resamples are
    drawn by. points: of its test split, or of each draw's; none where there are no scores."""

    product: Product
    ahead: PairedDifference | None
    seen: Overlap | None
    drawn: str
    points: tuple[Points, ...]

    @property
    def features(self) -> str:
        """The name of the source of features, and its window where it was made for another than the ECGs'."""
        name, window = self.product.name.rpartition("/")[2], self.product.facts.get("window")
        return name if window is None else f"{name} ({window})"

    def row(self) -> dict[str, Any]:
        """Its figures, as a row of a table; where there are draws, their means."""
        facts, ahead = self.product.facts, self.ahead
        auc, right = facts.get("test_macro_auc"), facts.get("test_accuracy")
        f1 = [one.f1 for one in self.points if one.f1 is not None]
        used = labels_used(self.product)
        return {
            "features": self.features,
            "test macro AUC": None if auc is None else round(auc["value"], 4),
            "interval": "" if auc is None else f"{auc['low']:.3f} to {auc['high']:.3f}",
            "accuracy": None if right is None else round(right["value"], 4),
            "average precision": _rounded([one.average_precision for one in self.points]),
            "F1": _rounded(f1) if len(f1) == len(self.points) else None,
            "Brier score": _rounded([one.brier for one in self.points]),
            "seen": "" if self.seen is None else self.seen.in_words(),
            "ahead of it": "" if ahead is None else f"{ahead.value:+.3f} ({ahead.low:+.3f} to {ahead.high:+.3f})",
            **({} if used is None else {"labels": used}),
        }


def evaluation_rows(workspace: Workspace, products: Sequence[Product], config: ProbeConfig) -> list[EvaluationRow]:
    """The first product of an evaluation, and beside it the others."""
    first, overlaps = products[0], Overlaps(workspace)
    found = []
    for product in products:
        probes = [Probe.load(folder) for folder in folders_of(workspace, product).values()]
        test = probes[0].test
        found.append(
            EvaluationRow(
                product=product,
                ahead=None if product is first else paired_lead(workspace, first, product, config),
                seen=None if test is None else overlaps.of_probe(probes[0]),
                drawn="" if test is None else drawn_by(len(test.record_id), test.unnamed),
                points=tuple(points(one.result, one.settings) for one in probes) if product.facts["scored"] else (),
            )
        )
    return found


def _rounded(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def evaluate_encoder(
    workspace: Workspace,
    asked: Evaluation,
    config: ProbeConfig | None = None,
    encoder_names: EncoderNames = OURS,
    progress: OnProgress | None = None,
) -> list[EvaluationRow]:
    """An encoder of the workspace in an evaluation, first, and what it has to beat: its random baseline and the
    handcrafted features, where the head is one on features, and the random baseline alone where it is on tokens.

    A head that trains the encoder stands alone: its random baseline would cost as much again.
    """
    config = config or ProbeConfig()
    encoder, random_baseline = encoder_and_random_baseline(workspace, encoder_names)
    head = head_of(asked)
    sources: list[FeatureSource] = [encoder]
    if asked.head in FROZEN:
        sources.append(random_baseline)
    if head is None or head.takes == "features":
        sources.append(HandcraftedSource())
    products = [materialize_evaluation(workspace, asked, source, config, progress) for source in sources]
    return evaluation_rows(workspace, products, config)
