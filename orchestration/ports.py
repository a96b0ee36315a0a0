"""Ports of this machine: whether one is free, and which process holds it."""

from __future__ import annotations

import errno
import os
import re
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"


def require_free(port: int, remedy: str) -> None:
    """Raise ValueError if nobody can listen on a port of the loopback address. It names the port and who holds it.

    remedy: how to choose another port
    """
    with socket.socket() as listener:
        # As the servers do: connections of one that has just ended do not count.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            reason = f"is taken by {holder_of(port)}" if taken else f"cannot be used ({os.strerror(error.errno or 0)})"
            raise ValueError(f"port {port} {reason}: stop it, or choose another port with {remedy}") from error


def holder_of(port: int) -> str:
    """Return the process that listens on a port, in words; without a number if the system does not tell."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(file.readlink()) in sockets for file in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                return f"process {process.name} ({b' '.join(words).decode(errors='replace')[:120]})"
        except (PermissionError, FileNotFoundError):  # another user's process, or one that has just ended
            continue
    return "another process, which this user may not look at"


def _listening(port: int) -> list[str]:
    """Return the inodes of the sockets that listen on a port; none if this is no Linux."""
    inodes: list[str] = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        lines = table.read_text().splitlines()[1:] if table.is_file() else []
        for words in map(str.split, lines):
            local, state, inode = words[1], words[3], words[9]
            if re.fullmatch(rf"[0-9A-F]+:{port:04X}", local) and state == "0A":  # LISTEN
                inodes.append(inode)
    return inodes
