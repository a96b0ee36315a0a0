"""The gate between a challenger and the champion: four rules, five for a classifier, each with what it saw. Pure.

    not_worse        the validation macro AUC, paired by patient with the champion's, did not fall; or what is decided
                     without scores (`decide_without_scores`)
    no_label_lost    the AUC of no single label fell, which a macro mean would hide, and no label is gone
                     (of encoders, both are the weighted mean over the probes of `GateConfig.probes`)
    not_collapsed    the pretraining's own figures are sound
    serves           the registered version, pulled as users pull it, gives the encoder's embedding
    on_champion      a classifier's encoder is the encoders' champion

Validation decides. The test split is reported and never used.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pipelines.evaluate.statistics.bootstrap import PairedDifference
from pipelines.finding import Finding
from pipelines.formatting import markdown_table
from pipelines.release.gate_probes import USUAL_PROBES, ProbeRow, check_probes, probes_table
from pipelines.tasks.splits import of_patients

RULES = {
    "not_worse": "The 95 % interval of challenger minus champion, validation macro AUC paired by patient (of encoders "
    "the weighted mean over `probes`), reaches no further below zero than the margin. Never passed by what was "
    "champion and was replaced, nor by what was trained on simulated ECGs where the champion was trained on recorded "
    "ones.",
    "no_label_lost": "The challenger has all labels that the champion has, and no label's validation AUC fell by more "
    "than the label margin with an interval that lies below zero as a whole.",
    "not_collapsed": "The loss fell, and the embeddings still tell ECGs apart.",
    "serves": "The registered version, pulled in a process of its own, embeds the example ECG as the encoder does.",
}
"""The rules in words, by name; all must hold."""

CLASSIFIER_RULES = {**RULES, "on_champion": "Its encoder is the champion of ecg-encoder."}

SERVING_TOLERANCE = 1e-5
NOT_COMPARED = Finding.passed("not compared")


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """Margins of the gate, and its paired bootstrap by patient. See RULES."""

    margin: float = field(default=0.01, metadata={"ge": 0, "lt": 1})
    """How far below zero the interval of challenger minus champion, validation macro AUC, may reach."""
    label_margin: float = field(default=0.03, metadata={"ge": 0, "lt": 1})
    """How far the validation AUC of one label may fall. A larger fall fails only if its whole interval lies below
    zero."""
    resamples: int = field(default=1000, metadata={"ge": 1})
    """Bootstrap resamples of the patients."""
    confidence: float = field(default=0.95, metadata={"gt": 0, "lt": 1})
    """Level of the intervals."""
    seed: int = 0
    """Seed of the resamples."""
    probes: Mapping[str, float] = field(default_factory=lambda: dict(USUAL_PROBES))
    """Probes that encoders are compared by on the gate's task, each with its weight: judged is the weighted mean of
    their differences, on the same validation ECGs and resamples; all are shown. `linear`, or a variant as `ecg
    evaluate` takes it: `attention_pool`, `leads_II`; `fine_tuned` and `fine_tuned_layerwise` train each encoder for an
    hour or more. A weight of 0 shows a probe without judging it. A probe of tokens that the champion's own code has not
    is left out, and the verdict says so. `linear: 1` alone is the gate of earlier versions, and takes the least time
    and disk."""

    def __post_init__(self) -> None:
        check_probes(self.probes)
        for name in ("margin", "label_margin"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}={getattr(self, name)}: give a difference of AUC, 0 to below 1")
        if self.resamples < 1:
            raise ValueError(f"resamples={self.resamples}: use at least 1")
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(f"confidence={self.confidence}: use a share between 0 and 1, such as 0.95")


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Challenger and champion on the same validation records and the labels that both have.

    Of several probes, scores and differences are weighted means over those that are judged.
    """

    challenger: float
    """Its macro AUC."""
    champion: float
    """Its macro AUC."""
    records: int
    patients: int
    """Named patients and, each as a patient, records without one, as `splits.of_patients` takes them."""
    macro: PairedDifference
    """Macro AUC of the challenger minus that of the champion."""
    labels: Mapping[str, PairedDifference]
    """The same of each label's AUC."""
    lost: tuple[str, ...] = ()
    """Labels that the champion has and the challenger lacks."""
    unnamed: int = 0
    """Records without a patient."""
    probes: tuple[ProbeRow, ...] = ()
    """A row a probe, and of several that are judged one of their weighted mean; empty for classifiers as served."""


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """Whether the challenger becomes champion, and why."""

    against: int | None
    """The champion's version; None: there was none."""
    rules: Mapping[str, Finding]
    """What each rule saw, by name."""
    probes: tuple[ProbeRow, ...] = ()
    """As `Contest.probes`; empty if no scores were compared, and of verdicts of earlier versions."""

    @property
    def promote(self) -> bool:
        return all(rule.holds for rule in self.rules.values())

    @property
    def reason(self) -> str:
        """What decided, in one line."""
        if self.promote:
            return f"promoted: {self.rules['not_worse'].seen}"
        failed = "; ".join(f"{name}: {rule.seen}" for name, rule in self.rules.items() if not rule.holds)
        return f"kept as challenger: {failed}"

    def page(self) -> str:
        """Render the verdict in Markdown."""
        rows = [(name, "yes" if rule.holds else "NO", rule.seen) for name, rule in self.rules.items()]
        against = "There was no champion." if self.against is None else f"Against version {self.against}."
        decision = "Promoted" if self.promote else "Kept as challenger"
        parts = [f"**{decision}.** {against}", markdown_table(("rule", "holds", "what was seen"), rows)]
        if self.probes:
            parts.append(probes_table(self.probes))
        return "\n\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        values = {"against": self.against, "rules": {name: asdict(rule) for name, rule in self.rules.items()}}
        return values | ({"probes": [row.to_dict() for row in self.probes]} if self.probes else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GateVerdict:
        rules = {name: Finding(**rule) for name, rule in values["rules"].items()}
        probes = tuple(map(ProbeRow.from_dict, values.get("probes", ())))
        return cls(against=values["against"], rules=rules, probes=probes)


def decide_without_scores(
    *, against: int | None, was_champion: bool, same_weights: bool, simulated: bool, champion_simulated: bool
) -> Finding | None:
    """Decide without comparing scores. Returns None if the scores must decide.

    against: the champion's version, if there is one
    was_champion: the challenger was champion and was replaced; going back is a person's decision
    same_weights: the challenger has the champion's weights
    simulated, champion_simulated: whether challenger and champion were trained on simulated ECGs

    Scores are taken on the challenger's ECGs. Simulated ECGs say nothing about a champion of recorded ones. And whoever
    moves from the demo to recorded ECGs, perhaps without labels yet, must not be stopped by the demo's encoder.
    """
    if was_champion:
        return Finding.failed("it was champion before: `ecg rollback VERSION` goes back to it, not the gate")
    if against is None:
        return Finding.passed("there was no champion")
    if same_weights:
        return Finding.passed(f"the weights are those of version {against}, served by other code")
    if simulated and not champion_simulated:
        return Finding.failed(
            f"it was trained on simulated ECGs, and version {against}, the champion, on recorded ones: their scores do "
            "not compare, and simulated ECGs never take the place of recorded ones",
        )
    if champion_simulated and not simulated:
        return Finding.passed(
            f"version {against}, the champion, was trained on simulated ECGs, and this on recorded ones"
        )
    return None


def judge(
    compared: Contest | Finding | None,
    *,
    against: int | None,
    training: Finding,
    serving: Finding,
    on_champion: Finding | None = None,
    config: GateConfig,
) -> GateVerdict:
    """Return the verdict.

    compared: the contest, what `decide_without_scores` says, or None if the challenger was not scored
    against: the champion's version, if there is one
    training, serving: the rules not_collapsed and serves
    on_champion: the rule of that name, for a classifier
    """
    return GateVerdict(
        against=against,
        rules={
            "not_worse": compared if isinstance(compared, Finding) else _not_worse(compared, against, config),
            "no_label_lost": NOT_COMPARED if isinstance(compared, Finding) else _no_label_lost(compared, config),
            "not_collapsed": training,
            "serves": serving,
            **({} if on_champion is None else {"on_champion": on_champion}),
        },
        probes=compared.probes if isinstance(compared, Contest) else (),
    )


def of_champion(passed: GateVerdict | None, rules: Collection[str] = RULES) -> GateVerdict:
    """Return the verdict on the champion itself.

    passed: the verdict that it passed by, or None. A rule that was not judged, or did not hold, holds because it is the
    champion: a person made it so.
    """
    judged = {} if passed is None else passed.rules
    is_champion = Finding.passed("it is the champion")
    holding = {name: judged[name] if name in judged and judged[name].holds else is_champion for name in rules}
    if passed is None:
        return GateVerdict(against=None, rules=holding)
    return replace(passed, rules=holding)


def _not_worse(contest: Contest | None, against: int | None, config: GateConfig) -> Finding:
    if contest is None:
        return Finding.failed("nothing to compare on validation, so nothing shows that it is not worse")
    low, high = contest.macro.low, contest.macro.high
    holds = low >= -config.margin
    # An interval that reaches beyond the margin although the difference does not is one of too few ECGs.
    few = "; too few ECGs to exclude that it is worse: label more, or `ecg promote` it"
    few = "" if holds or contest.macro.value < -config.margin else few
    mean, probes = _by_probe(contest)
    return Finding(
        holds,
        f"validation macro AUC{mean} {contest.challenger:.4f} against {contest.champion:.4f} of version {against}, "
        f"{contest.macro.value:+.4f} ({low:+.4f} to {high:+.4f}) on "
        f"{of_patients(contest.records, contest.patients, contest.unnamed)}, margin {config.margin:g}{few}{probes}",
    )


def _by_probe(contest: Contest) -> tuple[str, str]:
    """Return what the judged figure is a mean of, and each probe's figures; both empty of one probe alone."""
    rows = [row for row in contest.probes if row.weight is not None]
    if len(rows) < 2:
        return "", ""
    weights = {row.probe: f"{row.weight:g}" for row in rows if row.weight and row.difference is not None}
    alike = "" if len(set(weights.values())) == 1 else f" (weights {', '.join(weights.values())})"
    mean = f", mean of {' and '.join(weights)}{alike}," if len(weights) > 1 else f" by {next(iter(weights))}"
    return mean, f"; {'; '.join(row.in_words() for row in rows)}"


def _no_label_lost(contest: Contest | None, config: GateConfig) -> Finding:
    if contest is None:
        return Finding.failed("nothing to compare on validation")
    if contest.lost:
        return Finding.failed(f"it no longer has {', '.join(contest.lost)}")
    name, worst = min(contest.labels.items(), key=lambda item: item[1].value)
    lost = [
        f"{label} {difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
        for label, difference in contest.labels.items()
        if difference.value < -config.label_margin and difference.high < 0
    ]
    if lost:
        return Finding.failed(f"fell by more than {config.label_margin:g}: {', '.join(lost)}")
    return Finding.passed(f"of {len(contest.labels)} labels the worst is {name}, {worst.value:+.4f}")
