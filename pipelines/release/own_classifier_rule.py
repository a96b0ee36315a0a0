"""The rule that a classifier of one's own has beside those of the gate: it is not clearly below its baselines. Pure.

Of a first version nothing else asks how good it is: there is no champion to compare it with.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.evaluate.probes.comparison import paired_scores
from pipelines.evaluate.probes.result import ProbeResult
from pipelines.evaluate.report.model import TITLES
from pipelines.evaluate.statistics.paired import paired_differences
from pipelines.finding import Finding
from pipelines.release.gate import GateConfig
from pipelines.tasks.splits import Split, of_patients

NOT_BELOW_BASELINES = "not_below_baselines"


def not_below_baselines(result: ProbeResult, baselines: Mapping[str, ProbeResult], config: GateConfig) -> Finding:
    """Compare a classifier with its baselines on validation, paired by patient.

    It fails if the interval of classifier minus baseline, macro AUC, lies below zero as a whole.

    baselines: of the same task, by their names in TITLES
    """
    if result.scores is None or result.scores.validation is None:
        return Finding.passed("not scored on validation")
    assert result.predictions is not None
    held_out = result.predictions.of(Split.VALIDATION)
    labels = [score.name for score in result.scores.validation.classes]
    seen, below = [], False
    for name, baseline in baselines.items():
        if baseline.predictions is None:
            continue
        other = baseline.predictions.of(Split.VALIDATION)
        paired = paired_scores(result.task, Split.VALIDATION, held_out, other, labels)
        macro, _ = paired_differences(
            paired.y_NC,
            paired.first_NC,
            paired.second_NC,
            paired.patient,
            resamples=config.resamples,
            seed=config.seed,
            confidence=config.confidence,
        )
        below |= macro.high < 0
        seen.append(f"to {TITLES[name]} {macro.value:+.4f} ({macro.low:+.4f} to {macro.high:+.4f})")
    ecgs = of_patients(len(held_out.record_id), len(set(held_out.patient)), held_out.unnamed)
    words = f"difference of validation macro AUC {', '.join(seen)}, on {ecgs}"
    if below:
        return Finding.failed(f"{words}: take another method or encoder, or label more ECGs")
    return Finding.passed(words)
