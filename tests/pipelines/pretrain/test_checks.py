"""The check on a training finds a collapse and a divergence."""

import pytest

from pipelines.pretrain.checks import training_went_well
from pipelines.pretrain.step import EncoderFacts


def summary(*, first: float = 0.5, last: float = 0.3, std: float = 0.1, rank: float = 5.0) -> EncoderFacts:
    return EncoderFacts(first={"loss": first}, last={"loss": last, "embedding_std": std, "effective_rank": rank})


@pytest.mark.parametrize(
    ("changed", "holds"),
    [
        ({}, True),
        ({"last": 0.6}, False),
        ({"last": float("nan")}, False),
        ({"first": float("inf")}, False),
        ({"std": 1e-5}, False),
        ({"rank": float("nan")}, False),
    ],
)
def test_a_training_that_collapsed_or_diverged_is_found(changed, holds):
    assert training_went_well(summary(**changed)).holds is holds
