"""Read a drop's files into records or dropped records, part by part; for a copy and for `ecg check-drop` alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.hdf5 import opened
from pipelines.formats.wfdb import WfdbRecord, read_wfdb
from pipelines.incoming import arrays
from pipelines.incoming.description import (
    AXES,
    MOST_SECONDS,
    PEOPLE_FIELDS,
    SIGNAL_FIELDS,
    Form,
    People,
    check_count,
    check_plausible,
    form_of,
    mapped_leads,
    people_of,
    rate_of,
    read_description,
)
from pipelines.incoming.hdf5 import SIGNALS, check_signals, names_of
from pipelines.records import DroppedRecord, DropReason, Record, RecordError
from pipelines.sources.challenge import challenge_record

SHARED = "drop.json"
WFDB = (".hea", ".mat", ".dat")
HDF5 = (".h5", ".hdf5")
DATA = (".npy", ".npz", ".csv", *HDF5)
# Endings of texts, and of the lists in WFDB folders: they hold no ECG.
PAPERS = ("", ".txt", ".md", ".pdf")

_BLOCK = 64
_BLOCK_BYTES = 32 << 20
_PATIENT = re.compile(r"Patient\s*:\s*(\S.{0,127})", re.IGNORECASE)


@dataclass(frozen=True)
class RecordOrigin:
    """What one record of a drop gave."""

    item: Record | DroppedRecord
    units: str = ""  # how its numbers became millivolt, for people


@dataclass(frozen=True)
class Part:
    """Records that are reported together: those of one file, or all of one kind in a folder with one file each."""

    kind: str  # WFDB, NumPy, HDF5, csv, or why it is not read
    where: str  # the file, or `folder/*.ending`
    read: Callable[[], Iterator[RecordOrigin]]


def parts(root: Path, paths: Sequence[str]) -> list[Part]:
    """Return the parts of the drop in the folder root, made of the files `paths` inside it, by name.

    Nothing else of the folder is read. Raises ValueError if drop.json, on which all files depend, cannot be used.
    """
    shared: dict[str, Any] = {}
    if SHARED in paths:
        shared = read_description(root / SHARED)
        if personal := [name for name in shared if name in PEOPLE_FIELDS]:
            raise ValueError(
                f"{SHARED}: {personal[0]}: write what belongs to one file's records into the JSON beside that file"
            )
    drop = _Drop(root, frozenset(paths), shared)
    readers_of: dict[tuple[str, str], list[Callable[[], Iterator[RecordOrigin]]]] = {}
    for path in sorted(paths):
        placed = drop.place(PurePosixPath(path))
        if placed is not None:
            kind, where, read = placed
            readers_of.setdefault((kind, where), []).append(read)
    return [Part(kind, where, _in_turn(readers)) for (kind, where), readers in readers_of.items()]


def _in_turn(readers: Sequence[Callable[[], Iterator[RecordOrigin]]]) -> Callable[[], Iterator[RecordOrigin]]:
    """Return a reader that runs the readers one after another."""

    def read() -> Iterator[RecordOrigin]:
        for reader in readers:
            yield from reader()

    return read


@dataclass(frozen=True)
class _Drop:
    """A drop's folder, its files, and the fields of its drop.json."""

    root: Path
    paths: frozenset[str]
    shared: dict[str, Any]

    @cached_property
    def described(self) -> frozenset[PurePosixPath]:
        """Files of ECGs that a JSON beside them may describe, without their ending, whatever its case."""
        files = map(PurePosixPath, self.paths)
        return frozenset(file.with_suffix("") for file in files if file.suffix.lower() in DATA)

    def place(self, path: PurePosixPath) -> tuple[str, str, Callable[[], Iterator[RecordOrigin]]] | None:
        """Return the part that a file belongs to, and how to read it.

        Returns None if it is read with another file, or not at all.
        """
        suffix = path.suffix.lower()
        header = path.with_suffix(".hea")
        if path.suffix in WFDB:
            # The first of a record's files represents it.
            files = [str(path.with_suffix(ending)) for ending in WFDB]
            first = min(file for file in files if file in self.paths)
            return ("WFDB", _all_of(header), self._guarded(header, self._wfdb)) if str(path) == first else None
        if suffix in (".npy", ".npz"):
            return "NumPy", str(path), self._guarded(path, self._npy if suffix == ".npy" else self._npz)
        if suffix in HDF5:
            return "HDF5", str(path), self._guarded(path, self._hdf5)
        if suffix == ".csv":
            return "csv", _all_of(path), self._guarded(path, self._csv)
        if suffix == ".json":
            if str(path) == SHARED or path.with_suffix("") in self.described:
                return None
            return "description", str(path), self._guarded(path, _no_data)
        if suffix in PAPERS or str(header) in self.paths:  # beside a header: its annotations
            return None
        return "unknown", _all_of(path), self._guarded(path, _unknown)

    def _guarded(
        self, path: PurePosixPath, read: Callable[[PurePosixPath], Iterator[RecordOrigin]]
    ) -> Callable[[], Iterator[RecordOrigin]]:
        """Return a reader that gives one dropped record, named after the file, if the whole file cannot be read."""

        def guarded() -> Iterator[RecordOrigin]:
            try:
                yield from read(path)
            except RecordError as error:
                yield RecordOrigin(error.dropped(str(path)))

        return guarded

    def _fields_beside(self, path: PurePosixPath, *, needed: bool) -> dict[str, Any]:
        """Return the fields of the JSON beside a file. Raises RecordError if it is needed and absent."""
        description = path.with_suffix(".json")
        if str(description) in self.paths:
            return read_description(self.root / description)
        if needed:
            raise RecordError(
                DropReason.FILE_MISSING,
                f"{description} is not there: it says {path.name}'s rate, leads, units and ids",
            )
        return {}

    def _wfdb(self, header: PurePosixPath) -> Iterator[RecordOrigin]:
        try:
            if str(header) not in self.paths:
                raise RecordError(DropReason.FILE_MISSING, f"{header.name} is not there: drop it with its signal file")
            raw = read_wfdb(self.root / header)
            rate_of(raw.header.rate, header.name)
            units = _gains(raw)
            check_plausible(raw.signal_LT, units)
        except RecordError as error:
            yield RecordOrigin(error.dropped(header.stem))
            return
        record = _wfdb_record(raw)
        yield RecordOrigin(replace(record, leads=mapped_leads(record.leads, self.shared, SHARED)), units)

    def _npy(self, path: PurePosixPath) -> Iterator[RecordOrigin]:
        form, fields = self._described(path)
        x = arrays.open_npy(self.root / path)
        if x.ndim == 2:
            x = np.expand_dims(x, form.axes.index("record"))
        if x.ndim != 3:
            raise _wrong_shape(path.name, x.shape)
        x_NLT = np.transpose(x, [form.axes.index(axis) for axis in AXES])
        people = people_of(fields, path.name, len(x_NLT), [path.stem] if len(x_NLT) == 1 else None)
        samples = x_NLT.shape[-1]
        for at in range(len(x_NLT)):
            yield _origin(people, at, x_NLT[at, :, : form.most_samples], form, samples)

    def _npz(self, path: PurePosixPath) -> Iterator[RecordOrigin]:
        form, fields = self._described(path)
        turned = form.axes.index("time") < form.axes.index("lead")
        with arrays.Npz(self.root / path) as archive:
            people = people_of(fields, path.name, len(archive.names), archive.names)
            if sorted(people.ids) != sorted(archive.names):
                raise RecordError(
                    DropReason.UNREADABLE_HEADER, f"{path.name}: ids name other records than its arrays: leave ids out"
                )
            for at, name in enumerate(people.ids):
                try:
                    x = archive.read(name)
                    if x.ndim != 2:
                        raise _wrong_shape(f"{path.name}, array {name!r}", x.shape)
                except RecordError as error:
                    yield RecordOrigin(error.dropped(name))
                    continue
                x_LT = x.T if turned else x
                yield _origin(people, at, x_LT[:, : form.most_samples], form, x_LT.shape[1])

    def _hdf5(self, path: PurePosixPath) -> Iterator[RecordOrigin]:
        fields = self._fields_beside(path, needed=False)
        names = names_of({**self.shared, **fields}, path.name)
        with (self.root / path).open("rb") as stream, opened(stream, path.name) as file:
            signals = check_signals(file.dataset(names[SIGNALS]), names[SIGNALS], path.name)
            inside = {**file.attributes(file.file, SIGNAL_FIELDS), **file.attributes(signals, SIGNAL_FIELDS)}
            form = form_of({**self.shared, **inside, **fields}, path.name)
            # Record, lead and time may come in any order of axes.
            place = [form.axes.index(axis) for axis in AXES]
            count, leads, samples = (signals.shape[axis] for axis in place)
            form.check_rows(leads)
            check_count(count, path.name)
            columns = {
                name: file.column(dataset, count)
                for name in PEOPLE_FIELDS
                if name not in fields and (dataset := file.dataset(names[name])) is not None
            }
            people = people_of({**columns, **fields}, path.name, count)
            # Read in blocks of limited bytes, whatever the file's size.
            read = min(samples, form.most_samples)
            width = leads * read * signals.dtype.itemsize
            rows = max(1, min(_BLOCK, _BLOCK_BYTES // width))

            def span(start: int, end: int) -> Iterator[RecordOrigin]:
                wanted = {"record": slice(start, end), "lead": slice(None), "time": slice(read)}
                try:
                    block = file.rows(signals, tuple(wanted[axis] for axis in form.axes))
                except RecordError as error:
                    if end - start == 1:
                        yield RecordOrigin(error.dropped(people.ids[start]))
                    else:  # one by one: the block's other records may be readable
                        for at in range(start, end):
                            yield from span(at, at + 1)
                    return
                for at, x_LT in enumerate(np.transpose(block, place), start):
                    yield _origin(people, at, x_LT, form, samples)

            for start in range(0, count, rows):
                yield from span(start, min(start + rows, count))

    def _csv(self, path: PurePosixPath) -> Iterator[RecordOrigin]:
        fields = self._fields_beside(path, needed=False)
        csv = arrays.read_csv(self.root / path)
        form = form_of({**self.shared, **fields}, path.name, csv.names)
        people = people_of(fields, path.name, 1, [path.stem])
        yield _origin(people, 0, csv.x_LT[:, : form.most_samples], form, csv.rows)

    def _described(self, path: PurePosixPath) -> tuple[Form, dict[str, Any]]:
        fields = self._fields_beside(path, needed=True)
        return form_of({**self.shared, **fields}, path.name), fields


def _origin(people: People, at: int, x_LT: NDArray[Any], form: Form, samples: int) -> RecordOrigin:
    try:
        return RecordOrigin(people.record(at, x_LT, form, samples), form.units)
    except RecordError as error:
        return RecordOrigin(error.dropped(people.ids[at]), form.units)


def _wfdb_record(raw: WfdbRecord) -> Record:
    """Return a record with its header's comments: those of the PhysioNet Challenges, and `#Patient: <id>`."""
    record = challenge_record(raw)
    patients = [match[1].strip() for line in raw.header.comments if (match := _PATIENT.fullmatch(line))]
    most, samples = int(np.ceil(MOST_SECONDS * record.rate)), record.signal_LT.shape[1]
    cut = (f"the first {MOST_SECONDS} s of {samples / record.rate:g} s are read",) if samples > most else ()
    return replace(
        record,
        signal_LT=record.signal_LT[:, :most].copy() if cut else record.signal_LT,
        patient_id=patients[0] if patients else None,
        notes=record.notes + cut,
    )


def _gains(raw: WfdbRecord) -> str:
    """Return the leads' gains for people."""
    gains = {signal.gain for signal in raw.header.signals}
    return "raw, each lead by a gain of its own" if len(gains) > 1 else f"raw, {gains.pop():g} a mV"


def _no_data(path: PurePosixPath) -> Iterator[RecordOrigin]:
    raise RecordError(
        DropReason.FILE_MISSING,
        f"nothing that {path.name} describes lies beside it (WFDB headers say all themselves): drop both, or remove it",
    )


def _unknown(path: PurePosixPath) -> Iterator[RecordOrigin]:
    read = ", ".join((*WFDB, *DATA))
    raise RecordError(DropReason.UNKNOWN_FORMAT, f"{path.name}: read are {read}: write it as one of them")


def _wrong_shape(where: str, shape: tuple[int, ...]) -> RecordError:
    return RecordError(
        DropReason.UNREADABLE_SIGNAL,
        f"{where}: shape {shape}: (leads, samples), or {' x '.join(AXES)} in a file of several, is needed",
    )


def _all_of(path: PurePosixPath) -> str:
    return str(path.with_name(f"*{path.suffix}"))
