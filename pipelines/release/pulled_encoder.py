"""A registered encoder, pulled from MLflow, as a function of one ECG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlflow
import mlflow.pyfunc
import numpy as np
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray


class PulledEncoder:
    """The model at a URI such as `models:/ecg-encoder@champion`, in the MLflow store at `tracking_uri`.

    It points this process's MLflow at that store, so it is for a program that uses MLflow for nothing else. Raises
    ValueError if there is no such model.
    """

    def __init__(self, uri: str, *, tracking_uri: str) -> None:
        mlflow.set_tracking_uri(tracking_uri)
        try:
            self._model = mlflow.pyfunc.load_model(uri)
        except MlflowException as error:
            raise ValueError(f"model {uri!r} cannot be loaded from {tracking_uri}: {error.message}") from error

    def embed(self, x_LT: NDArray[Any], *, leads: Sequence[str], rate: float) -> NDArray[np.float32]:
        """Embed one ECG, (L, T) millivolt with rows named `leads`, to (dim,).

        Raises ValueError if the model refuses the ECG.
        """
        params = {"sampling_rate": float(rate), "leads": ",".join(leads)}
        try:
            embedding_1D = self._model.predict(np.asarray(x_LT, np.float32)[None], params=params)
        except MlflowException as error:
            raise ValueError(error.message) from error
        return np.asarray(embedding_1D, np.float32)[0]
