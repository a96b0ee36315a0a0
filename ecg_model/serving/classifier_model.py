"""The registered model `ecg-classifier`, as MLflow runs it from this file: raw ECGs in, calibrated probabilities out.

    model = mlflow.pyfunc.load_model("models:/ecg-classifier@champion")
    model.predict(x, params={"sampling_rate": 500.0})    # x (records, 12 or 8, samples), millivolt
    [{"NORM": 0.93, "MI": 0.04, ...}, ...]

ECGs are taken as `ecg-encoder` takes them. On a GPU: `load_model(uri, model_config={"device": "cuda"})`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from ecg_model.encoder import load_encoder
from ecg_model.serving.classify import CalibratedHead, classify
from ecg_model.serving.embed import STANDARD
from ecg_model.serving.released_file import released_file
from ecg_model.serving.request import batch


class ClassifierModel(PythonModel):
    """Classifies raw ECGs with the artifacts `encoder` and `head`, two safetensors files."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load encoder and head, to the device that the model's configuration names.

        Raises ValueError if a file is not the one that was released.
        """
        encoder = load_encoder(released_file(context, "encoder"))
        self.encoder = encoder.eval().to((context.model_config or {}).get("device", "cpu"))
        self.head = CalibratedHead.load(released_file(context, "head"))

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]  # the base's body makes pyright infer None
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> list[dict[str, float]]:
        """Classify (B, L, T) millivolt: a probability for each label, for each record.

        Raises MlflowException for a bad request, with the remedy.
        """
        params = params or {}
        try:
            probability_BC = classify(
                self.encoder,
                self.head,
                batch(model_input),
                sampling_rate=params.get("sampling_rate", 0.0),
                leads=params.get("leads", STANDARD),
            )
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return [dict(zip(self.head.labels, row, strict=True)) for row in probability_BC.tolist()]


set_model(ClassifierModel())
