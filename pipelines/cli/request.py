"""`ecg request`: ECG files as the body of a request to a served model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.records import DroppedRecord, Record


@click.command("request")
@click.argument(
    "files", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=False, path_type=Path)
)
def command(files: tuple[Path, ...]) -> None:
    """Write the ECGs in PATHs, as `ecg inspect` takes them, as the JSON that a served model takes at /invocations.

    The JSON goes to stdout; which file is which record of the answer, from 0, goes to stderr. ECGs of one request have
    one rate and length. One that a model would refuse is left out with the reason, and the exit code is then 1.

    \b
    ecg request JS00001.hea > request.json
    curl -s http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' -d @request.json
    """
    from pipelines.formatting import format_name

    taken: list[tuple[str, Record]] = []
    failed = 0
    for file, item in _encodable(files):
        if isinstance(item, str):
            failed += 1
            click.echo(format_name(f"left out: {file}: {item}"), err=True)
        else:
            click.echo(format_name(f"record {len(taken)}: {file} {item.record_id}"), err=True)
            taken.append((file, item))
    if taken:
        click.echo(request_of(taken))
    if failed:
        nothing = "" if taken else "; nothing was written"
        raise click.ClickException(f"{failed} records or files were left out{nothing}")


def request_of(taken: Sequence[tuple[str, Record]]) -> str:
    """Return the body of a request with records, each with its file.

    Raises ValueError if they differ in rate or length, or if the body would be larger than a served model takes.
    """
    import numpy as np

    from pipelines.release.scoring_request import BODY_MAX

    (first_file, first), *more = taken
    for file, record in more:
        if (record.rate, record.signal_LT.shape) != (first.rate, first.signal_LT.shape):
            raise ValueError(
                f"{first_file} is of {_form(first)}, {file} of {_form(record)}: the ECGs of a request have one rate "
                "and length: write a request for each"
            )
    signal_NLT = np.stack([record.signal_LT for _, record in taken]).astype(np.float64)
    params = {"sampling_rate": first.rate, "leads": ",".join(first.leads)}
    # A millionth of a millivolt is finer than any recorder's step.
    body = json.dumps({"inputs": signal_NLT.round(6).tolist(), "params": params}, separators=(",", ":"))
    if len(body) > BODY_MAX:
        raise ValueError(
            f"{len(taken):,} ECGs are {len(body):,} bytes, and a served model takes {BODY_MAX:,}: give fewer"
        )
    return body


def _form(record: Record) -> str:
    return f"{record.signal_LT.shape[1]:,} samples at {record.rate:g} Hz"


def _encodable(paths: Sequence[Path]) -> Iterator[tuple[str, Record | str]]:
    """Yield each record with its file, as a model takes it, or why it would be refused or cannot be read."""
    from pipelines.cli.ecg_files import read_path
    from pipelines.harmonize.convert import encodable
    from pipelines.records import Record

    for path in paths:
        try:
            for file, reading in read_path(path):
                item: Record | DroppedRecord = reading.item
                if isinstance(item, Record):
                    item = encodable(item)
                yield str(file), item if isinstance(item, Record) else f"{item.reason}: {item.detail}"
        except (ValueError, OSError) as error:
            yield str(path), str(error)
