"""The MLflow store that commands ask."""

from __future__ import annotations

from pathlib import Path

import httpx

from pipelines.home import Home
from pipelines.tracking import Tracking


def store_of(home: Home) -> Tracking:
    """The home's store. Raises ValueError for one that is not there: it is not made, but missed; and for a server that
    does not answer."""
    tracking = Tracking(uri=home.tracking_uri, artifact_root=home.artifact_root)
    database = tracking.uri.removeprefix("sqlite:///")
    if database != tracking.uri and not Path(database).is_file():
        raise ValueError(f"no models here: {database} is not there; run `make demo`, or set MLFLOW_TRACKING_URI")
    if tracking.is_server:
        try:
            tracking.health(seconds=10.0).raise_for_status()
        except httpx.HTTPError as error:
            raise ValueError(
                f"MLflow at {tracking.uri} does not answer ({error}): wait until it is up, start it with `make ui` or "
                "`make production`, or set MLFLOW_TRACKING_URI"
            ) from error
    return tracking
