"""Launchpad forms made from the dataclasses that hold a step's settings.

A form takes each field's name, type, default, help and limits from the dataclass: the help is the string literal under
the field, and the limits (`ge`, `gt`, `le`, `lt`) are the field's metadata. A `Part` names the fields that are offered
and how they differ; `form` makes the base class of a form from parts; `Part.read` turns a filled-in form back into the
dataclass, which then runs its own checks.

    PROBE = Part(ProbeConfig, only=("penalties", "resamples"))

    class ProbeSettings(form(PROBE)):
        "Settings of a probe."

    probe = PROBE.read(config)
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import dagster as dg
import pydantic

Settings = TypeVar("Settings")
_LIMITS = ("ge", "gt", "le", "lt")


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
            kind = _form_type(types[setting.name])
            default = self.defaults.get(setting.name, _default(setting, kind))
            text = self.helps.get(setting.name, texts[setting.name])
            if self.empty is not None:
                kind, default, text = kind | None, None, f"{text} Empty: {self.empty[setting.name]}."
            limits = {name: setting.metadata[name] for name in _LIMITS if name in setting.metadata}
            made[self._name(setting)] = kind, pydantic.Field(default=default, description=text, **limits)
        return made

    def given(self, config: dg.Config) -> dict[str, Any]:
        """Return the values of the form by field name, without those that were left empty; lists as tuples."""
        values = {setting.name: getattr(config, self._name(setting)) for setting in self._offered()}
        return {
            name: tuple(value) if isinstance(value, list) else value
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


def form(*parts: Part[Any]) -> type[dg.Config]:
    """Return the base class of a form with the fields of these parts, in their order."""
    made: dict[str, Any] = {name: field for part in parts for name, field in part.form_fields().items()}
    return pydantic.create_model("Form", __base__=dg.Config, **made)


def _form_type(kind: Any) -> Any:
    """Return the type as Dagster's forms take it: a tuple of any length is a list."""
    if get_origin(kind) is tuple:
        item, rest = get_args(kind)
        assert rest is ..., f"{kind}: a form has no field of this type"
        return list[item]
    variants = get_args(kind)
    if type(None) in variants:
        kept = [variant for variant in variants if variant is not type(None)]
        assert len(kept) == 1, f"{kind}: a form has no field of this type"
        return _form_type(kept[0]) | None
    return kind


def _default(setting: Field[Any], kind: Any) -> Any:
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
