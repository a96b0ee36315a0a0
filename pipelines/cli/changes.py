"""`--set` of `ecg run`: settings of its steps, as the UI's launchpad has them, and fields of the recipe.

STEP.FIELD=VALUE    a setting of a step, such as harmonize.amplitude=10 or corpus.sources=chapman,code15, or
                    release.probes=linear=1,attention_pool=2
FIELD=VALUE         a field of the recipe, such as epochs=3 or jepa.encoder.dim=96
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import Field as Limits
from pydantic import ValidationError, create_model

from pipelines.corpus.config import CorpusConfig
from pipelines.device import require_device_name
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.window import Incomplete
from pipelines.incoming.listing import NAME
from pipelines.release.gate import GateConfig
from pipelines.release.gate_probes import GATE_TASK
from pipelines.sources import SOURCES
from pipelines.tasks.catalogue import TASKS

Settings = TypeVar("Settings")


@dataclass(frozen=True, kw_only=True)
class Fetching:
    """How raw files are downloaded."""

    connections: int = field(default=16, metadata={"ge": 1, "le": 64})


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What becomes of raw files that are harmonized."""

    keep_raw: bool = True


@dataclass(frozen=True, kw_only=True)
class Base:
    """What settings of the corpus that are not set are taken from."""

    base: Literal["champion", "defaults"] = "champion"


@dataclass(frozen=True, kw_only=True)
class Computing:
    """How a training is computed, and what it starts from."""

    device: str = "auto"
    processes: int = field(default=0, metadata={"ge": 0})
    accumulate: int = field(default=1, metadata={"ge": 1})
    recompute: bool = False
    warm_start: str = ""

    def __post_init__(self) -> None:
        require_device_name(self.device)


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What a version is released with."""

    gate_task: str = GATE_TASK

    def __post_init__(self) -> None:
        if self.gate_task not in TASKS:
            raise ValueError(f"gate_task {self.gate_task!r}: use {', '.join(TASKS)}")


OFFERED: Mapping[str, Mapping[type[Any], Sequence[str] | None]] = {
    "download": {Fetching: None},
    "harmonize": {QualityLimits: None, Incomplete: None, Keeping: None},
    "corpus": {CorpusConfig: None, Base: None},
    "pretrain": {Computing: None},
    "evaluate": {ProbeConfig: ("penalties", "resamples", "min_positives")},
    "release": {GateConfig: ("margin", "label_margin", "probes"), Scoring: None},
}
"""The settings that each step has, and which of their fields; None: all."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a user set, and nothing of what was left as it is."""

    steps: Mapping[str, Mapping[str, Any]]
    """Values by step and field."""
    recipe: Mapping[str, str]
    """Texts by field of the recipe, as `recipe_named` takes them."""

    def of(self, settings: type[Settings], step: str, usual: Settings | None = None) -> Settings:
        """Return the settings of a step, with what was set. usual: without what was set; None: the defaults."""
        base: Any = settings() if usual is None else usual
        return replace(base, **self.given(settings, step))

    def given(self, settings: type[Any], step: str) -> dict[str, Any]:
        """Return what was set of the settings of a step, by field."""
        names = _offered(step)
        return {name: value for name, value in self.steps.get(step, {}).items() if names[name][0] is settings}


def read_changes(assignments: Sequence[str], steps: Sequence[str], recipe: str) -> Changes:
    """Read what was set of the steps that are run.

    Raises ValueError for a step that is not run, for an unknown field, and for a value that is refused; all of that is
    found before anything is done.
    """
    of_steps: dict[str, dict[str, Any]] = {}
    of_recipe: dict[str, str] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment!r}: write FIELD=VALUE, such as epochs=3 or corpus.seed=1")
        step, dot, name = path.partition(".")
        if not dot or step not in OFFERED:
            step, of_recipe[path] = "pretrain", text
        else:
            of_steps.setdefault(step, {})[name] = _value(step, name, text)
        if step not in steps:
            raise ValueError(f"--set {assignment}: it is of the step {step}, which is not run: name that step, too")
    changes = Changes(steps=of_steps, recipe=of_recipe)
    for step, classes in OFFERED.items():
        for settings in classes:
            changes.of(settings, step)  # each refuses what it cannot use
    for source in changes.of(CorpusConfig, "corpus").sources or ():
        if source not in (*SOURCES, NAME):
            raise ValueError(f"--set corpus.sources: no source {source!r}: use {', '.join((*SOURCES, NAME))}")
    if "pretrain" in steps:
        _require_recipe(recipe, of_recipe)
    return changes


def _require_recipe(recipe: str, changes: Mapping[str, str]) -> None:
    """Refuse a recipe or a change of one; what the changes do to the champion's recipe is known in the step."""
    from pipelines.pretrain.recipes import RECIPES, recipe_named
    from pipelines.release.retraining import RetrainingConfig

    RetrainingConfig.from_environment()
    if recipe or not changes:
        recipe_named(recipe or "demo", changes)
        return
    refusals: list[ValueError] = []
    for name in RECIPES:  # the champion's may be any of them
        try:
            recipe_named(name, changes)
        except ValueError as error:
            refusals.append(error)
        else:
            return
    raise refusals[0]


def _offered(step: str) -> dict[str, tuple[type[Any], Field[Any]]]:
    """Return a step's fields by name, each with the class that it is of."""
    return {
        one.name: (settings, one)
        for settings, names in OFFERED[step].items()
        for one in _fields(settings)
        if names is None or one.name in names
    }


def _fields(settings: type[Any]) -> tuple[Field[Any], ...]:
    return fields(settings)


def _value(step: str, name: str, text: str) -> Any:
    """Convert text to a field's type, within its limits.

    `none` is None, a list is `a,b` or `[a, b]`, and numbers by name are `a=1,b=2` or `{a: 1, b: 2}`.
    """
    offered = _offered(step)
    if name not in offered:
        raise ValueError(f"--set {step}.{name}: {step} has no setting {name!r}: use {', '.join(offered)}")
    settings, found = offered[name]
    hint = get_type_hints(settings)[name]
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if NoneType in kinds and text.lower() in ("none", "null", ""):
        return None
    value: Any = text
    if any(get_origin(kind) is tuple for kind in kinds):
        items = (item.strip().strip("\"'") for item in text.strip().removeprefix("[").removesuffix("]").split(","))
        value = [item for item in items if item]
    elif get_origin(hint) is Mapping:
        value = _by_name(text)
    try:
        one = create_model("Setting", value=(hint, Limits(**found.metadata)))
        return one.model_validate({"value": value}).model_dump()["value"]
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"].replace("Input", "the value")
        raise ValueError(f"--set {step}.{name}={text}: {reason}") from error


def _by_name(text: str) -> dict[str, str]:
    """Read `a=1,b=2` or `{a: 1, b: 2}`; a name without a number has an empty one."""
    pairs = (item.replace(":", "=", 1).partition("=") for item in text.strip().strip("{}").split(",") if item.strip())
    return {name.strip().strip("\"'"): number.strip() for name, _, number in pairs}
