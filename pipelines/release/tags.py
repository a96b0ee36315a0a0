"""Names that other programs read: aliases of a model, and tags of its versions."""

from __future__ import annotations

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"

CORPUS_SETTINGS = "corpus_settings"
"""The tag of a version with the settings of the corpus that it was trained on, as JSON."""

RECIPE = "recipe"
"""The tag of a version with the recipe that it was trained with, as JSON. Versions of earlier commits lack it."""

ECGS = "ecgs"
"""The tag of a version that says whether it was trained on recorded or simulated ECGs (`kind_of`). A version of an
earlier commit lacks it and counts as either."""


def kind_of(*, simulated: bool) -> str:
    """Return the value of the tag ECGS."""
    return "simulated" if simulated else "recorded"
