"""Download a large file in parts over several connections at once, and join them in order.

    <path>.part        the file's beginning: whole parts that were joined, or what one connection fetched
    <path>.part.<n>    part n, which grows on its own; its size alone tells how much of it is here

No other state is stored, so a killed process leaves nothing that the next one could misread; the checksum of the whole
file decides in the end.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipelines.download.http import Advance, NoRanges, Transfer, size_of


@dataclass(frozen=True, kw_only=True)
class PartFiles:
    """The parts of the file that will be `path`."""

    path: Path
    size: int  # bytes of the whole file
    piece: int  # bytes of a part

    @property
    def whole(self) -> Path:
        """The partial file that the parts are joined into."""
        return self.path.with_name(f"{self.path.name}.part")

    def part(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.part.{number}")

    def span(self, number: int) -> tuple[int, int]:
        """Return the first byte of a part and one past its last."""
        return number * self.piece, min((number + 1) * self.piece, self.size)

    def missing(self) -> list[int]:
        """Return the parts that are not joined yet, after repairing what an earlier run left.

        A partial file that is not complete is truncated to whole parts, and parts that it already holds are removed.
        """
        here = size_of(self.whole)
        joined = -(-self.size // self.piece) if here >= self.size else here // self.piece
        if joined * self.piece < here < self.size:
            os.truncate(self.whole, joined * self.piece)
        for number, part in self._parts():
            if number < joined:
                part.unlink()
        return list(range(joined, -(-self.size // self.piece)))

    def bytes_here(self) -> int:
        """Return how many bytes of the file are on the disk."""
        return size_of(self.whole) + sum(size_of(part) for _, part in self._parts())

    def join(self) -> None:
        """Append the parts to the partial file in order, removing each: the disk needs room for one part more.

        If killed midway, it leaves a state that `missing` repairs.
        """
        with self.whole.open("ab") as stream:
            for _, part in self._parts():
                with part.open("rb") as source:
                    shutil.copyfileobj(source, stream, 1 << 20)
                stream.flush()
                part.unlink()

    def cut_at_gap(self) -> None:
        """Remove the parts behind the first incomplete one, so that what is left is the file's beginning."""
        expected = min(size_of(self.whole), self.size)
        for number, part in self._parts():
            first, _ = self.span(number)
            if first != expected:
                part.unlink()
            else:
                expected += size_of(part)

    def _parts(self) -> list[tuple[int, Path]]:
        """Return the parts that are here, in order."""
        numbers = range(-(-self.size // self.piece))
        return [(number, part) for number in numbers if (part := self.part(number)).is_file()]


class MultipartDownload:
    """Downloads one large file: one job per part, shared by threads. The last job to finish joins and verifies."""

    def __init__(
        self, transfer: Transfer, urls: Sequence[str], pieces: PartFiles, checksum: str, advance: Advance
    ) -> None:
        self._transfer = transfer
        self._urls = urls
        self._pieces = pieces
        self._checksum = checksum
        self._advance = advance
        self._missing = pieces.missing()
        self._left = len(self._missing)
        self._got_whole_file: list[int] = []  # parts that the host answered with the whole file
        self._lock = threading.Lock()

    def jobs(self, finished: Callable[[], None]) -> list[Callable[[], None]]:
        """Return the jobs; run each once, in any order or at once. They raise what `Transfer.fetch` raises.

        finished: called when the file is complete.
        """
        return [partial(self._run, number, finished) for number in self._missing] or [partial(self._finish, finished)]

    def _run(self, number: int, finished: Callable[[], None]) -> None:
        try:
            self._fetch(number)
        except NoRanges:
            self._got_whole_file.append(number)
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._finish(finished)

    def _fetch(self, number: int) -> None:
        self._transfer.fetch_span(self._urls, self._pieces.part(number), self._pieces.span(number), self._advance)

    def _finish(self, finished: Callable[[], None]) -> None:
        try:
            for number in self._got_whole_file:  # one such answer does not mean that the host has no ranges
                self._fetch(number)
        except NoRanges:  # go on over one connection, from the beginning that is complete
            before = self._pieces.bytes_here()
            self._pieces.cut_at_gap()
            self._advance(self._pieces.bytes_here() - before)
        self._pieces.join()
        self._transfer.fetch(self._urls, self._pieces.path, self._checksum, self._advance, self._pieces.size)
        finished()
