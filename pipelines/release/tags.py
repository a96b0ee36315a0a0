"""Names that other programs read: aliases of a model, and tags of its versions."""

from __future__ import annotations

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"

CORPUS_SETTINGS = "corpus_settings"
"""The tag of a version with the settings of the corpus that it was trained on, as JSON."""

NOT_SCORED = "not scored"
"""The value of a version's tag `validation` if its gate task could not be scored."""

TRAINED_ON, LICENCE = "trained_on", "licence"
"""Tags of a version with the ECGs that it was pretrained on and their licences, for people."""

ANSWER = "answer"
"""The tag of a version that says what a call returns, for people."""

METHOD = "method"
"""The tag of a version of a classifier of one's own that says how its encoder is read."""

REPORT = "report"
"""The tag of a version with the name of the evaluation report among the artifacts of its run."""

TRAINING_RUN = "training_run"
"""The tag of a version with the id of the run that has the curves of its training."""

RECIPE = "recipe"
"""The tag of a version with the recipe that it was trained with, as JSON. Versions of earlier commits lack it."""

ECGS = "ecgs"
"""The tag of a version that says whether it was trained on recorded or simulated ECGs (`kind_of`). A version of an
earlier commit lacks it and counts as either."""

PRETRAINED_ECGS = "pretrained_ecgs"
"""The tag of a version of a classifier of one's own that says the same of its encoder, if that is known."""

FROM_ENCODER = (TRAINED_ON, LICENCE, TRAINING_RUN, "corpus_digest", ECGS)
"""Tags of an encoder's version that a classifier's version takes over."""


def kind_of(*, simulated: bool) -> str:
    """Return the value of the tag ECGS."""
    return "simulated" if simulated else "recorded"
