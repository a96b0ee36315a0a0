"""Export harmonized ECGs for programs that read neither Zarr nor Parquet.

    numpy   signals.npy    int16 (records, leads, samples), microvolt; readable without pickle
            records.csv    one row a record, in the array's order; lists are joined by `;`
            about.json     leads, rate, unit, and what was exported
    wfdb    RECORDS        the paths of all records, one a line
            <source>/<partition>/<record>.hea, .dat   format 16, 1000 units a millivolt: a unit is a microvolt

Both hold the stored numbers, to the microvolt.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from pipelines import durable
from pipelines.cache import Workspace, in_use
from pipelines.corpus.index import CorpusIndex
from pipelines.corpus.step import PRODUCT as CORPUS
from pipelines.disk_space import full_disk_explained, reserve
from pipelines.formats.shard import LEADS, RATE, SAMPLES, open_shard
from pipelines.formatting import format_bytes
from pipelines.harmonize.shards import shards_of
from pipelines.simulate.wfdb_writer import dat_bytes, header
from pipelines.sources import SOURCES

Format = Literal["numpy", "wfdb"]
SPLITS = ("train", "validation")
_FORM = "use ecgs/<source>, ecgs/<source>/<partition>, corpus/train or corpus/validation"
_BYTES = len(LEADS) * SAMPLES * 2

OnRecords = Callable[[int, int], None]
"""Called with the number of records written so far, and their total."""


@dataclass(frozen=True)
class ExportedRows:
    """Some rows of a harmonized shard, ascending. shard: `<source>/<partition>`."""

    shard: str
    folder: Path
    rows_N: NDArray[np.integer[Any]]


def select(workspace: Workspace, selection: str) -> list[ExportedRows]:
    """Return the rows that `ecgs/<source>[/<partition>]` or `corpus/<split>` means. Raises ValueError if there are
    none.
    """
    kind, _, rest = selection.strip("/").partition("/")
    if kind == "ecgs" and rest:
        selected = _of_source(workspace, *rest.split("/"))
    elif kind == CORPUS and rest in SPLITS:
        selected = _of_corpus(workspace, rest)
    else:
        raise ValueError(f"selection {selection!r}: {_FORM}")
    if not any(len(rows.rows_N) for rows in selected):
        raise ValueError(f"selection {selection!r}: no harmonized ECG in {workspace.root}: materialize it first")
    return selected


def export(
    selected: list[ExportedRows], out: Path, form: Format, *, on_records: OnRecords = lambda done, total: None
) -> int:
    """Write the selected ECGs into the new folder `out`, which appears only when complete; return their number.

    Raises ValueError if `out` exists, or if the disk has no room for it.
    """
    if out.exists():
        raise ValueError(f"{out} exists: give a new folder, or remove it yourself")
    total = sum(len(rows.rows_N) for rows in selected)
    durable.make_folder(out.parent)
    free = shutil.disk_usage(out.parent).free
    if total * _BYTES > free:
        raise ValueError(f"{out}: {format_bytes(total * _BYTES)} are needed, {format_bytes(free)} are free: make room")
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        partial = Path(temporary) / "export"
        with in_use(rows.folder for rows in selected), full_disk_explained(out, total * _BYTES):
            partial.mkdir()
            _WRITERS[form](selected, partial, total, on_records)
        if out.exists():
            raise ValueError(f"{out} was made meanwhile: give a new folder")
        durable.flush_tree(partial)
        durable.replace(partial, out)
    return total


def _of_source(workspace: Workspace, source: str, *partition: str) -> list[ExportedRows]:
    if len(partition) > 1:
        raise ValueError(f"selection 'ecgs/{'/'.join((source, *partition))}': {_FORM}")
    shards = shards_of(workspace, source)
    order = SOURCES[source].partitions if source in SOURCES else ()
    in_order = sorted(shards, key=lambda key: (order.index(key) if key in order else len(order), key))
    return [
        ExportedRows(f"{source}/{key}", shards[key].path, np.arange(len(open_shard(shards[key].path))))
        for key in in_order
        if not partition or key in partition
    ]


def _of_corpus(workspace: Workspace, split: str) -> list[ExportedRows]:
    corpus = CorpusIndex(workspace.require(CORPUS).path)
    folders, index = corpus.shard_folders(workspace.root), corpus.table(["shard", "row"], split=split)
    names, rows_N = np.asarray(index["shard"].to_pylist()), index["row"].to_numpy()
    return [ExportedRows(name, folder, rows_N[names == name]) for name, folder in folders.items()]


def _batches(selected: list[ExportedRows]) -> Iterator[tuple[str, NDArray[np.int16], pa.Table]]:
    """Yield the shard, int16 (N, 8, 2500) microvolt, and its table's same rows: one file of the array at a time."""
    for part in selected:
        shard = open_shard(part.folder)
        records = shard.records()
        for first, end in shard.spans():
            rows = part.rows_N[np.searchsorted(part.rows_N, first) : np.searchsorted(part.rows_N, end)]
            if len(rows):
                yield part.shard, shard.read(first, end)[rows - first], records.take(pa.array(rows))


def _write_numpy(selected: list[ExportedRows], folder: Path, total: int, on_records: OnRecords) -> None:
    shape = (total, len(LEADS), SAMPLES)
    signal_NLT = np.lib.format.open_memmap(folder / "signals.npy", mode="w+", dtype="<i2", shape=shape)
    reserve(folder / "signals.npy")
    tables, done = [], 0
    for shard, batch_NLT, records in _batches(selected):
        signal_NLT[done : done + len(batch_NLT)] = batch_NLT
        tables.append(_flat(records, shard))
        done += len(batch_NLT)
        on_records(done, total)
    signal_NLT.flush()
    pa_csv.write_csv(pa.concat_tables(tables), folder / "records.csv")
    about = {"records": total, "leads": list(LEADS), "rate": RATE, "unit": "microvolt", "shards": _names(selected)}
    (folder / "about.json").write_text(json.dumps(about, indent=1) + "\n")


def _names(selected: list[ExportedRows]) -> list[str]:
    return [rows.shard for rows in selected if len(rows.rows_N)]


_EXPORTED = {"rate": RATE, "samples": SAMPLES}


def _flat(records: pa.Table, shard: str) -> pa.Table:
    """Return a table of records as csv can hold it: with its partition, lists joined, without bytes.

    rate and samples are the exported array's; the record's own are source_rate and source_samples.
    """
    count = records.num_rows
    columns: dict[str, Any] = {"partition": [shard.partition("/")[2]] * count}
    for field, column in zip(records.schema, records.columns, strict=True):
        if field.name in _EXPORTED:
            columns |= {field.name: [_EXPORTED[field.name]] * count, f"source_{field.name}": column}
        elif pa.types.is_list(field.type):
            columns[field.name] = [";".join(values) for values in column.to_pylist()]
        elif not pa.types.is_binary(field.type) and not pa.types.is_fixed_size_binary(field.type):
            columns[field.name] = column
    return pa.table(columns)


def _write_wfdb(selected: list[ExportedRows], folder: Path, total: int, on_records: OnRecords) -> None:
    paths: list[str] = []
    taken: set[str] = set()
    for shard, batch_NLT, records in _batches(selected):
        (folder / shard).mkdir(parents=True, exist_ok=True)
        for x_LT, row in zip(batch_NLT, records.to_pylist(), strict=True):
            name = _name(row["record_id"])
            while f"{shard}/{name}" in taken:
                name += "_"
            taken.add(f"{shard}/{name}")
            text = header(
                name,
                x_LT,
                leads=LEADS,
                rate=RATE,
                file=f"{name}.dat",
                layout="16",
                gains=["1000/mV"] * len(LEADS),
                signed=False,
                comments=_comments(shard, row),
            )
            (folder / shard / f"{name}.hea").write_text(text)
            (folder / shard / f"{name}.dat").write_bytes(dat_bytes(x_LT))
            paths.append(f"{shard}/{name}")
        on_records(len(paths), total)
    (folder / "RECORDS").write_text("".join(f"{path}\n" for path in paths))


def _name(record_id: str) -> str:
    """Return a record's id with the characters that WFDB allows in a name: letters, digits, `_` and `-`."""
    return re.sub(r"[^\w-]", "_", record_id, flags=re.ASCII) or "_"


def _comments(shard: str, row: dict[str, Any]) -> list[str]:
    """Return Age, Sex and Dx as the PhysioNet challenges write them, and the record's origin."""
    source, _, partition = shard.partition("/")
    comments = {
        "Age": None if row["age"] is None else f"{row['age']:g}",
        "Sex": None if row["sex"] is None else str(row["sex"]).capitalize(),
        "Dx": ",".join(row["labels"]),
        "Source": source,
        "Partition": partition,
        "Record": row["record_id"],
        "Patient": row["patient_id"],
        "Fold": row["fold"],
        "Notes": "; ".join(row["notes"]),
    }
    # One line each, whatever a source put into its ids.
    return [f"{name}: {' '.join(str(value).split())}" for name, value in comments.items() if value not in (None, "")]


_WRITERS: dict[Format, Callable[[list[ExportedRows], Path, int, OnRecords], None]] = {
    "numpy": _write_numpy,
    "wfdb": _write_wfdb,
}
