"""What the assets ask their surroundings for. `orchestration.definitions` fills it in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from pipelines.home import Home

if TYPE_CHECKING:
    from pipelines.tracking import Tracking


class DataHome(dg.ConfigurableResource):
    """Where products live, and which mirror stands in for the hosts."""

    root: str = Field(default="", description="Data home. Empty: ECG_HOME, or ./var.")
    mirror: str = Field(
        default="",
        description="A folder or base URL that stands in for physionet.org and zenodo.org, or 'hosts' for the true "
        "addresses. Empty: ECG_MIRROR, or the one that `ecg mirror` or `make demo` remembered.",
    )

    def open(self) -> Home:
        default = Home.default()
        root = self.root or default.root
        return Home(root, self.mirror) if self.mirror else (Home(root) if self.root else default)

    def tracking(self) -> Tracking:
        """The MLflow store of the data home."""
        from pipelines.tracking import Tracking

        home = self.open()
        return Tracking(uri=home.tracking_uri, artifact_root=home.artifact_root)
