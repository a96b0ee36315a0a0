"""A drop that is withdrawn: nothing of it stays in the data home, and the next corpus is built without it."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack
from pathlib import Path

from pipelines.cache import DONE, PARTIAL, Workspace
from pipelines.home import FILES, Home
from pipelines.incoming.listing import NAME, check_name
from pipelines.incoming.step import alone, fetched_to, held_drops

_COPY = re.compile(r"[0-9a-f]{16}")  # what `materialize_drop` calls a copy
_OUTPUT = re.compile(rf"[0-9a-f]{{24}}({re.escape(PARTIAL)})?")


def withdraw_drop(home: Home, name: str) -> list[Path]:
    """Remove the copies of a drop, what was harmonized from them, and the records of both, from every space of the
    home; the folders that went.

    The hospital's own folder is not touched. A build of the drop that is under way is waited for. Killed midway, it is
    done by the next call. Raises ValueError where no such drop was taken, naming those that were, and where copies and
    drops share a folder.
    """
    check_name(name)
    there = held_drops(home)
    holding = [space for space, names in there.items() if name in names]
    if not holding:
        known = sorted(set().union(*there.values()))
        raise ValueError(f"drop {name!r} was not taken into {home.root}: there are {', '.join(known) or 'none'}")
    for space in holding:
        if (space / FILES / NAME).resolve() == home.incoming:
            raise ValueError(f"{home.incoming} holds drops and copies of them: set ECG_INCOMING to another folder")
    return [gone for space in holding for gone in _withdrawn(space, name)]


def _withdrawn(space: Path, name: str) -> list[Path]:
    workspace, copies = Workspace(space), space / FILES / NAME / name
    products = [f"ecgs/{NAME}/{name}", f"raw/{NAME}/{name}"]
    with ExitStack() as held:
        held.enter_context(alone(workspace, name))
        for product in products:  # in the order in which `let_go` holds them
            held.enter_context(workspace.locked(product))
        outputs = [path for product in products for path in _named(workspace.folder(product), _OUTPUT)]
        fetched = fetched_to(space / FILES, name)
        going = [*outputs, *_named(copies, _COPY), *([fetched] if fetched.is_dir() else [])]
        # First what makes them look finished, and last what makes the drop look taken.
        for path in outputs:
            (path / DONE).unlink(missing_ok=True)
        for path in going:
            shutil.rmtree(path)
        for product in products:
            (workspace.folder(product) / "current").unlink(missing_ok=True)
    return going


def _named(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if pattern.fullmatch(path.name) and path.is_dir()]
