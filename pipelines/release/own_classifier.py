"""The product `own_classifier/<name>`: a classifier of one's own labels, as it is served, and what it scores.

    encoder.safetensors, head.safetensors   what is served (`pipelines.release.heads`)
    scores.json, predictions.parquet, roc.parquet   the calibrated classifier's, as a probe's (`probes.result`)
    report.html   the page: its scores, curves and calibration beside those of baselines

The read-out is fitted on training patients. All choices, between methods too, are made on validation, and the
calibration is fitted there; the test split is scored once. Shapes: N records, C labels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ecg_model.encoder_file import save_encoder
from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.durable import write_atomically
from pipelines.encoders.names import ENCODER_FILE, OURS
from pipelines.evaluate.exposure import Overlaps
from pipelines.evaluate.features import OnProgress
from pipelines.evaluate.probes.attention_pool import AttentionPool
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.fine_tune import FineTune
from pipelines.evaluate.probes.fit import score_splits
from pipelines.evaluate.probes.handcrafted import HandcraftedSource
from pipelines.evaluate.probes.heads import Head
from pipelines.evaluate.probes.result import ProbeResult, ProbeScores, write_result
from pipelines.evaluate.probes.step import ProbeFacts, materialize_probe
from pipelines.evaluate.probes.stored import Probe
from pipelines.evaluate.report.own_labels import ROLES, own_labels_page, own_labels_report
from pipelines.evaluate.report.wording import below, sentence
from pipelines.evaluate.statistics.bootstrap import Interval
from pipelines.evaluate.statistics.calibration import brier
from pipelines.facts import Facts, written_if_set
from pipelines.harmonize.shards import read_records, shards_of
from pipelines.program import Launch
from pipelines.release.calibration import Calibration, fit_calibration
from pipelines.release.heads import write_head
from pipelines.release.own_classifier_config import Method
from pipelines.release.own_classifier_request import ChosenEncoder
from pipelines.tasks.catalogue import LabelTask
from pipelines.tasks.splits import Split, patients

PRODUCT = "own_classifier"
PAGE_FILE = "report.html"

_MOST_EPOCHS, _FEWEST_EPOCHS = 25, 10  # of a fine-tuning
_SEEN = 23_000  # labelled ECGs, one as often as there are epochs: between the two, small sets get more epochs
_WIDTH = 48  # channels of an encoder that would be trained at the rate of the linear layer

_MOST_LISTED = 10  # labels in a message

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class OwnClassifierFacts(Facts):
    """What the step reports."""

    task: str
    title: str
    """Whose labels they are, in words."""
    kind: str
    """As `LabelTask.kind`."""
    labels: tuple[str, ...]
    """Of a prediction, in its order."""
    left_out: dict[str, str]
    """Labels that are not in the test's macro AUC, or not in the classifier, each with the reason."""
    validated: int
    """Labels in the validation macro AUC."""
    uncalibrated: tuple[str, ...]
    """Labels whose probabilities are the read-out's: too few ECGs on validation, or a fitted slope that does not
    rise."""
    ecgs: dict[str, int]
    """Labelled ECGs by split."""
    positives: dict[str, dict[str, int]]
    """ECGs of each label, by split."""
    labels_digest: str
    data_digest: str
    """As `ProbeFacts.data_digest`."""
    source: str
    method: str
    methods: dict[str, float]
    """Validation macro AUC of each method that was fitted."""
    encoder: str
    """As it was named, with its version."""
    encoder_digest: str
    validation_macro_auc: Interval
    test_macro_auc: Interval
    baselines: dict[str, Interval]
    """Test macro AUC of the untrained network's linear probe and that of handcrafted features, by their roles."""
    sentence: str
    """How it compares with them, in words."""
    below: tuple[str, ...] | None = written_if_set()
    """The baselines that it is clearly below on the test split; None if there are none."""
    test_accuracy: Interval | None = written_if_set()
    brier: float
    """On the test split, mean over the labels."""
    brier_uncalibrated: float
    encoder_note: str | None = written_if_set()
    """As `ChosenEncoder.note`."""


def require_enough(workspace: Workspace, task: LabelTask, config: ProbeConfig) -> dict[str, dict[str, int]]:
    """Return the ECGs of each label by split, before anything is computed.

    Raises ValueError if a split has too few patients, or no label has enough ECGs in one.
    """
    records = read_records(shards_of(workspace, task.source))
    y_NC, _ = task.targets(records)
    split_N = task.protocol.split(records)
    split_N[~task.takes_part(y_NC)] = Split.UNUSED
    patient_N = np.asarray(patients(records), dtype=object)
    splits = (Split.TRAIN, Split.VALIDATION, Split.TEST)
    of_split = {str(split): len(set(patient_N[split_N == split])) for split in splits}
    counted = ", ".join(f"{split} {count:,}" for split, count in of_split.items())
    if min(of_split.values()) < config.min_patients:
        raise ValueError(
            f"{task.title}: labelled patients by split: {counted}; each needs {config.min_patients}: label ECGs of "
            "more patients"
        )
    positives = {
        name: {str(split): int(y_NC[split_N == split, column].sum()) for split in splits}
        for column, name in enumerate(task.names)
    }
    enough = {name for name, by in positives.items() if min(by.values()) >= config.min_positives}
    if task.kind == "multi-class" and len(positives) == 2:  # the rarer one is scored
        enough = enough if len(enough) == 2 else set()
    if not enough:
        listed = "; ".join(f"{name}: {_by_split(by)}" for name, by in list(positives.items())[:_MOST_LISTED])
        raise ValueError(
            f"{task.title}: too few ECGs of {'one label' if len(positives) == 2 else 'each label'}, "
            f"{config.min_positives} are needed in each split ({listed}): label more ECGs, or allow fewer "
            "(min_positives, --min-positives)"
        )
    return positives


def _by_split(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{split} {count:,}" for split, count in counts.items())


def head_of(method: Method, task: LabelTask, encoder: ChosenEncoder) -> Head | None:
    """Return the head of a method; None is the linear one."""
    if method == "linear":
        return None
    return (
        AttentionPool() if method == "attention_pool" else fine_tuning(len(task.codes or ()), encoder.source.config.dim)
    )


def fine_tuning(ecgs: int, width: int) -> FineTune:
    """Return the settings of a fine-tuning on labels of one's own, which may be few.

    The published recipe's steps are so small that on some hundred ECGs the linear layer never leaves its start. Here it
    starts at the linear probe and has a rate of 1e-3, and the encoder one in proportion to 1/width, as its weights bear
    it under Adam (Yang et al., arXiv 2203.03466). What is kept is the end, or the start if that is no worse on
    validation. docs/own-data.md has what it gave.

    ecgs: labelled ones, of all splits
    width: channels of the encoder
    """
    epochs = min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, _SEEN // max(ecgs, 1)))
    decay = min(0.5, _WIDTH / width)
    return FineTune(epochs=epochs, rate=1.6e-2, group_decay=decay, start="probe", keep="last_or_start")


def materialize_own_classifier(
    workspace: Workspace,
    name: str,
    task: LabelTask,
    methods: tuple[Method, ...],
    encoder: ChosenEncoder,
    config: ProbeConfig,
    *,
    simulated: bool,
    progress: OnProgress | None = None,
    say: Say | None = None,
    launch: Launch | None = None,
) -> Product:
    """Build `own_classifier/<name>`. Facts: `OwnClassifierFacts`.

    methods: of several, validation chooses one
    simulated: whether the ECGs are simulated
    say: told what is being fitted
    launch: as `materialize_probe` takes it

    Raises ValueError if there are too few ECGs, with the labels and counts.
    """
    positives = require_enough(workspace, task, config)
    say = say or (lambda line: None)
    fitted: dict[str, Product] = {}
    for method in methods:
        say(f"fitting {method.replace('_', ' ')}")
        of_method = task if method == "linear" else replace(task, name=f"{task.name}__{method}")
        fitted[method] = materialize_probe(
            workspace,
            of_method,
            encoder.source,
            config,
            progress=progress,
            head=head_of(method, task, encoder),
            launch=launch,
        )
    scored = {method: _validation_auc(task, product) for method, product in fitted.items()}
    method = max(scored, key=lambda one: scored[one])  # of equals the first, which is the simplest
    say("fitting the baselines: the untrained network, and handcrafted features")
    baselines = materialize_baselines(workspace, task, encoder, config, progress=progress)
    chosen = _Chosen(
        task=task,
        method=method,
        methods=scored,
        product=fitted[method],
        baselines=baselines,
        encoder=encoder,
        config=config,
        positives=positives,
        simulated=simulated,
    )
    return workspace.build(
        f"{PRODUCT}/{name}",
        version=versions.OWN_CLASSIFIER,
        config={"task": task.name, "title": task.title, "encoder": encoder.source.digest, "simulated": simulated},
        inputs={product.name: product.digest for product in (*fitted.values(), *baselines)},
        make=lambda folder: _make(workspace, chosen, folder).to_dict(),
    )


def materialize_baselines(
    workspace: Workspace,
    task: LabelTask,
    encoder: ChosenEncoder,
    config: ProbeConfig,
    *,
    progress: OnProgress | None = None,
) -> tuple[Product, ...]:
    """Build the linear probes of the untrained network and of handcrafted features, in the order of ROLES."""
    sources = (encoder.random, HandcraftedSource())
    return tuple(materialize_probe(workspace, task, source, config, progress=progress) for source in sources)


def _validation_auc(task: LabelTask, product: Product) -> float:
    """Return a probe's macro AUC on validation. Raises ValueError if it was not scored."""
    facts = ProbeFacts.of(product)
    if facts.validation_macro_auc is None:
        raise ValueError(f"{task.title} cannot be scored: {facts.reason}")
    return facts.validation_macro_auc.value


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """The chosen read-out, and what stands beside it."""

    task: LabelTask
    method: str
    methods: Mapping[str, float]
    product: Product
    baselines: tuple[Product, ...]
    encoder: ChosenEncoder
    config: ProbeConfig
    positives: dict[str, dict[str, int]]
    simulated: bool


def _make(workspace: Workspace, chosen: _Chosen, folder: Path) -> OwnClassifierFacts:
    """Calibrate, and write what is served, its scores and its page."""
    task, probe = chosen.task, Probe.load(chosen.product.path)
    predictions, scores = probe.result.predictions, probe.result.scores
    assert predictions is not None
    assert scores is not None
    calibration, uncalibrated = fit_calibration(predictions, scores, exclusive=task.kind == "multi-class")
    _write_served(chosen, calibration, folder)
    result = _calibrated(probe.result, calibration, task, chosen.config)
    # Its figures compare with those of the baselines, which are of the same ECGs, labels and protocol.
    data_digest = ProbeFacts.of(chosen.baselines[0]).data_digest
    write_result(folder, result, {**probe.about, "title": task.title, "data_digest": data_digest})
    loaded = (Probe.load(path) for path in (folder, *(product.path for product in chosen.baselines)))
    probes = dict(zip(ROLES, loaded, strict=True))
    report = own_labels_report(task.name, probes, Overlaps(workspace), chosen.config)
    by = f"{chosen.encoder.name}, {chosen.method.replace('_', ' ')}, calibrated"
    page = own_labels_page(report, probes, encoder=by, simulated=chosen.simulated)
    write_atomically(folder / PAGE_FILE, page.encode())
    assert result.scores is not None
    assert result.scores.validation is not None
    assert result.predictions is not None
    test, served = predictions.of(Split.TEST), result.predictions.of(Split.TEST)
    counts = result.counts
    return OwnClassifierFacts(
        task=task.name,
        title=task.title,
        kind=task.kind,
        labels=predictions.classes,
        left_out=result.scores.test.omitted,
        validated=len(result.scores.validation.classes),
        uncalibrated=uncalibrated,
        ecgs={split: counts[split] for split in ("train", "validation", "test")},
        positives=chosen.positives,
        labels_digest=task.to_dict()["codes_sha256"],
        data_digest=data_digest,
        source=task.source,
        method=chosen.method,
        methods=dict(chosen.methods),
        encoder=chosen.encoder.name,
        encoder_digest=chosen.encoder.source.digest,
        validation_macro_auc=result.scores.validation.macro_auc,
        test_macro_auc=result.scores.test.macro_auc,
        baselines={
            name: probe.result.scores.test.macro_auc
            for name, probe in probes.items()
            if name != OURS.probe and probe.result.scores is not None
        },
        sentence=sentence(report),
        below=below(report) or None,
        test_accuracy=result.scores.test.accuracy,
        brier=float(brier(served.y_NC, served.score_NC).mean()),
        brier_uncalibrated=float(brier(test.y_NC, test.score_NC).mean()),
        encoder_note=chosen.encoder.note,
    )


def _write_served(chosen: _Chosen, calibration: Calibration, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        encoder = Path(temporary) / ENCODER_FILE
        save_encoder(encoder, chosen.encoder.source.loaded())
        write_head(chosen.product.path, encoder, folder, calibration)


def _calibrated(result: ProbeResult, calibration: Calibration, task: LabelTask, config: ProbeConfig) -> ProbeResult:
    """Return the result with the probabilities that are served, scored anew: once, as nothing is chosen by it."""
    assert result.predictions is not None
    assert result.scores is not None
    predictions = replace(result.predictions, score_NC=calibration.apply(result.predictions.score_NC))
    validation, test = score_splits(predictions, task, config)
    scores = ProbeScores(penalty=result.scores.penalty, trials=result.scores.trials, validation=validation, test=test)
    return replace(result, task=task.name, scores=scores, predictions=predictions)
