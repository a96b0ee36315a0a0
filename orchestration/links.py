"""What `make ui` links: the asset graph, the latest report, the champions' pages."""

from __future__ import annotations

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
    from pipelines.release.aliases import find_alias
    from pipelines.release.model import CLASSIFIER_NAME
    from pipelines.release.tags import CHAMPION

    found = {"asset graph": f"{dagster}/asset-groups"}
    report = home.workspace().current(PRODUCT)
    if report is not None:
        found["latest report"] = (report.path / HTML_FILE).as_uri()
    for name in (OURS.model, CLASSIFIER_NAME):
        champion = find_alias(CHAMPION, name=name, tracking=Tracking.of(home))
        if champion is not None:
            version = f"{name}/versions/{champion.version}"
            found[f"champion of {name}"] = f"{mlflow}/#/models/{version}?{MODEL_TRAINING}"
    return found
