"""The metrics of a run: figures of its learning, its speed and its probe, at logging steps."""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ecg_model.ecg_encoder import ECGEncoder
from pipelines.durable import write_atomically
from pipelines.pretrain.data import BatchFeed, Corpus
from pipelines.pretrain.distributed import World
from pipelines.pretrain.flops import matrix_rate
from pipelines.pretrain.monitor import Monitor
from pipelines.pretrain.objectives.objective import Objective
from pipelines.pretrain.recipes import Recipe
from pipelines.pretrain.run_state import Figures, RunState
from pipelines.pretrain.sampling_order import Order
from pipelines.pretrain.step import METRICS_FILE

log = logging.getLogger(__name__)

LOGS = 25  # logging steps in a run
LOG_AT_LEAST_EVERY = 200  # steps

OnLog = Callable[[Figures, int], None]
"""Gets each line of the metrics, and the total number of steps."""


class NonFinite(RuntimeError):
    """A loss or a figure is infinite or not a number: the run has diverged, or an ECG of the batch is faulty."""


class Probe(Protocol):
    """Scores an encoder on labels; `probe_auc` is among the figures."""

    def score(self, encoder: ECGEncoder, autocast: torch.autocast) -> Figures: ...


class Journal:
    """The metrics of one run, one line for each logging step. Every process has one; that of rank 0 writes the file."""

    def __init__(
        self,
        recipe: Recipe,
        corpus: Corpus,
        order: Order,
        feed: BatchFeed,
        world: World,
        *,
        out: Path,
        device: torch.device,
        begin: int,
        on_log: OnLog,
    ) -> None:
        """Open the metrics of a run that starts or resumes.

        order: the sequence of training ECGs, to name the records of a step.
        feed: the batches, for the time spent waiting for them.
        out: the run's folder.
        begin: the step that the run starts or resumes from.
        """
        self._recipe, self._corpus, self._order, self._feed, self._world = recipe, corpus, order, feed, world
        self._device, self._on_log = device, on_log
        self._total = recipe.total_steps(order.records)
        self._every = max(1, min(self._total // LOGS, LOG_AT_LEAST_EVERY))
        self._monitor = Monitor(corpus.validation_NLT, device)
        precision = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        self._attainable = world.size * matrix_rate(device, precision)
        if world.writes and begin == 0 and (out / METRICS_FILE).is_file():
            log.warning("%s has metrics and no checkpoint: beginning at step 0, the metrics are dropped", out)
        self._file = _MetricsFile(out / METRICS_FILE, begin) if world.writes else None
        # Step, time and seconds of waiting at the last line, for the speed since then.
        self._timed = (begin, time.monotonic(), feed.waited_seconds)

    def due(self, step: int) -> bool:
        """Whether a line is due after this step (0 for the first): 25 times a run, and after the first and last."""
        return step == 0 or (step + 1) % self._every == 0 or step + 1 == self._total

    def write(
        self,
        state: RunState,
        objective: Objective,
        autocast: torch.autocast,
        update: Figures,
        probe: Probe | None,
    ) -> Figures:
        """Add a line for the step that was just done, with the mean loss since the last line, and clear the losses.

        update: figures of the step, such as the learning rate.
        probe: None if it is not due.

        Returns the probe's figures in the process that writes, else none. Raises NonFinite.
        """
        loss = self.finite_losses(state).mean().item()  # the host waits for the device here
        first, since, waited = self._timed
        seconds = time.monotonic() - since
        speed = (state.step - first) * self._recipe.batch / seconds
        figures = {
            "loss": loss,
            **(self._monitor.figures(objective, autocast) if self._world.writes else {}),
            **update,
            "epoch": state.step * self._recipe.batch / self._order.records,
        }
        self._require_finite(figures, state.step - 1)
        state.losses.clear()
        state.first, state.last = state.first or figures, figures
        probed = probe.score(objective.encoder, autocast) if probe is not None and self._world.writes else {}
        self._require_finite(probed, state.step - 1)
        resources = {
            "samples_per_second": speed,
            "utilisation": speed * objective.flops_per_sample() / self._attainable,
            "waited_share": (self._feed.waited_seconds - waited) / seconds,
            "peak_memory_mb": peak_memory_mb(self._device),
            "time": time.time(),
        }
        if self._file is not None:
            line = {"step": state.step, **figures, **probed, **resources}
            self._file.append(line)
            self._on_log(line, self._total)
        self._timed = (state.step, time.monotonic(), self._feed.waited_seconds)
        return probed

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time that the body takes from the speed of the steps."""
        began = time.monotonic()
        yield
        first, since, waited = self._timed
        self._timed = (first, since + time.monotonic() - began, waited)

    def finite_losses(self, state: RunState) -> Tensor:
        """Return the losses since the last line, float32 (steps,), on the CPU: the mean over the processes.

        Raises NonFinite for the first that is not finite.
        """
        losses = torch.stack(state.losses).float() if state.losses else torch.zeros(0, device=self._device)
        losses = self._world.mean(losses).cpu()
        bad = torch.nonzero(~torch.isfinite(losses))
        if len(bad):
            index = int(bad[0])
            self._require_finite({"loss": losses[index].item()}, state.step - len(losses) + index)
        return losses

    def _require_finite(self, figures: Figures, step: int) -> None:
        """Raise NonFinite if a figure is not finite, with the figure, the step and the records of its batch.

        step: 0 for the first update; the message counts from 1.
        """
        for name, value in figures.items():
            if not math.isfinite(value):
                records = ", ".join(self._corpus.names[int(row)] for row in self._order.rows(step))
                raise NonFinite(
                    f"{name} is {value} at step {step + 1}: look at the ECGs of its batch, or lower "
                    f"peak_lr={self._recipe.peak_lr}. The batch: {records}"
                )


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory in MiB: of the GPU's tensors, or on a CPU of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


class _MetricsFile:
    """The file of JSON lines, appended to. Lines after the last checkpoint are removed: their steps are done again."""

    def __init__(self, path: Path, last_step: int) -> None:
        self._path = path
        lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        kept = [line for number, line in enumerate(lines, 1) if self._step(line, number) <= last_step]
        write_atomically(path, b"".join(kept))

    def _step(self, line: bytes, number: int) -> float:
        """Return the step of a line; infinity if the line is torn, which a kill or a loss of power may leave."""
        try:
            if line.endswith(b"\n"):
                return json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            pass
        log.warning("%s: line %d is torn and is left out", self._path, number)
        return math.inf

    def append(self, line: Figures) -> None:
        """Append a line and write it to the disk."""
        with self._path.open("a") as stream:
            stream.write(json.dumps(line, allow_nan=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
