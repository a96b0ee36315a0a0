"""Fine-tuning as a program, which a step starts (`fine_tune_process`).

    python -m pipelines.evaluate.probes.fine_tune_program --out DIR --device auto

After a kill or a stop the same command goes on from its last checkpoint. Under Dagster Pipes its log is that of the
asset that started it.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.device import torch_device
from pipelines.disk_space import DiskFull, full_disk_explained
from pipelines.encoders.names import ENCODER_FILE
from pipelines.evaluate.probes.fine_tune import FineTune, Progress, Training
from pipelines.evaluate.probes.fine_tune_process import hand_back, taken_over
from pipelines.evaluate.probes.heads import CHECKPOINTS
from pipelines.program import (
    REFUSED,
    ProgressLine,
    Stopped,
    dagster_pipes,
    exit_code_of_stop,
    only_writer,
    stop_on_signals,
)

log = logging.getLogger("pipelines.evaluate.probes.fine_tune")

DRAW_SECONDS = 0.5  # between two drawings of the line on a terminal: each reads the loss, which waits for a GPU


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Return its exit code.

    0: done. REFUSED: refused, diverged or out of disk space, with the reason logged. 128 + signal: stopped, with a
    checkpoint. An exception that leaves this function is a crash.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr, force=True)
    stop = stop_on_signals()
    with dagster_pipes():
        try:
            with full_disk_explained(options.out), only_writer(options.out, options.out / CHECKPOINTS / ".lock", stop):
                _fine_tune(options.out, options.device, stop)
        except (ValueError, DiskFull) as error:
            log.error("%s", error)
            return REFUSED
        except Stopped as stopped:
            code = exit_code_of_stop(stop)
            log.warning("fine-tuning: %s", stopped)
            return code
    print(options.out / ENCODER_FILE)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines.evaluate.probes.fine_tune_program", allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="the folder that a step prepared")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    return parser


def _fine_tune(out: Path, device: str, stop: Sequence[int]) -> None:
    settings, problem = taken_over(out)
    head = FineTune.from_dict({**settings, "device": device})
    log.info(
        "fine-tuning: %d epochs of %d ECGs, %d to choose on, on %s with %s",
        head.epochs,
        len(problem.train),
        len(problem.validation),
        torch_device(device).type,
        head.precision,
    )
    line = ProgressLine(log, every=DRAW_SECONDS)

    def on_step(at: Progress) -> None:
        if line.due(at.step, at.total):
            epoch = f"epoch {at.epoch}/{head.epochs}  " if head.epochs > 1 else ""
            speed = f"{at.records / at.seconds:.0f} ECG/s"
            line.show(at.step, at.total, f"step {at.step}/{at.total}  {epoch}loss {at.mean_loss():.4f}  {speed}")

    training = Training(head, problem, on_step=on_step, on_epoch=line.end, asked_to_stop=lambda: bool(stop))
    try:
        training.finish().write(out)
    finally:
        line.end()
    hand_back(out, training.trials)


if __name__ == "__main__":
    sys.exit(main())
