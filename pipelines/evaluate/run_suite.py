"""The suite's evaluations, done: an encoder in one of them, beside what it has to beat.

Shapes: R resamples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipelines import versions
from pipelines.evaluate import noise, statistics
from pipelines.evaluate.attention_pool import AttentionPool
from pipelines.evaluate.features import FeatureConfig, FeatureSource, Progress
from pipelines.evaluate.fine_tune import FineTune
from pipelines.evaluate.handcrafted import HandcraftedSource
from pipelines.evaluate.heads import Head, NearestMean, PaperLoop
from pipelines.evaluate.pair import encoder_and_twin
from pipelines.evaluate.probe import ProbeConfig, linear_head, materialize_probe
from pipelines.evaluate.result import ProbeResult, load_result
from pipelines.evaluate.statistics import Interval
from pipelines.evaluate.subject import OURS, Subject
from pipelines.evaluate.suite import FROZEN, Evaluation, HeadName
from pipelines.labels import Split
from pipelines.stage import Product, Workspace, digest_of, write_atomically

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
    progress: Progress | None = None,
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
        found = _mean_macro([load_result(product.path) for product in products], config)
        facts["test_macro_auc"] = asdict(found.interval(config.confidence))
    return facts


def results_of(workspace: Workspace, product: Product) -> list[ProbeResult]:
    """The results behind an evaluation's product: one, or one of each draw."""
    if "draws" not in product.facts:
        return [load_result(product.path)]
    draws = product.facts["draws"]
    return [load_result(workspace.folder(draw["product"]) / draw["fingerprint"]) for draw in draws]


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
class _Macro:
    """Test macro AUC, and that of each resample."""

    value: float
    resampled_R: np.ndarray

    def interval(self, confidence: float) -> Interval:
        return statistics.interval(self.value, self.resampled_R, confidence)


def _mean_macro(results: Sequence[ProbeResult], config: ProbeConfig) -> _Macro:
    """The mean over draws. Each draw is tested on the same records, so each resample is the same for all."""
    values, resampled = [], []
    for result in results:
        assert result.scores is not None
        assert result.predictions is not None
        part = result.predictions.of(Split.TEST)
        column = [part.classes.index(scored.name) for scored in result.scores.test.classes]
        times_RN = statistics.resample_patients(part.patient, resamples=config.resamples, seed=config.seed)
        values.append(result.scores.test.macro_auc.value)
        resampled.append(
            statistics.resampled_auc(part.y_NC[:, column], part.score_NC[:, column], times_RN).mean(axis=1)
        )
    return _Macro(value=float(np.mean(values)), resampled_R=np.ma.mean(np.ma.stack(resampled), axis=0))


def lead_over(workspace: Workspace, first: Product, second: Product, config: ProbeConfig) -> Interval | None:
    """Test macro AUC of a first product of an evaluation minus that of a second, with its paired bootstrap interval, by
    patient; None where one of them was not scored.

    Raises ValueError where they are not of the same ECGs, labels and protocol.
    """
    if first.facts["data_digest"] != second.facts["data_digest"]:
        raise ValueError(f"{first.name} and {second.name} are of other ECGs or protocols: evaluate both again")
    if not (first.facts["scored"] and second.facts["scored"]):
        return None
    one, other = (_mean_macro(results_of(workspace, product), config) for product in (first, second))
    return statistics.interval(one.value - other.value, one.resampled_R - other.resampled_R, config.confidence)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One source of features in an evaluation. ahead: of the encoder that is evaluated, over this one; None for itself
    and where there are no scores."""

    product: Product
    ahead: Interval | None

    @property
    def features(self) -> str:
        """The name of the source of features, and its window where it was made for another than the ECGs'."""
        name, window = self.product.name.rpartition("/")[2], self.product.facts.get("window")
        return name if window is None else f"{name} ({window})"

    def row(self) -> dict[str, Any]:
        """Its figures, as a row of a table."""
        facts, ahead = self.product.facts, self.ahead
        auc, accuracy = facts.get("test_macro_auc"), facts.get("test_accuracy")
        used = labels_used(self.product)
        return {
            "features": self.features,
            "test macro AUC": None if auc is None else round(auc["value"], 4),
            "interval": "" if auc is None else f"{auc['low']:.3f} to {auc['high']:.3f}",
            "accuracy": None if accuracy is None else round(accuracy["value"], 4),
            "ahead of it": "" if ahead is None else f"{ahead.value:+.3f} ({ahead.low:+.3f} to {ahead.high:+.3f})",
            **({} if used is None else {"labels": used}),
        }


def evaluate_subject(
    workspace: Workspace,
    asked: Evaluation,
    config: ProbeConfig | None = None,
    subject: Subject = OURS,
    progress: Progress | None = None,
) -> list[Standing]:
    """An encoder of the workspace in an evaluation, first, and what it has to beat: its random twin and the handcrafted
    features, where the head is one on features, and the twin alone where it is on tokens.

    A head that trains the encoder stands alone: its twin would cost as much again.
    """
    config = config or ProbeConfig()
    encoder, twin = encoder_and_twin(workspace, subject)
    head = head_of(asked)
    sources: list[FeatureSource] = [encoder]
    if asked.head in FROZEN:
        sources.append(twin)
    if head is None or head.takes == "features":
        sources.append(HandcraftedSource())
    first, *others = (materialize_evaluation(workspace, asked, source, config, progress) for source in sources)
    return [
        Standing(product=first, ahead=None),
        *(Standing(product=other, ahead=lead_over(workspace, first, other, config)) for other in others),
    ]
