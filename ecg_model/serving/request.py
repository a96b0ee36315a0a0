"""Requests, as MLflow passes them to a model: ECGs and parameters, and what is answered for a bad record."""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from ecg_model.serving.embed import STANDARD, judged_features
from ecg_model.serving.reader import Reader

NAN, REFUSE = "nan", "refuse"
"""What the parameter `on_bad` says: NaN and a reason for a bad record, or an error for the request."""
REASON = "reason"
"""The key of a bad record's reason, beside a classifier's labels."""


def answered(reader: Reader, model_input: Any, params: dict[str, Any]) -> tuple[NDArray[np.float32], list[str | None]]:
    """Read a request's ECGs, (B, F), and say of each record why it is NaN, or None.

    model_input: an array or nested lists (B, L, T), or a table (`dataframe_split`) of one column whose cells are
        records (L, T).
    params: `sampling_rate`, `leads` and `on_bad`.

    Raises MlflowException for a bad request, with the remedy, and with `on_bad` refuse for a bad record.
    """
    try:
        on_bad = checked_on_bad(params.get("on_bad", NAN))
        feature_BF, reasons = judged_features(
            reader,
            _records(model_input),
            sampling_rate=params.get("sampling_rate", 0.0),
            leads=params.get("leads", STANDARD),
        )
        bad = [f"record {record}: {why}" for record, why in enumerate(reasons) if why is not None]
        if bad and on_bad == REFUSE:
            raise ValueError(bad[0] if len(bad) == 1 else f"{bad[0]} (and {len(bad) - 1} more records)")
    except ValueError as error:
        raise MlflowException.invalid_parameter_value(str(error)) from error
    return feature_BF, reasons


def checked_on_bad(on_bad: Any) -> str:
    """Return what becomes of a bad record. Raises ValueError if it is no such choice."""
    if on_bad not in (NAN, REFUSE):
        raise ValueError(f"on_bad {reprlib.repr(on_bad)}: give {NAN} or {REFUSE}")
    return on_bad


def _records(model_input: Any) -> Any:
    """Return a table's records. Raises ValueError if it has more than one column."""
    # importing pandas would make it a requirement of the model
    columns = getattr(model_input, "columns", None)
    if columns is None:
        return model_input
    if len(columns) != 1:
        raise ValueError(
            f"a table of {len(columns)} columns: give one column, whose cells are records as lists of leads of samples"
        )
    return model_input.iloc[:, 0].to_list()
