"""`ecg sources`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipelines.home import Home
from tests.support.commands import ecg

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
    told = ecg("sources").stdout.partition("choose the partitions that it has:\n")[2].splitlines()
    assert f"  chapman: {', '.join(offered)} ({len(offered)} of 46)" in told
    assert not [line for line in told if "ludb" in line], "all of it is here"
    shutil.rmtree(own)  # a disk that is not mounted
    assert "  chapman: none" in ecg("sources").stdout
