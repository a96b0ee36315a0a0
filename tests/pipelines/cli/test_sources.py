"""`ecg sources`."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from pipelines.home import Home
from pipelines.incoming.listing import NAME
from pipelines.records import DroppedRecord, DropReason
from pipelines.sources import SOURCES
from tests.support.commands import ecg
from tests.support.shards import record, shard

pytestmark = pytest.mark.usefixtures("home")


def test_sources_tell_what_there_is_and_what_is_here(home: Home) -> None:
    workspace = home.workspace()
    for partition, entered, kept in (("01", 10, 9), ("07", 5, 5)):
        dropped = {"too short": entered - kept}
        facts = {"entered": entered, "kept": kept, "dropped": dropped, "role": "pretraining"}
        workspace.build(
            f"ecgs/chapman/{partition}",
            version="1",
            config={},
            inputs={},
            make=lambda out, facts=facts: facts,
        )
    workspace.build("raw/chapman/01", version="1", config={}, inputs={}, make=lambda out: {})
    states = {state["name"]: state for state in json.loads(ecg("sources", "--json").output)}
    assert len(states) == 7
    assert states["chapman"]["harmonized"] == ["01", "07"]
    assert states["chapman"]["downloaded"] == ["01"]
    assert (states["chapman"]["entered"], states["chapman"]["kept"]) == (15, 14)
    assert states["code15"]["harmonized"] == []
    assert {state["role"] for state in states.values()} == {"pretraining", "evaluation"}

    table = ecg("sources").stdout
    line = next(line for line in table.splitlines() if line.split()[:1] == ["chapman"])
    assert "CC BY 4.0" in line
    assert "1 of 46" in line
    assert "2 of 46" in line
    assert "14 of 15" in line
    assert str(workspace.root) in table


def test_sources_tell_which_partitions_a_folder_mirror_has(home: Home, mirror: Path, tmp_path: Path) -> None:
    assert "has a part" not in ecg("sources").stdout
    own = shutil.copytree(mirror, tmp_path / "own")
    home.set_mirror(str(own))
    states = {state["name"]: state for state in json.loads(ecg("sources", "--json").output)}
    offered = states["chapman"]["offered"]
    assert 0 < len(offered) < 46
    home.workspace().build("raw/ludb/all", version="1", config={}, inputs={}, make=lambda out: {})
    told = ecg("sources").stdout.partition("choose the partitions that it has:\n")[2].partition("\n\n")[0].splitlines()
    assert f"  chapman: {', '.join(offered)} ({len(offered)} of 46)" in told
    assert not [line for line in told if "ludb" in line], "all of it is here"
    shutil.rmtree(own)  # a disk that is not mounted
    assert "  chapman: none" in ecg("sources").stdout


def test_the_list_says_how_to_cite_each_source_once() -> None:
    told = ecg("sources").stdout.partition("Cite what you use")[2]
    for source in SOURCES.values():
        assert told.count(f": {source.citation}\n") == 1
    assert "  ptbxl, ptbxl100: Wagner P" in told


def test_one_source_is_shown_in_full(home: Home, mirror: Path) -> None:
    home.set_mirror(str(mirror))
    assert ecg("download", "ludb").exit_code == 0
    chapman, ludb = ecg("sources", "chapman"), ecg("sources", "ludb")
    assert "Zheng J, Guo H" in chapman.stdout
    assert "about 5.1 GB in 46 partitions" in chapman.stdout
    assert "0 of 46 partitions" in chapman.stdout
    assert "ecg download chapman 01 02" in chapman.stdout
    assert "https://doi.org/10.13026/eegm-h675" in ludb.stdout
    assert "1 of 1 partition; its files are read in the mirror" in ludb.stdout
    (row,) = (line.split() for line in ludb.stdout.splitlines() if line.split()[:1] == ["all"])
    assert row[1] == "28"
    assert [state["name"] for state in json.loads(ecg("sources", "ludb", "--json").stdout)] == ["ludb"]
    own = ecg("sources", NAME)
    assert "harvest_incoming" in own.stdout
    refused = ecg("sources", "chapmann")
    assert refused.exit_code == 1
    assert "source 'chapmann': use one of chapman, code15" in refused.stderr


def test_dropped_records_are_csv_with_names_escaped(home: Home) -> None:
    kept = [record(f"r{at}", seed=at, patient=f"p{at}") for at in range(8)]
    lost = DroppedRecord("r\x1b[31m", DropReason.TOO_SHORT, 'a "quoted", long\ndetail')
    shard(home.workspace(), "chapman", "pretraining", [*kept, record("again", seed=0), lost])
    materialize_corpus(home.workspace(), CorpusConfig())
    rows = [*csv.DictReader(ecg("sources", "chapman", "--dropped").stdout.splitlines())]
    assert [(row["record_id"], row["step"], row["reason"]) for row in rows] == [
        ("r\\x1b[31m", "harmonize", "too short"),
        ("again", "corpus", "duplicate"),
    ]
    assert rows[0]["detail"] == 'a "quoted", long\\ndetail'
    assert "1 too short (harmonize), 1 duplicate (corpus)" in ecg("sources", "chapman").stdout
    assert ecg("sources", "ludb", "--dropped").stdout == "source,partition,record_id,step,reason,detail\n"
    assert len(ecg("sources", "--dropped").stdout.splitlines()) == 3
    assert ecg("sources", "--dropped", "--json").exit_code == 2
