"""A table of changes, and what each of them makes run: through the jobs that people click, on a tiny mirror.

What ran is read off the stage log, so a product inside another (features, the random baseline's probe) counts too.
After each row Dagster is asked whether it finds anything stale: its versions must tell the same story.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from orchestration.definitions import defs
from orchestration.demo import StageFailed, run
from orchestration.jobs import TRAIN, harvest_job_name
from pipelines.home import Home
from pipelines.release.retraining import NotDue, RetrainingConfig, plan
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.tracking import Tracking
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

TINY = {
    "steps": 8,
    "batch": 16,
    "jepa.encoder.dim": 32,
    "jepa.encoder.depth": 2,
    "jepa.encoder.heads": 2,
    "jepa.predictor.dim": 16,
    "jepa.predictor.heads": 2,
}
PARTITIONS = {"chapman": ["01", "02"], "ptbxl": ["00000"]}


class Road:
    """The road on one home and instance; `changed` runs it and says which products were made, and which were stale."""

    def __init__(self, home: Home, instance: dg.DagsterInstance, made: Callable[[], set[str]]) -> None:
        self.home, self.instance, self._made = home, instance, made

    def harvest(self, source: str, partition: str, **settings: object) -> None:
        config = {"ops": {f"ecgs__{source}": {"config": settings}}}
        run(harvest_job_name(source), self.instance, partition=partition, config=config)

    def harvest_all(self) -> None:
        for source, partitions in PARTITIONS.items():
            for partition in partitions:
                self.harvest(source, partition)

    def train(self, *, resamples: int = 50, **changes: object) -> None:
        settings = {
            "corpus": {"validation_share": 0.2},
            "encoder": {"recipe": "demo", "changes": TINY | changes, "device": "cpu"},
            "probe__ptbxl_superclass": {"resamples": resamples},
        }
        ops = {name: {"config": config} for name, config in settings.items()}
        try:
            run(TRAIN, self.instance, config={"ops": ops})
        except StageFailed as refused:  # so tiny a data set is not scored, and what is not scored loses to a champion
            if not str(refused).startswith("gate_verdict: "):
                raise

    def made(self) -> set[str]:
        """What was built since this was asked last."""
        return self._made()

    def stale(self) -> set[str]:
        """What the UI would call unsynced, of all that was ever materialized; asked before anything runs again."""
        graph = defs.resolve_asset_graph()
        ask = CachingStaleStatusResolver(self.instance, graph, LoadingContextForTest(self.instance))
        keys = [(node.key, node.partitions_def) for node in graph.asset_nodes]
        return {
            key.to_user_string()
            for key, partitions in keys
            if partitions is None and ask.get_status(key) == StaleStatus.STALE
        }


@contextmanager
def stage_log() -> Iterator[Callable[[], set[str]]]:
    """What was built, and not found, since this was called last."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    def made() -> set[str]:
        products = {line.split(":")[0] for line in lines if ": built in" in line}
        lines.clear()
        return products

    log, handler = logging.getLogger("pipelines.cache"), Kept()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield made
    log.removeHandler(handler)


def code_versions() -> dict[str, str | None]:
    return {node.key.to_user_string(): node.code_version for node in defs.resolve_asset_graph().asset_nodes}


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    """Walked once."""
    folder = tmp_path_factory.mktemp("road")
    write_mirror(
        folder / "mirror",
        seed=3,
        sizes=MirrorSizes(chapman=(40, 40), code15=(), ptbxl=(60,), cpsc2018=(), georgia=(), ludb=0),
    )
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance, stage_log() as made:
        patch.setenv("ECG_HOME", str(folder / "home"))
        for name in ("ECG_MIRROR", "ECG_INCOMING", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        home = Home.default()
        home.set_mirror(str(folder / "mirror"))
        walked = Road(home, instance, made)
        walked.harvest_all()
        walked.train()
        first = walked.made()
        assert {"raw/chapman/01", "ecgs/chapman/02", "corpus", "encoder", "report"} <= first
        yield walked


def test_unchanged_nothing_runs_and_nothing_is_stale(road):
    road.made()
    assert road.stale() == set()
    road.harvest_all()
    road.train()
    assert road.made() == set()
    assert road.stale() == set()


WITH_COMMENTS = """
import json
import dagster as dg
import orchestration
from pipelines.home import Home
from tests.orchestration.test_caching import Road, code_versions, stage_log
with dg.DagsterInstance.ephemeral() as instance, stage_log() as made:
    road = Road(Home.default(), instance, made)
    road.harvest_all()
    road.train()
    print(json.dumps([list(orchestration.__path__), sorted(road.made()), code_versions()]))
"""


def test_a_comment_in_every_file_changes_nothing(road, tmp_path):
    for package in ("orchestration", "assets", "pipelines", "ecg_foundry", "ecg_model"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in tmp_path.rglob("*.py"):
        file.write_text(file.read_text() + "# A comment.\n")
    places = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", WITH_COMMENTS],
        env={**os.environ, "PYTHONPATH": places},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    place, made, versions = json.loads(done.stdout.splitlines()[-1])
    assert place == [str(tmp_path / "orchestration")]
    assert made == []
    assert versions == code_versions()


def test_the_recipe_of_a_probe_never_retrains(road):
    road.made()
    road.train(resamples=60)
    made = road.made()
    assert "probe/ptbxl_superclass/pretrained" in made
    assert not {name for name in made if name.startswith(("raw/", "ecgs/", "corpus", "encoder", "features/"))}
    road.train()
    assert road.made() == set(), "the first recipe is found again"


def test_a_changed_partition_redoes_itself_the_corpus_and_what_hangs_on_its_digest(road):
    road.made()
    road.harvest("chapman", "02", amplitude=1.5)
    assert road.made() == {"ecgs/chapman/02"}
    assert "corpus" in road.stale()
    road.train()
    made = road.made()
    assert {"corpus", "encoder", "report"} <= made
    assert not {name for name in made if name.startswith(("raw/", "ecgs/"))}
    assert not {name for name in made if name.startswith("features/random")}, "the untrained network is the same"
    assert road.stale() <= {"champion"}, "which the gate may hold back"
    road.harvest("chapman", "02")
    assert road.made() == set(), "as it was: the first output is found"
    road.train()
    assert road.made() == set()


def test_the_same_bytes_by_another_way_change_nothing_after_them(road):
    road.made()
    road.harvest("ptbxl", "00000", noise=10.0)
    assert road.made() == {"ecgs/ptbxl/00000"}, "another limit, which drops nothing"
    assert road.stale() == set()
    road.train()
    assert road.made() == set()


def test_changed_evaluation_ecgs_are_scored_again_and_train_nothing(road):
    road.made()
    road.harvest("ptbxl", "00000", amplitude=1.5)
    assert {"corpus", "probe/ptbxl_superclass"} <= road.stale()
    road.train()
    made = road.made()
    assert {"ecgs/ptbxl/00000", "corpus", "probe/ptbxl_superclass/pretrained"} <= made
    assert "encoder" not in made, "the corpus came out the same"
    road.harvest_all()
    road.train()
    assert road.made() == set()


def test_a_changed_recipe_trains_and_evaluates_and_nothing_before_it(road):
    road.made()
    road.train(peak_lr=1e-3)
    made = road.made()
    assert "encoder" in made
    assert not {name for name in made if name.startswith(("raw/", "ecgs/", "corpus"))}
    road.train()
    assert road.made() == set()


def test_the_schedule_finds_what_the_gate_has_judged(road):
    tracking = Tracking.of(road.home)
    settings = RetrainingConfig(recipe="demo", changes=TINY)
    road.train()
    assert isinstance(plan(road.home.workspace(), tracking, settings, simulated=True), NotDue)
    road.harvest("chapman", "02", amplitude=1.4)
    due = plan(road.home.workspace(), tracking, settings, simulated=True)
    assert not isinstance(due, NotDue)
    assert "harmonized ECGs changed" in due.why
