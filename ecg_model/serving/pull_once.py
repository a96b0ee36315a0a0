"""A program that pulls a registered model, applies it to ECGs and writes the answers. Run by its path.

    python -I pull_once.py MODEL_URI TRACKING_URI RATE ECGS.npy ANSWERS.npy

It imports nothing of this package, so that it uses the code that was registered with the model.
"""

import sys

import mlflow
import mlflow.pyfunc
import numpy as np


def main(uri: str, tracking_uri: str, rate: str, ecgs: str, answers: str) -> None:
    mlflow.set_tracking_uri(tracking_uri)
    model = mlflow.pyfunc.load_model(uri)
    x_BLT = np.load(ecgs, allow_pickle=False)
    predicted = model.predict(x_BLT, params={"sampling_rate": float(rate)})
    if isinstance(predicted, list):  # of a classifier: for each record its probabilities by label
        predicted = [[value for name, value in row.items() if name != "reason"] for row in predicted]
    np.save(answers, np.asarray(predicted), allow_pickle=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
