"""What `make ui` links: the asset graph, the latest report, the page of each champion."""

from __future__ import annotations

from urllib.parse import quote

from pipelines.encoders.names import OURS
from pipelines.home import Home
from pipelines.tracking import Tracking

MODEL_TRAINING = "workflowType=machine_learning"
"""Has MLflow show its pages for models; by itself it opens those for language models."""


def links(home: Home, dagster: str, mlflow: str) -> dict[str, str]:
    """Return addresses by what they show, without what is not there yet.

    dagster, mlflow: the addresses of the two servers
    """
    from pipelines.evaluate.report.step import HTML_FILE, PRODUCT
    from pipelines.release.aliases import find_alias, registered_names
    from pipelines.release.model import CLASSIFIER_NAME
    from pipelines.release.tags import CHAMPION

    found = {"asset graph": f"{dagster}/asset-groups"}
    report = home.workspace().current(PRODUCT)
    if report is not None:
        found["latest report"] = (report.path / HTML_FILE).as_uri()
    tracking = Tracking.of(home)
    first = (OURS.model, CLASSIFIER_NAME)
    names = registered_names(tracking)
    for name in [*(name for name in first if name in names), *(name for name in names if name not in first)]:
        champion = find_alias(CHAMPION, name=name, tracking=tracking)
        if champion is not None:
            version = f"{quote(name, safe='')}/versions/{champion.version}"
            found[f"champion of {name}"] = f"{mlflow}/#/models/{version}?{MODEL_TRAINING}"
    return found
