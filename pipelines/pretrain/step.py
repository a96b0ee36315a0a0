"""The pretrained encoder as a product: built once for a recipe and a corpus, in a process of its own."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.pretrain.recipes import Recipe

if TYPE_CHECKING:
    from pipelines.tracking import Tracking

METRICS_FILE = "aside/metrics.jsonl"
EXPERIMENT = "pretrain"

REFUSED = 2
"""Exit code of `python -m pipelines.pretrain` for what another try would meet again; of argparse, too."""

Launch = Callable[[list[str]], object]
"""Runs a command to its end; raises where it fails."""


def tied(command: list[str]) -> list[str]:
    """The command, told to stop where whoever starts it is killed: an orphan would keep the GPU and its folder from the
    run that goes on. Linux alone can promise that."""
    setpriv = shutil.which("setpriv")
    return command if setpriv is None else [setpriv, "--pdeathsig", "TERM", *command]


def materialize_encoder(
    workspace: Workspace,
    recipe: Recipe,
    launch: Launch,
    *,
    product: str = "encoder",
    device: str = "auto",
    processes: int = 1,
    accumulate: int = 1,
    recompute: bool = False,
    warm_start: Path | None = None,
    track: str | None = None,
    artifact_root: Path | None = None,
) -> Product:
    """The product `encoder`, or one of another name: encoder.safetensors and summary.json, the metrics aside. Facts:
    the summary.

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

    encoder = workspace.build(
        product,
        version=versions.ENCODER,
        config=recipe.to_dict(),
        inputs={"corpus": corpus.digest},
        make=make,
        resumable=True,
    )
    if track is not None:
        from pipelines.tracking import Tracking  # mlflow, where it is asked for

        send_metrics(encoder, Tracking(uri=track, artifact_root=artifact_root))
    return encoder


def send_metrics(encoder: Product, tracking: Tracking) -> None:
    """Mirror what MLflow lacks of a training's metrics, and end its run: the server may have been away as the training
    ended."""
    from pipelines.tracking import arrived

    if not arrived(encoder.path / METRICS_FILE):
        with mirror(encoder.path, encoder.facts, replace(tracking, experiment=EXPERIMENT)):
            pass


def mirror(out: Path, about: Mapping[str, Any], tracking: Tracking) -> AbstractContextManager[object]:
    """Mirror the metrics in a training's folder while the body works. about: its recipe and digests, as its summary
    has them."""
    from pipelines.tracking import mirror_metrics

    return mirror_metrics(
        out / METRICS_FILE,
        tracking=tracking,
        run_name=about["recipe"]["name"],
        tags={name: about[name] for name in ("recipe_digest", "corpus_digest")},
        params=about["recipe"],
    )
