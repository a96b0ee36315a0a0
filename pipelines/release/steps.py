"""Register the workspace's encoder and classifier with their scores, and put them before the gate."""

from __future__ import annotations

import logging
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipelines.cache import Product, Workspace
from pipelines.encoders.names import ENCODER_FILE, HEAD_FILE, OURS, REFERENCE, EncoderNames
from pipelines.evaluate.features import EncoderSource
from pipelines.evaluate.probes.step import ProbeFacts
from pipelines.evaluate.report.step import HTML_FILE, JSON_FILE, PRODUCT, ReportFacts
from pipelines.finding import Finding
from pipelines.hashing import sha256_of_file
from pipelines.pretrain.checks import training_went_well
from pipelines.pretrain.step import EXPERIMENT, METRICS_FILE, SUMMARY_FILE, EncoderFacts, send_metrics
from pipelines.release.aliases import find_alias
from pipelines.release.classifier import ClassifierFacts, materialize_classifier
from pipelines.release.compared import contest_current, require_probe_of
from pipelines.release.gate import GateConfig
from pipelines.release.gate_probes import GATE_TASK
from pipelines.release.judging import Judged, judge_release
from pipelines.release.model import CLASSIFIER_NAME, REGISTERED_NAME, Packaged, Release, Scores
from pipelines.release.origin import corpus_data, label_counts, origin_tags, reference_source, reference_tags, test_data
from pipelines.release.own_code import other_code
from pipelines.release.packaging import packaged_classifier, packaged_encoder
from pipelines.release.registry import find_release, model_folder, release_packaged, version_named
from pipelines.release.retraining import corpus_settings
from pipelines.release.tags import CHAMPION, ECGS, FROM_ENCODER, TRAINING_RUN, kind_of
from pipelines.tasks.catalogue import TASKS
from pipelines.tasks.splits import Split
from pipelines.tracking import Tracking, mirrored_run

log = logging.getLogger(__name__)


def scores_of(workspace: Workspace, gate_task: str = GATE_TASK, encoder_names: EncoderNames = OURS) -> Scores:
    """Return an encoder's scores on all tasks. The gate compares its validation score on `gate_task`.

    Raises ValueError for an unknown gate task, and if a probe is missing or is of another encoder.
    """
    if gate_task not in TASKS:
        raise ValueError(f"gate task {gate_task!r}: use {', '.join(TASKS)}")
    encoder = EncoderSource.of_product(encoder_names.probe, workspace.require(encoder_names.product))
    metrics: dict[str, float] = {}
    for task in TASKS:
        require_probe_of(encoder, workspace.require(f"probe/{task}/{encoder_names.probe}"))
        for name, ending in ((encoder_names.probe, ""), (encoder_names.random_baseline, "_random")):
            probe = workspace.require(f"probe/{task}/{name}")
            for split in (Split.VALIDATION, Split.TEST):
                auc = ProbeFacts.of(probe).macro_auc(split)
                if auc is not None:
                    metrics[f"{task}/{split}_macro_auc{ending}"] = auc.value
    metrics |= label_counts(workspace, encoder_names)
    validation = metrics.get(f"{gate_task}/validation_macro_auc")
    digest = ProbeFacts.of(workspace.require(f"probe/{gate_task}/{encoder_names.probe}")).data_digest
    return Scores(
        validation=validation,
        data_digest=digest if validation is not None else None,
        metrics=metrics,
        task=gate_task,
    )


def release_current(
    workspace: Workspace, tracking: Tracking, *, gate_task: str = GATE_TASK, simulated: bool
) -> Release:
    """Register the current encoder with its scores as the challenger, or find its version.

    gate_task: the task whose validation macro AUC the gate compares. simulated: whether the workspace's ECGs are
    simulated. Both are written on the version, and later steps read them from there.
    """
    encoder = workspace.require(OURS.product)
    send_metrics(encoder, tracking)
    return release_packaged(
        _packaged_encoder(workspace),
        scores_of(workspace, gate_task),
        provenance={
            **origin_tags(workspace, encoder, simulated=simulated),
            **training_tag(encoder, tracking),
            "corpus_digest": _corpus_digest(encoder),
            **corpus_settings(workspace, encoder),
            ECGS: kind_of(simulated=simulated),
        },
        recipe=EncoderFacts.of(encoder).recipe,
        git_commit=git_commit(),
        tracking=tracking,
        artifacts=_run_files(workspace, encoder),
        data=[*corpus_data(workspace, encoder), *test_data(workspace, OURS)],
    )


def training_tag(encoder: Product, tracking: Tracking) -> dict[str, str]:
    """Return the tag that names the run with the curves of an encoder's training, or nothing if MLflow has none."""
    run = mirrored_run(encoder.path / METRICS_FILE, replace(tracking, experiment=EXPERIMENT))
    return {} if run is None else {TRAINING_RUN: run}


def _corpus_digest(encoder: Product) -> str:
    """Return the digest of the corpus that an encoder was trained on. Raises ValueError if it does not say."""
    digest = EncoderFacts.of(encoder).corpus_digest
    if digest is None:
        raise ValueError(f"{encoder.path} does not say which corpus it was trained on: materialize the encoder again")
    return digest


def current_release(workspace: Workspace, tracking: Tracking) -> Release:
    """Return the version that the current encoder was released as. Raises ValueError if it was not."""
    release = find_release(_packaged_encoder(workspace), tracking=tracking)
    if release is None:
        raise ValueError(f"the current encoder is not registered at {tracking.uri}: materialize released_encoder first")
    return release


def gate_task_of(workspace: Workspace, tracking: Tracking) -> str:
    """Return the gate task that the current encoder was released with."""
    return current_release(workspace, tracking).scores.task


def release_reference(
    workspace: Workspace,
    tracking: Tracking,
    *,
    encoder_names: EncoderNames = REFERENCE,
    gate_task: str = GATE_TASK,
) -> Release:
    """Register an imported encoder with its scores as a separate model, without an alias: no gate judges it."""
    reference = workspace.require(encoder_names.product)
    source = reference_source(reference)
    return release_packaged(
        packaged_encoder(reference.path / ENCODER_FILE),
        scores_of(workspace, gate_task, encoder_names),
        provenance={
            **reference_tags(reference),
            **{f"source_{name}": str(value) for name, value in source.items()},
        },
        recipe={"name": encoder_names.product, "source": source},
        git_commit=git_commit(),
        tracking=tracking,
        registered_name=encoder_names.model,
        alias=None,
        data=test_data(workspace, encoder_names),
    )


def release_classifier(workspace: Workspace, tracking: Tracking) -> Release | None:
    """Register the classifier of the gate's task as the challenger of its own model.

    The current encoder has to be released. Returns None if the task was not scored.
    """
    released = current_release(workspace, tracking)
    gate_task = released.scores.task
    head, encoder = materialize_classifier(workspace, gate_task), workspace.require(OURS.product)
    facts = ClassifierFacts.of(head)
    if not facts.scored:
        return None
    assert facts.brier is not None
    assert facts.brier_uncalibrated is not None
    scores = scores_of(workspace, gate_task)
    calibration = {
        f"{gate_task}/test_brier": facts.brier,
        f"{gate_task}/test_brier_uncalibrated": facts.brier_uncalibrated,
    }
    return release_packaged(
        packaged_classifier(encoder.path / ENCODER_FILE, head.path / HEAD_FILE),
        replace(scores, metrics={**scores.metrics, **calibration}),
        provenance={
            **{name: released.tags[name] for name in FROM_ENCODER if name in released.tags},
            "task": gate_task,
        },
        recipe=EncoderFacts.of(encoder).recipe,
        git_commit=git_commit(),
        tracking=tracking,
        registered_name=CLASSIFIER_NAME,
        artifacts=_run_files(workspace, encoder),
        data=[*corpus_data(workspace, encoder), *test_data(workspace, OURS)],
    )


def judge_current(workspace: Workspace, tracking: Tracking, *, config: GateConfig) -> Judged:
    """Judge the current encoder's release, and write the verdict on it."""
    return _judge(workspace, current_release(workspace, tracking), _packaged_encoder(workspace), tracking, config)


def judge_classifier(workspace: Workspace, tracking: Tracking, *, config: GateConfig) -> Judged | None:
    """Judge the classifier against the champion of its own model, which is scored as it is served.

    A calibration changes no AUC, so the challenger's scores are its probe's. Returns None if its task was not scored.
    """
    release = release_classifier(workspace, tracking)
    if release is None:
        return None
    head = materialize_classifier(workspace, release.scores.task)
    packaged = packaged_classifier(workspace.require(OURS.product).path / ENCODER_FILE, head.path / HEAD_FILE)
    return _judge(workspace, release, packaged, tracking, config, on_champion=_on_champion(release, tracking))


def _on_champion(classifier: Release, tracking: Tracking) -> Finding:
    """Check whether a classifier's encoder is the encoders' champion."""
    champion = find_alias(CHAMPION, tracking=tracking)
    if champion is None:
        return Finding.failed(f"{REGISTERED_NAME} has no champion")
    same = champion.weights["encoder"] == classifier.weights["encoder"]
    return Finding(same, f"its encoder is {'' if same else 'not '}that of {champion.model_uri}, the champion")


def _judge(
    workspace: Workspace,
    release: Release,
    packaged: Packaged,
    tracking: Tracking,
    config: GateConfig,
    *,
    on_champion: Finding | None = None,
) -> Judged:
    """Judge a release of the current encoder, as `judge_release` does."""
    return judge_release(
        release,
        packaged,
        tracking,
        config,
        training=training_went_well(EncoderFacts.of(workspace.require(OURS.product))),
        contest=lambda champion: contest_current(workspace, release.scores.task, champion, tracking, config),
        on_champion=on_champion,
    )


@contextmanager
def warm_start(model: str, tracking: Tracking) -> Iterator[tuple[dict[str, object], Path | None]]:
    """Fetch a registered encoder to pretrain from.

    Yields the change of the recipe that names it by its sha256, and its file, which exists inside the block. Only its
    weights are taken: the training runs them by this checkout's code, and says so if they were registered with other.

    model: as `version_named` takes it; empty for none.
    """
    if not model:
        yield {}, None
        return
    with tempfile.TemporaryDirectory() as folder:
        fetched = model_folder(version_named(model, tracking=tracking), tracking=tracking, into=Path(folder))
        if other_code(fetched) is not None:
            log.warning(
                "%s was registered with other code than this checkout's: its weights alone are taken, and the training "
                "runs them by this checkout's code",
                model,
            )
        file = fetched / "artifacts" / ENCODER_FILE
        yield {"warm_start": sha256_of_file(file)}, file


def git_commit() -> str:
    """Return the commit of the checkout that this code runs from, or `unknown` if it is not a checkout."""
    folder = Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return "unknown"
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def _packaged_encoder(workspace: Workspace) -> Packaged:
    return packaged_encoder(workspace.require(OURS.product).path / ENCODER_FILE)


def _run_files(workspace: Workspace, encoder: Product) -> list[Path]:
    """Return the files stored beside the model in its run: how it was trained, and the report on it."""
    files = [encoder.path / SUMMARY_FILE, encoder.path / METRICS_FILE]
    digest = EncoderSource.of_product(OURS.probe, encoder).digest
    report = workspace.current(PRODUCT)
    if report is not None and ReportFacts.of(report).encoder_digest == digest:
        files += [report.path / HTML_FILE, report.path / JSON_FILE]
    return [path for path in files if path.is_file()]
