"""Names that other programs read: aliases of a model, and tags of its versions."""

from __future__ import annotations

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"

CORPUS_SETTINGS = "corpus_settings"
"""The tag of a version with the settings of the corpus that it was trained on."""

ECGS = "ecgs"
"""The tag of a version that says whether these were recorded or simulated (`kind_of`); one that lacks it is taken for
either here."""


def kind_of(*, simulated: bool) -> str:
    """What the tag ECGS says of ECGs that a program drew, and of others."""
    return "simulated" if simulated else "recorded"
