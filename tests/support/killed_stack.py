"""One process of `make ui` after another is killed while it materializes: nothing stays half done or held."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

import httpx

from orchestration.jobs import harvest_job_name
from pipelines.download.mirror import Mirror
from pipelines.download.step import materialize_raw
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.home import Home
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES
from tests.support.fault_server import FaultServer
from tests.support.kills import Trial, differences, left_behind
from tests.support.stack import SOON, Stack

ECGS = 40  # of a partition
RATE = 50_000.0  # bytes a second of a connection, so that a download has a middle
PARTITIONS, AT_ONCE = 46, 2
HARVEST = harvest_job_name("chapman")
LONGEST_PAUSE = 15.0  # seconds between two kills
MOST_KILLS = 6  # of a round
VICTIMS = ("run", "step") * 6 + ("code-server", "code", "daemon", "webserver", "parent", "all")
"""Mostly what works on a partition; `code` is the process of which runs are children, `parent` that of all servers."""
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
RETRIED = 300.0  # seconds in which the daemon, on a busy machine, starts what failed again
SETTLED = 45.0  # seconds in which whoever is left alone has to end: Dagster's code server waits 30


def killed_orchestrations(work: Path, seed: int, kills: int, victims: Sequence[str] = VICTIMS) -> Iterator[Trial]:
    """Partitions of Chapman, launched as from the UI, AT_ONCE at a time, in a new home once all are done.

    victims: who is killed, drawn with equal chance.
    """
    draw, done = random.Random(seed), 0
    sizes = MirrorSizes(chapman=(ECGS,) * PARTITIONS, code15=(), ptbxl=(), cpsc2018=(), georgia=(), ludb=0)
    mirror = write_mirror(work / "mirror", sizes=sizes).path
    with FaultServer(mirror, rate=RATE) as server:
        for number in count():
            stack = Stack(work / f"home-{number}", server.url, work)
            stack.start()
            try:
                for first in range(1, PARTITIONS, AT_ONCE):
                    partitions = [f"{first + at:02d}" for at in range(AT_ONCE)]
                    trial = _round(stack, partitions, draw, min(kills - done, MOST_KILLS), victims)
                    done += trial.tried
                    yield trial
                    if done >= kills:
                        break
            finally:
                stack.stop()
            yield Trial(0, tuple(_left_alive(stack)))
            if done >= kills:
                return


def _round(stack: Stack, partitions: list[str], draw: random.Random, most: int, victims: Sequence[str]) -> Trial:
    """Launch some partitions, kill, and see that all is done in the end."""
    kills, surprises, said = 0, [], f"partitions {', '.join(partitions)}"
    ended: Counter[str] = Counter()
    try:
        for partition in partitions:
            stack.launch(HARVEST, partition)
        for _ in range(draw.randint(1, most)):
            time.sleep(draw.uniform(0, LONGEST_PAUSE))
            victim = draw.choice(victims)
            if _killed(stack, victim, draw):
                kills += 1
                said += f", {victim} killed"
                _started_again(stack, victim)
        surprises += _done_in_the_end(stack, partitions, ended)
    except (RuntimeError, ValueError, httpx.HTTPError, subprocess.TimeoutExpired) as error:
        surprises.append(f"{type(error).__name__}: {error}")
        stack.stop()
        _kill_all(stack)
        stack.start()
    return Trial(kills, tuple(f"{said}: {surprise}" for surprise in surprises), ended)


def _killed(stack: Stack, victim: str, draw: random.Random) -> bool:
    """Kill a process of a kind; False if there was none in time, such as no step because all runs had ended."""
    deadline = time.monotonic() + 20
    while not (found := _pids(stack, victim)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    for pid in found if victim == "all" else [draw.choice(found)]:
        _kill(pid)
    return True


def _pids(stack: Stack, victim: str) -> list[int]:
    alive = stack.processes()
    words = {
        "code-server": "code-server start",
        "code": "dagster api grpc",
        "daemon": "orchestration.daemon",
        "webserver": "orchestration.webserver",
    }
    if victim == "all":
        return sorted(alive)
    if victim == "parent":
        return [stack.ui.pid] if stack.ui is not None and not stack.has_ended() else []
    if victim in words:
        return [pid for pid, command in alive.items() if words[victim] in command]
    spawned = {pid for pid, command in alive.items() if "spawn_main" in command}
    of_run = {pid for pid in spawned if "dagster api grpc" in alive.get(_parent(pid), "")}
    return sorted(of_run if victim == "run" else {pid for pid in spawned if _parent(pid) in of_run})


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0  # it has ended


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it ended by itself, just now
        os.kill(pid, signal.SIGKILL)


def _kill_all(stack: Stack) -> None:
    for pid in stack.processes():
        _kill(pid)


def _started_again(stack: Stack, victim: str) -> None:
    """Start `make ui` again, as its user does, if it ended with what was killed."""
    if victim in ("run", "step", "code"):
        return
    assert stack.ui is not None
    stack.ui.wait(SOON)
    deadline = time.monotonic() + SETTLED
    while True:
        try:
            stack.start()
            return
        except RuntimeError as error:
            if "run already" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(1)  # servers that lost their parent are still stopping


def _done_in_the_end(stack: Stack, partitions: list[str], ended: Counter[str]) -> list[str]:
    """Wait until no run is in progress, launch again what failed, and name what is not as undisturbed.

    ended: is told which partitions were done by themselves, and which were launched again.
    """
    surprises: list[str] = []
    for partition in partitions:
        stack.wait(lambda partition=partition: _has_settled(stack, partition), "each run ended", 2 * SOON)
        by_itself = "SUCCESS" in stack.statuses(partition)
        ended["done by itself" if by_itself else "launched again"] += 1
        if not by_itself:
            stack.launch(HARVEST, partition)
            stack.wait(lambda partition=partition: _has_ended(stack, partition), "the run of what failed ended")
            if "SUCCESS" not in (statuses := stack.statuses(partition)):
                surprises.append(f"{partition}: runs ended with {statuses}, also when launched again")
    stack.wait(lambda: stack.slots() == [], "no place in a pool is held", 60)
    home, calm = Home(stack.home, stack.mirror), Home(stack.work / f"calm-{stack.home.name}", stack.mirror)
    for partition in partitions:
        _harvest(calm, partition)
    space = stack.home / home.space
    return surprises + differences(space, calm.root / calm.space) + left_behind(space)


def _has_ended(stack: Stack, partition: str) -> bool:
    statuses = stack.statuses(partition)
    return bool(statuses) and set(statuses) <= ENDED


def _has_settled(stack: Stack, partition: str) -> bool:
    """Whether a partition is done, or all its runs failed and none was started again after a while."""
    if not _has_ended(stack, partition):
        return False
    deadline = time.monotonic() + RETRIED
    while "SUCCESS" not in stack.statuses(partition) and time.monotonic() < deadline:
        time.sleep(1)
        if not _has_ended(stack, partition):
            return False
    return _has_ended(stack, partition)


def _harvest(home: Home, partition: str) -> None:
    source, mirror = SOURCES["chapman"], Mirror.parse(home.mirror)
    materialize_raw(home.workspace(), source, partition, mirror=mirror, raw_root=home.raw_root)
    materialize_ecgs(home.workspace(), source, partition, limits=QualityLimits())


def _left_alive(stack: Stack) -> list[str]:
    """Name the processes that live on though all servers were stopped; end them."""
    deadline = time.monotonic() + SETTLED
    while (alive := stack.processes()) and time.monotonic() < deadline:
        time.sleep(0.5)
    _kill_all(stack)
    return [f"process lives on after the stop: {command}" for command in alive.values()]
