"""CroPA against dense attention, by name: two encoders that differ in it alone, on simulated ECGs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from click.testing import CliRunner, Result

from assets.dense import dense_assets
from assets.resources import DataHome, Launcher
from ecg_model.encoder_file import load_encoder
from pipelines.cache import Product, Workspace
from pipelines.cli import main
from pipelines.cli.launch import run_pretraining
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from pipelines.download.mirror import Mirror, list_source
from pipelines.download.step import materialize_raw
from pipelines.evaluate.probes.comparison import compare
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.suite.attention_ablation import against_dense, materialize_dense
from pipelines.evaluate.suite.names import AGAINST_DENSE, evaluation
from pipelines.evaluate.suite.run import results_of
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.home import Home
from pipelines.pretrain.recipes import differences, recipe_named
from pipelines.pretrain.step import materialize_encoder
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES
from tests.support.pretraining import TINY, in_this_process

NAME = "georgia__multi_class"
RECIPE = recipe_named("demo", {**TINY, "steps": 20, "peak_lr": 5e-3, "seed": 7, "probe_epochs": "none"})
QUICK = ProbeConfig(resamples=50, min_patients=5, min_positives=1)


def launch(command: list[str]) -> None:
    code, said = in_this_process(command[3:])
    assert code == 0, said


def not_again(command: list[str]) -> None:
    raise AssertionError(f"trained again: {command}")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Simulated ECGs of Chapman with an encoder of twenty steps on them, and of Georgia."""
    root = tmp_path_factory.mktemp("dense")
    sizes = MirrorSizes(chapman=(36,), code15=(), ptbxl=(), cpsc2018=(), georgia=(160,), ludb=0)
    write_mirror(root / "mirror", seed=1, sizes=sizes)
    home, mirror = Home(root / "home", str(root / "mirror")), Mirror.parse(str(root / "mirror"))
    workspace = home.workspace()
    for source in (SOURCES["chapman"], SOURCES["georgia"]):
        for partition in source.available(list_source(source, mirror, raw_root=home.raw_root)):
            materialize_raw(workspace, source, partition, mirror=mirror, raw_root=home.raw_root)
            materialize_ecgs(workspace, source, partition, limits=QualityLimits())
    materialize_corpus(workspace, CorpusConfig())
    materialize_encoder(workspace, RECIPE, launch, device="cpu")
    return home


@pytest.fixture
def workspace(home: Home) -> Workspace:
    return home.workspace()


@pytest.fixture
def dense(workspace: Workspace) -> Product:
    return materialize_dense(workspace, launch, device="cpu")


def ecg(home: Home, *arguments: str) -> Result:
    return CliRunner(env={"ECG_HOME": str(home.root), "ECG_MIRROR": home.mirror}).invoke(main, ["evaluate", *arguments])


def test_the_twin_differs_in_its_attention_alone_and_is_found_again(workspace, dense):
    ours = workspace.require("encoder")
    changed = differences(ours.facts["recipe"], dense.facts["recipe"])
    assert changed == ["jepa.encoder.attention: 'cropa' -> 'dense'"]
    for same in ("corpus_digest", "records", "steps", "parameters"):
        assert dense.facts[same] == ours.facts[same]
    networks = [load_encoder(one.path / "encoder.safetensors") for one in (ours, dense)]
    assert [network.config.attention for network in networks] == ["cropa", "dense"]
    weights = [network.blocks[0].state_dict() for network in networks]
    assert any(not np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert materialize_dense(workspace, not_again, device="cpu") == replace(dense, cached=True)


def test_a_training_that_was_killed_is_gone_on_with(tmp_path, home):
    workspace = Workspace(tmp_path)
    for product in ("corpus", "encoder"):
        folder = workspace.folder(product)
        folder.parent.mkdir(exist_ok=True)
        folder.symlink_to(home.workspace().folder(product))
    places = []

    def killed(command: list[str]) -> None:
        out = Path(command[command.index("--out") + 1])
        places.append(out)
        (out / "checkpoint").write_text("step 2")
        raise KeyboardInterrupt

    def resumed(command: list[str]) -> None:
        out = Path(command[command.index("--out") + 1])
        places.append(out)
        assert (out / "checkpoint").read_text() == "step 2"
        (out / "summary.json").write_text("{}")

    with pytest.raises(KeyboardInterrupt):
        materialize_dense(workspace, killed)
    assert not materialize_dense(workspace, resumed).cached
    assert places[0] == places[1]


def test_the_difference_is_the_paired_bootstraps_and_is_kept(workspace, dense):
    found = against_dense(workspace, evaluation("georgia"), dense, QUICK)
    facts = found.product.facts
    assert facts["reason"] is None
    ours, other = (results_of(workspace, row.product)[0] for row in found.rows)
    difference = compare(ours, other, QUICK).difference
    kept = facts["cropa_minus_dense"]
    assert (kept["value"], kept["low"], kept["high"]) == pytest.approx(
        (difference.value, difference.low, difference.high)
    )
    assert kept["value"] == pytest.approx(facts["cropa"]["value"] - facts["dense"]["value"])
    assert facts["cropa"]["value"] != facts["dense"]["value"]
    assert [row.row()["features"] for row in found.rows] == ["pretrained", "dense"]
    assert json.loads((found.product.path / "difference.json").read_text()) == facts
    again = against_dense(workspace, evaluation("georgia"), dense, QUICK)
    assert again.product == replace(found.product, cached=True)
    few = against_dense(workspace, evaluation("georgia"), dense, replace(QUICK, min_patients=1000))
    assert "each needs 1000" in few.product.facts["reason"]
    assert few.product.facts["cropa_minus_dense"] is None


def test_an_encoder_without_such_a_twin_is_refused(workspace, dense):
    ours = workspace.require("encoder")

    wrong = {
        "was not pretrained on the current corpus": {"corpus_digest": "0" * 64},
        "attention='dense' of the encoder": {"recipe": dense.facts["recipe"]},
        "warm_start='1111": {"recipe": ours.facts["recipe"] | {"warm_start": "1" * 64}},
    }
    try:
        for says, facts in wrong.items():
            workspace.build(
                "encoder",
                version="test",
                config={"says": says},
                inputs={},
                make=lambda _, facts=facts: {**ours.facts, **facts},
            )
            with pytest.raises(ValueError, match=says):
                materialize_dense(workspace, not_again)
    finally:
        materialize_encoder(workspace, RECIPE, not_again, device="cpu")


def test_it_is_an_evaluation_by_name_in_a_shell(home, dense, monkeypatch):
    assert NAME in AGAINST_DENSE
    listed = ecg(home)
    (line,) = [line for line in listed.stdout.splitlines() if line.strip().startswith(f"dense/{NAME} ")]
    assert line.rstrip().endswith("here")
    few = ecg(home, f"dense/{NAME}")
    assert "labelled patients by split" in few.stdout, few.output
    quick = partial(against_dense, config=QUICK)
    monkeypatch.setattr("pipelines.evaluate.suite.attention_ablation.against_dense", quick)
    done = ecg(home, f"dense/{NAME}")
    assert done.exit_code == 0, done.output
    judged, title, head, *rows, seen = done.stdout.splitlines()
    assert judged.startswith("encoder: ")
    assert (title.strip(), head.split()[0]) == (f"dense/{NAME}, of the data home's own encoder", "features")
    assert [row.split()[0] for row in rows] == ["pretrained", "dense"]
    assert seen.startswith("seen: ")
    for arguments, says in (
        ((f"dense/{NAME}__kernel",), "use multi_class"),
        ((f"dense/{NAME}", "--encoder", "reference"), "pretrained here, not 'reference'"),
        (("dense/ptbxl_superclass",), "no ECGs of ptbxl"),
    ):
        refused = ecg(home, *arguments)
        assert refused.exit_code == 1
        assert says in refused.output


def test_a_pretraining_that_fails_in_a_shell_is_one_line():
    with pytest.raises(ValueError, match="ended with exit code 3; the same command resumes"):
        run_pretraining([sys.executable, "-c", "raise SystemExit(3)"])


def test_the_asset_shows_the_difference(home, dense):
    (asset,) = dense_assets
    resources = {"data_home": DataHome(root=str(home.root), mirror=home.mirror), "launcher": Launcher()}
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize([asset], instance=instance, resources=resources)
    (event,) = done.get_asset_materialization_events()
    metadata = event.materialization.metadata
    table = metadata["beside"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [row.data["features"] for row in table.records] == ["pretrained", "dense"]
    assert metadata["dense encoder"].value == str(dense.path)
    product = home.workspace().require(f"dense/{NAME}")
    assert metadata["path"].value == str(product.path)
    assert ("not scored" in metadata) == (product.facts["cropa_minus_dense"] is None)
