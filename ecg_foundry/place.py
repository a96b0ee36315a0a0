"""Which folder of a data home has the products of the mirror in use: its space. `pipelines.home` describes a home."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

HOSTS = "hosts"
"""The original hosts, as the name of a mirror and of their space."""
SIMULATED_SPACE = "simulated"
SIMULATED_MIRROR = Path("mirrors") / "simulated"  # in the home
SIMULATED = "SIMULATED.json"  # marks a mirror with simulated ECGs
MIRROR = "mirror"
"""The file of a home with the mirror that was chosen last."""

_SPACE = re.compile(rf"{HOSTS}|{SIMULATED_SPACE}|[a-z0-9-]+-[0-9a-f]{{6}}")


def default_root() -> str:
    """Return the data home that ECG_HOME names, or `var`."""
    return os.environ.get("ECG_HOME") or "var"


def chosen_mirror(root: Path, named: str | None = None) -> str:
    """Return the mirror of a home as an absolute folder, a base URL or HOSTS: the one named, or else the stored one.

    Of a home that was moved, the simulated mirror is that of this home.
    """
    text = named or stored(root, MIRROR) or HOSTS
    if text == HOSTS or is_url(text):
        return text.rstrip("/")
    folder = Path(text).expanduser()
    if named is None:
        here = root / SIMULATED_MIRROR
        of_former = folder.parts[-2:] == SIMULATED_MIRROR.parts and not folder.is_dir()
        folder = here if of_former and (here.is_dir() or (root / SIMULATED_SPACE).is_dir()) else root / folder
    return str(folder.resolve())


def space_of(root: Path, mirror: str) -> str:
    """Return the name of the space of a mirror of `chosen_mirror`: its last part and six digits of its hash."""
    if mirror == HOSTS:
        return HOSTS
    if mirror == str(root / SIMULATED_MIRROR):
        return SIMULATED_SPACE
    last = re.sub(r"[^a-z0-9]+", "-", mirror.rstrip("/").rsplit("/", 1)[-1].lower()).strip("-")
    return f"{last or 'mirror'}-{hashlib.sha256(mirror.encode()).hexdigest()[:6]}"


def spaces_in(root: Path) -> list[Path]:
    """Return the folders of all spaces of a home, sorted."""
    return sorted(path for path in root.glob("*") if _SPACE.fullmatch(path.name) and path.is_dir())


def is_simulated(root: Path, mirror: str) -> bool:
    """Whether the ECGs of a mirror of `chosen_mirror` are simulated: by `make demo`, or by `ecg simulate`."""
    if mirror == HOSTS or is_url(mirror):
        return False
    return mirror == str(root / SIMULATED_MIRROR) or (Path(mirror) / SIMULATED).is_file()


def is_url(place: str) -> bool:
    """Whether a mirror is a URL, not a folder."""
    return place.lower().startswith(("http://", "https://"))


def stored(root: Path, name: str) -> str | None:
    """Return the text of a file of a home, or None if it is absent or empty."""
    file = root / name
    return (file.read_text().strip() or None) if file.is_file() else None
