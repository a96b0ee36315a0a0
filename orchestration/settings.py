"""Check production's settings before anything is written; `deploy/start` runs it.

A mistake would otherwise appear later: at a sensor's first tick, or at the weekly retraining, on a Monday at 20:00.
"""

from __future__ import annotations

import sys

from pipelines.download.mirror import Mirror
from pipelines.home import Home
from pipelines.incoming.bucket import place_of
from pipelines.release.retraining import RetrainingConfig


def check() -> None:
    """Raise ValueError naming the first setting that cannot be used."""
    home = Home.default()
    Mirror.parse(home.mirror)
    place_of(home.incoming)
    try:
        RetrainingConfig.from_environment()
    except ValueError as error:
        raise ValueError(f"ECG_RETRAIN_RECIPE, _CHANGES or _START: {error}") from error


if __name__ == "__main__":
    try:
        check()
    except ValueError as error:
        sys.exit(str(error))
