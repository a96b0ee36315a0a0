"""Large files in parts: all connections at once, whatever an earlier run left, and whatever fails."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.download.fetch import map_in_threads
from pipelines.download.http import Retries, Transfer
from pipelines.download.mirror import Mirror
from pipelines.download.multipart import MultipartDownload, PartFiles
from pipelines.download.step import download_partition
from pipelines.sources import SOURCES
from tests.support.fault_server import FaultServer, Handler, cut, status, truncated, wrong

QUICK = Retries(attempts=3, first=0.001, longest=0.002)
BODY = random.Random(2).randbytes(95_000)
SHA = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
PIECE = 10_000


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "big.zip").write_bytes(BODY)
    with FaultServer(folder) as running:
        yield running


@pytest.fixture
def target(tmp_path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder / "big.zip"


def fetch(server: FaultServer, target: Path, *, connections: int = 4, retries: Retries = QUICK) -> int:
    """Fetch big.zip in parts and return the bytes that were reported as gained."""
    gained: list[int] = []
    with Transfer(connections=connections, retries=retries) as transfer:
        pieces = PartFiles(path=target, size=len(BODY), piece=PIECE)
        bring = MultipartDownload(transfer, [f"{server.url}/big.zip"], pieces, SHA, gained.append)
        map_in_threads(bring.jobs(lambda: None), lambda job: job(), connections, transfer.stop)
    return sum(gained)


def check_whole(target: Path) -> None:
    assert target.read_bytes() == BODY
    assert [path.name for path in target.parent.iterdir()] == ["big.zip"]


def test_pieces_make_the_file(server, target):
    assert fetch(server, target) == len(BODY)
    check_whole(target)
    spans = sorted(int(seen.range[6:].split("-")[0]) for seen in server.seen)
    assert spans == list(range(0, len(BODY), PIECE))


@pytest.mark.parametrize("seed", range(4))
def test_cuts_busy_hosts_and_truncated_bodies_are_got_over(server, target, seed):
    draw = random.Random(seed)
    faults = [cut(seed=seed), status(503), truncated(500), cut(after=0), status(429, Retry_After="0")]
    server.faults["big.zip"] = draw.choices(faults, k=12)
    assert fetch(server, target, retries=replace(QUICK, attempts=13)) == len(BODY)
    check_whole(target)


def test_a_wrong_byte_in_one_piece_costs_a_second_fetch(server, target):
    server.faults["big.zip"] = [wrong]
    assert fetch(server, target) == len(BODY)
    check_whole(target)


def test_a_host_without_ranges_sends_it_whole(server, target):
    server.ranges = False
    assert fetch(server, target) == len(BODY)
    check_whole(target)


def whole(handler: Handler, data: bytes) -> bool:
    """Answer with the whole file, whatever was requested."""
    handler.answer(200, data)
    return True


@pytest.mark.parametrize("odd", [1, 3])
def test_an_answer_without_a_range_costs_no_other_piece(server, target, odd):
    server.faults["big.zip"] = [whole] * odd
    assert fetch(server, target, connections=1) == len(BODY)
    check_whole(target)
    asked = [seen.range for seen in server.seen]
    assert None not in asked
    assert len(asked) == 10 + odd  # each of these a second time, and nothing else


def test_ranges_that_end_midway_keep_the_beginning(server, target):
    pieces = PartFiles(path=target, size=len(BODY), piece=PIECE)
    pieces.whole.write_bytes(BODY[: 2 * PIECE])
    pieces.part(2).write_bytes(BODY[2 * PIECE : 3 * PIECE])
    pieces.part(5).write_bytes(BODY[5 * PIECE : 6 * PIECE])
    server.ranges = False
    server.faults["big.zip"] = [cut(after=1000)] * 30
    with pytest.raises(ConnectionError):
        fetch(server, target, connections=1)
    kept = [(path.name, path.stat().st_size) for path in sorted(target.parent.iterdir())]
    assert kept[0][1] >= 2 * PIECE
    server.faults.clear()
    assert fetch(server, target) == len(BODY) - sum(size for _, size in kept)
    check_whole(target)


def test_a_host_that_fails_leaves_pieces_that_go_on(server, target):
    server.faults["big.zip"] = [cut(after=4000)] + [cut(after=0)] * 10
    with pytest.raises(ConnectionError, match="resumes where it stopped"):
        fetch(server, target, connections=1)
    assert target.with_name("big.zip.part.0").read_bytes() == BODY[:4000]
    server.faults.clear()
    server.seen.clear()
    assert fetch(server, target, connections=1) == len(BODY) - 4000
    assert server.seen[0].range == f"bytes=4000-{PIECE - 1}"
    check_whole(target)


@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_whatever_an_earlier_try_left_the_file_comes_whole(data, tmp_path_factory):
    """Any beginning of the whole file and of each part: what a process killed at any moment leaves."""
    folder = tmp_path_factory.mktemp("left")
    (folder / "raw").mkdir()
    target = folder / "raw" / "big.zip"
    pieces = PartFiles(path=target, size=len(BODY), piece=PIECE)
    beginning = data.draw(st.integers(-1, len(BODY)))
    if beginning >= 0:
        pieces.whole.write_bytes(BODY[:beginning])
    for number in data.draw(st.sets(st.integers(0, 9))):
        first, end = pieces.span(number)
        length = data.draw(st.integers(0, end - first))
        pieces.part(number).write_bytes(BODY[first : first + length])
    with FaultServer(folder) as server:
        server.folder = folder / "served"
        server.folder.mkdir()
        (server.folder / "big.zip").write_bytes(BODY)
        fetch(server, target)
        # Right bytes are never thrown away for the whole to be fetched again.
        assert all(seen.range for seen in server.seen)
    check_whole(target)


def test_a_large_listed_file_comes_in_pieces(tmp_path, monkeypatch):
    """As for a part of CODE-15%: its size is listed, so that all connections share it."""
    monkeypatch.setattr("pipelines.download.fetch.PIECE", PIECE)
    root = SOURCES["code15"].root
    table = b"exam_id\n"
    listing = {
        "files": [
            {"key": name, "checksum": f"md5:{hashlib.md5(data).hexdigest()}", "size": len(data)}
            for name, data in (("exams_part0.zip", BODY), ("exams.csv", table))
        ]
    }
    served = tmp_path / "served"
    (served / root / "files").mkdir(parents=True)
    (served / root / "files" / "exams_part0.zip").write_bytes(BODY)
    (served / root / "files" / "exams.csv").write_bytes(table)
    (served / "zenodo.org/api/records").mkdir(parents=True)
    (served / "zenodo.org/api/records/4916206").write_text(json.dumps(listing))
    with FaultServer(served) as server:
        manifest = download_partition(
            SOURCES["code15"], "0", mirror=Mirror.parse(server.url), raw_root=tmp_path / "raw", retries=QUICK
        )
        assert len(server.requests(f"{root}/files/exams_part0.zip")) == 10
        assert len(server.requests(f"{root}/files/exams.csv")) == 1
    assert (tmp_path / "raw" / root / "files" / "exams_part0.zip").read_bytes() == BODY
    assert manifest.bytes == len(BODY) + len(table)
