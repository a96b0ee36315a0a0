"""Read a pickle as data: what it says is noted, no name in it is looked up, and nothing is called.

`pickletools` decodes the opcodes. Texts, numbers, tuples and dictionaries become what they are; an object of any class
becomes a note of the class's name and of the arguments (`Made`), whatever the class. What no weight is made of, such as
lists, sets and the state of objects, is passed over.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MOST_BYTES = 8 << 20
MOST_STEPS = 300_000  # half a second's work; a checkpoint of 100 weights with its optimizer and settings has 20,000

OTHER = object()
"""Stands for a value that is passed over."""


@dataclass(frozen=True, slots=True, eq=False)
class Name:
    """A class or function that the pickle names."""

    module: str
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What a call would return."""

    of: Any
    arguments: Any


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What the pickle does not hold itself, but refers to."""

    id: Any


@dataclass(frozen=True, kw_only=True)
class Read:
    """A pickle as data."""

    value: Any
    names: frozenset[str]
    """The classes and functions that it names, `module.name`."""


def read_pickle(data: bytes) -> Read:
    """Return what a pickle says.

    A dictionary has the entries whose keys are texts; so has an OrderedDict. Raises ValueError if it is no pickle, or
    is longer than any checkpoint's.
    """
    machine = _Machine()
    try:
        if len(data) > MOST_BYTES:
            raise ValueError(f"it has {len(data):,} bytes, and at most {MOST_BYTES:,} are read")
        for step, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if step == MOST_STEPS:
                raise ValueError(f"it has more than {MOST_STEPS:,} steps")
            machine.do(opcode.name, argument)
        return Read(value=machine.stack.pop(), names=frozenset(machine.names))
    except (ValueError, IndexError, KeyError, struct.error, OverflowError) as error:
        why = error if isinstance(error, ValueError) else "it contradicts itself"
        raise ValueError(f"a pickle that cannot be read ({why})") from error


_NO_EFFECT = {"PROTO", "FRAME", "STOP", "READONLY_BUFFER"}
_CONSTANTS = {
    **{"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()},
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER"), OTHER),
}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}


class _Machine:
    """The stack of values, how high it was at each mark, and the memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.names: set[str] = set()
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._with_argument: dict[str, Callable[[Any], None]] = {
            **dict.fromkeys(_LITERALS, self.stack_value),
            **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self._remember),
            **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda index: self.stack_value(self._memo[index])),
            "GLOBAL": lambda text: self._name(*text.split(" ", 1)),
            "INST": self._instance,
            "PERSID": lambda text: self.stack_value(Kept(text)),
        }
        self._without: dict[str, Callable[[], Any]] = {
            "MARK": lambda: self._marks.append(len(self.stack)),
            "POP": self._pop,
            "POP_MARK": self._since_mark,
            "DUP": lambda: self.stack_value(self.stack[-1]),
            "MEMOIZE": lambda: self._remember(len(self._memo)),
            "TUPLE": lambda: self.stack_value(tuple(self._since_mark())),
            "TUPLE1": lambda: self._tuple(1),
            "TUPLE2": lambda: self._tuple(2),
            "TUPLE3": lambda: self._tuple(3),
            "EMPTY_DICT": lambda: self.stack_value({}),
            "DICT": self._dictionary,
            "SETITEM": lambda: self._set_items(self._taken(2)),
            "SETITEMS": lambda: self._set_items(self._since_mark()),
            "LIST": lambda: self._pass_over(self._since_mark()),
            "FROZENSET": lambda: self._pass_over(self._since_mark()),
            "APPEND": self._taken_one,
            "APPENDS": self._since_mark,
            "ADDITEMS": self._since_mark,
            "BUILD": self._taken_one,
            "STACK_GLOBAL": lambda: self._name(*self._taken(2)),
            "REDUCE": lambda: self._make(*self._taken(2)),
            "NEWOBJ": lambda: self._make(*self._taken(2)),
            "NEWOBJ_EX": lambda: self._make(*self._taken(3)[:2]),
            "OBJ": self._object,
            "BINPERSID": lambda: self.stack_value(Kept(self.stack.pop())),
        }

    def do(self, opcode: str, argument: Any) -> None:
        """Take one step. Raises IndexError or KeyError if it needs what is not there."""
        if opcode in self._with_argument:
            self._with_argument[opcode](argument)
        elif opcode in self._without:
            self._without[opcode]()
        elif opcode in _CONSTANTS:
            self.stack_value(_CONSTANTS[opcode])
        elif opcode not in _NO_EFFECT:
            raise ValueError(f"its step {opcode} is unknown")

    def stack_value(self, value: Any) -> None:
        """Put a value on top."""
        self.stack.append(value)

    def _taken(self, count: int) -> list[Any]:
        """Take so many values away, the lowest first."""
        values = [self.stack.pop() for _ in range(count)]
        return values[::-1]

    def _taken_one(self) -> None:
        self.stack[-2]  # what the value belongs to
        self.stack.pop()

    def _pop(self) -> None:
        (self._marks if self._marks and self._marks[-1] == len(self.stack) else self.stack).pop()

    def _since_mark(self) -> list[Any]:
        mark = self._marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def _remember(self, index: int) -> None:
        self._memo[index] = self.stack[-1]

    def _pass_over(self, _: Any) -> None:
        self.stack_value(OTHER)

    def _tuple(self, count: int) -> None:
        self.stack_value(tuple(self._taken(count)))

    def _dictionary(self) -> None:
        items = self._since_mark()
        self.stack_value({})
        self._set_items(items)

    def _set_items(self, items: list[Any]) -> None:
        of = self.stack[-1]
        if isinstance(of, dict):
            of.update((key, value) for key, value in zip(items[::2], items[1::2], strict=False) if type(key) is str)

    def _name(self, module: Any, name: Any = "") -> None:
        if type(module) is not str or type(name) is not str:
            self.stack_value(OTHER)
            return
        self.names.add(f"{module}.{name}")
        self.stack_value(Name(module, name))

    def _make(self, of: Any, arguments: Any) -> None:
        ordered = isinstance(of, Name) and (of.module, of.name) == ("collections", "OrderedDict")
        self.stack_value({} if ordered else Made(of, arguments))

    def _object(self) -> None:
        of, *arguments = self._since_mark()
        self._make(of, tuple(arguments))

    def _instance(self, text: str) -> None:
        arguments = tuple(self._since_mark())
        self._name(*text.split(" ", 1))
        self._make(self.stack.pop(), arguments)
