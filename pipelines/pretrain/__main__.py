"""Pretraining as a program.

    python -m pipelines.pretrain --workspace DIR --corpus DIR --recipe demo --out DIR
    python -m torch.distributed.run --standalone --nproc-per-node 2 -m pipelines.pretrain ...

Needs torch, numpy, zarr and pyarrow. It goes on from the newest checkpoint in --out; the same command that was killed
is the command that goes on. Several processes share each batch out and compute what one computes. Under Dagster Pipes
it reports to the asset that started it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from pipelines.encoders.names import ENCODER_FILE
from pipelines.pretrain.data import load_corpus
from pipelines.pretrain.distributed import joined, local_rank, stop_with_torchrun, torchrun_started_this
from pipelines.pretrain.metrics_log import NonFinite, OnLog
from pipelines.pretrain.online_probe import OnlineProbe
from pipelines.pretrain.recipes import RECIPES, Recipe, recipe_named
from pipelines.pretrain.run_state import Figures
from pipelines.pretrain.step import EXPERIMENT, REFUSED, mirror
from pipelines.pretrain.train import RunConfig, TrainingStopped, train

log = logging.getLogger("pipelines.pretrain")

PIPES = "DAGSTER_PIPES_CONTEXT"  # dagster_pipes.DAGSTER_PIPES_CONTEXT_ENV_VAR
LINE_SECONDS = 10.0
ORPHAN_SECONDS = 300.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: done. REFUSED: refused or diverged, with the reason. 128 + signal: stopped, with a checkpoint. Any
    other: it crashed."""
    options = _parser().parse_args(arguments)
    speaks = not torchrun_started_this() or int(os.environ["RANK"]) == 0
    level, form = (
        (logging.INFO, "%(message)s") if speaks else (logging.ERROR, f"rank {os.environ['RANK']}: %(message)s")
    )
    logging.basicConfig(format=form, level=level, stream=sys.stderr, force=True)
    stop = _stop_on_signals()
    stop_with_torchrun()
    try:
        return _run(options, speaks, stop)
    except (ValueError, NonFinite):  # told already
        return REFUSED


def _run(options: argparse.Namespace, speaks: bool, stop: list[int]) -> int:
    with ExitStack() as stack:
        report = stack.enter_context(_dagster_pipes()) if speaks and PIPES in os.environ else None
        try:
            recipe = _recipe(options)
            run = RunConfig(
                out=options.out,
                device=_device(options.device),
                compile=options.compile,
                accumulate=options.accumulate,
                recompute=options.recompute,
                warm_start=options.warm_start,
                **options.checkpoint_every,
            )
            world = stack.enter_context(joined(run.device))
            if run.device.type == "cpu" and world.local_size > 1:
                torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world.local_size))
            with world.first_rank_0():  # then an orphan holds no memory any more
                if speaks:
                    stack.enter_context(_alone_in(options.out, stop))
            corpus = load_corpus(
                *(options.workspace, options.corpus, run.device),
                memory_budget=_budget(options),
                processes=world.local_size,
            )
            records = len(corpus.train)
            log.info(
                "%s: %d steps of %d ECGs out of %d, on %s with %s",
                *(recipe.name, recipe.total_steps(records), recipe.batch, records),
                *(run.device.type if world.size == 1 else f"{world.size} x {run.device.type}", recipe.precision),
            )
            probe = None
            if speaks and recipe.probe_epochs is not None:
                probe = OnlineProbe.load(options.workspace, options.corpus, run.device)
            if speaks and options.track:
                stack.enter_context(_mirror(options, recipe, corpus.digest))
            with _progress_line() as on_log:
                summary = train(
                    *(recipe, corpus, run),
                    world=world,
                    probe=probe,
                    on_log=on_log,
                    asked_to_stop=lambda: bool(stop),
                )
        except (ValueError, NonFinite) as error:
            log.error("pretraining: %s", error)
            raise
        except TrainingStopped as stopped:
            log.warning("%s", stopped)
            return 128 + (stop[0] if stop else signal.SIGTERM)  # where another process was told to
        if speaks:
            log.info("%s", _final_words(summary))
        if report is not None:
            report(summary)
    if speaks:
        print(options.out / ENCODER_FILE)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.pretrain",
        description="Pretrain an ECG-JEPA encoder on a corpus. The command of a run that was stopped or killed, given "
        "again, goes on from its newest checkpoint.",
    )
    parser.add_argument(
        "--workspace", type=Path, required=True, metavar="DIR", help="data home's space with the shards"
    )
    parser.add_argument("--corpus", type=Path, required=True, metavar="DIR", help="directory of the corpus product")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--recipe", default="demo", metavar="NAME", help=f"one of {', '.join(RECIPES)} (default: demo)")
    source.add_argument("--recipe-json", metavar="JSON", help="a whole recipe instead, as summary.json holds it")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the recipe, such as peak_lr=1e-3 or jepa.encoder.dim=96; may be given several times",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the encoder and all else goes")
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="cpu, cuda, cuda:N, or auto: a GPU where there is one (default)",
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
        help="memory for the ECGs on this machine; a corpus that takes more is read as it is needed (default: what is "
        "free, with a margin)",
    )
    parser.add_argument(
        "--warm-start", type=Path, metavar="FILE", help="the encoder whose sha256 is the recipe's warm_start"
    )
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile: minutes at the start, for runs that take hours"
    )
    parser.add_argument(
        "--track",
        default=os.environ.get("MLFLOW_TRACKING_URI"),
        metavar="URI",
        help="mirror the metrics to this MLflow server or database (default: MLFLOW_TRACKING_URI, else not)",
    )
    parser.add_argument(
        "--experiment", default=EXPERIMENT, metavar="NAME", help=f"MLflow experiment (default: {EXPERIMENT})"
    )
    parser.add_argument(
        "--artifact-root", type=Path, metavar="DIR", help="MLflow's artifact folder, needed where --track is a database"
    )
    return parser


def _interval(text: str) -> dict[str, Any]:
    """`500` -> every 500 steps, `10m` -> every 10 minutes; as fields of RunConfig."""
    minutes = text.endswith("m")
    try:
        value = float(text[:-1]) if minutes else int(text)
    except ValueError:
        value = 0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r}: give steps, such as 500, or minutes, such as 10m")
    return {
        "checkpoint_minutes": value if minutes else None,
        "checkpoint_steps": None if minutes else value,
    }


def _recipe(options: argparse.Namespace) -> Recipe:
    if options.recipe_json is not None:
        if options.set:
            raise ValueError("--set changes a named recipe: with --recipe-json write the value into the JSON")
        return Recipe.from_dict(json.loads(options.recipe_json))
    changes: dict[str, str] = {}
    for assignment in options.set:
        path, equals, value = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment!r}: write FIELD=VALUE, such as peak_lr=1e-3")
        changes[path] = value
    return recipe_named(options.recipe, changes)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if re.fullmatch(r"cpu|cuda(:\d+)?", name) is None:
        raise ValueError(f"--device {name!r}: use auto, cpu, cuda or cuda:N")
    if name == "cuda" and torchrun_started_this():
        name = f"cuda:{local_rank()}"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {name!r}: torch sees {torch.cuda.device_count()} GPUs here; use another, or cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


@contextmanager
def _alone_in(out: Path, stop: Sequence[int]) -> Iterator[None]:
    """Nobody else writes into this folder. Whoever lost torchrun, or its step, still ends a step and writes a
    checkpoint, and is waited for.

    Raises ValueError where it still writes there after ORPHAN_SECONDS, Stopped where a signal comes first.
    """
    (out / "aside").mkdir(parents=True, exist_ok=True)
    lock, began, told = FileLock(out / "aside" / ".lock"), time.monotonic(), False
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout as error:
            if stop:
                raise TrainingStopped(f"stopped while another run writes to {out}") from error
            if time.monotonic() - began >= ORPHAN_SECONDS:
                raise ValueError(f"--out {out}: another run writes there; stop it, or use another folder") from error
            if not told:
                log.warning("%s: another run writes there; waiting for its end", out)
                told = True
    try:
        yield
    finally:
        lock.release()


def _budget(options: argparse.Namespace) -> int | None:
    """Bytes for the ECGs on this machine."""
    if options.memory_budget is None:
        return None
    if not options.memory_budget > 0:
        raise ValueError(f"--memory-budget {options.memory_budget}: give a positive number of GB")
    return int(options.memory_budget * 1e9)


def _stop_on_signals() -> list[int]:
    """The signals to stop (SIGTERM, SIGINT) that have come so far.

    A second SIGINT, of somebody who does not want to wait, ends the process at once. A second SIGTERM does not: the
    supervisor, the step and torchrun each send one.
    """
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return received


@contextmanager
def _progress_line() -> Iterator[OnLog]:
    """A line on stderr: rewritten in place on a terminal, else a new one every LINE_SECONDS and at both ends."""
    terminal, began, last = sys.stderr.isatty(), time.monotonic(), float("-inf")
    first_step = 0

    def show(line: Figures, total: int) -> None:
        nonlocal last, first_step
        now, step = time.monotonic(), int(line["step"])
        first_step = first_step or step
        if not (terminal or step == total or now - last >= LINE_SECONDS):
            return
        last = now
        rate = (now - began) / max(step - first_step, 1)
        text = _line(line, total, left=(total - step) * rate if step > first_step else None)
        if terminal:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        else:
            log.info("%s", text)

    yield show
    if terminal and first_step:
        print(file=sys.stderr)


def _line(line: Figures, total: int, left: float | None) -> str:
    time_left = "" if left is None else f"  {int(left) // 60}:{int(left) % 60:02d} left"
    probe = f"  probe {line['probe_auc']:.3f}" if "probe_auc" in line else ""
    return (
        f"step {int(line['step'])}/{total}  loss {line['loss']:.4f}  validation {line['validation_loss']:.4f}  "
        f"std {line['embedding_std']:.3f}  rank {line['effective_rank']:.1f}{probe}  "
        f"{line['samples_per_second']:.0f} ECG/s{time_left}"
    )


def _final_words(summary: dict[str, Any]) -> str:
    first, final = summary["first"], summary["last"]
    best = summary["best"]
    probed = "" if best is None else f"; probe at its best {best['probe_auc']:.3f} after step {best['step']}"
    return (
        f"done: {summary['steps']} steps; validation loss {first['validation_loss']:.4f} -> "
        f"{final['validation_loss']:.4f}, std over records {first['embedding_std']:.3f} -> "
        f"{final['embedding_std']:.3f}, effective rank {first['effective_rank']:.1f} -> "
        f"{final['effective_rank']:.1f}{probed}"
    )


@contextmanager
def _dagster_pipes() -> Iterator[Callable[[dict[str, Any]], None]]:
    """All that this program logs also goes to the asset that started it; yields how to hand it the summary."""
    from dagster_pipes import open_dagster_pipes  # here and under Dagster alone

    with open_dagster_pipes() as pipes:

        class ToDagster(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                pipes.log.log(record.levelno, "%s", self.format(record))

        handler = ToDagster()
        logging.getLogger("pipelines").addHandler(handler)
        try:
            yield pipes.report_custom_message
        finally:
            logging.getLogger("pipelines").removeHandler(handler)


def _mirror(options: argparse.Namespace, recipe: Recipe, corpus_digest: str) -> AbstractContextManager[object]:
    from pipelines.tracking import Tracking  # mlflow, where it is asked for

    about = {"recipe": recipe.to_dict(), "recipe_digest": recipe.digest, "corpus_digest": corpus_digest}
    tracking = Tracking(uri=options.track, experiment=options.experiment, artifact_root=options.artifact_root)
    return mirror(options.out, about, tracking)


if __name__ == "__main__":
    sys.exit(main())
