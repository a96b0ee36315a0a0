"""Recipes: their values, changes by field, and when an online probe is due."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from pipelines.pretrain.recipes import RECIPES, Recipe, differences, recipe_named


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_json_and_have_a_digest_of_their_own(name: str) -> None:
    recipe = recipe_named(name)
    assert recipe.name == name
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert again.digest == recipe.digest
    assert len({recipe_named(other).digest for other in RECIPES}) == len(RECIPES)
    assert dataclasses.replace(recipe, seed=1).digest != recipe.digest


def test_the_paper_recipes_have_the_published_numbers() -> None:
    block, random = recipe_named("paper_block"), recipe_named("paper_random")
    for recipe in (block, random):
        assert (recipe.jepa.encoder.dim, recipe.jepa.encoder.depth, recipe.jepa.encoder.heads) == (768, 12, 16)
        assert (recipe.jepa.predictor.dim, recipe.jepa.predictor.depth, recipe.jepa.predictor.heads) == (384, 6, 12)
        assert (recipe.jepa.encoder.input_scale, recipe.jepa.encoder.patch_init_scale) == (1.0, 1.0)
        assert (recipe.epochs, recipe.warmup_share, recipe.edge_lr, recipe.weight_decay) == (100, 0.05, 1e-6, 0.05)
        assert (recipe.ema_start, recipe.ema_end) == (0.996, 1.0)
    assert (block.jepa.masking.kind, block.batch, block.peak_lr) == ("block", 64, 5e-5)
    assert (random.jepa.masking.kind, random.batch, random.peak_lr) == ("random", 128, 2.5e-5)
    assert block.total_steps(174_140) == 174_140 * 100 // 64


def test_changes_are_parsed_by_the_fields_type_and_checked_together() -> None:
    changed = recipe_named("demo", {"jepa.encoder.dim": "120", "jepa.encoder.heads": 5, "peak_lr": "2e-3"})
    assert (changed.jepa.encoder.dim, changed.jepa.encoder.heads, changed.peak_lr) == (120, 5, 0.002)
    assert recipe_named("demo", {"epochs": 2, "steps": None}) == recipe_named("demo", {"epochs": "2", "steps": "none"})
    assert recipe_named("demo", {"epochs": 2}) == recipe_named("demo", {"epochs": 2, "steps": None})
    assert recipe_named("small", {"steps": 2}) == recipe_named("small", {"epochs": None, "steps": 2})
    assert recipe_named("demo", {"jepa.masking.ratio": [0.3, 0.5]}).jepa.masking.ratio == (0.3, 0.5)
    assert recipe_named("demo", {"peak_lr": 1e-3}).digest == recipe_named("demo", {"peak_lr": "0.001"}).digest


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"batch": 0}, "batch=0"),
        ({"batch": 2.5}, "batch='2.5': use a value of type int"),
        ({"peak_lr": "nan"}, "peak_lr=nan"),
        ({"edge_lr": 0.5}, "edge_lr=0.5"),
        ({"epochs": 3, "steps": 9}, "set one of them, the other to none"),
        ({"steps": None}, "set one of them, the other to none"),
        ({"warmup_share": 1}, "warmup_share=1.0"),
        ({"ema_start": 1.1}, "ema_start=1.1"),
        ({"ema_end": 0.5}, "ema_end=0.5"),
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"name": "../up"}, "name='../up'"),
        ({"seed": -1}, "seed=-1"),
        ({"clip_norm": 0}, "clip_norm=0.0"),
        ({"warm_start": "models:/ecg-encoder@champion"}, "use the sha256 of an encoder's file"),
        ({"probe_epochs": -1}, "probe_epochs=-1.0"),
        ({"select": "first"}, "select='first'"),
        ({"jepa.masking.per_record": "maybe"}, "jepa.masking.per_record='maybe': use true or false"),
        ({"jepa.encoder": 3}, "jepa.encoder: set one of its fields, such as jepa.encoder.dim"),
        ({"batch.size": 3}, "batch.size: batch has no fields; set batch itself"),
        ({"jepa.encoder.width": 3}, "EncoderConfig has no field 'width'"),
        ({"jepa.masking.ratio": "wide"}, "use a list of numbers"),
        ({"jepa.encoder.leads": 5}, "jepa.encoder.leads=5: use the 8 leads of an ECG, or 12"),
        ({"jepa.encoder.patches": 51}, "jepa.encoder.patches=51: a window of 10.2 s: ECGs have 10 s, use fewer patch"),
        ({"jepa.encoder.patches": 4}, "masking.block_ratio=(0.175, 0.225): use larger shares: they hide none of 4"),
        ({"cpc.horizon": 3}, "cpc.horizon: this recipe has no cpc: use a recipe that has it"),
    ],
)
def test_a_bad_change_names_its_field(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        recipe_named("demo", changes)


@pytest.mark.parametrize(
    ("name", "changes", "complaint"),
    [
        ("small_cpc", {"cpc.encoder.samples": 624}, "samples=624: use a multiple of token_samples=5"),
        ("paper_cpc", {"cpc.encoder.samples": 612}, "samples=612: use a multiple of 24, so that a window is a whole"),
        ("small_cpc", {"cpc.encoder.samples": 2505}, "cpc.encoder.samples=2505: a window of 10.02 s: ECGs have 10 s"),
        ("paper_cpc", {"cpc.encoder.samples": 2424}, "cpc.encoder.samples=2424: a window of 10.1 s"),
        ("small_cpc", {"cpc.encoder.rate": 20}, "rate=20: use 50 to 1000 samples a second"),
        ("small_cpc", {"cpc.encoder.leads": 3}, "leads=3: use 8 or 12 leads"),
        ("small_cpc", {"cpc.encoder.causal": "false"}, "causal=False: use a causal encoder"),
        ("small_cpc", {"cpc.horizon": 125}, "horizon=125: use less than the 125 tokens of a window"),
        ("small_cpc", {"cpc.negatives": 0}, "negatives=0: use at least 1"),
        ("small_cpc", {"cpc.encoder.stem_kernel": -5}, "stem_kernel=-5: use an odd number"),
        ("small_cpc", {"jepa.encoder.dim": 96}, "jepa.encoder.dim: this recipe has no jepa"),
        ("small_cpc", {"cpc.encoder.network": "s4"}, "the kind of a part follows from the recipe"),
        ("small_s4", {"jepa.predictor.heads": 2}, "S4PredictorConfig has no field 'heads'"),
        ("small_s4", {"jepa.encoder.samples": 5}, "masking.block_ratio=(0.15, 0.2): use larger shares: they hide none"),
        ("small_s4", {"jepa.encoder.samples": 5000}, "jepa.encoder.samples=5000: a window of 20 s"),
    ],
)
def test_parts_that_do_not_fit_each_other_or_the_ecgs_are_refused(
    name: str, changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        recipe_named(name, changes)


def test_objective_and_encoder_of_two_kinds_are_refused() -> None:
    small, s4, cpc = (recipe_named(name).to_dict() for name in ("small", "small_s4", "small_cpc"))
    with pytest.raises(ValueError, match=r"predictor.network='transformer': use that of the encoder, 's4'"):
        Recipe.from_dict(s4 | {"jepa": s4["jepa"] | {"predictor": small["jepa"]["predictor"]}})
    with pytest.raises(ValueError, match="S4EncoderConfig has no field 'attention'"):
        Recipe.from_dict(cpc | {"cpc": cpc["cpc"] | {"encoder": small["jepa"]["encoder"]}})
    with pytest.raises(ValueError, match="jepa and cpc: both are set"):
        Recipe.from_dict(small | {"cpc": cpc["cpc"]})
    with pytest.raises(ValueError, match="jepa and cpc: neither is set"):
        Recipe.from_dict(small | {"jepa": None})


def test_parts_of_a_batch_are_refused_where_it_has_statistics_of_its_own() -> None:
    recipe_named("small").require_even_shares(processes=2, accumulate=4)
    for name in ("small_cpc", "paper_cpc", "small_s4"):
        recipe_named(name).require_even_shares(processes=2, accumulate=1)
        with pytest.raises(ValueError, match=r"accumulate=2: the batch norm of this recipe's encoder .* use 1"):
            recipe_named(name).require_even_shares(processes=1, accumulate=2)


def test_differences_are_named_by_their_path() -> None:
    before, after = recipe_named("demo"), recipe_named("demo", {"jepa.encoder.depth": 7, "seed": 3})
    assert differences(before.to_dict(), before.to_dict()) == []
    depth = before.jepa.encoder.depth
    assert differences(before.to_dict(), after.to_dict()) == [f"jepa.encoder.depth: {depth} -> 7", "seed: 0 -> 3"]


def test_probes_fall_after_every_so_many_epochs_and_after_the_last_step() -> None:
    recipe = recipe_named("demo", {"batch": 4, "steps": 23, "probe_epochs": 1.5})
    assert [step + 1 for step in range(23) if recipe.probe_due(step, 10)] == [4, 8, 12, 15, 19, 23]
    assert not any(dataclasses.replace(recipe, probe_epochs=None).probe_due(step, 10) for step in range(23))
