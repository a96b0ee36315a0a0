"""Which datasets of an HDF5 file hold what, and which of them are signals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import h5py

from pipelines.incoming.description import DATASETS, PEOPLE_FIELDS
from pipelines.records import DropReason, RecordError

SIGNALS = "signals"
NAMES = (SIGNALS, *PEOPLE_FIELDS)
FILLS = ("_FillValue", "missing_value")
PACKED = {"scale_factor": 1, "add_offset": 0}
"""netCDF's attributes of numbers that are packed, and the value with which they are not."""
_NAME = re.compile(r"/?[\w -][\w .-]*(/[\w -][\w .-]*)*", re.ASCII)


def names_of(fields: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return which dataset holds what: the standard names, changed by the field `datasets`."""
    given = fields.get(DATASETS, {})
    if not isinstance(given, dict) or set(given) - set(NAMES):
        raise _wrong(where, f"{DATASETS}: it maps any of {', '.join(NAMES)} to the name of a dataset")
    for name, path in given.items():
        if not isinstance(path, str) or not _NAME.fullmatch(path):
            raise _wrong(
                where, f"{DATASETS}: {name} {str(path)[:60]!r} is no plain name of a dataset, as in 'ecg/data'"
            )
    return {name: given.get(name, name) for name in NAMES}


def check_signals(signals: h5py.Dataset | None, name: str, where: str) -> h5py.Dataset:
    """Return the dataset of the signals. Raises RecordError unless it is numbers with three axes (two: one ECG)."""
    if signals is None:
        raise _wrong(where, f"no dataset {name!r}: name it in `datasets` of the JSON beside it")
    if signals.ndim not in (2, 3) or signals.dtype.kind not in "iuf" or min(signals.shape) < 1:
        raise _wrong(
            where,
            f"{signals.name} is {str(signals.dtype)[:60]} {signals.shape}: numbers with three axes are needed, "
            "or with two for one ECG",
        )
    return signals


def fill_values(attributes: Mapping[str, Any], where: str) -> tuple[float, ...]:
    """Return the numbers that netCDF's attributes of the signals say are missing samples.

    Raises RecordError if they say that the numbers are packed: a scale here and a unit beside it could both be meant.
    """
    for name, neutral in PACKED.items():
        if (value := attributes.get(name, neutral)) != neutral:
            raise _wrong(
                where,
                f"the signals have the attribute {name} {str(value)[:60]}: write the numbers themselves, without it, "
                'or as units "raw" with gain and baseline',
            )
    return tuple(
        float(value) for name in FILLS if isinstance(value := attributes.get(name), int | float) and value == value
    )


def _wrong(where: str, what: str) -> RecordError:
    return RecordError(DropReason.UNREADABLE_SIGNAL, f"{where}: {what}")
