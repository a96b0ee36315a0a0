"""Damaged inputs of every format, fed to their readers in processes of limited memory; what came of each is counted.

    seen = tried(folder, 1000, seed=1)       # 1,000 mutations over all cases in turn
    seen.outcomes, seen.undeclared           # counts by outcome; what nobody declared, one line each

An input may be read, dropped with a reason of the closed list, or refused with a ValueError. Anything else is
undeclared: another exception, a MemoryError, the end of the process, a reading that lasts longer than LONGEST.

As a program: `python -m tests.support.hostile FOLDER COUNT SEED [NAME]`, NAME a part of the names of the cases to try.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.harmonize.convert import judge
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.window import Incomplete
from pipelines.records import DroppedRecord, DropReason, Record
from tests.support.inputs import Case, all_cases
from tests.support.mutations import mutated
from tests.support.paths import ROOT

ROOM = 1 << 30
"""Bytes that a reader may take beyond what its process has."""
LONGEST = 30
"""Seconds after which a reading counts as one without end; the inputs are small."""
_START = 300  # seconds for a process to write its inputs, and to end


@dataclass(kw_only=True)
class Seen:
    """What came of damaged inputs."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """`read`, `dropped: <reason>`, `refused`, `undeclared`."""
    by_case: dict[str, Counter[str]] = field(default_factory=dict)
    undeclared: list[str] = field(default_factory=list)
    """A line for each: case, mutation, what happened."""

    def count(self, case: str, number: int, outcome: str) -> None:
        kind = outcome if not outcome.startswith("undeclared") else "undeclared"
        self.outcomes[kind] += 1
        self.by_case.setdefault(case, Counter())[kind] += 1
        if kind == "undeclared":
            self.undeclared.append(f"{case}, mutation {number}: {outcome}")


def tried(folder: Path, count: int, seed: int, only: str = "") -> Seen:
    """Read `count` mutations over all cases in turn, in processes that are started again if one ends.

    only: a part of the names of the cases to try. Files are written below `folder`, which is to be empty.
    """
    seen, first = Seen(), 0
    while first < count:
        for case, number, outcome in _in_process(folder / f"from-{first}", first, count, seed, only):
            seen.count(case, number, outcome)
            first = number + 1
    return seen


def _in_process(folder: Path, first: int, count: int, seed: int, only: str) -> Iterator[tuple[str, int, str]]:
    """Yield case, number and outcome of mutations until all are done, or until one ended the process."""
    arguments = [str(folder), str(first), str(count), str(seed), only]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.hostile", "--child", *arguments],
        stdout=subprocess.PIPE,
        bufsize=0,  # what is buffered here would not be waiting there
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
    ) as child:
        assert child.stdout is not None
        begun: tuple[str, int] | None = None
        reading = False
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while line := _line(child, selector, LONGEST if reading else _START):
                case, number, outcome = json.loads(line)
                begun, reading = (case, number), outcome is None
                if outcome is not None:
                    yield case, number, outcome
        if child.wait() != 0:
            assert begun is not None, f"the process ended before a mutation, with {child.returncode}"
            how = "lasts too long" if child.returncode == -signal.SIGKILL else f"ended with {child.returncode}"
            yield *begun, f"undeclared: the process {how}"


def _line(child: subprocess.Popen[bytes], selector: selectors.BaseSelector, seconds: float) -> bytes:
    """Return the next line of a child, or nothing if it ended; one that is silent for too long is ended."""
    assert child.stdout is not None
    if not selector.select(seconds):
        child.kill()
        return b""
    return child.stdout.readline()


def outcome_of(case: Case, whole: Sequence[np.ndarray] = ()) -> str:
    """Return what comes of reading a case's file as it is now.

    whole: the samples of the undamaged records, for a case that a checksum guards.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = case.read()
            items = None if found is None else list(found)
            judged = [] if items is None else list(judge(items, source="x", limits=LIMITS, incomplete=MARKED))
    except ValueError:
        return "refused"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"undeclared: {type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:200]}"
    if items is None:
        return "read"
    try:
        _require_sound(items, whole if case.checked else ())
    except AssertionError as error:
        return f"undeclared: {error}"
    assert len(judged) == len(items)
    dropped = next((item for item in items if isinstance(item, DroppedRecord)), None)
    return "read" if dropped is None else f"dropped: {dropped.reason}"


LIMITS = QualityLimits()
MARKED = Incomplete(mark_leads=True)


def _require_sound(items: Sequence[Record | DroppedRecord], whole: Sequence[np.ndarray]) -> None:
    for item in items:
        if isinstance(item, DroppedRecord):
            assert item.reason in DropReason
            assert item.detail
            continue
        assert item.signal_LT.ndim == 2
        assert item.signal_LT.shape[0] == len(item.leads)
        assert 0 < item.rate < float("inf")
        assert not np.isinf(item.signal_LT).any()
    records = [item for item in items if isinstance(item, Record)]
    if whole and records:
        assert len(records) == len(whole), "a record is gone without a word"
        for item, expected in zip(records, whole, strict=True):
            assert np.array_equal(item.signal_LT, expected, equal_nan=True), "changed samples were taken"


@contextlib.contextmanager
def room(more: int) -> Iterator[None]:
    """So many bytes may be allocated beyond what this process has: a length from a damaged file meets a MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def signals_of(case: Case) -> list[np.ndarray]:
    """Return the samples of a case's undamaged records."""
    return [item.signal_LT for item in case.read() or () if isinstance(item, Record)]


def one_mutation(case: Case, original: bytes, whole: Sequence[np.ndarray], number: int, seed: int) -> str:
    """Damage a case's file, read it, and put it back."""
    rng = np.random.default_rng([seed, number])
    case.file.write_bytes(mutated(original, rng, text=case.text, checked=case.checked))
    try:
        return outcome_of(case, whole)
    finally:
        case.file.write_bytes(original)


def _child(folder: Path, first: int, count: int, seed: int, only: str) -> None:
    folder.mkdir(parents=True)
    cases = [case for case in all_cases(folder) if only in case.name]
    assert cases, f"no case is called {only!r}"
    originals = [case.file.read_bytes() for case in cases]
    whole = [signals_of(case) for case in cases]
    unread = [case.name for case in cases if outcome_of(case) != "read"]
    assert not unread, f"not read as they are: {unread}"
    with room(ROOM):
        for number in range(first, count):
            at = number % len(cases)
            print(json.dumps([cases[at].name, number, None]), flush=True)
            outcome = one_mutation(cases[at], originals[at], whole[at], number, seed)
            print(json.dumps([cases[at].name, number, outcome]), flush=True)


def main() -> None:
    if sys.argv[1] == "--child":
        folder, first, count, seed, only = sys.argv[2:]
        _child(Path(folder), int(first), int(count), int(seed), only)
        return
    folder, count, seed, *only = sys.argv[1:]
    seen = tried(Path(folder), int(count), int(seed), *only)
    for case, outcomes in seen.by_case.items():
        print(f"{case:26}", ", ".join(f"{kind} {n}" for kind, n in outcomes.most_common()))
    print("\n".join(seen.undeclared) or "nothing undeclared")


if __name__ == "__main__":
    main()
