"""What is said of a classifier of one's own, to people: its training data, their licence, what a label lacks."""

from __future__ import annotations

from pipelines.evaluate.exposure import Overlap
from pipelines.evaluate.probes.result import ProbeResult
from pipelines.evaluate.report.wording import in_words
from pipelines.incoming.listing import NAME as INCOMING
from pipelines.release.own_classifier import OwnClassifierFacts
from pipelines.release.tags import kind_of
from pipelines.sources import SOURCES


def licence_of(source: str) -> str:
    """Return the licence of a source's ECGs."""
    if source == INCOMING:
        return "own data: whatever its owner allows"
    return SOURCES[source].licence


def exposed(seen: Overlap) -> str:
    """Say what of the test ECGs the encoder was pretrained on. Labels were not used there."""
    caution = "; on ECGs that it did not see, expect a little less" if seen.test else ""
    return f"seen in the encoder's pretraining, without labels: {seen.in_words()}{caution}"


def trained_on(facts: OwnClassifierFacts, seen: Overlap, *, simulated: bool) -> str:
    """Return what a classifier was made from and how, and how it compares with baselines; it is part of its card."""
    ecgs = ", ".join(f"{split} {count:,}" for split, count in facts.ecgs.items())
    exclusive = facts.kind == "multi-class"
    calibrated = "one temperature, as its labels exclude each other" if exclusive else "a curve for each label (Platt)"
    note = "" if facts.encoder_note is None else f" ({facts.encoder_note})"
    baselines = ", ".join(f"{role} {in_words(auc)}" for role, auc in facts.baselines.items())
    labels = f"{facts.title} (sha256 {facts.labels_digest[:12]})"
    method = f"read by {facts.method.replace('_', ' ')}{_chosen(facts)}"
    return "; ".join(
        [
            f"{kind_of(simulated=simulated)} ECGs of {facts.source} with {labels}, split by patient: {ecgs}",
            f"encoder {facts.encoder}{note}, sha256 {facts.encoder_digest[:12]}, {method}",
            f"calibrated on validation by {calibrated}",
            f"macro AUC on test {in_words(facts.test_macro_auc)}, of baselines: {baselines}",
            exposed(seen),
        ]
    )


def remark(label: str, facts: OwnClassifierFacts) -> str:
    """Say what a label lacks."""
    remarks = [facts.left_out[label]] if label in facts.left_out else []
    if label not in facts.labels:
        remarks.append("not predicted")
    elif label in facts.uncalibrated:
        remarks.append("not calibrated")
    return "; ".join(remarks)


def label_figures(facts: OwnClassifierFacts, result: ProbeResult) -> list[dict[str, str]]:
    """Return a row per label: its test scores, its ECGs by split, and what it lacks."""
    assert result.scores is not None
    scores = {score.name: score for score in result.scores.test.classes}
    return [
        {
            "label": label,
            "AUC": in_words(scores[label].auc) if label in scores else "",
            "average precision": f"{scores[label].average_precision:.3f}" if label in scores else "",
            "to train": f"{by['train']:,}",
            "validation": f"{by['validation']:,}",
            "test": f"{by['test']:,}",
            "remark": remark(label, facts),
        }
        for label, by in facts.positives.items()
    ]


def _chosen(facts: OwnClassifierFacts) -> str:
    """Say what a method was chosen from."""
    if len(facts.methods) == 1:
        return ""
    scores = ", ".join(f"{method.replace('_', ' ')} {auc:.4f}" for method, auc in facts.methods.items())
    return f", chosen on validation ({scores})"
