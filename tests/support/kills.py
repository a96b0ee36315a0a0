"""Programs that are killed at seeded moments and started again, and what has to be as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.cache import DONE, Workspace
from tests.support.paths import ROOT

MOST_KILLS = 4  # of one home, before its work may end
DEADLINE = 300.0  # seconds of a program that nothing kills
LEFT_BEHIND = ("*.part*", "*.tmp")  # of a file that is being written, of a folder that is being made


@dataclass(frozen=True)
class Trial:
    """How often something was tried, such as kills of one home, each thing that should not have happened, and counts
    of what may happen, where that is of several kinds."""

    tried: int
    surprises: tuple[str, ...] = ()
    outcomes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """A command. at_work: whether what it is there for has begun, given its log."""

    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    at_work: Callable[[Path], bool] = lambda log: log.stat().st_size > 0

    def run(self) -> float:
        """Run it to its end; the seconds that it was at work. Raises RuntimeError with its log if it fails."""
        with self._started() as process:
            began = self._wait_for_work(process)
            code = process.wait(DEADLINE)
        if code != 0:
            raise RuntimeError(f"ended with {code}: {self.said()}")
        return time.monotonic() - began

    def killed(self, after: float) -> bool:
        """Run it and send SIGKILL so many seconds after it was at work; whether it was still running."""
        with self._started() as process:
            began = self._wait_for_work(process)
            while process.poll() is None and time.monotonic() < began + after:
                time.sleep(0.001)
            process.kill()
            code = process.wait()
        if code not in (0, -signal.SIGKILL):
            raise RuntimeError(f"ended with {code}: {self.said()}")
        return code == -signal.SIGKILL

    def said(self) -> str:
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-3:])

    def _started(self) -> subprocess.Popen[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as stream:
            return subprocess.Popen(
                self.command, stdout=stream, stderr=stream, env=environment() | dict(self.environment), cwd=ROOT
            )

    def _wait_for_work(self, process: subprocess.Popen[bytes]) -> float:
        while process.poll() is None and not self.at_work(self.log):
            time.sleep(0.001)
        return time.monotonic()


def environment() -> dict[str, str]:
    """This process' environment without what names a home, a mirror or a store, and with one thread."""
    foreign = ("ECG_", "MLFLOW_", "DAGSTER_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return own | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def kill_again_and_again(
    program: Program, draw: random.Random, seconds: float, most: int, looked_at: Callable[[], list[str]] = list
) -> Trial:
    """Kill a program up to MOST_KILLS times, the same command each time, and let it end.

    seconds: that it works undisturbed. looked_at: after each kill, what should not be there.
    """
    kills, surprises = 0, []
    try:
        for _ in range(draw.randint(1, min(most, MOST_KILLS))):
            kills += program.killed(after=draw.uniform(0, 0.9 * seconds))
            surprises += looked_at()
        program.run()
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        surprises.append(str(error))
    return Trial(kills, tuple(surprises))


def until(kills: int, trials: Callable[[int], Trial]) -> Iterator[Trial]:
    """Yield trials, each of so many kills at most, until there were `kills`; raise if programs end before them."""
    done, without = 0, 0
    while done < kills:
        trial = trials(kills - done)
        done, without = done + trial.tried, 0 if trial.tried else without + 1
        if without > 20:
            raise RuntimeError("twenty programs in turn ended before they were killed")
        yield trial


# What is there


def left_behind(folder: Path) -> list[str]:
    """Name what a finished work leaves nothing of."""
    found = sorted({path for pattern in LEFT_BEHIND for path in folder.rglob(pattern)})
    return [f"{path.relative_to(folder)} is left behind" for path in found]


def differences(folder: Path, calm: Path) -> list[str]:
    """Name each file that is in one folder alone, or has other bytes than in the undisturbed one; locks are neither.

    Of a product's done.json, the seconds that its build took are not compared.
    """
    here, there = contents(folder), contents(calm)
    missing = [f"{name} is missing" for name in sorted(there.keys() - here.keys())]
    more = [f"{name} should not be there" for name in sorted(here.keys() - there.keys())]
    other = [f"{name} differs" for name in sorted(here.keys() & there.keys()) if here[name] != there[name]]
    return missing + more + other


def contents(folder: Path) -> dict[str, Any]:
    """Return what each file holds, by name; without locks, and without pictures, which Dagster's runs alone draw."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.match("*.lock")]
    files = [path for path in files if not path.match("aside/picture-*.png")]
    return {path.relative_to(folder).as_posix(): _content(path, folder) for path in files}


def _content(path: Path, folder: Path) -> Any:
    if path.name != DONE:
        return path.read_bytes().replace(os.fsencode(folder), b"")  # a product may name the folder of its files
    return {name: value for name, value in json.loads(path.read_text()).items() if name != "seconds"}


def finished_differently(workspace: Workspace, calm: Workspace, product: str) -> list[str]:
    """Say if a product passes for finished and is not the undisturbed one."""
    finished, expected = workspace.current(product), calm.require(product).digest
    if finished is None or finished.digest == expected:
        return []
    return [f"{product} passes for finished with digest {finished.digest}, not {expected}"]


def python(code: str, *arguments: str | Path) -> list[str]:
    """Return the command that runs some code."""
    return [sys.executable, "-c", code, *map(str, arguments)]
