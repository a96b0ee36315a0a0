"""Open harmonized ECGs with xarray, without reading them.

    from ecg_foundry import ecgs

    ds = ecgs.open("ptbxl")                                # all partitions of a source that are harmonized
    ds.ecg.sel(lead="II", record="123")                    # millivolt; read when its numbers are needed
    ds.sel(record=ds.has_label.sel(label="AFIB", drop=True))    # the records with a label

Along `record`, whose coordinate is the record's id in its source:

    ecg (record, lead, time)   float32, millivolt; NaN in a lead that was not recorded
    has_label (record, label)  bool, for each label of any record
    quality (record, figure)   float32; the figures that limits are set for, such as `noise`
    labels, notes              text: what the source and harmonization say of a record, joined by `; `
    patient, age, sex          empty, or NaN, if they are not known
    source, partition, fold    where the record is from; its fold, if the source has folds
    rate, samples              of the recording before harmonization: samples per second, and their number
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr
from numpy.typing import NDArray
from xarray.core import indexing

from ecg_foundry.data_sets import DATA_SETS, INCOMING
from ecg_foundry.find import Found, find
from ecg_foundry.layout import RECORDS_FILE, absent_leads
from ecg_foundry.signals import LazySignals, Signals

_QUALITY = "quality_"
_COLUMNS = ("record_id", "patient_id", "age", "sex", "rate", "samples", "labels", "fold", "notes")


def open(what: str | Path, *, home: str | Path | None = None) -> xr.Dataset:
    """Return harmonized ECGs as a Dataset that reads them when they are asked for; the module describes it.

    what: a source (`ptbxl`), a partition (`ptbxl/00000`) or a drop of own ECGs (`incoming/NAME`) of the data home; or
        the folder of a shard, of a partition or of a source, as a Path or a text that begins with `/`, `.` or `~`
    home: the data home; if it is not given, ECG_HOME, or `var`

    Records of a source are in the order of its partitions. What is opened stays as it is if the home changes; a part
    that `ecg gc` has removed since cannot be read any more. Raises ValueError, naming what there is and what to do, if
    there are no such ECGs or if they are damaged.
    """
    found = find(what, home)
    shards = [Signals(folder) for folder in found.shards.values()]
    tables = [_records(folder, shard) for folder, shard in zip(found.shards.values(), shards, strict=True)]
    records = pa.concat_tables(tables)
    leads = shards[0].leads
    signals = LazySignals(shards, _absent(records, leads))
    ecg = xr.Variable(("record", "lead", "time"), indexing.LazilyIndexedArray(signals), {"units": "mV"})
    partition = np.repeat(_objects([*found.shards]), [len(shard) for shard in shards])
    labels, has_label = _labels(records)
    return xr.Dataset(
        {"ecg": ecg, "has_label": (("record", "label"), has_label), **_quality(records)},
        {
            **_columns(records),
            "source": ("record", np.full(records.num_rows, found.source, object)),
            "partition": ("record", partition),
            "lead": ("lead", _objects(leads)),
            "time": ("time", shards[0].times(), {"units": "s"}),
            "label": ("label", labels),
        },
        _about(found),
    )


def _records(folder: Path, shard: Signals) -> pa.Table:
    """Return the table of a shard's records. Raises ValueError if it has not one row per signal."""
    with pq.ParquetFile(folder / RECORDS_FILE) as file:
        table = file.read([name for name in file.schema_arrow.names if name in _COLUMNS or name.startswith(_QUALITY)])
    if table.num_rows != len(shard):
        raise ValueError(f"{folder}: {len(shard)} signals, {table.num_rows} rows in {RECORDS_FILE}: harmonize it again")
    return table


def _absent(records: pa.Table, leads: Sequence[str]) -> NDArray[np.bool_]:
    """Return which leads of each record were not recorded, bool (N, L)."""
    absent_NL = np.zeros((records.num_rows, len(leads)), bool)
    for row, notes in enumerate(records["notes"].to_pylist()):
        if absent := absent_leads(notes):
            absent_NL[row] = np.isin(leads, absent)
    return absent_NL


def _labels(records: pa.Table) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the labels of all records, sorted, and which record has which, bool (N, labels)."""
    column = records["labels"].combine_chunks()
    coded = column.flatten().dictionary_encode()
    labels = _objects(coded.dictionary.to_pylist())
    order = np.argsort(labels)
    has_label = np.zeros((records.num_rows, len(labels)), bool)
    has_label[column.value_parent_indices(), coded.indices.to_numpy()] = True
    return labels[order], has_label[:, order]


def _quality(records: pa.Table) -> dict[str, xr.DataArray]:
    """Return the quality figures as one array (record, figure)."""
    names = [name for name in records.column_names if name.startswith(_QUALITY)]
    figure_NF = np.stack([records[name].to_numpy() for name in names], axis=1)
    figures = _objects([name.removeprefix(_QUALITY) for name in names])
    return {"quality": xr.DataArray(figure_NF, {"figure": figures}, ("record", "figure"))}


def _columns(records: pa.Table) -> dict[str, tuple[str, NDArray[Any]]]:
    """Return the coordinates along `record` that the table holds."""
    columns = {
        "record": _text(records["record_id"]),
        "patient": _text(records["patient_id"]),
        "age": records["age"].to_numpy(),
        "sex": _text(records["sex"]),
        "labels": _joined(records["labels"]),
        "fold": records["fold"].to_numpy(),  # with NaN for records without one, as floats
        "rate": records["rate"].to_numpy(),
        "samples": records["samples"].to_numpy(),
        "notes": _joined(records["notes"]),
    }
    if records["fold"].null_count == records.num_rows:
        del columns["fold"]
    return {name: ("record", values) for name, values in columns.items()}


def _text(column: pa.ChunkedArray) -> NDArray[Any]:
    return _objects(column.fill_null("").to_pylist())


def _joined(column: pa.ChunkedArray) -> NDArray[Any]:
    return _objects(["; ".join(values) for values in column.to_pylist()])


def _objects(texts: Sequence[str]) -> NDArray[Any]:
    """Return texts as objects: an array of fixed width would be as wide as the longest, and Zarr 3 cannot store it."""
    return np.array(texts, dtype=object)


def _about(found: Found) -> dict[str, str]:
    """Return what the ECGs are, whose they are and how to cite them."""
    data_set = DATA_SETS.get(found.source)
    about = {"title": "Own ECGs", "licence": "your own"} if found.source == INCOMING else {}
    origin = {"simulated": "simulated, in the layout of the data set"} if found.simulated else {}
    return {"source": found.source, **(asdict(data_set) if data_set else about), **origin}
