"""Withdraw a drop: remove everything of it from the data home, so that the next corpus is built without it."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack
from pathlib import Path

from ecg_foundry.layout import CURRENT
from pipelines.cache import DONE, PARTIAL, Workspace, unread
from pipelines.durable import flush
from pipelines.home import FILES, Home
from pipelines.incoming.listing import NAME, check_name
from pipelines.incoming.step import alone, fetched_to, held_drops

_COPY = re.compile(r"[0-9a-f]{16}")  # names of the copies that `materialize_drop` makes
_OUTPUT = re.compile(rf"[0-9a-f]{{24}}({re.escape(PARTIAL)})?")


def withdraw_drop(home: Home, name: str) -> list[Path]:
    """Remove a drop from every space of the home: its copies, its shard, and the records of both.

    Returns the folders that were removed. The hospital's own folder is not touched. A running build of the drop is
    waited for. If killed midway, the next call completes it. Raises ValueError if no such drop was taken, naming those
    that were, if a training or an export reads the drop, or if copies and drops share a folder.
    """
    check_name(name)
    names_by_space = held_drops(home)
    holding = [space for space, names in names_by_space.items() if name in names]
    if not holding:
        known = sorted(set().union(*names_by_space.values()))
        raise ValueError(f"drop {name!r} was not taken into {home.root}: there are {', '.join(known) or 'none'}")
    for space in holding:
        if (space / FILES / NAME).resolve() == home.incoming:
            raise ValueError(f"{home.incoming} holds drops and copies of them: set ECG_INCOMING to another folder")
    with home.alone_removing():
        return [folder for space in holding for folder in _withdraw_from(space, name)]


def _withdraw_from(space: Path, name: str) -> list[Path]:
    workspace, copies = Workspace(space), space / FILES / NAME / name
    products = [f"ecgs/{NAME}/{name}", f"raw/{NAME}/{name}"]
    with ExitStack() as locks:
        locks.enter_context(alone(workspace, name))
        for product in products:  # in the order in which `discard_raw` locks them
            locks.enter_context(workspace.locked(product))
        outputs = [path for product in products for path in _named(workspace.folder(product), _OUTPUT)]
        for path in outputs:
            locks.enter_context(unread(path, f"drop {name} is read by {{holder}}: withdraw it when that has ended"))
        fetched = fetched_to(space / FILES, name)
        going = [*outputs, *_named(copies, _COPY), *([fetched] if fetched.is_dir() else [])]
        # First what makes the outputs look finished; last the pointers, which make the drop look taken.
        for path in outputs:
            (path / DONE).unlink(missing_ok=True)
        for path in going:
            shutil.rmtree(path)
        for product in products:
            (workspace.folder(product) / CURRENT).unlink(missing_ok=True)
        # What was withdrawn does not come back with a loss of power.
        for folder in {path.parent for path in going} | {workspace.folder(product) for product in products}:
            flush(folder)
    return going


def _named(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if pattern.fullmatch(path.name) and path.is_dir()]
