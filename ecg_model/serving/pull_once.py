"""A program: pull a registered encoder, embed ECGs with it, and write the embeddings. Run by its path.

    python -I pull_once.py MODEL_URI TRACKING_URI RATE ECGS.npy EMBEDDINGS.npy

It imports nothing of this package, so the code that is used is the code that was registered with the model.
"""

import sys

import mlflow
import mlflow.pyfunc
import numpy as np


def main(uri: str, tracking_uri: str, rate: str, ecgs: str, embeddings: str) -> None:
    mlflow.set_tracking_uri(tracking_uri)
    model = mlflow.pyfunc.load_model(uri)
    x_BLT = np.load(ecgs, allow_pickle=False)
    np.save(embeddings, model.predict(x_BLT, params={"sampling_rate": float(rate)}), allow_pickle=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
