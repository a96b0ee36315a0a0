"""Checkpoints: the newest two stay, and a damaged one never costs the good one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines.pretrain.checkpoint import Checkpoint, CheckpointFolder, DamagedCheckpoints


def test_checkpoints_come_back_and_the_newest_two_stay(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert folder.newest() is None
    for step in (5, 100, 20):
        tensors = {"a": torch.arange(step), "b": torch.tensor(float(step))}
        folder.save(Checkpoint(step=step, facts={"of": step}, tensors=tensors))
    newest = folder.newest()
    assert newest is not None
    assert (newest.step, newest.facts) == (100, {"of": 100})
    assert torch.equal(newest.tensors["a"], torch.arange(100))
    stem = "step-000000{:03d}.safetensors"
    stems = {stem.format(step) for step in (20, 100)}
    assert {path.name for path in folder.folder.iterdir()} == stems | {f"{name}.sha256" for name in stems}


def test_a_damaged_checkpoint_never_costs_the_good_one_before_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = CheckpointFolder(tmp_path)
    paths = [folder.save(Checkpoint(step=step, facts={}, tensors={"a": torch.arange(step)})) for step in (10, 20)]
    paths[1].with_name(f"{paths[1].name}.sha256").unlink()
    newest = folder.newest()
    assert newest is not None
    assert newest.step == 10
    assert "step-000000020.safetensors is damaged (step-000000020.safetensors.sha256 is missing)" in caplog.text
    folder.save(Checkpoint(step=15, facts={}, tensors={"a": torch.arange(15)}))
    assert {path.name for path in tmp_path.glob("*.safetensors")} == {
        "step-000000010.safetensors",
        "step-000000015.safetensors",
    }
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    for _ in range(2):
        with pytest.raises(DamagedCheckpoints, match="all 2 checkpoints"):
            folder.newest()
