"""What the automation requests, tick by tick, on an instance without a daemon: once for a change, never for none."""

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from orchestration.automation import FOLLOWS_CORPUS, FOLLOWS_ECGS
from orchestration.definitions import defs
from orchestration.jobs import ALONE, TRAIN

CHAPMAN, PTBXL = dg.AssetKey(["ecgs", "chapman"]), dg.AssetKey(["ecgs", "ptbxl"])
CORPUS, ENCODER = dg.AssetKey("corpus"), dg.AssetKey("encoder")
BLOCKING = "every_record_accounted_for"


class Ticks:
    """The automation's ticks over one instance; a name holds what a tick requested."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self._result: dg.EvaluateAutomationConditionsResult | None = None
        self.requested()  # switched on: nothing is known yet

    def requested(self) -> set[str]:
        cursor = None if self._result is None else self._result.cursor
        following = dg.AssetSelection.assets(*FOLLOWS_ECGS, *FOLLOWS_CORPUS)
        self._result = dg.evaluate_automation_conditions(
            defs=defs, instance=self.instance, asset_selection=following, cursor=cursor
        )
        keys = (asset.key for asset in (*FOLLOWS_ECGS, *FOLLOWS_CORPUS))
        return {key.to_user_string() for key in keys if self._result.get_num_requested(key)}

    def made(self, key: dg.AssetKey, version: str, partition: str | None = None) -> None:
        """An asset was materialized, with this digest."""
        event = dg.AssetMaterialization(key, partition=partition, tags={DATA_VERSION_TAG: version})
        self.instance.report_runless_asset_event(event)

    def checked(self, key: dg.AssetKey, passed: bool) -> None:
        self.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset_key=key, check_name=BLOCKING, passed=passed)
        )


@pytest.fixture
def ticks() -> Iterator[Ticks]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Ticks(instance)


def test_nothing_is_requested_where_nothing_is_there(ticks):
    assert ticks.requested() == set()


def test_the_corpus_follows_a_partition_once_for_one_change(ticks):
    ticks.made(CHAPMAN, "a", "01")
    assert ticks.requested() == {"corpus"}, "45 partitions and six sources are not there, and need not be"
    assert ticks.requested() == set(), "requested, and not done yet"
    ticks.made(CORPUS, "1")
    assert ticks.requested() == {"encoder"}
    ticks.made(CHAPMAN, "a", "01")
    assert ticks.requested() == set(), "the same bytes again are no change"
    ticks.made(CHAPMAN, "b", "01")
    ticks.made(PTBXL, "c", "00000")
    assert "corpus" in ticks.requested(), "two changes between two ticks are one run"
    assert "corpus" not in ticks.requested()


def test_a_corpus_that_came_out_the_same_trains_nothing(ticks):
    ticks.made(CHAPMAN, "a", "01")
    ticks.requested()
    ticks.made(CORPUS, "1")
    assert ticks.requested() == {"encoder"}
    ticks.made(ENCODER, "e")
    ticks.requested()
    ticks.made(CORPUS, "1")
    assert ticks.requested() == set()
    ticks.made(CORPUS, "2")
    assert ticks.requested() == {"encoder"}
    assert ticks.requested() == set()


def test_what_was_made_by_hand_is_not_requested_again(ticks):
    ticks.made(CHAPMAN, "a", "01")
    ticks.made(CORPUS, "1")
    ticks.made(ENCODER, "e")
    assert ticks.requested() & {"corpus", "encoder"} == set()


def test_a_failed_blocking_check_holds_the_corpus_back_until_it_passes(ticks):
    ticks.made(CHAPMAN, "a", "01")
    ticks.checked(CHAPMAN, passed=False)
    assert ticks.requested() == set()
    ticks.checked(CHAPMAN, passed=True)
    assert ticks.requested() == {"corpus"}


def test_the_road_is_walked_stage_by_stage_each_once(ticks):
    ticks.made(PTBXL, "p", "00000")
    ticks.made(CORPUS, "1")
    walked: list[str] = []
    while names := ticks.requested():
        for name in sorted(names):
            ticks.made(dg.AssetKey(name.split("/")), name)
        walked += sorted(names)
    assert (walked[0], walked[-2:]) == ("encoder", ["champion", "classifier"])
    assert sorted(walked) == sorted(asset.key.to_user_string() for asset in FOLLOWS_CORPUS)


def test_both_switches_are_off_at_first_and_reach_what_they_say():
    sensors = {sensor.name: sensor for sensor in defs.sensors or () if sensor.name.endswith(("_ecgs", "_corpus"))}
    assert {switch.default_status for switch in sensors.values()} == {dg.DefaultSensorStatus.STOPPED}
    reached = {name: switch.asset_selection.resolve(defs.resolve_asset_graph()) for name, switch in sensors.items()}
    assert reached["corpus_follows_ecgs"] == {CORPUS}
    assert ENCODER in reached["training_follows_corpus"]
    assert CORPUS not in reached["training_follows_corpus"]
    assert sensors["training_follows_corpus"].run_tags == {ALONE: TRAIN}, "it waits for the schedule's training"
