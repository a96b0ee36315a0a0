"""Own ECGs through Dagster: a drop is added as a partition, taken, harmonized, and seen by the corpus."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from assets.corpus import corpus
from assets.previews import dropped_records
from assets.resources import DataHome
from assets.show import drawn_once, one_by_one
from assets.sources import ecgs_incoming, incoming_drops, raw_incoming
from ecg_model.leads import LEADS_12
from orchestration.demo import StageFailed, run
from orchestration.jobs import harvest_job_name
from pipelines.cache import Product, Workspace
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from pipelines.harmonize.checks import EVERY_FILE_READ
from pipelines.home import Home
from pipelines.incoming.bucket import place_of
from pipelines.incoming.listing import MARKER, complete_drops
from pipelines.records import DroppedRecord, DropReason
from pipelines.tracking import Tracking
from tests.support.shards import record, shard

JOB = harvest_job_name("incoming")


@pytest.fixture
def home(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_store: Callable[[Path], Tracking]) -> Home:
    """With a place for own ECGs outside it, and an empty MLflow store."""
    monkeypatch.setenv("ECG_INCOMING", str(tmp_path / "bucket"))
    new_store(home.root / "mlflow")
    return home


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def write_drop(home: Home, name: str, *, count: int = 6, seed: int = 0, leads: int = 12) -> Path:
    folder = home.incoming / name
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "ecgs.npy", np.random.default_rng(seed).normal(0, 0.3, (count, leads, 5000)).astype("f4"))
    ids = [f"{name}-{at}" for at in range(count)]
    fields = {"rate": 500, "leads": LEADS_12[:leads], "units": "mV", "ids": ids, "patient_ids": ids}
    (folder / "ecgs.json").write_text(json.dumps(fields))
    (folder / MARKER).touch()
    return folder


def materialize(instance: dg.DagsterInstance, partition: str) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [raw_incoming, ecgs_incoming],
        instance=instance,
        partition_key=partition,
        resources={"data_home": DataHome()},
    )


def test_the_page_of_a_shard_shows_what_was_not_recorded(home, instance):
    path = write_drop(home, "monday", count=2) / "ecgs.npy"
    x_NLT = np.pad(np.load(path), ((0, 0), (0, 0), (0, 400)))
    x_NLT[0, LEADS_12.index("aVR"), 2500:] = 0
    np.save(path, x_NLT)
    instance.add_dynamic_partitions(incoming_drops.name, ["monday"])
    shown = materialize(instance, "monday").asset_materializations_for_node("ecgs__incoming")[0].metadata
    assert (shown["dagster/row_count"].value, shown["padding trimmed"].value) == (2, 2)
    (row,) = shown["not recorded"].records
    assert row.data == {"lead": "aVR", "share of its samples": 0.25}


def test_of_many_dropped_records_some_of_each_reason_are_shown(workspace: Workspace) -> None:
    short = [DroppedRecord(f"s{at}", DropReason.TOO_SHORT, "5 s") for at in range(70)]
    odd = DroppedRecord("o\x1b[31m", DropReason.FLAT_LEAD, "V1 " * 1000)
    shown = dropped_records(shard(workspace, "incoming", "pretraining", [*short, odd]))
    assert len(shown.rows) == 50
    assert shown.rows[-1]["record"] == "o\\x1b[31m"
    assert len(shown.rows[-1]["detail"]) < 500
    assert shown.whole.startswith("50 of 71 shown; all as csv: `ecg sources incoming --dropped`; as a table: ")
    assert Path(shown.whole.rpartition(": ")[2]).is_file()
    assert (
        one_by_one("dropped records", dropped_records(shard(workspace, "none", "pretraining", [record("r", seed=0)])))
        == {}
    )


def test_a_picture_is_drawn_once_for_the_code_that_draws(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    product = shard(workspace, "incoming", "pretraining", [record("r", seed=0)])
    drawn: list[str] = []

    def draw(product: Product) -> bytes:
        drawn.append(product.name)
        return b"png"

    assert drawn_once(product, "none", lambda product: None) is None
    assert [drawn_once(product, "ECGs", draw) for _ in range(3)] == [b"png"] * 3
    assert len(drawn) == 1
    assert drawn_once(product, "quality", draw) == b"png"
    monkeypatch.setattr("assets.show._drawing_code", lambda: "changed")
    drawn_once(product, "ECGs", draw)
    assert len(drawn) == 3
    assert workspace.require("ecgs/incoming/a").digest == product.digest


def test_a_drop_goes_down_the_road_and_the_corpus_sees_it(home, instance):
    write_drop(home, "monday")
    (write_drop(home, "partial", seed=1, count=3, leads=3) / "letter.docx").write_bytes(b"PK\3\4\0")
    for drop in complete_drops(place_of(home.incoming)):
        instance.add_dynamic_partitions(incoming_drops.name, [drop.name])
        result = materialize(instance, drop.name)
        assert result.success
        checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
        unread = checks.pop(EVERY_FILE_READ)
        assert all(check.passed for check in checks.values())
        assert unread.passed == (drop.name == "monday")
    assert unread.severity == dg.AssetCheckSeverity.WARN
    assert (unread.description or "").startswith("1 files are of no format that is read: letter.docx. The first: ")
    assert "write it as one of them" in unread.description
    rows = result.asset_materializations_for_node("ecgs__incoming")[0].metadata
    assert (rows["dagster/row_count"].value, rows["entered"].value) == (3, 4)
    (letter,) = rows["dropped records"].records
    assert letter.data["record"] == "letter.docx"
    assert letter.data["reason"] == "unknown format"
    assert "write it as one of them" in letter.data["detail"]
    assert rows["dropped records, all"].value.startswith("all 1 shown; all as csv: `ecg sources incoming --dropped`")
    assert rows["patients"].value == "3 of 3 kept records name a patient: 3 patients, at most 1 ECGs of one"
    built = dg.materialize([corpus], instance=instance, resources={"data_home": DataHome()})
    told = built.asset_materializations_for_node("corpus")[0].metadata
    assert told["train"].value + told["validation"].value == 6
    assert told["of unknown patients"].value == "Every ECG names a patient."
    absent = told["records left out"].records
    assert [row.data["record"] for row in absent] == ["partial-0", "partial-1", "partial-2"]
    assert absent[0].data["shard"] == "incoming/partial"
    assert "V1" in absent[0].data["detail"]
    exclusions = home.workspace().require("corpus").facts["excluded"]
    assert exclusions["leads not recorded"] == 3
    before = home.workspace().require("corpus")
    assert materialize_corpus(home.workspace(), CorpusConfig()) == before
    write_drop(home, "monday", seed=2)
    materialize(instance, "monday")
    assert materialize_corpus(home.workspace(), CorpusConfig()).digest != before.digest


def test_the_job_takes_a_changed_drop_again_and_an_unchanged_one_not(home, instance):
    write_drop(home, "monday")
    instance.add_dynamic_partitions(incoming_drops.name, ["monday"])
    first = {one.name: one.metadata for one in run(JOB, instance, partition="monday")}
    assert set(first) == {"raw/incoming", "ecgs/incoming"}
    assert not any(one["cached"] for one in first.values())
    assert all(one.metadata["cached"] for one in run(JOB, instance, partition="monday"))
    write_drop(home, "monday", count=7)
    again = {one.name: one.metadata for one in run(JOB, instance, partition="monday")}
    assert not any(one["cached"] for one in again.values())
    assert again["ecgs/incoming"]["dagster/row_count"] == 7


def test_short_and_partial_records_are_a_setting(home, instance):
    folder = write_drop(home, "short", leads=8)
    np.save(folder / "ecgs.npy", np.random.default_rng(0).normal(0, 0.3, (6, 8, 3000)).astype("f4"))
    instance.add_dynamic_partitions(incoming_drops.name, ["short"])
    assert run(JOB, instance, partition="short")[1].metadata["dagster/row_count"] == 0
    config = {"ops": {"ecgs__incoming": {"config": {"repeat_from": 6.0}}}}
    assert run(JOB, instance, partition="short", config=config)[1].metadata["dagster/row_count"] == 6
    config["ops"]["ecgs__incoming"]["config"]["mark_leads"] = False
    assert run(JOB, instance, partition="short", config=config)[1].metadata["dagster/row_count"] == 0


def test_a_drop_that_is_not_complete_fails_with_one_message(home, instance):
    (write_drop(home, "early") / MARKER).unlink()
    instance.add_dynamic_partitions(incoming_drops.name, ["early", "gone"])
    with pytest.raises(StageFailed, match="_COMPLETE is not there: write it when all files of the drop are"):
        run(JOB, instance, partition="early")
    with pytest.raises(StageFailed, match="no such folder"):
        run(JOB, instance, partition="gone")
