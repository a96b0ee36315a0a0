"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Whether something holds, and what was seen, in words."""

    holds: bool
    seen: str
