"""The data home: one folder for all data, with one space for each place that ECGs come from.

    <home>/mirror              the mirror chosen last: a folder (relative to the home if it is in it), a base URL, or
                               `hosts` for the original hosts
    <home>/tracking, drops     in production: MLflow's address, and the folder or bucket of own ECGs (`deploy/start`)
    <home>/<space>/            the products of that place (`pipelines.cache`); two places never share a product
    <home>/<space>/files/      downloaded files, under their `wget -r` paths; a folder mirror is read in place
    <home>/incoming/           own ECGs, a sub-folder per drop; ECG_INCOMING may name another place
    <home>/mirrors/simulated/  the simulated mirror that `make demo` writes
    <home>/keys/patients       the key of patients' pseudonyms; readable by its owner alone, and part of every backup
    <home>/mlflow/             runs, artifacts and registered models, shared by all spaces
    <home>/.servers.lock       held by `make ui`, `deploy/start` and `deploy/restore`
    <home>/.removal.lock       held by what removes products and drops; `deploy/backup` shares it

A space is named after its mirror: `hosts`, `simulated`, or the last part of its address and six digits of a hash.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

from ecg_foundry.place import (
    HOSTS,
    MIRROR,
    SIMULATED_MIRROR,
    chosen_mirror,
    default_root,
    is_simulated,
    is_url,
    space_of,
    spaces_in,
    stored,
)
from pipelines.addresses import is_address, require_no_credentials, shown
from pipelines.cache import Workspace
from pipelines.durable import make_folder, write_atomically, write_once
from pipelines.locks import exclusive

FILES = "files"
SERVERS_LOCK = ".servers.lock"
REMOVAL_LOCK = ".removal.lock"
_KEY_BYTES = 32


class Home:
    """The data home. `mirror` overrides the stored one; `hosts` means the original hosts."""

    def __init__(self, root: Path | str, mirror: str | None = None) -> None:
        if is_address(str(root)):
            raise ValueError(f"data home {shown(str(root))}: give a folder of this machine (ECG_HOME)")
        self.root = Path(_as_text(str(root), "data home (ECG_HOME)")).expanduser().resolve()
        self._mirror = mirror or None  # None: the stored one

    @classmethod
    def default(cls) -> Home:
        """Return the home that ECG_HOME (or ./var) and ECG_MIRROR (or the stored mirror) name."""
        return cls(default_root(), os.environ.get("ECG_MIRROR"))

    @property
    def mirror(self) -> str | None:
        """The folder or base URL used instead of the hosts; None for the hosts. Raises ValueError as `check_url`."""
        given = _as_text(self._mirror or stored(self.root, MIRROR) or HOSTS, "mirror")
        if is_address(given):
            check_url(given)
        chosen = chosen_mirror(self.root, self._mirror)
        return None if chosen == HOSTS else chosen

    def set_mirror(self, place: str) -> None:
        """Store a mirror for later commands and the UI. Raises ValueError if it is a folder that does not exist."""
        _as_text(place, "mirror")
        if is_address(place):
            check_url(place)
        elif place != HOSTS and not Path(place).expanduser().is_dir():
            raise ValueError(f"mirror {shown(place)}: no such folder; give a folder, a base URL, or '{HOSTS}'")
        self._store_mirror(place if place == HOSTS else _absolute(place))
        self._mirror = None

    def moved_from(self, former: Path) -> None:
        """Take the stored mirror along if this home was moved or copied from another folder, and it was there."""
        mirror = Path(stored(self.root, MIRROR) or HOSTS)
        here = self.root / mirror.relative_to(former) if mirror.is_relative_to(former) else None
        if here is not None and here.is_dir():
            self._store_mirror(str(here))

    def _store_mirror(self, place: str) -> None:
        """Store a mirror; one that is in this home as its path in the home, which a move does not change."""
        if not is_address(place) and Path(place).is_relative_to(self.root):
            place = str(Path(place).relative_to(self.root))
        write_atomically(self.root / MIRROR, place.encode())

    @property
    def space(self) -> str:
        """The name of the space's folder: the mirror's last component and six digits of its hash; `hosts` for hosts."""
        return space_of(self.root, self.mirror or HOSTS)

    @property
    def simulated(self) -> bool:
        """Whether the ECGs are simulated: by `make demo`, or by `ecg simulate` into a folder."""
        return is_simulated(self.root, self.mirror or HOSTS)

    def alone_removing(self) -> AbstractContextManager[None]:
        """Hold the lock of what removes data: one process at a time, and not during a backup."""
        make_folder(self.root)
        return exclusive(self.root / REMOVAL_LOCK, f"removals and backups of {self.root}")

    def workspace(self) -> Workspace:
        """Return the products of this space."""
        return Workspace(self.root / self.space)

    @property
    def raw_root(self) -> Path:
        """The folder of the downloaded files."""
        return self.root / self.space / FILES

    def spaces(self) -> list[Path]:
        """Return the folders of all spaces that exist, sorted."""
        return spaces_in(self.root)

    @property
    def incoming(self) -> Path | str:
        """The folder or bucket URL of own ECGs: ECG_INCOMING, or the one that production stored, or <home>/incoming."""
        chosen = os.environ.get("ECG_INCOMING") or stored(self.root, "drops") or str(self.root / "incoming")
        _as_text(chosen, "place of drops (ECG_INCOMING)")
        return chosen if is_address(chosen) else Path(chosen).expanduser().resolve()

    @property
    def simulated_mirror(self) -> Path:
        """The folder of the mirror that `make demo` writes."""
        return self.root / SIMULATED_MIRROR

    @property
    def tracking_uri(self) -> str:
        """MLflow's address: MLFLOW_TRACKING_URI, or the one that production stored, or the home's own SQLite store."""
        chosen = os.environ.get("MLFLOW_TRACKING_URI") or stored(self.root, "tracking")
        return chosen or f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}"

    @property
    def artifact_root(self) -> Path:
        """The folder of MLflow's artifacts, if MLflow's store is a database."""
        return self.root / "mlflow" / "artifacts"

    def patient_key(self) -> bytes:
        """Return the key with which patients' ids of vendors' files become pseudonyms; made at its first use.

        Another key would make another patient of each, who could then train and validate at once. Raises ValueError if
        it is damaged.
        """
        file = self.root / "keys" / "patients"
        if not file.exists():
            write_once(file, secrets.token_hex(_KEY_BYTES).encode())
        text = file.read_text("ascii", "replace").strip()
        if not re.fullmatch(rf"[0-9a-f]{{{2 * _KEY_BYTES}}}", text):
            raise ValueError(
                f"{file}: it is not the {2 * _KEY_BYTES} hexadecimal digits that it was made with: restore it from a "
                "backup (with a new key, patients of earlier drops would count as others)"
            )
        return bytes.fromhex(text)


def check_url(text: str) -> None:
    """Raise ValueError if a mirror's address is no URL of a host, or has a secret, which would be shown and kept."""
    require_no_credentials(
        text,
        "mirror",
        "write it as https://host/path, and set NETRC to a file that has them: machine HOST login NAME password WORD",
    )
    if not is_url(text):
        raise ValueError(f"mirror {text!r}: give a folder, or an address that begins with http:// or https://")
    try:
        parts = urlsplit(text)
        fault = None if parts.hostname and (parts.port is None or parts.port > 0) else "it names no host"
    except ValueError as error:
        fault = str(error)
    if fault is not None:
        raise ValueError(f"mirror {text!r}: {fault}; write it as https://host/path")


def _as_text(path: str, what: str) -> str:
    """Return a folder's or an address's name. Raises ValueError if it has bytes that are no text in UTF-8.

    Neither MLflow nor Dagster can store or show such a name.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} {shown(path)}: its name is no text in UTF-8: rename the folder") from None
    return path


def _absolute(place: str) -> str:
    return place.rstrip("/") if is_url(place) else str(Path(place).expanduser().resolve())
