"""The evaluation suite as data: each evaluation is a task, with variants of its plain linear probe.

A name is `<task>` or `<task>__<variant>`, or with more variants, such as `cpsc2018__multi_class__nearest_mean`; it
names the product `probe/<evaluation>/<encoder>`. `evaluation(name)` accepts every combination that makes sense; `SUITE`
is the closed list of those that are kept up to date. `dense/<evaluation>` compares our encoder with one that has dense
attention. Seeds are part of the recipe. This module imports nothing heavy; `run` does the evaluations.

    multi_class            records with exactly one class; a softmax, and accuracy beside AUC
    attention_pool         a learned query over all tokens in place of their mean
    fine_tuned             the encoder trained together with the probe, by the paper's recipe
    fine_tuned_layerwise   the same with a learning rate that falls from layer to layer
    nearest_mean           the class whose mean is nearest; for multi_class
    labels_1               a percentage of the training patients, 3 draws, and their mean (any number: labels_25)
    leads_II_V1            these leads of each ECG alone (any leads)
    noise_muscle_1         test ECGs with noise of a level; the probe is fitted on clean ones
    paper_protocol         the paper's folds 1-9 and 10 of PTB-XL, nothing chosen; its AdamW loop, or the named head
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from ecg_model.leads import LEADS
from pipelines.tasks.catalogue import SUITE_TASKS, TASKS, LabelTask
from pipelines.tasks.splits import PAPER_FOLDS, FewLabels

HeadName = Literal["linear", "paper_loop", "nearest_mean", "attention_pool", "fine_tuned", "fine_tuned_layerwise"]

NoiseKind = Literal["baseline", "muscle", "electrode"]
NOISES: tuple[NoiseKind, ...] = get_args(NoiseKind)
NOISE_LEVELS = (1, 2)
"""See `noise`; level 0 is the ECG as it is."""

DRAWS = 3
"""Draws of the training patients if labels are few."""

PAPER_SOURCES = ("ptbxl",)
"""Sources that the paper's protocol is defined for."""

FROZEN = ("linear", "paper_loop", "nearest_mean", "attention_pool")
"""Heads that do not train the encoder."""

ON_FEATURES = ("linear", "paper_loop", "nearest_mean")
"""Heads on one embedding of each ECG."""

VARIANT_HEADS: tuple[HeadName, ...] = get_args(HeadName)[2:]
"""Heads whose names are variants."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation's recipe."""

    task: LabelTask
    """Has the evaluation's name."""
    head: HeadName = "linear"
    leads: tuple[str, ...] | None = None
    """None is all."""
    percent: float | None = None
    """Of the training patients, if labels are few."""
    noise: tuple[NoiseKind, int] | None = None
    """Kind and level, on the test split."""

    @property
    def name(self) -> str:
        return self.task.name

    def draws(self) -> tuple[LabelTask, ...]:
        """Return the task of each draw of training patients; one task, the whole one, if labels are not few."""
        if self.percent in (None, 100):
            return (self.task,)
        protocols = (FewLabels(of=self.task.protocol, percent=self.percent, seed=seed) for seed in range(DRAWS))
        return tuple(replace(self.task, name=f"{self.name}__seed_{few.seed}", protocol=few) for few in protocols)


def evaluation(name: str) -> Evaluation:
    """Return the evaluation of that name. Raises ValueError if there is none, or if variants exclude each other."""
    base, *variants = name.split("__")
    if base not in SUITE_TASKS:
        raise ValueError(f"evaluation {name!r}: begin with one of {', '.join(SUITE_TASKS)}")
    varied = Evaluation(task=SUITE_TASKS[base])
    for variant in variants:
        varied = _varied(varied, variant)
    if varied.head == "linear" and varied.task.protocol == PAPER_FOLDS:
        varied = replace(varied, head="paper_loop")
    if varied.head == "nearest_mean" and varied.task.kind != "multi-class":
        raise ValueError(f"evaluation {name!r}: a record has one nearest mean, so name multi_class too")
    if varied.noise is not None and (varied.head not in ON_FEATURES or varied.percent is not None):
        raise ValueError(f"evaluation {name!r}: noise is for a probe of pooled features with all labels")
    if varied.leads is not None and varied.head not in FROZEN:
        raise ValueError(
            f"evaluation {name!r}: fine-tuning takes all leads; name a frozen head, or leave the leads out"
        )
    return replace(varied, task=replace(varied.task, name=name))


def _varied(plain: Evaluation, variant: str) -> Evaluation:
    """Return an evaluation with one more variant. Raises ValueError if it does not exist or does not fit."""
    kind, _, rest = variant.partition("_")
    if variant == "multi_class":
        if plain.task.kind == "multi-class":
            raise ValueError(f"variant {variant!r}: {plain.task.name} has one class a record already")
        return replace(plain, task=replace(_titled(plain, "one class a record"), kind="multi-class"))
    if variant in VARIANT_HEADS:
        return replace(plain, task=_titled(plain, variant.replace("_", " ")), head=_only_head(plain, variant))
    if variant == "paper_protocol":
        if plain.task.source not in PAPER_SOURCES:
            raise ValueError(f"variant {variant!r}: it is of {', '.join(PAPER_SOURCES)}, not of {plain.task.source}")
        return replace(plain, task=replace(_titled(plain, "folds 1-9 and 10 as in the paper"), protocol=PAPER_FOLDS))
    if kind == "labels" and rest in map(str, range(1, 101)):
        if plain.percent is not None:
            raise ValueError(f"variant {variant!r}: the name has a percentage of labels already: give one")
        return replace(plain, task=_titled(plain, f"{rest} % of the labels"), percent=float(rest))
    if kind == "leads" and rest:
        leads = tuple(lead for lead in LEADS if lead in rest.split("_"))
        if "_".join(leads) != rest or plain.leads is not None:
            raise ValueError(f"variant {variant!r}: name some of {', '.join(LEADS)}, in this order, each once")
        return replace(plain, task=_titled(plain, f"from {' and '.join(leads)} alone"), leads=leads)
    noises = {f"{noise}_{level}": (noise, level) for noise in NOISES for level in NOISE_LEVELS}
    if kind == "noise" and rest in noises:
        if plain.noise is not None:
            raise ValueError(f"variant {variant!r}: the name has noise already: give one kind and level")
        noise, level = noises[rest]
        return replace(plain, task=_titled(plain, f"{noise} noise of level {level}"), noise=(noise, level))
    raise ValueError(
        f"variant {variant!r} of {plain.task.name}: use multi_class, {', '.join(VARIANT_HEADS)}, labels_<percent>, "
        f"leads_<leads>, noise_<{'|'.join(NOISES)}>_<level> or paper_protocol"
    )


def _titled(plain: Evaluation, words: str) -> LabelTask:
    return replace(plain.task, title=f"{plain.task.title}, {words}")


def _only_head(plain: Evaluation, head: HeadName) -> HeadName:
    """Return the head. Raises ValueError if the evaluation has another one."""
    if plain.head != "linear":
        raise ValueError(f"{head} and {plain.head}: an evaluation has one head, so name one of them")
    return head


def _names() -> tuple[str, ...]:
    names = [name for name in SUITE_TASKS if name not in TASKS]
    for source in ("ptbxl", "ptbxl100"):
        for labels in ("all", "diagnostic", "subclass", "superclass", "form", "rhythm"):
            names += [f"{source}_{labels}__{head}" for head in ("attention_pool", "fine_tuned", "fine_tuned_layerwise")]
        superclass = f"{source}_superclass"
        names += [f"{superclass}__multi_class{head}" for head in ("", "__nearest_mean", "__fine_tuned")]
        names += [f"{superclass}__labels_{percent}" for percent in (1, 5, 10)]
        names += [f"{superclass}__{leads}" for leads in ("leads_II", "leads_II_V1")]
        names += [f"{superclass}__noise_{noise}_{level}" for noise in NOISES for level in NOISE_LEVELS]
    names += ["ptbxl_superclass__paper_protocol", "ptbxl_superclass__multi_class__paper_protocol"]
    names += ["cpsc2018__multi_class", "cpsc2018__multi_class__nearest_mean", "cpsc2018__attention_pool"]
    names += ["cpsc2018__fine_tuned", "georgia__multi_class"]
    return tuple(names)


SUITE = {name: evaluation(name) for name in _names()}
"""The evaluations that are kept up to date, beside the plain probes of `catalogue.TASKS`, by name."""

DENSE = "dense"
"""Prefix of an evaluation's name for CroPA against dense attention (`attention_ablation`)."""

AGAINST_DENSE = ("georgia__multi_class",)
"""The evaluations of CroPA against dense attention that are kept up to date: the paper's own row."""
