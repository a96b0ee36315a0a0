"""Splits of labelled records into train, validation and test."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa


class Split(StrEnum):
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    UNUSED = "unused"


def column_of(records: pa.Table, name: str) -> pa.Array:
    if name not in records.column_names:
        raise ValueError(f"records without the column {name!r}: have {', '.join(records.column_names)}")
    column = records.column(name).combine_chunks()
    assert isinstance(column, pa.Array)
    return column


def _unit(text: str) -> float:
    """A number in [0, 1) that the text alone decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _check_protocol(train: tuple[Any, ...], validation: tuple[Any, ...], test: tuple[Any, ...], what: str) -> None:
    named = [*train, *validation, *test]
    if not train or not test:
        raise ValueError(f"train={train}, test={test}: name {what} to train on and {what} to test on")
    if len(set(named)) != len(named):
        raise ValueError(f"train={train}, validation={validation}, test={test}: use each of the {what} once")


@dataclass(frozen=True, kw_only=True)
class FoldProtocol:
    """Splits by the source's own folds; a record in no named fold is unused.

    An empty validation tuple says that nothing is chosen on data: see `PAPER_FOLDS`.
    """

    train: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    validation: tuple[int, ...] = (9,)
    test: tuple[int, ...] = (10,)

    def __post_init__(self) -> None:
        _check_protocol(self.train, self.validation, self.test, "folds")

    @property
    def has_validation(self) -> bool:
        return bool(self.validation)

    def to_dict(self) -> dict[str, Any]:
        return {"by": "fold", **asdict(self)}

    def split(self, records: pa.Table) -> np.ndarray:
        """The split of each record, (N,) of `Split` values. Needs the column `fold` (null: unused)."""
        fold_N = column_of(records, "fold").fill_null(-1).to_numpy()
        split_N = np.full(len(fold_N), Split.UNUSED, dtype="<U10")
        for split, folds in ((Split.TRAIN, self.train), (Split.VALIDATION, self.validation), (Split.TEST, self.test)):
            split_N[np.isin(fold_N, folds)] = split
        return split_N


@dataclass(frozen=True, kw_only=True)
class PartitionProtocol:
    """Splits by the source's partitions, with a share of the training patients set aside to validate.

    A patient (a record where no patient is known) is drawn by a hash of the seed and the id, so partitions that are
    harmonized later move nobody from one split to another.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    validation_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        _check_protocol(self.train, (), self.test, "partitions")
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"validation_share={self.validation_share}: use a share from 0 to below 1")

    @property
    def has_validation(self) -> bool:
        return self.validation_share > 0

    def to_dict(self) -> dict[str, Any]:
        return {"by": "partition", **asdict(self)}

    def split(self, records: pa.Table) -> np.ndarray:
        """The split of each record, (N,) of `Split` values. Needs `partition`, `patient_id` and `record_id`."""
        partition_N = np.asarray(column_of(records, "partition").to_pylist(), dtype=object)
        split_N = np.full(len(partition_N), Split.UNUSED, dtype="<U10")
        split_N[np.isin(partition_N, self.test)] = Split.TEST
        training_N = np.isin(partition_N, self.train)
        aside_N = np.array([_unit(f"{self.seed}:{p}") < self.validation_share for p in patients(records)], dtype=bool)
        split_N[training_N & ~aside_N] = Split.TRAIN
        split_N[training_N & aside_N] = Split.VALIDATION
        return split_N


@dataclass(frozen=True, kw_only=True)
class PatientProtocol:
    """Splits by patient (by record where no patient is known), for sources without a split of their own.

    A patient is drawn by a hash of the seed and the id, so partitions that come later move nobody.
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
        return self.validation_share > 0

    def to_dict(self) -> dict[str, Any]:
        return {"by": "patient", **asdict(self)}

    def split(self, records: pa.Table) -> np.ndarray:
        """The split of each record, (N,) of `Split` values. Needs `patient_id` and `record_id`."""
        drawn_N = np.array([_unit(f"{self.seed}:{patient}") for patient in patients(records)])
        split_N = np.full(len(drawn_N), Split.TRAIN, dtype="<U10")
        split_N[drawn_N < self.test_share + self.validation_share] = Split.VALIDATION
        split_N[drawn_N < self.test_share] = Split.TEST
        return split_N


@dataclass(frozen=True, kw_only=True)
class FewLabels:
    """Another protocol with the labels of some training patients alone: a percentage, at least one patient.

    Patients are taken in the order of a hash of the seed and the id, so what is taken of fewer is part of what is taken
    of more. Validation and test are the other protocol's, so a choice is made on more labels than a probe is fitted on.
    """

    of: Protocol
    percent: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise ValueError(f"percent={self.percent}: use a percentage above 0, at most 100")

    @property
    def has_validation(self) -> bool:
        return self.of.has_validation

    def to_dict(self) -> dict[str, Any]:
        return {"by": "few labels", "of": self.of.to_dict(), "percent": self.percent, "seed": self.seed}

    def split(self, records: pa.Table) -> np.ndarray:
        """The split of each record, (N,) of `Split` values; the training patients that are not taken are unused."""
        split_N = self.of.split(records)
        patient_N = np.asarray(patients(records), dtype=object)
        training = sorted(set(patient_N[split_N == Split.TRAIN]), key=lambda patient: _unit(f"{self.seed}:{patient}"))
        taken = training[: max(1, round(len(training) * self.percent / 100))]
        split_N[(split_N == Split.TRAIN) & ~np.isin(patient_N, taken)] = Split.UNUSED
        return split_N


Protocol = FoldProtocol | PartitionProtocol | PatientProtocol | FewLabels


def protocol_from_dict(values: Mapping[str, Any]) -> Protocol:
    """The inverse of a protocol's `to_dict`, also of one that went through JSON."""
    if values["by"] == "few labels":
        return FewLabels(of=protocol_from_dict(values["of"]), percent=values["percent"], seed=values["seed"])
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name != "by"
    }
    kinds = {"fold": FoldProtocol, "partition": PartitionProtocol, "patient": PatientProtocol}
    return kinds[values["by"]](**fields)


PAPER_FOLDS = FoldProtocol(train=(1, 2, 3, 4, 5, 6, 7, 8, 9), validation=(), test=(10,))
"""The ECG-JEPA paper's protocol on PTB-XL: folds 1-9 train, 10 tests, nothing is chosen on a validation fold."""

_RECORD = "record "


def patients(records: pa.Table) -> list[str]:
    """Whom each record is from: `patient_id`, or the record itself where no patient is known."""
    pairs = zip(column_of(records, "patient_id").to_pylist(), column_of(records, "record_id").to_pylist(), strict=True)
    return [f"{_RECORD}{record}" if patient is None else f"patient {patient}" for patient, record in pairs]


def unnamed(who: Sequence[str]) -> int:
    """How many of them, as `patients` calls them, are records of which no patient is known."""
    return sum(one.startswith(_RECORD) for one in who)


def drawn_by(records: int, unnamed: int) -> str:
    """What splits and resamples of so many records are drawn by, in words. unnamed: those of which no patient is known,
    each of which is drawn alone."""
    if unnamed == records:
        return "ECG (the source names no patients)"
    return "patient" if not unnamed else "patient, and by ECG where no patient is named"


def of_patients(records: int, patients: int, unnamed: int) -> str:
    """`120 ECGs of 60 patients`, where they are named. patients: with an unnamed record as one of its own."""
    if unnamed == records:
        return f"{records:,} ECGs, patients not named"
    rest = f" and {unnamed:,} of no named patient" if unnamed else ""
    return f"{records - unnamed:,} ECGs of {patients - unnamed:,} patients{rest}"


def require_whole_patients(task: str, patient_N: np.ndarray, split_N: np.ndarray) -> None:
    """No patient on both sides: a probe that has seen the patient is not tested. Raises ValueError where one is."""
    used_N = split_N != Split.UNUSED
    pairs = set(zip(patient_N[used_N].tolist(), split_N[used_N].tolist(), strict=True))
    torn = sorted(patient for patient, splits in Counter(patient for patient, _ in pairs).items() if splits > 1)
    if torn:
        raise ValueError(
            f"task {task}: {len(torn)} patients are in more than one split, such as {torn[0]}: "
            "use folds or partitions that keep a patient's records together"
        )
