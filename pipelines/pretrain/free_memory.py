"""The memory that this process may still take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# For control groups of version 2 and 1: the files with limit and usage, and the lines of memory.stat that count file
# pages. The kernel drops those pages when memory is short, so they count as free (as in MemAvailable); otherwise a
# group that has just read or written its data would seem full.
_V2 = ("memory.max", "memory.current", ("active_file", "inactive_file"))
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file"))


def free_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that this process may still take.

    It is the machine's available memory, or less if a control group (of a container, of a batch system) leaves less.
    """
    return max(0, min([_available(proc), *_left(proc, groups)]))


def _available(proc: Path) -> int:
    """Return the machine's available memory in bytes."""
    if not (proc / "meminfo").is_file():  # not Linux: half of all
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return _numbers(proc / "meminfo")["MemAvailable:"] * 1024


def _left(proc: Path, groups: Path) -> Iterator[int]:
    """Yield the bytes left below each limit of the process's control groups and of all groups above them."""
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
        # In a container the path may be one of the host; the container's group is then the root.
        names = [name for name in path.split("/") if name not in ("", "..")]
        for depth in range(len(names) + 1):
            group = root.joinpath(*names[:depth])
            if not (group / limit).is_file() or (most := (group / limit).read_text().strip()) == "max":
                continue
            pages = _numbers(group / "memory.stat")
            taken = int((group / used).read_text()) - sum(pages[name] for name in droppable)
            yield int(most) - taken


def _numbers(path: Path) -> dict[str, int]:
    """Read a file of lines `name number ...`."""
    return {words[0]: int(words[1]) for words in map(str.split, path.read_text().splitlines())}
