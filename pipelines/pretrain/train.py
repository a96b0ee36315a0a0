"""The training loop: forward, backward, update, moving average; and what it leaves in its folder.

    encoder.safetensors            the student
    summary.json                   recipe, digests, steps, first and last figures: the same for the same run
    aside/metrics.jsonl            one line a logging step
    aside/timing.json              seconds, device, versions: of no consequence for the product
    aside/checkpoints/             see `checkpoint`

The host waits for the device at logging steps and checkpoints alone.
"""

from __future__ import annotations

import json
import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ecg_model.encoder import save_encoder
from ecg_model.jepa import JEPA, split_columns
from ecg_model.masking import masked_columns
from pipelines.pretrain import schedule
from pipelines.pretrain.checkpoint import Checkpoint, CheckpointFolder
from pipelines.pretrain.data import Corpus, batch_rows, to_device, to_millivolt
from pipelines.pretrain.monitor import Monitor
from pipelines.pretrain.recipes import Recipe, differences
from pipelines.stage import write_atomically

log = logging.getLogger(__name__)

ENCODER_FILE = "encoder.safetensors"
SUMMARY_FILE = "summary.json"
METRICS_FILE = "aside/metrics.jsonl"
TIMING_FILE = "aside/timing.json"
CHECKPOINTS = "aside/checkpoints"

# Logging steps a run, and the most steps between two.
LOGS = 25
LOG_AT_LEAST_EVERY = 200

Figures = dict[str, float]


class NonFinite(RuntimeError):
    """A loss or a figure is infinite or not a number: the run has diverged, or an ECG of the batch is at fault."""


class Stopped(Exception):
    """The run was asked to stop and has written a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where and how a run works. None of it changes the weights, but for `device` and `compile` in their last bits.

    checkpoint_steps, checkpoint_minutes: write one when either has passed; None for neither. One is also written at
    the end and when asked to stop. compile: torch.compile, which needs minutes before it saves any.
    """

    out: Path
    device: torch.device
    checkpoint_steps: int | None = None
    checkpoint_minutes: float | None = 10.0
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("checkpoint_steps", "checkpoint_minutes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value!r}: use a positive number, or None for never")


@dataclass(kw_only=True)
class _Progress:
    """What a run knows beside its weights. losses: of the steps since the last log, on the device."""

    step: int = 0
    seconds: float = 0.0
    losses: list[Tensor] = field(default_factory=list)
    first: Figures = field(default_factory=dict)
    last: Figures = field(default_factory=dict)


def train(
    recipe: Recipe,
    corpus: Corpus,
    run: RunConfig,
    *,
    on_log: Callable[[Figures, int], None] = lambda line, total: None,
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Pretrain, from the newest checkpoint in `run.out` where there is one; returns the summary.

    on_log gets each line of the metrics and the number of all steps. asked_to_stop is asked after every step: if so, a
    checkpoint is written and Stopped raised. Raises ValueError where the checkpoint is of another recipe or corpus,
    DamagedCheckpoints where none can be trusted, NonFinite with the step and its records.
    """
    device, records = run.device, len(corpus.train_NLT)
    total = recipe.total_steps(records)
    warmup, log_every = round(recipe.warmup_share * total), max(1, min(total // LOGS, LOG_AT_LEAST_EVERY))
    torch.manual_seed(recipe.seed)
    model = JEPA(recipe.jepa).to(device).train()
    forward = torch.compile(model, dynamic=True) if run.compile else model  # a mask's size differs from step to step
    optimizer = adamw(model, recipe.weight_decay)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")
    monitor = Monitor(corpus.validation_NLT, device)

    checkpoints = CheckpointFolder(run.out / CHECKPOINTS)
    progress = _resume(checkpoints.newest(), recipe, corpus, model, optimizer)
    metrics = _MetricsFile(run.out / METRICS_FILE, progress.step)
    seconds_before, began = progress.seconds, time.monotonic()
    saved, timed, timed_step = began, began, progress.step

    while progress.step < total:
        step = progress.step
        due_to_log = step == 0 or (step + 1) % log_every == 0 or step + 1 == total
        rows_B = batch_rows(step, seed=recipe.seed, batch=recipe.batch, records=records)
        mask_P = masked_columns(recipe.jepa.masking, recipe.jepa.encoder.patches, seed=recipe.seed, step=step)
        visible_V, masked_M = (to_device(part, device) for part in split_columns(torch.from_numpy(mask_P)))
        x_BLT = to_millivolt(corpus.train_NLT, rows_B, device)

        # 1. forward
        with autocast:
            loss = forward(x_BLT, visible_V, masked_M)
        # 2. backward
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = gradient_norm(model) if due_to_log else None
        # 3. update
        lr = schedule.learning_rate(step, total=total, warmup=warmup, peak=recipe.peak_lr, edge=recipe.edge_lr)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        # 4. the teacher follows
        momentum = schedule.momentum(step, total=total, start=recipe.ema_start, end=recipe.ema_end)
        model.ema_update_(momentum)

        progress.step += 1
        progress.losses.append(loss.detach())
        if norm is not None:
            losses = _finite_losses(progress, recipe, corpus)  # the host waits for the device here
            speed = (progress.step - timed_step) * recipe.batch / (time.monotonic() - timed)
            figures = {
                "loss": losses.mean().item(),
                **monitor.figures(model, autocast),
                "learning_rate": lr,
                "momentum": momentum,
                "mask_share": float(mask_P.mean()),
                "gradient_norm": norm.item(),
                "epoch": progress.step * recipe.batch / records,
            }
            _require_finite(figures, step, recipe, corpus)
            progress.losses.clear()
            progress.first, progress.last = progress.first or figures, figures
            resources = {"samples_per_second": speed, "peak_memory_mb": peak_memory_mb(device), "time": time.time()}
            line = {"step": progress.step, **figures, **resources}
            metrics.append(line)
            on_log(line, total)
            timed, timed_step = time.monotonic(), progress.step

        stop = asked_to_stop() and progress.step < total
        if stop or progress.step == total or _checkpoint_due(run, progress.step, time.monotonic() - saved):
            _finite_losses(progress, recipe, corpus)
            progress.seconds = seconds_before + time.monotonic() - began
            checkpoints.save(_captured(progress, recipe, corpus, model, optimizer))
            saved = timed = time.monotonic()
            timed_step = progress.step
        if stop:
            raise Stopped(f"stopped at step {progress.step} of {total}: the same command goes on from there")

    summary = _summary(recipe, corpus, model, progress)
    _write(run, model, summary, progress)
    return summary


def adamw(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (0.9, 0.999), fused; weight decay on matrices alone, not on biases and other 1-D parameters."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), fused=True)


def gradient_norm(model: nn.Module) -> Tensor:
    """The 2-norm of all gradients as one vector, on the device."""
    return nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that the GPU's tensors, or on a CPU the process, ever took; MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _checkpoint_due(run: RunConfig, step: int, seconds_since: float) -> bool:
    by_steps = run.checkpoint_steps is not None and step % run.checkpoint_steps == 0
    return by_steps or (run.checkpoint_minutes is not None and seconds_since >= 60 * run.checkpoint_minutes)


def _finite_losses(progress: _Progress, recipe: Recipe, corpus: Corpus) -> Tensor:
    """The losses since the last log, on the CPU; NonFinite for the first that is not."""
    losses = torch.stack(progress.losses).float().cpu() if progress.losses else torch.zeros(0)
    bad = torch.nonzero(~torch.isfinite(losses))
    if len(bad):
        index = int(bad[0])
        step = progress.step - len(losses) + index
        _require_finite({"loss": losses[index].item()}, step, recipe, corpus)
    return losses


def _require_finite(figures: Figures, step: int, recipe: Recipe, corpus: Corpus) -> None:
    """NonFinite names the figure, the step (1 for the first update) and the records of its batch."""
    for name, value in figures.items():
        if not math.isfinite(value):
            rows_B = batch_rows(step, seed=recipe.seed, batch=recipe.batch, records=len(corpus.train_NLT))
            raise NonFinite(
                f"{name} is {value} at step {step + 1}: look at the ECGs of its batch, or lower "
                f"peak_lr={recipe.peak_lr}. The batch: {', '.join(corpus.names[int(row)] for row in rows_B)}"
            )


def _captured(
    progress: _Progress, recipe: Recipe, corpus: Corpus, model: JEPA, optimizer: torch.optim.Optimizer
) -> Checkpoint:
    """All that the next step depends on, and what the metrics and the summary need of the past."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    tensors["losses"] = torch.stack(progress.losses) if progress.losses else torch.zeros(0)
    tensors["rng.cpu"] = torch.get_rng_state()
    if next(model.parameters()).is_cuda:
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    facts = {
        "recipe": recipe.to_dict(),
        "corpus": corpus.digest,
        "seconds": progress.seconds,
        "first": progress.first,
        "last": progress.last,
    }
    return Checkpoint(
        step=progress.step, facts=facts, tensors={name: value.detach().cpu() for name, value in tensors.items()}
    )


def _resume(
    checkpoint: Checkpoint | None, recipe: Recipe, corpus: Corpus, model: JEPA, optimizer: torch.optim.Optimizer
) -> _Progress:
    """Put a checkpoint back into model, optimizer and generators; from the beginning where there is none.

    Raises ValueError naming the fields where it is of another recipe, and where it is of another corpus.
    """
    if checkpoint is None:
        return _Progress()
    facts, tensors = checkpoint.facts, checkpoint.tensors
    changed = differences(facts["recipe"], recipe.to_dict())
    if facts["corpus"] != corpus.digest:
        changed.append(f"corpus: {facts['corpus']} -> {corpus.digest}")
    if changed:
        raise ValueError(
            f"the run at step {checkpoint.step} was started with other settings ({'; '.join(changed)}): "
            "go on with the former ones, or start anew in another output folder"
        )
    model.load_state_dict(_below("model.", tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _below("optimizer.", tensors).items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["rng.cpu"])
    device = next(model.parameters()).device
    if device.type == "cuda" and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    log.info("going on from step %d", checkpoint.step)
    return _Progress(
        step=checkpoint.step,
        seconds=facts["seconds"],
        losses=list(tensors["losses"].to(device)),
        first=facts["first"],
        last=facts["last"],
    )


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _summary(recipe: Recipe, corpus: Corpus, model: JEPA, progress: _Progress) -> dict[str, Any]:
    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    return {
        "recipe": recipe.to_dict(),
        "recipe_digest": recipe.digest,
        "corpus_digest": corpus.digest,
        "records": len(corpus.train_NLT),
        "validation_records": len(corpus.validation_NLT),
        "parameters": {"encoder": count(model.student), "predictor": count(model.predictor)},
        "steps": progress.step,
        "samples": progress.step * recipe.batch,
        "first": progress.first,
        "last": progress.last,
    }


def _write(run: RunConfig, model: JEPA, summary: dict[str, Any], progress: _Progress) -> None:
    timing = {
        "seconds": round(progress.seconds, 3),
        "samples_per_second": round(summary["samples"] / progress.seconds, 2),
        "peak_memory_mb": round(peak_memory_mb(run.device), 1),
        "device": torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    write_atomically(run.out / TIMING_FILE, json.dumps(timing, indent=1).encode())
    write_atomically(run.out / SUMMARY_FILE, json.dumps(summary, indent=1, allow_nan=False).encode())
    save_encoder(run.out / ENCODER_FILE, model.student)


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
