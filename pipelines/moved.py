"""Mend the MLflow store of a data home that was moved or copied, so that its models are those in its own folder.

MLflow stores the full path of the artifacts of each experiment, run and model (a relative one is resolved when it is
stored), and has no command that changes them. In a home that was moved they name a folder that is gone; in a copy, the
artifacts of the home that it was copied from.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipelines import durable
from pipelines.cache import LOCK
from pipelines.home import SERVERS_LOCK, Home
from pipelines.locks import exclusive, exclusive_now

log = logging.getLogger(__name__)

BACKUP = "mlflow.db.before-move"
"""The copy of the database before it was mended last, beside it."""

_ARTIFACTS = "/mlflow/artifacts"
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Columns of MLflow's tables that name a folder of artifacts."""
_MODELS = ("logged_models", "model_versions")


def mend(home: Home) -> None:
    """Make the home's own MLflow store name the artifacts in this home, if it was made for another place.

    Nothing is done for a store outside the home, nor while models are in the former place alone. The database is
    copied before it is changed. Raises ValueError if it has to be changed while servers of the home run.
    """
    database, own = home.root / "mlflow" / "mlflow.db", home.artifact_root.resolve().as_uri()
    if home.tracking_uri != f"sqlite:///{database}" or not database.is_file() or not _former(database, own):
        return
    busy = f"{home.root} was moved, and its MLflow store must be told: stop its servers first ({{holder}})"
    with (
        exclusive(database.with_name(LOCK), f"the MLflow store of {home.root}"),
        exclusive_now(home.root / SERVERS_LOCK, busy),
    ):
        for former in _former(database, own):
            if _are_here(database, former, own):
                _replace(database, former, own)
                home.moved_from(_path(former).parents[1])
                log.warning(
                    "%s was at %s before: its MLflow store names this place now; %s is the database as it was",
                    home.root,
                    _path(former).parents[1],
                    database.with_name(BACKUP),
                )


def _former(database: Path, own: str) -> list[str]:
    """Return the addresses of artifact folders of homes that a database was made for, but `own`."""
    with _opened(database) as store:
        query = "SELECT experiment_id, name, artifact_location FROM experiments"
        rows = store.execute(query).fetchall() if _PLACES[0] in _columns(store) else []
    found: list[str] = []
    for number, name, location in rows:
        folder, _, last = (location or "").rpartition("/")
        if folder.startswith("file:///") and folder.endswith(_ARTIFACTS) and unquote(last) in (name, str(number)):
            found.append(folder)
    return [folder for folder in dict.fromkeys(found) if folder != own and not _is_same(_path(folder), _path(own))]


def _are_here(database: Path, former: str, own: str) -> bool:
    """Whether the models that a database names below `former` lie below `own`; if not, say so."""
    with _opened(database) as store:
        named = {
            row[0].removeprefix(former)
            for table, column in _columns(store)
            if table in _MODELS
            for row in store.execute(
                f"SELECT {column} FROM {table} WHERE substr({column}, 1, ?) = ?", (len(former) + 1, f"{former}/")
            )
        }
    here = {model for model in named if _path(own + model).exists()}
    left = {model for model in named - here if _path(former + model).exists()}
    if not left and (here or not named):
        return True
    log.warning(
        "%s names models in %s, and %d of %d are not in %s: copy that folder as well",
        database,
        _path(former),
        len(named - here),
        len(named),
        _path(own),
    )
    return False


def _replace(database: Path, former: str, own: str) -> None:
    """Make a database name `own` wherever it names `former`, at once, after copying it."""
    with _opened(database) as store:
        store.execute("BEGIN IMMEDIATE")
        copy = database.with_name(f"{BACKUP}.partial")
        copy.unlink(missing_ok=True)
        # By another connection: this one has the transaction, whose changes the copy must not have.
        with _opened(database) as before, closing(sqlite3.connect(copy)) as to:
            before.backup(to)
        durable.flush(copy)
        durable.replace(copy, database.with_name(BACKUP))
        for table, column in _columns(store):
            store.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (own, len(former) + 1, len(former) + 1, f"{former}/"),
            )
        store.execute("COMMIT")
    durable.flush(database.parent)


def _columns(store: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Yield the tables and columns that name a folder of artifacts, as far as this version of MLflow has them."""
    for table, column in _PLACES:
        if column in [row[1] for row in store.execute(f"PRAGMA table_info({table})")]:
            yield table, column


@contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    """Open a database. Raises ValueError, with the reason, if it cannot be read or changed."""
    try:
        with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as store:
            yield store
    except sqlite3.Error as error:
        raise ValueError(f"{database}: it cannot be read, or told where this home is: {error}") from error


def _path(address: str) -> Path:
    return Path(unquote(urlsplit(address).path))


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)
