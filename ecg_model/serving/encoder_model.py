"""The registered model `ecg-encoder`, as MLflow runs it from this file: raw ECGs in, embeddings out.

    model = mlflow.pyfunc.load_model("models:/ecg-encoder@champion")
    model.predict(x, params={"sampling_rate": 500.0})                       # x (records, 12 or 8, samples), millivolt
    model.predict(x, params={"sampling_rate": 500.0, "leads": "V1,V2,V3,V4,V5,V6,I,II"})

A record that harmonization would drop, such as a flat line, is NaN, and `params={..., "reasons": True}` gives
{"embeddings": (records, dim), "reasons": [None, "flat lead: ...", ...]}; `"on_bad": "refuse"` makes it an error.
`ecg_model.serving.embed` describes the accepted ECGs and how short and long recordings are read. On a GPU:
`load_model(uri, model_config={"device": "cuda"})`.

From PyTorch, to train it further or to read its tokens:

    pulled = mlflow.pyfunc.load_model("models:/ecg-encoder@champion").unwrap_python_model()
    x, reasons = pulled.prepare(ecgs, sampling_rate=500.0)      # float32 (records, 8, 2500), millivolt at 250 Hz
    tokens = pulled.encoder.tokens(torch.from_numpy(x))         # of a torch.nn.Module: (records, tokens, dim)
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
    from ecg_model.ecg_encoder import ECGEncoder
    from ecg_model.encoder_file import load_encoder
    from ecg_model.serving.embed import STANDARD, prepared
    from ecg_model.serving.reader import Reader
    from ecg_model.serving.released_file import released_file
    from ecg_model.serving.request import answered
finally:
    if _others:
        for _name in [name for name in sys.modules if name.partition(".")[0] == "ecg_model"]:
            del sys.modules[_name]
        sys.modules.update(_others)


class EncoderModel(PythonModel):
    """Embeds raw ECGs with the encoder of the artifact `encoder`, a safetensors file."""

    encoder: ECGEncoder
    """The network, in eval mode: `tokens` of millivolt (B, 8, 2500) are (B, N, D), `embed` is their mean, (B, D)."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the encoder, to the device that the model's configuration names.

        Raises ValueError if the file is not the one that was released.
        """
        encoder = load_encoder(released_file(context, "encoder"))
        self.encoder = encoder.eval().to((context.model_config or {}).get("device", "cpu"))

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]  # the base's body makes pyright infer None
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray | dict[str, Any]:
        """Embed (B, L, T) millivolt -> (B, dim) float32, or with `reasons` a dict of `embeddings` and `reasons`.

        Raises MlflowException for a bad request, with the remedy.
        """
        params = params or {}
        embedding_BD, reasons = answered(Reader(encoder=self.encoder), model_input, params)
        return {"embeddings": embedding_BD, "reasons": reasons} if params.get("reasons") else embedding_BD

    def prepare(self, ecgs: Any, *, sampling_rate: float, leads: str = STANDARD) -> tuple[np.ndarray, list[str | None]]:
        """Return what the encoder takes, float32 (B, 8, 2500), of (B, L, T) millivolt, and the reasons of `predict`.

        A record that is not fit, or has less than ten seconds that were recorded, is NaN. Raises ValueError for ECGs
        that `predict` refuses.
        """
        return prepared(ecgs, sampling_rate=sampling_rate, leads=leads)


set_model(EncoderModel())
