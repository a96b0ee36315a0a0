"""A csv of labels names ECGs by record id or by path; rows of dropped ECGs are left out and said, others refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecg_model.leads import LEADS_12
from pipelines.evaluate.suite.own_labels import own_task
from pipelines.formats.vendor.read import record_id
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.home import Home
from pipelines.incoming import own_data
from pipelines.incoming.step import materialize_drop
from tests.support.commands import ecg
from tests.support.drops import complete, describe, ecgs
from tests.support.vendor_files import Ecg, muse

FILES = ("p1/a", "p2/a", "p2/b.v2", "p3/flat", "p3/broken")


def taken(home: Home, name: str, files: tuple[str, ...] = FILES) -> None:
    """A drop of csv files, harmonized: `flat` and `broken` are dropped, and two files are called a."""
    drop = home.root / "incoming" / name
    for seed, file in enumerate(files):
        x_LT = ecgs(1, seed=seed + len(name) * 10)[0] * (not file.endswith("flat"))
        (drop / file).parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(drop / f"{file}.csv", x_LT.T, delimiter=",", header=",".join(LEADS_12), comments="", fmt="%.3f")
        if file.endswith("broken"):
            (drop / f"{file}.csv").write_text("I,II\n1\n")
    (drop / "p4").mkdir(exist_ok=True)
    (drop / "p4" / "scan.xml").write_bytes(
        muse(Ecg(d_LT=(200 * ecgs(1, 8, seed=len(name) + len(files))[0]).astype(np.int16)))
    )
    describe(drop / "drop", rate=500, units="mV")
    complete(drop)
    materialize_drop(home, name)
    materialize_ecgs(home.workspace(), own_data(home), name, limits=QualityLimits())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("ECG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ECG_MIRROR", "hosts")
    home = Home.default()
    taken(home, "ward-7")
    return home


def test_rows_are_understood_or_refused(home: Home, tmp_path: Path) -> None:
    def read(*rows: str) -> tuple[dict[str, tuple[str, ...]], list[str]]:
        (tmp_path / "x.csv").write_text("record_id,label\n" + "\n".join(rows))
        said: list[str] = []
        return dict(own_task(home.workspace(), tmp_path / "x.csv", "incoming", said.append).codes or {}), said

    def refused(*rows: str) -> str:
        with pytest.raises(ValueError, match=r"x\.csv") as error:
            read(*rows)
        return str(error.value)

    vendors = record_id(home.root / "incoming" / "ward-7" / "p4" / "scan.xml")
    labels = {"p1/a": ("x",), "p2/a": ("y",), "b.v2": ("y",)}
    assert read("p1/a,x", "p2/a,y", "b.v2,y") == (labels, ["the rows of x.csv name ECGs by record id"])
    for first, second, third in (
        ("p1/a.csv", "p2/a.csv", "p2/b.v2.csv"),
        ("ward-7/p1/a.csv", "ward-7/p2/a", "p2/b.v2"),
    ):
        read_, said = read(f"{first},x", f"{second},y", f"{third},y")
        assert read_ == labels
        assert said[0].startswith("the rows of x.csv name ECGs by ")
    mixed = read("p1/a,x", "p2/a,y", "b.v2.csv,y")
    assert mixed == (labels, ["the rows of x.csv name ECGs by record id, 1 of them by path"])
    both = read("p1/a,x", "p1/a.csv,z", "p2/a,y")
    assert both[0] == {"p1/a": ("x", "z"), "p2/a": ("y",)}

    kept, said = read("p1/a.csv,x", "p2/a.csv,y", "p3/flat.csv,x", "p3/broken.csv,z")
    assert kept == {"p1/a": ("x",), "p2/a": ("y",)}
    assert said[:2] == [
        "the rows of x.csv name ECGs by path",
        "2 of 4 labelled ECGs were dropped when they were harmonized, and are left out:",
    ]
    assert said[2].startswith("  p3/flat.csv: flat lead: ")
    assert said[3].startswith("  p3/broken.csv: ")
    assert "all 1 labelled ECGs were dropped" in refused("flat,x")

    assert read("p4/scan.xml,x", "p1/a,y")[0].keys() == {"p1/a", vendors}, "a vendor's file is called by its content"
    assert "1 of 2 records are not among the 4 harmonized ECGs of incoming, such as 'p2/c.csv'" in refused(
        "p1/a,x", "p2/c.csv,y"
    )
    assert "such as 'p1/b.v1'; ECGs there are called 'b.v2', " in refused("p1/a,x", "p1/b.v1,y")
    assert "such as 'a.csv'; ECGs there are called 'p1/a', 'p2/a', " in refused("p1/a,x", "a.csv,y")


def test_a_path_that_two_drops_have_needs_the_drops_name(home: Home, tmp_path: Path) -> None:
    taken(home, "ward-8", ("p1/a", "p4/c"))
    (tmp_path / "x.csv").write_text("record_id,label\np1/a.csv,x\np4/c.csv,y\n")
    with pytest.raises(ValueError, match=r"'p1/a\.csv' is the path of files in several drops: write the drop's name"):
        own_task(home.workspace(), tmp_path / "x.csv", "incoming")
    (tmp_path / "x.csv").write_text("record_id,label\nward-8/p1/a.csv,x\np4/c.csv,y\n")
    assert own_task(home.workspace(), tmp_path / "x.csv", "incoming").codes == {"a": ("x",), "c": ("y",)}


def test_the_commands_print_it(home: Home, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("record_id,label\np1/a.csv,x\np2/a.csv,y\np3/flat.csv,x\n")
    for command in ("train-classifier", "evaluate-labels"):
        told = ecg(command, tmp_path / "x.csv")
        assert told.exit_code == 1
        said = " ".join(told.output.split())
        assert "the rows of x.csv name ECGs by path 1 of 3 labelled ECGs were dropped" in said
        assert "p3/flat.csv: flat lead: " in said
