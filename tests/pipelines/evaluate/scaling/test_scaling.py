"""Scaling curves from end to end on a tiny corpus: trainings, probes, curves, and going on after a kill."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from PIL import Image

from assets.resources import DataHome, Launcher
from assets.scaling import scaling
from ecg_model.encoder_file import load_encoder
from pipelines.cache import Workspace
from pipelines.cli import main
from pipelines.corpus.step import CorpusFacts
from pipelines.evaluate.exposure import Overlaps
from pipelines.evaluate.features import EncoderSource
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.step import ProbeFacts
from pipelines.evaluate.scaling.config import ScalingConfig
from pipelines.evaluate.scaling.facts import ScalingFacts
from pipelines.evaluate.scaling.plan import planned
from pipelines.evaluate.scaling.step import PICTURE_FILE, materialize_scaling, scaling_products, trained_before
from pipelines.pretrain.recipes import recipe_named
from pipelines.pretrain.step import EncoderFacts, materialize_encoder
from tests.support.labelled_shards import labelled_workspace
from tests.support.paths import ROOT
from tests.support.pretraining import TINY, environment, in_this_process, small_home

CHANGES = {**TINY, "steps": 6, "probe_epochs": "none"}
CONFIG = ScalingConfig(
    changes=tuple(f"{name}={value}" for name, value in CHANGES.items()), shares=(0.2, 0.4, 0.7, 1.0), seeds=(0, 1)
)
QUICK = ProbeConfig(resamples=50, min_patients=5, min_positives=1)

PROGRAM = """
import sys
from pathlib import Path
from tests.pipelines.evaluate.scaling.test_scaling import scale
print("ready", flush=True)
scale(Path(sys.argv[1]))
"""


def launch(command: list[str]) -> None:
    code, said = in_this_process(command[3:])
    assert code == 0, said


def not_again(command: list[str]) -> None:
    raise AssertionError(f"trained again: {command}")


def scale(root: Path, run: Callable[[list[str]], None] = launch) -> ScalingFacts:
    return ScalingFacts.of(materialize_scaling(Workspace(root), CONFIG, run, probe=QUICK, device="cpu"))


def digests(root: Path) -> dict[str, str]:
    """The digest of each product of the curves, by its folder."""
    return {
        str(done.parent.relative_to(root)): json.loads(done.read_text())["digest"]
        for kind in ("scaling", "probe")
        for done in sorted((root / kind).rglob("done.json"))
    }


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 30 ECGs, and 60 labelled ECGs of PTB-XL."""
    root, _ = small_home(tmp_path_factory.mktemp("before") / "home")
    labelled_workspace(root, (60,))
    return root


@pytest.fixture(scope="module")
def scaled(before: Path) -> Path:
    """A copy of it, with curves of a recipe on four shares with two seeds each."""
    root = before.with_name("scaled")
    shutil.copytree(before, root)
    scale(root)
    return root


@pytest.mark.slow
def test_a_curve_has_each_share_with_its_seeds(scaled: Path) -> None:
    workspace = Workspace(scaled)
    (product,) = scaling_products(workspace)
    facts, corpus = ScalingFacts.of(product), CorpusFacts.of(workspace.require("corpus"))
    assert product.name == "scaling/curves/ptbxl_superclass-epochs"
    assert json.loads((product.path / "scaling.json").read_text()) == product.facts
    (curve,) = facts.curves
    assert [point.share for point in curve.points] == [0.2, 0.4, 0.7, 1.0]
    assert [point.records for point in curve.points] == [round(s * corpus.train) for s in (0.2, 0.4, 0.7, 1.0)]
    assert (facts.records, facts.corpus_digest) == (corpus.train, corpus.digest)
    plan = planned(workspace, CONFIG)
    for point in curve.points:
        runs = [run for run in plan.runs if run.subset.share == point.share]
        scores = [workspace.require(f"probe/ptbxl_superclass/scaling-{run.name}") for run in runs]
        aucs = [ProbeFacts.of(score).test_macro_auc for score in scores]
        assert point.by_seed == tuple(auc.value for auc in aucs if auc is not None)
        assert point.auc is not None
        assert point.auc.value == pytest.approx(sum(point.by_seed) / 2)
        assert point.auc.low <= point.auc.value <= point.auc.high
        assert point.steps == runs[0].steps
    assert curve.untrained is not None
    assert curve.why or curve.law
    with Image.open(product.path / PICTURE_FILE) as picture:
        assert picture.size[0] > 800
    assert len(facts.rows()) == 5
    assert len(facts.sentences()) == 1


@pytest.mark.slow
def test_encoders_differ_by_share_and_seed_and_saw_their_share_alone(scaled: Path) -> None:
    workspace = Workspace(scaled)
    plan = planned(workspace, CONFIG)
    seen = set()
    for run in plan.runs:
        encoder = workspace.require(f"scaling/encoder/{run.name}")
        facts = EncoderFacts.of(encoder)
        assert (facts.records, facts.steps, facts.seed) == (run.subset.records, run.steps, run.subset.seed)
        seen.add(encoder.digest)
        assert load_encoder(encoder.path / "encoder.safetensors").config == run.recipe.encoder
        source = EncoderSource.of_product("x", encoder)
        overlap = Overlaps(workspace).of("x", source.digest, "chapman", [f"r{at}" for at in range(30)])
        assert overlap.test == run.subset.rows_N.sum()
        assert trained_before(workspace, plan, run)
    assert len(seen) == len(plan.runs)


@pytest.mark.slow
def test_the_same_plan_is_found_and_a_larger_one_trains_only_what_is_new(scaled: Path, tmp_path: Path) -> None:
    root = tmp_path / "home"
    shutil.copytree(scaled, root)
    before = digests(root)
    scale(root, not_again)
    assert digests(root) == before
    trained: list[list[str]] = []

    def counted(command: list[str]) -> None:
        trained.append(command)
        launch(command)

    larger = ScalingConfig(changes=CONFIG.changes, shares=CONFIG.shares, seeds=(0, 1, 2))
    materialize_scaling(Workspace(root), larger, counted, probe=QUICK, device="cpu")
    assert len(trained) == 4


@pytest.mark.slow
def test_the_home_s_own_encoder_is_used_and_stays_the_current_one(before: Path, tmp_path: Path) -> None:
    root = tmp_path / "home"
    shutil.copytree(before, root)
    workspace = Workspace(root)
    ours = materialize_encoder(workspace, recipe_named("demo", CHANGES), launch, device="cpu")
    other = materialize_encoder(workspace, recipe_named("demo", {**CHANGES, "steps": 2}), launch, device="cpu")
    config = ScalingConfig(changes=CONFIG.changes, shares=(1.0,), seeds=(0,))
    product = materialize_scaling(workspace, config, not_again, probe=QUICK, device="cpu")
    assert ours.digest in product.inputs.values()
    assert workspace.require("encoder").digest == other.digest
    (curve,) = ScalingFacts.of(product).curves
    assert curve.in_words() == ("demo: a law cannot be told: shares that were scored: 1, and at least 4 are needed.")
    assert "One seed" in ScalingFacts.of(product).sentences()[1]


@pytest.mark.slow
def test_a_plan_that_is_killed_goes_on_to_the_same_products(before: Path, scaled: Path, tmp_path: Path) -> None:
    root = tmp_path / "home"
    shutil.copytree(before, root)
    command = [sys.executable, "-c", PROGRAM, str(root)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE) as process:
        while process.poll() is None and len(list(root.glob("scaling/encoder/*/current"))) < 2:
            time.sleep(0.01)
        process.kill()
    assert not list(root.glob("scaling/curves/*/current"))
    scale(root)
    assert digests(root) == digests(scaled)


@pytest.mark.slow
def test_a_task_that_cannot_be_scored_says_why(scaled: Path, tmp_path: Path) -> None:
    root = tmp_path / "home"
    shutil.copytree(scaled, root)
    few = ProbeConfig(min_patients=1000)
    facts = ScalingFacts.of(materialize_scaling(Workspace(root), CONFIG, not_again, probe=few, device="cpu"))
    (curve,) = facts.curves
    assert curve.law is None
    assert "scored: 0, and" in curve.why
    assert all("each needs 1000" in (point.reason or "") for point in curve.points)
    assert all("not scored" in str(row["test macro AUC"]) for row in facts.rows())


@pytest.mark.slow
def test_the_command_says_what_it_would_train(scaled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.home.Home.workspace", lambda _: Workspace(scaled))
    options = [option for change in CONFIG.changes for option in ("--set", change)]
    told = CliRunner().invoke(main, ["scale", "--dry-run", "--shares", "20%,0.4,100%", "--seeds", "0,5", *options])
    assert told.exit_code == 0, told.output
    lines = [line.split() for line in told.stdout.splitlines()]
    assert [line[-2:] == ["here", "already"] for line in lines[1:7]] == [True, False] * 3
    assert "3 of 6 trainings to do" in told.stdout
    refused = CliRunner().invoke(main, ["scale", "--shares", "3,10"])
    assert (refused.exit_code, refused.stderr) == (
        1,
        "Error: shares=3: use shares above 0 and up to 1, such as 0.03 for 3 %\n",
    )
    assert CliRunner().invoke(main, ["scale", "--seeds", "1%"]).exit_code == 2


@pytest.mark.slow
def test_the_asset_shows_points_laws_and_picture(scaled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = partial(materialize_scaling, probe=QUICK)
    monkeypatch.setattr("pipelines.evaluate.scaling.step.materialize_scaling", quick)
    monkeypatch.setattr("pipelines.home.Home.workspace", lambda _: Workspace(scaled))
    form = {"shares": list(CONFIG.shares), "seeds": [0, 1], "changes": list(CONFIG.changes)}
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            [scaling],
            instance=instance,
            resources={"data_home": DataHome(root=str(scaled.parent)), "launcher": Launcher()},
            run_config={"ops": {"scaling": {"config": form}}},
        )
    (event,) = done.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["cached"].value is True
    points = metadata["points"]
    assert isinstance(points, dg.TableMetadataValue)
    assert [row.data["share"] for row in points.records] == ["untrained", "20 %", "40 %", "70 %", "100 %"]
    assert str(metadata["laws"].value).startswith("- demo: ")
    assert str(metadata["picture"].value).startswith("![picture](data:image/png;base64,")
