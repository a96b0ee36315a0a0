"""Which drops there are, and which of them are complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.home import Home
from pipelines.incoming.bucket import place_of
from pipelines.incoming.listing import (
    MARKER,
    FolderOfDrops,
    check_name,
    complete_drops,
    misnamed_drops,
)
from pipelines.incoming.step import materialize_drop
from tests.support.drops import (
    array_fields,
    complete,
    ecgs,
    write_npy,
)


def test_a_drop_is_complete_once_its_marker_is_there_and_is_seen_to_change(home: Home, drop: Path) -> None:
    assert complete_drops(FolderOfDrops(home.root / "nowhere")) == []
    write_npy(drop / "a.npy", ecgs(2), **array_fields())
    (home.incoming / "my drop!").mkdir()
    (home.incoming / "..").joinpath("outside").mkdir()
    (home.incoming / "linked").symlink_to(home.root / "outside")
    (home.incoming / "file").touch()
    assert complete_drops(place_of(home.incoming)) == []
    complete(drop)
    (found,) = complete_drops(place_of(home.incoming))
    assert (found.name, len(found.listing.files)) == ("ward-7", 2)
    assert sum(file.bytes for file in found.listing.files) == sum(path.stat().st_size for path in drop.iterdir())
    assert complete_drops(place_of(home.incoming)) == [found]
    assert misnamed_drops(place_of(home.incoming)) == ["my drop!"]
    (drop / "b.txt").write_text("more")
    assert complete_drops(place_of(home.incoming))[0].listing.digest != found.listing.digest


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", ".hidden", "a..b", "-a", "a" * 65, "ä", "a\n", "a b"])
def test_names_that_are_no_partition_are_refused(home: Home, name: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        check_name(name)
    with pytest.raises(ValueError, match="letters, digits"):
        materialize_drop(home, name)


def test_a_marker_that_is_a_link_is_none(home: Home, drop: Path) -> None:
    (drop / MARKER).symlink_to("/etc/hostname")
    assert complete_drops(place_of(home.incoming)) == []


def test_the_incoming_folder_is_the_homes_or_the_environments(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home.incoming == home.root / "incoming"
    monkeypatch.setenv("ECG_INCOMING", "/data/dropped")
    assert home.incoming == Path("/data/dropped")
