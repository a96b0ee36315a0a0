"""The body of a request to a served model, in MLflow's JSON protocol, as ECGs and parameters.

    {"inputs": [record, ...], "params": {"sampling_rate": 500, "leads": "standard"}}

Every limit is checked before memory is taken on the body's word.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_model.serving.embed import checked_rate, lead_names
from ecg_model.serving.request import checked_on_bad

BODY_MAX = 32_000_000
"""Bytes of a request's body: 75 records of 12 leads and 10 s at 500 Hz, with three decimals."""
CONTAINERS_MAX = 20_000
"""Lists and objects of a body: a record of 12 leads has 13. In memory an empty list takes twenty times its text."""

FORMS = ("inputs", "instances", "dataframe_split", "dataframe_records")
_CHECKS = {
    "sampling_rate": checked_rate,
    "leads": lead_names,
    "on_bad": checked_on_bad,
}
_NUMBERS = {int, float, type(None)}


def parsed(body: bytes, accepted: Collection[str]) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Return the ECGs (records, leads, samples) and the parameters of a body.

    accepted: names of the model's parameters.

    Raises ValueError with the remedy if the body is not such a request.
    """
    request = _decoded(body)
    if not isinstance(request, dict):
        raise ValueError('the body is no JSON object: send {"inputs": [record, ...], "params": {"sampling_rate": 500}}')
    given = [form for form in FORMS if form in request]
    if len(given) != 1 or set(request) - {*FORMS, "params"}:
        names = ", ".join(f"{name[:40]!r}" for name in list(request)[:10]) or "nothing"
        raise ValueError(f"the body holds {names}: give one of {', '.join(FORMS)}, and params beside it")
    return _ecgs(given[0], request[given[0]]), _parameters(request.get("params"), accepted)


def _decoded(body: bytes) -> Any:
    containers = body.count(b"[") + body.count(b"{")
    if containers > CONTAINERS_MAX:
        raise ValueError(
            f"the body has {containers:,} lists and objects, more than {CONTAINERS_MAX:,}: send fewer records, as "
            "lists of leads of samples"
        )
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("the body is nested too deep: send records as lists of leads of samples") from None
    except ValueError as error:  # no JSON, no text, or an integer with too many digits
        raise ValueError(f"the body cannot be read as JSON ({error})") from error


def _parameters(params: Any, accepted: Collection[str]) -> dict[str, Any]:
    """Return a request's parameters. Raises ValueError if one is unknown, or of a wrong type or value."""
    if params is None:
        return {}
    if not isinstance(params, dict):
        raise ValueError('params is no JSON object: give {"sampling_rate": 500}')
    for name, value in params.items():
        if name not in accepted:
            raise ValueError(f"parameter {name[:40]!r} is unknown: use {', '.join(accepted)}")
        if name in _CHECKS:
            _CHECKS[name](value)
    return params


def _ecgs(form: str, value: Any) -> NDArray[np.float64]:
    records = _cells(form, value) if form.startswith("dataframe_") else value
    if not _is_batch(records):
        raise ValueError(
            f"{form}: give a list of records, each a list of leads, each a list of numbers in millivolt; a single "
            "record x is [x]"
        )
    try:
        return np.asarray(records, np.float64)
    except OverflowError as error:
        raise ValueError(f"{form} holds a number that is too large ({error}): give millivolt") from error
    except ValueError as error:
        raise ValueError(
            f"{form} has records of unequal leads or lengths: cut or group them, so that a request's are alike"
        ) from error


def _cells(form: str, table: Any) -> list[Any]:
    """Return the cells of a table of one column. Raises ValueError if it is none."""
    rows = table
    if form == "dataframe_split" and isinstance(table, dict):
        rows = table.get("data")
    elif form == "dataframe_records" and isinstance(table, list):
        rows = [list(row.values()) if isinstance(row, dict) else row for row in table]
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 1 for row in rows):
        raise ValueError(f"{form}: give one column, whose cells are records as lists of leads of samples")
    return [row[0] for row in rows]


def _is_batch(records: Any) -> bool:
    """Return whether a value is lists of lists of lists of numbers; null is a missing sample."""
    return isinstance(records, list) and all(
        isinstance(record, list) and all(isinstance(row, list) and set(map(type, row)) <= _NUMBERS for row in record)
        for record in records
    )
