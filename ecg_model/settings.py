"""Settings as frozen dataclasses: to JSON values and back, checked by type, with a digest.

A field may hold settings of its own, one of several kinds (a union, told apart by the field KIND) or none.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
ADDED = {"added": True}
"""Metadata of a field that is newer than stored settings. It is left out of a dictionary while it has its default, so
that the digests of settings from before it stay."""

KIND = "network"
"""The field that tells which of several kinds of settings a part is; it does not change."""


def to_dict(config: Any, *, whole: bool = False) -> dict[str, Any]:
    """Return a config as JSON values; tuples become lists.

    whole: with the fields of `ADDED` that have their default, which are else left out.
    """
    values: dict[str, Any] = {}
    for setting in dataclasses.fields(config):
        value = getattr(config, setting.name)
        if whole or not (setting.metadata.get("added") and value == setting.default):
            values[setting.name] = to_dict(value, whole=whole) if dataclasses.is_dataclass(value) else value
    return json.loads(json.dumps(values))


def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build a config from the values of `to_dict`.

    Raises ValueError for an unknown field, naming the known ones, and for a value of a wrong type.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{cls.__name__} made from {values!r}: give an object with its fields")
    hints = get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {unknown[0]!r}: use {', '.join(hints)}")
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        choices = parts(hints[name])
        if choices and value is not None:
            arguments[name] = from_dict(part_of(choices, name, value), value)
        elif _fits(value, hints[name]):
            arguments[name] = tuple(value) if isinstance(value, list) else value
        else:
            raise ValueError(f"{name}={value!r}: use a value of type {getattr(hints[name], '__name__', hints[name])}")
    return cls(**arguments)


def parts(hint: Any) -> tuple[type[Any], ...]:
    """Return the configurations that a field of this type may hold: none if it holds a plain value."""
    variants = get_args(hint) if is_union(hint) else (hint,)
    return tuple(variant for variant in variants if dataclasses.is_dataclass(variant) and isinstance(variant, type))


def part_of(choices: Sequence[type[T]], name: str, values: Any) -> type[T]:
    """Return which of several configurations these values are, by their KIND. Raises ValueError if they are none."""
    if len(choices) == 1:
        return choices[0]
    by_kind = {getattr(choice, KIND, None): choice for choice in choices}
    kind = values.get(KIND) if isinstance(values, Mapping) else None
    if not (kind is None or isinstance(kind, str)) or kind not in by_kind:
        named = ", ".join(repr(known) for known in by_kind if known is not None)
        raise ValueError(f"{name}.{KIND}={kind!r}: use {named}, or leave it out")
    return by_kind[kind]


def is_union(hint: Any) -> bool:
    """Whether a type is a union."""
    return get_origin(hint) in (Union, types.UnionType)


def is_optional(hint: Any) -> bool:
    """Whether a type is a union with None."""
    return is_union(hint) and types.NoneType in get_args(hint)


def _fits(value: object, hint: Any) -> bool:
    """Whether a JSON value is of a field's type. The config class itself checks the choices of a Literal."""
    origin, inner = get_origin(hint), get_args(hint)
    if is_union(hint):
        return any(_fits(value, choice) for choice in inner)
    if origin is tuple:
        return isinstance(value, (list, tuple)) and len(value) == len(inner) and all(map(_fits, value, inner))
    if origin is Literal:
        return isinstance(value, str)
    if hint is types.NoneType:
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is hint  # not isinstance: True is no int here


def digest(config: Any) -> str:
    """Return the sha256 of a config's canonical JSON: equal exactly if all fields are equal."""
    text = json.dumps(to_dict(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
