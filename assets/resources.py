"""What the assets ask their surroundings for. `orchestration.definitions` fills it in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError
from pydantic import Field

from pipelines.home import Home
from pipelines.pretrain.step import REFUSED

if TYPE_CHECKING:
    from pipelines.tracking import Tracking


STOP_SECONDS = 150
"""That a training which is told to stop has for its step and its checkpoint; `deploy/supervisord.conf` gives more."""


class Launcher(dg.ConfigurableResource):
    """Where a training runs: in a process of this machine, or in several that torchrun starts here.

    A cluster is another class with the same method.
    """

    processes: int = Field(
        default=0,
        ge=0,
        description="Processes that share each batch where the settings of `encoder` do not say; on GPUs one for each. "
        "0: ECG_PROCESSES, or 1.",
    )

    @property
    def usual_processes(self) -> int:
        return self.processes or int(os.environ.get("ECG_PROCESSES") or 1)

    def run(self, context: dg.AssetExecutionContext, command: list[str]) -> None:
        """Run a command to its end, its log and figures in the step's; raises where it fails: a Failure that is not
        tried again where it ended with REFUSED, the error of the pipes where it was killed or failed otherwise.

        Where this step is killed, the command is told to stop, as it is where the run is cancelled.
        """
        from pipelines.pretrain.step import tied

        try:
            client = dg.PipesSubprocessClient(termination_timeout_seconds=STOP_SECONDS)
            client.run(context=context, command=tied(command))
        except DagsterPipesExecutionError as error:
            if not str(error).endswith(f" code {REFUSED}"):
                raise
            raise dg.Failure(f"{error}: its last lines in the log say why", allow_retries=False) from error


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

        return Tracking.of(self.open())
