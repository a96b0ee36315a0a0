"""`ecg embed`: ECG files, or harmonized ECGs, to a table of embeddings."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines.records import DroppedRecord, Record
    from pipelines.release.pulled import PulledEncoder


@click.command("embed")
@click.argument("files", metavar="PATH...", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--drop", "drops", metavar="NAME", multiple=True, help="Embed this harmonized drop; may be given several times."
)
@click.option(
    "--shard",
    "shards",
    metavar="SOURCE/PART",
    multiple=True,
    help="Embed this harmonized shard, such as ptbxl/00000, or a whole source; may be given several times.",
)
@click.option(
    "--model",
    default="models:/ecg-encoder@champion",
    show_default=True,
    help="An MLflow model URI, in the store of MLFLOW_TRACKING_URI or the data home's own.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Table to write: OUT.parquet (embedding as a list) or OUT.csv (columns e0, e1, ...).",
)
def command(files: tuple[Path, ...], drops: tuple[str, ...], shards: tuple[str, ...], model: str, output: Path) -> None:
    """Embed ECGs with a released encoder: one row per record.

    PATH is a file of any format that a drop takes (docs/own-data.md), or a folder with such files. ECGs are judged as
    harmonization judges them. A record that cannot be embedded is named on stderr and counted; the others are written,
    and the exit code is 1.

    What is harmonized already is embedded by --drop and --shard, as the evaluations embed it, with each record's
    patient.

    \b
    ecg embed export -o embeddings.parquet
    ecg embed records/*.hea -o embeddings.parquet
    ecg embed exams_part0.zip --model models:/ecg-encoder/3 -o embeddings.csv
    ecg embed --drop ward-7 -o ward-7.parquet
    ecg embed --shard ecgs/ptbxl/00000 -o embeddings.parquet
    """
    if output.suffix not in (".parquet", ".csv"):
        raise click.BadParameter("give a name that ends in .parquet or .csv", param_hint="--output")
    if bool(files) == bool(drops or shards):
        raise click.UsageError("give PATHs, or harmonized ECGs by --drop or --shard, and not both")
    if files:
        _embed_paths(files, model, output)
    else:
        from pipelines.cli.embed_harmonized import embed_harmonized

        columns, embedding_ND = embed_harmonized(drops, shards, model)
        write_table(output, columns, embedding_ND)
        click.echo(f"{len(embedding_ND)} embeddings of {embedding_ND.shape[1]} numbers in {output}")


def _embed_paths(files: Sequence[Path], model: str, output: Path) -> None:
    """Embed files and folders. Raises ClickException, after all are tried, if one could not be embedded."""
    from pipelines.cli.console import progress
    from pipelines.formatting import format_text

    embedded: list[Embedded] = []
    failed: list[Unreadable] = []
    with pull(model) as encoder, progress() as bar:
        folders = any(path.is_dir() for path in files)
        task = bar.add_task("embedding", total=None if folders else len(files))
        done: set[str] = set()
        for item in embed_files(files, lambda r: encoder.embed(r.signal_LT, leads=r.leads, rate=r.rate)):
            if isinstance(item, Embedded):
                embedded.append(item)
            else:
                failed.append(item)
                bar.console.print(format_text(f"{item.file} {item.record_id}: {item.why}"), soft_wrap=True)
            done.add(item.file)
            bar.update(task, completed=len(done), description=f"{len(embedded)} embedded, {len(failed)} refused")
    if embedded:
        write_embeddings(output, embedded)
        click.echo(f"{len(embedded)} embeddings of {len(embedded[0].embedding_D)} numbers in {output}")
    if failed:
        nothing_written = "" if embedded else "; nothing was written"
        raise click.ClickException(f"{len(failed)} records or files could not be embedded{nothing_written}")


@contextmanager
def pull(uri: str) -> Iterator[PulledEncoder]:
    """Load a registered encoder from the home's store; it embeds inside the block."""
    from pipelines.cli.store import existing_store
    from pipelines.home import Home

    tracking = existing_store(Home.default())
    # After pipelines.tracking, which silences MLflow before it is imported.
    from pipelines.release.pulled import PulledEncoder, pulled_model

    with pulled_model(uri, tracking=tracking) as model:
        yield PulledEncoder(model)


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A record's embedding, float32 (D,)."""

    file: str
    record_id: str
    embedding_D: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A file, or a record of one, without an embedding."""

    file: str
    record_id: str
    """Empty if the whole file is meant."""
    why: str


Embed = Callable[["Record"], "NDArray[np.float32]"]
"""Embeds a record, float32 (D,). Raises ValueError if it cannot be embedded."""


def embed_files(paths: Iterable[Path], embed: Embed) -> Iterator[Embedded | Unreadable]:
    """Yield one item per record, in order, of files and of folders with all below them.

    A file that cannot be read at all is one item, and the next file follows.
    """
    from pipelines.cli.ecg_files import read_path

    for path in paths:
        try:
            for file, reading in read_path(path):
                yield _embedded(str(file), reading.item, embed)
        except ChildProcessError:
            raise  # of the model, not of this file
        except (ValueError, OSError) as error:
            yield Unreadable(file=str(path), record_id="", why=str(error))


def _embedded(file: str, item: Record | DroppedRecord, embed: Embed) -> Embedded | Unreadable:
    from pipelines.harmonize.convert import encodable
    from pipelines.records import Record

    if isinstance(item, Record):
        item = encodable(item)
    if not isinstance(item, Record):
        return Unreadable(file=file, record_id=item.record_id, why=f"{item.reason}: {item.detail}")
    try:
        embedding_D = embed(item)
    except ValueError as error:
        return Unreadable(file=file, record_id=item.record_id, why=str(error))
    return Embedded(file=file, record_id=item.record_id, embedding_D=embedding_D)


def write_embeddings(path: Path, rows: Sequence[Embedded]) -> None:
    """Write a row per record: file, record_id and the embedding, as `write_table` does."""
    import numpy as np

    names = {"file": [row.file for row in rows], "record_id": [row.record_id for row in rows]}
    write_table(path, names, np.stack([row.embedding_D for row in rows]))


def write_table(path: Path, names: Mapping[str, Sequence[str | None]], embedding_ND: NDArray[np.float32]) -> None:
    """Write columns of text, then `embedding`, a list of float32 (.parquet), or e0, e1, ... (.csv).

    Raises ValueError for another suffix.
    """
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    from pipelines.disk_space import full_disk_explained
    from pipelines.durable import write_atomically

    texts = {
        name: pa.array([None if value is None else _escaped(value) for value in values], pa.string())
        for name, values in names.items()
    }
    stream = io.BytesIO()
    if path.suffix == ".parquet":
        lists = pa.FixedSizeListArray.from_arrays(pa.array(embedding_ND.ravel()), embedding_ND.shape[1])
        pq.write_table(pa.table({**texts, "embedding": lists}), stream, compression="zstd")
    elif path.suffix == ".csv":
        columns = {f"e{i}": pa.array(column) for i, column in enumerate(embedding_ND.T.copy())}
        pa_csv.write_csv(pa.table({**texts, **columns}), stream)
    else:
        raise ValueError(f"output {path}: give a name that ends in .parquet or .csv")
    with full_disk_explained(path, stream.tell()):
        write_atomically(path, stream.getvalue())


def _escaped(name: str) -> str:
    """Return a name with bytes that are no text escaped: a table holds text."""
    return name.encode("utf-8", "backslashreplace").decode()
