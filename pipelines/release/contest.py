"""The contest of a challenger with the champion on the same validation records, by one probe or several. Pure.

Shapes: N records, C labels, K probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pipelines.evaluate.probes.comparison import PairedScores, paired_scores
from pipelines.evaluate.probes.result import Predictions, ProbeResult
from pipelines.evaluate.statistics.paired import weighted_differences
from pipelines.evaluate.statistics.ranking import auc
from pipelines.finding import Finding
from pipelines.release.gate import Contest, GateConfig
from pipelines.release.gate_probes import LINEAR, WEIGHTED, ProbeRow
from pipelines.tasks.splits import Split


class Probed(NamedTuple):
    """A probe of the gate's task on challenger and champion."""

    probe: str
    weight: float
    challenger: ProbeResult
    champion: Predictions | None
    """Its scores of the same validation records; None if there are none."""
    why: str = ""
    """Why there are none, if it is known."""

    @property
    def lacking(self) -> str:
        """Why it does not compare the two; empty if it does."""
        if self.challenger.scores is None or self.challenger.scores.validation is None:
            return f"the challenger was not scored: {self.challenger.reason or 'there is no validation split'}"
        return self.why or "the champion was not scored" if self.champion is None else ""

    @property
    def held_out(self) -> Predictions:
        """The challenger's predictions on validation."""
        assert self.challenger.predictions is not None
        return self.challenger.predictions.of(Split.VALIDATION)

    @property
    def labels(self) -> list[str]:
        """The labels that the challenger was scored on and the champion has."""
        assert self.champion is not None
        assert self.challenger.scores is not None
        assert self.challenger.scores.validation is not None
        return [one.name for one in self.challenger.scores.validation.classes if one.name in self.champion.classes]


def contest(
    challenger: ProbeResult, champion: Predictions, config: GateConfig, *, lost: Sequence[str] = ()
) -> Contest | None:
    """Compare two probes on validation. Returns None if the challenger was not scored there, or no label is common.

    champion: its scores of the same validation records. lost: labels of the champion that the challenger lacks. Labels
    that only one of them has scores of are in neither mean. Raises ValueError if the records differ.
    """
    probed = Probed(LINEAR, 1.0, challenger, champion)
    compared = None if probed.lacking else _compared([probed], config)
    return None if compared is None else replace(compared, probes=(), lost=tuple(lost))


def contest_probes(probed: Sequence[Probed], config: GateConfig) -> Contest | Finding | None:
    """Compare two encoders on validation by several probes at once, on the labels that all of them scored.

    Judged is the weighted mean of the probes' differences, over the probes that both encoders have; the row of any
    other says why it is left out. Returns a finding if both have none with a weight, and None if no label is common.
    Raises ValueError if the records of two probes differ.
    """
    both = [one for one in probed if not one.lacking]
    if not any(one.weight for one in both):
        lacking = "; ".join(f"{one.probe}: {one.lacking}" for one in probed if one.weight)
        return Finding.failed(
            f"nothing to compare on validation by the probes that are judged ({lacking}): set `probes` to some that "
            f"both have, such as {LINEAR}: 1"
        )
    compared = _compared(both, config)
    if compared is None:
        return None
    rows = {row.probe: row for row in compared.probes}
    every = [rows.pop(one.probe, None) or _left_out(one) for one in probed]
    return replace(compared, probes=(*every, *rows.values()))


def _left_out(one: Probed) -> ProbeRow:
    validation = None if one.challenger.scores is None else one.challenger.scores.validation
    score = None if validation is None else validation.macro_auc.value
    return ProbeRow(probe=one.probe, weight=one.weight, challenger=score, why=one.lacking)


def _compared(probed: Sequence[Probed], config: GateConfig) -> Contest | None:
    """Compare by probes that both have, one of them with a weight. Returns None if no label is common."""
    first, task = probed[0], probed[0].challenger.task
    labels = [label for label in first.labels if all(label in one.labels for one in probed)]
    paired: list[PairedScores] = []
    for one in probed:
        assert one.champion is not None
        paired_scores(task, Split.VALIDATION, first.held_out, one.held_out, labels)  # refuses other records
        paired.append(paired_scores(task, Split.VALIDATION, one.held_out, one.champion, labels))
    if not labels:
        return None
    weights = [one.weight for one in probed]
    y_NC, patient = paired[0].y_NC, paired[0].patient
    differences = weighted_differences(
        y_NC,
        [(pair.first_NC, pair.second_NC) for pair in paired],
        weights,
        patient,
        resamples=config.resamples,
        seed=config.seed,
        confidence=config.confidence,
    )
    scores_K2 = np.array(
        [[auc(y_NC, score_NC).mean() for score_NC in (pair.first_NC, pair.second_NC)] for pair in paired]
    )
    challenger, champion = np.average(scores_K2, axis=0, weights=weights)
    rows = [
        ProbeRow(probe=one.probe, weight=one.weight, challenger=ours, champion=its, difference=difference)
        for one, (ours, its), difference in zip(probed, scores_K2.tolist(), differences.pairs, strict=True)
    ]
    mean = ProbeRow(
        probe=WEIGHTED,
        weight=None,
        challenger=float(challenger),
        champion=float(champion),
        difference=differences.macro,
    )
    return Contest(
        challenger=float(challenger),
        champion=float(champion),
        records=len(patient),
        patients=len(set(patient)),
        macro=differences.macro,
        labels=dict(zip(labels, differences.classes, strict=True)),
        unnamed=first.held_out.unnamed,
        probes=(*rows, mean) if sum(weight > 0 for weight in weights) > 1 else tuple(rows),
    )


def contest_served(
    challenger: ProbeResult, labels: Sequence[str], score_NC: np.ndarray, config: GateConfig
) -> Contest | None:
    """Compare a probe with a champion's probabilities as it serves them, on the labels that both have.

    labels, score_NC: the champion's, of the challenger's validation records
    """
    assert challenger.predictions is not None
    held_out = challenger.predictions.of(Split.VALIDATION)
    both = [label for label in labels if label in held_out.classes]
    served = replace(
        held_out,
        classes=tuple(both),
        y_NC=held_out.y_NC[:, [held_out.classes.index(label) for label in both]],
        score_NC=score_NC[:, [labels.index(label) for label in both]],
    )
    return contest(challenger, served, config, lost=[label for label in labels if label not in both])
