"""Find and remove outputs that no current product and no registered model depends on.

Needed are current outputs, those that a registered model was made of, those that a running or resumable build or
training reads, and everything that these were made of in turn. What an output was made of stands in its done.json, by
digest. A removed output costs time, not knowledge: it is built again if it is needed. The checkpoints of a finished
training are not needed.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pipelines import locks
from pipelines.cache import DONE, LOCK, MAKING, PARTIAL, Workspace
from pipelines.download.step import recorded_root
from pipelines.encoders.names import ENCODER_FILE, HEAD_FILE, OURS
from pipelines.hashing import sha256_of_file
from pipelines.home import FILES, Home
from pipelines.incoming.listing import NAME as INCOMING
from pipelines.incoming.step import FETCHED, lock_of
from pipelines.pretrain.reading import unfinished_trainings
from pipelines.pretrain.step import CHECKPOINTS

if TYPE_CHECKING:
    from pipelines.tracking import Tracking

_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
_OUTPUT = re.compile(rf"[0-9a-f]{{24}}({re.escape(PARTIAL)})?")


@dataclass(frozen=True, kw_only=True)
class Unreferenced:
    """An output, a part of one, or our copy of a drop, that nothing depends on."""

    product: str  # its lock guards the path
    path: Path
    bytes: int
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"product": self.product, "path": str(self.path), "bytes": self.bytes, "why": self.why}


@dataclass(frozen=True, kw_only=True)
class InUse:
    """An output that is kept only because something reads it, or will."""

    product: str
    path: Path
    by: str


@dataclass(frozen=True, kw_only=True)
class _Output:
    """A folder that a build finished or left."""

    product: str
    path: Path
    finished: bool
    resumable: bool
    digests: frozenset[str]  # by which others name it
    made_of: frozenset[str]  # digests that its record names


def unreferenced(
    home: Home, registered: Collection[str], *, unfinished: bool = False
) -> tuple[list[Unreferenced], list[InUse]]:
    """Return what can be removed from the home's space, by product, and what is only in use. Nothing is removed here.

    registered: digests that registered models name.
    unfinished: also return trainings that were stopped, and what those of the shell read.
    """
    workspace = home.workspace()
    outputs = list(_outputs(workspace))
    busy = {product for product in {output.product for output in outputs} if _is_busy(workspace, product)}
    read = {output.path: by for output in outputs if (by := _reader(output, unfinished))}
    otherwise_needed = _needed(workspace, outputs, busy, registered, unfinished, frozenset())
    needed = _needed(workspace, outputs, busy, registered, unfinished, read)
    in_use = [
        InUse(product=output.product, path=output.path, by=read[output.path])
        for output in outputs
        if output.path in read and output.path not in otherwise_needed
    ]
    paths = [(output.product, output.path, _why(output)) for output in outputs if output.path not in needed]
    # Of a finished training, the checkpoints.
    for output in outputs:
        checkpoints = output.path / CHECKPOINTS
        if output.path in needed and output.finished and output.product not in busy and checkpoints.is_dir():
            paths.append((output.product, checkpoints, "checkpoints of a training that has ended"))
    # Of drops, copies that no needed output uses, and what was fetched and never became a copy.
    copies = {
        output.path: (output.product, _copied_to(output.path))
        for output in outputs
        if output.product.startswith(f"raw/{INCOMING}/") and output.path in needed
    }
    untold = {product for product, copy in copies.values() if copy is None}  # of a damaged or an unfinished output
    for copy in sorted((home.raw_root / INCOMING).glob("[!.]*/*")):
        product = f"raw/{INCOMING}/{copy.parent.name}"
        used = copy.resolve() in [copy for _, copy in copies.values()] or product in untold
        if not used and not _is_busy(workspace, product):
            paths.append((product, copy, "a superseded copy of a drop"))
    for fetched in (home.raw_root / INCOMING / FETCHED).glob("*"):
        product = lock_of(fetched.name)
        if not _is_busy(workspace, product):
            paths.append((product, fetched, "files that were fetched of a drop that was not taken"))
    leftovers = [
        Unreferenced(product=product, path=path, bytes=_bytes_below(path), why=why)
        for product, path, why in sorted(paths, key=lambda entry: entry[:2])
    ]
    return leftovers, in_use


def remove(home: Home, leftover: Unreferenced) -> bool:
    """Remove an unreferenced path.

    Returns False if it is being built, or became current or in use since it was listed.
    """
    workspace = home.workspace()
    workspace.folder(leftover.product).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(_lock(workspace, leftover.product), timeout=0):
            current = workspace.current_folder(leftover.product)
            if current is not None and leftover.path in (current, _copied_to(current)):
                return False
            done = leftover.path / DONE
            with locks.unheld(done) if done.is_file() else nullcontext(True) as unheld:
                if unheld:
                    # First what makes it look finished: if killed here, the rest is removed the next time.
                    done.unlink(missing_ok=True)
                    shutil.rmtree(leftover.path)
                return unheld
    except Timeout:
        return False


def _reader(output: _Output, unfinished: bool) -> str | None:
    """Return who reads an output or, unless `unfinished`, a stopped training that will when it is continued."""
    done = output.path / DONE
    if not output.finished:
        return None
    with locks.unheld(done) as unheld:
        if not unheld:
            return locks.holder(done)
    stopped = [] if unfinished else unfinished_trainings(output.path)
    return f"the training in {stopped[0]}, which was stopped and can be continued" if stopped else None


def registered_digests(tracking: Tracking) -> tuple[int, frozenset[str]]:
    """Return the number of versions of all registered models, and every digest in their tags.

    A store that does not exist has none, and is not created. Raises ValueError if a server does not answer.
    """
    if tracking.is_server:
        _require_answer(tracking)
    elif tracking.uri.startswith("sqlite:///") and not Path(tracking.uri.removeprefix("sqlite:///")).is_file():
        return 0, frozenset()
    client = tracking.client()
    versions, page = [], client.search_model_versions()
    versions += page
    while page.token:
        page = client.search_model_versions(page_token=page.token)
        versions += page
    return len(versions), _digests_in([version.tags for version in versions])


def _require_answer(tracking: Tracking) -> None:
    import httpx

    try:
        tracking.health(10.0).raise_for_status()
    except httpx.HTTPError as error:
        raise ValueError(
            f"MLflow at {tracking.uri} does not answer ({error}): nothing is removed without knowing the models"
        ) from error


def _needed(
    workspace: Workspace,
    outputs: list[_Output],
    busy: set[str],
    registered: Collection[str],
    unfinished: bool,
    read: Collection[Path],
) -> set[Path]:
    """Return the paths of the needed outputs: the roots, and what they were made of."""
    # Also those that are damaged: they tell what else is needed, such as the copy of a drop.
    current = {workspace.current_folder(product) for product in {output.product for output in outputs}}
    waiting = [
        output
        for output in outputs
        if output.product in busy
        or output.path in current
        or output.path in read
        or (output.finished and not output.digests.isdisjoint(registered))
        or (not output.finished and output.resumable and not unfinished)
    ]
    by_digest: dict[str, list[_Output]] = {}
    for output in outputs:
        for digest in output.digests:
            by_digest.setdefault(digest, []).append(output)
    needed: set[Path] = set()
    while waiting:
        output = waiting.pop()
        if output.path not in needed:
            needed.add(output.path)
            waiting += [source for digest in output.made_of for source in by_digest.get(digest, [])]
    return needed


def _outputs(workspace: Workspace) -> Iterator[_Output]:
    """Yield every folder that is named by a fingerprint, with its record."""
    return itertools.starmap(_output, output_folders(workspace))


def output_folders(workspace: Workspace) -> Iterator[tuple[str, Path]]:
    """Yield every folder that is named by a fingerprint, with its product; raw files are not searched."""
    waiting = [workspace.root]
    while waiting:
        folder = waiting.pop()
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            if entry.is_symlink() or not entry.is_dir() or entry == workspace.root / FILES:
                continue
            if _OUTPUT.fullmatch(entry.name):
                yield folder.relative_to(workspace.root).as_posix(), entry
            else:
                waiting.append(entry)


def _output(product: str, path: Path) -> _Output:
    done, making = _read(path / DONE), _read(path / MAKING)
    record = done or making or {}
    digests = {done["digest"]} | {done["facts"].get("digest")} if done else set()
    for weights in (path / name for name in (ENCODER_FILE, HEAD_FILE)):
        if done and weights.is_file():
            digests.add(sha256_of_file(weights))
    unfinished = path.name.endswith(PARTIAL)
    return _Output(
        product=product,
        path=path,
        finished=done is not None and not unfinished,
        # Builds of earlier versions have no record; of these only trainings could be resumed.
        resumable=unfinished and (making["resumable"] if making else product == OURS.product),
        digests=frozenset(digest for digest in digests if digest),
        made_of=_digests_in([record.get("inputs", {}), record.get("config", {})]),
    )


def _read(path: Path) -> dict[str, Any] | None:
    """Return what a record holds; None if it is absent or cannot be read."""
    try:
        return json.loads(path.read_text()) if path.is_file() else None
    except ValueError:
        return None


def _digests_in(value: Any) -> frozenset[str]:
    """Return every sha256 in a JSON value, at any depth."""
    return frozenset(_DIGEST.findall(json.dumps(value, default=dict)))


def _why(output: _Output) -> str:
    if output.finished:
        return "superseded, and nothing that is needed was made of it"
    if output.path.name.endswith(PARTIAL):
        return "a training that was stopped" if output.resumable else "a build that was killed"
    return "a removal that was cut short"


def _is_busy(workspace: Workspace, product: str) -> bool:
    """Whether a product is being built. One that was never built or locked has no lock, and gets none here."""
    lock = _lock(workspace, product)
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def _lock(workspace: Workspace, product: str) -> Path:
    return workspace.folder(product) / LOCK


def _copied_to(raw: Path) -> Path | None:
    """Return the folder of a raw output's files. Returns None for any other output, and if the record is damaged."""
    try:
        return recorded_root(raw)
    except (ValueError, FileNotFoundError):
        return None


def _bytes_below(path: Path) -> int:
    return sum(file.stat(follow_symlinks=False).st_size for file in path.rglob("*") if not file.is_dir())
