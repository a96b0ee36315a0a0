"""Drops are copied once, whole, and as they were when they were complete."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines.download.step import recorded_files
from pipelines.home import Home
from pipelines.incoming.listing import (
    list_drop,
)
from pipelines.incoming.step import _copy, hashed, materialize_drop
from tests.support.drops import (
    array_fields,
    complete,
    ecgs,
    write_npy,
)


def test_a_drop_is_copied_once_and_a_change_is_another_product(home: Home, drop: Path) -> None:
    write_npy(drop / "deep.npy", ecgs(2), **array_fields())
    complete(drop)
    one = materialize_drop(home, "ward-7")
    assert (one.name, one.cached, one.facts["files"]) == ("raw/incoming/ward-7", False, 2)
    root, files = recorded_files(one)
    assert [file.path for file in files] == ["deep.json", "deep.npy"]
    assert (root / "deep.npy").read_bytes() == (drop / "deep.npy").read_bytes()
    os.utime(drop / "deep.npy")
    assert materialize_drop(home, "ward-7").cached, "the bytes are the same"
    # A change of the same size.
    changed = bytearray((drop / "deep.npy").read_bytes())
    changed[-1] ^= 1
    (drop / "deep.npy").write_bytes(changed)
    two = materialize_drop(home, "ward-7")
    assert not two.cached
    assert two.digest != one.digest
    assert recorded_files(one)[0] != recorded_files(two)[0], "what was made of the first still stands"
    shutil.rmtree(drop)
    assert materialize_drop(home, "ward-7") == home.workspace().require("raw/incoming/ward-7")
    (recorded_files(two)[0] / "deep.npy").unlink()
    with pytest.raises(ValueError, match="is gone, and our copy of it is damaged"):
        materialize_drop(home, "ward-7")


def test_what_a_killed_copy_left_is_put_right(home: Home, drop: Path) -> None:
    write_npy(drop / "a.npy", ecgs(1), **array_fields())
    complete(drop)
    root, files = recorded_files(taken := materialize_drop(home, "ward-7"))
    shutil.rmtree(taken.path)
    (root / ".a.npy.part").write_bytes(b"half")
    (root / "a.npy").write_bytes(bytes((root / "a.npy").stat().st_size))
    assert materialize_drop(home, "ward-7").digest == taken.digest
    assert (root / "a.npy").read_bytes() == (drop / "a.npy").read_bytes()
    assert sorted(path.name for path in root.iterdir()) == [file.path for file in files]


def test_a_file_that_changes_while_it_is_copied_is_not_taken(home: Home, drop: Path) -> None:
    write_npy(drop / "a.npy", ecgs(1), **array_fields())
    complete(drop)
    before = {file.path: file for file in hashed(drop, list_drop(drop))}["a.npy"]
    write_npy(drop / "a.npy", ecgs(1, seed=1), **array_fields())
    with pytest.raises(ValueError, match=r"a\.npy: changed while it was copied"):
        _copy(drop, home.root / "copy", before)
    assert not list((home.root / "copy").rglob("*.npy*"))


def test_what_is_not_whole_is_not_taken(home: Home, drop: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        materialize_drop(home, "other")
    with pytest.raises(ValueError, match="_COMPLETE is not there"):
        materialize_drop(home, "ward-7")
    complete(drop)
    with pytest.raises(ValueError, match="no files but _COMPLETE"):
        materialize_drop(home, "ward-7")
    secret = tmp_path / "secret.npy"
    np.save(secret, ecgs(1))
    (drop / "a.npy").symlink_to(secret)
    with pytest.raises(ValueError, match=r"1 entries are refused, first a\.npy: a link"):
        materialize_drop(home, "ward-7")
    (drop / "a.npy").unlink()
    (drop / "folder").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(drop / "pipe")
    (drop / "ecg:1.npy").touch()
    assert [one.path for one in list_drop(drop).refused] == ["ecg:1.npy", "folder", "pipe"]
    with pytest.raises(ValueError, match="3 entries are refused"):
        materialize_drop(home, "ward-7")
    assert home.workspace().current("raw/incoming/ward-7") is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_named(home: Home, drop: Path) -> None:
    write_npy(drop / "a.npy", ecgs(1), **array_fields())
    complete(drop)
    (drop / "a.npy").chmod(0)
    with pytest.raises(ValueError, match=r"a\.npy: cannot be read"):
        materialize_drop(home, "ward-7")


def test_own_ecgs_never_join_simulated_ones(home: Home, drop: Path) -> None:
    complete(drop)
    with pytest.raises(ValueError, match="own ECGs are not mixed with simulated ones"):
        materialize_drop(Home(home.root, str(home.simulated_mirror)), "ward-7")
