"""Own ECGs that were harmonized, and an encoder so small that it is probed at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ecg_foundry.layout import absent_note
from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder, save_encoder
from pipelines.cache import Workspace
from pipelines.formats.shard import ShardWriter
from tests.support.shards import row

TINY = EncoderConfig(dim=16, depth=1, heads=2, input_scale=5.0, patch_init_scale=7.0)


def harmonized(workspace: Workspace, partition: str, n: int, *, labelled: bool = False, absent: int = 0) -> list[bool]:
    """Bumps, tall or small by turns at random; returns which are tall.

    labelled: the drop came with labels, `tall` and `small`
    absent: as many records lack a lead
    """
    rng = np.random.default_rng(len(partition))
    tall = (rng.random(n) < 0.5).tolist()

    def make(folder: Path) -> dict:
        wave_T = 900 * np.exp(-((np.arange(2500) % 250 - 100) ** 2) / 200)
        writer = ShardWriter(folder)
        for i in range(n):
            signal_LT = (1.5 if tall[i] else 0.7) * wave_T + 20 * rng.normal(size=(8, 2500))
            labels = ["tall" if tall[i] else "small"] if labelled else []
            notes = [absent_note(["V6"])] if i < absent else []
            known = {"labels": labels, "notes": notes, "content_hash": f"{partition}{i}"}
            writer.append(signal_LT.round().astype(np.int16), row("incoming", f"e{i}", **known))
        writer.close()
        return {}

    workspace.build(f"ecgs/incoming/{partition}", version="1", config={}, inputs={}, make=make)
    return tall


def put_encoder(workspace: Workspace, seed: int = 1) -> None:
    """A network with initial weights, as if it were pretrained."""

    def make(work: Path) -> dict:
        save_encoder(work / "encoder.safetensors", random_encoder(TINY, seed))
        return {}

    workspace.build("encoder", version="test", config={"seed": seed}, inputs={}, make=make)
