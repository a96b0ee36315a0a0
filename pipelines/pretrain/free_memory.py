"""How much memory there is to take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Of a control group, version 2 and 1: its limit, what it uses, and which lines of memory.stat are file pages that the
# kernel drops when memory is short (as MemAvailable counts them). Without those, a group that has just read or written
# its data seems full.
_V2 = ("memory.max", "memory.current", ("active_file", "inactive_file"))
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file"))


def free_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take: what the machine has free, or the least that any of its control groups
    (a container's, a batch system's) leaves."""
    return max(0, min([_available(proc), *_left(proc, groups)]))


def _available(proc: Path) -> int:
    if not (proc / "meminfo").is_file():  # not Linux: half of all
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return _numbers(proc / "meminfo")["MemAvailable:"] * 1024


def _left(proc: Path, groups: Path) -> Iterator[int]:
    """What is left of each limit, of the process's group and of all above it."""
    if not (proc / "self/cgroup").is_file():
        return
    for line in (proc / "self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, (limit, used, droppable) = groups, _V2
        elif "memory" in controllers.split(","):
            root, (limit, used, droppable) = groups / "memory", _V1
        else:
            continue
        # A container may see a path from outside of it; its own group is then the root.
        names = [name for name in path.split("/") if name not in ("", "..")]
        for depth in range(len(names) + 1):
            group = root.joinpath(*names[:depth])
            if not (group / limit).is_file() or (most := (group / limit).read_text().strip()) == "max":
                continue
            pages = _numbers(group / "memory.stat")
            taken = int((group / used).read_text()) - sum(pages[name] for name in droppable)
            yield int(most) - taken


def _numbers(path: Path) -> dict[str, int]:
    return {words[0]: int(words[1]) for words in map(str.split, path.read_text().splitlines())}
