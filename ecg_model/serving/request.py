"""Requests, as MLflow passes them to a model, converted to a batch of ECGs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def batch(model_input: Any) -> NDArray[Any]:
    """Return an array (B, L, T) of ECGs.

    model_input: an array or nested lists (B, L, T), or a table (`dataframe_split`) of one column whose cells are
        records (L, T).

    Raises ValueError if a table has other columns, or if records differ in their leads or lengths.
    """
    records = model_input
    columns = getattr(
        model_input, "columns", None
    )  # of a pandas table; importing pandas would make it a requirement of the model
    if columns is not None:
        if len(columns) != 1:
            raise ValueError(
                f"a table of {len(columns)} columns: give one column, whose cells are records as lists of "
                "leads of samples"
            )
        records = model_input.iloc[:, 0].to_list()
    try:
        return np.asarray(records)
    except ValueError as ragged:
        raise ValueError(
            f"records of unequal leads or lengths ({ragged}): cut or group them, so that a call's are alike"
        ) from ragged
