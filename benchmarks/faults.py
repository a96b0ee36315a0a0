"""Kills, power cuts and damaged inputs: how many were tried, and what should not have happened.

    python -m benchmarks.faults kills --seed 1 --json FILE
    python -m benchmarks.faults all

download, harmonize, train: the command is killed by SIGKILL at seeded moments and started again until it ends; digests,
trees and files are then compared with those of an undisturbed run.

orchestration: runs, steps and servers of `make ui` are killed while they materialize, and started again; in the end no
run is in progress, no place in a pool is held, and all products are as undisturbed.

power: the power of a disk is cut at a seeded moment of a download, a harmonization, a corpus, a training or a release,
and the work is done again; what was said to be finished is there, and all is as undisturbed. Needs root.

inputs: files of every format that is read are damaged and read, in processes of limited memory; each has to be read,
dropped with a reason or refused.

A surprise is anything lost, different, left behind or not declared. The exit code is 1 if there was one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from tests.support import hostile
from tests.support.killed_stack import killed_orchestrations
from tests.support.killed_steps import killed_downloads, killed_harmonizations, killed_trainings
from tests.support.kills import Trial
from tests.support.paths import ROOT
from tests.support.power_cuts import STAGES, cut_power

LINE_SECONDS = 10.0  # between two lines of progress


@dataclass(frozen=True)
class Series:
    """What is tried, how often by default, and in which words."""

    trials: Callable[[Path, int, int], Iterator[Trial]]
    count: int
    words: str


STAGE_CUTS = 5  # cuts of a stage's work between two lines of progress


def power_cuts(work: Path, seed: int, count: int) -> Iterator[Trial]:
    """Cut the power of a disk at all stages in turn. Raises RuntimeError if no disk can be mounted here."""
    stages = cycle(STAGES)
    for first in range(0, count, STAGE_CUTS):
        (work / str(first)).mkdir()
        outcome = cut_power(next(stages), min(STAGE_CUTS, count - first), work / str(first), seed=seed * count + first)
        if outcome is None:
            raise RuntimeError("a disk can be mounted, and its power cut, by root alone")
        shutil.rmtree(work / str(first))
        kinds = {"at work": outcome.at_work, "after the end": outcome.cuts - outcome.at_work}
        yield Trial(outcome.cuts, tuple(f"{outcome.stage}: {fault}" for fault in outcome.faults), kinds)


BATCH = 1000  # damaged inputs between two lines of progress


def damaged_inputs(work: Path, seed: int, count: int) -> Iterator[Trial]:
    """Read damaged files of all formats, BATCH at a time."""
    for first in range(0, count, BATCH):
        batch = min(BATCH, count - first)
        seen = hostile.tried(work / str(first), batch, seed * count + first)
        shutil.rmtree(work / str(first))
        yield Trial(batch, tuple(seen.undeclared), seen.outcomes)


SERIES = {
    "download": Series(killed_downloads, 50, "kills of a download"),
    "harmonize": Series(killed_harmonizations, 50, "kills of a harmonization"),
    "train": Series(killed_trainings, 50, "kills of a training"),
    "orchestration": Series(killed_orchestrations, 50, "kills of processes of `make ui`"),
    "inputs": Series(damaged_inputs, 40_000, "damaged inputs"),
    "power": Series(power_cuts, 100, "power cuts"),
}
GROUPS = {"kills": ("download", "harmonize", "train", "orchestration"), "all": tuple(SERIES)}


@dataclass
class Figures:
    """What a series has come to."""

    words: str
    tried: int = 0
    rounds: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "what": self.words,
            "tried": self.tried,
            "rounds": self.rounds,
            "seconds": round(self.seconds),
            "outcomes": dict(self.outcomes.most_common()),
            "surprises": self.surprises,
        }


def measure(name: str, count: int, seed: int) -> Iterator[Figures]:
    """Try a series `count` times, telling stderr how far it is. Yield the same figures after each trial."""
    series = SERIES[name]
    figures, began, told = Figures(series.words), time.monotonic(), 0.0
    with tempfile.TemporaryDirectory(prefix=f"faults-{name}-") as folder:
        for trial in series.trials(Path(folder), seed, count):
            figures.tried += trial.tried
            figures.rounds += 1
            figures.outcomes.update(trial.outcomes)
            figures.surprises += trial.surprises
            figures.seconds = time.monotonic() - began
            for surprise in trial.surprises:
                print(f"{name}: SURPRISE: {surprise}", file=sys.stderr, flush=True)
            if figures.tried >= count or figures.seconds - told >= LINE_SECONDS:
                told = figures.seconds
                print(f"{name}: {_progress(figures, count)}", file=sys.stderr, flush=True)
            yield figures


def _progress(figures: Figures, count: int) -> str:
    left = int(figures.seconds / max(figures.tried, 1) * max(count - figures.tried, 0))
    return f"{figures.tried:,} of {count:,}, {len(figures.surprises)} surprises, {left // 60}:{left % 60:02d} left"


def table(measured: dict[str, Figures]) -> str:
    """Return the figures as a table in Markdown."""
    lines = ["| what | tried | rounds | surprises | minutes |", "|---|---|---|---|---|"]
    lines += [
        f"| {figures.words} | {figures.tried:,} | {figures.rounds:,} | {len(figures.surprises)} "
        f"| {figures.seconds / 60:.1f} |"
        for figures in measured.values()
    ]
    return "\n".join(lines)


def where() -> dict[str, Any]:
    """Return the machine and the commit."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {"machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores", "commit": commit}


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    counts = ", ".join(f"{name} {series.count:,}" for name, series in SERIES.items())
    parser.add_argument(
        "what", nargs="+", choices=[*GROUPS, *SERIES], help="what is tried: a group or any of its series"
    )
    parser.add_argument("--count", type=int, metavar="N", help=f"how often each is tried (default: {counts})")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="seed of all moments and draws (default: 1)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures here too, those so far while it runs"
    )
    options = parser.parse_args(arguments)
    if options.count is not None and options.count < 1:
        parser.error(f"--count {options.count}: give at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = options_of(arguments)
    names = [name for what in options.what for name in GROUPS.get(what, (what,))]
    measured: dict[str, Figures] = {}
    here = where()
    for name in dict.fromkeys(names):
        for figures_so_far in measure(name, options.count or SERIES[name].count, options.seed):
            measured[name] = figures_so_far
            if options.json is not None:
                figures = {key: each.as_dict() for key, each in measured.items()}
                options.json.write_text(json.dumps({**here, "seed": options.seed, **figures}, indent=1))
    print(table(measured))
    surprises = [surprise for each in measured.values() for surprise in each.surprises]
    print("\n".join(surprises) or "no surprises")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
