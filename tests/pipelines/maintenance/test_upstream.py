"""`ecg upstream`: a changed list is noticed, no record is fetched, and following the change is a decision."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipelines.cli import main
from pipelines.download.http import Retries
from pipelines.download.mirror import Mirror
from pipelines.download.step import materialize_raw
from pipelines.home import Home
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES
from tests.support.fault_server import FaultServer

CHAPMAN = SOURCES["chapman"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = MirrorSizes(chapman=(4, 4), code15=(), ptbxl=(), cpsc2018=(), georgia=(), ludb=2)
    return write_mirror(tmp_path_factory.mktemp("upstream") / "mirror", sizes=sizes).path


@pytest.fixture
def server(written: Path, tmp_path: Path) -> Iterator[FaultServer]:
    with FaultServer(shutil.copytree(written, tmp_path / "mirror")) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: FaultServer) -> Home:
    """A home with both partitions of Chapman and all of LUDB downloaded."""
    monkeypatch.setenv("ECG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ECG_MIRROR", server.url)
    found = Home.default()
    for partition in ("01", "02"):
        assert not materialize(found, "chapman", partition)
    assert not materialize(found, "ludb", SOURCES["ludb"].partitions[0])
    server.seen.clear()
    return found


def materialize(home: Home, source: str, partition: str) -> bool:
    mirror = Mirror.parse(home.mirror)
    return materialize_raw(home.workspace(), SOURCES[source], partition, mirror=mirror, raw_root=home.raw_root).cached


def upstream(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["upstream", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def chapman_list(server: FaultServer) -> Path:
    return server.folder / CHAPMAN.root / "SHA256SUMS.txt"


def change(server: FaultServer, partition: str) -> None:
    """Another version of one record upstream, with the list of checksums that belongs to it."""
    sums = chapman_list(server)
    lines = sums.read_text().splitlines()
    at = next(
        number
        for number, line in enumerate(lines)
        if line.endswith(".hea") and CHAPMAN.partition_of(f"{CHAPMAN.root}/{line.split()[1]}") == partition
    )
    path = server.folder / CHAPMAN.root / lines[at].split()[1]
    path.write_text(path.read_text() + "# corrected\n")
    lines[at] = f"{hashlib.sha256(path.read_bytes()).hexdigest()} {lines[at].split()[1]}"
    sums.write_text("\n".join(lines) + "\n")


def test_what_is_as_it_was_is_said_to_be_and_lists_alone_are_fetched(home, server):
    done = upstream()
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "chapman: as it was taken (2 partitions)",
        "ludb: as it was taken (1 partition)",
    ]
    assert not [seen.path for seen in server.seen if seen.path.endswith((".hea", ".mat", ".dat"))]


def test_a_partition_that_changed_is_named_and_taken_when_it_is_asked_for(home, server):
    change(server, "02")
    done = upstream("chapman")
    assert done.exit_code == 1
    assert done.stdout == "chapman: 1 of 2 partitions changed: 02\n"
    assert materialize(home, "chapman", "02"), "asking changed nothing here"
    (told,) = json.loads(upstream("chapman", "--take", "--json").stdout)
    assert (told["changed"], told["gone"], told["unchanged"]) == (["02"], [], False)
    assert materialize(home, "chapman", "01")
    assert not materialize(home, "chapman", "02")
    assert upstream("chapman").exit_code == 0


def test_taking_says_that_it_took_and_what_is_next(home, server):
    change(server, "02")
    done = upstream("--take")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "chapman: 1 of 2 partitions changed: 02; the new list is taken: now materialize raw/chapman 02",
        "ludb: as it was taken (1 partition)",
    ]
    assert upstream("chapman").exit_code == 1, "until it is materialized"
    assert not materialize(home, "chapman", "02")
    assert upstream("chapman").exit_code == 0


def test_a_partition_that_is_gone_is_named(home, server):
    sums = chapman_list(server)
    lines = sums.read_text().splitlines()
    kept = [line for line in lines if CHAPMAN.partition_of(f"{CHAPMAN.root}/{line.split()[1]}") != "01"]
    assert len(kept) < len(lines)
    sums.write_text("\n".join(kept) + "\n")
    assert upstream("chapman").stdout == "chapman: 1 of 2 partitions gone: 01\n"
    assert upstream("chapman", "--take").exit_code == 1, "there is nothing to follow"


def test_no_answer_and_a_page_in_place_of_a_list_are_no_change(home, server, monkeypatch):
    chapman_list(server).write_text("<html>Please log in</html>")
    done = upstream("chapman")
    assert done.exit_code == 1
    assert done.stdout.startswith("chapman: could not be asked: ")
    monkeypatch.setenv("ECG_MIRROR", "http://127.0.0.1:9")
    monkeypatch.setattr("pipelines.download.http.Retries", lambda: Retries(attempts=1))
    (home.root / Home.default().space).symlink_to(home.root / home.space)  # the same home, whose host is away
    done = upstream()
    assert done.exit_code == 1
    assert done.stdout.count("could not be asked: ") == 2
    assert materialize(home, "chapman", "01")


def test_what_is_not_there_is_refused_in_one_line(home):
    assert "source 'nope': use one of chapman" in upstream("nope").stderr
    assert "nothing of georgia is downloaded" in upstream("georgia").stderr
