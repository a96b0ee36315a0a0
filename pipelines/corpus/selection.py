"""Which harmonized records enter the corpus: no duplicates, and no record, copy or patient of an evaluation set."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pipelines.records import absent_leads

Person = tuple[str, str, str]


class Exclusion(StrEnum):
    """Why a harmonized record is not in the corpus. The list is closed."""

    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near duplicate"
    EVALUATION_RECORD = "evaluation record"
    EVALUATION_COPY = "copy of an evaluation record"
    EVALUATION_PATIENT = "evaluation patient"
    LEADS_ABSENT = "leads not recorded"


@dataclass(frozen=True)
class Candidate:
    """A harmonized record as the corpus sees it."""

    shard: str
    row: int
    source: str
    record_id: str
    patient_id: str | None
    content_hash: str
    notes: tuple[str, ...] = ()
    fold: int | None = None

    @property
    def person(self) -> Person:
        """Who it is of: the source's patient, or the record alone where no patient is known."""
        if self.patient_id is None:
            return (self.source, "record", self.record_id)
        return (self.source, "patient", self.patient_id)


def select(
    rows: Sequence[Candidate], held_out: Sequence[Candidate], copy_of: Sequence[int]
) -> tuple[list[Candidate], list[dict[str, str]]]:
    """What stays, and what is excluded as rows of EXCLUSIONS. Evaluation wins over pretraining; of equals, the first.

    copy_of: for each of held_out and then of rows, the number of the first that is the same recording, as
    `pipelines.formats.simhash.first_copies` gives it. Records are equal where the harmonized bytes are, and nearly so
    where the first copy is one. A patient with an ECG that is evaluated on is an evaluated patient, in whatever source.
    Only ECGs with all eight leads stay.
    """
    copies = copy_of[len(held_out) :]
    held_hashes = {row.content_hash: row for row in held_out}
    held_patients = {row.person for row in held_out}
    patients, groups = _evaluated(rows, copies, held_patients, set(copy_of[: len(held_out)]))
    first: dict[str, Candidate] = {}
    first_near: dict[int, Candidate] = {}
    kept: list[Candidate] = []
    excluded: list[dict[str, str]] = []
    for row, copy in zip(rows, copies, strict=True):
        if row.content_hash in held_hashes:
            reason, detail = Exclusion.EVALUATION_RECORD, _same("", held_hashes[row.content_hash])
        elif row.person in held_patients:
            reason, detail = Exclusion.EVALUATION_PATIENT, f"{row.person[1]} {row.person[2]} is evaluated on"
        elif copy < len(held_out):
            reason, detail = Exclusion.EVALUATION_COPY, _same("nearly ", held_out[copy])
        elif row.person in patients or copy in groups:
            reason = Exclusion.EVALUATION_PATIENT
            detail = f"{row.person[1]} {row.person[2]} has an ECG of a patient who is evaluated on"
        elif absent := absent_leads(row.notes):
            # The network has no mask for a lead: it would learn the zeros as an ECG.
            reason, detail = Exclusion.LEADS_ABSENT, ", ".join(absent)
        elif row.content_hash in first:
            reason, detail = Exclusion.DUPLICATE, _same("", first[row.content_hash])
        elif copy in first_near:
            reason, detail = Exclusion.NEAR_DUPLICATE, _same("nearly ", first_near[copy])
        else:
            first[row.content_hash] = first_near[copy] = row
            kept.append(row)
            continue
        excluded.append(
            {
                "shard": row.shard,
                "source": row.source,
                "record_id": row.record_id,
                "reason": reason.value,
                "detail": detail,
            }
        )
    return kept, excluded


def _same(how: str, other: Candidate) -> str:
    return f"{how}the same signal as {other.record_id} of {other.shard}"


def _evaluated(
    rows: Sequence[Candidate], copies: Sequence[int], patients: Collection[Person], groups: Collection[int]
) -> tuple[set[Person], set[int]]:
    """The persons and the groups of copies that evaluation reaches: from one to the other until there are no more."""
    persons, reached = set(patients), set(groups)
    while True:
        found = [(row.person, copy) for row, copy in zip(rows, copies, strict=True)]
        found = [(person, copy) for person, copy in found if (person in persons) != (copy in reached)]
        if not found:
            return persons, reached
        persons.update(person for person, _ in found)
        reached.update(copy for _, copy in found)
