"""Launchpad forms made from the dataclasses that hold a step's settings.

A form takes each field's name, type, default, help and limits from the dataclass: the help is the string literal under
the field, and the limits (`ge`, `gt`, `le`, `lt`) are the field's metadata. A `Part` names the fields that are offered
and how they differ; `form` makes the base class of a form from parts; `Part.read` turns a filled-in form back into the
dataclass, which then runs its own checks. `changes_form` makes a form of which each field may be left out.

    PROBE = Part(ProbeConfig, only=("penalties", "resamples"))

    class ProbeSettings(form(PROBE)):
        "Settings of a probe."

    probe = PROBE.read(config)

Dagster compares a run's settings with types and names when it is launched; `refused_at_launch` adds the limits and the
dataclass' own checks, so that no step runs before a wrong value is refused.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from enum import Enum
from functools import cache
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import dagster as dg
import pydantic
from dagster._config.errors import PostProcessingError
from dagster._core.definitions.decorators.op_decorator import DecoratedOpFunction

from ecg_model.settings import KIND, parts

Settings = TypeVar("Settings")
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


class Form(dg.Config):
    """A form that says what is wrong with it."""

    def refuse(self) -> None:
        """Raise ValueError for settings that cannot be, whatever the data home contains."""


@dataclass(frozen=True)
class Part(Generic[Settings]):
    """The fields of a dataclass that a form offers. The mappings are keyed by the dataclass' field names."""

    settings: type[Settings]
    only: Sequence[str] | None = field(default=None, kw_only=True)
    """Fields to offer, in this order. None: all."""
    names: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """Names in the form, if they differ."""
    defaults: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    """Defaults in the form, if they differ."""
    types: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    """Types in the form, if they differ."""
    helps: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """Help texts in the form, if they differ."""
    empty: Mapping[str, str] | None = field(default=None, kw_only=True)
    """What an empty field stands for. Given, every field may be left empty, is so by default, and `given` returns the
    others."""

    def form_fields(self) -> dict[str, tuple[Any, Any]]:
        """Return type and pydantic field of each offered field, by its name in the form."""
        types, texts = get_type_hints(self.settings), _texts(self.settings)
        made = {}
        for setting in self._offered():
            kind = self.types.get(setting.name) or _form_type(types[setting.name])
            default = self.defaults.get(setting.name, _default(setting, kind))
            text = _described(self.helps.get(setting.name, texts[setting.name]), setting)
            if self.empty is not None:
                kind, default, text = kind | None, None, f"{text} Empty: {self.empty[setting.name]}."
            made[self._name(setting)] = _limited(kind, setting), pydantic.Field(default=default, description=text)
        return made

    def given(self, config: dg.Config) -> dict[str, Any]:
        """Return the values of the form by field name, without those that were left empty; lists as tuples."""
        values = {setting.name: getattr(config, self._name(setting)) for setting in self._offered()}
        return {
            name: tuple(map(_plain, value)) if isinstance(value, list) else value
            for name, value in values.items()
            if self.empty is None or value is not None
        }

    def read(self, config: dg.Config) -> Settings:
        """Return the settings of a filled-in form. Raises ValueError as the dataclass does."""
        return self.settings(**self.given(config))

    def _offered(self) -> list[Field[Any]]:
        by_name = {setting.name: setting for setting in fields(self.settings)}  # pyright: ignore[reportArgumentType]
        return [by_name[name] for name in (by_name if self.only is None else self.only)]

    def _name(self, setting: Field[Any]) -> str:
        return self.names.get(setting.name, setting.name)


def form(*parts: Part[Any]) -> type[Form]:
    """Return the base class of a form with the fields of these parts, in their order."""

    class Parts(Form):
        def refuse(self) -> None:
            for part in parts:
                part.read(self)

    made: dict[str, Any] = {name: field for part in parts for name, field in part.form_fields().items()}
    return pydantic.create_model("Form", __base__=Parts, **made)


def changes_form(usual: Mapping[str, Any], *, without: Sequence[str] = ()) -> type[dg.Config]:
    """Return a form of changes of a dataclass and of those nested in it, by dotted path. Each field may be left out.

    `model_fields_set` of the filled-in form names those that were not.

    usual: what is changed, by the name under which people know it; the help of a field says its values
    without: fields that are not offered
    """
    (settings,) = {type(one) for one in usual.values()}
    made: dict[str, _Changed] = {}
    _changed_fields(settings, usual, without, "", made)
    offered: dict[str, Any] = {path: changed.form_field() for path, changed in made.items()}
    return pydantic.create_model("Changes", __base__=dg.Config, **offered)


@dataclass
class _Changed:
    """A field that a form of changes offers; parts of several kinds may have it."""

    kind: Any
    setting: Field[Any]
    texts: list[str]
    values: dict[str, Any]

    def form_field(self) -> tuple[Any, Any]:
        text = f"{' Or: '.join(dict.fromkeys(self.texts))} {_usual_values(self.values)}"
        # A default would be filled in by the launchpad, and be a change; a factory is no default to Dagster.
        offered = pydantic.Field(default_factory=lambda: None, description=text)
        return _limited(_form_type(self.kind), self.setting), offered


def _changed_fields(
    settings: type, usual: Mapping[str, Any], without: Sequence[str], prefix: str, made: dict[str, _Changed]
) -> None:
    """Add the fields of a dataclass, and of the parts that it has in `usual`, by their path."""
    types, texts = get_type_hints(settings), _texts(settings)
    for setting in fields(settings):
        path, kind = f"{prefix}{setting.name}", types[setting.name]
        values = {name: getattr(one, setting.name) for name, one in usual.items()}
        if path in without or setting.name == KIND:
            continue
        if choices := parts(kind):
            for part in choices:
                of_part = {name: one for name, one in values.items() if isinstance(one, part)}
                if of_part:
                    _changed_fields(part, of_part, without, f"{path}.", made)
            continue
        text = _described(texts[setting.name], setting)
        known = made.setdefault(path, _Changed(kind, setting, [], {}))
        assert known.kind == kind, f"{path}: a form has one type for it"
        known.texts.append(text)
        known.values |= values


def _usual_values(values: Mapping[str, Any]) -> str:
    """Return what a field is if it is not changed, as `Unchanged: 500 (demo), none (small, paper_block).`"""
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(_as_typed(value), []).append(name)
    if len(names) == 1:
        return f"Unchanged: {next(iter(names))}."
    each = [f"{value} ({', '.join(whose)})" for value, whose in names.items()]
    return f"Unchanged: {', '.join(each)}."


def _as_typed(value: Any) -> str:
    """Return a value as people type it into a form."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else f"{value}"


def refused_at_launch(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """Have Dagster check an asset's filled-in form, with limits and `Form.refuse`, before it starts a run.

    Dagster calls `post_process` of a type when a run is created, and again in the run's processes.
    """
    argument = asset.op.compute_fn
    if not isinstance(argument, DecoratedOpFunction) or not argument.has_config_arg():
        return asset
    settings = argument.get_config_arg().annotation

    def checked(value: Any) -> Any:
        try:
            filled = settings(**value)
            if isinstance(filled, Form):
                filled.refuse()
        except pydantic.ValidationError as error:
            wrong = [f"{'.'.join(map(str, one['loc']))}={one['input']!r}: {one['msg']}" for one in error.errors()]
            raise PostProcessingError("; ".join(wrong)) from None
        except ValueError as error:
            raise PostProcessingError(str(error)) from None
        return value

    form_type = asset.op.config_schema.config_type
    assert form_type is not None
    form_type.post_process = checked
    return asset


def _described(text: str, setting: Field[Any]) -> str:
    """Return a help text with the field's limits."""
    limits = [
        f"{words} {_as_typed(setting.metadata[name])}" for name, words in _LIMITS.items() if name in setting.metadata
    ]
    return f"{text} {' and '.join(limits).capitalize()}." if limits else text


def _limited(kind: Any, setting: Field[Any]) -> Any:
    """Return a form's type with the field's limits: those of a list are its items'."""
    limits = {name: setting.metadata[name] for name in _LIMITS if name in setting.metadata}
    if not limits:
        return kind
    if get_origin(kind) is list:
        return list[Annotated[get_args(kind)[0], pydantic.Field(**limits)]]
    return Annotated[kind, pydantic.Field(**limits)]


def _plain(item: Any) -> Any:
    """Return the value of a member of an enum, and anything else as it is."""
    return item.value if isinstance(item, Enum) else item


def _form_type(kind: Any) -> Any:
    """Return the type as Dagster's forms take it: a tuple of items of one type is a list."""
    if get_origin(kind) is tuple:
        item, *rest = get_args(kind)
        assert set(rest) <= {item, ...}, f"{kind}: a form has no field of this type"
        return list[item]
    variants = get_args(kind)
    if type(None) in variants:
        kept = [variant for variant in variants if variant is not type(None)]
        assert len(kept) == 1, f"{kind}: a form has no field of this type"
        return _form_type(kept[0]) | None
    return kind


def _default(setting: Field[Any], kind: Any) -> Any:
    if setting.default_factory is not MISSING:
        return setting.default_factory()
    assert setting.default is not MISSING, f"{setting.name}: a field of a form needs a default"
    if isinstance(setting.default, tuple):
        return list(setting.default)
    return float(setting.default) if kind is float else setting.default


@cache
def _texts(settings: type) -> dict[str, str]:
    """Return the string literals under the fields of a dataclass, each as one line."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(settings))).body
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for statement, below in zip(body.body, body.body[1:], strict=False):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
    return texts
