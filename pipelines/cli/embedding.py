"""ECG files to a table of embeddings."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.cache import write_atomically
from pipelines.cli.files import read_file
from pipelines.records import DroppedRecord, Record

Embed = Callable[[Record], NDArray[np.float32]]
"""A record to its embedding (dim,); ValueError where it cannot be embedded."""


@dataclass(frozen=True, kw_only=True)
class Embedded:
    file: str
    record_id: str
    embedding_D: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A file, or a record of one, without an embedding. record_id is empty where the whole file is meant."""

    file: str
    record_id: str
    why: str


def embed_files(paths: Iterable[Path], embed: Embed) -> Iterator[Embedded | Unreadable]:
    """One item a record, in order; a file that cannot be read at all is one item, and the next file follows."""
    for path in paths:
        try:
            for reading in read_file(path):
                yield _embedded(str(path), reading.item, embed)
        except (ValueError, OSError) as error:
            yield Unreadable(file=str(path), record_id="", why=str(error))


def _embedded(file: str, item: Record | DroppedRecord, embed: Embed) -> Embedded | Unreadable:
    if isinstance(item, DroppedRecord):
        return Unreadable(file=file, record_id=item.record_id, why=f"{item.reason}: {item.detail}")
    try:
        embedding_D = embed(item)
    except ValueError as error:
        return Unreadable(file=file, record_id=item.record_id, why=str(error))
    return Embedded(file=file, record_id=item.record_id, embedding_D=embedding_D)


def write_embeddings(path: Path, rows: Sequence[Embedded]) -> None:
    """A row a record: file and record_id, then `embedding`, a list of float32 (.parquet), or e0, e1, ... (.csv)."""
    named = {"file": pa.array([row.file for row in rows]), "record_id": pa.array([row.record_id for row in rows])}
    embedding_ND = np.stack([row.embedding_D for row in rows])
    stream = io.BytesIO()
    if path.suffix == ".parquet":
        lists = pa.FixedSizeListArray.from_arrays(pa.array(embedding_ND.ravel()), embedding_ND.shape[1])
        pq.write_table(pa.table({**named, "embedding": lists}), stream, compression="zstd")
    elif path.suffix == ".csv":
        columns = {f"e{i}": pa.array(column) for i, column in enumerate(embedding_ND.T.copy())}
        pa_csv.write_csv(pa.table({**named, **columns}), stream)
    else:
        raise ValueError(f"output {path}: give a name that ends in .parquet or .csv")
    write_atomically(path, stream.getvalue())
