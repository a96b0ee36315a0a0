"""Counts as Markdown, for the places that show it."""

from __future__ import annotations

from collections.abc import Mapping


def drop_table_markdown(entered: int, dropped: Mapping[str, int]) -> str:
    """What became of a shard's records: kept, and dropped by reason, most frequent first, adding up to `entered`.

    Raises ValueError where more are dropped than entered.
    """
    kept = entered - sum(dropped.values())
    if kept < 0:
        raise ValueError(f"dropped {sum(dropped.values())} of {entered} records: counts must add up")
    by_count = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    rows = [("**entered**", entered), ("**kept**", kept), *((f"dropped: {reason}", n) for reason, n in by_count)]
    lines = [f"| {name} | {n:,} | {_share(n, entered)} |" for name, n in rows]
    return "\n".join(["| records | count | share |", "|:--|--:|--:|", *lines])


def _share(n: int, total: int) -> str:
    return f"{n / total:.1%}" if total else ""
