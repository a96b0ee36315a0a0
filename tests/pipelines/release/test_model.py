"""What a release says of itself."""

from __future__ import annotations

import math

import pytest

from pipelines.release.model import Scores


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"validation": 1.2, "data_digest": "d"}, "between 0 and 1"),
        ({"validation": math.nan, "data_digest": "d"}, "between 0 and 1"),
        ({"validation": 0.8}, "give both"),
        ({"data_digest": "d"}, "give both"),
        ({"metrics": {"loss": math.inf}}, "loss"),
    ],
)
def test_scores_that_cannot_be_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scores(**wrong)
