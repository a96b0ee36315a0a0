"""The Dagster UI behind a guard against requests of other sites (`orchestration.request_guard`).

    python -m orchestration.webserver --workspace workspace.yaml [--host 127.0.0.1] [--port 3000] [--name ecg.example]

It is Dagster's own webserver with one more middleware; the instance is that of DAGSTER_HOME.
"""

from __future__ import annotations

import click
import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._utils.interrupts import setup_interrupt_handlers
from dagster._utils.log import configure_loggers
from dagster_webserver.version import __version__
from dagster_webserver.webserver import DagsterWebserver
from starlette.middleware import Middleware

from orchestration.request_guard import LOOPBACK, RequestGuard

STATEMENT_MILLISECONDS = 15_000
"""The longest query of a page, as Dagster's own command has it."""
POLL_MILLISECONDS = 2000
"""How often a page asks for news, as Dagster's own command has it."""


class GuardedWebserver(DagsterWebserver):
    """Dagster's webserver, which refuses requests of other sites."""

    def __init__(self, context: WorkspaceProcessContext, hosts: tuple[str, ...]) -> None:
        self._hosts = hosts
        super().__init__(context, live_data_poll_rate=POLL_MILLISECONDS)

    def build_middleware(self) -> list[Middleware]:
        return [Middleware(RequestGuard, hosts=self._hosts), *super().build_middleware()]


@click.command(help="Serve the Dagster UI to this machine, or to the names given, and to no page of another site.")
@click.option("--workspace", required=True, type=click.Path(exists=True, dir_okay=False), help="A workspace.yaml.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=3000, show_default=True, help="Port to listen on.")
@click.option(
    "--name",
    "names",
    multiple=True,
    envvar="ECG_SERVER_NAMES",
    help="A further name that people call this server by, such as that of a reverse proxy; may be given several times."
    " ECG_SERVER_NAMES holds them with blanks between.",
)
@click.option("--db-pool-recycle", default=3600, show_default=True, help="Seconds that a database connection is used.")
@click.option("--log-level", default="warning", show_default=True, help="Of the server's log.")
def main(workspace: str, host: str, port: int, names: tuple[str, ...], db_pool_recycle: int, log_level: str) -> None:
    configure_loggers(log_level=log_level.upper())
    setup_interrupt_handlers()
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(STATEMENT_MILLISECONDS, db_pool_recycle, max_overflow=20)
        target = WorkspaceFileTarget(paths=[workspace])
        with WorkspaceProcessContext(instance, version=__version__, workspace_load_target=target) as context:
            app = GuardedWebserver(context, (*LOOPBACK, host, *names)).create_asgi_app()
            uvicorn.run(app, host=host, port=port, log_level=log_level)


if __name__ == "__main__":
    main()
