"""Small disks that fill up for real."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Disk:
    """A mounted file system in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def grow(self, size: str) -> None:
        assert self._mount(f"remount,size={size}")

    def files(self) -> list[str]:
        """Return the files on it but locks."""
        found = [path for path in self.folder.rglob("*") if path.is_file() and path.name != ".lock"]
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    @classmethod
    @contextmanager
    def mounted(cls, folder: Path, size: str) -> Iterator[Disk]:
        """Mount an empty disk of a size such as `400k`; the test is skipped if that is not allowed."""
        folder.mkdir()
        disk = cls(folder)
        if os.geteuid() != 0 or not disk._mount(f"size={size}"):
            pytest.skip("a small disk can be mounted by root alone")
        try:
            yield disk
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
