"""The whole road on a tiny simulated mirror, through Dagster: twice, and with mistakes on the way."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import dagster as dg
import pytest
import torch
from click.testing import Result

from ecg_model.config import EncoderConfig, S4EncoderConfig
from ecg_model.encoder_file import random_encoder
from ecg_model.reference import published_name
from orchestration.definitions import defs
from orchestration.demo import StageFailed, run
from orchestration.instance import open_instance
from orchestration.jobs import COMPARE, REFERENCE, REFERENCE_CPC, SUITE, TRAIN, harvest_job_name
from pipelines.cli.run import CHECK_FAILED
from pipelines.download.mirror import Mirror, list_source
from pipelines.encoders.import_reference import materialize_reference
from pipelines.home import Home
from pipelines.release.aliases import find_alias
from pipelines.release.tags import CHAMPION
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES
from pipelines.tasks.catalogue import TASKS
from pipelines.tracking import Tracking
from tests.support.checkpoints import lightning_checkpoint, published_state
from tests.support.commands import ecg
from tests.support.paths import ROOT

SIZES = MirrorSizes(chapman=(60,), code15=(40,), ptbxl=(60,), cpsc2018=(), georgia=(), ludb=0)
TINY = {
    "steps": 8,
    "batch": 16,
    "jepa.encoder.dim": 32,
    "jepa.encoder.depth": 2,
    "jepa.encoder.heads": 2,
    "jepa.predictor.dim": 16,
    "jepa.predictor.heads": 2,
}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mirror") / "simulated"
    write_mirror(folder, seed=3, sizes=SIZES)
    return folder


@pytest.fixture
def home(home: Home, mirror: Path, new_store: Callable[[Path], Tracking]) -> Home:
    """With the simulated mirror chosen, and an empty MLflow store."""
    home.set_mirror(str(mirror))
    new_store(home.root / "mlflow")
    return home


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def harvest(home: Home, instance: dg.DagsterInstance) -> dict[str, bool]:
    """Whether each partition of each asset was cached."""
    told = {}
    for name, source in SOURCES.items():
        listing = list_source(source, Mirror.parse(home.mirror), raw_root=home.raw_root)
        for partition in source.available(listing):
            for outcome in run(harvest_job_name(name), instance, partition=partition):
                told[f"{outcome.name}/{partition}"] = outcome.metadata["cached"]
    return told


def train(instance: dg.DagsterInstance, changes: dict) -> dict:
    config = {
        "ops": {
            "encoder": {"config": {"recipe": "demo", "changes": changes, "device": "cpu"}},
            **{f"probe__{task}": {"config": {"resamples": 50}} for task in TASKS},
        }
    }
    return {outcome.name: outcome for outcome in run(TRAIN, instance, config=config)}


def retried(instance: dg.DagsterInstance) -> list[str]:
    """The steps that were tried again, of all runs."""
    kind = dg.DagsterEventType.STEP_UP_FOR_RETRY
    entries = [entry for run in instance.get_runs() for entry in instance.all_logs(run.run_id, of_type=kind)]
    return [str(entry.step_key) for entry in entries]


@pytest.mark.slow
def test_the_road_runs_once_is_found_the_second_time_and_refuses_what_is_not_shown_better(home, instance):
    first = harvest(home, instance)
    assert {key.split("/")[1] for key in first} == {"chapman", "code15", "ptbxl", "ptbxl100"}
    assert not any(first.values())
    raw = instance.get_latest_materialization_event(dg.AssetKey(["raw", "chapman"]))
    assert raw is not None
    assert raw.asset_materialization is not None
    shown = raw.asset_materialization.metadata
    assert (shown["files"].value, str(shown["kinds"].value)[:8]) == (120, "![kinds]")
    made = train(instance, TINY)
    assert [name for name, outcome in made.items() if outcome.metadata["cached"]] == []
    assert made["corpus"].metadata["train"] > 40
    assert made["probe/cpsc2018"].metadata["not scored"]
    assert "each needs 20" in made["probe/ptbxl_superclass"].metadata["not scored"]
    verdict = made["evaluation_report"].metadata["verdict"]
    assert verdict == f"Not scored: none of {len(TASKS)} tasks has enough labelled ECGs"
    page = Path(made["evaluation_report"].metadata["page"]).read_text()
    assert "The ECGs are simulated" in page, "the mirror says so of itself"
    assert made["champion"].metadata["champion"] == made["released_encoder"].metadata["version"] == 1
    store = Tracking.of(home).client()
    run_of, tags = (getattr(store.get_model_version("ecg-encoder", "1"), name) for name in ("run_id", "tags"))
    assert tags["ecgs"] == "simulated"
    assert run_of is not None
    assert {"report.html", "report.json"} <= {file.path for file in store.list_artifacts(run_of)}
    again = harvest(home, instance) | {n: o.metadata["cached"] for n, o in train(instance, TINY).items()}
    assert all(again.values()), again
    # Its attention pool is an evaluation that the next report shows, too.
    (compared,) = run(COMPARE, instance)
    assert compared.metadata["verdict"] == "Not scored: no task has enough labelled ECGs"
    versions = instance.get_latest_materialization_event(dg.AssetKey("corpus"))
    assert versions is not None
    product = home.workspace().require("corpus")
    assert json.loads((product.path / "done.json").read_text())["digest"] == product.digest
    refused = train(instance, {**TINY, "seed": 1})
    assert "champion" not in refused, "what the gate refuses is an outcome, and no failure"
    assert not retried(instance), "and it is not asked again"
    assert refused["gate_verdict"].metadata["challenger"] == 2
    assert any("nothing to compare on validation" in warning for warning in refused["gate_verdict"].warnings)
    held = find_alias(CHAMPION, tracking=Tracking.of(home))
    assert held is not None
    assert held.version == 1


@pytest.mark.slow
def test_a_changed_partition_is_seen_downstream_and_the_others_are_not_touched(home, instance, mirror):
    harvest(home, instance)
    before = home.workspace().require("ecgs/code15/0")
    limits = {"ops": {"ecgs__chapman": {"config": {"amplitude": 1.5}}}}
    partition = next(iter(SOURCES["chapman"].available(list_source(SOURCES["chapman"], Mirror.parse(str(mirror))))))
    outcomes = {o.name: o for o in run(harvest_job_name("chapman"), instance, partition=partition, config=limits)}
    assert outcomes["raw/chapman"].metadata["cached"]
    assert not outcomes["ecgs/chapman"].metadata["cached"]
    assert home.workspace().require("ecgs/code15/0") == before


def by_command(steps: Sequence[str], changes: dict) -> Result:
    words = [f"--set={name}={value}" for name, value in changes.items()]
    return ecg("run", *steps, "--recipe=demo", *words, "--set=evaluate.resamples=50", "--set=pretrain.device=cpu")


@pytest.mark.slow
def test_the_command_makes_what_the_assets_find_and_finds_what_they_make(home, instance):
    """`ecg run all` on a fresh home; the jobs of the UI; a training of the jobs with another recipe, by the command."""
    first = by_command(["all"], TINY)
    assert first.exit_code == 0, first.output
    assert "found in the cache" not in first.stdout
    assert first.stdout.splitlines()[-1].startswith("next: ecg models")
    found = harvest(home, instance) | {name: one.metadata["cached"] for name, one in train(instance, TINY).items()}
    assert all(found.values()), found
    assert {"ecgs/chapman/01", "corpus", "encoder", "probe/cpsc2018", "champion", "gate_verdict"} <= found.keys()
    again = by_command(["all"], TINY)
    assert again.exit_code == 0, again.output
    assert "done in" not in again.stdout
    made = train(instance, {**TINY, "seed": 1})
    assert not made["encoder"].metadata["cached"]
    shown = by_command(["pretrain", "evaluate", "release"], {**TINY, "seed": 1})
    assert shown.exit_code == CHECK_FAILED, "the gate refuses what is not shown better, as in the job"
    assert "nothing to compare on validation" in shown.stdout
    assert "release: failed: not_worse, no_label_lost; the champion stays" in shown.stderr
    assert shown.stdout.count("found in the cache") >= 4, "the encoder, two probes and the report"


@pytest.mark.slow
def test_dagster_s_own_command_makes_an_asset_as_the_documentation_says(home, instance, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(home.root / "dagster"))
    run(harvest_job_name("chapman"), instance, partition="01")
    open_instance(home)
    (line,) = [
        line
        for line in (ROOT / "docs" / "ui.md").read_text().splitlines()
        if "dagster asset materialize" in line and line.endswith("--select corpus")
    ]
    command = [str(Path(sys.executable).with_name("dagster")), *line.split()[1:]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    shown = ecg("run", "corpus")
    assert (shown.exit_code, "found in the cache" in shown.stdout) == (0, True), shown.output


@pytest.mark.parametrize(
    ("job", "ops", "message"),
    [
        (
            TRAIN,
            {"encoder": {"recipe": "huge"}},
            r"encoder:config:recipe not in enum type .*'demo', 'small'.* got huge",
        ),
        (TRAIN, {"encoder": {"changes": {"stepz": 3}}}, 'unexpected config entry "stepz"'),
        (TRAIN, {"encoder": {"changes": {"steps": "many"}}}, 'changes:steps. Value "many" .* expected type "Int"'),
        (TRAIN, {"encoder": {"changes": {"batch": 0}}}, "changes.batch=0: Input should be greater than or equal to 1"),
        (
            TRAIN,
            {"encoder": {"recipe": "demo", "changes": {"jepa.encoder.dim": 97}}},
            "dim=97: use a multiple of heads",
        ),
        (TRAIN, {"encoder": {"recipe": "demo", "accumulate": 5}}, "batch=32 cannot be shared out evenly"),
        (TRAIN, {"encoder": {"device": "gpu"}}, "device 'gpu': use auto, cpu, cuda or cuda:N"),
        (TRAIN, {"corpus": {"sources": ["nowhere"]}}, "sources.0. not in enum type Source got nowhere"),
        (TRAIN, {"corpus": {"unlabelled_folds": [9]}}, "use folds of 1 to 8; 9 and 10 are scored on"),
        (TRAIN, {"released_encoder": {"gate_task": "nothing"}}, "gate_task not in enum type"),
        (TRAIN, {"gate_verdict": {"probes": {"linear": -1.0}}}, "weight -1.0 of 'linear': give 0 to 1,000"),
        (TRAIN, {"gate_verdict": {"probes": {"linear": 0.0}}}, "give at least one a weight above 0"),
        (TRAIN, {"gate_verdict": {"probes": {"quadratic": 1.0}}}, "probes: 'quadratic': variant 'quadratic'"),
        (TRAIN, {"gate_verdict": {"probes": {"linear": "much"}}}, 'Value "much" .* expected type "Float"'),
        (TRAIN, {"gate_verdict": {"probes": ["linear"]}}, "probes must be dict"),
        (TRAIN, {"probe__cpsc2018": {"penalties": []}}, "penalties=.*: give positive numbers"),
        (SUITE, {"dense__georgia__multi_class": {"accumulate": 0}}, "accumulate=0: Input should be greater"),
    ],
)
def test_a_wrong_name_or_value_is_refused_before_a_run_starts(job, ops, message):
    config = {"ops": {name: {"config": settings} for name, settings in ops.items()}}
    with pytest.raises(dg.DagsterInvalidConfigError, match=message):
        dg.validate_run_config(defs.resolve_job_def(job), config)


@pytest.mark.parametrize(
    "changes", [{}, None, {"steps": 8}, {"epochs": 3, "steps": None, "jepa.masking.ratio": [0.3, 0.5]}, TINY]
)
def test_settings_saved_by_earlier_commits_are_taken(changes):
    earlier = {"recipe": "", "changes": changes, "warm_start": "", "device": "auto", "processes": 0, "accumulate": 1}
    gate = {"config": {"margin": 0.02, "label_margin": 0.05}}
    others = {"corpus": {"config": {"sources": ["chapman"]}}, "gate_verdict": gate, "classifier": gate}
    config = {"ops": {"encoder": {"config": earlier}, **others}}
    assert dg.validate_run_config(defs.resolve_job_def(TRAIN), config)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"changes": {"jepa.encoder.dim": 97}}, "dim=97: use a multiple of heads=2"),
        ({"accumulate": 5}, "batch=32 cannot be shared out evenly"),
        ({"warm_start": "models:/ecg-encoder@champion"}, "ecg-encoder"),
        ({"device": "cuda:99"}, "device 'cuda:99': torch sees"),
    ],
)
def test_what_the_data_home_decides_is_refused_before_the_corpus_is_built(home, instance, encoder, message):
    with pytest.raises(StageFailed, match=f"^corpus: .*{message}"):
        run(TRAIN, instance, config={"ops": {"encoder": {"config": encoder}}})


def test_a_corpus_of_nothing_says_what_to_do(home, instance):
    with pytest.raises(StageFailed, match="no harmonized pretraining shard of georgia"):
        run(TRAIN, instance, config={"ops": {"corpus": {"config": {"sources": ["georgia"]}}}})


def test_a_run_of_the_demo_belongs_to_the_code_location(home, instance):
    """Else the UI shows it neither on its timeline nor under its job."""
    with pytest.raises(StageFailed):
        run(TRAIN, instance)
    (made,) = instance.get_runs(
        dg.RunsFilter(job_name=TRAIN, tags={".dagster/repository": "__repository__@ecg-foundry"})
    )
    assert made.remote_job_origin.job_name == TRAIN
    assert made.tags["ecg/alone"] == TRAIN
    with pytest.raises(dg.DagsterUnknownPartitionError):
        run(harvest_job_name("chapman"), instance, partition="99")


def test_a_partition_that_the_mirror_has_not_says_so(home, instance):
    with pytest.raises(StageFailed, match=r"chapman.*46"):
        run(harvest_job_name("chapman"), instance, partition="46")
    assert home.workspace().current("raw/chapman/46") is None


def test_the_reference_without_a_file_says_what_to_do_and_a_wrong_one_is_refused(home, instance, tmp_path):
    with pytest.raises(StageFailed, match="run `ecg import-reference FILE`, or set `file` to its path"):
        run(REFERENCE, instance)
    wrong = tmp_path / "wrong.pth"
    wrong.write_text("no weights")
    with pytest.raises(StageFailed, match=r"wrong\.pth is not a file of weights: give the author's \.pth"):
        run(REFERENCE, instance, config={"ops": {"reference_encoder": {"config": {"file": str(wrong)}}}})
    assert home.workspace().current("reference") is None


def test_what_the_command_imported_is_probed_and_released_by_the_job(home, instance, tmp_path):
    """Of the demo's sizes: the job takes what is imported, whatever made it."""
    partition = "00000"
    run(harvest_job_name("ptbxl"), instance, partition=partition)
    network = EncoderConfig(dim=32, depth=1, heads=2)
    state = {published_name(name): value for name, value in random_encoder(network, 1).state_dict().items()}
    torch.save({"encoder": state, "epoch": 3}, tmp_path / "released.pth")
    imported = materialize_reference(home.workspace(), tmp_path / "released.pth", network)
    made = {outcome.name: outcome.metadata for outcome in run(REFERENCE, instance)}
    assert made["reference_encoder"]["sha256"] == imported.facts["sha256"]
    assert "each needs 20" in made["reference_probe/ptbxl_superclass"]["not scored"]
    assert made["released_reference"]["model"] == "models:/ecg-encoder-reference/1"
    again = {outcome.name: outcome.metadata["cached"] for outcome in run(REFERENCE, instance)}
    assert all(again.values()), again
    store = Tracking.of(home)
    assert find_alias(CHAMPION, tracking=store) is None, "our model is not touched"


@pytest.mark.slow
def test_a_published_ecg_cpc_is_imported_probed_and_released_by_its_job(home, instance, tmp_path):
    run(harvest_job_name("ptbxl"), instance, partition="00000")
    with pytest.raises(StageFailed, match="run `ecg import-reference FILE`, or set `file` to its path"):
        run(REFERENCE_CPC, instance)
    contrastive = random_encoder(S4EncoderConfig(stem_dim=8, dim=8, depth=1), 1)
    file = lightning_checkpoint(tmp_path / "cpc.ckpt", published_state(contrastive))
    config = {"ops": {"reference_cpc_encoder": {"config": {"file": str(file)}}}}
    made = {outcome.name: outcome.metadata for outcome in run(REFERENCE_CPC, instance, config=config)}
    assert made["reference_cpc_encoder"]["read"].endswith("windows of 300 tokens, state space as published")
    assert "each needs 20" in made["reference_cpc_probe/ptbxl_superclass"]["not scored"]
    assert made["released_reference_cpc"]["model"] == "models:/ecg-encoder-reference-cpc/1"
    again = {outcome.name: outcome.metadata["cached"] for outcome in run(REFERENCE_CPC, instance)}
    assert all(again.values()), again


def test_the_jobs_load():
    dg.Definitions.validate_loadable(defs)
