"""A download, a harmonization and a training, killed at seeded moments and started again by the same command."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from itertools import count, cycle
from pathlib import Path

from pipelines.cache import Workspace
from pipelines.download.mirror import Mirror
from pipelines.download.step import materialize_raw
from pipelines.home import Home
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES
from tests.support.fault_server import FaultServer
from tests.support.kills import (
    Program,
    Trial,
    differences,
    finished_differently,
    kill_again_and_again,
    left_behind,
    python,
    until,
)
from tests.support.pretraining import Program as Training
from tests.support.pretraining import lasting, small_home, tensors_of

SIZES = MirrorSizes(chapman=(12,), code15=(24,), ptbxl=(), cpsc2018=(), georgia=(), ludb=0)
PARTITIONS = (("chapman", "01"), ("code15", "0"))
PIECE = 100_000  # so that the small archive here comes in pieces, as a part of CODE-15% does
RATE = 500_000.0  # bytes a second of a connection
CONNECTIONS = 4

DOWNLOAD = f"""
from pipelines.download import fetch
fetch.PIECE = {PIECE}
from pipelines.cli import main
main()
"""
"""`ecg`, with smaller pieces."""

HARMONIZE = """
import sys
from pipelines.harmonize.step import materialize_ecgs
from pipelines.harmonize.quality import QualityLimits
from pipelines.sources import SOURCES
from pipelines.cache import Workspace
source, partition, home = sys.argv[1:]
print("ready", flush=True)
materialize_ecgs(Workspace(home), SOURCES[source], partition, limits=QualityLimits())
"""
"""What the asset does."""


class Calm:
    """Runs that nothing disturbs, each when it is first needed."""

    def __init__(self, program: Callable[[str, str], Program]) -> None:
        self._program = program
        self._seconds: dict[str, float] = {}

    def of(self, source: str, partition: str) -> float:
        """Return the seconds of work of a partition's undisturbed run."""
        if source not in self._seconds:
            self._seconds[source] = self._program(source, partition).run()
        return self._seconds[source]


def mirror_to_kill(folder: Path) -> Path:
    """Write a small mirror of PARTITIONS."""
    return write_mirror(folder, sizes=SIZES).path


def killed_downloads(work: Path, seed: int, kills: int) -> Iterator[Trial]:
    """`ecg download` from a server on loopback."""
    draw, mirror = random.Random(seed), mirror_to_kill(work / "mirror")
    with FaultServer(mirror, rate=RATE) as server:

        def download(place: Path, source: str, partition: str) -> Program:
            command = python(DOWNLOAD, "download", source, partition, "--connections", str(CONNECTIONS))
            settings = {"ECG_HOME": str(place), "ECG_MIRROR": server.url}
            server.seen.clear()
            return Program(command, work / "log", settings, at_work=lambda _: bool(server.seen))

        seconds = Calm(lambda source, partition: download(work / source, source, partition))
        names = cycle(PARTITIONS)

        def trial(most: int) -> Trial:
            source, partition = next(names)
            work_takes = seconds.of(source, partition)
            here, calm = Home(work / "home", server.url), Home(work / source, server.url)
            whole: set[str] = set()

            def looked_at() -> list[str]:
                product = f"raw/{source}/{partition}"
                again = _fetched_again(server, whole)
                half = _half_written(here.raw_root, mirror, whole)
                server.seen.clear()
                return again + half + finished_differently(here.workspace(), calm.workspace(), product)

            program = download(here.root, source, partition)
            killed = kill_again_and_again(program, draw, work_takes, most, looked_at)
            surprises = [*killed.surprises, *looked_at()]
            surprises += [*left_behind(here.root), *differences(here.root, calm.root)]
            shutil.rmtree(here.root)
            return Trial(killed.tried, tuple(surprises))

        yield from until(kills, trial)


def _half_written(raw: Path, mirror: Path, whole: set[str]) -> list[str]:
    """Name the files that are neither the mirror's nor the part of one and called so; add to `whole` those that are."""
    surprises = []
    for path in (path for path in raw.rglob("*") if path.is_file() and not path.name.startswith(".")):
        name, part, number = path.relative_to(raw).as_posix().partition(".part")
        original, data = (mirror / name).read_bytes(), path.read_bytes()
        first = int(number.removeprefix(".")) * PIECE if number else 0
        expected = original[first : first + PIECE] if number else original
        if not (expected.startswith(data) if part else data == original):
            surprises.append(f"{path.relative_to(raw)} is not what the mirror has")
        elif not part:
            whole.add(name)
    return surprises


def _fetched_again(server: FaultServer, whole: set[str]) -> list[str]:
    """Name the files that were whole and were fetched once more; lists are asked for each time."""
    asked = {seen.path for seen in server.seen if seen.range is None and seen.since is None}
    again = [path for path in asked & whole if not path.endswith(("SHA256SUMS.txt", "4916206"))]
    return [f"{path} was whole, and was fetched again" for path in sorted(again)]


def killed_harmonizations(work: Path, seed: int, kills: int) -> Iterator[Trial]:
    """The step that the asset `ecgs/SOURCE` runs."""
    draw, mirror = random.Random(seed), mirror_to_kill(work / "mirror")

    def harmonize(place: Path, source: str, partition: str) -> Program:
        materialize_raw(
            Workspace(place), SOURCES[source], partition, mirror=Mirror.parse(str(mirror)), raw_root=work / "raw"
        )
        return Program(python(HARMONIZE, source, partition, place), work / "log")

    seconds = Calm(lambda source, partition: harmonize(work / source, source, partition))
    names = cycle(PARTITIONS)

    def trial(most: int) -> Trial:
        source, partition = next(names)
        work_takes = seconds.of(source, partition)
        here, calm = Workspace(work / "home"), Workspace(work / source)
        killed = kill_again_and_again(
            harmonize(here.root, source, partition),
            draw,
            work_takes,
            most,
            lambda: finished_differently(here, calm, f"ecgs/{source}/{partition}"),
        )
        surprises = [*killed.surprises, *left_behind(here.root), *differences(here.root, calm.root)]
        shutil.rmtree(here.root)
        return Trial(killed.tried, tuple(surprises))

    yield from until(kills, trial)


def killed_trainings(work: Path, seed: int, kills: int) -> Iterator[Trial]:
    """`python -m pipelines.pretrain`, with a probe on the way and a checkpoint each four steps."""
    draw, home = random.Random(seed), small_home(work / "home", ecgs=60, labels=["426783006"])
    options = ("--checkpoint-every", "4")

    def train(out: Path) -> Program:
        return Program(Training(home, out).command(*options, probe_epochs=1, select="best"), work / "log")

    seconds = train(work / "calm").run()
    numbers = count()

    def trial(most: int) -> Trial:
        out = work / f"run-{next(numbers)}"
        killed = kill_again_and_again(train(out), draw, seconds, most)
        surprises = [*killed.surprises, *left_behind(out), *_trained_differently(out, work / "calm", home)]
        shutil.rmtree(out)
        return Trial(killed.tried, tuple(surprises))

    yield from until(kills, trial)


def _trained_differently(out: Path, calm: Path, home: tuple[Path, Path]) -> list[str]:
    """Name what differs of two runs: files, weights, summary, metrics and tensors of the last checkpoint."""
    here, there = Training(home, out), Training(home, calm)
    aside = [found for found in differences(out, calm) if not found.endswith(" differs") or "aside/" not in found]
    same_tensors = tensors_of(here.checkpoints()[-1]) == tensors_of(there.checkpoints()[-1])
    same_metrics = lasting(here.metrics()) == lasting(there.metrics())
    return (
        aside
        + ([] if same_tensors else ["the last checkpoint's tensors differ"])
        + ([] if same_metrics else ["the metrics differ"])
    )
