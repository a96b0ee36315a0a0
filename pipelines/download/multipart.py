"""A large file in pieces that come over several connections at once and are joined in order.

    <path>.part        the file's beginning: whole pieces that were joined, or what one connection brought
    <path>.part.<n>    piece n, which grows on its own; its size alone tells how much of it is there

Nothing else has to be remembered, so a killed process leaves nothing that the next one could misread; the checksum of
the whole decides in the end.
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
    """The pieces of the file that will be `path`, `size` bytes long."""

    path: Path
    size: int
    piece: int

    @property
    def whole(self) -> Path:
        """The file under its partial name."""
        return self.path.with_name(f"{self.path.name}.part")

    def part(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.part.{number}")

    def span(self, number: int) -> tuple[int, int]:
        """The first byte of a piece and one past its last."""
        return number * self.piece, min((number + 1) * self.piece, self.size)

    def missing(self) -> list[int]:
        """The pieces that are not joined yet, after whatever an earlier try left is put in order.

        A partial file that is not whole is cut down to whole pieces, and pieces that it has already are removed.
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
        return size_of(self.whole) + sum(size_of(part) for _, part in self._parts())

    def join(self) -> None:
        """Append the pieces to the partial file in order, removing each: beyond the file, the disk holds one piece.

        Killed in between, it leaves what `missing` puts in order.
        """
        with self.whole.open("ab") as stream:
            for _, part in self._parts():
                with part.open("rb") as source:
                    shutil.copyfileobj(source, stream, 1 << 20)
                stream.flush()
                part.unlink()

    def cut_at_gap(self) -> None:
        """Remove the pieces behind the first that is not whole, so that what is left is the file's beginning."""
        expected = min(size_of(self.whole), self.size)
        for number, part in self._parts():
            first, _ = self.span(number)
            if first != expected:
                part.unlink()
            else:
                expected += size_of(part)

    def _parts(self) -> list[tuple[int, Path]]:
        """The pieces that are there, in order."""
        numbers = range(-(-self.size // self.piece))
        return [(number, part) for number in numbers if (part := self.part(number)).is_file()]


class MultipartDownload:
    """Brings one large file: a job a piece, for threads to share. Whichever job is the last joins and verifies."""

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
        self._came_whole: list[int] = []  # pieces that were answered with the whole file
        self._lock = threading.Lock()

    def jobs(self, finished: Callable[[], None]) -> list[Callable[[], None]]:
        """To be run once each, in any order or at once; they raise what `Transfer.fetch` does."""
        bring = [partial(self._bring, number, finished) for number in self._missing]
        return [*bring] or [partial(self._finish, finished)]

    def _bring(self, number: int, finished: Callable[[], None]) -> None:
        try:
            self._fetch(number)
        except NoRanges:
            self._came_whole.append(number)
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._finish(finished)

    def _fetch(self, number: int) -> None:
        self._transfer.fetch_span(self._urls, self._pieces.part(number), self._pieces.span(number), self._advance)

    def _finish(self, finished: Callable[[], None]) -> None:
        try:
            for number in self._came_whole:  # one such answer does not make a host without ranges
                self._fetch(number)
        except NoRanges:  # one connection it is, from what that can go on with
            before = self._pieces.bytes_here()
            self._pieces.cut_at_gap()
            self._advance(self._pieces.bytes_here() - before)
        self._pieces.join()
        self._transfer.fetch(self._urls, self._pieces.path, self._checksum, self._advance, self._pieces.size)
        finished()
