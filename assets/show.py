"""Results of assets: a product's digest as data version, tables and pictures as metadata, and what a failure means."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from pipelines import plots
from pipelines.cache import Product
from pipelines.disk_space import DiskFull, full_disk_explained
from pipelines.durable import write_atomically
from pipelines.finding import Finding
from pipelines.formatting import format_text
from pipelines.hashing import digest_of, sha256_of_file
from pipelines.home import Home

if TYPE_CHECKING:
    from assets.previews import LeftOutRecords

# A step whose process was killed, or whose server was away, is tried once more, and continues from what is there. A
# user's mistake is not retried (`mistakes_explained`); downloads have more retries (`sources`).
ONCE_MORE = dg.RetryPolicy(max_retries=1, delay=15)


@contextmanager
def mistakes_explained() -> Iterator[None]:
    """Fail the step with the message of a user's mistake or of a full disk, without a retry, which would fail again."""
    try:
        with full_disk_explained(Home.default().root):
            yield
    except (ValueError, FileNotFoundError, DiskFull) as error:
        raise dg.Failure(description=format_text(str(error)), allow_retries=False) from error


def materialized(
    product: Product, metadata: Mapping[str, Any] | None = None, checks: Sequence[dg.AssetCheckResult] = ()
) -> dg.MaterializeResult:
    """Return the result of an asset: its own metadata first, then that of every product."""
    return dg.MaterializeResult(
        data_version=dg.DataVersion(product.digest),
        metadata={
            **(metadata or {}),
            "cached": product.cached,
            "seconds": product.seconds,
            "fingerprint": product.fingerprint,
            "path": dg.MetadataValue.path(str(product.path)),
        },
        check_results=list(checks),
    )


def checked(
    name: str, finding: Finding, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
) -> dg.AssetCheckResult:
    """Return a finding as the result of the check of that name."""
    return dg.AssetCheckResult(
        check_name=name, passed=finding.holds, severity=severity, description=format_text(finding.seen)
    )


def pictures(**pngs: bytes | None) -> dict[str, dg.MetadataValue]:
    """Return PNGs as metadata, without those that are None. Each is below 100 kB: it is stored in the event log."""
    return {
        name: dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})")
        for name, png in pngs.items()
        if png is not None
    }


def drawn_once(product: Product, name: str, draw: Callable[[Product], bytes | None]) -> bytes | None:
    """Return a picture of a product, drawn the first time that this code is asked for it. None if there is none.

    It lies in the product's `aside/`. Without it, a run that finds all in the cache spends half of its time on drawing.
    """
    file = product.aside / f"picture-{name}-{_drawing_code()}.png"
    if not file.is_file():
        png = draw(product)
        if png is None:
            return None
        write_atomically(file, png)
    return file.read_bytes()


@cache
def _drawing_code() -> str:
    """Return a digest of the code that draws, so that a change of it draws again."""
    files = [Path(__file__).with_name("previews.py"), *sorted(Path(plots.__file__).parent.glob("*.py"))]
    return digest_of([sha256_of_file(file) for file in files])[:12]


def counts(by_name: Mapping[str, int], name: str, count: str, nothing: str) -> dg.MetadataValue:
    """Return counts as a table, the largest first, or the sentence `nothing` if there is none."""
    ordered = sorted(by_name.items(), key=lambda item: (-item[1], item[0]))
    return table([{name: key, count: value} for key, value in ordered if value], nothing)


def one_by_one(name: str, records: LeftOutRecords) -> dict[str, dg.MetadataValue]:
    """Return records that are left out as a table, with where all of them are; nothing if there is none."""
    if not records.rows:
        return {}
    return {name: table(records.rows, ""), f"{name}, all": dg.MetadataValue.text(records.whole)}


def table(rows: Sequence[Mapping[str, Any]], nothing: str) -> dg.MetadataValue:
    """Return rows with equal keys as a table, or the sentence `nothing` if there is none."""
    if not rows:
        return dg.MetadataValue.text(nothing)
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows])
