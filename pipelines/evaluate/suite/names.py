"""The evaluation suite as data: each evaluation is a task and what is done differently from its plain linear probe.

A name is `<task>` or `<task>__<variant>`, or with more variants, such as `cpsc2018__multi_class__nearest_mean`; it
names the product `probe/<evaluation>/<encoder>`. `evaluation(name)` makes any that makes sense; `SUITE` is the closed
list of those that are kept up to date. `dense/<evaluation>` asks it of our encoder and of one with dense attention.
Seeds are part of the recipe. Costs nothing to import: `run_suite` does it.

    multi_class            records with exactly one class; a softmax, and accuracy beside AUC
    attention_pool         a learned query over all tokens in place of their mean
    fine_tuned             the encoder trained along, by the paper's recipe
    fine_tuned_layerwise   the same with a learning rate that falls from layer to layer
    nearest_mean           the class whose mean is nearest; for multi_class
    labels_1               a percentage of the training patients, 3 draws, and their mean (any number: labels_25)
    leads_II_V1            these leads of each ECG alone (any leads)
    noise_muscle_1         test ECGs with noise of a level, the probe as it was fitted on clean ones
    paper_protocol         the paper's folds 1-9 and 10 of PTB-XL, nothing chosen; its AdamW loop, or the head named
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
"""Of the training patients, where labels are few."""

PAPER_SOURCES = ("ptbxl",)
"""What the paper's protocol is about."""

FROZEN = ("linear", "paper_loop", "nearest_mean", "attention_pool")
"""Heads that leave the encoder as it is."""

ON_FEATURES = ("linear", "paper_loop", "nearest_mean")
"""Heads on one embedding an ECG."""

VARIANT_HEADS: tuple[HeadName, ...] = get_args(HeadName)[2:]
"""Heads that a variant is called after."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation's recipe. task: named as the evaluation. leads: None is all. percent: of the training patients,
    where labels are few. noise: its kind and level, on the test split."""

    task: LabelTask
    head: HeadName = "linear"
    leads: tuple[str, ...] | None = None
    percent: float | None = None
    noise: tuple[NoiseKind, int] | None = None

    @property
    def name(self) -> str:
        return self.task.name

    def draws(self) -> tuple[LabelTask, ...]:
        """The task of each draw of training patients; one task, the whole one, where labels are not few: of all of them
        every draw is the same."""
        if self.percent in (None, 100):
            return (self.task,)
        protocols = (FewLabels(of=self.task.protocol, percent=self.percent, seed=seed) for seed in range(DRAWS))
        return tuple(replace(self.task, name=f"{self.name}__seed_{few.seed}", protocol=few) for few in protocols)


def evaluation(name: str) -> Evaluation:
    """The evaluation of that name. Raises ValueError where there is none, or where variants exclude each other."""
    base, *variants = name.split("__")
    if base not in SUITE_TASKS:
        raise ValueError(f"evaluation {name!r}: begin with one of {', '.join(SUITE_TASKS)}")
    found = Evaluation(task=SUITE_TASKS[base])
    for variant in variants:
        found = _varied(found, variant)
    if found.head == "linear" and found.task.protocol == PAPER_FOLDS:
        found = replace(found, head="paper_loop")
    if found.head == "nearest_mean" and found.task.kind != "multi-class":
        raise ValueError(f"evaluation {name!r}: a record has one nearest mean, so name multi_class too")
    if found.noise is not None and (found.head not in ON_FEATURES or found.percent is not None):
        raise ValueError(f"evaluation {name!r}: noise is for a probe of pooled features with all labels")
    if found.leads is not None and found.head not in FROZEN:
        raise ValueError(
            f"evaluation {name!r}: fine-tuning takes all leads; name a frozen head, or leave the leads out"
        )
    return replace(found, task=replace(found.task, name=name))


def _varied(plain: Evaluation, variant: str) -> Evaluation:
    kind, _, rest = variant.partition("_")
    if variant == "multi_class":
        if plain.task.kind == "multi-class":
            raise ValueError(f"variant {variant!r}: {plain.task.name} has one class a record already")
        return replace(plain, task=replace(_titled(plain, "one class a record"), kind="multi-class"))
    if variant in VARIANT_HEADS:
        return replace(plain, task=_titled(plain, variant.replace("_", " ")), head=_only_head(plain, variant))
    if variant == "paper_protocol":
        if plain.task.source not in PAPER_SOURCES:
            raise ValueError(f"variant {variant!r}: it is about {', '.join(PAPER_SOURCES)}, not {plain.task.source}")
        return replace(plain, task=replace(_titled(plain, "folds 1-9 and 10 as in the paper"), protocol=PAPER_FOLDS))
    if kind == "labels" and rest in map(str, range(1, 101)):
        if plain.percent is not None:
            raise ValueError(f"variant {variant!r}: labels are few already")
        return replace(plain, task=_titled(plain, f"{rest} % of the labels"), percent=float(rest))
    if kind == "leads" and rest:
        leads = tuple(lead for lead in LEADS if lead in rest.split("_"))
        if "_".join(leads) != rest or plain.leads is not None:
            raise ValueError(f"variant {variant!r}: name some of {', '.join(LEADS)}, in this order, each once")
        return replace(plain, task=_titled(plain, f"from {' and '.join(leads)} alone"), leads=leads)
    noises = {f"{noise}_{level}": (noise, level) for noise in NOISES for level in NOISE_LEVELS}
    if kind == "noise" and rest in noises:
        if plain.noise is not None:
            raise ValueError(f"variant {variant!r}: there is noise already")
        noise, level = noises[rest]
        return replace(plain, task=_titled(plain, f"{noise} noise of level {level}"), noise=(noise, level))
    raise ValueError(
        f"variant {variant!r} of {plain.task.name}: use multi_class, {', '.join(VARIANT_HEADS)}, labels_<percent>, "
        f"leads_<leads>, noise_<{'|'.join(NOISES)}>_<level> or paper_protocol"
    )


def _titled(plain: Evaluation, words: str) -> LabelTask:
    return replace(plain.task, title=f"{plain.task.title}, {words}")


def _only_head(plain: Evaluation, head: HeadName) -> HeadName:
    if plain.head != "linear":
        raise ValueError(f"{head} beside {plain.head}: an evaluation has one head")
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
"""What is kept up to date beside the plain probes of `labels.TASKS`, by name."""

DENSE = "dense"
"""Before an evaluation's name: CroPA against dense attention in it (`dense`)."""

AGAINST_DENSE = ("georgia__multi_class",)
"""Those that are kept up to date so: the paper's own row."""
