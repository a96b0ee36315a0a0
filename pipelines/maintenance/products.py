"""Compute the digests of finished products again, and mark those that are not what was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecg_foundry.soundness import ASIDE, DONE, MARK, digest_of_tree, files_of, look
from pipelines.cache import PARTIAL, Workspace, in_use
from pipelines.durable import flush, write_atomically
from pipelines.home import Home
from pipelines.maintenance.garbage import output_folders

OnProduct = Callable[[int, int], None]
"""Called with the number of products checked so far, and their total."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A finished product after its files were read."""

    product: str
    path: Path
    current: bool
    files: int
    bytes: int
    damage: str | None  # what is wrong

    @property
    def sound(self) -> bool:
        return self.damage is None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "product": self.product,
            "path": str(self.path),
            "current": self.current,
            "files": self.files,
            "bytes": self.bytes,
            "damage": self.damage,
            "sound": self.sound,
        }


def verify_products(
    home: Home, name: str | None = None, on_product: OnProduct = lambda done, total: None
) -> list[Checked]:
    """Check every finished product of the home's space, or those of a name such as `ecgs/chapman` and below it.

    A product whose digest is not the one in its done.json is marked: it counts as finished no more, what reads it says
    so, and its next materialization builds it again. A mark on a product that is sound again, as one that was restored,
    is removed. Raises ValueError if there is no product of that name.
    """
    workspace = home.workspace()
    builds = [
        (product, folder)
        for product, folder in output_folders(workspace)
        if (folder / DONE).is_file() and not folder.name.endswith(PARTIAL) and _is_named(product, name)
    ]
    if name is not None and not builds:
        raise ValueError(f"no finished product {name!r} in {workspace.root}: `ecg verify --products` lists all")
    checked = []
    for number, (product, folder) in enumerate(builds, 1):
        checked.append(_check(workspace, product, folder))
        on_product(number, len(builds))
    return checked


def _is_named(product: str, name: str | None) -> bool:
    return name is None or f"{product}/".startswith(f"{name.strip('/')}/")


def _check(workspace: Workspace, product: str, folder: Path) -> Checked:
    with in_use([folder]):
        files = files_of(folder)
        checked = Checked(
            product=product,
            path=folder,
            current=workspace.current_folder(product) == folder,
            files=len(files),
            bytes=sum(path.stat().st_size for path in files.values()),
            damage=_damage(folder),
        )
    _mark(workspace, checked)
    return checked


def _damage(folder: Path) -> str | None:
    """Return what is wrong with a product, or None if its files have the digest that they were written with."""
    try:
        done = json.loads((folder / DONE).read_bytes())
        if what := look(folder, done):  # it names the file, which the digest of all cannot
            return what
        return None if digest_of_tree(folder) == done["digest"] else "its files have another digest than when written"
    except (ValueError, TypeError, KeyError):
        return f"{DONE} cannot be read"


def _mark(workspace: Workspace, checked: Checked) -> None:
    """Write the mark of a damaged product, or remove that of a sound one."""
    mark = checked.path / ASIDE / MARK
    with workspace.locked(checked.product):
        if not (checked.path / DONE).is_file():
            return  # it was removed meanwhile
        if checked.damage is not None:
            write_atomically(mark, checked.damage.encode())
        elif mark.is_file():
            mark.unlink()
            flush(mark.parent)
