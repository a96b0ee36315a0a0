"""Checks of a harmonized shard. Each reads the files that were written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.cache import Product
from pipelines.finding import Finding
from pipelines.formats.shard import SAMPLES, content_hash, open_shard
from pipelines.harmonize.shards import HarmonizedFacts
from pipelines.records import DropReason
from pipelines.sources.base import RemoteFile

COUNTS_ADD_UP = "every_record_accounted_for"
SHARD_IS_WHOLE = "leads_in_order_and_no_sample_missing"
EVERY_FILE_READ = "every_file_of_the_drop_read"
_NAMED = 5  # files that are not read, in a sentence


def shard_findings(shard: Product, listed: int | None = None) -> dict[str, Finding]:
    """Run the checks of a harmonized shard; their findings by name. listed: as `counts_add_up` takes it."""
    return {COUNTS_ADD_UP: counts_add_up(shard, listed), SHARD_IS_WHOLE: shard_is_whole(shard)}


def recorded_findings(shard: Product) -> dict[str, Finding]:
    """Return what the checks of a harmonized shard found when it was made.

    A shard of an earlier version, which did not record its findings, is checked now.
    """
    findings = HarmonizedFacts.of(shard).findings
    return shard_findings(shard) if findings is None else findings


def records_listed(files: Sequence[RemoteFile]) -> int | None:
    """Count the records that a partition's files hold, by their names.

    Returns None if one file holds many records (CODE-15%).
    """
    stems = {file.path.rsplit(".", 1)[0] for file in files if file.path.endswith((".hea", ".mat", ".dat"))}
    return len(stems) or None


def counts_add_up(product: Product, listed: int | None = None) -> Finding:
    """Check that entered = kept + dropped in a shard's tables, and that each reason is of the closed list.

    listed: number of records in the source's list, if it names each; all of them must have entered.
    """
    shard = open_shard(product.path)
    facts = HarmonizedFacts.of(product)
    kept, dropped = shard.records().num_rows, shard.drops()
    unknown = set(dropped.column("reason").to_pylist()) - {reason.value for reason in DropReason}
    holds = facts.entered == kept + dropped.num_rows == kept + sum(facts.dropped.values()) and not unknown
    holds = holds and listed in (None, facts.entered)
    seen = f"{facts.entered} entered, {kept} kept, {dropped.num_rows} dropped"
    seen += "" if listed in (None, facts.entered) else f"; the source lists {listed}"
    return Finding(holds, seen + (f"; unknown reasons {sorted(unknown)}" if unknown else ""))


def shard_is_whole(product: Product) -> Finding:
    """Check that a shard's rows are numbered, and that no ECG is empty or has changed since harmonization.

    Opening the shard checks the order of the leads.
    """
    shard = open_shard(product.path)
    records = shard.records()
    rows, hashes = records.column("row").to_numpy(), records.column("content_hash").to_pylist()
    empty = changed = 0
    for first, end in shard.spans():
        signal_NLT = shard.read(first, end)
        empty += int((signal_NLT.max(axis=(1, 2)) == signal_NLT.min(axis=(1, 2))).sum())
        changed += sum(
            content_hash(signal_LT) != known for signal_LT, known in zip(signal_NLT, hashes[first:end], strict=True)
        )
    holds = np.array_equal(rows, np.arange(len(shard))) and not empty and not changed
    seen = f"{len(shard)} ECGs of 8 leads and {SAMPLES} samples, {empty} of them empty"
    return Finding(holds, seen + (f", {changed} other than when they were harmonized" if changed else ""))


def every_file_read(shard: Product) -> Finding:
    """Check that no file of a drop is of a format that is not read; the others are harmonized all the same."""
    drops = open_shard(shard.path).drops().to_pylist()
    unread = [drop for drop in drops if drop["reason"] == DropReason.UNKNOWN_FORMAT]
    if not unread:
        return Finding.passed(f"none of {len(drops):,} dropped records is a file of a format that is not read")
    names = ", ".join(drop["record_id"] for drop in unread[:_NAMED])
    more = f" and {len(unread) - _NAMED:,} more" if len(unread) > _NAMED else ""
    return Finding.failed(
        f"{len(unread):,} files are of no format that is read: {names}{more}. The first: {unread[0]['detail']}. "
        "`ecg check-drop` says of each what to do"
    )
