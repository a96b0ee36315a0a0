"""Two probes on the same records: their scores side by side, and the paired difference of their AUCs.

Shapes: N records, C classes, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.result import Predictions, ProbeResult
from pipelines.evaluate.statistics.bootstrap import InsufficientData, PairedDifference, resample_patients
from pipelines.evaluate.statistics.paired import paired_difference
from pipelines.tasks.splits import Split


@dataclass(frozen=True, kw_only=True)
class PairedScores:
    """Two probes' probabilities (N, C) of the same records and classes, and the targets y_NC."""

    classes: tuple[str, ...]
    patient: tuple[str, ...]
    y_NC: np.ndarray
    first_NC: np.ndarray
    second_NC: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Macro AUC of a first encoder minus that of a second, on the same records."""

    task: str
    classes: tuple[str, ...]
    records: int
    difference: PairedDifference


def paired_scores(
    task: str, split: Split, first: Predictions, second: Predictions, classes: Sequence[str]
) -> PairedScores:
    """Return two probes' scores on one split, of classes that both have.

    task, split: for the message.
    Raises ValueError if records, patients or targets differ.
    """
    a, b = ([predictions.classes.index(name) for name in classes] for predictions in (first, second))
    same = (first.record_id, first.patient) == (second.record_id, second.patient)
    if not same or not np.array_equal(first.y_NC[:, a], second.y_NC[:, b]):
        raise _different(task, split, first, second)
    return PairedScores(
        classes=tuple(classes),
        patient=first.patient,
        y_NC=first.y_NC[:, a],
        first_NC=first.score_NC[:, a],
        second_NC=second.score_NC[:, b],
    )


def paired_test_scores(first: ProbeResult, second: ProbeResult) -> PairedScores:
    """Return two probes' scores on the test split, of the classes that were scored there.

    Raises InsufficientData if one of them was not scored, and ValueError if tasks, classes, records, patients or
    targets differ.
    """
    for result in (first, second):
        if result.scores is None:
            raise InsufficientData(f"task {result.task} was not scored: {result.reason}")
    assert first.scores is not None
    assert first.predictions is not None
    assert second.predictions is not None
    a, b = first.predictions.of(Split.TEST), second.predictions.of(Split.TEST)
    if (first.task, a.classes) != (second.task, b.classes):
        raise _different(" and ".join(dict.fromkeys((first.task, second.task))), Split.TEST, a, b)
    return paired_scores(first.task, Split.TEST, a, b, [score.name for score in first.scores.test.classes])


def compare(first: ProbeResult, second: ProbeResult, config: ProbeConfig | None = None) -> Comparison:
    """Compare two encoders' test macro AUCs over the classes that were scored, by paired bootstrap, by patient.

    Raises InsufficientData and ValueError as `paired_test_scores` does.
    """
    return _compared(first.task, paired_test_scores(first, second), config or ProbeConfig())


def compare_on_validation(
    first: ProbeResult, second: ProbeResult, config: ProbeConfig | None = None
) -> Comparison | None:
    """Compare two encoders' validation macro AUCs, as `compare` does those on test.

    Returns None if one of them was not scored on validation, or if no class was scored of both. Raises ValueError if
    their records differ.
    """
    if first.scores is None or second.scores is None or first.predictions is None or second.predictions is None:
        return None
    if first.scores.validation is None or second.scores.validation is None:
        return None
    scored = {score.name for score in second.scores.validation.classes}
    classes = [score.name for score in first.scores.validation.classes if score.name in scored]
    if not classes:
        return None
    a, b = (predictions.of(Split.VALIDATION) for predictions in (first.predictions, second.predictions))
    paired = paired_scores(first.task, Split.VALIDATION, a, b, classes)
    return _compared(first.task, paired, config or ProbeConfig())


def _compared(task: str, paired: PairedScores, config: ProbeConfig) -> Comparison:
    times_RN = resample_patients(paired.patient, resamples=config.resamples, seed=config.seed)
    difference = paired_difference(paired.y_NC, paired.first_NC, paired.second_NC, times_RN, config.confidence)
    return Comparison(task=task, classes=paired.classes, records=len(paired.patient), difference=difference)


def _different(task: str, split: Split, first: Predictions, second: Predictions) -> ValueError:
    return ValueError(
        f"two probes of {task} (of {len(first.record_id)} and {len(second.record_id)} records) are on different "
        f"{split} records: probe both again on the same ECGs and protocol"
    )
