"""Train a classifier of one's own, register it under its name, judge it by the gate, and make it champion if it passes.

What `ecg train-classifier` and the asset `own_classifier` do. A training with other labels, or on another encoder, is a
challenger, which the gate compares with the champion of the same name on the same validation ECGs, paired by patient.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.cache import Product, Workspace
from pipelines.encoders.names import ENCODER_FILE, HEAD_FILE, OURS
from pipelines.evaluate.exposure import Overlap, Overlaps
from pipelines.evaluate.features import EncoderSource, OnProgress
from pipelines.evaluate.probes.result import SCORES_FILE, Predictions, ProbeResult, load_result
from pipelines.evaluate.probes.signals import Signals
from pipelines.evaluate.probes.stored import Probe
from pipelines.evaluate.report.own_labels import ROLES
from pipelines.finding import Finding
from pipelines.formats.shard import MILLIVOLT
from pipelines.harmonize.shards import read_records, shards_of
from pipelines.hashing import sha256_of_file
from pipelines.pretrain.checks import training_went_well
from pipelines.pretrain.step import EncoderFacts
from pipelines.program import Launch
from pipelines.release.aliases import find_alias, promote, versions_of
from pipelines.release.contest import contest_served
from pipelines.release.gate import Contest, GateConfig, GateVerdict
from pipelines.release.judging import judge_release
from pipelines.release.model import Packaged, Release, Scores
from pipelines.release.own_classifier import (
    PAGE_FILE,
    OwnClassifierFacts,
    Say,
    materialize_baselines,
    materialize_own_classifier,
)
from pipelines.release.own_classifier_config import OwnClassifierConfig
from pipelines.release.own_classifier_request import ChosenEncoder
from pipelines.release.own_classifier_rule import NOT_BELOW_BASELINES, not_below_baselines
from pipelines.release.own_classifier_words import licence_of, trained_on
from pipelines.release.own_process import OwnProcess
from pipelines.release.own_source import HARMONIZED, answered
from pipelines.release.packaging import packaged_classifier
from pipelines.release.registry import model_folder, release_packaged
from pipelines.release.steps import git_commit
from pipelines.release.tags import CHAMPION, ECGS, LICENCE, METHOD, PRETRAINED_ECGS, TRAINED_ON, kind_of
from pipelines.tasks.catalogue import LabelTask
from pipelines.tasks.splits import Split
from pipelines.tracking import Tracking

LABELS_DIGEST = "labels_digest"
"""The tag of a classifier of one's own with the digest of its labels."""

_BATCH = 64  # ECGs that the champion is asked at once
_MOST = 4000  # characters of a tag's value; MLflow takes 5,000


@dataclass(frozen=True, kw_only=True)
class TrainedClassifier:
    """What a training came to."""

    product: Product
    release: Release
    verdict: GateVerdict
    contest: Contest | None
    champion: Release | None
    """Of its name, after the gate."""
    created: bool
    """Whether this training registered the version; else it was registered before."""
    seen: Overlap
    """What of its test ECGs its encoder was pretrained on."""

    @property
    def facts(self) -> OwnClassifierFacts:
        return OwnClassifierFacts.of(self.product)

    @property
    def result(self) -> ProbeResult:
        """Its scores and predictions, as it is served."""
        return load_result(self.product.path)


def train_classifier(
    workspace: Workspace,
    tracking: Tracking,
    config: OwnClassifierConfig,
    task: LabelTask,
    encoder: ChosenEncoder,
    *,
    simulated: bool,
    gate_config: GateConfig | None = None,
    progress: OnProgress | None = None,
    say: Say | None = None,
    launch: Launch | None = None,
) -> TrainedClassifier:
    """Fit, calibrate, register and judge a classifier; make it champion if it passes the gate.

    task: of `config.task`
    encoder: of `chosen_encoder`
    simulated: whether the labelled ECGs are simulated
    launch: as `materialize_probe` takes it

    Raises ValueError if there are too few ECGs, and if the name is that of a model of another kind.
    """
    name, say, gate_config = config.registered_name, say or (lambda line: None), gate_config or GateConfig()
    _require_own(name, tracking)
    product = materialize_own_classifier(
        workspace,
        name,
        task,
        config.methods,
        encoder,
        config.probe,
        simulated=simulated,
        progress=progress,
        say=say,
        launch=launch,
    )
    say("registering")
    packaged = packaged_classifier(product.path / ENCODER_FILE, product.path / HEAD_FILE)
    pretrained = _pretraining_of(workspace, encoder.source)
    seen = Overlaps(workspace).of_probe(Probe.load(product.path))
    release = _release(product, packaged, name, task, config, encoder, pretrained, seen, tracking, simulated=simulated)
    say("judging: the registered version is pulled in a process of its own")
    result = load_result(product.path)
    baselines = materialize_baselines(workspace, task, encoder, config.probe)
    beside = {role: load_result(baseline.path) for role, baseline in zip(ROLES[1:], baselines, strict=True)}
    judged = judge_release(
        release,
        packaged,
        tracking,
        gate_config,
        training=_pretraining_went_well(pretrained, encoder),
        contest=lambda champion: _contest(workspace, task, result, champion, tracking, gate_config),
        more={NOT_BELOW_BASELINES: not_below_baselines(result, beside, gate_config)},
    )
    if judged.verdict.promote:
        promote(judged.release, tracking=tracking)
    return TrainedClassifier(
        product=product,
        release=judged.release,
        verdict=judged.verdict,
        contest=judged.contest,
        champion=find_alias(CHAMPION, name=name, tracking=tracking),
        created=release.created,
        seen=seen,
    )


def _require_own(name: str, tracking: Tracking) -> None:
    """Raise ValueError if a name is that of a registered model of another kind."""
    others = [version for version in versions_of(name=name, tracking=tracking) if LABELS_DIGEST not in version.tags]
    if others:
        raise ValueError(
            f"name {name!r}: {others[0].model_uri} is no classifier of own labels: use a name that is not taken"
        )


def _release(
    product: Product,
    packaged: Packaged,
    name: str,
    task: LabelTask,
    config: OwnClassifierConfig,
    encoder: ChosenEncoder,
    pretrained: EncoderFacts | None,
    seen: Overlap,
    tracking: Tracking,
    *,
    simulated: bool,
) -> Release:
    """Register the product as a version, or find its version.

    pretrained: what is known here of the encoder's training
    """
    facts = OwnClassifierFacts.of(product)
    metrics = {
        "validation_macro_auc": facts.validation_macro_auc.value,
        "test_macro_auc": facts.test_macro_auc.value,
        "labels": len(facts.positives),
        "test_labels_scored": len(facts.positives) - len(facts.left_out),
        "validation_labels_scored": facts.validated,
        "test_brier": facts.brier,
        "test_brier_uncalibrated": facts.brier_uncalibrated,
        **{f"test_macro_auc_{role}": auc.value for role, auc in facts.baselines.items()},
    }
    recipe = {
        "name": "own-classifier",
        "method": facts.method,
        "methods": list(facts.methods),
        "labels": {"kind": facts.kind, "split": task.protocol.to_dict()},
        "probe": {"min_positives": config.probe.min_positives, "seed": config.probe.seed},
    }
    return release_packaged(
        packaged,
        Scores(
            validation=facts.validation_macro_auc.value,
            data_digest=facts.data_digest,
            metrics={f"{facts.task}/{metric}": value for metric, value in metrics.items()},
            task=facts.task,
        ),
        provenance=_provenance(facts, encoder, pretrained, seen, tracking, simulated=simulated),
        recipe=recipe,
        git_commit=git_commit(),
        tracking=tracking,
        registered_name=name,
        artifacts=[product.path / PAGE_FILE, product.path / SCORES_FILE],
    )


def _provenance(
    facts: OwnClassifierFacts,
    encoder: ChosenEncoder,
    pretrained: EncoderFacts | None,
    seen: Overlap,
    tracking: Tracking,
    *,
    simulated: bool,
) -> dict[str, str]:
    """Return the tags that say what a version was made from."""
    release = encoder.release
    corpus = release.tags.get("corpus_digest") if release is not None else None
    corpus = corpus or (None if pretrained is None else pretrained.corpus_digest)
    known = {
        "corpus_digest": corpus,
        PRETRAINED_ECGS: _ecgs_of(encoder, pretrained, tracking, simulated=simulated),
        "pretrained_version": None if release is None else release.model_uri,
    }
    return {
        ECGS: kind_of(simulated=simulated),
        "task": facts.task,
        "labels_of": facts.title,
        LABELS_DIGEST: facts.labels_digest,
        "labels": _short(", ".join(facts.labels)),
        "labels_kind": facts.kind,
        "labelled_ecgs": json.dumps(facts.ecgs),
        "positives": _short(json.dumps(facts.positives)),
        "source": facts.source,
        LICENCE: licence_of(facts.source),
        TRAINED_ON: _short(trained_on(facts, seen, simulated=simulated)),
        METHOD: facts.method,
        "pretrained": facts.encoder,
        "pretrained_digest": facts.encoder_digest,
        **{tag: value for tag, value in known.items() if value is not None},
    }


def _ecgs_of(
    encoder: ChosenEncoder, pretrained: EncoderFacts | None, tracking: Tracking, *, simulated: bool
) -> str | None:
    """Return what ECGs an encoder was pretrained on, as `kind_of` says it; None if it is not known.

    An encoder that was named by its file may be a registered version's.
    """
    if encoder.release is None and pretrained is not None:
        return kind_of(simulated=simulated)
    registered = [encoder.release] if encoder.release is not None else versions_of(tracking=tracking)
    same = (one for one in registered if one.weights.get("encoder") == encoder.source.digest or one is encoder.release)
    return next((one.tags.get(ECGS) for one in same), None)


def _short(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[:_MOST]} ..."


def _pretraining_of(workspace: Workspace, source: EncoderSource) -> EncoderFacts | None:
    """Return what is known here of an encoder's training; None if it was not trained in this workspace."""
    for product in workspace.finished(OURS.product):
        file = product.path / ENCODER_FILE
        if file.is_file() and sha256_of_file(file) == source.digest:
            return EncoderFacts.of(product)
    return None


def _pretraining_went_well(pretrained: EncoderFacts | None, encoder: ChosenEncoder) -> Finding:
    """Return what is known of the encoder's training: its figures here, or the verdict on its version."""
    if pretrained is not None and pretrained.first and pretrained.last:
        return training_went_well(pretrained)
    verdict = None if encoder.release is None else encoder.release.verdict
    judged = None if verdict is None else verdict.rules.get("not_collapsed")
    return judged or Finding.passed(f"not judged: {encoder.name} was not pretrained in this data home")


def _contest(
    workspace: Workspace,
    task: LabelTask,
    challenger: ProbeResult,
    champion: Release,
    tracking: Tracking,
    config: GateConfig,
) -> Contest | None:
    """Compare a classifier with its champion, which answers as it is served, on the challenger's validation ECGs.

    They are compared on the labels that both have, and on the ECGs that the champion does not refuse.
    """
    assert challenger.predictions is not None
    held_out = challenger.predictions.of(Split.VALIDATION)
    labels, score_NC = _served(workspace, task, held_out, champion, tracking)
    answered = np.flatnonzero(np.isfinite(score_NC).all(axis=1))
    of_answered = replace(challenger, predictions=held_out.rows(answered))
    return contest_served(of_answered, labels, score_NC[answered], config)


def _served(
    workspace: Workspace, task: LabelTask, held_out: Predictions, champion: Release, tracking: Tracking
) -> tuple[list[str], np.ndarray]:
    """Return a champion's labels, and its probabilities of ECGs as it serves them, (N, C); NaN where it refuses one."""
    shards = shards_of(workspace, task.source)
    ecgs = Signals([shard.path for shard in shards.values()])
    row_of = {record: row for row, record in enumerate(read_records(shards).column("record_id").to_pylist())}
    rows_N = np.array([row_of[record] for record in held_out.record_id])
    answers: list[np.ndarray] = []
    labels: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        model = model_folder(champion, tracking=tracking, into=Path(folder))
        with OwnProcess(model, called=champion.model_uri, tracking=tracking) as process:
            for first in range(0, len(held_out.record_id), _BATCH):
                signal_BLT = ecgs[rows_N[first : first + _BATCH]]
                rows = process.predict(signal_BLT.astype(np.float32) * np.float32(MILLIVOLT), HARMONIZED)
                labels = labels or _labels(rows)
                answers.append(answered(rows))
    return labels, np.concatenate(answers)


def _labels(rows: list[Mapping[str, Any]]) -> list[str]:
    """Return the labels of a classifier's answer: all but what is said in words of a record."""
    return [label for label, value in rows[0].items() if not isinstance(value, str)]
