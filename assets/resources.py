"""Resources of the assets. `orchestration.definitions` sets them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError
from pydantic import Field

from pipelines.home import Home
from pipelines.program import REFUSED, usual_processes

if TYPE_CHECKING:
    from pipelines.tracking import Tracking


STOP_SECONDS = 150
"""Time that a training has for its step and its checkpoint when it is stopped; `deploy/supervisord.conf` gives more."""


class Launcher(dg.ConfigurableResource):
    """Runs a training in a process of this machine, or in several that torchrun starts here.

    A launcher for a cluster is another class with the same method.
    """

    processes: int = Field(
        default=0,
        ge=0,
        description="Processes that share each batch if the settings of `encoder` name no number; with GPUs, one for "
        "each GPU. 0: ECG_PROCESSES, or 1.",
    )

    @property
    def usual_processes(self) -> int:
        return self.processes or usual_processes()

    def run(self, context: dg.AssetExecutionContext, command: list[str]) -> None:
        """Run a command to its end. Its log and figures become those of the step.

        Raises a Failure that is not retried if the command ended with REFUSED, and the error of Dagster's pipes if it
        was killed or failed otherwise. If the step is killed or the run is cancelled, the command is stopped, too.
        """
        from pipelines.program import tied

        try:
            client = dg.PipesSubprocessClient(termination_timeout_seconds=STOP_SECONDS)
            client.run(context=context, command=tied(command))
        except DagsterPipesExecutionError as error:
            if not str(error).endswith(f" code {REFUSED}"):
                raise
            raise dg.Failure(f"{error}: its last lines in the log say why", allow_retries=False) from error


class DataHome(dg.ConfigurableResource):
    """The data home, and the mirror that replaces the hosts."""

    root: str = Field(default="", description="Data home. Empty: ECG_HOME, or ./var.")
    mirror: str = Field(
        default="",
        description="A folder or base URL that replaces physionet.org and zenodo.org, or 'hosts' for the original "
        "addresses. Empty: ECG_MIRROR, or the mirror that `ecg mirror` or `make demo` stored.",
    )

    def open(self) -> Home:
        default = Home.default()
        root = self.root or default.root
        return Home(root, self.mirror) if self.mirror else (Home(root) if self.root else default)

    def tracking(self) -> Tracking:
        """Return the MLflow store of the data home."""
        from pipelines.moved import mend
        from pipelines.tracking import Tracking

        home = self.open()
        mend(home)
        return Tracking.of(home)
