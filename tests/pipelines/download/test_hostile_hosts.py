"""A host that sends without end, compressed, or a drop at a time fills neither the disk nor the memory."""

from __future__ import annotations

import gzip
import hashlib
import time
from pathlib import Path

import pytest

from pipelines.download import http
from pipelines.download.http import Retries, Transfer
from tests.support.fault_server import Fault, FaultServer, Handler

BODY = b"what the list says" * 50
CHECKSUM = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
ONCE = Retries(attempts=1)
SENT = 40 << 20  # bytes at which a host that was not stopped gives up


def endless(handler: Handler, body: bytes) -> bool:
    """Send the file, and after it more and more."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    block = body + b"x" * (1 << 16)
    for _ in range(SENT // len(block)):
        handler.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")
    return True


def compressed(handler: Handler, body: bytes) -> bool:
    """Send far fewer bytes than they become."""
    packed = gzip.compress(b"0" * SENT)
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.send_header("Content-Length", str(len(packed)))
    handler.end_headers()
    handler.wfile.write(packed)
    return True


def a_part(handler: Handler, body: bytes) -> bool:
    """Send the first half as a range that nobody asked for."""
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 0-{len(body) // 2 - 1}/{len(body)}")
    handler.send_header("Content-Length", str(len(body) // 2))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    return True


def trickle(handler: Handler, body: bytes) -> bool:
    """Send a byte now and then."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    for at in range(len(body)):
        handler.wfile.write(body[at : at + 1])
        handler.wfile.flush()
        time.sleep(0.02)
    return True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "host"
    root.mkdir()
    (root / "file").write_bytes(BODY)
    return root


def test_a_file_is_taken_up_to_its_listed_size_and_no_further(folder: Path, tmp_path: Path) -> None:
    came: list[int] = []
    with FaultServer(folder, faults={"file": [endless, endless]}) as server, Transfer(retries=ONCE) as transfer:
        with pytest.raises(ValueError, match="the host has another file than its list says"):
            transfer.fetch([f"{server.url}/file"], tmp_path / "file", CHECKSUM, came.append, len(BODY))
        assert max(came) <= len(BODY) + 1
        assert sum(came) == 0, "what came is discarded"
        assert list(tmp_path.glob("file*")) == []
        transfer.fetch([f"{server.url}/file"], tmp_path / "file", CHECKSUM, came.append, len(BODY))
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_span_is_taken_up_to_its_end(folder: Path, tmp_path: Path) -> None:
    def more(handler: Handler, body: bytes) -> bool:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 10-99/{len(body)}")
        handler.send_header("Content-Length", str(SENT))
        handler.end_headers()
        handler.wfile.write(body[10:100] + b"x" * (SENT - 90))
        return True

    with FaultServer(folder, faults={"file": [more]}) as server, Transfer(retries=ONCE) as transfer:
        transfer.fetch_span([f"{server.url}/file"], tmp_path / "part", (10, 100), lambda gained: None)
    assert (tmp_path / "part").stat().st_size <= 91


@pytest.mark.parametrize("fault", [compressed, a_part])
def test_an_answer_that_was_not_asked_for_is_no_list(folder: Path, fault: Fault) -> None:
    with FaultServer(folder, faults={"file": [fault]}) as server, Transfer(retries=ONCE) as transfer:
        with pytest.raises(ConnectionError, match="which was not asked for"):
            transfer.get([f"{server.url}/file"])
        assert transfer.get([f"{server.url}/file"]) == BODY


def test_a_compressed_file_is_not_unpacked(folder: Path, tmp_path: Path) -> None:
    with (
        FaultServer(folder, faults={"file": [compressed]}) as server,
        Transfer(retries=ONCE) as transfer,
        pytest.raises(ConnectionError, match="compresses its answer"),
    ):
        transfer.fetch([f"{server.url}/file"], tmp_path / "file", CHECKSUM, lambda gained: None)
    assert sum(path.stat().st_size for path in tmp_path.glob("file*")) == 0


def test_a_list_without_end_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MOST_LIST", 1 << 20)
    with (
        FaultServer(folder, faults={"file": [endless]}) as server,
        Transfer(retries=ONCE) as transfer,
        pytest.raises(ConnectionError, match="more than 1 MB came, which no list has"),
    ):
        transfer.get([f"{server.url}/file"])


def test_a_host_below_the_least_rate_is_given_up(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LEAST_SECONDS", 0.2)
    with FaultServer(folder, faults={"file": [trickle]}) as server, Transfer(retries=ONCE) as transfer:
        with pytest.raises(ConnectionError, match="fewer than 1000 bytes came per second"):
            transfer.fetch([f"{server.url}/file"], tmp_path / "file", CHECKSUM, lambda gained: None, len(BODY))
        transfer.fetch([f"{server.url}/file"], tmp_path / "file", CHECKSUM, lambda gained: None, len(BODY))
    assert (tmp_path / "file").read_bytes() == BODY, "what came before is used"
