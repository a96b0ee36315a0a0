"""The Dagster instance of `make demo` and `make ui`, in the data home. Production's is made by `deploy/start`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from pipelines.cache import LOCK
from pipelines.durable import write_atomically
from pipelines.home import Home
from pipelines.locks import exclusive
from pipelines.moved import mend
from pipelines.tracking import Tracking

log = logging.getLogger(__name__)

_FILE = Path(__file__).resolve().parents[1] / "dagster.yaml"


def open_instance(home: Home) -> dg.DagsterInstance:
    """Open the instance in <home>/dagster, or create it; its schema and MLflow's are upgraded.

    DAGSTER_HOME names that folder afterwards, whatever it named before. Raises ValueError, and changes nothing, if the
    home is production's.
    """
    refuse_production(home)
    folder = home.root / "dagster"
    write_atomically(folder / _FILE.name, _FILE.read_bytes())
    if home.root.stat().st_mode & 0o077:
        log.warning("others on this machine can read %s: `chmod 700 %s` keeps its ECGs private", home.root, home.root)
    os.environ["DAGSTER_HOME"] = str(folder)
    # Two processes that create the tables at once leave a database that neither can open.
    with exclusive(folder / LOCK, f"the databases of {home.root}"):
        instance = dg.DagsterInstance.get()
        if _is_behind(instance):
            instance.upgrade()
        mend(home)
        Tracking.of(home).upgrade()
    return instance


def refuse_production(home: Home) -> None:
    """Raise ValueError if the home is production's."""
    file = home.root / "dagster" / _FILE.name
    if file.is_file() and "postgres" in (yaml.safe_load(file.read_text()) or {}).get("storage", {}):
        raise ValueError(
            f"{home.root} is production's home, with PostgreSQL in {file}: start it with deploy/start, "
            "or set ECG_HOME to another folder"
        )


def _is_behind(instance: dg.DagsterInstance) -> bool:
    """Whether a store has another schema than this Dagster. An upgrade reads every run: only if needed."""
    stores: list[Any] = [instance.run_storage, instance.event_log_storage, instance.schedule_storage]
    return any(current != latest for current, latest in (store.alembic_version() for store in stores))
