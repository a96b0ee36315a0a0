"""Whether a registered model was registered with the code of this checkout, file by file."""

from __future__ import annotations

from pathlib import Path

import ecg_model
from pipelines.hashing import digest_of, sha256_of_file

_PACKAGE = Path(next(iter(ecg_model.__path__)))


def other_code(model: Path) -> str | None:
    """Return the digest of the code in a model's folder, or None if that is this checkout's, or if it holds none.

    A comment is a difference, too: what is compared are bytes, since nobody can tell from the text what a change does.
    """
    shipped = _digests(model / "code")
    here = {f"{_PACKAGE.name}/{name}": digest for name, digest in _digests(_PACKAGE).items()}
    programs = {path.name: sha256_of_file(path) for path in model.glob("*.py")}
    same = shipped == here and programs.items() <= {Path(name).name: here[name] for name in here}.items()
    return None if same or not shipped else digest_of({"package": shipped, "programs": programs})


def _digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file below a folder, by its path in it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent.name != "__pycache__"]
    return {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in files}
