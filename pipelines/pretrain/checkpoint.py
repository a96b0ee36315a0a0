"""Checkpoints from which a run resumes to the bit: tensors without pickle, a hash beside each, the newest two kept.

checkpoints/step-000000120.safetensors          all tensors; metadata: the step and the facts
checkpoints/step-000000120.safetensors.sha256   in the form of `sha256sum`; written first, so its file commits both
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipelines import durable
from pipelines.disk_space import full_disk_explained
from pipelines.durable import write_atomically
from pipelines.hashing import sha256_of_file

log = logging.getLogger(__name__)

KEEP = 2  # checkpoints
_NAME = re.compile(r"step-(\d{9,})\.safetensors")


class DamagedCheckpoints(ValueError):
    """There are checkpoints and none is intact: a run must not silently begin again."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run as it was after a step."""

    step: int  # updates done
    facts: Mapping[str, Any]  # JSON values
    tensors: Mapping[str, Tensor]  # by name, on the CPU


class CheckpointFolder:
    """The folder with the checkpoints of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint under a temporary name, flush and rename it, then remove all but the newest two."""
        durable.make_folder(self.folder)
        path = self.folder / f"step-{checkpoint.step:09d}.safetensors"
        temporary = self.folder / f".{path.name}.tmp"  # a killed run may leave one; it is overwritten
        facts = json.dumps({"step": checkpoint.step, "facts": checkpoint.facts})
        tensors = {name: value.contiguous() for name, value in checkpoint.tensors.items()}
        try:
            with full_disk_explained(path, sum(value.nbytes for value in tensors.values())):
                save_file(tensors, temporary, {"run": facts})
                durable.flush(temporary)
                write_atomically(_hash_file(path), f"{sha256_of_file(temporary)}  {path.name}\n".encode())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        durable.replace(temporary, path)  # before older ones go
        for old in self._paths()[KEEP:]:
            old.unlink()
            _hash_file(old).unlink(missing_ok=True)
        return path

    def newest(self) -> Checkpoint | None:
        """Return the newest intact checkpoint, or None if there are no checkpoints.

        Damaged ones are skipped with a warning, and renamed to `*.damaged` if an older one is intact. Raises
        DamagedCheckpoints if there are checkpoints and none is intact.
        """
        damaged: list[Path] = []
        for path in self._paths():
            fault = _fault(path)
            if fault is None:
                for bad in damaged:
                    durable.replace(bad, bad.with_name(f"{bad.name}.damaged"))
                return _load(path)
            log.warning("checkpoint %s is damaged (%s): using the one before it", path, fault)
            damaged.append(path)
        if damaged:
            raise DamagedCheckpoints(
                f"all {len(damaged)} checkpoints in {self.folder} are damaged: restore one of them, "
                "or remove the folder to begin again at step 0"
            )
        return None

    def _paths(self) -> list[Path]:
        """Return the paths of the checkpoints, newest first."""
        paths = [path for path in self.folder.glob("step-*.safetensors") if _NAME.fullmatch(path.name)]
        return sorted(paths, key=_step, reverse=True)


def _step(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match.group(1))


def _hash_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _fault(path: Path) -> str | None:
    """Return what is wrong with a checkpoint's file, or None if its hash is right."""
    if not _hash_file(path).is_file():
        return f"{_hash_file(path).name} is missing"
    if _hash_file(path).read_bytes().split()[:1] != [sha256_of_file(path).encode()]:
        return "its sha256 is not the recorded one"
    return None


def _load(path: Path) -> Checkpoint:
    with safe_open(str(path), framework="pt") as stored:
        run = json.loads(stored.metadata()["run"])
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    return Checkpoint(step=run["step"], facts=run["facts"], tensors=tensors)
