"""Pretraining as a program.

    python -m pipelines.pretrain --workspace DIR --corpus DIR --recipe demo --out DIR
    python -m torch.distributed.run --standalone --nproc-per-node 2 -m pipelines.pretrain ...

It needs torch, numpy, zarr and pyarrow. It resumes from the newest checkpoint in --out: after a kill, give the same
command again. Several processes share each batch and compute the same as one. Under Dagster Pipes it reports to the
asset that started it.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack

import torch

from pipelines.cache import MAKING
from pipelines.corpus.split import LEAST_VALIDATION
from pipelines.disk_space import DiskFull, full_disk_explained
from pipelines.encoders.names import ENCODER_FILE
from pipelines.pretrain.data import load_corpus
from pipelines.pretrain.distributed import process_group, started_by_torchrun, stop_with_torchrun
from pipelines.pretrain.metrics_log import NonFinite
from pipelines.pretrain.online_probe import OnlineProbe
from pipelines.pretrain.options import memory_budget_of, program_parser, recipe_of, run_config_of
from pipelines.pretrain.reading import reading
from pipelines.pretrain.recipes import Recipe
from pipelines.pretrain.run_state import Figures
from pipelines.pretrain.step import MORE, EncoderFacts, mirror
from pipelines.pretrain.train import train
from pipelines.program import (
    REFUSED,
    ProgressLine,
    Stopped,
    dagster_pipes,
    exit_code_of_stop,
    only_writer,
    stop_on_signals,
)

log = logging.getLogger("pipelines.pretrain")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Return its exit code.

    0: done. REFUSED: refused, diverged or out of disk space, with the reason logged. 128 + signal: stopped, with a
    checkpoint. An exception that leaves this function is a crash.
    """
    options = program_parser().parse_args(arguments)
    speaks = not started_by_torchrun() or int(os.environ["RANK"]) == 0
    level, form = (
        (logging.INFO, "%(message)s") if speaks else (logging.ERROR, f"rank {os.environ['RANK']}: %(message)s")
    )
    logging.basicConfig(format=form, level=level, stream=sys.stderr, force=True)
    stop = stop_on_signals()
    stop_with_torchrun()
    try:
        return _run(options, speaks, stop)
    except (ValueError, NonFinite, DiskFull):  # already logged
        return REFUSED


def _run(options: argparse.Namespace, speaks: bool, stop: Sequence[int]) -> int:
    """Train and report, in this process. Return the exit code.

    speaks: whether this process is the one that logs, locks the folder, probes and mirrors.
    stop: the signals received so far.

    Raises ValueError, NonFinite and DiskFull through the open reports, so that MLflow and Dagster know of them.
    """
    with ExitStack() as stack:
        report = stack.enter_context(dagster_pipes()) if speaks else None
        try:
            with full_disk_explained(options.out):
                summary = _pretrain(options, speaks, stop, stack)
        except (ValueError, NonFinite, DiskFull) as error:
            log.error("pretraining: %s", error)
            raise
        except Stopped as stopped:
            code = exit_code_of_stop(stop)
            log.warning("%s", stopped)
            return code
        if speaks:
            log.info("%s", _final_words(summary))
        if report is not None:
            report(summary.to_dict())
    if speaks and not (options.out / MAKING).is_file():  # a product's folder gets its name after this program
        print(options.out / ENCODER_FILE)
    return 0


def _pretrain(options: argparse.Namespace, speaks: bool, stop: Sequence[int], stack: ExitStack) -> EncoderFacts:
    """Train as the options say. Return the summary. Process group, lock and mirror stay open in the stack."""
    recipe, run = recipe_of(options), run_config_of(options)
    world = stack.enter_context(process_group(run.device))
    if run.device.type == "cpu" and world.local_size > 1:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world.local_size))
    with world.rank_0_first():
        if speaks:  # before the corpus is loaded: after the wait, no orphan holds memory any more
            stack.enter_context(only_writer(options.out, options.out / "aside" / ".lock", stop))
            stack.enter_context(reading(options.workspace, options.corpus, options.out))
    corpus = load_corpus(
        options.workspace,
        options.corpus,
        run.device,
        memory_budget=memory_budget_of(options),
        processes=world.local_size,
    )
    few = len(corpus.validation_NLT)
    if speaks and few < LEAST_VALIDATION:
        log.warning("%d validation ECGs: %d are needed to tell if the encoder learns: %s", few, LEAST_VALIDATION, MORE)
    records, device = len(corpus.train), run.device.type
    log.info(
        "%s: %d steps of %d ECGs out of %d, on %s with %s",
        recipe.name,
        recipe.total_steps(records),
        recipe.batch,
        records,
        device if world.size == 1 else f"{world.size} x {device}",
        recipe.precision,
    )
    probe = None
    if speaks and recipe.probe_epochs is not None:
        probe = OnlineProbe.load(options.workspace, options.corpus, run.device)
    if speaks and options.track:
        stack.enter_context(_mirror(options, recipe, corpus.digest))
    progress = ProgressLine(log)
    stack.callback(progress.end)

    def on_log(line: Figures, total: int) -> None:
        progress.show(int(line["step"]), total, _line(line, total))

    return train(recipe, corpus, run, world=world, probe=probe, on_log=on_log, asked_to_stop=lambda: bool(stop))


def _line(line: Figures, total: int) -> str:
    probe = f"  probe {line['probe_auc']:.3f}" if "probe_auc" in line else ""
    return (
        f"step {int(line['step'])}/{total}  loss {line['loss']:.4f}  validation {line['validation_loss']:.4f}  "
        f"std {line['embedding_std']:.3f}  rank {line['effective_rank']:.1f}{probe}  "
        f"{line['samples_per_second']:.0f} ECG/s"
    )


def _final_words(summary: EncoderFacts) -> str:
    first, final, best = summary.first, summary.last, summary.best
    probed = "" if best is None else f"; probe at its best {best['probe_auc']:.3f} after step {best['step']}"
    return (
        f"done: {summary.steps} steps; validation loss {first['validation_loss']:.4f} -> "
        f"{final['validation_loss']:.4f}, std over records {first['embedding_std']:.3f} -> "
        f"{final['embedding_std']:.3f}, effective rank {first['effective_rank']:.1f} -> "
        f"{final['effective_rank']:.1f}{probed}"
    )


def _mirror(options: argparse.Namespace, recipe: Recipe, corpus_digest: str) -> AbstractContextManager[object]:
    """Mirror the metrics to the MLflow store of --track while the body runs."""
    from pipelines.tracking import Tracking  # imports mlflow, which pretraining itself does not need

    facts = EncoderFacts(recipe=recipe.to_dict(), recipe_digest=recipe.digest, corpus_digest=corpus_digest)
    tracking = Tracking(uri=options.track, experiment=options.experiment, artifact_root=options.artifact_root)
    return mirror(options.out, facts, tracking)


if __name__ == "__main__":
    sys.exit(main())
