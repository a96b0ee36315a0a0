"""The registered model `ecg-classifier`, as MLflow runs it from this file: raw ECGs in, calibrated probabilities out.

    model = mlflow.pyfunc.load_model("models:/ecg-classifier@champion")
    model.predict(x, params={"sampling_rate": 500.0})    # x (records, 12 or 8, samples), millivolt
    [{"NORM": 0.93, "MI": 0.04, ...}, ...]

If the labels exclude each other, a record's probabilities sum to 1. A record that harmonization would drop, such as a
flat line, has NaN probabilities and a `reason`; with `"on_bad": "refuse"` it is an error. ECGs are taken as
`ecg-encoder` takes them.
On a GPU: `load_model(uri, model_config={"device": "cuda"})`.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

# MLflow put this version's own code first in sys.path, but modules that are loaded already would be taken before it: of
# another version, or of a checkout. They step aside while this version's are imported.
_others = {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == "ecg_model"}
try:
    from ecg_model.encoder_file import load_encoder
    from ecg_model.serving.classify import CalibratedHead
    from ecg_model.serving.released_file import released_file
    from ecg_model.serving.request import REASON, answered
finally:
    if _others:
        for _name in [name for name in sys.modules if name.partition(".")[0] == "ecg_model"]:
            del sys.modules[_name]
        sys.modules.update(_others)


class ClassifierModel(PythonModel):
    """Classifies raw ECGs with the artifacts `encoder` and `head`, two safetensors files."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load encoder and head, to the device that the model's configuration names.

        Raises ValueError if a file is not the one that was released.
        """
        encoder = load_encoder(released_file(context, "encoder"))
        self.encoder = encoder.eval().to((context.model_config or {}).get("device", "cpu"))
        self.head = CalibratedHead.load(released_file(context, "head"))
        self.reader = self.head.reader(self.encoder)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]  # the base's body makes pyright infer None
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Classify (B, L, T) millivolt: a probability for each label, for each record.

        A record that harmonization would drop has NaN for each, and beside them `reason`. Raises MlflowException for a
        bad request, with the remedy.
        """
        feature_BF, reasons = answered(self.reader, model_input, params or {})
        rows = self.head.probabilities(feature_BF).tolist()
        return [
            dict(zip(self.head.labels, row, strict=True)) | ({} if why is None else {REASON: why})
            for row, why in zip(rows, reasons, strict=True)
        ]


set_model(ClassifierModel())
