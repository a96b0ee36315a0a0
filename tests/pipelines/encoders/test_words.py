"""What a page says of an encoder's input and of its method."""

import pytest

from ecg_model.config import EncoderConfig, S4EncoderConfig
from pipelines.encoders.words import input_in_words, method_in_words
from pipelines.pretrain.recipes import RECIPES


def test_inputs_are_told_with_their_scale():
    assert input_in_words(EncoderConfig()) == "leads I, II, V1 to V6, 10 s at 250 Hz, millivolt"
    assert input_in_words(EncoderConfig(leads=12, patches=25, input_scale=5.0)) == (
        "12 leads, computed from I, II, V1 to V6, 5 s at 250 Hz, millivolt times 5"
    )
    assert input_in_words(S4EncoderConfig()) == "12 leads, computed from I, II, V1 to V6, 2.5 s at 240 Hz, millivolt"
    scaled, other = (input_in_words(RECIPES[name]().encoder) for name in ("small", "small_cpc"))
    assert scaled.endswith("millivolt times 5")
    assert other.endswith("millivolt times 5"), "both methods read the same scale"


@pytest.mark.parametrize(
    ("recipe", "method"),
    [
        ("demo", "JEPA on a transformer of patches"),
        ("paper_block", "JEPA on a transformer of patches"),
        ("small_cpc", "CPC on an S4 encoder"),
        ("paper_cpc", "CPC on an S4 encoder"),
        ("small_s4", "JEPA on an S4 encoder"),
    ],
)
def test_the_method_is_that_of_the_recipe(recipe: str, method: str):
    assert method_in_words(RECIPES[recipe]().to_dict()) == method


def test_a_recipe_of_somebody_else_has_no_method():
    assert method_in_words({"name": "reference", "source": {}}) is None
