"""An encoder's probe, and those of its baselines: the same network with its initial weights, and handcrafted features.
Another encoder's probe is compared with ours, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.cache import Product, Workspace
from pipelines.encoders.names import OURS, EncoderNames
from pipelines.evaluate.exposure import Overlap, Overlaps
from pipelines.evaluate.features import OnProgress, encoder_and_random_baseline
from pipelines.evaluate.probes import handcrafted
from pipelines.evaluate.probes.comparison import Comparison, compare, compare_on_validation
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.result import load_result, load_scores
from pipelines.evaluate.probes.step import ProbeFacts, materialize_probe
from pipelines.evaluate.probes.stored import Probe
from pipelines.finding import Finding
from pipelines.formatting import format_difference, format_range
from pipelines.tasks.catalogue import LabelTask
from pipelines.tasks.splits import Split


@dataclass(frozen=True, kw_only=True)
class ProbePair:
    """Probes of one task on the same records: the encoder's, its random baseline's and that of handcrafted features."""

    encoder_names: EncoderNames
    pretrained: Product
    random: Product
    handcrafted: Product
    comparison: Comparison | None
    """Of the encoder and its random baseline; None if the task has too few records to be scored."""
    on_validation: Comparison | None
    """The same on validation; None if it was not scored there."""
    overlap: Overlap
    """Of the encoder's pretraining data with the test ECGs."""

    @property
    def reason(self) -> str | None:
        """Why the task was not scored; None if it was."""
        return ProbeFacts.of(self.pretrained).reason

    def above_random(self) -> Finding:
        """Check whether the encoder's validation macro AUC is above its random baseline's.

        The interval of the paired difference decides. A release waits for this check, so it is of the validation split:
        the test split decides nothing. A task that was not scored there is not judged.
        """
        if self.comparison is None:
            return Finding.passed(f"not judged: {self.reason}")
        ours, random = (ProbeFacts.of(product).validation_macro_auc for product in (self.pretrained, self.random))
        if ours is None or random is None or self.on_validation is None:
            return Finding.passed("not judged: its protocol has no validation split")
        lead = self.on_validation.difference
        words = f"validation macro AUC {ours.value:.3f} against {random.value:.3f} of the random encoder: "
        words += format_difference(lead.value, lead.low, lead.high)
        if lead.low > 0:
            return Finding.passed(words)
        if self.below_random:
            return Finding.failed(
                f"{words}, below it: pretraining made the features worse. Look at the curves of loss, std and rank in "
                "MLflow, then train again, with a lower peak_lr or another recipe"
            )
        return Finding.failed(
            f"{words}, which includes zero: not shown that pretraining helped. Train longer (recipe small or paper_*) "
            "or on more ECGs"
        )

    @property
    def below_random(self) -> bool:
        """Whether the validation macro AUC is clearly below the random baseline's: the interval lies below zero."""
        return self.on_validation is not None and self.on_validation.difference.high < 0

    def figures(self) -> dict[str, Any]:
        """Return the macro AUCs with their intervals, by name; one line if the task was not scored."""
        if self.comparison is None:
            return {"not scored": self.reason}
        window = ProbeFacts.of(self.pretrained).window
        figures: dict[str, Any] = {} if window is None else {"window": window}
        scores = load_scores(self.pretrained.path)
        assert scores is not None
        figures["labels scored"] = scores.test.labels
        for split in (Split.VALIDATION, Split.TEST):
            baselines = (("random", self.random), (handcrafted.NAME, self.handcrafted))
            for name, product in ((self.encoder_names.probe, self.pretrained), *baselines):
                figures |= _macro_auc(product, split, name)
        return figures | {f"seen, {self.encoder_names.probe}": self.overlap.in_words()}

    def by_class(self) -> list[dict[str, Any]]:
        """Return a row for each class that was scored, and one with the reason for each that was left out."""
        ours, random = (load_scores(product.path) for product in (self.pretrained, self.random))
        if ours is None or random is None:
            return []
        random_scores = {score.name: score for score in random.test.classes}
        rows: list[dict[str, Any]] = [
            {
                "class": score.name,
                "positives": score.positives,
                "AUC": round(score.auc.value, 4),
                "interval": format_range(score.auc.low, score.auc.high),
                "random AUC": round(random_scores[score.name].auc.value, 4),
                "note": "",
            }
            for score in ours.test.classes
        ]
        left_out = ours.test.omitted.items()
        empty = {"positives": 0, "AUC": None, "interval": "", "random AUC": None}
        return rows + [{"class": name, **empty, "note": f"left out: {reason}"} for name, reason in left_out]


def probe_pair(
    workspace: Workspace,
    task: LabelTask,
    config: ProbeConfig,
    encoder_names: EncoderNames = OURS,
    progress: OnProgress | None = None,
) -> ProbePair:
    """Probe an encoder of the workspace, its random baseline and handcrafted features."""
    sources = (*encoder_and_random_baseline(workspace, encoder_names), handcrafted.HandcraftedSource())
    first, second, third = (materialize_probe(workspace, task, source, config, progress=progress) for source in sources)
    scored = ProbeFacts.of(first).scored and ProbeFacts.of(second).scored
    ours = Probe.load(first.path)
    results = (ours.result, load_result(second.path))
    return ProbePair(
        encoder_names=encoder_names,
        pretrained=first,
        random=second,
        handcrafted=third,
        comparison=compare(*results, config) if scored else None,
        on_validation=compare_on_validation(*results, config),
        overlap=Overlaps(workspace).of_probe(ours),
    )


def beside_ours(workspace: Workspace, task: LabelTask, pair: ProbePair, config: ProbeConfig) -> dict[str, Any]:
    """Return our encoder's test figures on the same task, and the lead of the pair's encoder over it.

    Only a probe that is there already is compared: one line if ours was not probed on the same ECGs by the same
    protocol, and nothing if the pair has no scores.
    """
    if pair.comparison is None:
        return {}
    ours = workspace.current(f"probe/{task.name}/{OURS.probe}")
    if ours is None or ProbeFacts.of(ours).data_digest != ProbeFacts.of(pair.pretrained).data_digest:
        return {f"beside {OURS.probe}": "not probed on the same ECGs and protocol: probe ours, then this again"}
    lead = compare(load_result(pair.pretrained.path), load_result(ours.path), config).difference
    words = format_difference(lead.value, lead.low, lead.high)
    return {**_macro_auc(ours, Split.TEST, OURS.probe), f"{pair.encoder_names.probe} minus {OURS.probe}": words}


def _macro_auc(product: Product, split: Split, name: str) -> dict[str, Any]:
    """Return a probe's macro AUC and its interval as figures, or nothing if the split was not scored."""
    auc = ProbeFacts.of(product).macro_auc(split)
    if auc is None:
        return {}
    return {
        f"{split} macro AUC, {name}": round(auc.value, 4),
        f"{split} interval, {name}": format_range(auc.low, auc.high),
    }
