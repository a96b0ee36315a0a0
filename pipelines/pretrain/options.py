"""Options of `python -m pipelines.pretrain`: the parser, and what the options mean."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch

from pipelines.device import torch_device
from pipelines.pretrain.distributed import local_rank, started_by_torchrun
from pipelines.pretrain.recipes import RECIPES, Recipe, recipe_named
from pipelines.pretrain.step import EXPERIMENT
from pipelines.pretrain.train import RunConfig


def program_parser() -> argparse.ArgumentParser:
    """Return the parser of all options."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.pretrain",
        description="Pretrain an encoder on a corpus. To resume a run that was stopped or killed, give the "
        "same command again: it continues from the newest checkpoint.",
    )
    _add_training(parser)
    _add_machine(parser)
    _add_tracking(parser)
    return parser


def _add_training(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is trained, on which ECGs, and where the results go."""
    parser.add_argument(
        "--workspace",
        type=Path,
        required=True,
        metavar="DIR",
        help="workspace of the data home, with the harmonized ECGs of the corpus",
    )
    parser.add_argument("--corpus", type=Path, required=True, metavar="DIR", help="directory of the corpus product")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--recipe", default="demo", metavar="NAME", help=f"one of {', '.join(RECIPES)} (default: demo)")
    source.add_argument("--recipe-json", metavar="JSON", help="a whole recipe instead, in the form of summary.json")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the recipe, such as peak_lr=1e-3 or jepa.encoder.dim=96; may be given several times",
    )
    parser.add_argument(
        "--warm-start", type=Path, metavar="FILE", help="the encoder whose sha256 is the recipe's warm_start"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the encoder, metrics and checkpoints"
    )


def _add_machine(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how the training is computed."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="cpu, cuda, cuda:N, or auto: a GPU if there is one (default: auto)",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=_interval,
        default=_interval("10m"),
        metavar="N|Nm",
        help="steps (500) or minutes (10m) between checkpoints (default: 10m)",
    )
    parser.add_argument(
        "--accumulate",
        type=int,
        default=1,
        metavar="N",
        help="compute each batch in N parts, one after another, to take less memory (default: 1)",
    )
    parser.add_argument(
        "--recompute",
        action="store_true",
        help="compute blocks again in the backward pass: far less memory, a quarter more work",
    )
    parser.add_argument(
        "--memory-budget",
        type=float,
        metavar="GB",
        help="memory for the ECGs on this machine; a larger corpus is read from disk when it is needed (default: half "
        "of the free memory)",
    )
    parser.add_argument(
        "--compile", action="store_true", help="use torch.compile: minutes at the start, for runs that take hours"
    )


def _add_tracking(parser: argparse.ArgumentParser) -> None:
    """Add the options of MLflow."""
    parser.add_argument(
        "--track",
        default=os.environ.get("MLFLOW_TRACKING_URI"),
        metavar="URI",
        help="mirror the metrics to this MLflow server or database (default: MLFLOW_TRACKING_URI, if set)",
    )
    parser.add_argument(
        "--experiment", default=EXPERIMENT, metavar="NAME", help=f"MLflow experiment (default: {EXPERIMENT})"
    )
    parser.add_argument(
        "--artifact-root", type=Path, metavar="DIR", help="MLflow's artifact folder, required if --track is a database"
    )


def _interval(text: str) -> dict[str, Any]:
    """Read `500` as every 500 steps and `10m` as every 10 minutes. Return the fields of RunConfig."""
    minutes = text.endswith("m")
    try:
        value = float(text[:-1]) if minutes else int(text)
    except ValueError:
        value = 0
    if not value > 0:  # NaN, too
        raise argparse.ArgumentTypeError(f"{text!r}: give steps, such as 500, or minutes, such as 10m")
    return {
        "checkpoint_minutes": value if minutes else None,
        "checkpoint_steps": None if minutes else value,
    }


def run_config_of(options: argparse.Namespace) -> RunConfig:
    """Return where and how the run works. Raises ValueError for an option that is out of range."""
    return RunConfig(
        out=options.out,
        device=device_named(options.device),
        compile=options.compile,
        accumulate=options.accumulate,
        recompute=options.recompute,
        warm_start=options.warm_start,
        **options.checkpoint_every,
    )


def recipe_of(options: argparse.Namespace) -> Recipe:
    """Return the recipe of --recipe with the changes of --set, or that of --recipe-json."""
    if options.recipe_json is not None:
        if options.set:
            raise ValueError("--set changes a named recipe; with --recipe-json, write the value into the JSON")
        return Recipe.from_dict(json.loads(options.recipe_json))
    changes: dict[str, str] = {}
    for assignment in options.set:
        path, equals, value = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment!r}: write FIELD=VALUE, such as peak_lr=1e-3")
        changes[path] = value
    return recipe_named(options.recipe, changes)


def device_named(name: str) -> torch.device:
    """Return the device of that name and make it the current one. Under torchrun, `cuda` is the process's own GPU.

    Raises ValueError as `torch_device` does.
    """
    device = torch_device(name)
    if device.type == "cuda" and device.index is None and started_by_torchrun():
        device = torch_device(f"cuda:{local_rank()}")
    if device.index is not None:  # else it is the current one already
        torch.cuda.set_device(device)
    return device


def memory_budget_of(options: argparse.Namespace) -> int | None:
    """Return the bytes for the ECGs on this machine, or None if the option is not given."""
    if options.memory_budget is None:
        return None
    if not options.memory_budget > 0:
        raise ValueError(f"--memory-budget {options.memory_budget}: give a positive number of GB")
    return int(options.memory_budget * 1e9)
