"""Select the harmonized records of the corpus: no duplicates, and no record, copy or patient of an evaluation set."""

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
    """A harmonized record, with what decides on its selection."""

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
        """The source's patient, or the record itself if no patient is known."""
        if self.patient_id is None:
            return (self.source, "record", self.record_id)
        return (self.source, "patient", self.patient_id)


def select(
    rows: Sequence[Candidate], held_out: Sequence[Candidate], copy_of: Sequence[int]
) -> tuple[list[Candidate], list[dict[str, str]]]:
    """Return the selected records, and the excluded ones as rows of EXCLUSIONS.

    copy_of: for each of held_out and then of rows, the number of the first that is the same recording, as
    `pipelines.formats.simhash.first_copies` gives it.

    Evaluation takes precedence over pretraining; of equal records the first is selected. Records are equal if the
    harmonized bytes are, and nearly equal if they share the first copy. A patient with any ECG in an evaluation set is
    excluded from pretraining in every source. Only ECGs with all eight leads are selected.
    """
    copies = copy_of[len(held_out) :]
    evaluated_hashes = {row.content_hash: row for row in held_out}
    evaluated_patients = {row.person for row in held_out}
    patients, groups = _evaluated(rows, copies, evaluated_patients, set(copy_of[: len(held_out)]))
    first: dict[str, Candidate] = {}
    first_near: dict[int, Candidate] = {}
    selected: list[Candidate] = []
    excluded: list[dict[str, str]] = []
    for row, copy in zip(rows, copies, strict=True):
        if row.content_hash in evaluated_hashes:
            reason, detail = Exclusion.EVALUATION_RECORD, _same("", evaluated_hashes[row.content_hash])
        elif row.person in evaluated_patients:
            reason, detail = Exclusion.EVALUATION_PATIENT, f"{row.person[1]} {row.person[2]} is evaluated on"
        elif copy < len(held_out):
            reason, detail = Exclusion.EVALUATION_COPY, _same("nearly ", held_out[copy])
        elif row.person in patients or copy in groups:
            reason = Exclusion.EVALUATION_PATIENT
            detail = f"{row.person[1]} {row.person[2]} has an ECG of a patient who is evaluated on"
        elif absent := absent_leads(row.notes):
            # The network has no mask for an absent lead: it would learn the zeros as an ECG.
            reason, detail = Exclusion.LEADS_ABSENT, ", ".join(absent)
        elif row.content_hash in first:
            reason, detail = Exclusion.DUPLICATE, _same("", first[row.content_hash])
        elif copy in first_near:
            reason, detail = Exclusion.NEAR_DUPLICATE, _same("nearly ", first_near[copy])
        else:
            first[row.content_hash] = first_near[copy] = row
            selected.append(row)
            continue
        where = {"shard": row.shard, "source": row.source, "record_id": row.record_id}
        excluded.append({**where, "reason": reason.value, "detail": detail})
    return selected, excluded


def _same(how: str, other: Candidate) -> str:
    return f"{how}the same signal as {other.record_id} of {other.shard}"


def _evaluated(
    rows: Sequence[Candidate], copies: Sequence[int], patients: Collection[Person], groups: Collection[int]
) -> tuple[set[Person], set[int]]:
    """Return the persons and the groups of copies that evaluation reaches.

    A person's ECGs reach their copies, and a copy reaches its person, until there are no more.
    """
    persons, reached = set(patients), set(groups)
    while True:
        pairs = [(row.person, copy) for row, copy in zip(rows, copies, strict=True)]
        half_reached = [(person, copy) for person, copy in pairs if (person in persons) != (copy in reached)]
        if not half_reached:
            return persons, reached
        persons.update(person for person, _ in half_reached)
        reached.update(copy for _, copy in half_reached)
