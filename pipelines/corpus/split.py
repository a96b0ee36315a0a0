"""The split of a corpus into training and validation, by patient."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.selection import Candidate, Person
from pipelines.hashing import uniform_from

Split = Literal["train", "validation"]


def split_by_patient(rows: Sequence[Candidate], config: CorpusConfig) -> list[Split]:
    """Return the split of each row, by person: validation if a hash of (seed, person) is below the share.

    A person's draw does not depend on who else is there, so added data moves nobody. One exception keeps small corpora
    usable: if nobody is below the share, the person with the lowest draw validates; if nobody is above, the person with
    the highest trains. Raises ValueError if there are fewer than two persons.
    """
    draws = {person: _draw(config.seed, person) for person in {row.person for row in rows}}
    if len(draws) < 2:
        raise ValueError(
            f"the corpus has {len(rows)} records of {len(draws)} patients: harmonize more, to train and to validate on"
        )
    validating = {person for person, draw in draws.items() if draw < config.validation_share}
    if not validating:
        validating = {min(draws, key=lambda person: (draws[person], person))}
    if len(validating) == len(draws):
        validating.remove(max(draws, key=lambda person: (draws[person], person)))
    return ["validation" if row.person in validating else "train" for row in rows]


def _draw(seed: int, person: Person) -> float:
    """Return a uniform number in [0, 1) that depends on (seed, person) alone."""
    return uniform_from(json.dumps([seed, *person]))
