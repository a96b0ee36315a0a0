"""Own ECGs as arrays: NumPy, HDF5 and csv, whose meaning is in a JSON file or in attributes."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.hdf5 import opened
from pipelines.incoming import arrays
from pipelines.incoming.contradictions import require_same_rate
from pipelines.incoming.description import (
    AXES,
    PEOPLE_FIELDS,
    SIGNAL_FIELDS,
    Form,
    People,
    check_count,
    form_of,
    people_of,
)
from pipelines.incoming.drop import Drop, Origins, RecordOrigin
from pipelines.incoming.hdf5 import FILLS, PACKED, SIGNALS, check_signals, fill_values, names_of
from pipelines.records import DropReason, RecordError

_BLOCK = 64
_BLOCK_BYTES = 32 << 20


def read_npy(drop: Drop, path: PurePosixPath) -> Origins:
    """Yield the records of an .npy, described by the JSON beside it."""
    form, fields = _described(drop, path)
    x = arrays.open_npy(drop.root / path)
    if x.ndim == 2:
        x = np.expand_dims(x, form.axes.index("record"))
    if x.ndim != 3:
        raise _wrong_shape(path.name, x.shape)
    x_NLT = np.transpose(x, [form.axes.index(axis) for axis in AXES])
    people = people_of({**drop.shared, **fields}, path.name, len(x_NLT), [path.stem] if len(x_NLT) == 1 else None)
    samples = x_NLT.shape[-1]
    for at in range(len(x_NLT)):
        yield _origin(people, at, x_NLT[at, :, : form.most_samples], form, samples)


def read_npz(drop: Drop, path: PurePosixPath) -> Origins:
    """Yield the records of an .npz, an array each."""
    form, fields = _described(drop, path)
    turned = form.axes.index("time") < form.axes.index("lead")
    with arrays.Npz(drop.root / path) as archive:
        people = people_of({**drop.shared, **fields}, path.name, len(archive.names), archive.names)
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


def read_hdf5(drop: Drop, path: PurePosixPath) -> Origins:
    """Yield the records of an HDF5 file."""
    fields = drop.fields_beside(path, needed=False)
    names = names_of({**drop.shared, **fields}, path.name)
    with (drop.root / path).open("rb") as stream, opened(stream, path.name) as file:
        signals = check_signals(file.dataset(names[SIGNALS]), names[SIGNALS], path.name)
        fills = fill_values(_unpacked(file.attributes(signals, (*FILLS, *PACKED))), path.name)
        inside = {**file.attributes(file.file, SIGNAL_FIELDS), **file.attributes(signals, SIGNAL_FIELDS)}
        form = form_of({**drop.shared, **_unpacked(inside), **fields}, path.name)
        # Record, lead and time may come in any order of axes; one ECG has no axis of records.
        axes = [axis for axis in form.axes if axis != "record" or signals.ndim == 3]
        shape = {"record": 1, **dict(zip(axes, signals.shape, strict=True))}
        place = [form.axes.index(axis) for axis in AXES]
        count, leads, samples = (shape[axis] for axis in AXES)
        form.check_rows(leads)
        check_count(count, path.name)
        columns = {
            name: file.column(dataset, count)
            for name in PEOPLE_FIELDS
            if name not in fields and (dataset := file.dataset(names[name])) is not None
        }
        people = people_of({**drop.shared, **columns, **fields}, path.name, count, [path.stem] if count == 1 else None)
        # Read in blocks of limited bytes, whatever the file's size.
        read = min(samples, form.most_samples)
        width = leads * read * signals.dtype.itemsize
        rows = max(1, min(_BLOCK, _BLOCK_BYTES // width))

        def span(start: int, end: int) -> Origins:
            wanted = {"record": slice(start, end), "lead": slice(None), "time": slice(read)}
            try:
                block = file.rows(signals, tuple(wanted[axis] for axis in axes))
            except RecordError as error:
                if end - start == 1:
                    yield RecordOrigin(error.dropped(people.ids[start]))
                else:  # one by one: the block's other records may be readable
                    for at in range(start, end):
                        yield from span(at, at + 1)
                return
            if fills and (missing := np.isin(block, fills)).any():
                block = np.where(missing, np.nan, block.astype(np.float64))
            if len(axes) < len(AXES):
                block = np.expand_dims(block, form.axes.index("record"))
            for at, x_LT in enumerate(np.transpose(block, place), start):
                yield _origin(people, at, x_LT, form, samples)

        for start in range(0, count, rows):
            yield from span(start, min(start + rows, count))


def read_csv_file(drop: Drop, path: PurePosixPath) -> Origins:
    """Yield the record of a csv, a column a lead."""
    fields = drop.fields_beside(path, needed=False)
    csv = arrays.read_csv(drop.root / path)
    form = form_of({**drop.shared, **fields}, path.name, csv.names)
    form.check_rows(len(csv.x_LT))
    if csv.names is not None:
        require_same_rate(csv.names, csv.x_LT, form.rate, path.name)
    people = people_of({**drop.shared, **fields}, path.name, 1, [path.stem])
    yield _origin(people, 0, csv.x_LT[:, : form.most_samples], form, csv.rows)


def _unpacked(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes whose value is one, out of the list of one that netCDF4, MATLAB and R write."""
    single = {name: value[0] for name, value in attributes.items() if name != "leads" and _is_one(value)}
    return {**attributes, **single}


def _is_one(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 1


def _described(drop: Drop, path: PurePosixPath) -> tuple[Form, dict[str, Any]]:
    fields = drop.fields_beside(path, needed=not drop.shared)
    return form_of({**drop.shared, **fields}, path.name), fields


def _origin(people: People, at: int, x_LT: NDArray[Any], form: Form, samples: int) -> RecordOrigin:
    try:
        return RecordOrigin(people.record(at, x_LT, form, samples), form.units)
    except RecordError as error:
        return RecordOrigin(error.dropped(people.ids[at]), form.units)


def _wrong_shape(where: str, shape: tuple[int, ...]) -> RecordError:
    return RecordError(
        DropReason.UNREADABLE_SIGNAL,
        f"{where}: shape {shape}: (leads, samples), or {' x '.join(AXES)} in a file of several, is needed",
    )
