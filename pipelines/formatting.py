"""Numbers and names as people read them."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence


def format_bytes(count: float) -> str:
    """Return a number of bytes as `14.1 MB`, in powers of ten."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def format_duration(seconds: float) -> str:
    """Return a duration as `40 s`, `3 min` or `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_difference(value: float, low: float, high: float) -> str:
    """Return `+0.042 (-0.005 to +0.083)`: a difference and its interval, with signs."""
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def format_name(name: str) -> str:
    """Return a name from outside with bytes that are no text, and characters that do not print, escaped."""
    if name.isprintable():
        return name
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)


def format_text(text: str) -> str:
    """Return a text that may hold names from outside, escaped as `format_name` does, with its line breaks."""
    return "\n".join(format_name(line) for line in text.split("\n"))


def escape_output() -> None:
    """Make stdout and stderr escape characters that their encoding lacks, instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def format_interval(value: float, low: float, high: float) -> str:
    """Return `0.842 (0.795 to 0.883)`: an estimate and its interval."""
    return f"{value:.3f} ({format_range(low, high)})"


def format_range(low: float, high: float) -> str:
    """Return `0.795 to 0.883`: an interval alone."""
    return f"{low:.3f} to {high:.3f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table of plain texts.

    MLflow draws tables without space between columns, so that each cell ends with some.
    """

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(f"{plain_markdown(cell)}&emsp;" for cell in cells) + " |"

    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, rows)])


def plain_markdown(text: str) -> str:
    """Return a text, which may hold names from outside, without what Markdown or HTML would take for its own."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_[]|":
        escaped = escaped.replace(sign, f"\\{sign}")
    return format_name(" ".join(escaped.split()))
