"""Where everything lives: one folder, and inside it one space for each place that ECGs come from.

<home>/mirror              the place last chosen: a folder, a base URL, or nothing for the true hosts
<home>/tracking, drops     in production: MLflow's address, and where own ECGs are dropped (`deploy/start`)
<home>/<space>/            the products of that place (`pipelines.cache`); two places never share a product
<home>/<space>/files/      what was downloaded, under its `wget -r` path; a folder mirror is read where it lies
<home>/incoming/           own ECGs, a sub-folder a drop; ECG_INCOMING may name another place
<home>/mirrors/simulated/  the simulated mirror that `make demo` writes
<home>/mlflow/             runs, artifacts and registered models, shared by all spaces
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.cache import Workspace, write_atomically

HOSTS = "hosts"
FILES = "files"
_SPACE = re.compile(rf"{HOSTS}|simulated|[a-z0-9-]+-[0-9a-f]{{6}}")


class Home:
    """The data home. `mirror` overrides the remembered one; `hosts` means the true addresses."""

    def __init__(self, root: Path | str, mirror: str | None = None) -> None:
        self.root = Path(root).expanduser().resolve()
        self._mirror = mirror or None

    @classmethod
    def default(cls) -> Home:
        """ECG_HOME (or ./var) and ECG_MIRROR (or the remembered mirror)."""
        return cls(os.environ.get("ECG_HOME") or "var", os.environ.get("ECG_MIRROR"))

    @property
    def mirror(self) -> str | None:
        """A folder or base URL that stands in for the hosts; None for the hosts themselves. Raises as `check_url`."""
        chosen = self._mirror or self._remembered("mirror") or HOSTS
        if _is_url(chosen):
            check_url(chosen)
        return None if chosen == HOSTS else _absolute(chosen)

    def set_mirror(self, place: str) -> None:
        """Remember a mirror for later commands and the UI; raises ValueError where a folder is not there."""
        if _is_url(place):
            check_url(place)
        elif place != HOSTS and not Path(place).expanduser().is_dir():
            raise ValueError(f"mirror {place!r}: no such folder; give a folder, a base URL, or '{HOSTS}'")
        write_atomically(self.root / "mirror", (place if place == HOSTS else _absolute(place)).encode())
        self._mirror = None

    @property
    def space(self) -> str:
        """A folder name for the place: its last component and six digits of its hash; `hosts` for the hosts."""
        if self.mirror is None:
            return HOSTS
        if self.mirror == str(self.simulated_mirror):
            return "simulated"
        last = re.sub(r"[^a-z0-9]+", "-", self.mirror.rstrip("/").rsplit("/", 1)[-1].lower()).strip("-")
        return f"{last or 'mirror'}-{hashlib.sha256(self.mirror.encode()).hexdigest()[:6]}"

    @property
    def simulated(self) -> bool:
        """Whether the ECGs are drawn, not recorded: by `make demo`, or by `ecg simulate` into a folder."""
        mirror = self.mirror or ""
        return mirror == str(self.simulated_mirror) or (mirror != "" and (Path(mirror) / "SIMULATED.json").is_file())

    def workspace(self) -> Workspace:
        return Workspace(self.root / self.space)

    @property
    def raw_root(self) -> Path:
        return self.root / self.space / FILES

    def spaces(self) -> list[Path]:
        """The spaces that there are, of this place and of those that were chosen before."""
        return sorted(path for path in self.root.glob("*") if _SPACE.fullmatch(path.name) and path.is_dir())

    @property
    def incoming(self) -> Path | str:
        """Where own ECGs are dropped, a sub-folder a drop: ECG_INCOMING, a folder or a bucket's URL; or the one that
        production remembered; or <home>/incoming."""
        chosen = os.environ.get("ECG_INCOMING") or self._remembered("drops") or str(self.root / "incoming")
        return chosen if "://" in chosen else Path(chosen).expanduser().resolve()

    @property
    def simulated_mirror(self) -> Path:
        return self.root / "mirrors" / "simulated"

    @property
    def tracking_uri(self) -> str:
        """MLFLOW_TRACKING_URI, or the server that production remembered, or the home's own SQLite store."""
        chosen = os.environ.get("MLFLOW_TRACKING_URI") or self._remembered("tracking")
        return chosen or f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}"

    @property
    def artifact_root(self) -> Path:
        return self.root / "mlflow" / "artifacts"

    def _remembered(self, name: str) -> str | None:
        file = self.root / name
        return (file.read_text().strip() or None) if file.is_file() else None


def check_url(text: str) -> None:
    """ValueError for a mirror's URL without a host, with a port that is none, or with a password, which would be shown
    and kept."""
    host = text.partition("://")[2].partition("/")[0]
    if "@" in host:
        raise ValueError(
            f"mirror at {host.rpartition('@')[2]}: leave name and password out of its address, and set NETRC to a file "
            "that has them: machine HOST login NAME password WORD"
        )
    try:
        parts = urlsplit(text)
        fault = None if parts.hostname and (parts.port is None or parts.port > 0) else "it names no host"
    except ValueError as error:
        fault = str(error)
    if fault is not None:
        raise ValueError(f"mirror {text!r}: {fault}; write it as https://host/path")


def _is_url(place: str) -> bool:
    return place.startswith(("http://", "https://"))


def _absolute(place: str) -> str:
    return place.rstrip("/") if _is_url(place) else str(Path(place).expanduser().resolve())
