"""Processes that are killed, disks that fill up, two at once: what is done again is what an undisturbed run makes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.cache import Workspace
from pipelines.download import fetch as fetching
from pipelines.download.http import Retries
from pipelines.download.mirror import Mirror
from pipelines.download.step import download_partition, materialize_raw
from pipelines.durable import write_atomically
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES
from tests.support.fault_server import FaultServer
from tests.support.killed_steps import killed_downloads, killed_harmonizations, killed_trainings
from tests.support.kills import Trial, differences, left_behind

PIECE = 50_000  # so that the small archive here comes in pieces, as a part of CODE-15% does
QUICK = Retries(attempts=3, first=0.001, longest=0.002)

DOWNLOAD = f"""
import sys
from pathlib import Path
from pipelines.download import fetch as fetching
from pipelines.download.mirror import Mirror
from pipelines.download.step import materialize_raw
from pipelines.sources import SOURCES
from pipelines.cache import Workspace
fetching.PIECE = {PIECE}
url, source, partition, home, raw = sys.argv[1:]
print("ready", flush=True)
product = materialize_raw(
    Workspace(home), SOURCES[source], partition, mirror=Mirror.parse(url), raw_root=Path(raw), connections=4
)
print(product.digest, product.cached)
"""


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = MirrorSizes(chapman=(12,), code15=(6,), ptbxl=(), cpsc2018=(), georgia=(), ludb=0)
    return write_mirror(tmp_path_factory.mktemp("faults") / "mirror", sizes=sizes).path


@pytest.fixture
def server(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.setattr(fetching, "PIECE", PIECE)
    with FaultServer(mirror) as running:
        yield running


@dataclass(frozen=True)
class Place:
    """A data home of its own."""

    folder: Path

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.folder / "home")

    @property
    def raw(self) -> Path:
        return self.folder / "raw"

    def download(self, url: str, source: str, partition: str) -> str:
        product = materialize_raw(
            self.workspace, SOURCES[source], partition, mirror=Mirror.parse(url), raw_root=self.raw
        )
        return product.digest

    def harmonize(self, source: str, partition: str) -> str:
        return materialize_ecgs(self.workspace, SOURCES[source], partition, limits=QualityLimits()).digest


def program(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def files_below(folder: Path) -> dict[str, bytes]:
    """What a person finds there; hidden are locks and the checksums of lists."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def check_nothing_is_half_written(raw: Path, mirror: Path) -> set[str]:
    """Every file is the mirror's, or the part of one and called so; those that are whole."""
    whole = set()
    for name, data in files_below(raw).items():
        path, part, number = name.partition(".part")
        original = (mirror / path).read_bytes()
        if not part:
            assert data == original, name
            whole.add(name)
        elif number:
            first = int(number.removeprefix(".")) * PIECE
            assert original[first : first + PIECE].startswith(data), name
        else:
            assert original.startswith(data), name
    return whole


def test_a_killed_download_goes_on(tmp_path: Path) -> None:
    all_as_undisturbed(killed_downloads(tmp_path, seed=1, kills=1), kills=1)


SERIES = {"download": killed_downloads, "harmonize": killed_harmonizations, "train": killed_trainings}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("series", "kills"), [("download", 12), ("harmonize", 10), ("train", 5)])
def test_what_is_killed_and_started_again_is_as_undisturbed(tmp_path: Path, series: str, kills: int) -> None:
    """`python -m benchmarks.faults kills` does it more often."""
    all_as_undisturbed(SERIES[series](tmp_path, 2, kills), kills)


def test_what_is_lost_changed_or_left_behind_is_named(tmp_path: Path) -> None:
    here, calm = tmp_path / "here", tmp_path / "calm"
    for folder in (here, calm):
        write_atomically(folder / "raw" / "done.json", b'{"digest": "a", "seconds": %d}' % len(folder.name))
        write_atomically(folder / "raw" / "root", str(folder).encode())
        (folder / ".lock").touch()
    assert differences(here, calm) == left_behind(here) == []
    (here / "raw" / "root").write_text("elsewhere")
    (here / "raw" / "a.dat.part.1").touch()
    (calm / "lost").touch()
    assert differences(here, calm) == ["lost is missing", "raw/a.dat.part.1 should not be there", "raw/root differs"]
    assert left_behind(here) == ["raw/a.dat.part.1 is left behind"]


def all_as_undisturbed(trials: Iterator[Trial], kills: int) -> None:
    done = list(trials)
    assert [surprise for trial in done for surprise in trial.surprises] == []
    assert sum(trial.tried for trial in done) == kills


def test_of_two_processes_on_one_partition_one_works_and_the_other_waits(
    tmp_path: Path, server: FaultServer, mirror: Path
) -> None:
    server.rate = 250_000.0
    arguments = (server.url, "chapman", "01", tmp_path / "home", tmp_path / "raw")
    with program(DOWNLOAD, *arguments) as first, program(DOWNLOAD, *arguments) as second:
        outputs = [process.communicate()[0].split() for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0]
    assert outputs[0][1] == outputs[1][1]
    assert sorted(words[2] for words in outputs) == ["False", "True"]
    fetched = [seen.path for seen in server.seen if "WFDBRecords" in seen.path]
    assert len(fetched) == len(set(fetched)) == 24
    check_nothing_is_half_written(tmp_path / "raw", mirror)


# disks that fill up


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not mount(folder, "size=400k"):
        pytest.skip("a small disk can be mounted by root alone")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def mount(folder: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_disk_that_fills_up_is_named_and_the_download_goes_on_with_more_room(
    tmp_path: Path, disk: Path, server: FaultServer, mirror: Path
) -> None:
    here, chapman = Mirror.parse(server.url), SOURCES["chapman"]
    with pytest.raises(OSError, match=rf"no room left in {disk} .*make room, .*it resumes where it stopped"):
        download_partition(chapman, "01", mirror=here, raw_root=disk, retries=QUICK)
    whole = check_nothing_is_half_written(disk, mirror)
    assert mount(disk, "remount,size=16m")
    server.seen.clear()
    manifest = download_partition(chapman, "01", mirror=here, raw_root=disk, retries=QUICK)
    assert not {seen.path for seen in server.seen} & {path for path in whole if "WFDBRecords" in path}
    calm = download_partition(chapman, "01", mirror=here, raw_root=tmp_path / "calm", retries=QUICK)
    assert manifest.files == calm.files
    assert files_below(disk) == files_below(tmp_path / "calm")


def test_what_cannot_fit_is_not_begun(disk: Path, server: FaultServer) -> None:
    with pytest.raises(ValueError, match=r"have to be fetched and \d+ kB are free in .*make room"):
        download_partition(SOURCES["code15"], "0", mirror=Mirror.parse(server.url), raw_root=disk, retries=QUICK)
    assert not [seen for seen in server.seen if seen.path.endswith(".zip")]


def test_a_download_of_unknown_size_stops_before_the_disk_is_full(disk: Path, server: FaultServer) -> None:
    """PhysioNet lists no sizes; of 16 MB a hundredth stays free for whoever else writes there."""
    assert mount(disk, "remount,size=16m")
    (disk / "ballast").write_bytes(bytes((16 << 20) - 150_000))
    with pytest.raises(OSError, match=rf"no room left in {disk} \(.* kB are free, and 168 kB stay free .*make room"):
        download_partition(SOURCES["chapman"], "01", mirror=Mirror.parse(server.url), raw_root=disk, retries=QUICK)
    assert not [seen for seen in server.seen if "WFDBRecords" in seen.path and not seen.path.endswith(".txt")]


def test_a_disk_that_fills_up_leaves_no_harmonized_shard(tmp_path: Path, disk: Path, mirror: Path) -> None:
    full, calm = Place(disk), Place(tmp_path / "calm")
    for place in (full, calm):
        place.download(str(mirror), "chapman", "01")
    (disk / "ballast").write_bytes(bytes(300_000))
    with pytest.raises(OSError, match="No space left on device"):
        full.harmonize("chapman", "01")
    assert full.workspace.current("ecgs/chapman/01") is None
    assert not list(disk.rglob("*.partial"))
    (disk / "ballast").unlink()
    assert mount(disk, "remount,size=16m")
    assert full.harmonize("chapman", "01") == calm.harmonize("chapman", "01")


def test_a_file_that_may_not_grow_is_named(tmp_path: Path, server: FaultServer, mirror: Path) -> None:
    """A limit of the shell or of a quota: no root is needed to see it."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n" + DOWNLOAD
    with program(limited, server.url, "chapman", "01", tmp_path / "home", tmp_path / "raw") as process:
        _, errors = process.communicate()
    assert process.returncode == 1
    assert f"no room left in {tmp_path / 'raw'} (File too large)" in errors  # a limited coverage has its say too
    check_nothing_is_half_written(tmp_path / "raw", mirror)
    place = Place(tmp_path)
    assert place.download(server.url, "chapman", "01") == Place(tmp_path / "calm").download(server.url, "chapman", "01")
