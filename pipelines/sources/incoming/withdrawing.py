"""A drop that is withdrawn: nothing of it stays in the data home, and the next corpus is built without it."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack
from pathlib import Path

from pipelines.home import Home
from pipelines.sources.incoming.drops import NAME, check_name
from pipelines.sources.incoming.taking import fetched_to, taken_drops
from pipelines.stage import DONE, PARTIAL

_COPY = re.compile(r"[0-9a-f]{16}")  # what `materialize_drop` calls a copy
_OUTPUT = re.compile(rf"[0-9a-f]{{24}}({re.escape(PARTIAL)})?")


def withdraw_drop(home: Home, name: str) -> list[Path]:
    """Remove the copies of a drop, what was harmonized from them, and the records of both; the folders that went.

    The hospital's own folder is not touched. A build of the drop that is under way is waited for. Killed midway, it is
    done by the next call. Raises ValueError where no such drop was taken, naming those that were, and where copies and
    drops share a folder.
    """
    check_name(name)
    workspace = home.workspace()
    there = taken_drops(workspace)
    if name not in there:
        raise ValueError(f"drop {name!r} was not taken into {workspace.root}: there are {', '.join(there) or 'none'}")
    copies = home.raw_root / NAME / name
    if (home.raw_root / NAME).resolve() == home.incoming:
        raise ValueError(f"{home.incoming} holds drops and copies of them: set ECG_INCOMING to another folder")
    products = [f"ecgs/{NAME}/{name}", f"raw/{NAME}/{name}"]
    with ExitStack() as held:
        for product in products:  # in the order in which `let_go` holds them
            held.enter_context(workspace.locked(product))
        outputs = [path for product in products for path in _named(workspace.folder(product), _OUTPUT)]
        going = [*outputs, *_named(copies, _COPY)]
        # First what makes them look finished, and last what makes the drop look taken.
        for path in outputs:
            (path / DONE).unlink(missing_ok=True)
        for path in going:
            shutil.rmtree(path)
        shutil.rmtree(fetched_to(home, name), ignore_errors=True)
        for product in products:
            (workspace.folder(product) / "current").unlink(missing_ok=True)
    return going


def _named(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if pattern.fullmatch(path.name) and path.is_dir()]
