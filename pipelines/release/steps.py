"""From an encoder and its probes to a registered version, and from there through the gate."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ecg_model.serving.classify import CalibratedHead
from pipelines.cache import Product, Workspace
from pipelines.encoders.import_reference import ReferenceFacts
from pipelines.encoders.names import ENCODER_FILE, HEAD_FILE, OURS, REFERENCE, EncoderNames
from pipelines.evaluate.features import EncoderSource, materialize_features, read_features
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.result import SCORES_FILE, ProbeResult, load_result
from pipelines.evaluate.probes.step import materialize_probe
from pipelines.evaluate.report.step import HTML_FILE, JSON_FILE, PRODUCT
from pipelines.finding import Finding
from pipelines.harmonize.shards import read_records, shards_of
from pipelines.pretrain.checks import training_went_well
from pipelines.pretrain.step import send_metrics
from pipelines.release import gate
from pipelines.release.aliases import find_alias, former_champion
from pipelines.release.classifier import materialize_classifier
from pipelines.release.gate import Contest, GateConfig, GateVerdict
from pipelines.release.model import CLASSIFIER_NAME, REGISTERED_NAME, Packaged, Release, Scores
from pipelines.release.packaging import packaged_classifier, packaged_encoder, serves
from pipelines.release.registry import files_of, find_release, record, registered_encoder, release_packaged
from pipelines.release.retraining import corpus_settings
from pipelines.release.tags import CHAMPION, ECGS, kind_of
from pipelines.tasks.catalogue import TASKS
from pipelines.tasks.splits import Split, protocol_from_dict
from pipelines.tracking import Tracking

GATE_TASK = "ptbxl_superclass"


def scores_of(workspace: Workspace, gate_task: str = GATE_TASK, encoder_names: EncoderNames = OURS) -> Scores:
    """How an encoder of the workspace did on all tasks; the gate compares its validation score on one of them.

    Raises ValueError for a gate task that is none, and where a probe is missing or is of another encoder.
    """
    if gate_task not in TASKS:
        raise ValueError(f"gate task {gate_task!r}: use {', '.join(TASKS)}")
    encoder = EncoderSource.of_product(encoder_names.probe, workspace.require(encoder_names.product))
    metrics: dict[str, float] = {}
    for task in TASKS:
        _require_probe_of(encoder, workspace.require(f"probe/{task}/{encoder_names.probe}"))
        for name, ending in ((encoder_names.probe, ""), (encoder_names.random_baseline, "_random")):
            probe = workspace.require(f"probe/{task}/{name}")
            for split in ("validation", "test"):
                found = probe.facts.get(f"{split}_macro_auc")
                if found is not None:
                    metrics[f"{task}/{split}_macro_auc{ending}"] = found["value"]
    validation = metrics.get(f"{gate_task}/validation_macro_auc")
    digest = workspace.require(f"probe/{gate_task}/{encoder_names.probe}").facts["data_digest"]
    return Scores(
        validation=validation,
        data_digest=digest if validation is not None else None,
        metrics=metrics,
        task=gate_task,
    )


def release_current(
    workspace: Workspace, tracking: Tracking, *, gate_task: str = GATE_TASK, simulated: bool
) -> Release:
    """Register the current encoder with its scores as the challenger; found again where it is registered already.

    gate_task: the probe whose validation macro AUC the gate compares. simulated: whether the workspace's ECGs are drawn
    by a program. Both are written on the version, where all that follow read them.
    """
    encoder = workspace.require(OURS.product)
    send_metrics(encoder, tracking)
    return release_packaged(
        _packaged_encoder(workspace),
        scores_of(workspace, gate_task),
        provenance={
            "corpus_digest": encoder.facts["corpus_digest"],
            **corpus_settings(workspace, encoder),
            ECGS: kind_of(simulated=simulated),
        },
        recipe=encoder.facts["recipe"],
        git_commit=git_commit(),
        tracking=tracking,
        artifacts=_beside(workspace, encoder),
    )


def current_release(workspace: Workspace, tracking: Tracking) -> Release:
    """The version that the current encoder was released as; ValueError where it was not."""
    found = find_release(_packaged_encoder(workspace), tracking=tracking)
    if found is None:
        raise ValueError(f"the current encoder is not registered at {tracking.uri}: materialize released_encoder first")
    return found


def gate_task_of(workspace: Workspace, tracking: Tracking) -> str:
    """The task that the current encoder was released with."""
    return current_release(workspace, tracking).scores.task


def release_reference(workspace: Workspace, tracking: Tracking, *, gate_task: str = GATE_TASK) -> Release:
    """Register the imported encoder with its scores as a model of its own, without an alias: no gate judges it."""
    reference = workspace.require(REFERENCE.product)
    facts = ReferenceFacts.of(reference)
    known = {"file": facts.file, "sha256": facts.sha256, "published": facts.published, "epoch": facts.epoch}
    source = {name: value for name, value in known.items() if value is not None}
    return release_packaged(
        packaged_encoder(reference.path / ENCODER_FILE),
        scores_of(workspace, gate_task, REFERENCE),
        provenance={f"source_{name}": str(value) for name, value in source.items()},
        recipe={"name": REFERENCE.product, "source": source},
        git_commit=git_commit(),
        tracking=tracking,
        registered_name=REFERENCE.model,
        alias=None,
    )


def release_classifier(workspace: Workspace, tracking: Tracking) -> Release | None:
    """Register the classifier of the gate's task on the current encoder, which has to be released, as the challenger
    of its own model; None where the task was not scored."""
    released = current_release(workspace, tracking)
    gate_task = released.scores.task
    head, encoder = materialize_classifier(workspace, gate_task), workspace.require(OURS.product)
    if not head.facts["scored"]:
        return None
    scores = scores_of(workspace, gate_task)
    worth = {f"{gate_task}/test_{name}": head.facts[name] for name in ("brier", "brier_uncalibrated")}
    return release_packaged(
        packaged_classifier(encoder.path / ENCODER_FILE, head.path / HEAD_FILE),
        replace(scores, metrics={**scores.metrics, **worth}),
        provenance={**{name: released.tags[name] for name in ("corpus_digest", ECGS)}, "task": gate_task},
        recipe=encoder.facts["recipe"],
        git_commit=git_commit(),
        tracking=tracking,
        registered_name=CLASSIFIER_NAME,
        artifacts=_beside(workspace, encoder),
    )


class Judged(NamedTuple):
    """contest: None where there was nothing to compare, or the verdict stood already."""

    release: Release
    verdict: GateVerdict
    contest: Contest | None


def judge_current(workspace: Workspace, tracking: Tracking, *, config: GateConfig) -> Judged:
    """Put the current encoder's release before the gate, and write the verdict on it."""
    return _judged(workspace, current_release(workspace, tracking), _packaged_encoder(workspace), tracking, config)


def judge_classifier(workspace: Workspace, tracking: Tracking, *, config: GateConfig) -> Judged | None:
    """The same of the classifier, against the champion of its own model, which is scored as it is served. A calibration
    leaves every AUC as it is, so the probe's are the challenger's. None where its task was not scored."""
    release = release_classifier(workspace, tracking)
    if release is None:
        return None
    head = materialize_classifier(workspace, release.scores.task)
    packaged = packaged_classifier(workspace.require(OURS.product).path / ENCODER_FILE, head.path / HEAD_FILE)
    return _judged(workspace, release, packaged, tracking, config, on_champion=_on_champion(release, tracking))


def _on_champion(classifier: Release, tracking: Tracking) -> Finding:
    champion = find_alias(CHAMPION, tracking=tracking)
    if champion is None:
        return Finding.failed(f"{REGISTERED_NAME} has no champion")
    same = champion.weights["encoder"] == classifier.weights["encoder"]
    return Finding(same, f"its encoder is {'' if same else 'not '}that of {champion.model_uri}, the champion")


def _judged(
    workspace: Workspace,
    release: Release,
    packaged: Packaged,
    tracking: Tracking,
    config: GateConfig,
    *,
    on_champion: Finding | None = None,
) -> Judged:
    """The champion's encoder is probed as the current one was, on the same ECGs; a champion with a head of its own is
    scored with that. The champion is not judged again, and what was champion keeps the verdict that it passed by."""
    champion = find_alias(CHAMPION, name=release.name, tracking=tracking)
    if champion is not None and champion.version == release.version:
        rules = gate.RULES if on_champion is None else gate.CLASSIFIER_RULES
        return Judged(release, gate.of_champion(release.verdict, rules), None)
    against = None if champion is None else champion.version
    settled = gate.decide_without_scores(
        against=against,
        was_champion=former_champion(release, champion, tracking=tracking) is not None,
        same_weights=champion is not None and champion.weights == release.weights,
        simulated=release.simulated,
        champion_simulated=champion is not None and champion.simulated,
    )
    contest = None
    if settled is None and champion is not None and release.scores.validation is not None:
        gate_task = release.scores.task
        probe = workspace.require(f"probe/{gate_task}/{OURS.probe}")
        _require_probe_of(EncoderSource.of_product(OURS.probe, workspace.require(OURS.product)), probe)
        mine = load_result(probe.path)
        with tempfile.TemporaryDirectory() as folder:
            theirs = files_of(champion, Path(folder), tracking=tracking)
            contest = _contest(workspace, gate_task, mine, theirs, config)
    verdict = gate.judge(
        contest if settled is None else settled,
        against=against,
        training=training_went_well(workspace.require(OURS.product).facts),
        serving=serves(release, packaged, tracking=tracking),
        on_champion=on_champion,
        config=config,
    )
    return Judged(release if release.moves else record(release, verdict, tracking=tracking), verdict, contest)


def _contest(
    workspace: Workspace, gate_task: str, mine: ProbeResult, champion: Mapping[str, Path], config: GateConfig
) -> Contest | None:
    """The challenger's probe against the champion's files, on the challenger's validation records."""
    theirs = load_result(_probed_alike(workspace, champion["encoder"], gate_task).path)
    if mine.predictions is None or theirs.predictions is None:
        return None
    if "head" not in champion:
        return gate.contest(mine, theirs.predictions.of(Split.VALIDATION), config)
    head = CalibratedHead.load(champion["head"])
    held_out = mine.predictions.of(Split.VALIDATION)
    source = EncoderSource.of_file(CHAMPION, champion["encoder"])
    feature_ND = read_features(materialize_features(workspace, source, TASKS[gate_task].source))
    records = read_records(shards_of(workspace, TASKS[gate_task].source))
    row_of = {record: row for row, record in enumerate(records.column("record_id").to_pylist())}
    score_NC = head.probabilities(feature_ND[[row_of[record] for record in held_out.record_id]])
    both = [label for label in head.labels if label in held_out.classes]
    served = replace(
        held_out,
        classes=tuple(both),
        y_NC=held_out.y_NC[:, [held_out.classes.index(label) for label in both]],
        score_NC=score_NC[:, [head.labels.index(label) for label in both]],
    )
    return gate.contest(mine, served, config, lost=[label for label in head.labels if label not in both])


@contextmanager
def warm_start(model: str, tracking: Tracking) -> Iterator[tuple[dict[str, object], Path | None]]:
    """A registered encoder to pretrain from: the change of the recipe that names it by its sha256, and its file, which
    is there inside the block. model: as `registered_encoder` takes it; empty for none."""
    if not model:
        yield {}, None
        return
    with tempfile.TemporaryDirectory() as folder:
        file = registered_encoder(model, Path(folder), tracking=tracking)
        yield {"warm_start": hashlib.sha256(file.read_bytes()).hexdigest()}, file


def git_commit() -> str:
    """The commit of the checkout that this code runs from; `unknown` where it is none."""
    folder = Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return "unknown"
    return found.stdout.strip() if found.returncode == 0 else "unknown"


def _probed_alike(workspace: Workspace, encoder: Path, gate_task: str) -> Product:
    """The champion's probe, by the very protocol of the current encoder's."""
    about = _about(workspace.require(f"probe/{gate_task}/{OURS.probe}"))
    task = replace(TASKS[gate_task], protocol=protocol_from_dict(about["task"]["protocol"]))
    config = ProbeConfig(**{**about["probe"], "penalties": tuple(about["probe"]["penalties"])})
    return materialize_probe(workspace, task, EncoderSource.of_file(CHAMPION, encoder), config)


def _packaged_encoder(workspace: Workspace) -> Packaged:
    return packaged_encoder(workspace.require(OURS.product).path / ENCODER_FILE)


def _require_probe_of(encoder: EncoderSource, probe: Product) -> None:
    if _about(probe)["encoder"]["digest"] != encoder.digest:
        raise ValueError(f"{probe.name} is of an earlier encoder: probe the current one first")


def _about(probe: Product) -> dict[str, Any]:
    """What a probe was taken of, and how."""
    return json.loads((probe.path / SCORES_FILE).read_text())["about"]


def _beside(workspace: Workspace, encoder: Product) -> list[Path]:
    """What lies beside the model in its run: how it was trained, and the report on it."""
    files = [encoder.path / "summary.json", encoder.aside / "metrics.jsonl"]
    found = workspace.current(PRODUCT)
    if found is not None and found.facts["encoder_digest"] == EncoderSource.of_product(OURS.probe, encoder).digest:
        files += [found.path / HTML_FILE, found.path / JSON_FILE]
    return [path for path in files if path.is_file()]
