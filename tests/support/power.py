"""A disk whose power can be cut: ext4 in a file, shut down without its log being flushed, as xfstests does it."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

GOING_DOWN = 0x8004587D  # FS_IOC_GOINGDOWN
WITHOUT_FLUSH = 2


@dataclass
class Disk:
    """A mounted file system."""

    image: Path
    root: Path

    def cut(self) -> None:
        """Cut the power and start the machine again: what was not flushed is lost."""
        self.shut_down()
        self.start()

    def shut_down(self) -> None:
        """Cut the power: nothing more reaches the disk."""
        descriptor = os.open(self.root, os.O_RDONLY)
        fcntl.ioctl(descriptor, GOING_DOWN, struct.pack("I", WITHOUT_FLUSH))
        os.close(descriptor)

    def start(self) -> None:
        """Start the machine again; nothing may have a file of the disk open."""
        self._unmount()
        self._mount()

    def _mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.root)], check=True, capture_output=True)

    def _unmount(self) -> None:
        subprocess.run(["umount", str(self.root)], check=True, capture_output=True)


@contextmanager
def disk(folder: Path, megabytes: int = 256) -> Iterator[Disk | None]:
    """A fresh disk below a folder; None if this machine lets no one mount one."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        yield None
        return
    image, root = folder / "disk.img", folder / "disk"
    root.mkdir()
    with image.open("wb") as stream:
        stream.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    made = Disk(image, root)
    try:
        made._mount()
    except subprocess.CalledProcessError:
        yield None
        return
    try:
        yield made
    finally:
        made._unmount()
