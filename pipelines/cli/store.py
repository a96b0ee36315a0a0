"""The MLflow store of a data home."""

from __future__ import annotations

from pathlib import Path

import httpx

from pipelines.home import Home
from pipelines.moved import mend
from pipelines.tracking import Tracking


def store_of(home: Home) -> Tracking:
    """Return the home's store, mended if the home was moved. Raises ValueError if it has to be and cannot."""
    mend(home)
    return Tracking.of(home)


def existing_store(home: Home) -> Tracking:
    """Return the home's store.

    Raises ValueError if its database does not exist (it is not made), or if its server does not answer.
    """
    tracking = store_if_made(home)
    if tracking is None:
        database = home.tracking_uri.removeprefix("sqlite:///")
        raise ValueError(f"no models here: {database} does not exist; run `make demo`, or set MLFLOW_TRACKING_URI")
    return tracking


def store_if_made(home: Home) -> Tracking | None:
    """Return the home's store, or None if its database does not exist (it is not made).

    Raises ValueError if its server does not answer.
    """
    tracking = reachable_store(home)
    database = tracking.uri.removeprefix("sqlite:///")
    return None if database != tracking.uri and not Path(database).is_file() else tracking


def reachable_store(home: Home) -> Tracking:
    """Return the home's store, whose database is made when it is used. Raises ValueError if a server does not answer.

    MLflow's own retries take minutes.
    """
    tracking = store_of(home)
    if tracking.is_server:
        try:
            tracking.health(seconds=10.0).raise_for_status()
        except httpx.HTTPError as error:
            raise ValueError(
                f"MLflow at {tracking.uri} does not answer ({error}): wait until it is up, start it with `make ui` or "
                "`make production`, or set MLFLOW_TRACKING_URI"
            ) from error
    return tracking
