"""The layout of a harmonized shard on disk. Of the pipeline, only this module opens Zarr.

    ecgs.zarr/signal     int16 (record, lead, time), microvolt: attributes units "mV", scale_factor 0.001
    ecgs.zarr/lead,time  the leads' names and the seconds from the start
    records.parquet      one row per record, in the array's order (RECORDS)
    drops.parquet        one row per dropped record (DROPS)

`ecg_foundry.ecgs.open` gives shards to xarray, in millivolt. Consolidated metadata is outside the Zarr 3 specification
and is not written.

Chunks of 64 records make contiguous reads fast, Zarr shards of 1,024 keep the number of files small. A harmonized shard
is written once and never appended to.
Shapes: N records, L leads, T samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from ecg_foundry.layout import RECORDS_FILE, SCHEMA, SIGNALS
from ecg_foundry.soundness import require_sound
from pipelines.formats.simhash import BYTES as SIGNATURE_BYTES
from pipelines.records import DroppedRecord

LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
MILLIVOLT = 1e-3
"""Millivolt per count: a shard's samples are whole microvolts."""

RATE = 250  # samples per second
SAMPLES = 2500
CHUNK = 64  # records
SHARD = 1024  # records
# zarr decodes in threads of its own, and these mostly wait for them. Eight read 5 times as fast as one on two cores.
THREADS = 8

DROPS_FILE = "drops.parquet"

# The figures of pipelines.harmonize.quality, one column each.
QUALITY = (
    "missing_share",
    "flat_leads",
    "saturation_share",
    "minimum",
    "maximum",
    "wander",
    "mains",
    "noise",
    "einthoven",
    "heart_rate",
)

RECORDS = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string()),
        pa.field("age", pa.float32()),
        pa.field("sex", pa.string()),
        pa.field("rate", pa.float32(), nullable=False),
        pa.field("samples", pa.int32(), nullable=False),
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        pa.field("fold", pa.int8()),
        pa.field("notes", pa.list_(pa.string()), nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("signature", pa.binary(SIGNATURE_BYTES), nullable=False),
        *(pa.field(f"quality_{name}", pa.float32()) for name in QUALITY),
    ],
    metadata={"schema": str(SCHEMA)},
)

DROPS = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("source", "record_id", "reason", "detail")],
    metadata={"schema": str(SCHEMA)},
)


class ShardWriter:
    """Writer of one harmonized shard into an empty directory; memory is one Zarr shard of the array (41 MB).

    The same calls write the same bytes. Raises ValueError if the directory already has a store: no store is appended
    to, so none has parts of two versions of the layout.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if (folder / SIGNALS).exists():
            raise ValueError(f"{folder / SIGNALS} exists: a store is never appended to; write to a new directory")
        group = zarr.create_group(folder / SIGNALS, zarr_format=3, attributes={"schema": SCHEMA, "rate": RATE})
        lead = group.create_array("lead", shape=(len(LEADS),), dtype="string", dimension_names=("lead",))
        lead[:] = np.array(LEADS, dtype=object)
        time = np.arange(SAMPLES, dtype=np.float64) / RATE
        group.create_array("time", data=time, dimension_names=("time",), attributes={"units": "s"})
        self._signal = group.create_array(
            "signal",
            shape=(0, len(LEADS), SAMPLES),
            chunks=(CHUNK, len(LEADS), SAMPLES),
            shards=(SHARD, len(LEADS), SAMPLES),
            dtype="int16",
            fill_value=0,
            compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=2),
            dimension_names=("record", "lead", "time"),
            attributes={"units": "mV", "scale_factor": MILLIVOLT, "leads": list(LEADS)},
        )
        self._buffer = np.empty((SHARD, len(LEADS), SAMPLES), np.int16)
        self._records: list[dict[str, Any]] = []
        self._drops: list[dict[str, str]] = []
        self._written = 0  # records in the array on disk; the others are in the buffer

    def append(self, signal_LT: NDArray[np.int16], record: Mapping[str, Any]) -> None:
        """Add one record: int16 (8, 2500), microvolt, and its row of RECORDS without `row`."""
        filled = len(self._records) - self._written
        self._buffer[filled] = signal_LT
        self._records.append({"row": len(self._records), **record})
        if filled + 1 == SHARD:
            self._flush()

    def add_dropped(self, dropped: DroppedRecord, source: str) -> None:
        """Add one dropped record."""
        reason = dropped.reason.value
        row = {"source": source, "record_id": dropped.record_id, "reason": reason, "detail": dropped.detail}
        self._drops.append(row)

    def close(self) -> None:
        """Write the rest of the array, and both tables."""
        if len(self._records) > self._written:
            self._flush()
        write_table(self._folder / RECORDS_FILE, pa.Table.from_pylist(self._records, schema=RECORDS))
        write_table(self._folder / DROPS_FILE, pa.Table.from_pylist(self._drops, schema=DROPS))

    def _flush(self) -> None:
        total = len(self._records)
        self._signal.resize((total, len(LEADS), SAMPLES))
        self._signal[self._written :] = self._buffer[: total - self._written]
        self._written = total


class Shard:
    """A harmonized shard, opened for reading. `len` is its number of records."""

    def __init__(self, folder: Path, signal: zarr.Array[Any]) -> None:
        self.folder = folder
        self._signal = signal

    def __len__(self) -> int:
        return self._signal.shape[0]

    def signals(self) -> NDArray[np.int16]:
        """Return all records, int16 (N, 8, 2500), microvolt, read in parallel."""
        return read_rows([(self.folder, np.arange(len(self)))])

    def spans(self, unit: int = SHARD) -> list[tuple[int, int]]:
        """Return the rows of each file (unit=SHARD) or chunk (CHUNK) of the array, as (first, one past the last)."""
        return [(first, min(first + unit, len(self))) for first in range(0, len(self), unit)]

    def read(self, first: int, end: int) -> NDArray[np.int16]:
        """Return the rows from `first` to before `end`, int16 (end - first, 8, 2500), microvolt; they lie in one file.

        Raises ValueError if the file is missing or damaged.
        """
        try:
            signal_NLT = np.asarray(self._signal[first:end])
        except (ValueError, RuntimeError) as error:  # of checksums and codecs
            raise ValueError(
                f"{self.folder}: the signals of rows {first} to {end} cannot be read ({error}): harmonize it again"
            ) from error
        if not (self.folder / SIGNALS / "signal" / "c" / str(first // SHARD) / "0" / "0").is_file():
            # Zarr reads a missing file as zeros.
            raise ValueError(f"{self.folder}: the signals of rows {first} to {end} are missing: harmonize it again")
        return signal_NLT

    def records(self) -> pa.Table:
        """Return the table of records (RECORDS), in the array's order."""
        return pq.read_table(self.folder / RECORDS_FILE, schema=RECORDS)

    def drops(self) -> pa.Table:
        """Return the table of dropped records (DROPS)."""
        return pq.read_table(self.folder / DROPS_FILE, schema=DROPS)


def open_shard(folder: Path | str) -> Shard:
    """Open the shard in a product's directory.

    Raises ValueError if there is none, if another version of this layout wrote it, or if its array and its table have
    different numbers of records; Damaged if its files are not those that were written.
    """
    folder = Path(folder)
    if not (folder / SIGNALS / "zarr.json").is_file():
        raise ValueError(f"{folder} has no harmonized shard ({SIGNALS}): harmonize the partition first")
    require_sound(folder)
    try:
        group = zarr.open_group(folder / SIGNALS, mode="r")
        signal = group["signal"]
        rows = pq.read_metadata(folder / RECORDS_FILE).num_rows
    except (FileNotFoundError, KeyError) as error:  # a part is missing, or was removed just now
        raise ValueError(
            f"{folder}: the harmonized shard is incomplete ({error}): harmonize the partition again"
        ) from error
    schema = group.attrs.get("schema")
    if schema != SCHEMA:
        raise ValueError(f"{folder / SIGNALS} has schema {schema}, this version reads {SCHEMA}: harmonize it again")
    if not isinstance(signal, zarr.Array) or signal.attrs["leads"] != list(LEADS) or signal.dtype != np.int16:
        raise ValueError(f"{folder / SIGNALS}/signal is not int16 with leads {', '.join(LEADS)}: harmonize it again")
    if rows != signal.shape[0]:
        raise ValueError(f"{folder}: {signal.shape[0]} signals but {rows} rows in {RECORDS_FILE}: harmonize it again")
    return Shard(folder, signal)


def content_hash(signal_LT: NDArray[np.int16]) -> str:
    """Return the sha256 of an ECG's stored samples (L, T) as hexadecimal digits, `content_hash` of records.parquet."""
    return hashlib.sha256(signal_LT.tobytes()).hexdigest()


def signatures_of(records: pa.Table) -> NDArray[np.uint8]:
    """Return the signatures in a table of RECORDS, uint8 (N, 128)."""
    column = records.column("signature").combine_chunks()
    values_B = np.frombuffer(column.buffers()[1], np.uint8)
    return values_B.reshape(-1, SIGNATURE_BYTES)[column.offset : column.offset + len(column)]


class ShardReading:
    """Rows that are being read into one array, in parts."""

    def __init__(self, signal_NLT: NDArray[np.int16], parts: Sequence[Future[None]]) -> None:
        self._signal_NLT, self._parts = signal_NLT, parts

    def result(self) -> NDArray[np.int16]:
        """Wait for all parts and return the array, int16 (N, 8, 2500).

        Raises the error of a part, and cancels the others; CancelledError if the readers were shut down.
        """
        try:
            for part in self._parts:
                part.result()
        finally:
            for part in self._parts:
                part.cancel()
        return self._signal_NLT


def start_reading(
    requests: Sequence[tuple[Shard, NDArray[np.integer[Any]]]], readers: Executor, unit: int = SHARD
) -> ShardReading:
    """Start reading the given rows (ascending) of several shards into one array, shard after shard.

    A unit of an array is read whole and its other rows are discarded: memory beyond the result is one unit per reader.
    unit: SHARD, a file, if most rows are needed; CHUNK if few rows of a file are.
    """
    total = sum(len(rows) for _, rows in requests)
    out_NLT = np.empty((total, len(LEADS), SAMPLES), np.int16)
    tasks: list[tuple[Shard, tuple[int, int], NDArray[Any], int]] = []
    offset = 0
    for shard, rows in requests:
        if len(rows) and not (np.all(np.diff(rows) > 0) and rows[0] >= 0 and rows[-1] < len(shard)):
            raise ValueError(f"{shard.folder}: rows must be ascending and below {len(shard)}; build the corpus again")
        for first, end in shard.spans(unit):
            inside = rows[np.searchsorted(rows, first) : np.searchsorted(rows, end)]
            if len(inside):
                tasks.append((shard, (first, end), inside, offset))
            offset += len(inside)

    def read(shard: Shard, span: tuple[int, int], inside: NDArray[Any], offset: int) -> None:
        first, end = span
        target_NLT = out_NLT[offset : offset + len(inside)]
        # The rows are checked above; with mode "raise" numpy would gather into a copy first.
        np.take(shard.read(first, end), inside - first, axis=0, out=target_NLT, mode="clip")

    return ShardReading(out_NLT, [readers.submit(read, *task) for task in tasks])


def read_rows(requests: Sequence[tuple[Path, NDArray[np.integer[Any]]]], unit: int = SHARD) -> NDArray[np.int16]:
    """Return the given rows (ascending) of the shards in these folders, int16 (N, 8, 2500), read in parallel."""
    opened = [(open_shard(folder), rows) for folder, rows in requests]
    with ThreadPoolExecutor(THREADS) as readers:
        return start_reading(opened, readers, unit).result()


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file with zstd; the same table gives the same bytes."""
    pq.write_table(table, path, compression="zstd")
