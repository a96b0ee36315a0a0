"""Transfers from a real server that cuts, falsifies, stalls and refuses."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest

from pipelines.download.http import MAX_RETRY_AFTER, Retries, Transfer, TransferStopped, checksum_of
from tests.support.fault_server import FaultServer, Handler, cut, stalled, status, truncated, wrong

QUICK = Retries(attempts=3, first=0.001, longest=0.002)
BODY = random.Random(1).randbytes(300_000)
SHA = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "a.bin").write_bytes(BODY)
    with FaultServer(folder) as running:
        yield running


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "raw" / "here" / "a.bin"


def fetch(
    server: FaultServer, target: Path, *, checksum: str = SHA, retries: Retries = QUICK, size: int | None = None
) -> int:
    """Fetch a.bin and return the bytes that were reported as gained."""
    gained: list[int] = []
    with Transfer(connections=2, retries=retries) as transfer:
        transfer.fetch([f"{server.url}/a.bin"], target, checksum, gained.append, size)
    return sum(gained)


def left(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir()) if target.parent.is_dir() else []


def test_a_file_arrives_whole(server, target):
    assert fetch(server, target) == len(BODY)
    assert target.read_bytes() == BODY
    assert left(target) == ["a.bin"]


def test_a_host_that_asks_for_a_password_gets_it_from_the_file_of_netrc(server, target, tmp_path, monkeypatch):
    def guarded(handler: Handler, data: bytes) -> bool:
        basic = f"Basic {base64.b64encode(b'bob:s3cret').decode()}"
        return handler.headers["Authorization"] != basic and status(401)(handler, data)

    server.faults["a.bin"] = [guarded, guarded, guarded]
    monkeypatch.delenv("NETRC", raising=False)
    with pytest.raises(FileNotFoundError):
        fetch(server, target)
    passwords = tmp_path / "passwords"
    monkeypatch.setenv("NETRC", str(passwords))
    passwords.write_text("machine example.org login bob password s3cret\n")
    with pytest.raises(FileNotFoundError):
        fetch(server, target)
    passwords.write_text("machine 127.0.0.1 login bob password s3cret\n")
    assert fetch(server, target) == len(BODY)
    passwords.write_text("127.0.0.1 bob s3cret\n")
    with pytest.raises(ValueError, match=r"NETRC .*passwords: .* machine HOST login NAME password WORD") as refused:
        fetch(server, target)
    assert "s3cret" not in str(refused.value)


def test_md5_is_checked_too(server, target):
    fetch(server, target, checksum=f"md5:{hashlib.md5(BODY).hexdigest()}")
    assert target.read_bytes() == BODY
    assert checksum_of(target, "md5:").startswith("md5:")


@pytest.mark.parametrize("seed", range(8))
def test_cut_connections_are_resumed_where_they_were_cut(server, target, seed):
    # More cuts than attempts: each brought something, so none of them counts twice.
    server.faults["a.bin"] = [cut(seed=seed * 10 + n) for n in range(5)]
    assert fetch(server, target) == len(BODY)
    assert target.read_bytes() == BODY
    starts = [int(seen.range[6:-1]) if seen.range else 0 for seen in server.requests("a.bin")]
    assert len(starts) == 6
    assert starts == sorted(starts)


def test_a_server_without_ranges_starts_again(server, target):
    server.ranges = False
    server.faults["a.bin"] = [cut(after=100_000), cut(after=200_000)]
    assert fetch(server, target) == len(BODY)
    assert target.read_bytes() == BODY


def test_cuts_that_bring_nothing_end_it_and_keep_what_came(server, target):
    server.faults["a.bin"] = [cut(after=1000)] + [cut(after=0)] * 10
    with pytest.raises(ConnectionError, match=r"3 failures in a row.*resumes where it stopped"):
        fetch(server, target)
    assert left(target) == ["a.bin.part"]
    assert target.with_name("a.bin.part").read_bytes() == BODY[:1000]
    server.faults.clear()
    assert fetch(server, target) == len(BODY) - 1000
    assert server.requests("a.bin")[-1].range == "bytes=1000-"
    assert left(target) == ["a.bin"]


def test_a_server_without_ranges_that_always_cuts_is_given_up(server, target):
    server.ranges = False
    server.faults["a.bin"] = [cut(after=1000)] * 20
    with pytest.raises(ConnectionError, match="in a row"):
        fetch(server, target)
    assert len(server.requests("a.bin")) == 3


def test_a_partial_file_of_something_else_is_replaced(server, target):
    target.parent.mkdir(parents=True)
    target.with_name("a.bin.part").write_bytes(b"x" * 1000)
    assert fetch(server, target) == len(BODY) - 1000
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("extra", [0, 5000])
def test_a_partial_file_that_is_whole_or_too_long(server, target, extra):
    target.parent.mkdir(parents=True)
    target.with_name("a.bin.part").write_bytes(BODY + b"x" * extra)
    assert fetch(server, target) == -extra
    assert target.read_bytes() == BODY


def test_a_body_that_ends_early_unannounced_is_resumed_if_the_size_is_known(server, target):
    server.faults["a.bin"] = [truncated(100_000), truncated(50_000)]
    assert fetch(server, target, size=len(BODY)) == len(BODY)
    assert target.read_bytes() == BODY
    assert [seen.range for seen in server.requests("a.bin")] == [None, "bytes=100000-", "bytes=150000-"]


def test_a_body_that_ends_early_unannounced_starts_again_if_the_size_is_unknown(server, target):
    server.faults["a.bin"] = [truncated(100_000)]
    assert fetch(server, target) == len(BODY)
    assert target.read_bytes() == BODY


def test_a_host_that_falls_silent_is_left_and_asked_again(server, target):
    server.faults["a.bin"] = [stalled(120_000, seconds=2.0)]
    assert fetch(server, target, retries=replace(QUICK, silence=0.2)) == len(BODY)
    assert target.read_bytes() == BODY
    assert server.requests("a.bin")[1].range == "bytes=120000-"


def test_a_slow_host_is_waited_for(server, target):
    server.rate = 600_000.0  # half a second in all, longer than the silence that is borne
    assert fetch(server, target, retries=replace(QUICK, silence=0.2)) == len(BODY)
    assert target.read_bytes() == BODY
    assert len(server.seen) == 1


def test_wrong_bytes_once_are_fetched_again(server, target):
    server.faults["a.bin"] = [wrong]
    assert fetch(server, target) == len(BODY)
    assert target.read_bytes() == BODY


def test_wrong_bytes_twice_are_an_error_and_leave_nothing(server, target):
    server.faults["a.bin"] = [wrong, wrong]
    with pytest.raises(ValueError, match="the host has another file than its list says"):
        fetch(server, target)
    assert left(target) == []


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_host_that_is_busy_is_asked_again(server, target, code):
    server.faults["a.bin"] = [status(code), status(code)]
    fetch(server, target)
    assert target.read_bytes() == BODY


def test_retry_after_is_waited_for(server, target):
    def in_two_seconds(handler: Handler, data: bytes) -> bool:
        return status(503, Retry_After=formatdate(time.time() + 2, usegmt=True))(handler, data)

    server.faults["a.bin"] = [status(429, Retry_After="1"), in_two_seconds, status(503, Retry_After="soon")]
    fetch(server, target, retries=replace(QUICK, attempts=4))
    first, second, third, _ = (seen.at for seen in server.requests("a.bin"))
    assert second - first >= 1.0
    assert third - second >= 0.9  # a date has whole seconds
    assert target.read_bytes() == BODY


def test_waits_grow_and_are_never_together():
    retries = Retries(attempts=5, first=1.0, longest=10.0)
    for failures, most in ((1, 1.0), (2, 2.0), (4, 8.0), (9, 10.0)):
        waits = [retries.wait(failures, None) for _ in range(50)]
        assert most / 2 <= min(waits) < max(waits) <= most
    # What the host asks for, and up to a second more, so that sixteen connections do not come back together.
    for asked, least in ((30.0, 30.0), (-5.0, 0.0), (1e9, MAX_RETRY_AFTER)):
        waits = [retries.wait(1, asked) for _ in range(50)]
        assert least <= min(waits) < max(waits) <= least + 1.0


@pytest.mark.parametrize(
    "wrong_value", [{"attempts": 0}, {"first": -1.0}, {"first": 2.0, "longest": 1.0}, {"silence": 0.0}]
)
def test_retries_that_make_no_sense(wrong_value):
    with pytest.raises(ValueError, match="needed"):
        Retries(**wrong_value)
    with pytest.raises(ValueError, match="connections=0"):
        Transfer(connections=0)


@pytest.mark.parametrize("code", [403, 404, 410])
def test_the_next_address_is_tried_if_the_first_has_nothing(server, target, code):
    server.faults["a.bin"] = [status(code)]
    with Transfer(retries=QUICK) as transfer:
        transfer.fetch([f"{server.url}/a.bin", f"{server.url}/a.bin"], target, SHA, lambda _: None)
        assert target.read_bytes() == BODY
        with pytest.raises(FileNotFoundError, match=r"/no\.bin nor at .*/neither\.bin"):
            transfer.get([f"{server.url}/no.bin", f"{server.url}/neither.bin"])


def test_a_host_that_has_nothing_is_asked_last_from_then_on(server, target, tmp_path):
    (server.folder / "b.bin").write_bytes(BODY)
    with FaultServer(tmp_path / "empty") as bucket, Transfer(retries=QUICK) as transfer:
        for name in ("a.bin", "b.bin"):
            urls = [f"{bucket.url}/{name}", f"{server.url}/{name}"]
            transfer.fetch(urls, target.with_name(name), SHA, lambda _: None)
        assert [seen.path for seen in bucket.seen] == ["a.bin"]


def test_a_host_that_lacks_one_file_keeps_its_place(server, tmp_path):
    (tmp_path / "second").mkdir()
    for name in ("a.bin", "b.bin"):
        (tmp_path / "second" / name).write_bytes(BODY)
    with FaultServer(tmp_path / "second") as second, Transfer(retries=QUICK) as transfer:
        for name in ("a.bin", "b.bin", "a.bin"):
            transfer.get([f"{server.url}/{name}", f"{second.url}/{name}"])
        assert [seen.path for seen in server.seen] == ["a.bin", "b.bin", "a.bin"]
        assert [seen.path for seen in second.seen] == ["b.bin"]


def test_the_next_address_is_tried_if_the_first_cannot_be_reached(server, target, tmp_path):
    with FaultServer(tmp_path) as gone:
        nobody = gone.url
    with Transfer(retries=QUICK) as transfer:
        transfer.fetch([f"{nobody}/a.bin", f"{server.url}/a.bin"], target, SHA, lambda _: None)
        assert target.read_bytes() == BODY
        with pytest.raises(ConnectionError, match="ConnectError"):
            transfer.get([f"{server.url}/no.bin", f"{nobody}/no.bin"])


def test_an_empty_list_is_none(server):
    (server.folder / "empty.txt").write_bytes(b"\n")
    with Transfer(retries=QUICK) as transfer:
        assert transfer.get([f"{server.url}/empty.txt", f"{server.url}/a.bin"]) == BODY
        with pytest.raises(FileNotFoundError, match=r"not at .*/empty\.txt"):
            transfer.get([f"{server.url}/empty.txt"])


def test_what_will_not_pass_is_not_tried_again(server, target):
    server.faults["a.bin"] = [status(400)] * 5
    with pytest.raises(ConnectionError, match="HTTP 400"):
        fetch(server, target)
    assert len(server.requests("a.bin")) == 1


def test_a_range_that_was_not_asked_for_is_refused(server, target):
    target.parent.mkdir(parents=True)
    target.with_name("a.bin.part").write_bytes(BODY[:10])
    server.faults["a.bin"] = [status(206, Content_Range="bytes 0-9/300000")]
    with pytest.raises(ConnectionError, match="asked for bytes 10-"):
        fetch(server, target)


def test_nobody_there(target):
    with FaultServer(target.parent) as gone:
        url = gone.url
    with Transfer(retries=QUICK) as transfer, pytest.raises(ConnectionError, match="ConnectError"):
        transfer.fetch([f"{url}/a.bin"], target, SHA, lambda _: None)


def test_a_stopped_transfer_asks_for_nothing(server, target):
    with Transfer(retries=QUICK) as transfer:
        transfer.stop()
        with pytest.raises(TransferStopped):
            transfer.fetch([f"{server.url}/a.bin"], target, SHA, lambda _: None)
    assert server.seen == []


def test_a_transfer_that_is_stopped_midway_keeps_its_part(server, target):
    with Transfer(retries=QUICK) as transfer, pytest.raises(TransferStopped):
        transfer.fetch([f"{server.url}/a.bin"], target, SHA, lambda gained: transfer.stop() if gained else None)
    assert left(target) == ["a.bin.part"]
    part = target.with_name("a.bin.part").read_bytes()
    assert part
    assert BODY.startswith(part)


def test_a_stored_list_is_fetched_again_only_if_it_is_newer(server, tmp_path):
    kept = tmp_path / "kept" / "a.bin"
    kept.parent.mkdir()
    served = server.folder / "a.bin"
    os.utime(served, (1_600_000_000, 1_600_000_000))
    with Transfer(retries=QUICK) as transfer:
        for _ in range(3):
            assert transfer.get([f"{server.url}/a.bin"], kept) == BODY
        assert [bool(seen.since) for seen in server.seen] == [False, True, True]
        served.write_bytes(b"a new list")
        assert transfer.get([f"{server.url}/a.bin"], kept) == b"a new list"
        assert kept.read_bytes() == b"a new list"


def test_a_stored_list_is_used_if_the_host_cannot_be_reached_and_it_is_unchanged(server, tmp_path):
    kept = tmp_path / "kept" / "a.bin"
    with Transfer(retries=QUICK) as transfer:
        transfer.get([f"{server.url}/a.bin"], kept)
        with FaultServer(tmp_path) as gone:
            nobody = gone.url
        assert transfer.get([f"{nobody}/a.bin"], kept) == BODY
        # A copy that is no longer what came is not used, and is replaced.
        kept.write_bytes(BODY[:-1])
        with pytest.raises(ConnectionError):
            transfer.get([f"{nobody}/a.bin"], kept)
        assert transfer.get([f"{server.url}/a.bin"], kept) == BODY == kept.read_bytes()


def test_a_list_of_unsaid_length_is_not_believed(server, tmp_path):
    """A list that is cut at a line's end looks like a shorter list, and has no checksum."""
    listed = b"1 a\n2 b\n3 c\n"
    (server.folder / "SUMS").write_bytes(listed)
    server.faults["SUMS"] = [truncated(8)]
    with Transfer(retries=QUICK) as transfer:
        assert transfer.get([f"{server.url}/SUMS"]) == listed
        server.faults["SUMS"] = [truncated(8)] * 3
        with pytest.raises(ConnectionError, match="does not say how long it is"):
            transfer.get([f"{server.url}/SUMS"], tmp_path / "kept")
        assert not (tmp_path / "kept").exists()
        server.faults["SUMS"] = [truncated(8)] * 3
        (server.folder / "copy").write_bytes(listed)
        assert transfer.get([f"{server.url}/SUMS", f"{server.url}/copy"]) == listed


@pytest.mark.parametrize("whole", [True, False])
def test_a_list_in_chunks_is_whole_or_comes_again(server, whole):
    listed = b"1 a\n2 b\n3 c\n"
    (server.folder / "SUMS").write_bytes(listed)

    def chunked(handler: Handler, data: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"8\r\n" + data[:8] + b"\r\n")
        if whole:
            handler.wfile.write(b"4\r\n" + data[8:] + b"\r\n0\r\n\r\n")
        handler.close_connection = True
        return True

    server.faults["SUMS"] = [chunked]
    with Transfer(retries=QUICK) as transfer:
        assert transfer.get([f"{server.url}/SUMS"]) == listed
    assert len(server.seen) == (1 if whole else 2)


def test_a_host_with_other_bytes_is_left_for_the_next(server, target, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.bin").write_bytes(BODY[::-1])
    gained: list[int] = []
    with FaultServer(tmp_path / "bad") as bad, Transfer(retries=QUICK) as transfer:
        transfer.fetch([f"{bad.url}/a.bin", f"{server.url}/a.bin"], target, SHA, gained.append)
        assert (len(bad.seen), len(server.seen)) == (2, 1)
        assert target.read_bytes() == BODY
        assert sum(gained) == len(BODY)
        target.unlink()
        with pytest.raises(ValueError, match=f"{bad.url}.*another file than its list says"):
            transfer.fetch([f"{bad.url}/a.bin", f"{server.url}/no.bin"], target, SHA, gained.append)
    assert left(target) == []


@pytest.mark.parametrize("changed", [False, True])
def test_a_whole_answer_to_a_range_keeps_what_is_the_same(server, target, changed):
    """Three cuts and no ranges: the partial file still grows; another file's beginning is overwritten."""
    target.parent.mkdir(parents=True)
    before = BODY[:90_000] + (b"x" * 10_000 if changed else BODY[90_000:100_000])
    part = target.with_name("a.bin.part")
    part.write_bytes(before)
    server.ranges = False
    server.faults["a.bin"] = [cut(after=1000)] * 3
    with pytest.raises(ConnectionError):
        fetch(server, target)
    assert part.read_bytes() == before
    assert fetch(server, target) == len(BODY) - len(before)
    assert target.read_bytes() == BODY
    assert len(server.requests("a.bin")) == 4
