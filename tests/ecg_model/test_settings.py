"""Settings of several kinds: to JSON and back, and what is none of them."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_model.config import (
    AnyEncoderConfig,
    CPCConfig,
    EncoderConfig,
    JEPAConfig,
    MaskingConfig,
    PredictorConfig,
    S4EncoderConfig,
    S4PredictorConfig,
)
from ecg_model.settings import digest, from_dict, part_of, to_dict
from pipelines.pretrain.recipes import Recipe, recipe_named

transformers = st.builds(
    EncoderConfig,
    dim=st.sampled_from([16, 32]),
    heads=st.sampled_from([1, 2, 4]),
    leads=st.sampled_from([8, 12]),
    patches=st.integers(6, 50),
    drop_path=st.floats(0, 0.9),
    attention=st.sampled_from(["cropa", "dense"]),
)
s4s = st.builds(
    S4EncoderConfig,
    leads=st.sampled_from([8, 12]),
    rate=st.sampled_from([240, 250, 500]),
    samples=st.sampled_from([600, 1200]),
    stem_dim=st.integers(1, 64),
    dropout=st.floats(0, 0.9),
    causal=st.booleans(),
)
maskings = st.builds(MaskingConfig, kind=st.sampled_from(["block", "random"]), per_record=st.booleans())
jepas = st.one_of(
    st.builds(JEPAConfig, encoder=transformers, predictor=st.just(PredictorConfig()), masking=maskings),
    st.builds(JEPAConfig, encoder=s4s, predictor=st.just(S4PredictorConfig(depth=2)), masking=maskings),
)
cpcs = st.builds(CPCConfig, encoder=s4s.filter(lambda config: config.causal), horizon=st.integers(1, 20))
recipes = st.one_of(
    st.builds(Recipe, name=st.just("tried"), jepa=jepas),
    st.builds(Recipe, name=st.just("tried"), jepa=st.none(), cpc=cpcs),
)


@given(recipe=recipes)
@settings(deadline=None, max_examples=60)
def test_whatever_its_parts_a_recipe_comes_back_from_json(recipe: Recipe) -> None:
    for whole in (False, True):
        again = Recipe.from_dict(json.loads(json.dumps(to_dict(recipe, whole=whole))))
        assert again == recipe
        assert type(again.encoder) is type(recipe.encoder)
        assert digest(again) == recipe.digest


def test_a_field_that_was_added_is_left_out_while_it_has_its_default() -> None:
    """So the digests of recipes from before it stay; `tests/golden` has them."""
    assert "cpc" not in to_dict(recipe_named("small"))
    assert to_dict(recipe_named("small"), whole=True)["cpc"] is None
    assert to_dict(recipe_named("small_cpc"))["jepa"] is None
    without = {name: value for name, value in to_dict(recipe_named("small"), whole=True).items() if name != "cpc"}
    assert Recipe.from_dict(without) == recipe_named("small")


@pytest.mark.parametrize("kind", ["lstm", 3, ["s4"], {"s4": 1}, True])
def test_an_unknown_kind_names_the_known_ones(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"encoder\.network=.*: use 's4', or leave it out"):
        from_dict(JEPAConfig, {"encoder": {"network": kind}})
    with pytest.raises(ValueError, match=r"config\.network=.*: use 's4', or leave it out"):
        part_of(get_args(AnyEncoderConfig), "config", {"network": kind})


@pytest.mark.parametrize("values", [None, 3, "s4", [{"network": "s4"}]])
def test_a_part_that_is_no_object_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match=r"encoder|EncoderConfig"):
        from_dict(JEPAConfig, {"encoder": values})


def test_a_field_of_another_kind_is_unknown() -> None:
    with pytest.raises(ValueError, match="S4EncoderConfig has no field 'heads'"):
        from_dict(JEPAConfig, {"encoder": {"network": "s4", "heads": 2}, "predictor": {"network": "s4"}})
    with pytest.raises(ValueError, match=r"predictor.network='transformer': use that of the encoder, 's4'"):
        from_dict(JEPAConfig, {"encoder": {"network": "s4"}})
