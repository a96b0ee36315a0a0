"""Drops after they were taken: verified, repaired, listed, withdrawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pipelines.cli import main
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from pipelines.download.step import recorded_files
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.harmonize.window import Incomplete
from pipelines.home import Home
from pipelines.incoming import INCOMING
from pipelines.incoming.step import materialize_drop

LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
NAMES = ("ward-7", "ward-8")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("ECG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ECG_INCOMING", raising=False)
    home = Home.default()
    for seed, name in enumerate(NAMES):
        write(home.incoming / name, seed)
        materialize_drop(home, name)
    return home


def harmonize(home: Home) -> None:
    for name in NAMES:
        materialize_ecgs(
            home.workspace(), INCOMING, name, limits=QualityLimits(), incomplete=Incomplete(mark_leads=True)
        )


def write(folder: Path, seed: int, records: int = 4) -> None:
    folder.mkdir(parents=True)
    x = np.random.default_rng(seed).standard_normal((records, 12, 2500)).cumsum(axis=2) / 100
    np.save(folder / "a.npy", x - x.mean(axis=2, keepdims=True))
    ids = [f"{folder.name}-{n}" for n in range(records)]
    (folder / "a.json").write_text(json.dumps({"rate": 250, "leads": LEADS, "units": "mV", "ids": ids}))
    (folder / "_COMPLETE").touch()


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ecg(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_copies_of_drops_are_verified_and_repaired_from_the_drop(home: Home) -> None:
    assert "incoming ward-7: 2 files" in ecg("verify").output
    root, _ = recorded_files(home.workspace().require("raw/incoming/ward-7"))
    right = (root / "a.npy").read_bytes()
    (root / "a.npy").write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    (root / "a.json").unlink()
    result = ecg("verify", "incoming", "--json")
    assert result.exit_code == 1
    found = {one["partition"]: one for one in json.loads(result.stdout)}
    assert (found["ward-7"]["missing"], found["ward-7"]["damaged"]) == (["a.json"], ["a.npy"])
    assert found["ward-8"]["sound"]
    assert ecg("verify", "incoming", "--repair").exit_code == 0
    assert (root / "a.npy").read_bytes() == right
    assert ecg("verify", "incoming").exit_code == 0


def test_sources_list_what_was_dropped(home: Home) -> None:
    harmonize(home)
    own = json.loads(ecg("sources", "--json").stdout)[-1]
    assert own["name"] == "incoming"
    assert own["downloaded"] == own["harmonized"] == ["ward-7", "ward-8"]
    assert own["entered"] == 8
    assert "2 of 2" in ecg("sources").output


def test_the_next_corpus_is_built_without_a_withdrawn_drop(home: Home) -> None:
    def indexed() -> set[str]:
        corpus = materialize_corpus(home.workspace(), CorpusConfig(validation_share=0.3))
        return set(json.loads((corpus.path / "corpus.json").read_text())["shards"])

    harmonize(home)
    assert indexed() == {"incoming/ward-7", "incoming/ward-8"}
    dropped = tree(home.incoming)
    refused = CliRunner().invoke(main, ["withdraw-drop", "ward-7"], input="n\n")
    assert refused.exit_code == 1
    assert indexed() == {"incoming/ward-7", "incoming/ward-8"}
    result = ecg("withdraw-drop", "ward-7", "--yes")
    assert result.exit_code == 0, result.output
    assert "still there" in result.output
    assert tree(home.incoming) == dropped
    assert indexed() == {"incoming/ward-8"}
    below_home = [path for path in tree(home.root) if "ward-7" in path and not path.startswith("incoming/")]
    assert [path for path in below_home if not path.endswith(".lock")] == []


def test_a_drop_is_withdrawn_from_every_place_it_was_taken_into(home: Home, tmp_path: Path) -> None:
    harmonize(home)
    home.set_mirror(str(tmp_path))
    for name in NAMES:
        materialize_drop(home, name)
    harmonize(home)
    assert len(home.spaces()) == 2
    assert ecg("withdraw-drop", "ward-7", "--yes").exit_code == 0
    below_home = [path for path in tree(home.root) if "ward-7" in path and not path.startswith("incoming/")]
    assert [path for path in below_home if not path.endswith(".lock")] == []
    assert ecg("withdraw-drop", "ward-7", "--yes").exit_code == 1


@pytest.mark.parametrize("name", ["ward-9", "../ward-7", "a..b"])
def test_a_drop_that_was_not_taken_is_not_withdrawn(home: Home, name: str) -> None:
    before = tree(home.root)
    result = ecg("withdraw-drop", name, "--yes")
    assert result.exit_code != 0
    assert name in str(result.output) + str(result.exception)
    assert tree(home.root) == before


@pytest.mark.parametrize(("name", "good"), [("ward-7_2026.05", True), ("ward 7", False), ("a..b", False)])
def test_check_drop_says_which_name_can_be_no_partition(tmp_path: Path, name: str, good: bool) -> None:
    write(tmp_path / name, 0)
    result = ecg("check-drop", str(tmp_path / name))
    assert result.exit_code == (0 if good else 1)
    assert ("rename the folder" in result.output) is not good
