"""The trainings that the settings of scaling curves mean, and what is refused before any of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.cache import Workspace
from pipelines.corpus.subset import Subset
from pipelines.evaluate.scaling.config import ScalingConfig
from pipelines.evaluate.scaling.cost import measured_speeds, networks, run_flops, seconds_of
from pipelines.evaluate.scaling.plan import planned, recipe_on
from pipelines.pretrain.recipes import recipe_named
from tests.support.labelled_shards import labelled_workspace
from tests.support.pretraining import small_home

WHOLE = 1000
TENTH = Subset(share=0.1, seed=3, rows_N=np.zeros(0, bool), records=100, patients=80)
ALL = replace(TENTH, share=1.0, records=WHOLE)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A corpus of 30 ECGs of as many people, and labelled ECGs of PTB-XL."""
    root, _ = small_home(tmp_path_factory.mktemp("plan"))
    return labelled_workspace(root, (10,))


def test_at_fixed_epochs_each_ecg_is_drawn_as_often() -> None:
    for changes in ({"epochs": 8}, {"steps": 250}):  # of batches of 32: 8 epochs of a thousand ECGs
        recipe = recipe_named("demo", changes)
        tenth = recipe_on(recipe, TENTH, fixed="epochs", whole=WHOLE)
        assert (recipe.total_steps(WHOLE), tenth.total_steps(100)) == (250, 25)
        assert tenth.seed == 3


def test_at_fixed_updates_each_share_has_as_many() -> None:
    for changes in ({"epochs": 8}, {"steps": 250}):
        recipe = recipe_named("demo", changes)
        tenth = recipe_on(recipe, TENTH, fixed="updates", whole=WHOLE)
        assert tenth.total_steps(100) == recipe.total_steps(WHOLE) == 250
        probes = [one.probe_due(step, n) for one, n in ((tenth, 100), (recipe, WHOLE)) for step in range(250)]
        assert probes[:250] == probes[250:]
    assert recipe_on(recipe_named("demo", {"probe_epochs": "none"}), TENTH, fixed="updates", whole=WHOLE).steps == 500


@pytest.mark.parametrize("fixed", ["epochs", "updates"])
def test_the_whole_corpus_has_the_recipe_as_it_is_but_for_the_seed(fixed: Any) -> None:
    recipe = recipe_named("demo", {"epochs": 8})
    assert recipe_on(recipe, ALL, fixed=fixed, whole=WHOLE) == replace(recipe, seed=3)


def test_runs_are_named_by_what_they_are(workspace: Workspace) -> None:
    config = ScalingConfig(
        recipes=("demo", "demo:name=wide,jepa.encoder.dim=120,batch=8"),
        changes=("steps=20",),
        shares=(1.0, 0.5),
        seeds=(4, 0),
    )
    plan = planned(workspace, config)
    assert [run.name for run in plan.runs] == [
        "demo-epochs-50-seed-4",
        "wide-epochs-50-seed-4",
        "demo-epochs-50-seed-0",
        "wide-epochs-50-seed-0",
        "demo-100-seed-4",
        "wide-100-seed-4",
        "demo-100-seed-0",
        "wide-100-seed-0",
    ]
    wide = plan.runs[1].recipe
    assert (wide.encoder.dim, wide.batch, plan.runs[5].steps) == (120, 8, 20)
    assert list(plan.few_labels) == [1, 10]
    assert not planned(workspace, replace(config, evaluation="ptbxl_superclass__fine_tuned")).few_labels


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"shares": (0.1, 0.0)}, "shares=0: use shares above 0 and up to 1"),
    ({"shares": (1.5,)}, "shares=1.5: use shares above 0"),
    ({"shares": (float("nan"),)}, "shares=nan: use shares"),
    ({"shares": (0.5, 0.5)}, "0.5 is given twice"),
    ({"shares": ()}, r"shares=\(\): give at least one"),
    ({"seeds": (1, 1)}, "1 is given twice"),
    ({"seeds": (-1,)}, "seeds=-1: use numbers from 0"),
    ({"seeds": ()}, r"seeds=\(\): give at least one"),
    ({"recipes": ()}, r"recipes=\(\): give at least one"),
    ({"recipes": ("nope",)}, "recipe 'nope': use demo"),
    ({"recipes": ("demo", "demo:steps=3")}, "two curves are named 'demo'.*demo:name=demo-2"),
    ({"recipes": ("demo:steps",)}, "change 'steps' of a recipe: write FIELD=VALUE"),
    ({"changes": ("wrong=1",)}, "Recipe has no field 'wrong'"),
    ({"changes": ("seed=1",)}, "seed=1: give seeds=1 instead"),
    ({"changes": (f"warm_start={'0' * 64}",)}, "a curve begins at random weights"),
    ({"fixed": "hours"}, "fixed='hours': use 'epochs' or 'updates'"),
    ({"evaluation": "nope"}, "evaluation 'nope': begin with one of"),
]


@pytest.mark.parametrize(("settings", "says"), REFUSED)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ScalingConfig(**settings)


def test_what_this_corpus_cannot_do_is_refused_before_a_training(workspace: Workspace, tmp_path: Path) -> None:
    for config, says in (
        (
            ScalingConfig(shares=(0.01, 1.0)),
            "shares=0.01: of the corpus's 2. training patients it is 0, and at least 4",
        ),
        (ScalingConfig(shares=(0.5, 0.51)), "both are the same"),
        (ScalingConfig(evaluation="cpsc2018"), "evaluation='cpsc2018': no ECGs of cpsc2018"),
    ):
        with pytest.raises(ValueError, match=says):
            planned(workspace, config)
    assert not workspace.folder("scaling").exists()
    with pytest.raises(ValueError, match="'corpus' is not built"):
        planned(Workspace(tmp_path), ScalingConfig())
    small_home(tmp_path, ecgs=6)
    labelled_workspace(tmp_path, (10,))
    with pytest.raises(ValueError, match="to validate on: at least 4 are needed"):
        planned(Workspace(tmp_path), ScalingConfig(shares=(1.0,)))


def test_the_cost_is_of_the_updates_at_a_speed_that_was_measured(workspace: Workspace) -> None:
    half, whole = planned(workspace, ScalingConfig(shares=(0.5, 1.0), seeds=(0,), changes=("steps=20",))).runs
    assert run_flops(half) == pytest.approx(run_flops(whole) * half.steps / whole.steps)
    assert seconds_of(whole, {}) is None
    demo, small, cpc = (networks(recipe_named(name, {"seed": 9})) for name in ("demo", "small", "small_cpc"))
    assert seconds_of(whole, {demo: 64.0, small: 1.0}) == pytest.approx(20 * 32 / 64)
    by_small = seconds_of(whole, {small: 64.0})
    assert by_small is not None
    assert by_small < 20 * 32 / 64  # an ECG costs demo fewer FLOPs than small
    by_nearest = seconds_of(whole, {small: 64.0, cpc: 64.0})
    assert by_nearest == seconds_of(whole, {cpc: 64.0}) != by_small


def test_speeds_are_those_of_trainings_that_ended_here(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for name, seed, speed in (("encoder", 0, 40.0), ("scaling/encoder/demo-100-seed-1", 1, 50.0)):

        def make(folder: Path, seed: int = seed, speed: float = speed) -> dict[str, Any]:
            (folder / "aside").mkdir()
            (folder / "aside" / "timing.json").write_text(json.dumps({"samples_per_second": speed}))
            return {"recipe": recipe_named("demo", {"seed": seed}).to_dict()}

        workspace.build(name, version="1", config={}, inputs={}, make=make)
    assert measured_speeds(workspace) == {networks(recipe_named("demo")): 50.0}
