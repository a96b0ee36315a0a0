"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Whether a check passed, and what it observed."""

    holds: bool  # whether the check passed
    seen: str  # what it observed, as a sentence

    @classmethod
    def passed(cls, seen: str) -> Finding:
        """Return the finding of a check that passed."""
        return cls(True, seen)

    @classmethod
    def failed(cls, seen: str) -> Finding:
        """Return the finding of a check that failed."""
        return cls(False, seen)
