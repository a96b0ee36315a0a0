"""Typed facts: what a step reports about its product, as a dataclass that owns reading and writing it.

A step defines a subclass of `Facts` beside its `materialize_*`, whose fields are the keys of `facts` in done.json:

    @dataclass(frozen=True, kw_only=True)
    class ProbeFacts(Facts):
        scored: bool
        test_macro_auc: Interval | None = written_if_set()

    ProbeFacts.of(product).scored
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol, Self, get_args, get_origin, get_type_hints

_OMIT = {"omit": True}


def written_if_set() -> Any:
    """Return a dataclass field that is None if its key is absent, and whose key is not written if it is None."""
    return field(default=None, metadata=_OMIT)


class HasFacts(Protocol):
    """A finished product."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def facts(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Base class of a step's facts.

    A field with a default may be absent in products of earlier versions. Keys without a field are ignored.
    """

    @classmethod
    def of(cls, product: HasFacts) -> Self:
        """Read the facts of a finished product. Raises ValueError if a field without a default is absent."""
        try:
            return cls.from_dict(product.facts)
        except KeyError as error:
            raise ValueError(
                f"{product.name}: its done.json has {error.args[0]}: remove {product.path} and materialize it again"
            ) from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read facts from JSON values; dataclasses among the fields are built from their dicts."""
        return _build(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, the `facts` of done.json."""
        values = asdict(self)
        optional = {item.name for item in fields(self) if item.metadata.get("omit")}
        return {name: value for name, value in values.items() if value is not None or name not in optional}


def _build(kind: type[Any], values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(kind)
    given = {}
    for item in fields(kind):
        if item.name in values:
            given[item.name] = _value(hints[item.name], values[item.name])
    # Both defaults of a required field are the same marker, dataclasses.MISSING.
    missing = [item.name for item in fields(kind) if item.name not in given and item.default is item.default_factory]
    if missing:
        raise KeyError(f"{kind.__name__} without {', '.join(missing)}")
    return kind(**given)


def _value(hint: Any, value: Any) -> Any:
    """Convert a JSON value to its annotated type: a dataclass, a tuple or a dict of them, or the value itself."""
    if value is None:
        return None
    options = [hint, *get_args(hint)]
    if isinstance(value, Mapping):
        of_values = next((get_args(option)[1] for option in options if get_origin(option) is dict), None)
        if of_values is not None:
            return {key: _value(of_values, item) for key, item in value.items()}
        kind = next((option for option in options if is_dataclass(option)), None)
        return value if kind is None else _build(kind, value)  # pyright: ignore[reportArgumentType]
    of_items = next((get_args(option)[0] for option in options if get_origin(option) is tuple), None)
    if isinstance(value, list) and of_items is not None:
        return tuple(_value(of_items, item) for item in value)
    return value
