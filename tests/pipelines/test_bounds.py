"""Small files that ask for much memory are dropped, refused or read within a gigabyte, each with a sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.download.mirror import Mirror, list_source
from pipelines.evaluate.suite.own_labels import read_labels
from pipelines.harmonize import convert
from pipelines.harmonize.quality import QualityLimits
from pipelines.incoming import INCOMING, description
from pipelines.incoming.check import check_drop
from pipelines.records import Record
from pipelines.sources import SOURCES, base, code15
from pipelines.sources.base import RemoteFile, read_table
from pipelines.sources.ludb import read_waves
from tests.support.bombs import CASES, LARGE, measured
from tests.support.hostile import ROOM
from tests.support.paths import ROOT


@pytest.mark.parametrize("name", CASES)
def test_a_drop_of_few_bytes_takes_little_memory_and_says_why(tmp_path: Path, name: str) -> None:
    make, expected = CASES[name]
    make(tmp_path)
    said, taken = measured(tmp_path)
    assert expected in said
    assert taken < ROOM / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_large_drop_stays_within_a_gigabyte_too(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-m", "tests.support.bombs", str(tmp_path / "drops"), name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    _, said, taken = json.loads(done.stdout)
    assert LARGE[name][1] in said
    assert taken < ROOM


# What is not a drop


def _table(rows: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "t.csv").write_text(rows)
        list(read_table(folder / "t.csv", ["a"]))

    return write


def _sparse(name: str, size: int, read: Callable[[Path], object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("wb") as file:
            file.truncate(size)
        read(folder)

    return write


def _part(folder: Path) -> None:
    with zipfile.ZipFile(folder / "exams_part0.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("exams_part0.hdf5", bytes(1_000_000))
    list(code15.read_part(folder / "exams_part0.zip", folder / "exams.csv"))


LUDB = SOURCES["ludb"]
TOO_LARGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a line of a table": (_table("a,b\n" + "1" * (1 << 20)), "a line has more than 1,048,576 characters"),
    "a table": (_sparse("t.csv", 10 << 30, lambda folder: list(read_table(folder / "t.csv", ["a"]))), "of a table"),
    "labels": (_sparse("l.csv", 1 << 30, lambda folder: read_labels(folder / "l.csv")), "of a csv of labels"),
    "annotations": (
        _sparse("1.i", 1 << 30, lambda folder: read_waves(folder, [RemoteFile("1.i", "md5:" + "0" * 32)])),
        "the annotations of a lead",
    ),
    "a list": (
        _sparse(
            f"{LUDB.root}/SHA256SUMS.txt",
            1 << 30,
            lambda folder: list_source(LUDB, Mirror.parse(str(folder)), raw_root=folder / "raw"),
        ),
        "of a list",
    ),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_file_beyond_its_limit_is_refused_unread(tmp_path: Path, name: str) -> None:
    read, words = TOO_LARGE[name]
    with pytest.raises(ValueError, match=words):
        read(tmp_path)


def test_a_table_has_a_limit_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "TABLE_ROWS", 2)
    with pytest.raises(ValueError, match="more than 2 rows"):
        _table("a\n1\n2\n3\n")(tmp_path)


def test_a_part_that_unpacks_to_more_than_a_part_has_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code15, "PART_BYTES", 999_999)
    with pytest.raises(ValueError, match=r"unpacks to .*, and no part has more"):
        _part(tmp_path)


def test_a_part_that_does_not_fit_the_disk_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=999_999))
    with pytest.raises(ValueError, match=r"unpacks to .* are free in .*: make room"):
        _part(tmp_path)


def test_a_drop_of_too_many_records_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (tmp_path / f"{name}.csv").touch()
    monkeypatch.setattr(description, "RECORDS", 2)
    with pytest.raises(ValueError, match="drop x: 3 records: at most 2 are read of a file or a drop"):
        list(INCOMING.read(tmp_path, "x", [RemoteFile(f"{name}.csv", "md5:" + "0" * 32) for name in "abc"]))
    with pytest.raises(ValueError, match="3 records"):
        check_drop(tmp_path)


def test_long_recordings_do_not_wait_for_each_other_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 32 recordings that fill a batch by their bytes, at most two are read before the first is judged."""
    monkeypatch.setattr(convert, "_BATCH_BYTES", 1_000_000)
    read = 0

    def recordings():
        nonlocal read
        for at in range(32):
            read += 1
            yield Record(record_id=f"r{at}", signal_LT=np.zeros((12, 20_000), np.float32), leads=("I",) * 12, rate=500)

    next(convert.judge(recordings(), source="x", limits=QualityLimits()))
    assert read <= 2
