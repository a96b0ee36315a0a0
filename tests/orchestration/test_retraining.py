"""What is trained by no settings: the champion's recipe on the champion's corpus, once for one change, whoever asks."""

from collections.abc import Iterator
from dataclasses import replace

import dagster as dg
import pytest

from assets.corpus import CORPUS, CorpusSettings
from assets.resources import DataHome
from assets.training_forms import PretrainSettings
from orchestration.definitions import defs
from orchestration.jobs import TRAIN
from orchestration.schedules import weekly_retraining
from pipelines.cache import Workspace
from pipelines.corpus.config import CorpusConfig
from pipelines.finding import Finding
from pipelines.harmonize.checks import COUNTS_ADD_UP
from pipelines.harmonize.shards import HarmonizedFacts
from pipelines.pretrain.recipes import Recipe, recipe_named
from pipelines.release.aliases import versions_of
from pipelines.release.retraining import (
    NotDue,
    Plan,
    RetrainingConfig,
    Training,
    corpus_settings,
    plan,
    requested_corpus,
    requested_training,
)
from pipelines.release.tags import CORPUS_SETTINGS
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.tracking import Tracking
from tests.orchestration.test_automation import Ticks
from tests.orchestration.test_caching import TINY as TINY_CHANGES
from tests.orchestration.test_caching import Road, stage_log
from tests.support.registered import SETTINGS, TINY, corpus_built, harmonized, released, trained

ONE, TWO = "1" * 64, "2" * 64
CHAMPIONS = CorpusConfig(validation_share=0.2, seed=1)


def requested(workspace: Workspace, tracking: Tracking, **given: object) -> Training:
    """What an untouched form asks for, but for these fields."""
    form = PretrainSettings(**given)
    return requested_training(
        workspace, tracking, recipe=form.recipe, changes=form.changed, warm_start=form.warm_start, simulated=False
    )


@pytest.fixture
def workspace(home) -> Workspace:
    """With a corpus."""
    made = home.workspace()
    harmonized(made, {"chapman/01": "a", "ptbxl/00000": "p"})
    corpus_built(made, ONE)
    return made


def test_the_recipe_of_no_name_is_the_champions_and_demo_where_nothing_was_ever_trained(
    workspace, tracking, monkeypatch
):
    assert requested(workspace, tracking) == Training(recipe=recipe_named("demo"), warm_start="")
    collapsed = recipe_named("small", {"epochs": 3, "warm_start": "a" * 64})
    trained(workspace, collapsed)
    harmonized(workspace, {"chapman/02": "b"})
    corpus_built(workspace, TWO)
    assert requested(workspace, tracking).recipe == replace(collapsed, warm_start=None), "trained, and never released"
    released(tracking, ONE, TINY, "promoted", champion=True)
    released(tracking, ONE, recipe_named("paper_block"), "kept as challenger")
    assert requested(workspace, tracking) == Training(recipe=TINY, warm_start="")
    assert requested(workspace, tracking, changes={"steps": 9}).recipe == replace(TINY, steps=9)
    assert requested(workspace, tracking, recipe="small").recipe == recipe_named("small")
    monkeypatch.setenv("ECG_RETRAIN_RECIPE", "small")
    monkeypatch.setenv("ECG_RETRAIN_CHANGES", '{"epochs": 4}')
    assert requested(workspace, tracking).recipe == recipe_named("small", {"epochs": 4})


def test_a_start_from_the_champion_trains_an_unchanged_corpus_no_second_time(workspace, tracking, monkeypatch):
    """The start is in the fingerprint, and the champion another at every move: the ECGs and the recipe decide."""
    monkeypatch.setenv("ECG_RETRAIN_START", "champion")
    first = trained(workspace, TINY)
    released(tracking, ONE, TINY, "promoted", champion=True)
    assert requested(workspace, tracking).done == first
    harmonized(workspace, {"ptbxl/00000": "q"})
    assert isinstance(plan(workspace, tracking, RetrainingConfig(start="champion"), simulated=False), Plan), (
        "for its probes' sake"
    )
    corpus_built(workspace, ONE)
    assert requested(workspace, tracking).done == first, "an evaluation shard alone has changed"
    harmonized(workspace, {"chapman/02": "b"})
    corpus_built(workspace, TWO)
    assert requested(workspace, tracking) == Training(recipe=TINY, warm_start="models:/ecg-encoder/1")
    warm = trained(workspace, replace(TINY, warm_start="b" * 64))
    released(tracking, TWO, TINY, "promoted", champion=True)
    trained(workspace, recipe_named("small"))
    training = requested(workspace, tracking)
    assert (training.done, training.warm_start) == (warm, "")
    assert workspace.require("encoder") == warm, "it is the current one again"
    again = requested(workspace, tracking, warm_start="models:/ecg-encoder/1")
    assert again == Training(recipe=TINY, warm_start="models:/ecg-encoder/1"), "who names a start gets it"
    assert requested(workspace, tracking, recipe="demo", changes={"steps": 8, "peak_lr": 1e-3}).done is None


def test_a_champion_of_simulated_ecgs_says_nothing_of_recorded_ones(workspace, tracking):
    version = released(tracking, ONE, TINY, "promoted", champion=True)
    tracking.client().set_model_version_tag("ecg-encoder", str(version), "ecgs", "simulated")
    assert requested(workspace, tracking).recipe == recipe_named("demo")
    assert requested_corpus(workspace, tracking, {}, simulated=False) == CorpusConfig()
    assert requested_corpus(workspace, tracking, {}, simulated=True) == CHAMPIONS
    due = plan(workspace, tracking, RetrainingConfig(), simulated=False)
    assert isinstance(due, NotDue)
    assert "no champion of recorded ECGs yet" in due.why


def test_a_champion_of_a_foreign_recipe_asks_for_a_name(workspace, tracking):
    released(tracking, ONE, replace(TINY, name="theirs"), "promoted", champion=True)
    with pytest.raises(ValueError, match=r"version 1, the champion, .* set ECG_RETRAIN_RECIPE"):
        requested(workspace, tracking)
    assert requested(workspace, tracking, recipe="demo").recipe == recipe_named("demo")


def test_a_shard_that_did_not_pass_its_checks_stops_the_plan_by_its_name(workspace, tracking):
    released(tracking, ONE, TINY, "promoted", champion=True)
    findings = {COUNTS_ADD_UP: Finding.failed("3 entered, 2 kept, 0 dropped")}
    facts = HarmonizedFacts(entered=3, kept=2, dropped={}, role="pretraining", findings=findings)
    workspace.build(
        "ecgs/chapman/01",
        **{"version": "1", "config": {}, "inputs": {}},
        make=lambda folder: facts.to_dict(),
    )
    with pytest.raises(ValueError, match=r"ecgs/chapman/01 \(every_record_accounted_for: 3 entered"):
        plan(workspace, tracking, RetrainingConfig(), simulated=False)


def given(**fields: object) -> dict[str, object]:
    return CORPUS.given(CorpusSettings(**fields))


def test_the_corpus_of_no_settings_is_the_champions(workspace, tracking):
    assert requested_corpus(workspace, tracking, given(), simulated=False) == CorpusConfig()
    trained(workspace, TINY)
    assert requested_corpus(workspace, tracking, given(), simulated=False) == CHAMPIONS, "what was trained on last"
    settings = {**SETTINGS, "sources": ["chapman"], "unlabelled_folds": [1, 2]}
    released(tracking, TWO, TINY, "promoted", champion=True, settings=settings)
    champions = replace(CHAMPIONS, sources=("chapman",), unlabelled_folds=(1, 2))
    assert requested_corpus(workspace, tracking, given(), simulated=False) == champions
    assert requested_corpus(workspace, tracking, given(), simulated=False, from_champion=False) == CorpusConfig()
    assert requested_corpus(workspace, tracking, given(sources=[], seed=0), simulated=False) == replace(
        champions, sources=None, seed=0
    )
    released(tracking, ONE, TINY, "promoted", champion=True, settings=None)
    assert requested_corpus(workspace, tracking, given(), simulated=False) == CHAMPIONS, (
        "known by the digest alone, as versions were"
    )


def test_a_version_keeps_the_settings_of_its_corpus(workspace):
    encoder = trained(workspace, TINY)
    harmonized(workspace, {"chapman/02": "b"})
    corpus_built(workspace, TWO, ["chapman"])
    (tag,) = corpus_settings(workspace, encoder).items()
    assert tag == (CORPUS_SETTINGS, '{"seed": 1, "sources": null, "unlabelled_folds": [], "validation_share": 0.2}')
    assert corpus_settings(workspace, replace(encoder, inputs={})) == {}


class Started:
    """A home with a champion, of settings that are not the usual ones, and then one more partition of ECGs."""

    def __init__(self, road: Road) -> None:
        self.road, self.instance = road, road.instance
        self.store = Tracking.of(road.home)
        for source, partition in (("chapman", "01"), ("ptbxl", "00000")):
            road.harvest(source, partition)
        road.train()
        self.ticks = Ticks(self.instance)
        road.made()
        road.harvest("chapman", "02")

    def automation(self) -> set[str]:
        """A tick of both switches, and the runs that it requests."""
        names = self.ticks.requested()
        if names:
            job = defs.resolve_implicit_global_asset_job_def()
            keys = [dg.AssetKey(name.split("/")) for name in sorted(names)]
            job.execute_in_process(instance=self.instance, asset_selection=keys, raise_on_error=False)
        return names

    def schedule(self) -> bool:
        """A tick of the schedule, and the run that it requests."""
        with dg.build_schedule_context(instance=self.instance, resources={"data_home": DataHome()}) as context:
            answer = weekly_retraining(context)
        if isinstance(answer, dg.RunRequest):
            defs.resolve_job_def(TRAIN).execute_in_process(
                instance=self.instance, run_config=answer.run_config, tags=answer.tags, raise_on_error=False
            )
        return isinstance(answer, dg.RunRequest)


@pytest.fixture
def started(home, tmp_path, monkeypatch) -> Iterator[Started]:
    monkeypatch.setenv("ECG_RETRAIN_START", "champion")
    sizes = MirrorSizes(chapman=(40, 40), code15=(), ptbxl=(60,), cpsc2018=(), georgia=(), ludb=0)
    write_mirror(tmp_path / "mirror", seed=3, sizes=sizes)
    home.set_mirror(str(tmp_path / "mirror"))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance, stage_log() as made:
        yield Started(Road(home, instance, made))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", ["the automation", "the schedule", "the automation, and the schedule amid it"])
def test_with_schedule_and_switches_on_one_change_is_trained_once(started, first):
    made: list[str] = []
    if first == "the schedule":
        assert started.schedule()
        made += started.road.made()
    while names := started.automation():
        made += started.road.made()
        if "encoder" in names and first.endswith("amid it"):
            assert started.schedule(), "nothing is judged yet"
            made += started.road.made()
    assert (made.count("corpus"), made.count("encoder")) == (1, 1)
    assert not started.schedule(), "it was judged"
    assert started.automation() == set()
    workspace = started.road.home.workspace()
    assert workspace.require("corpus").config["validation_share"] == 0.2, "as the champion's was"
    trained_by = Recipe.from_dict({**workspace.require("encoder").config, "warm_start": None})
    assert trained_by == recipe_named("demo", TINY_CHANGES)
    assert workspace.require("encoder").config["warm_start"] is not None
    known = versions_of(tracking=started.store)
    assert [version.version for version in known] == [2, 1]
    assert {version.tags[CORPUS_SETTINGS] for version in known} == {known[0].tags[CORPUS_SETTINGS]}
