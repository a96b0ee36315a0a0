"""Checks of a harmonized shard. Each reads the files that were written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.cache import Product
from pipelines.finding import Finding
from pipelines.formats.shard import FINDINGS, SAMPLES, content_hash, open_shard
from pipelines.records import DropReason
from pipelines.sources.base import RemoteFile

COUNTS_ADD_UP = "every_record_accounted_for"
SHARD_IS_WHOLE = "leads_in_order_and_no_sample_missing"


def shard_findings(shard: Product, listed: int | None = None) -> dict[str, Finding]:
    """Of a harmonized shard: what its checks find, by their names. listed: as `counts_add_up` takes it."""
    return {COUNTS_ADD_UP: counts_add_up(shard, listed), SHARD_IS_WHOLE: shard_is_whole(shard)}


def kept_findings(shard: Product) -> dict[str, Finding]:
    """Of a harmonized shard: what its checks found as it was made, and anew for one that is from before these were
    kept."""
    kept = shard.facts.get(FINDINGS)
    return shard_findings(shard) if kept is None else {name: Finding(**found) for name, found in kept.items()}


def records_listed(files: Sequence[RemoteFile]) -> int | None:
    """How many records a partition's files hold by their names; None where a file holds many (CODE-15%)."""
    stems = {file.path.rsplit(".", 1)[0] for file in files if file.path.endswith((".hea", ".mat", ".dat"))}
    return len(stems) or None


def counts_add_up(product: Product, listed: int | None = None) -> Finding:
    """Of a harmonized shard: entered = kept + dropped, by the tables; each drop has a reason of the closed list.

    listed: the records that the source's list names, where it names each; none may be lost on the way in.
    """
    shard = open_shard(product.path)
    entered, kept, drops = product.facts["entered"], shard.records().num_rows, shard.drops()
    unknown = set(drops.column("reason").to_pylist()) - {reason.value for reason in DropReason}
    holds = entered == kept + drops.num_rows == kept + sum(product.facts["dropped"].values()) and not unknown
    holds = holds and listed in (None, entered)
    seen = f"{entered} entered, {kept} kept, {drops.num_rows} dropped"
    seen += "" if listed in (None, entered) else f"; the source lists {listed}"
    return Finding(holds, seen + (f"; unknown reasons {sorted(unknown)}" if unknown else ""))


def shard_is_whole(product: Product) -> Finding:
    """Of a harmonized shard: leads in order (opening it says so), rows numbered, no ECG empty or changed since."""
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
