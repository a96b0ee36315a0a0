"""A product as Dagster shows it: its digest as data version, its facts, tables and pictures as metadata."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg

from pipelines.stage import Product


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
    """The result of an asset: what any product shows, and what this one adds."""
    return dg.MaterializeResult(
        data_version=dg.DataVersion(product.digest),
        metadata={
            "cached": product.cached,
            "seconds": product.seconds,
            "product": product.name,
            "fingerprint": product.fingerprint,
            "path": dg.MetadataValue.path(str(product.path)),
            **(metadata or {}),
        },
        check_results=list(checks),
    )


def picture(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A PNG inside the event log; keep it under 100 kB."""
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


def table(rows: Sequence[Mapping[str, Any]], empty: str) -> dg.MetadataValue:
    """Rows with equal keys as a table; a sentence where there is none."""
    if not rows:
        return dg.MetadataValue.text(empty)
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows])
