"""The product `raw/incoming/<drop>`: our copy of a complete drop, unaffected by later changes of the drop."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ecg_foundry.soundness import Damaged
from pipelines import durable, versions
from pipelines.cache import ASIDE, Product, Workspace
from pipelines.disk_space import full_disk_explained
from pipelines.download.fetch import map_in_threads
from pipelines.download.step import FILES, ROOT, RawFacts, damaged, gone_files, recorded_files
from pipelines.durable import write_atomically
from pipelines.formatting import format_bytes
from pipelines.hashing import digest_of, sha256_of_file
from pipelines.home import FILES as SPACE_FILES
from pipelines.home import Home
from pipelines.incoming.bucket import place_of
from pipelines.incoming.listing import MARKER, NAME, Listing, Place, check_name
from pipelines.sources.base import RemoteFile

log = logging.getLogger(__name__)

LISTED = "listed"
FETCHED = ".fetched"
_BLOCK = 1 << 20
_THREADS = 8


def materialize_drop(home: Home, name: str) -> Product:
    """Build `raw/incoming/<name>`: files.json (path, sha256, bytes), and aside/root, the folder of our copy.

    A drop in a folder is hashed at each call, so that a change is noticed; one in a bucket is fetched again if the
    bucket lists it with another tag, size or name. A content is copied once; another content gives another copy. A drop
    that was taken and is gone stays as it was taken.

    Raises ValueError if the drop is absent or not marked, is empty or has refused entries, or changes while it is
    copied; also in the home's simulated space, since recorded and simulated ECGs must not meet in a corpus. Raises
    OSError if a bucket does not answer.
    """
    check_name(name)
    if home.simulated:
        raise ValueError(
            "own ECGs are not mixed with simulated ones: choose recorded ones with `ecg mirror hosts`, or with "
            "`ecg mirror FOLDER` and any other folder"
        )
    with alone(home.workspace(), name):
        return _take(home, name)


def _take(home: Home, name: str) -> Product:
    """Build the product of a drop whose lock is held."""
    workspace, product = home.workspace(), f"raw/{NAME}/{name}"
    place, fetched = place_of(home.incoming), fetched_to(home.raw_root, name)
    before = _taken_before(workspace, product)
    if before is not None and name not in place.names():
        listing, files = None, recorded_files(before)[1]
    else:
        listing = _whole(place, name)
        if before is not None and place.tags_are_sure and _listed(before) == listing.digest:
            files = recorded_files(before)[1]
        else:
            files = hashed(place.fetch(name, listing, fetched), listing)
    digest = digest_of([[file.path, file.checksum] for file in files])
    root = home.raw_root.resolve() / NAME / name / digest[:16]

    def make(directory: Path) -> dict[str, Any]:
        if listing is None:
            raise ValueError(
                f"{place}/{name} is gone, and our copy of it is damaged: put it there again, or run "
                f"`ecg withdraw-drop {name}`"
            )
        folder = place.fetch(name, listing, fetched)
        durable.make_folder(root)
        if folder.is_relative_to(fetched):
            map_in_threads(files, lambda file: _move(folder, root, file), _THREADS)
        else:
            _check_room(files, root)
            with full_disk_explained(root):
                map_in_threads(files, lambda file: _copy(folder, root, file), _THREADS)
        durable.flush_files([root / file.path for file in files], root)
        (directory / FILES).write_text(json.dumps([asdict(file) for file in files], indent=1))
        (directory / ASIDE).mkdir()
        (directory / ASIDE / ROOT).write_text(str(root))
        return RawFacts(files=len(files), bytes=sum(file.bytes or 0 for file in files)).to_dict()

    taken = workspace.build(
        product,
        version=versions.RAW,
        config={"source": NAME, "partition": name},
        inputs={"files": digest},
        make=make,
        still_valid=_is_whole,
    )
    if listing is not None and _listed(taken) != listing.digest:  # also if the same bytes were listed with other tags
        write_atomically(taken.aside / LISTED, listing.digest.encode())
    shutil.rmtree(fetched, ignore_errors=True)
    return taken


def _taken_before(workspace: Workspace, product: str) -> Product | None:
    """Return the drop as it was taken before; None, with a warning, if the record of its files cannot be read."""
    before = workspace.current(product)
    try:
        if before is not None:
            recorded_files(before)
    except Damaged as error:
        log.warning("%s", error)
        return None
    return before


def alone(workspace: Workspace, name: str) -> AbstractContextManager[None]:
    """Hold a drop from its listing to the end of its copy: nobody else takes, withdraws or collects it meanwhile."""
    return workspace.locked(lock_of(name))


def lock_of(name: str) -> str:
    """Return the name by which a workspace locks a drop that is being taken."""
    return f"raw/{NAME}/{name}/taking"


def fetched_to(raw_root: Path, name: str) -> Path:
    """Return the folder of a bucket drop's files until they are moved; it is hidden, so that it is no copy."""
    return raw_root.resolve() / NAME / FETCHED / name


def taken_drops(workspace: Workspace) -> list[str]:
    """Return the names of the drops that were taken, whether or not they are still in the place of drops."""
    # By their pointers, not by finished products: a withdrawal that was killed removes these last and is repeated.
    pointers = [path for kind in ("raw", "ecgs") for path in (workspace.root / kind / NAME).glob("*/current")]
    return sorted({path.parent.name for path in pointers})


def held_drops(home: Home) -> dict[Path, set[str]]:
    """Return, by space of the home, the drops that were taken or of which files were fetched."""
    return {
        space: {
            *taken_drops(Workspace(space)),
            *(path.name for path in (space / SPACE_FILES / NAME / FETCHED).glob("*")),
        }
        for space in home.spaces()
    }


def hashed(folder: Path, listing: Listing) -> list[RemoteFile]:
    """Return the files of a drop with their sha256, in order of path."""

    def look(path: str) -> RemoteFile:
        total, size = hashlib.sha256(), 0
        with _opened(folder / path) as stream:
            while block := stream.read(_BLOCK):
                total.update(block)
                size += len(block)
        return RemoteFile(path, f"sha256:{total.hexdigest()}", size)

    return map_in_threads([file.path for file in listing.files], look, _THREADS)


def _whole(place: Place, name: str) -> Listing:
    """List a drop. Raises ValueError with what keeps it from being taken."""
    listing = place.listing(name)
    if not listing.marked:
        raise ValueError(f"{place}/{name}: {MARKER} is not there: write it when all files of the drop are complete")
    if listing.refused:
        first = listing.refused[0]
        raise ValueError(
            f"{place}/{name}: {len(listing.refused)} entries are refused, first {first.path}: {first.why}; "
            "`ecg check-drop` names all of them, for a drop in a folder"
        )
    if not listing.files:
        raise ValueError(f"{place}/{name}: no files but {MARKER}: put ECGs there, or remove the drop")
    return listing


def _listed(product: Product) -> str | None:
    """Return the digest of the listing by which a drop was taken."""
    path = product.path / ASIDE / LISTED
    return path.read_text() if path.is_file() else None


def _check_room(files: Sequence[RemoteFile], root: Path) -> None:
    """Raise ValueError if the files that are not below root yet do not fit there."""
    needed, free = sum(file.bytes or 0 for file in gone_files(root, files)), shutil.disk_usage(root).free
    if needed > free:
        raise ValueError(
            f"{format_bytes(needed)} have to be copied and {format_bytes(free)} are free in {root}: make room, or set "
            "ECG_HOME to a larger disk"
        )


def _copy(folder: Path, root: Path, file: RemoteFile) -> None:
    """Copy one file of a drop to its place below root, atomically; a correct file there stays."""
    target = root / file.path
    if target.is_file() and _checksum(target) == file.checksum:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part")
    with _opened(folder / file.path) as stream, partial.open("wb") as copy:
        shutil.copyfileobj(stream, copy, _BLOCK)
    if _checksum(partial) != file.checksum:
        partial.unlink()
        raise ValueError(f"{folder / file.path}: changed while it was copied: write {MARKER} last, then take it again")
    partial.replace(target)


def _move(folder: Path, root: Path, file: RemoteFile) -> None:
    """Move one fetched file to its place below root; a correct file there stays."""
    target = root / file.path
    if target.is_file() and _checksum(target) == file.checksum:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if _checksum(folder / file.path) != file.checksum:
        raise ValueError(f"{folder / file.path}: it changed after it was fetched: take the drop again")
    (folder / file.path).replace(target)


def _opened(path: Path) -> Any:
    """Open a file for reading, not through a link. Raises ValueError if that is not permitted."""
    try:
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOENT):
            raise ValueError(f"{path}: cannot be read ({error.strerror}): make it a readable file") from error
        raise


def _checksum(path: Path) -> str:
    return f"sha256:{sha256_of_file(path)}"


def _is_whole(product: Product) -> bool:
    return not damaged(product) and not gone_files(*recorded_files(product))
