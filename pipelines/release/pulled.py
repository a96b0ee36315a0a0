"""A registered model, pulled from MLflow after its files were compared with what was released.

A model answers by the code that it was registered with: in this process if that is this checkout's, whose `ecg_model`
is imported here, and else in a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.addresses import require_no_credentials
from pipelines.release.own_code import other_code
from pipelines.release.own_process import OwnProcess
from pipelines.release.packaging import without_bytecode
from pipelines.release.registry import model_folder, names_version, version_named
from pipelines.tracking import Tracking

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
import mlflow
import mlflow.artifacts
import mlflow.pyfunc
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel

Pulled = PyFuncModel | OwnProcess


@contextmanager
def pulled_model(uri: str, *, tracking: Tracking) -> Iterator[Pulled]:
    """Load the model at a URI such as `models:/ecg-encoder@champion`, and yield it; it answers inside the block.

    It points this process's MLflow at that store, so it is for a program that uses MLflow for nothing else. Raises
    ValueError if there is no such model, or if its files are not those that were released, and ChildProcessError if it
    has other code and does not load by that. A URI that names no version, such as `runs:/...`, has no record of what
    was released; its model compares its files itself.
    """
    require_no_credentials(uri, "the model", "set the store's own variables, such as AWS_ACCESS_KEY_ID", login=True)
    mlflow.set_tracking_uri(tracking.uri)
    try:
        folder = _folder(uri, tracking)
        with without_bytecode():
            loaded = mlflow.pyfunc.load_model(str(folder)) if other_code(folder) is None else None
    except MlflowException as error:
        raise ValueError(f"model {uri!r} cannot be loaded from {tracking.uri}: {error.message}") from error
    if loaded is not None:
        yield loaded
        return
    with OwnProcess(folder, called=uri, tracking=tracking) as process:
        yield process


def _folder(uri: str, tracking: Tracking) -> Path:
    """Fetch a model; a store on this machine is used where it lies."""
    if names_version(uri):
        return model_folder(version_named(uri, tracking=tracking), tracking=tracking)
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, tracking_uri=tracking.uri))


class PulledEncoder:
    """An encoder of `pulled_model`, as a function of one ECG."""

    def __init__(self, model: Pulled) -> None:
        self._model = model

    def embed(self, x_LT: NDArray[Any], *, leads: Sequence[str], rate: float) -> NDArray[np.float32]:
        """Embed one ECG, (L, T) millivolt with rows named `leads`, to (dim,).

        Raises ValueError if the model refuses the ECG.
        """
        params = {"sampling_rate": float(rate), "leads": ",".join(leads)}
        schema = self._model.metadata.get_params_schema()
        if schema is not None and "on_bad" in [param.name for param in schema.params]:
            params["on_bad"] = "refuse"
        try:
            embedding_1D = self._model.predict(np.asarray(x_LT, np.float32)[None], params=params)
        except MlflowException as error:
            raise ValueError(error.message.removeprefix("record 0: ")) from error
        return np.asarray(embedding_1D, np.float32)[0]
