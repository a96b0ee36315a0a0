"""How much memory there is to take: of the machine, and of each control group that the process is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.pretrain.free_memory import free_memory

GB = 2**30


def machine(folder: Path, cgroup: str, available: int = 16 * GB) -> Path:
    (folder / "self").mkdir(parents=True)
    (folder / "meminfo").write_text(
        f"MemTotal:       99999999 kB\nMemAvailable:   {available // 1024} kB\nHugePages: 0\n"
    )
    (folder / "self/cgroup").write_text(cgroup)
    return folder


def group_v2(folder: Path, limit: str, used: int, *, active: int = 0, inactive: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\nactive_file {active}\ninactive_file {inactive}\n")


def group_v1(folder: Path, limit: int, used: int, *, dropped: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"inactive_file 7\ntotal_active_file {dropped}\ntotal_inactive_file 0\n")


def test_without_a_limit_it_is_what_the_machine_has(tmp_path: Path) -> None:
    proc, groups = machine(tmp_path / "proc", "0::/\n"), tmp_path / "groups"
    assert free_memory(proc, groups) == 16 * GB
    group_v2(groups, "max", 9 * GB)
    assert free_memory(proc, groups) == 16 * GB


def test_the_narrowest_group_counts_and_file_pages_are_free(tmp_path: Path) -> None:
    proc, groups = machine(tmp_path / "proc", "0::/slurm/job_7/step_0\n"), tmp_path / "groups"
    group_v2(groups / "slurm", str(20 * GB), 10 * GB)
    group_v2(groups / "slurm/job_7/step_0", "max", GB)
    assert free_memory(proc, groups) == 10 * GB
    group_v2(groups / "slurm/job_7", str(8 * GB), 7 * GB, active=2 * GB, inactive=3 * GB)
    assert free_memory(proc, groups) == 6 * GB
    group_v2(groups / "slurm/job_7/step_0", str(GB), 2 * GB)
    assert free_memory(proc, groups) == 0


@pytest.mark.parametrize("path", ["/docker/5f0c", "/../docker/5f0c"])
def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path, path: str) -> None:
    proc, groups = machine(tmp_path / "proc", f"0::{path}\n"), tmp_path / "groups"
    group_v2(groups, str(4 * GB), GB)
    group_v2(tmp_path / "docker/5f0c", str(GB), 0)  # outside of the tree: not to be found
    assert free_memory(proc, groups) == 3 * GB


def test_version_1_has_a_tree_of_its_own_for_memory(tmp_path: Path) -> None:
    proc = machine(tmp_path / "proc", "5:cpu,cpuacct:/other\n4:memory:/box/7\n0::/\n")
    groups = tmp_path / "groups"
    group_v1(groups / "memory", 2**63 - 4096, 9 * GB)
    assert free_memory(proc, groups) == 16 * GB
    group_v1(groups / "memory/box/7", 6 * GB, 5 * GB, dropped=GB)
    assert free_memory(proc, groups) == 2 * GB


def test_this_machine_has_some() -> None:
    assert 2**20 < free_memory() < 2**50
