"""The label tasks that probes are trained for: which source codes mean which class, and how records are split.

A new task is a new entry of `SUITE_TASKS`; a task on other folds, or on another rate of the same source, is
`dataclasses.replace(task, ...)`. Shapes: N records, C classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipelines.tasks.splits import FoldProtocol, PartitionProtocol, PatientProtocol, Protocol, column_of
from pipelines.tasks.vocabularies import (
    CHALLENGE_2020,
    CHAPMAN_RHYTHMS,
    CPSC2018,
    PTBXL_STATEMENTS,
    PTBXL_SUPERCLASS_TITLES,
)


@dataclass(frozen=True, kw_only=True)
class LabelClass:
    """One class of a task: a record with any of these source codes belongs to it."""

    name: str
    title: str
    codes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LabelTask:
    """A classification of one source's records."""

    name: str
    title: str
    source: str
    classes: tuple[LabelClass, ...]
    protocol: Protocol  # of the splits
    kind: Literal["multi-label", "multi-class"] = "multi-label"
    """multi-label: a record has any number of classes, and one with none is left out. multi-class: only records with
    exactly one class take part."""
    codes: Mapping[str, tuple[str, ...]] | None = None
    """Codes by record id, used instead of the records' own; a record that is not among them has no code."""

    def __post_init__(self) -> None:
        if self.kind not in ("multi-label", "multi-class"):
            raise ValueError(f"kind={self.kind!r} of task {self.name}: use 'multi-label' or 'multi-class'")
        if len(self.classes) < 2 or len(set(self.names)) != len(self.classes):
            raise ValueError(f"classes={self.names} of task {self.name}: name at least two classes, each once")

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names."""
        return tuple(c.name for c in self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Return what the task's scores depend on, as JSON values; part of fingerprints."""
        codes = {c.name: list(c.codes) for c in self.classes}
        values = {"source": self.source, "kind": self.kind, "classes": codes, "protocol": self.protocol.to_dict()}
        if self.codes is not None:
            listed = "\n".join(f"{record}\0{code}" for record in sorted(self.codes) for code in self.codes[record])
            values["codes_sha256"] = hashlib.sha256(listed.encode()).hexdigest()
        return values

    def targets(self, records: pa.Table) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return y_NC, bool (records, classes), and the class names; codes of no class are ignored.

        Needs the column `labels`, lists of codes, or `record_id` if the task has codes of its own.
        """
        if self.codes is None:
            codes_N = column_of(records, "labels").to_pylist()
        else:
            codes_N = [self.codes.get(record, ()) for record in column_of(records, "record_id").to_pylist()]
        # All codes in one array beside the record of each, so that a class is one comparison.
        record_of_code = np.repeat(np.arange(len(codes_N)), np.fromiter(map(len, codes_N), dtype=np.int64))
        code = np.asarray([code for codes in codes_N for code in codes], dtype=object)
        y_NC = np.zeros((len(codes_N), len(self.classes)), dtype=bool)
        for column, label in enumerate(self.classes):
            y_NC[record_of_code[np.isin(code, label.codes)], column] = True
        return y_NC, self.names

    def takes_part(self, y_NC: np.ndarray) -> np.ndarray:
        """Return which records take part in the task, bool (N,); see `kind`."""
        classes_N = y_NC.sum(axis=1)
        return classes_N == 1 if self.kind == "multi-class" else classes_N >= 1


def _ptbxl_codes(kind: Literal["all", "diagnostic", "form", "rhythm"]) -> tuple[LabelClass, ...]:
    """Return a class for each PTB-XL statement of a kind."""
    statements = {
        "all": PTBXL_STATEMENTS,
        "diagnostic": [s for s in PTBXL_STATEMENTS if s.diagnostic is not None],
        "form": [s for s in PTBXL_STATEMENTS if s.form],
        "rhythm": [s for s in PTBXL_STATEMENTS if s.rhythm],
    }[kind]
    return tuple(LabelClass(name=s.code, title=s.title, codes=(s.code,)) for s in statements)


def _ptbxl_groups(level: Literal[0, 1], titles: Mapping[str, str]) -> tuple[LabelClass, ...]:
    """Return a class for each superclass (level 0) or subclass (level 1) of the diagnostic statements."""
    codes: dict[str, list[str]] = {name: [] for name in titles}
    for statement in PTBXL_STATEMENTS:
        if statement.diagnostic is not None:
            codes.setdefault(statement.diagnostic[level], []).append(statement.code)
    return tuple(LabelClass(name=name, title=titles.get(name, name), codes=tuple(c)) for name, c in codes.items())


def _classes(rows: tuple[tuple[str, str, tuple[str, ...]], ...]) -> tuple[LabelClass, ...]:
    return tuple(LabelClass(name=name, title=title, codes=codes) for name, title, codes in rows)


PTBXL_SUPERCLASSES = _ptbxl_groups(0, PTBXL_SUPERCLASS_TITLES)
CPSC2018_CLASSES = _classes(CPSC2018)

PTBXL100_FOLDS = FoldProtocol(train=(1, 2, 3, 4, 5, 6, 7), validation=(8,), test=(9,))
"""The protocol for PTB-XL at 100 Hz, of which fold 10 is not available here."""


def _ptbxl(name: str, title: str, classes: tuple[LabelClass, ...]) -> tuple[LabelTask, LabelTask]:
    """Return the task at 500 Hz, and at 100 Hz."""
    return (
        LabelTask(
            name=f"ptbxl_{name}", title=f"PTB-XL {title}", source="ptbxl", classes=classes, protocol=FoldProtocol()
        ),
        LabelTask(
            name=f"ptbxl100_{name}",
            title=f"PTB-XL {title}, from 100 Hz",
            source="ptbxl100",
            classes=classes,
            protocol=PTBXL100_FOLDS,
        ),
    )


def _by_name(*tasks: LabelTask) -> dict[str, LabelTask]:
    return {task.name: task for task in tasks}


_SUPERCLASS, _SUPERCLASS_100 = _ptbxl("superclass", "diagnostic superclasses", PTBXL_SUPERCLASSES)

TASKS = _by_name(
    _SUPERCLASS,
    LabelTask(
        name="cpsc2018",
        title="CPSC2018 rhythm and morphology classes",
        source="cpsc2018",
        classes=CPSC2018_CLASSES,
        protocol=PartitionProtocol(train=("g1", "g2", "g3", "g4", "g5", "g6"), test=("g7",)),
    ),
)
"""The tasks that every encoder is evaluated on before it is released."""

SUITE_TASKS = TASKS | _by_name(
    _SUPERCLASS_100,
    *_ptbxl("all", "statements", _ptbxl_codes("all")),
    *_ptbxl("diagnostic", "diagnostic statements", _ptbxl_codes("diagnostic")),
    *_ptbxl("subclass", "diagnostic subclasses", _ptbxl_groups(1, {})),
    *_ptbxl("form", "form statements", _ptbxl_codes("form")),
    *_ptbxl("rhythm", "rhythm statements", _ptbxl_codes("rhythm")),
    LabelTask(
        name="georgia",
        title="Georgia, the classes that the Challenge 2020 scored",
        source="georgia",
        classes=_classes(CHALLENGE_2020),
        protocol=PatientProtocol(),
    ),
    LabelTask(
        name="chapman_rhythm",
        title="Chapman and Ningbo rhythm groups",
        source="chapman",
        classes=_classes(CHAPMAN_RHYTHMS),
        protocol=PatientProtocol(),
    ),
)
"""All tasks of the suite."""
