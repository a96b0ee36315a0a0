"""Names that no machine agrees on are shown escaped, and end nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.incoming.check import check_drop
from pipelines.incoming.listing import FolderOfDrops, list_drop, misnamed_drops


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"M\xfcller.csv", "M\\udcfcller.csv"),
        (b"line\nbreak.csv", "line\\nbreak.csv"),
        (b"bell\x07.csv", "bell\\x07.csv"),
        ("Müller.csv".encode(), "Müller.csv"),
    ],
)
def test_a_file_s_odd_name_is_refused_and_can_be_said(tmp_path: Path, name: bytes, shown: str) -> None:
    drop = tmp_path / "ward"
    drop.mkdir()
    with open(os.path.join(os.fsencode(drop), name), "wb") as stream:  # noqa: PTH118, PTH123  # pathlib takes no bytes
        stream.write(b"I\n1\n")
    (refused,) = list_drop(drop).refused
    assert refused.path == shown
    assert "use ASCII letters" in refused.why
    report = check_drop(drop)
    assert str(report.to_dict()).encode()  # no surrogate is left in it


def test_a_drop_s_odd_name_can_be_said(tmp_path: Path) -> None:
    os.mkdir(os.path.join(os.fsencode(tmp_path), b"K\xe4the"))  # noqa: PTH102, PTH118  # pathlib takes no bytes
    assert misnamed_drops(FolderOfDrops(tmp_path)) == ["K\\udce4the"]


@pytest.mark.parametrize(("letters", "taken"), [(240, True), (241, False), (255, False)])
def test_a_name_that_a_copy_could_not_have_is_refused(tmp_path: Path, letters: int, taken: bool) -> None:
    drop = tmp_path / "ward"
    drop.mkdir()
    (drop / ("a" * (letters - 4) + ".csv")).write_text("I\n1\n")
    listing = list_drop(drop)
    assert (len(listing.files), len(listing.refused)) == ((1, 0) if taken else (0, 1))
    if not taken:
        assert listing.refused[0].why == f"its name has {letters} letters: use at most 240"
