"""The product `probe/<task>/<encoder>`: a probe over all harmonized shards of a task's source."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import versions
from pipelines.cache import Product, Workspace, in_use
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
)
from pipelines.evaluate.own_code import OwnCodeSource
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.fit import check_choice, linear_head, run_probe
from pipelines.evaluate.probes.heads import CHECKPOINTS, Head, Takes
from pipelines.evaluate.probes.result import ProbeResult, write_result
from pipelines.evaluate.probes.signals import Signals
from pipelines.evaluate.statistics.bootstrap import Interval
from pipelines.facts import Facts, written_if_set
from pipelines.formats.shard import open_shard
from pipelines.harmonize.shards import read_records, shards_of
from pipelines.hashing import digest_of
from pipelines.program import Launch
from pipelines.tasks.catalogue import LabelTask
from pipelines.tasks.splits import Split


@dataclass(frozen=True, kw_only=True)
class DrawFacts:
    """One draw of training patients: its own probe product and figures."""

    product: str
    fingerprint: str
    train_records: int
    chosen_on: int | None = None
    """ECGs of the validation split that something was chosen on; None for products of earlier versions."""
    test_macro_auc: Interval | None = None
    """None if the draw was not scored."""
    omitted: dict[str, str] | None = None
    """As `ProbeFacts.omitted`."""


@dataclass(frozen=True, kw_only=True)
class ProbeFacts(Facts):
    """Facts of the products `probe/<task>/<source of features>`, those of a mean over draws among them."""

    scored: bool
    reason: str | None
    """Why the task was not scored; None if it was."""
    data_digest: str
    """Of the ECGs, labels and protocol: scores of two encoders compare if theirs is the same."""
    draws: tuple[DrawFacts, ...] | None = written_if_set()
    """The draws of a mean; None for a single probe."""
    window: str | None = written_if_set()
    """`EncoderSource.window`: for how long ECGs the encoder was made, if not for those of the store."""
    counts: dict[str, int] | None = written_if_set()
    """`ProbeResult.counts`; None for a mean over draws."""
    test_macro_auc: Interval | None = written_if_set()
    """None if the task was not scored."""
    test_accuracy: Interval | None = written_if_set()
    """None if classes do not exclude each other."""
    validation_macro_auc: Interval | None = written_if_set()
    """None if the protocol has no validation split."""
    omitted: dict[str, str] | None = written_if_set()
    """Classes that are not in the test's macro AUC, each with the reason."""

    @classmethod
    def of_result(cls, result: ProbeResult, *, data_digest: str, window: str | None) -> ProbeFacts:
        """Return the facts of a probe's result."""
        test = None if result.scores is None else result.scores.test
        validation = None if result.scores is None else result.scores.validation
        return cls(
            scored=test is not None,
            reason=result.reason,
            data_digest=data_digest,
            window=window,
            counts=result.counts,
            test_macro_auc=None if test is None else test.macro_auc,
            test_accuracy=None if test is None else test.accuracy,
            validation_macro_auc=None if validation is None else validation.macro_auc,
            omitted=None if test is None else test.omitted,
        )

    def macro_auc(self, split: Split) -> Interval | None:
        """Return the macro AUC on the validation or the test split, or None if it was not scored there."""
        return self.validation_macro_auc if split == Split.VALIDATION else self.test_macro_auc


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """The products that a probe reads, each by partition."""

    shards: dict[str, Product]
    computed: dict[str, Product]  # features or tokens; empty for a head on signals
    changed: dict[str, Product]  # features of the test ECGs under a condition; empty without one
    test_rows: dict[str, np.ndarray]  # rows of the shards that `changed` is of

    def digests(self) -> dict[str, str]:
        """Return every product's digest, by its name."""
        products = [*self.shards.values(), *self.computed.values(), *self.changed.values()]
        return {product.name: product.digest for product in products}

    def rows(self, takes: Takes) -> Rows:
        """Return what a head takes of each ECG; under a condition, the test ECGs' features are those changed."""
        if takes == "signals":
            return Signals([shard.path for shard in self.shards.values()])
        if takes == "tokens":
            return Tokens(self.computed)
        feature_ND = read_features(self.computed)
        if self.changed:
            first = np.cumsum([0, *(open_shard(shard.path).records().num_rows for shard in self.shards.values())])
            rows = [self.test_rows[part] + at for part, at in zip(self.shards, first, strict=False)]
            feature_ND[np.concatenate(rows)] = read_features(self.changed)
        return feature_ND


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
    launch: Launch | None = None,
) -> Product:
    """Build `probe/<task>/<source of features>`: a probe over all harmonized shards of the task's source.

    Features or tokens that are not there yet are computed first. Facts: `ProbeFacts`.

    head: None is the linear one that `config` describes.
    condition: of the ECGs of the test split; the probe is fitted on ECGs as they are.
    launch: runs the command of a fine-tuning, which resumes if it was killed; None fine-tunes in this process.
    Raises ValueError if the head takes something that the source of features does not have.
    """
    config, features = config or ProbeConfig(), features or FeatureConfig()
    chosen_head = head or linear_head(config)
    check_choice(task, chosen_head)
    encoder = _require_encoder(source, chosen_head, features, condition)
    inputs = _materialize_inputs(workspace, task, source, features, progress, takes=chosen_head.takes, under=condition)
    ecgs = {product.name: product.digest for product in inputs.shards.values()}
    settings = {"task": task.to_dict(), "probe": asdict(config), **features.to_dict(), **_changed(head, condition)}
    data_digest = digest_of({"ecgs": ecgs, **settings})

    def make(folder: Path) -> dict[str, Any]:
        x, load = inputs.rows(chosen_head.takes), None if encoder is None else encoder.loaded
        result = run_probe(
            task, x, read_records(inputs.shards), config, head=chosen_head, encoder=load, folder=folder, launch=launch
        )
        named = {"title": task.title, "encoder": _named(source), "data_digest": data_digest, "ecgs": ecgs}
        write_result(folder, result, {**named, **settings})
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        window = source.window if isinstance(source, EncoderSource) else None
        return ProbeFacts.of_result(result, data_digest=data_digest, window=window).to_dict()

    with in_use([shard.path for shard in inputs.shards.values()]):
        return workspace.build(
            f"probe/{task.name}/{source.name}",
            version=versions.PROBE,
            config={"encoder": source.digest, **settings},
            inputs=inputs.digests(),
            make=make,
            resumable=chosen_head.takes == "signals",  # training an encoder takes long
        )


def _changed(head: Head | None, condition: Condition | None) -> dict[str, Any]:
    """Return the settings of what is not as usual, as JSON values."""
    changed: dict[str, Any] = {}
    if head is not None:
        changed["head"] = head.to_dict()
    if condition is not None:
        changed["condition"] = {"name": condition.name, **condition.settings}
    return changed


def _named(source: FeatureSource) -> dict[str, str]:
    """Return what a result says of the source of its features."""
    own = {"file": source.file} if isinstance(source, OwnCodeSource) else {}
    return {"name": source.name, "digest": source.digest, **own}


def _materialize_inputs(
    workspace: Workspace,
    task: LabelTask,
    source: FeatureSource,
    features: FeatureConfig,
    progress: OnProgress | None,
    *,
    takes: Takes,
    under: Condition | None,
) -> _Inputs:
    """Compute what a head takes of the task's ECGs, and the test ECGs' features under a condition."""
    shards = shards_of(workspace, task.source)
    computed: dict[str, Product] = {}
    if takes == "features":
        computed = materialize_features(workspace, source, task.source, features, progress)
    elif takes == "tokens":
        assert isinstance(source, EncoderSource)
        computed = materialize_tokens(workspace, source, task.source, features, progress)
    if under is None:
        return _Inputs(shards=shards, computed=computed, changed={}, test_rows={})
    test_rows = {
        partition: np.flatnonzero(task.protocol.split(read_records({partition: shard})) == Split.TEST)
        for partition, shard in shards.items()
    }
    changed = materialize_features(workspace, source, task.source, features, progress, condition=under, rows=test_rows)
    return _Inputs(shards=shards, computed=computed, changed=changed, test_rows=test_rows)


def _require_encoder(
    source: FeatureSource, head: Head, features: FeatureConfig, condition: Condition | None
) -> EncoderSource | None:
    """Return the source as an encoder, or None if the head takes features.

    Raises ValueError if the head needs an encoder and there is none, or does not go with the condition or the leads.
    """
    if head.takes == "features":
        return None
    if not isinstance(source, EncoderSource):
        raise ValueError(f"{source.name!r} has no {head.takes}: probe an encoder, or use a head on features")
    if condition is not None:
        raise ValueError(f"condition {condition.name!r}: use a head on features, not on {head.takes}")
    if head.takes == "signals" and features.leads is not None:
        raise ValueError(f"leads={features.leads}: use a head on features or on tokens, not on signals")
    return source
