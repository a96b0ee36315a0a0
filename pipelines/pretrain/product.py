"""The pretrained encoder as a product: built once for a recipe and a corpus, in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines import versions
from pipelines.pretrain.recipes import Recipe
from pipelines.stage import Product, Workspace

REFUSED = 2
"""Exit code of `python -m pipelines.pretrain` for what another try would meet again; of argparse, too."""

Launch = Callable[[list[str]], object]
"""Runs a command to its end; raises where it fails."""


def materialize_encoder(
    workspace: Workspace,
    recipe: Recipe,
    launch: Launch,
    *,
    device: str = "auto",
    processes: int = 1,
    accumulate: int = 1,
    recompute: bool = False,
    warm_start: Path | None = None,
    track: str | None = None,
    artifact_root: Path | None = None,
) -> Product:
    """The product `encoder`: encoder.safetensors and summary.json, and the metrics aside. Facts: the summary.

    `launch` is given a command of `python -m pipelines.pretrain`; where it is killed, the next call goes on from its
    last checkpoint. processes: that share each batch, on one machine. accumulate: parts that each of them computes its
    share in. recompute: as `train.RunConfig` has it. warm_start: the encoder's file whose sha256 the recipe names.
    track, artifact_root: the MLflow store that the metrics are mirrored to.
    """
    if processes < 1:
        raise ValueError(f"processes={processes}: use at least 1")
    corpus = workspace.require("corpus")

    def make(work: Path) -> dict[str, Any]:
        places = {"workspace": workspace.root, "corpus": corpus.path, "out": work, "warm-start": warm_start}
        way = {"device": device, "accumulate": accumulate}
        store = {"track": track, "artifact-root": artifact_root}
        command = [sys.executable, "-m", "pipelines.pretrain", *(["--recompute"] if recompute else [])]
        if processes > 1:
            torchrun = ["pipelines.pretrain.torchrun", "--standalone", "--nproc-per-node", str(processes)]
            command[1:2] = ["-m", *torchrun, "-m"]
        for name, value in (places | way | store).items():
            command += [] if value is None else [f"--{name}", str(value)]
        launch([*command, "--recipe-json", json.dumps(recipe.to_dict(), sort_keys=True)])
        return json.loads((work / "summary.json").read_text())

    return workspace.build(
        "encoder",
        version=versions.ENCODER,
        config=recipe.to_dict(),
        inputs={"corpus": corpus.digest},
        make=make,
        resumable=True,
    )
