"""`ecg serve`: a registered model over HTTP."""

from __future__ import annotations

import click


@click.command("serve")
@click.argument("model")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on. There is no password.")
@click.option("--port", default=5001, show_default=True, help="Port to listen on.")
def command(model: str, host: str, port: int) -> None:
    """Serve a registered MODEL over HTTP, until Ctrl-C.

    It takes what `mlflow models serve` takes as JSON, and limits the size and the form of a request. The model's files
    are compared with what was released.

    \b
    ecg serve models:/ecg-classifier@champion
    ecg serve models:/ecg-encoder/3 --port 5002
    """
    from pipelines.cli.store import existing_store
    from pipelines.home import Home

    tracking = existing_store(Home.default())
    # After pipelines.tracking, which silences MLflow before it is imported.
    from pipelines.release.pulled import pulled_model
    from pipelines.release.scoring import serve

    with pulled_model(model, tracking=tracking) as pulled:
        click.echo(f"{model} at http://{host}:{port}/invocations; Ctrl-C stops it.")
        serve(pulled, host, port)
