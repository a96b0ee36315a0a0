"""A program: pull a registered model, ask it of ECGs, and write what it says. Run by its path.

    python -I pull_once.py MODEL_URI TRACKING_URI RATE ECGS.npy ANSWERS.npy

It imports nothing of this package, so the code that is used is the code that was registered with the model.
"""

import sys

import mlflow
import mlflow.pyfunc
import numpy as np


def main(uri: str, tracking_uri: str, rate: str, ecgs: str, answers: str) -> None:
    mlflow.set_tracking_uri(tracking_uri)
    model = mlflow.pyfunc.load_model(uri)
    x_BLT = np.load(ecgs, allow_pickle=False)
    found = model.predict(x_BLT, params={"sampling_rate": float(rate)})
    if isinstance(found, list):  # of a classifier: a row a record, by label
        found = [list(row.values()) for row in found]
    np.save(answers, np.asarray(found), allow_pickle=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
