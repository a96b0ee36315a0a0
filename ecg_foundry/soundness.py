"""Whether the files of a finished product are those that were written: cheaply where they are used, or by their digest.

A kill leaves nothing wrong here, since done.json comes last. A loss of power may, on a disk that does not keep what it
was told to, and so may a disk that decays or a person who edits a product.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DONE = "done.json"
FILES = "files"
"""The key of done.json with the size of each file in bytes, by relative path."""
ASIDE = "aside"

MARK = "damage"
"""Below aside/: what `ecg verify` found to be other than it was written."""

_LOOKED_AT = 64
"""Bytes at the beginning of a file: no format that a step writes begins with as many zeros."""
_FOOTED = (".json", ".parquet")
"""Endings of files whose last bytes are not zeros either."""


class Damaged(ValueError):
    """A finished product whose files are not those that were written: it has to be built again."""

    def __init__(self, product: str, folder: Path, what: str) -> None:
        super().__init__(
            f"{product} is damaged: {what}, in {folder}: materialize it again, and see with `ecg verify --products` "
            "what else is"
        )
        self.what = what


def files_of(root: Path) -> dict[str, Path]:
    """Return the files below root by relative path, in order, except those in `aside/` and done.json."""
    by_name = {path.relative_to(root): path for path in sorted(path for path in root.rglob("*") if path.is_file())}
    return {name.as_posix(): path for name, path in by_name.items() if name.parts[0] != ASIDE and name != Path(DONE)}


def digest_of_tree(root: Path) -> str:
    """Return the sha256 over the relative paths and bytes of all files below root, except `aside/` and done.json."""
    total = hashlib.sha256()
    for name, path in files_of(root).items():
        with path.open("rb") as stream:
            total.update(f"{name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def read_done(folder: Path, product: str) -> dict[str, Any] | None:
    """Return the done.json of a product's folder after a cheap look at its files; None if it is not finished.

    The look costs no reading: names, sizes, and whether a file begins or ends with zeros, as one does whose name and
    size were on the disk before its bytes. Raises Damaged if done.json cannot be read or a file is not as written.

    product: its name, for the message.
    """
    if not (folder / DONE).is_file():
        return None
    try:
        done = json.loads((folder / DONE).read_bytes())
        mark = folder / ASIDE / MARK
        what = mark.read_text(errors="replace") if mark.is_file() else look(folder, done)
    except (ValueError, TypeError) as error:
        raise Damaged(product, folder, f"{DONE} cannot be read") from error
    if what is not None:
        raise Damaged(done.get("product", product), folder, what)
    return done


def require_sound(folder: Path) -> None:
    """Raise Damaged if a cheap look finds that the files of a finished product are not those that were written.

    A folder without done.json, such as one that is being made, is not looked at.
    """
    read_done(folder, folder.parent.name)


def look(root: Path, done: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a product's files, by name, size and first bytes, or None. Reads no file whole.

    A product of an earlier version has no list of its files: there, an empty file is a lost one, since no step writes
    any.
    """
    if FILES in done:
        sizes: Mapping[str, int] = done[FILES]
    else:
        sizes = {name: max(path.stat().st_size, 1) for name, path in files_of(root).items()}
    for name, size in sizes.items():
        path = root / name
        if not path.is_file():
            return f"{name} is missing, of {size:,} bytes written"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes, of {size:,} bytes written"
        if _is_zeroed(path, size):
            return f"{name} holds zeros in place of what was written"
    return None


def _is_zeroed(path: Path, size: int) -> bool:
    """Whether a file begins with zeros, or ends with them where its format has a footer."""
    with path.open("rb") as stream:
        first = stream.read(_LOOKED_AT)
        stream.seek(max(0, size - 1))
        last = stream.read(1)
    return size > 0 and (not any(first) or (path.suffix in _FOOTED and last == b"\0"))
