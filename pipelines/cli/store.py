"""The MLflow store that commands ask."""

from __future__ import annotations

from pathlib import Path

from pipelines.home import Home
from pipelines.tracking import Tracking


def store_of(home: Home) -> Tracking:
    """The home's store. Raises ValueError for one that is not there: it is not made, but missed."""
    tracking = Tracking(uri=home.tracking_uri, artifact_root=home.artifact_root)
    database = tracking.uri.removeprefix("sqlite:///")
    if database != tracking.uri and not Path(database).is_file():
        raise ValueError(f"no models here: {database} is not there; run `make demo`, or set MLFLOW_TRACKING_URI")
    return tracking
