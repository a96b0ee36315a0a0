"""Select the harmonized records of the corpus: no duplicates, and no record, copy or patient of an evaluation set."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ecg_foundry.layout import absent_leads

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
        return person_of(self.source, self.patient_id, self.record_id)


def person_of(source: str, patient_id: str | None, record_id: str) -> Person:
    """Return a source's patient, or the record itself if no patient is known."""
    return (source, "record", record_id) if patient_id is None else (source, "patient", patient_id)


def select(
    rows: Sequence[Candidate], held_out: Sequence[Candidate], copies: Sequence[Sequence[int]]
) -> tuple[list[Candidate], list[dict[str, str]]]:
    """Return the selected records, and the excluded ones as rows of EXCLUSIONS.

    copies: for each of held_out and then of rows, the numbers of those that it is a copy of, as
    `pipelines.corpus.copies.copies_of` gives them.

    Evaluation takes precedence over pretraining; of equal records the first is selected. Records are equal if the
    harmonized bytes are, and nearly equal if the one that is selected is among the originals of the other. A patient
    with any ECG in an evaluation set is excluded from pretraining in every source. So are those who share an ECG with
    such a patient, through any number of copies: a leak is worse than an ECG less. Only ECGs with all eight leads are
    selected.
    """
    everyone, copies = [*held_out, *rows], copies[len(held_out) :]
    evaluated_hashes = {row.content_hash: row for row in held_out}
    evaluated_patients = {row.person for row in held_out}
    persons = [row.person for row in rows]
    patients, reached = _evaluated(persons, copies, evaluated_patients, range(len(held_out)))
    first: dict[str, Candidate] = {}
    selected: list[Candidate] = []
    excluded: list[dict[str, str]] = []
    for row, person, originals in zip(rows, persons, copies, strict=True):
        if row.content_hash in evaluated_hashes:
            reason, detail = Exclusion.EVALUATION_RECORD, _same("", evaluated_hashes[row.content_hash])
        elif person in evaluated_patients:
            reason, detail = Exclusion.EVALUATION_PATIENT, f"{person[1]} {person[2]} is evaluated on"
        elif originals[0] < len(held_out):
            reason, detail = Exclusion.EVALUATION_COPY, _same("nearly ", held_out[originals[0]])
        elif person in patients or not reached.isdisjoint(originals):
            reason = Exclusion.EVALUATION_PATIENT
            detail = f"{person[1]} {person[2]} has an ECG of a patient who is evaluated on"
        elif absent := absent_leads(row.notes):
            # The network has no mask for an absent lead: it would learn the zeros as an ECG.
            reason, detail = Exclusion.LEADS_ABSENT, ", ".join(absent)
        elif row.content_hash in first:
            reason, detail = Exclusion.DUPLICATE, _same("", first[row.content_hash])
        elif known := [one for one in originals if everyone[one].content_hash in first]:
            reason, detail = Exclusion.NEAR_DUPLICATE, _same("nearly ", first[everyone[known[0]].content_hash])
        else:
            first[row.content_hash] = row
            selected.append(row)
            continue
        where = {"shard": row.shard, "source": row.source, "record_id": row.record_id}
        excluded.append({**where, "reason": reason.value, "detail": detail})
    return selected, excluded


def _same(how: str, other: Candidate) -> str:
    return f"{how}the same signal as {other.record_id} of {other.shard}"


def _evaluated(
    everyone: Sequence[Person],
    copies: Sequence[Sequence[int]],
    patients: Collection[Person],
    records: Collection[int],
) -> tuple[set[Person], set[int]]:
    """Return the persons and the originals that evaluation reaches.

    A person's ECGs reach their originals, and an original reaches the persons of its copies, until there are no more.
    """
    persons, reached = set(patients), set(records)
    pairs = [(person, original) for person, originals in zip(everyone, copies, strict=True) for original in originals]
    while True:
        half_reached = [pair for pair in pairs if (pair[0] in persons) != (pair[1] in reached)]
        if not half_reached:
            return persons, reached
        persons.update(person for person, _ in half_reached)
        reached.update(original for _, original in half_reached)
