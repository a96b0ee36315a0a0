"""Outputs that nobody needs any more: which they are, and their removal.

Needed is what is current, what a registered model was made of, what a build that runs or waits to go on reads, and
all that these were made of in turn. What an output is made of stands in its done.json, by digest. An output that is
removed costs time, not knowledge: asked for again, it is built again. Of a training that has ended, the checkpoints
are not needed.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pipelines.cache import ASIDE, DONE, MAKING, PARTIAL, Workspace
from pipelines.download.step import ROOT
from pipelines.encoders.names import ENCODER_FILE, HEAD_FILE, OURS
from pipelines.hashing import sha256_of_file
from pipelines.home import FILES, Home
from pipelines.incoming.listing import NAME as INCOMING
from pipelines.incoming.step import FETCHED, lock_of

if TYPE_CHECKING:
    from pipelines.tracking import Tracking

_CHECKPOINTS = Path(ASIDE, "checkpoints")
_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
_OUTPUT = re.compile(rf"[0-9a-f]{{24}}({re.escape(PARTIAL)})?")


@dataclass(frozen=True, kw_only=True)
class Unreferenced:
    """An output, a part of one, or our copy of a drop, that nobody needs. product: whose lock guards it."""

    product: str
    path: Path
    bytes: int
    why: str

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"product": self.product, "path": str(self.path), "bytes": self.bytes, "why": self.why}


@dataclass(frozen=True, kw_only=True)
class _Output:
    """A folder that a build finished or left. digests: it goes by. made_of: digests that its record names."""

    product: str
    path: Path
    finished: bool
    resumable: bool
    digests: frozenset[str]
    made_of: frozenset[str]


def unreferenced(home: Home, registered: Collection[str], *, unfinished: bool = False) -> list[Unreferenced]:
    """What may go of the home's space, by product. Nothing is removed.

    registered: digests that registered models name. unfinished: trainings that were stopped are leftovers, too.
    """
    workspace = home.workspace()
    outputs = list(_outputs(workspace))
    busy = {product for product in {output.product for output in outputs} if _is_busy(workspace, product)}
    needed = _needed(workspace, outputs, busy, registered, unfinished)
    found = [
        Unreferenced(product=one.product, path=one.path, bytes=_bytes_below(one.path), why=_why(one))
        for one in outputs
        if one.path not in needed
    ]
    for one in outputs:
        checkpoints = one.path / _CHECKPOINTS
        if one.path in needed and one.finished and one.product not in busy and checkpoints.is_dir():
            why = "what a training that has ended would have gone on from"
            found.append(Unreferenced(product=one.product, path=checkpoints, bytes=_bytes_below(checkpoints), why=why))
    copies = {
        _copied_to(one.path) for one in outputs if one.product.startswith(f"raw/{INCOMING}/") and one.path in needed
    }
    for copy in sorted((home.raw_root / INCOMING).glob("[!.]*/*")):
        product = f"raw/{INCOMING}/{copy.parent.name}"
        if copy.resolve() not in copies and not _is_busy(workspace, product):
            why = "a copy of a drop that is superseded"
            found.append(Unreferenced(product=product, path=copy, bytes=_bytes_below(copy), why=why))
    for fetched in (home.raw_root / INCOMING / FETCHED).glob("*"):
        product = lock_of(fetched.name)
        if not _is_busy(workspace, product):
            why = "what was fetched of a drop that was not taken in the end"
            found.append(Unreferenced(product=product, path=fetched, bytes=_bytes_below(fetched), why=why))
    return sorted(found, key=lambda one: (one.product, one.path))


def remove(home: Home, leftover: Unreferenced) -> bool:
    """Remove a leftover; False where it is being built, or was asked for again since it was listed."""
    workspace = home.workspace()
    workspace.folder(leftover.product).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(_lock(workspace, leftover.product), timeout=0):
            current = workspace.current(leftover.product)
            if current is not None and leftover.path in (current.path, _copied_to(current.path)):
                return False
            # First what makes it look finished: cut short, the rest is removed the next time.
            (leftover.path / DONE).unlink(missing_ok=True)
            shutil.rmtree(leftover.path)
            return True
    except Timeout:
        return False


def registered_digests(tracking: Tracking) -> tuple[int, frozenset[str]]:
    """How many versions all registered models have, and every digest that their tags name.

    A store that is not there has none, and is not made. Raises ValueError where a server does not answer.
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
    workspace: Workspace, outputs: list[_Output], busy: set[str], registered: Collection[str], unfinished: bool
) -> set[Path]:
    """The outputs that are needed, from the roots on to what they were made of."""
    current = {product: workspace.current(product) for product in {output.product for output in outputs}}
    held = {product.path for product in current.values() if product is not None}
    waiting = [
        one
        for one in outputs
        if one.product in busy
        or one.path in held
        or (one.finished and not one.digests.isdisjoint(registered))
        or (not one.finished and one.resumable and not unfinished)
    ]
    by_digest: dict[str, list[_Output]] = {}
    for one in outputs:
        for digest in one.digests:
            by_digest.setdefault(digest, []).append(one)
    needed: set[Path] = set()
    while waiting:
        one = waiting.pop()
        if one.path not in needed:
            needed.add(one.path)
            waiting += [maker for digest in one.made_of for maker in by_digest.get(digest, [])]
    return needed


def _outputs(workspace: Workspace) -> Iterator[_Output]:
    """Every folder that is named by a fingerprint, with what its record says; raw files are not looked through."""
    waiting = [workspace.root]
    while waiting:
        folder = waiting.pop()
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            if entry.is_symlink() or not entry.is_dir() or entry == workspace.root / FILES:
                continue
            if _OUTPUT.fullmatch(entry.name):
                yield _output(folder.relative_to(workspace.root).as_posix(), entry)
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
        # Before records were kept, trainings alone left something to go on from.
        resumable=unfinished and (making["resumable"] if making else product == OURS.product),
        digests=frozenset(digest for digest in digests if digest),
        made_of=_digests_in([record.get("inputs", {}), record.get("config", {})]),
    )


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def _digests_in(value: Any) -> frozenset[str]:
    """Every sha256 in a JSON value, wherever it stands."""
    return frozenset(_DIGEST.findall(json.dumps(value, default=dict)))


def _why(output: _Output) -> str:
    if output.finished:
        return "superseded, and nothing that is needed was made of it"
    if output.path.name.endswith(PARTIAL):
        return "a training that was stopped" if output.resumable else "a build that was killed"
    return "a removal that was cut short"


def _is_busy(workspace: Workspace, product: str) -> bool:
    """Whether somebody builds it. A product that nobody ever built or locked has no lock, and gets none here."""
    lock = _lock(workspace, product)
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def _lock(workspace: Workspace, product: str) -> Path:
    return workspace.folder(product) / ".lock"


def _copied_to(raw: Path) -> Path | None:
    """The folder of the files of a raw output; None of another."""
    root = raw / ASIDE / ROOT
    return Path(root.read_text()) if root.is_file() else None


def _bytes_below(path: Path) -> int:
    return sum(file.stat(follow_symlinks=False).st_size for file in path.rglob("*") if not file.is_dir())
