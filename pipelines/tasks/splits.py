"""Splits of labelled records into train, validation and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.hashing import uniform_from


class Split(StrEnum):
    """The part that a record plays in a task."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    UNUSED = "unused"


def column_of(records: pa.Table, name: str) -> pa.Array:
    """Return a column of a table. Raises ValueError if it is absent."""
    if name not in records.column_names:
        raise ValueError(f"records without the column {name!r}: have {', '.join(records.column_names)}")
    column = records.column(name).combine_chunks()
    assert isinstance(column, pa.Array)
    return column


def _check_protocol(train: tuple[Any, ...], validation: tuple[Any, ...], test: tuple[Any, ...], what: str) -> None:
    """Raise ValueError if a split is missing or overlaps another; `what` names their members, such as "folds"."""
    members = [*train, *validation, *test]
    if not train or not test:
        raise ValueError(f"train={train}, test={test}: name {what} to train on and {what} to test on")
    if len(set(members)) != len(members):
        raise ValueError(f"train={train}, validation={validation}, test={test}: use each of the {what} once")


@dataclass(frozen=True, kw_only=True)
class FoldProtocol:
    """Splits by the source's own folds; a record in none of these folds is unused."""

    train: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    """Folds that the probe is fitted on."""
    validation: tuple[int, ...] = (9,)  # empty if nothing is chosen on validation data, as in `PAPER_FOLDS`
    """Folds that every choice is made on."""
    test: tuple[int, ...] = (10,)
    """Folds that are scored, once."""

    def __post_init__(self) -> None:
        _check_protocol(self.train, self.validation, self.test, "folds")

    @property
    def has_validation(self) -> bool:
        """Whether there are records to choose a hyperparameter on."""
        return bool(self.validation)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, part of fingerprints; `protocol_from_dict` is the inverse."""
        return {"by": "fold", **asdict(self)}

    def split(self, records: pa.Table) -> np.ndarray:
        """Return the split of each record, (N,) of `Split` values. Needs the column `fold` (null: unused)."""
        fold_N = column_of(records, "fold").fill_null(-1).to_numpy()
        split_N = np.full(len(fold_N), Split.UNUSED, dtype="<U10")
        for split, folds in ((Split.TRAIN, self.train), (Split.VALIDATION, self.validation), (Split.TEST, self.test)):
            split_N[np.isin(fold_N, folds)] = split
        return split_N


@dataclass(frozen=True, kw_only=True)
class PartitionProtocol:
    """Splits by the source's partitions, with a share of the training patients as validation.

    A patient (or a record without a known patient) is drawn by a hash of the seed and the id, so partitions that are
    harmonized later move no patient from one split to another.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    validation_share: float = 0.1  # of the training patients
    seed: int = 0

    def __post_init__(self) -> None:
        _check_protocol(self.train, (), self.test, "partitions")
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"validation_share={self.validation_share}: use a share from 0 to below 1")

    @property
    def has_validation(self) -> bool:
        """Whether there are records to choose a hyperparameter on."""
        return self.validation_share > 0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, part of fingerprints; `protocol_from_dict` is the inverse."""
        return {"by": "partition", **asdict(self)}

    def split(self, records: pa.Table) -> np.ndarray:
        """Return the split of each record, (N,) of `Split` values. Needs `partition`, `patient_id` and `record_id`."""
        partition_N = np.asarray(column_of(records, "partition").to_pylist(), dtype=object)
        split_N = np.full(len(partition_N), Split.UNUSED, dtype="<U10")
        split_N[np.isin(partition_N, self.test)] = Split.TEST
        training_N = np.isin(partition_N, self.train)
        draw_N = np.array([uniform_from(f"{self.seed}:{patient}") for patient in patients(records)], dtype=float)
        validation_N = draw_N < self.validation_share
        split_N[training_N & ~validation_N] = Split.TRAIN
        split_N[training_N & validation_N] = Split.VALIDATION
        return split_N


@dataclass(frozen=True, kw_only=True)
class PatientProtocol:
    """Splits by patient (by record if no patient is known), for sources without a split of their own.

    A patient is drawn by a hash of the seed and the id, so partitions that are harmonized later move no patient.
    """

    validation_share: float = 0.1
    test_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        fits = self.validation_share >= 0 and self.test_share > 0 and self.validation_share + self.test_share < 1
        if not fits:
            raise ValueError(
                f"validation_share={self.validation_share}, test_share={self.test_share}: use shares that leave "
                "records to train on and to test on"
            )

    @property
    def has_validation(self) -> bool:
        """Whether there are records to choose a hyperparameter on."""
        return self.validation_share > 0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, part of fingerprints; `protocol_from_dict` is the inverse."""
        return {"by": "patient", **asdict(self)}

    def split(self, records: pa.Table) -> np.ndarray:
        """Return the split of each record, (N,) of `Split` values. Needs `patient_id` and `record_id`."""
        draw_N = np.array([uniform_from(f"{self.seed}:{patient}") for patient in patients(records)])
        split_N = np.full(len(draw_N), Split.TRAIN, dtype="<U10")
        split_N[draw_N < self.test_share + self.validation_share] = Split.VALIDATION
        split_N[draw_N < self.test_share] = Split.TEST
        return split_N


@dataclass(frozen=True, kw_only=True)
class FewLabels:
    """Another protocol, with only a percentage of its training patients, at least one.

    Patients are taken in the order of a hash of the seed and the id, so a smaller percentage is a subset of a larger
    one. Validation and test are the other protocol's: hyperparameters are chosen on more labels than are trained on.
    """

    of: Protocol
    percent: float  # of the training patients
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise ValueError(f"percent={self.percent}: use a percentage above 0, at most 100")

    @property
    def has_validation(self) -> bool:
        """Whether there are records to choose a hyperparameter on."""
        return self.of.has_validation

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, part of fingerprints; `protocol_from_dict` is the inverse."""
        return {"by": "few labels", "of": self.of.to_dict(), "percent": self.percent, "seed": self.seed}

    def split(self, records: pa.Table) -> np.ndarray:
        """Return the split of each record, (N,) of `Split` values; the other training patients' records are unused."""
        split_N = self.of.split(records)
        patient_N = np.asarray(patients(records), dtype=object)
        training = sorted(set(patient_N[split_N == Split.TRAIN]), key=lambda who: uniform_from(f"{self.seed}:{who}"))
        taken = training[: max(1, round(len(training) * self.percent / 100))]
        split_N[(split_N == Split.TRAIN) & ~np.isin(patient_N, taken)] = Split.UNUSED
        return split_N


Protocol = FoldProtocol | PartitionProtocol | PatientProtocol | FewLabels


def protocol_from_dict(values: Mapping[str, Any]) -> Protocol:
    """Return the protocol of which these are the `to_dict` values, also if they went through JSON."""
    if values["by"] == "few labels":
        return FewLabels(of=protocol_from_dict(values["of"]), percent=values["percent"], seed=values["seed"])
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name != "by"
    }
    kinds = {"fold": FoldProtocol, "partition": PartitionProtocol, "patient": PatientProtocol}
    return kinds[values["by"]](**fields)


PAPER_FOLDS = FoldProtocol(train=(1, 2, 3, 4, 5, 6, 7, 8, 9), validation=(), test=(10,))
"""The ECG-JEPA paper's protocol on PTB-XL: train on folds 1-9, test on 10, no validation fold."""

_RECORD = "record "


def patients(records: pa.Table) -> list[str]:
    """Return the patient of each record, or the record itself if no patient is known."""
    pairs = zip(column_of(records, "patient_id").to_pylist(), column_of(records, "record_id").to_pylist(), strict=True)
    return [f"{_RECORD}{record}" if patient is None else f"patient {patient}" for patient, record in pairs]


def unnamed(who: Sequence[str]) -> int:
    """Return how many of the names that `patients` gives are records without a known patient."""
    return sum(name.startswith(_RECORD) for name in who)


def drawn_by(records: int, unnamed: int) -> str:
    """Describe the unit that splits and bootstrap resamples draw: patient, ECG, or both.

    unnamed: how many of the records have no known patient; each of these is drawn alone.
    """
    if unnamed == records:
        return "ECG (the source names no patients)"
    return "patient" if not unnamed else "patient, and by ECG if no patient is named"


def of_patients(records: int, patients: int, unnamed: int) -> str:
    """Return `120 ECGs of 60 patients`, or the text for unknown patients.

    patients: their number, in which each of the `unnamed` records counts as one patient.
    """
    if unnamed == records:
        return f"{records:,} ECGs, patients not named"
    rest = f" and {unnamed:,} of no named patient" if unnamed else ""
    return f"{records - unnamed:,} ECGs of {patients - unnamed:,} patients{rest}"


def require_whole_patients(task: str, patient_N: np.ndarray, split_N: np.ndarray) -> None:
    """Raise ValueError if a patient is in more than one split: no probe is tested on patients it was trained on."""
    used_N = split_N != Split.UNUSED
    pairs = set(zip(patient_N[used_N].tolist(), split_N[used_N].tolist(), strict=True))
    divided = sorted(patient for patient, splits in Counter(patient for patient, _ in pairs).items() if splits > 1)
    if divided:
        raise ValueError(
            f"task {task}: {len(divided)} patients are in more than one split, such as {divided[0]}: "
            "use folds or partitions that keep a patient's records together"
        )
