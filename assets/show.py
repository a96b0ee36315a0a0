"""A product as Dagster shows it: its digest as data version, its facts, tables and pictures as metadata; and what a
failure of it means."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg

from pipelines.cache import Product
from pipelines.finding import Finding

# A step whose process was killed, or whose server was away, is tried once more, and goes on from what is there. A
# mistake says of itself that it is not; downloads have more tries of their own.
ONCE_MORE = dg.RetryPolicy(max_retries=1, delay=15)


@contextmanager
def mistakes_explained() -> Iterator[None]:
    """A user's mistake fails the step with its own message, at once: a retry would meet it again."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


def materialized(
    product: Product, metadata: Mapping[str, Any] | None = None, checks: Sequence[dg.AssetCheckResult] = ()
) -> dg.MaterializeResult:
    """The result of an asset: what this one shows first, then what any product does."""
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


def checked(name: str, finding: Finding) -> dg.AssetCheckResult:
    """A finding as the result of the check of that name."""
    return dg.AssetCheckResult(check_name=name, passed=finding.holds, description=finding.seen)


def pictures(**pngs: bytes | None) -> dict[str, dg.MetadataValue]:
    """PNGs by name, below 100 kB each since they live in the event log; one that is None is left out."""
    return {
        name: dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})")
        for name, png in pngs.items()
        if png is not None
    }


def counts(by_name: Mapping[str, int], name: str, count: str, nothing: str) -> dg.MetadataValue:
    """Counts as a table, the largest first; a sentence where there is none."""
    ordered = sorted(by_name.items(), key=lambda item: (-item[1], item[0]))
    return table([{name: key, count: value} for key, value in ordered if value], nothing)


def table(rows: Sequence[Mapping[str, Any]], nothing: str) -> dg.MetadataValue:
    """Rows with equal keys as a table; a sentence where there is none."""
    if not rows:
        return dg.MetadataValue.text(nothing)
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows])
