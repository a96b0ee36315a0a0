"""What it costs that a loss of power loses nothing: the same work with files flushed, and with fsync doing nothing.

    python -m benchmarks.flushing --folder DIR_ON_A_REAL_DISK --json FILE

harvest_ratio: a partition of Chapman's size of files is downloaded from a fast server on loopback and harmonized.
train_ratio: a training of few steps, so that its one checkpoint and its metrics weigh more than in a long one. Both
ways are measured in turn, each in a process of its own, after the disk has written what was before.
share_in_flushes: seconds in flushes by seconds of the work, which other work on the machine disturbs less than a ratio.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.download import served
from pipelines import durable
from pipelines.cache import Workspace
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from pipelines.download.mirror import Mirror
from pipelines.download.step import materialize_raw
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.pretrain import __main__ as pretrain
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES

SMALL = (
    "precision=fp32",
    "batch=16",
    "jepa.encoder.dim=64",
    "jepa.encoder.depth=2",
    "jepa.encoder.heads=2",
    "jepa.predictor.dim=32",
)

Work = Callable[[Path, Any], None]
"""Works in a new folder; the second argument is what it needs."""


def harvest(home: Path, mirror: Mirror) -> None:
    """Download and harmonize one partition."""
    workspace, source = Workspace(home), SOURCES["chapman"]
    materialize_raw(workspace, source, "01", mirror=mirror, raw_root=home / "files")
    materialize_ecgs(workspace, source, "01", limits=QualityLimits())


def train(home: Path, needs: tuple[Path, int]) -> None:
    """Train a small network on the corpus of a finished home."""
    made, steps = needs
    (corpus,) = (made / "corpus").glob("[!.]*/")
    places = ["--workspace", str(made), "--corpus", str(corpus), "--out", str(home / "run")]
    code = pretrain.main([*places, "--device=cpu", f"--set=steps={steps}", *(f"--set={field}" for field in SMALL)])
    assert code == 0, f"the training ended with {code}"


@dataclass(frozen=True)
class Measured:
    """One run of the work."""

    seconds: float
    flushes: int
    flushing: float
    """Seconds in flushes, of all threads together."""


def measured(work: Work, folder: Path, needs: Any, flushes: bool, result: Connection) -> None:
    """Do the work in this process, and send what was measured."""
    logging.disable()
    spent: list[float] = []

    def timed(flush: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(what: Any) -> Any:
            began = time.perf_counter()
            done = flush(what) if flushes else True
            spent.append(time.perf_counter() - began)
            return done

        return call

    os.fsync = timed(os.fsync)
    durable.flush_file_system = timed(durable.flush_file_system)
    began = time.perf_counter()
    work(folder, needs)
    result.send(Measured(time.perf_counter() - began, len(spent), sum(spent)))


def once(work: Work, folder: Path | None, needs: Any, flushes: bool) -> Measured:
    """Do the work in a process of its own and a folder of its own."""
    os.sync()  # what was written before is not the work's to pay for
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(dir=folder) as home:
        process = context.Process(target=measured, args=(work, Path(home), needs, flushes, sender))
        process.start()
        sender.close()
        result = receiver.recv()
        process.join()
    return result


def compared(name: str, work: Work, folder: Path | None, needs: Any, rounds: int) -> Iterator[tuple[str, Any]]:
    """Yield the figures of both ways, measured in turn."""
    once(work, folder, needs, True)  # warms the caches
    pairs: list[tuple[Measured, Measured]] = []
    for number in range(rounds):
        order = (True, False) if number % 2 else (False, True)
        both = {flushes: once(work, folder, needs, flushes) for flushes in order}
        pairs.append((both[True], both[False]))
    ratios = [on.seconds / off.seconds for on, off in pairs]
    yield f"{name}_ratio", round(statistics.median(ratios), 3)
    yield f"{name}_ratios", [round(ratio, 3) for ratio in ratios]
    yield f"{name}_seconds", round(statistics.median(on.seconds for on, _ in pairs), 2)
    yield f"{name}_share_in_flushes", round(statistics.median(on.flushing / on.seconds for on, _ in pairs), 4)
    yield f"{name}_flushes", pairs[0][0].flushes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flushing", description="Flushed against not flushed.")
    parser.add_argument("--records", type=int, default=300, help="records of the partition (default: 300)")
    parser.add_argument("--steps", type=int, default=40, help="steps of the training (default: 40)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of both ways (default: 7)")
    parser.add_argument("--folder", type=Path, help="folder for the work, on a real disk (default: the system's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    figures: dict[str, Any] = {}

    def add(named: Iterable[tuple[str, Any]]) -> None:
        for name, value in named:
            figures[name] = value
            print(f"{name:26} {value}", flush=True)

    add([("load_before", [round(load, 1) for load in os.getloadavg()])])
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        sizes = MirrorSizes(chapman=(options.records,), code15=(), ptbxl=(), cpsc2018=(), georgia=(), ludb=0)
        write_mirror(folder / "mirror", sizes=sizes)
        with served(folder / "mirror", 0.0) as mirror:
            add(compared("harvest", harvest, options.folder, mirror, options.rounds))
        harvest(folder / "home", Mirror.parse(str(folder / "mirror")))
        materialize_corpus(Workspace(folder / "home"), CorpusConfig())
        add(compared("train", train, options.folder, (folder / "home", options.steps), options.rounds))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
