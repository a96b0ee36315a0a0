"""The check on a training finds a collapse and a divergence."""

from dataclasses import replace

import pytest

from pipelines.cache import Workspace
from pipelines.corpus.step import CorpusFacts
from pipelines.pretrain.checks import training_went_well
from pipelines.pretrain.recipes import recipe_named
from pipelines.pretrain.step import EncoderFacts, materialize_encoder


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


def test_few_validation_ecgs_are_no_collapse():
    found = training_went_well(replace(summary(std=0.0, rank=0.0), validation_records=1))
    assert not found.holds
    assert "cannot be judged on 1 validation ECGs" in found.seen
    assert "collapse" not in found.seen


def test_a_corpus_that_cannot_be_judged_is_refused_before_the_training(tmp_path):
    workspace = Workspace(tmp_path)
    facts = CorpusFacts(considered=3, train=2, validation=1, excluded={}, by_source={}, patients=3, digest="d")
    workspace.build("corpus", version="1", config={}, inputs={}, make=lambda folder: facts.to_dict())
    with pytest.raises(ValueError, match="2 ECGs to train on and 1 to validate on: at least 4 are needed"):
        materialize_encoder(workspace, recipe_named("demo"), pytest.fail)
