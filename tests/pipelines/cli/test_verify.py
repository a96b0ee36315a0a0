"""`ecg verify` and `ecg download`: what was damaged is named, and exactly that is fetched again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.download.mirror import Mirror
from pipelines.download.step import discard_raw, materialize_raw, raw_files
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.home import Home
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES
from tests.support.commands import ecg
from tests.support.fault_server import FaultServer

LUDB, CHAPMAN = SOURCES["ludb"], SOURCES["chapman"]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = MirrorSizes(chapman=(6, 5), code15=(4,), ptbxl=(), cpsc2018=(), georgia=(), ludb=3)
    return write_mirror(tmp_path_factory.mktemp("verify") / "mirror", sizes=sizes).path


@pytest.fixture
def server(mirror: Path) -> Iterator[FaultServer]:
    with FaultServer(mirror) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: FaultServer) -> Home:
    monkeypatch.setenv("ECG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ECG_MIRROR", server.url)
    return Home.default()


def materialize(home: Home, source: str, partition: str) -> bool:
    """As the asset does it; whether it was cached."""
    return materialize_raw(
        home.workspace(), SOURCES[source], partition, mirror=Mirror.parse(home.mirror), raw_root=home.raw_root
    ).cached


def harmonize(home: Home, source: str, partition: str, amplitude: float = 32.767) -> bool:
    limits = QualityLimits(amplitude=amplitude)
    return materialize_ecgs(home.workspace(), SOURCES[source], partition, limits=limits).cached


def test_download_brings_what_the_mirror_has_once(home: Home, server: FaultServer) -> None:
    told = ecg("download", "chapman")
    lines = told.stdout.splitlines()
    assert [line.split(", ")[0] for line in lines] == ["chapman 01: 12 files", "chapman 02: 10 files"]
    assert all(line.endswith(", downloaded") for line in lines)
    server.seen.clear()
    assert ecg("download", "chapman", "01").stdout.endswith("here already\n")
    assert server.seen == []
    assert materialize(home, "chapman", "01")


def test_download_of_what_is_not_there(home: Home) -> None:
    assert "source 'nope': use one of chapman" in ecg("download", "nope").stderr
    assert "georgia: the mirror http" in ecg("download", "georgia").stderr
    assert "partition '99' of chapman" in ecg("download", "chapman", "99").stderr


def test_what_is_sound_is_said_to_be(home: Home) -> None:
    ecg("download", "ludb")
    ecg("download", "code15")
    done = ecg("verify")
    assert done.exit_code == 0
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == ["code15 0", f"ludb {LUDB.partitions[0]}"]
    assert done.stdout.count(" sound") == 2
    (one,) = json.loads(ecg("verify", "ludb", "--json").stdout)
    assert (one["source"], one["missing"], one["damaged"], one["sound"]) == ("ludb", [], [], True)
    assert one["bytes"] == sum(file.bytes or 0 for file in raw_files(home.workspace().require(_ludb()))[1])


def _ludb() -> str:
    return f"raw/ludb/{LUDB.partitions[0]}"


def test_damage_is_named_and_exactly_that_is_fetched_again(home: Home, server: FaultServer) -> None:
    ecg("download", "chapman")
    product = home.workspace().require("raw/chapman/01")
    root, files = raw_files(product)
    gone, changed = (root / files[at].path for at in (0, 3))
    gone.unlink()
    data = bytearray(changed.read_bytes())
    data[50] ^= 1  # the size stays: only the hash can tell
    changed.write_bytes(data)

    done = ecg("verify", "chapman")
    assert done.exit_code == 1
    assert f"  missing {files[0].path}\n" in done.stdout
    assert f"  damaged {files[3].path}\n" in done.stdout
    assert "2 of 22 files are missing or damaged" in done.stderr
    states = {one["partition"]: one for one in json.loads(ecg("verify", "--json").stdout)}
    assert (states["01"]["missing"], states["01"]["damaged"]) == ([files[0].path], [files[3].path])
    assert states["02"]["sound"]
    with pytest.raises(ValueError, match=r"raw/chapman/01: 2 of 12 files .* materialize it again"):
        raw_files(product)

    server.seen.clear()
    assert not materialize(home, "chapman", "01")
    assert sorted(seen.path for seen in server.seen) == sorted([files[0].path, files[3].path])
    assert home.workspace().require("raw/chapman/01").digest == product.digest
    assert ecg("verify").exit_code == 0
    assert materialize(home, "chapman", "01")


def test_repair_does_it_at_once(home: Home, server: FaultServer) -> None:
    ecg("download", "ludb")
    root, files = raw_files(home.workspace().require(_ludb()))
    (root / files[1].path).write_bytes(b"x")
    server.seen.clear()
    done = ecg("verify", "--repair")
    assert done.exit_code == 0
    assert f"damaged {files[1].path}" in done.stdout
    assert [seen.path for seen in server.seen] == [files[1].path]
    assert ecg("verify").exit_code == 0


def test_a_folder_mirror_is_named_and_left_as_it_is(
    home: Home, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    shutil.copytree(mirror, own)
    monkeypatch.setenv("ECG_MIRROR", str(own))
    ecg("download", "ludb")
    root, files = raw_files(Home.default().workspace().require(_ludb()))
    good = (own / files[0].path).read_bytes()
    (own / files[0].path).write_bytes(bytes(len(good)))
    said = ecg("verify")
    assert said.exit_code == 1
    assert f"1 of {len(files)} files are missing or damaged: correct them in {own}, a folder" in said.stderr
    assert "--repair" not in said.stderr
    (state,) = json.loads(ecg("verify", "--json").stdout)
    assert state["mirror"] == str(own)
    refused = ecg("verify", "--repair")
    assert refused.exit_code == 1
    assert "are not what their source lists" in refused.stderr
    assert "fetch them into that folder again" in refused.stderr
    assert (own / files[0].path).read_bytes() == bytes(len(good))
    (own / files[0].path).write_bytes(good)  # its owner put it right
    assert ecg("verify").exit_code == 0
    assert root == own.resolve()
    assert materialize(Home.default(), "ludb", LUDB.partitions[0])


def test_verify_of_nothing(home: Home) -> None:
    assert ecg("verify").exit_code == 0
    assert "no drop was taken" in ecg("verify", "incoming").stderr
    assert "source 'nope'" in ecg("verify", "nope").stderr


def test_before_a_first_success_verify_names_the_command_that_names_the_file(
    home: Home, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.copytree(mirror, tmp_path / "own")
    broken = next(own.rglob("ludb/**/*.dat"))
    broken.write_bytes(bytes(broken.stat().st_size))
    monkeypatch.setenv("ECG_MIRROR", str(own))
    failed = ecg("download", "ludb").stderr
    assert f"first {broken.relative_to(own)}" in failed
    said = ecg("verify", "ludb", "--repair").stderr
    assert "no partition of ludb is completely downloaded" in said
    assert "`ecg download ludb` continues the download, and names a faulty file" in said
    assert ecg("download", "ludb").stderr == failed


# deleted after harmonization


@pytest.mark.parametrize(("name", "partition"), [("chapman", "01"), ("code15", "0")])
def test_deleted_files_are_not_fetched_again_while_their_shard_is_current(
    home: Home, server: FaultServer, name: str, partition: str
) -> None:
    source, workspace = SOURCES[name], home.workspace()
    assert not materialize(home, name, partition)
    assert discard_raw(workspace, source, partition, raw_root=home.raw_root) == 0  # not harmonized yet
    assert not harmonize(home, name, partition)
    ecgs = workspace.require(f"ecgs/{name}/{partition}")
    raw = workspace.require(f"raw/{name}/{partition}")
    _, files = raw_files(raw)
    own = [file for file in files if source.partition_of(file.path) == partition]
    assert discard_raw(workspace, source, partition, raw_root=home.raw_root) == sum(file.bytes or 0 for file in own)
    assert discard_raw(workspace, source, partition, raw_root=home.raw_root) == 0
    # What partitions share stays.
    assert [(home.raw_root / file.path).is_file() for file in files] == [file not in own for file in files]

    server.seen.clear()
    assert materialize(home, name, partition)
    assert harmonize(home, name, partition)
    assert server.seen == []
    told = json.loads(ecg("verify", name, "--json").stdout)
    assert [(one["let_go"], one["sound"]) for one in told] == [(True, True)]

    # Other limits need the files: it is said, and they can be brought back.
    with pytest.raises(ValueError, match=f"were deleted after harmonization: .*`ecg download {name} {partition}`"):
        harmonize(home, name, partition, amplitude=1.0)
    assert ecg("download", name, partition).stdout.endswith("downloaded\n")
    assert workspace.require(raw.name).digest == raw.digest
    assert not harmonize(home, name, partition, amplitude=1.0)
    assert harmonize(home, name, partition)
    assert workspace.require(ecgs.name).digest == ecgs.digest


def test_deleted_files_are_fetched_again_if_their_shard_is_gone(home: Home) -> None:
    workspace = home.workspace()
    materialize(home, "chapman", "01")
    harmonize(home, "chapman", "01")
    discard_raw(workspace, CHAPMAN, "01", raw_root=home.raw_root)
    shutil.rmtree(workspace.folder("ecgs/chapman/01"))
    assert not materialize(home, "chapman", "01")
    assert not harmonize(home, "chapman", "01")


def test_files_of_a_folder_mirror_are_never_deleted(home: Home, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECG_MIRROR", str(mirror))
    own = Home.default()
    materialize(own, "chapman", "01")
    harmonize(own, "chapman", "01")
    assert discard_raw(own.workspace(), CHAPMAN, "01", raw_root=own.raw_root) == 0
    assert len(raw_files(own.workspace().require("raw/chapman/01"))[1]) == 12


def test_what_rots_unseen_is_never_harmonized_and_what_is_repaired_is(home: Home) -> None:
    """A changed byte that nobody has verified since stops the harmonization; fetched again, the record is there."""
    ecg("download", "chapman")
    workspace, source = home.workspace(), SOURCES["chapman"]
    root, files = raw_files(workspace.require("raw/chapman/01"))
    signal = next(root / file.path for file in files if file.path.endswith(".mat"))
    data = bytearray(signal.read_bytes())
    data[200] ^= 1
    signal.write_bytes(data)
    with pytest.raises(ValueError, match=r"1 of 12 files .* are not what was verified, first .*materialize it again"):
        materialize_ecgs(workspace, source, "01", limits=QualityLimits())
    assert not materialize(home, "chapman", "01")
    kept = materialize_ecgs(workspace, source, "01", limits=QualityLimits())
    assert not kept.cached
    assert kept.facts["dropped"].get("checksum wrong", 0) == 0
