"""What was lost with the power is found out and built again; what was finished is there."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipelines import durable
from pipelines.cache import DONE, Workspace
from pipelines.durable import write_atomically
from tests.support.power import Disk, disk

BUILD = """
import sys
from tests.pipelines.test_durable import build
from pathlib import Path
for number in range(int(sys.argv[2])):
    build(Path(sys.argv[1]), number)
    print(number, flush=True)
"""


def build(root: Path, number: int = 0) -> bool:
    """Build a product of two files; whether it was cached."""

    def make(folder: Path) -> dict[str, int]:
        (folder / "array").mkdir()
        np.save(folder / "array" / "signals.npy", np.full(4000, number))
        (folder / "table.csv").write_text(f"{number}\n")
        return {"number": number}

    return Workspace(root).build(f"shard/{number:03d}", version="1", config={}, inputs={}, make=make).cached


@pytest.mark.parametrize("damage", ["empty", "short", "zeros", "gone", "unreadable"])
def test_a_damaged_product_is_built_again_and_said(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert not build(tmp_path)
    product = Workspace(tmp_path).require("shard/000")
    file = product.path / "array" / "signals.npy"
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "short":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "zeros":
        file.write_bytes(bytes(file.stat().st_size))
    elif damage == "gone":
        file.unlink()
    else:
        (product.path / DONE).write_bytes(b"\0" * 64)
    with caplog.at_level(logging.WARNING):
        assert Workspace(tmp_path).current("shard/000") is None
    assert "built again" in caplog.text
    assert ("signals.npy" in caplog.text) == (damage != "unreadable")
    assert not build(tmp_path)
    assert build(tmp_path)


def test_a_product_of_an_earlier_version_is_found_and_an_empty_file_in_it_is_not_believed(tmp_path: Path) -> None:
    build(tmp_path)
    product = Workspace(tmp_path).require("shard/000")
    done = json.loads((product.path / DONE).read_text())
    del done["files"]
    (product.path / DONE).write_text(json.dumps(done))
    assert build(tmp_path)
    (product.path / "table.csv").write_bytes(b"")
    assert not build(tmp_path)


def test_pictures_and_marks_beside_a_product_may_change(tmp_path: Path) -> None:
    build(tmp_path)
    product = Workspace(tmp_path).require("shard/000")
    write_atomically(product.aside / "mark", b"")
    assert build(tmp_path)


KILLED_WHILE_WRITING = """
import os, pathlib, signal, sys
from pipelines import durable
durable.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
durable.write_atomically(pathlib.Path(sys.argv[1]), b"half a file and more")
"""


def test_a_killed_write_leaves_nothing_once_the_file_is_written_again(tmp_path: Path) -> None:
    target = tmp_path / "current"
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    write_atomically(target, b"whole")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"current": b"whole"}


def test_many_that_write_one_file_leave_one_of_theirs_whole(tmp_path: Path) -> None:
    target, texts = tmp_path / "current", [bytes([97 + number]) * 40 * (number + 1) for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        for read in threads.map(
            lambda number: (write_atomically(target, texts[number % 8]), target.read_bytes())[1], range(200)
        ):
            assert read in texts
    assert [path.name for path in tmp_path.iterdir()] == ["current"]


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Disk]:
    with disk(tmp_path) as made:
        if made is None:
            pytest.skip("needs root, a loop device and mkfs.ext4, to cut the power of a disk")
        yield made


def test_what_was_finished_is_there_after_a_power_cut(drive: Disk) -> None:
    build(drive.root / "home")
    drive.cut()
    assert build(drive.root / "home"), "cached"
    product = Workspace(drive.root / "home").require("shard/000")
    assert np.load(product.path / "array" / "signals.npy").sum() == 0


@pytest.mark.parametrize("at_once", [True, False])
def test_many_files_are_flushed_at_once_or_each(drive: Disk, at_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not at_once:  # a machine without such a call
        monkeypatch.setattr(durable, "flush_file_system", lambda path: False)
    files = [drive.root / "raw" / str(number % 3) / f"{number}.dat" for number in range(40)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(file.name.encode())
    durable.flush_files(files, drive.root)
    (drive.root / "raw" / "late").write_bytes(b"late")
    drive.cut()
    assert [file.read_bytes() for file in files] == [file.name.encode() for file in files]


@pytest.mark.parametrize("seed", range(5))
def test_a_power_cut_in_the_middle_leaves_nothing_that_looks_finished(drive: Disk, seed: int) -> None:
    home = drive.root / "home"
    command = [sys.executable, "-c", BUILD, str(home), "40"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(float(np.random.default_rng(seed).uniform(0, 0.3)))
        os.kill(process.pid, signal.SIGSTOP)
        said = 1
        drive_cut_with(process, drive)
        said += sum(1 for _ in process.stdout)
    for number in range(40):
        cached = build(home, number)
        assert cached or number >= said - 1, f"product {number} was finished and is lost"
        product = Workspace(home).require(f"shard/{number:03d}")
        assert (np.load(product.path / "array" / "signals.npy") == number).all()


def drive_cut_with(process: subprocess.Popen[str], drive: Disk) -> None:
    """Cut the power while the process stands still, then end it: a file that it holds open keeps a disk mounted."""
    drive.shut_down()
    process.kill()
    process.wait()
    drive.start()
