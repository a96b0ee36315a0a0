"""Download with sixteen connections and with one, from a server on loopback that is limited as archives are.

    python -m benchmarks.download --json FILE

files_ratio: a partition of many small files, as Chapman's records are. large_ratio: one large archive whose size is
listed, as a part of CODE-15% is. Both are verified and written to disk as `ecg download` does. The server gives each
connection 1 MB/s; --latency adds seconds before each answer, as with a distant host.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

from pipelines.download.mirror import Mirror
from pipelines.download.step import download_partition
from pipelines.sources import SOURCES
from pipelines.sources.base import Source

RATE = 1_000_000  # bytes a second on a connection
RECORD = 120_024  # bytes of a Chapman signal file
BURST = RATE // 50  # bytes that are sent at once


def serve(folder: Path, latency: float, ready: Connection) -> None:
    """Serve a folder endlessly, with ranges, persistent connections and RATE bytes a second on each.

    ready: gets the port.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing, because a line for each request would cost more than the request."""

        def do_GET(self) -> None:
            time.sleep(latency)
            file = folder / self.path.lstrip("/")
            if not file.is_file():
                self.send_error(404)
                return
            size = file.stat().st_size
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            start, end = int(first), int(last or size - 1) + 1
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Length", str(end - start))
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            self.end_headers()
            began = time.monotonic()
            with file.open("rb") as stream:
                stream.seek(start)
                for sent in range(0, end - start, BURST):
                    self.wfile.write(stream.read(min(BURST, end - start - sent)))
                    time.sleep(max(0.0, began + (sent + BURST) / RATE - time.monotonic()))

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        ready.send(server.server_address[1])
        server.serve_forever()


@contextmanager
def served(folder: Path, latency: float) -> Iterator[Mirror]:
    """Yield the address of a server in a separate process, whose threads do not slow down the client's."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe()
    process = context.Process(target=serve, args=(folder, latency, sender), daemon=True)
    process.start()
    try:
        yield Mirror.parse(f"http://127.0.0.1:{receiver.recv()}")
    finally:
        process.kill()
        process.join()


def write_small_files(folder: Path, source: Source, count: int) -> None:
    """Write files of the size of Chapman's, in its partition 01, with their list."""
    sums = []
    for number in range(count):
        path = f"WFDBRecords/01/{10 + number // 100:03d}/JS{number:05d}.mat"
        data = random.Random(number).randbytes(RECORD)
        (folder / source.root / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / source.root / path).write_bytes(data)
        sums.append(f"{hashlib.sha256(data).hexdigest()} {path}\n")
    (folder / source.root / "SHA256SUMS.txt").write_text("".join(sums))


def write_large_file(folder: Path, source: Source, size: int) -> None:
    """Write an archive named as one of CODE-15%, with Zenodo's list."""
    files = folder / source.root / "files"
    files.mkdir(parents=True)
    listed = []
    for name, data in (("exams_part0.zip", os.urandom(size)), ("exams.csv", b"exam_id\n")):
        (files / name).write_bytes(data)
        listed.append({"key": name, "size": len(data), "checksum": f"md5:{hashlib.md5(data).hexdigest()}"})
    api = folder / "zenodo.org/api/records" / source.root.rsplit("/", 1)[1]
    api.parent.mkdir(parents=True)
    api.write_text(json.dumps({"files": listed}))


def seconds(mirror: Mirror, source: Source, partition: str, connections: int) -> float:
    """Return the seconds of downloading a partition."""
    with tempfile.TemporaryDirectory() as raw:
        began = time.perf_counter()
        download_partition(source, partition, mirror=mirror, raw_root=Path(raw), connections=connections)
        return time.perf_counter() - began


def compare(mirror: Mirror, source: Source, partition: str, rounds: int) -> tuple[float, float]:
    """Return the median seconds with sixteen connections and with one, measured in turn."""
    both = [[seconds(mirror, source, partition, connections) for connections in (16, 1)] for _ in range(rounds)]
    with_16, with_1 = (statistics.median(column) for column in zip(*both, strict=True))
    return with_16, with_1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.download", description="16 connections against one.")
    parser.add_argument("--files", type=int, default=320, help="small files of 120 kB (default: 320)")
    parser.add_argument("--large", type=int, default=128, help="MiB of the one large file (default: 128)")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer (default: 0)")
    parser.add_argument("--rounds", type=int, default=1, help="rounds of both (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    figures: dict[str, float] = {"latency_seconds": options.latency}
    with tempfile.TemporaryDirectory() as name, served(Path(name), options.latency) as mirror:
        chapman, code15 = SOURCES["chapman"], SOURCES["code15"]
        write_small_files(Path(name), chapman, options.files)
        write_large_file(Path(name), code15, options.large << 20)
        for kind, source, partition, size in (
            ("files", chapman, "01", options.files * RECORD),
            ("large", code15, "0", options.large << 20),
        ):
            with_16, with_1 = compare(mirror, source, partition, options.rounds)
            figures |= {
                f"{kind}_megabytes": round(size / 1e6, 1),
                f"{kind}_ratio": round(with_1 / with_16, 2),
                f"{kind}_seconds_16": round(with_16, 2),
                f"{kind}_seconds_1": round(with_1, 2),
            }
    for name, value in figures.items():
        print(f"{name:20} {value}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
