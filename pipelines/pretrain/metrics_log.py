"""What a run says of itself, at logging steps: the figures of its learning, of its speed, and of its probe."""

from __future__ import annotations

import json
import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ecg_model.encoder import Encoder
from ecg_model.jepa import JEPA
from pipelines.cache import write_atomically
from pipelines.pretrain.data import BatchFeed, Corpus
from pipelines.pretrain.distributed import World
from pipelines.pretrain.flops import flops_per_sample, matrix_rate
from pipelines.pretrain.monitor import Monitor
from pipelines.pretrain.recipes import Recipe
from pipelines.pretrain.run_state import Figures, RunState
from pipelines.pretrain.sampling_order import Order
from pipelines.pretrain.step import METRICS_FILE

log = logging.getLogger(__name__)

# Logging steps a run, and the most steps between two.
LOGS = 25
LOG_AT_LEAST_EVERY = 200

OnLog = Callable[[Figures, int], None]
"""Gets each line of the metrics and the number of all steps."""


class NonFinite(RuntimeError):
    """A loss or a figure is infinite or not a number: the run has diverged, or an ECG of the batch is at fault."""


class Probe(Protocol):
    """Scores an encoder on labels: figures with `probe_auc` among them."""

    def score(self, encoder: Encoder, autocast: torch.autocast) -> Figures: ...


class Journal:
    """Writes the metrics of one run, a line a logging step; one in each process, of which rank 0's has the file."""

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
        self._timed = (begin, time.monotonic(), feed.waited_seconds)

    def due(self, step: int) -> bool:
        return step == 0 or (step + 1) % self._every == 0 or step + 1 == self._total

    def write(
        self,
        progress: RunState,
        model: JEPA,
        autocast: torch.autocast,
        norm: Tensor,
        told: Figures,
        probe: Probe | None,
    ) -> Figures:
        """Add a line for the step that was just done; the losses since the last one are in it and forgotten.

        norm: of the gradients. told: what the loop knows. probe: where it is due. Returns its figures, in the process
        that writes. Raises NonFinite.
        """
        loss = self.finite_losses(progress).mean().item()  # the host waits for the device here
        first, since, waited = self._timed
        seconds = time.monotonic() - since
        speed = (progress.step - first) * self._recipe.batch / seconds
        figures = {
            "loss": loss,
            **(self._monitor.figures(model, autocast) if self._world.writes else {}),
            **told,
            "gradient_norm": norm.item(),
            "epoch": progress.step * self._recipe.batch / self._order.records,
        }
        self._require_finite(figures, progress.step - 1)
        progress.losses.clear()
        progress.first, progress.last = progress.first or figures, figures
        probed = probe.score(model.student, autocast) if probe is not None and self._world.writes else {}
        self._require_finite(probed, progress.step - 1)
        resources = {
            "samples_per_second": speed,
            "utilisation": speed * flops_per_sample(self._recipe.jepa) / self._attainable,
            "waited_share": (self._feed.waited_seconds - waited) / seconds,
            "peak_memory_mb": peak_memory_mb(self._device),
            "time": time.time(),
        }
        if self._file is not None:
            line = {"step": progress.step, **figures, **probed, **resources}
            self._file.append(line)
            self._on_log(line, self._total)
        self._timed = (progress.step, time.monotonic(), self._feed.waited_seconds)
        return probed

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens meanwhile does not count as time of the steps."""
        began = time.monotonic()
        yield
        first, since, waited = self._timed
        self._timed = (first, since + time.monotonic() - began, waited)

    def finite_losses(self, progress: RunState) -> Tensor:
        """The losses since the last line, the mean over the processes, on the CPU; NonFinite for the first that is
        not."""
        losses = torch.stack(progress.losses).float() if progress.losses else torch.zeros(0, device=self._device)
        losses = self._world.mean(losses).cpu()
        bad = torch.nonzero(~torch.isfinite(losses))
        if len(bad):
            index = int(bad[0])
            self._require_finite({"loss": losses[index].item()}, progress.step - len(losses) + index)
        return losses

    def _require_finite(self, figures: Figures, step: int) -> None:
        """NonFinite names the figure, the step (1 for the first update) and the records of its batch."""
        for name, value in figures.items():
            if not math.isfinite(value):
                records = ", ".join(self._corpus.names[int(row)] for row in self._order.rows(step))
                raise NonFinite(
                    f"{name} is {value} at step {step + 1}: look at the ECGs of its batch, or lower "
                    f"peak_lr={self._recipe.peak_lr}. The batch: {records}"
                )


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that the GPU's tensors, or on a CPU the process, ever took; MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


class _MetricsFile:
    """JSON lines, appended to. What a killed run wrote after its last checkpoint is cut off: it is done again."""

    def __init__(self, path: Path, last_step: int) -> None:
        self._path = path
        whole = (
            [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
            if path.is_file()
            else []
        )
        write_atomically(path, b"".join(line for line in whole if json.loads(line)["step"] <= last_step))

    def append(self, line: Figures) -> None:
        with self._path.open("a") as stream:
            stream.write(json.dumps(line, allow_nan=False) + "\n")
