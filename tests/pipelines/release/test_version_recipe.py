"""A version stores its recipe as JSON; fields that came or went since are never filled in or dropped silently."""

from typing import Any

import pytest

from pipelines.cache import Workspace
from pipelines.pretrain.recipes import RECIPES, Recipe, recipe_named
from pipelines.release import version_recipe
from pipelines.release.retraining import NotDue, Plan, RetrainingConfig, Training, plan, requested_training
from pipelines.release.version_recipe import FIELDS_ADDED, UnreadableRecipe, leaves, read_recipe
from pipelines.tracking import Tracking
from tests.support.registered import TINY, corpus_built, harmonized, released, trained

CORPUS = "1" * 64

# The fields of the first recipes that were stored on versions.
FIRST_FIELDS = {
    *("name", "batch", "epochs", "steps", "warmup_share", "peak_lr", "edge_lr", "weight_decay", "ema_start", "ema_end"),
    *("precision", "seed", "clip_norm", "warm_start", "probe_epochs", "select"),
    *("jepa.encoder.dim", "jepa.encoder.depth", "jepa.encoder.heads", "jepa.encoder.mlp_ratio", "jepa.encoder.leads"),
    *("jepa.encoder.patches", "jepa.encoder.patch_size", "jepa.encoder.drop_path", "jepa.encoder.input_scale"),
    *("jepa.encoder.patch_init_scale", "jepa.encoder.attention"),
    *("jepa.predictor.dim", "jepa.predictor.depth", "jepa.predictor.heads", "jepa.predictor.mlp_ratio"),
    *("jepa.masking.kind", "jepa.masking.ratio", "jepa.masking.blocks", "jepa.masking.block_ratio"),
    "jepa.masking.per_record",
}


@pytest.fixture
def workspace(home) -> Workspace:
    """With a corpus."""
    made = home.workspace()
    harmonized(made, {"chapman/01": "a", "ptbxl/00000": "p"})
    corpus_built(made, CORPUS)
    return made


def default_training(workspace: Workspace, tracking: Tracking, recipe: str = "") -> Training:
    return requested_training(workspace, tracking, simulated=False, recipe=recipe, changes={}, warm_start="")


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in TINY.to_dict().items() if name != field}


def test_a_field_that_recipes_gain_says_what_trainings_before_it_amount_to():
    assert leaves(Recipe(name="demo").to_dict()).keys() == FIRST_FIELDS | FIELDS_ADDED.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_stored_recipe_is_read_back_without_its_warm_start(name):
    of_objective = {"cpc.horizon": 5} if "cpc" in name else {"jepa.masking.ratio": "[0.55, 0.65]"}
    recipe = recipe_named(name, {**of_objective, "clip_norm": 1 / 3})
    assert read_recipe(recipe.to_dict()) == recipe
    assert read_recipe(recipe.to_dict() | {"warm_start": "a" * 64}) == recipe


def test_a_version_is_read_by_its_json_and_an_earlier_one_by_the_parameters_of_its_run(workspace, tracking):
    released(tracking, CORPUS, TINY, "promoted", champion=True, store_recipe=False)
    assert default_training(workspace, tracking).recipe == TINY
    released(tracking, CORPUS, TINY, "promoted", champion=True, stored=recipe_named("small").to_dict())
    assert default_training(workspace, tracking).recipe == recipe_named("small")


@pytest.mark.parametrize("before", [None, 1.0])
def test_a_recipe_older_than_a_field_has_what_trainings_before_it_amount_to(workspace, tracking, monkeypatch, before):
    """Today's default is none: it is the same training only if those before the field did not clip either."""
    monkeypatch.setitem(version_recipe.FIELDS_ADDED, "clip_norm", before)
    released(tracking, CORPUS, TINY, "promoted", champion=True, stored=without("clip_norm"))
    assert default_training(workspace, tracking).recipe.clip_norm == before
    due = plan(
        workspace, tracking, RetrainingConfig(recipe="demo", changes={"steps": 8, "peak_lr": 1e-3}), simulated=False
    )
    if before is None:
        assert isinstance(due, NotDue), "trained alike"
    else:
        assert isinstance(due, Plan)
        assert due.why.endswith("the champion: clip_norm: 1.0 -> None")


def test_a_recipe_older_than_a_field_of_unknown_meaning_is_not_repeated(workspace, tracking):
    released(tracking, CORPUS, TINY, "promoted", champion=True, stored=without("weight_decay"))
    with pytest.raises(
        ValueError,
        match=r"version 1, .* without the field weight_decay, .*: update the code, or set ECG_RETRAIN_RECIPE",
    ):
        default_training(workspace, tracking)
    assert default_training(workspace, tracking, recipe="demo").recipe == recipe_named("demo")


def test_a_field_that_this_code_does_not_know_is_not_dropped(workspace, tracking, monkeypatch):
    values = TINY.to_dict()
    values["jepa"]["encoder"]["registers"] = 4
    released(tracking, CORPUS, TINY, "promoted", champion=True, stored=values)
    wrong = (
        r"version 1, the champion, was trained by a recipe with jepa.encoder.registers=4, a field that this code does "
        r"not know: update the code, or set ECG_RETRAIN_RECIPE"
    )
    with pytest.raises(ValueError, match=wrong):
        default_training(workspace, tracking)
    with pytest.raises(ValueError, match=wrong):
        plan(workspace, tracking, RetrainingConfig(), simulated=False)
    due = plan(workspace, tracking, RetrainingConfig(recipe="demo"), simulated=False)
    assert isinstance(due, Plan), "another recipe is named"
    assert due.why.endswith("the champion: another recipe")


def test_a_refused_value_names_its_field():
    wrong = read_recipe(TINY.to_dict() | {"precision": "fp8"})
    assert isinstance(wrong, UnreadableRecipe)
    assert "precision='fp8'" in wrong.reason


def test_a_challenger_of_newer_code_does_not_stop_the_default_training(workspace, tracking):
    released(tracking, CORPUS, TINY, "promoted", champion=True)
    released(tracking, CORPUS, TINY, "kept as challenger", stored=TINY.to_dict() | {"teachers": 2})
    assert default_training(workspace, tracking).recipe == TINY
    assert isinstance(plan(workspace, tracking, RetrainingConfig(), simulated=False), NotDue)


def test_an_encoder_of_newer_code_asks_for_a_name_if_there_is_no_champion(workspace, tracking):
    trained(workspace, TINY)
    assert default_training(workspace, tracking).recipe == TINY
    encoder = workspace.require("encoder")
    config = {**encoder.config, "teachers": 2}
    workspace.build(
        "encoder", version=encoder.version, config=config, inputs=encoder.inputs, make=lambda folder: encoder.facts
    )
    with pytest.raises(ValueError, match=r"teachers=2, a field that this code does not know: .* or name a recipe"):
        default_training(workspace, tracking)
