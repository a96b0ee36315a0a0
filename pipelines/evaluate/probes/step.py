"""The product `probe/<task>/<encoder>`: a probe over all harmonized shards of a task's source."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.evaluate.features import (
    Condition,
    EncoderSource,
    FeatureConfig,
    FeatureSource,
    OnProgress,
    Rows,
    Tokens,
    materialize_features,
    materialize_tokens,
    read_features,
    read_signals,
)
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.fit import check_choice, linear_head, run_probe
from pipelines.evaluate.probes.heads import CHECKPOINTS, Head
from pipelines.evaluate.probes.result import (
    ProbeResult,
    write_result,
)
from pipelines.formats.shard import open_shard
from pipelines.harmonize.shards import read_records, shards_of
from pipelines.hashing import digest_of
from pipelines.tasks.catalogue import LabelTask
from pipelines.tasks.splits import Split


def materialize_probe(
    workspace: Workspace,
    task: LabelTask,
    source: FeatureSource,
    config: ProbeConfig | None = None,
    features: FeatureConfig | None = None,
    progress: OnProgress | None = None,
    *,
    head: Head | None = None,
    condition: Condition | None = None,
) -> Product:
    """The product `probe/<task>/<source of features>`: the probe over all harmonized shards of the task's source.

    Features or tokens that are not there yet are computed first. condition: of the ECGs of the test split; the probe
    is fitted on ECGs as they are. Facts: `scored`, `reason`, the macro AUCs with intervals (and accuracies where
    classes exclude each other), and `data_digest`, of the ECGs, labels and protocol: scores of two encoders compare
    where it is the same; and `window` where the encoder was made for longer ECGs. Raises ValueError for a head that the
    source of features has nothing for.
    """
    config = config or ProbeConfig()
    features = features or FeatureConfig()
    chosen_head = head or linear_head(config)
    check_choice(task, chosen_head)
    encoder = _require_encoder(source, chosen_head, features, condition)
    shards = shards_of(workspace, task.source)
    ecgs = {product.name: product.digest for product in shards.values()}
    question = {"task": task.to_dict(), "probe": asdict(config), **features.to_dict()}
    if head is not None:
        question["head"] = head.to_dict()
    if condition is not None:
        question["condition"] = {"name": condition.name, **condition.settings}
    data_digest = digest_of({"ecgs": ecgs, **question})
    computed: dict[str, Product] = {}
    if encoder is None:
        computed = materialize_features(workspace, source, task.source, features, progress)
    elif chosen_head.takes == "tokens":
        computed = materialize_tokens(workspace, encoder, task.source, features, progress)
    changed: dict[str, Product] = {}
    tested: dict[str, np.ndarray] = {}
    if condition is not None:
        tested = {
            partition: np.flatnonzero(task.protocol.split(read_records({partition: shard})) == Split.TEST)
            for partition, shard in shards.items()
        }
        changed = materialize_features(
            workspace, source, task.source, features, progress, condition=condition, rows=tested
        )

    def inputs() -> Rows:
        if chosen_head.takes == "signals":
            return read_signals(shards)
        if chosen_head.takes == "tokens":
            return Tokens(computed)
        feature_ND = read_features(computed)
        if changed:
            first = np.cumsum([0, *(open_shard(shard.path).records().num_rows for shard in shards.values())])
            rows = np.concatenate([tested[part] + at for part, at in zip(shards, first, strict=False)])
            feature_ND[rows] = read_features(changed)
        return feature_ND

    def make(folder: Path) -> dict[str, Any]:
        load = None if encoder is None else encoder.loaded
        result = run_probe(task, inputs(), read_records(shards), config, head=chosen_head, encoder=load, folder=folder)
        about = {
            "title": task.title,
            "encoder": {"name": source.name, "digest": source.digest},
            "data_digest": data_digest,
            "ecgs": ecgs,
            **question,
        }
        write_result(folder, result, about)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        window = source.window if isinstance(source, EncoderSource) else None
        made_for = {} if window is None else {"window": window}
        return {"data_digest": data_digest, **made_for, **_facts(result)}

    return workspace.build(
        f"probe/{task.name}/{source.name}",
        version=versions.PROBE,
        config={"encoder": source.digest, **question},
        inputs=ecgs
        | {product.name: product.digest for product in computed.values()}
        | {product.name: product.digest for product in changed.values()},
        make=make,
        resumable=chosen_head.takes == "signals",  # training an encoder takes long
    )


def _require_encoder(
    source: FeatureSource, head: Head, features: FeatureConfig, condition: Condition | None
) -> EncoderSource | None:
    """The source as an encoder where the head needs one, None where features do."""
    if head.takes == "features":
        return None
    if not isinstance(source, EncoderSource):
        raise ValueError(f"{source.name!r} has no {head.takes}: probe an encoder, or use a head on features")
    if condition is not None:
        raise ValueError(f"condition {condition.name!r}: use a head on features, not on {head.takes}")
    if head.takes == "signals" and features.leads is not None:
        raise ValueError(f"leads={features.leads}: use a head on features or on tokens, not on signals")
    return source


def _facts(result: ProbeResult) -> dict[str, Any]:
    facts: dict[str, Any] = {"scored": result.scores is not None, "reason": result.reason, "counts": result.counts}
    if result.scores is not None:
        facts["test_macro_auc"] = asdict(result.scores.test.macro_auc)
        if result.scores.test.accuracy is not None:
            facts["test_accuracy"] = asdict(result.scores.test.accuracy)
        facts["omitted"] = result.scores.test.omitted
        if result.scores.validation is not None:
            facts["validation_macro_auc"] = asdict(result.scores.validation.macro_auc)
    return facts
