"""An encoder's probe beside those that it has to beat: of the same network with its initial weights, and of handcrafted
features; and beside ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.cache import Product, Workspace
from pipelines.encoders.names import OURS, EncoderNames
from pipelines.evaluate.exposure import Overlap, Overlaps
from pipelines.evaluate.features import OnProgress, encoder_and_random_baseline
from pipelines.evaluate.probes import handcrafted
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.fit import Comparison, compare
from pipelines.evaluate.probes.result import load_result
from pipelines.evaluate.probes.step import materialize_probe
from pipelines.evaluate.probes.stored import Probe
from pipelines.finding import Finding
from pipelines.tasks.catalogue import LabelTask


@dataclass(frozen=True, kw_only=True)
class ProbePair:
    """Probes of one task on the same records: the encoder's, its random baseline's and that of handcrafted features.

    comparison: of the first two; None where the task has too few to be scored. seen: of the test ECGs, by the encoder,
    in pretraining.
    """

    encoder_names: EncoderNames
    pretrained: Product
    random: Product
    floor: Product
    comparison: Comparison | None
    seen: Overlap

    @property
    def reason(self) -> str | None:
        """Why the task was not scored."""
        return self.pretrained.facts["reason"]

    def above_random(self) -> Finding:
        """Whether pretraining helped, by the validation macro AUCs, since a release waits for it and the test split
        decides nothing; a task that was not scored there is not judged."""
        if self.comparison is None:
            return Finding.passed(f"not judged: {self.reason}")
        mine, random = (product.facts.get("validation_macro_auc") for product in (self.pretrained, self.random))
        if mine is None or random is None:
            return Finding.passed("not judged: its protocol has no validation split")
        ahead = mine["value"] - random["value"]
        told = f"{mine['value']:.3f} against {random['value']:.3f} of the random encoder: {ahead:+.3f}"
        return Finding(ahead > 0, f"validation macro AUC {told}")

    def figures(self) -> dict[str, Any]:
        """What people look at first; one line where the task was not scored."""
        if self.comparison is None:
            return {"not scored": self.reason}
        window = self.pretrained.facts.get("window")
        shown: dict[str, Any] = {} if window is None else {"window": window}
        for split in ("validation", "test"):
            beside = (("random", self.random), (handcrafted.NAME, self.floor))
            for name, product in ((self.encoder_names.probe, self.pretrained), *beside):
                shown |= _macro_auc(product, split, name)
        return shown | {f"seen, {self.encoder_names.probe}": self.seen.in_words()}

    def by_class(self) -> list[dict[str, Any]]:
        """A row a class that was scored, and a row a class that was left out, with its reason."""
        mine, random = (load_result(product.path).scores for product in (self.pretrained, self.random))
        if mine is None or random is None:
            return []
        beside = {score.name: score for score in random.test.classes}
        rows: list[dict[str, Any]] = [
            {
                "class": score.name,
                "positives": score.positives,
                "AUC": round(score.auc.value, 4),
                "interval": f"{score.auc.low:.3f} to {score.auc.high:.3f}",
                "random AUC": round(beside[score.name].auc.value, 4),
                "note": "",
            }
            for score in mine.test.classes
        ]
        left_out = mine.test.omitted.items()
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
    first, second, floor = (materialize_probe(workspace, task, source, config, progress=progress) for source in sources)
    scored = first.facts["scored"] and second.facts["scored"]
    comparison = compare(load_result(first.path), load_result(second.path), config) if scored else None
    seen = Overlaps(workspace).of_probe(Probe.load(first.path))
    return ProbePair(
        encoder_names=encoder_names, pretrained=first, random=second, floor=floor, comparison=comparison, seen=seen
    )


def beside_ours(workspace: Workspace, task: LabelTask, pair: ProbePair, config: ProbeConfig) -> dict[str, Any]:
    """Our encoder's test figures on the same task, and how far the pair's encoder is ahead; nothing is computed for it.

    One line where ours was not probed on the same ECGs by the same protocol, and nothing where the pair has no score.
    """
    if pair.comparison is None:
        return {}
    ours = workspace.current(f"probe/{task.name}/{OURS.probe}")
    if ours is None or ours.facts["data_digest"] != pair.pretrained.facts["data_digest"]:
        return {f"beside {OURS.probe}": "not probed on the same ECGs and protocol: probe ours, then this again"}
    found = compare(load_result(pair.pretrained.path), load_result(ours.path), config).difference
    difference = f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
    return {**_macro_auc(ours, "test", OURS.probe), f"{pair.encoder_names.probe} minus {OURS.probe}": difference}


def _macro_auc(product: Product, split: str, name: str) -> dict[str, Any]:
    """A probe's macro AUC and its interval as figures; none where the split was not scored."""
    found = product.facts.get(f"{split}_macro_auc")
    if found is None:
        return {}
    return {
        f"{split} macro AUC, {name}": round(found["value"], 4),
        f"{split} interval, {name}": f"{found['low']:.3f} to {found['high']:.3f}",
    }
