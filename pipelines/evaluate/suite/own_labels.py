"""A task from labels of one's own for harmonized ECGs: from a csv, `record_id,label`, a line a label, or from a drop.

A record with several lines has several labels, as has one whose label is joined: `AF;LBBB`, as `ecg export` writes
them, `AF|LBBB`, or a list as text, `['AF', 'LBBB']`. A comma joins labels that the file has on their own, too; else it
is part of the label. An ECG that is not in the file is left out. A row names its ECG by record id or, of own ECGs, by
path (`labelled_records`).
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ecg_foundry.layout import absent_leads
from pipelines.cache import Workspace
from pipelines.evaluate.suite.labelled_records import Say, labelled_records
from pipelines.formats.joined_labels import split_labels
from pipelines.formats.limits import LABELS_BYTES, require_size
from pipelines.harmonize.shards import read_records, shards_of
from pipelines.incoming.listing import NAME as INCOMING
from pipelines.tasks.catalogue import LabelClass, LabelTask
from pipelines.tasks.splits import PatientProtocol

COLUMNS = ("record_id", "label")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NUMBER = re.compile(r"[-+]?\d+([.,]\d*)?(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_CODE = re.compile(r"\d{6,18}", re.ASCII)  # as of SNOMED CT
_MOST_NUMBERS = 20  # labels that are numbers; more of them are measured values
_ON = frozenset(("1", "1.0", "true"))
_OFF = frozenset(("", "0", "0.0", "false"))
_NOTHING = ("", "nan", "<na>", "n/a", "null")  # what tables write for a value that is missing
_SHOWN = 40  # characters of a field, in a message


def read_labels(path: Path) -> dict[str, tuple[str, ...]]:
    """Read the labels of each record, in the file's order.

    Raises ValueError, with the line, if the file is not such a csv, or could be misread: if a line has a field too
    many, a quote is not closed, or labels differ only in case.
    """
    require_size(path, LABELS_BYTES, "a csv of labels", "leave out the other columns, or split it by task")
    text = _text(path)
    labels: dict[str, list[str]] = {}
    (_, names), *rows = [*_rows(path, text)] or [(1, [])]
    header = _header(path, names, [row for _, row in rows])
    for line, row in rows:
        if any(row[len(header) :]):
            raise ValueError(
                f"{path}, line {line}: {len(row)} fields under {len(header)} columns: give each label a line of its "
                "own, or quote one that holds a comma"
            )
        named = dict(zip(header, row, strict=False))
        record, label = (named.get(name, "") for name in COLUMNS)
        if not record or not label:
            raise ValueError(f"{path}, line {line}: give a record_id and a label, or leave it out")
        each = split_labels(label)
        if not each or any(one.lower() in _NOTHING for one in each):
            raise ValueError(
                f"{path}, line {line}: label {label[:_SHOWN]!r} stands for none, or for a missing one among others: "
                "leave the line out, or give the ECG a label such as normal"
            )
        if label[0] + label[-1] in ("[]", "{}") and each[0].startswith(label[0]):
            raise ValueError(
                f"{path}, line {line}: label {label[:_SHOWN]!r} is no list of texts: join several labels as AF;LBBB"
            )
        labels.setdefault(record, []).extend(each)
    labels = _split_at_commas(labels)
    classes = {label for of_record in labels.values() for label in of_record}
    _require_distinct(path, classes)
    _require_no_measurement(path, classes)
    return {record: tuple(dict.fromkeys(of_record)) for record, of_record in labels.items()}


def _text(path: Path) -> str:
    """Return the text of a file. Raises ValueError, with what it probably is, if it is not in UTF-8."""
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or data[:64].count(0) >= len(data[:64]) // 2 > 0:
        raise ValueError(f"{path}: it is UTF-16, as Excel's Unicode text is: save it as a csv in UTF-8")
    try:
        return data.decode("utf-8-sig")  # as spreadsheets write it, too
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is no UTF-8, maybe Windows' cp1252: save it as a csv "
            "in UTF-8"
        ) from error


def _split_at_commas(labels: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the labels of each record, with those split whose every part between commas is a label on its own."""
    alone = {label for of_record in labels.values() for label in of_record if "," not in label}

    def parts(label: str) -> list[str]:
        each = [part.strip() for part in label.split(",")]
        return each if alone.issuperset(each) else [label]

    return {record: [part for label in of_record for part in parts(label)] for record, of_record in labels.items()}


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, with stripped fields, each with the line that it begins on."""
    first = text.partition("\n")[0]
    other = [word for sign, word in ((";", "semicolons"), ("\t", "tabs")) if sign in first]
    if other and "," not in first:
        raise ValueError(f"{path}: its columns are separated by {other[0]}: save it with commas")
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    line = 1
    try:
        for row in rows:
            fields = [field.strip() for field in row]
            unclean = [field for field in fields if _CONTROL.search(field)]
            if unclean:
                raise ValueError(
                    f"{path}, line {line}: a field holds a line break or another control character, "
                    f"{unclean[0][:_SHOWN]!r}: close its quote, or take the character out"
                )
            if fields:
                yield line, fields
            line = rows.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {line}: {error}: close a quote that opens there, and write one within a field twice"
        ) from error


def _header(path: Path, names: list[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the names of the columns, in small letters; fields to the right of the last one must be empty in each row.

    Raises ValueError if a column is missing or a name is there twice.
    """
    while names and not names[-1]:
        names.pop()
    lowered = [name.lower() for name in names]
    missing = [name for name in COLUMNS if name not in lowered]
    if missing:
        one_hot = _one_hot(names, rows) if missing == ["label"] else []
        if one_hot:
            raise ValueError(
                f"{path}: no column 'label', but a column of zeros and ones for each label ({', '.join(one_hot[:3])}): "
                "write a line for each one, as pandas does by table.melt('record_id', var_name='label')"
                ".query('value == 1')[['record_id', 'label']]"
            )
        raise ValueError(f"{path}: no column {missing[0]!r}: make the first line {','.join(COLUMNS)}")
    twice = [name for name, times in Counter(lowered).items() if times > 1]
    if twice:
        raise ValueError(f"{path}: the column {twice[0]!r} is there {lowered.count(twice[0])} times: name each once")
    return lowered


def _one_hot(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the names of the columns that hold ones, and nothing else but zeros."""
    cells = {name: {row[at].lower() for row in rows if at < len(row)} for at, name in enumerate(names) if name}
    return [name for name, found in cells.items() if found & _ON and found <= _ON | _OFF]


def _require_distinct(path: Path | str, labels: set[str]) -> None:
    """Raise ValueError if two labels differ only in case."""
    first: dict[str, str] = {}
    for label in sorted(labels):
        other = first.setdefault(label.casefold(), label)
        if other != label:
            raise ValueError(f"{path}: the labels {other!r} and {label!r} differ in case alone: use one spelling")


def _require_no_measurement(path: Path | str, labels: set[str]) -> None:
    """Raise ValueError if the labels are so many numbers that they are measured, and no classes."""
    if len(labels) > _MOST_NUMBERS and all(map(_NUMBER.fullmatch, labels)) and not all(map(_CODE.fullmatch, labels)):
        shown = ", ".join(sorted(labels)[:3])
        raise ValueError(
            f"{path}: its labels are {len(labels):,} different numbers ({shown}, ...): they are taken for measured "
            f"values, which are not classified: give ranges of them names, or leave at most {_MOST_NUMBERS} numbers"
        )


def own_task(workspace: Workspace, path: Path, source: str, say: Say = lambda line: None) -> LabelTask:
    """Return the task of a csv about harmonized ECGs of a source: 70 % of patients to train, 10 to choose, 20 to test.

    It is multi-class if every record has one label, else multi-label.

    say: as `labelled_records` takes it

    Raises ValueError if a row means no ECG or several, or if there are fewer than two labels.
    """
    labels = read_labels(path)
    shards = shards_of(workspace, source)
    times = Counter(read_records(shards).column("record_id").to_pylist())
    if not times:
        raise ValueError(
            f"no ECGs of {source} in {workspace.root}: run `ecg run download harmonize --partition {source}` first, or "
            "name the place with them by `ecg mirror`"
        )
    by_record = labelled_records(labels, workspace, shards, path=path, source=source, say=say)
    _require_once(path, by_record, times, source)
    return _task(path.stem, f"own labels of {path.name}", str(path), source, by_record)


def drop_task(workspace: Workspace, drop: str) -> LabelTask:
    """Return the task of the labels that a drop of own ECGs came with, split as `own_task` does.

    Raises ValueError if the drop is not harmonized or has fewer than two labels, or if a labelled record is in another
    drop, too.
    """
    shards = shards_of(workspace, INCOMING)
    if drop not in shards:
        there = ", ".join(shards) or "none"
        raise ValueError(
            f"drop {drop[:_SHOWN]!r} is not harmonized in {workspace.root}; harmonized are: {there}: run `ecg run "
            f"download harmonize --partition incoming/{drop[:_SHOWN]}`, or name the place with it by `ecg mirror`"
        )
    records = read_records({drop: shards[drop]})
    given = zip(records.column("record_id").to_pylist(), records.column("labels").to_pylist(), strict=True)
    labels = {record: tuple(dict.fromkeys(of_record)) for record, of_record in given if of_record}
    if not labels:
        raise ValueError(
            f"drop {drop!r}: none of its {records.num_rows:,} ECGs has a label: name them in drop.json (`labels`, or a "
            "`table` with a column of them), or give a csv with the columns record_id,label"
        )
    classes = {label for of_record in labels.values() for label in of_record}
    _require_distinct(f"drop {drop!r}", classes)
    _require_no_measurement(f"drop {drop!r}", classes)
    times = Counter(read_records(shards).column("record_id").to_pylist())
    _require_once(f"drop {drop!r}", labels, times, INCOMING)
    return _task(drop, f"labels of drop {drop}", f"drop {drop!r}", INCOMING, labels)


def answered_alone(workspace: Workspace, task: LabelTask) -> tuple[LabelTask, int]:
    """Leave out labelled ECGs that lack a lead, which no served model answers. Also returns their number."""
    records = read_records(shards_of(workspace, task.source))
    pairs = zip(records.column("record_id").to_pylist(), records.column("notes").to_pylist(), strict=True)
    incomplete = {record for record, notes in pairs if absent_leads(notes)}
    codes = task.codes or {}
    kept = {record: labels for record, labels in codes.items() if record not in incomplete}
    return replace(task, codes=kept), len(codes) - len(kept)


def _task(name: str, title: str, origin: str, source: str, labels: Mapping[str, tuple[str, ...]]) -> LabelTask:
    """Return a task of labels by record id; origin: where they are from, for messages."""
    names = sorted({label for of_record in labels.values() for label in of_record})
    if len(names) < 2:
        raise ValueError(f"{origin}: {len(names)} labels ({', '.join(names)}): label the others too, with a second one")
    single = all(len(of_record) == 1 for of_record in labels.values())
    return LabelTask(
        name=f"own_{re.sub('[^A-Za-z0-9]+', '_', name).strip('_').lower() or 'labels'}",
        title=title,
        source=source,
        classes=tuple(LabelClass(name=name, title=name, codes=(name,)) for name in names),
        protocol=PatientProtocol(),
        kind="multi-class" if single else "multi-label",
        codes=labels,
    )


def _require_once(path: Path | str, labels: Mapping[str, object], times: Mapping[str, int], source: str) -> None:
    """Raise ValueError if a labelled record is there more than once.

    times: how often each record id is among the harmonized ECGs.
    """
    twice = [record for record in labels if times[record] > 1]
    if twice:
        raise ValueError(
            f"{path}: {len(twice)} records are in more than one drop of {source}, such as {twice[0]!r}: "
            "it is not clear which one is meant; use different record ids in each drop"
        )
