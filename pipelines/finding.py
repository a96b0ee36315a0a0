"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Whether a check passed, and what it observed, as a sentence."""

    holds: bool
    seen: str

    @classmethod
    def passed(cls, seen: str) -> Finding:
        """A check that passed."""
        return cls(True, seen)

    @classmethod
    def failed(cls, seen: str) -> Finding:
        """A check that failed."""
        return cls(False, seen)
