"""The split of a corpus into training and validation, by patient."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.selection import Candidate, Person
from pipelines.hashing import uniform_from

Split = Literal["train", "validation"]

LEAST_VALIDATION = 4
"""ECGs that validate at least, if they are no more than SMALL_SHARE of all: fewer cannot tell whether an encoder
has collapsed."""
SMALL_SHARE = 0.2


def split_by_patient(rows: Sequence[Candidate], config: CorpusConfig) -> list[Split]:
    """Return the split of each row, by person: validation if a hash of (seed, person) is below the share.

    A person's draw does not depend on who else is there, so added data moves nobody. Small corpora are the exception:
    while fewer than LEAST_VALIDATION ECGs validate, the person with the next lowest draw does, if no more than
    SMALL_SHARE of all ECGs then do. If still nobody validates, the person with the lowest draw does; if nobody trains,
    the person with the highest. Raises ValueError if there are fewer than two persons.
    """
    ecgs = Counter(row.person for row in rows)
    draws = {person: _draw(config.seed, person) for person in ecgs}
    if len(draws) < 2:
        raise ValueError(
            f"the corpus has {len(rows)} records of {len(draws)} patients: harmonize more, to train and to validate on"
        )
    by_draw = sorted(draws, key=lambda person: (draws[person], person))
    validating = {person for person in by_draw if draws[person] < config.validation_share}
    count = sum(ecgs[person] for person in validating)
    for person in by_draw[len(validating) :]:
        if count < LEAST_VALIDATION and count + ecgs[person] <= SMALL_SHARE * len(rows):
            validating.add(person)
            count += ecgs[person]
    validating = validating or {by_draw[0]}
    if len(validating) == len(draws):
        validating.remove(by_draw[-1])
    return ["validation" if row.person in validating else "train" for row in rows]


def _draw(seed: int, person: Person) -> float:
    """Return a uniform number in [0, 1) that depends on (seed, person) alone."""
    return uniform_from(json.dumps([seed, *person]))
