"""The training loop: forward, backward, update, moving average; and what it leaves in its folder.

    encoder.safetensors            the student: the last one, or the best by probe where the recipe selects it
    best.safetensors, best.json    the student at its best probe, where there is a probe
    summary.json                   recipe, digests, steps, first and last figures: the same for the same run
    aside/metrics.jsonl            one line a logging step
    aside/timing.json              seconds, device, versions: of no consequence for the product
    aside/checkpoints/             see `checkpoint`

The host waits for the device at logging steps, probes and checkpoints alone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ecg_model.blocks import set_recompute
from ecg_model.config import to_dict
from ecg_model.encoder import encoder_bytes, load_encoder
from ecg_model.jepa import JEPA, split_columns
from ecg_model.masking import masked_columns
from ecg_model.stochastic_depth import drop_path_scale
from pipelines.cache import write_atomically
from pipelines.encoders.names import ENCODER_FILE
from pipelines.pretrain import schedule
from pipelines.pretrain.best_encoder import BEST_FILE, keep_best, kept_best
from pipelines.pretrain.checkpoint import CheckpointFolder
from pipelines.pretrain.data import Corpus, to_device
from pipelines.pretrain.distributed import World
from pipelines.pretrain.metrics_log import Journal, OnLog, Probe, peak_memory_mb
from pipelines.pretrain.recipes import Recipe, differences
from pipelines.pretrain.run_state import Figures, RunState, captured, resumed
from pipelines.pretrain.sampling_order import Order

SUMMARY_FILE = "summary.json"
TIMING_FILE = "aside/timing.json"
CHECKPOINTS = "aside/checkpoints"

ALONE = World()


class TrainingStopped(Exception):
    """The run was asked to stop and has written a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where and how a run works. None of it changes the weights; `device`, `compile`, `accumulate` and the number of
    processes change their last bits.

    checkpoint_steps, checkpoint_minutes: write one when either has passed; None for neither. One is also written at
    the end and when asked to stop. compile: torch.compile, which needs minutes before it saves any. accumulate: parts
    that a batch is computed in, one after another, so that it fits into memory. recompute: blocks keep their input
    alone for the backward pass, so that a larger batch fits, at a quarter more work. warm_start: the encoder's file
    whose sha256 the recipe names.
    """

    out: Path
    device: torch.device
    checkpoint_steps: int | None = None
    checkpoint_minutes: float | None = 10.0
    compile: bool = False
    accumulate: int = 1
    recompute: bool = False
    warm_start: Path | None = None

    def __post_init__(self) -> None:
        for name in ("checkpoint_steps", "checkpoint_minutes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value!r}: use a positive number, or None for never")
        if self.accumulate < 1:
            raise ValueError(f"accumulate={self.accumulate!r}: use at least 1 part")


def train(
    recipe: Recipe,
    corpus: Corpus,
    run: RunConfig,
    *,
    world: World = ALONE,
    probe: Probe | None = None,
    on_log: OnLog = lambda line, total: None,
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Pretrain, from the newest checkpoint in `run.out` where there is one; returns the summary.

    asked_to_stop is asked after every step: if so, a checkpoint is written and Stopped raised. With several processes
    each calls this with its own place in the `world`; rank 0 writes, and needs the probe. Raises ValueError where the
    checkpoint is of another recipe or corpus, where the batch cannot be shared out evenly, and where the encoder to
    start from does not fit; DamagedCheckpoints where none can be trusted; NonFinite with the step and its records.
    """
    _require_even_shares(recipe, run, world)
    device, records = run.device, len(corpus.train)
    total = recipe.total_steps(records)
    warmup = round(recipe.warmup_share * total)
    torch.manual_seed(recipe.seed)
    model = JEPA(recipe.jepa)
    if recipe.warm_start is not None:
        _start_from(model, recipe.warm_start, run.warm_start)
    model.to(device).train()
    set_recompute(model, run.recompute)
    optimizer = adamw(model, recipe.weight_decay)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")
    order = Order(seed=recipe.seed, batch=recipe.batch, chunk_N=corpus.chunk_N)

    checkpoints = CheckpointFolder(run.out / CHECKPOINTS)
    with world.first_rank_0():  # it renames a checkpoint that is damaged
        progress = resumed(checkpoints.newest(), recipe, corpus.digest, model, optimizer)
    probes = world.agree(probe is not None)  # all processes must log at the same steps
    best = kept_best(run.out, step=progress.step) if world.writes else {}
    replica = DistributedDataParallel(model, gradient_as_bucket_view=True) if world.size > 1 else None
    # A mask's size differs from step to step.
    forward = torch.compile(replica or model, dynamic=True) if run.compile else replica or model
    seconds_before, began = progress.seconds, time.monotonic()
    saved = began

    with corpus.feed(order, device=device, first_step=progress.step, rank=world.rank, world=world.size) as feed:
        journal = Journal(
            recipe, corpus, order, feed, world, out=run.out, device=device, begin=progress.step, on_log=on_log
        )
        while progress.step < total:
            step = progress.step
            probe_due = probes and recipe.probe_due(step, records)
            log_due = probe_due or journal.due(step)
            draw = _drawn(recipe, step, world, device)
            x_BLT = feed.next()

            # 1. forward, 2. backward
            optimizer.zero_grad(set_to_none=True)
            loss = torch.zeros((), device=device)
            for part in range(run.accumulate):
                last = part + 1 == run.accumulate
                with nullcontext() if last or replica is None else replica.no_sync():
                    with autocast:
                        part_loss = forward(*draw.part(x_BLT, part, run.accumulate)) / run.accumulate
                    part_loss.backward()
                loss += part_loss.detach()
            norm = gradient_norm(model) if log_due or recipe.clip_norm is not None else None
            if norm is not None and recipe.clip_norm is not None:
                nn.utils.clip_grads_with_norm_(model.parameters(), recipe.clip_norm, norm)
            # 3. update
            lr = schedule.learning_rate(step, total=total, warmup=warmup, peak=recipe.peak_lr, edge=recipe.edge_lr)
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            # 4. the teacher follows
            momentum = schedule.momentum(step, total=total, start=recipe.ema_start, end=recipe.ema_end)
            model.ema_update_(momentum)

            progress.step += 1
            progress.losses.append(loss)
            if log_due:
                assert norm is not None
                told = {"learning_rate": lr, "momentum": momentum, "mask_share": draw.mask_share}
                probed = journal.write(progress, model, autocast, norm, told, probe if probe_due else None)
                if probed:
                    best = keep_best(run.out, model.student, {"step": progress.step, **probed}, best)

            stop = world.agree(asked_to_stop()) and progress.step < total
            if stop or progress.step == total or world.agree(_checkpoint_due(run, progress.step, saved)):
                with journal.paused():
                    progress.losses = list(journal.finite_losses(progress).to(device))
                    progress.seconds = seconds_before + time.monotonic() - began
                    if world.writes:
                        checkpoints.save(captured(progress, recipe, corpus.digest, model, optimizer))
                saved = time.monotonic()
            if stop:
                raise TrainingStopped(
                    f"stopped at step {progress.step} of {total}: the same command goes on from there"
                )

    summary = _summary(recipe, corpus, model, progress, best)
    if world.writes:
        _write(run, recipe, model, summary, progress)
    world.wait()
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


@dataclass(frozen=True, kw_only=True)
class _Draw:
    """What a step leaves to chance, drawn from (seed, step) for the whole batch: this process's share of it.

    columns: the visible and the masked ones, of all records (V,), (M,) or of each (B, V), (B, M).
    """

    columns: tuple[Tensor, Tensor]
    scale_K2B: Tensor | None
    mask_share: float

    def part(self, x_BLT: Tensor, number: int, parts: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The arguments of the model's forward for every `parts`-th record."""
        some = slice(number, None, parts)
        visible, masked = (index if index.ndim == 1 else index[some] for index in self.columns)
        return x_BLT[some], visible, masked, None if self.scale_K2B is None else self.scale_K2B[:, :, some]


def _drawn(recipe: Recipe, step: int, world: World, device: torch.device) -> _Draw:
    jepa, seed, batch = recipe.jepa, recipe.seed, recipe.batch
    mask = masked_columns(jepa.masking, jepa.encoder.patches, seed=seed, step=step, records=batch)
    columns = split_columns(torch.from_numpy(mask if mask.ndim == 1 else mask[world.share]))
    scale_K2B = drop_path_scale(jepa.encoder, batch, seed=seed, step=step)
    return _Draw(
        columns=(to_device(columns[0], device), to_device(columns[1], device)),
        scale_K2B=None if scale_K2B is None else to_device(torch.from_numpy(scale_K2B[:, :, world.share]), device),
        mask_share=float(mask.mean()),
    )


def _require_even_shares(recipe: Recipe, run: RunConfig, world: World) -> None:
    parts = world.size * run.accumulate
    if recipe.batch % parts:
        raise ValueError(
            f"batch={recipe.batch} cannot be shared out evenly among {world.size} processes in {run.accumulate} parts: "
            f"use a multiple of {parts}"
        )


def _start_from(model: JEPA, sha256: str, path: Path | None) -> None:
    """Student and teacher begin as the encoder in that file."""
    if path is None:
        raise ValueError(f"warm_start={sha256!r}: give the encoder's file with that sha256 too")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise ValueError(f"warm_start={sha256!r}: {path} has sha256 {found}; give the file that the recipe names")
    encoder = load_encoder(path)
    changed = [
        change
        for change in differences(to_dict(encoder.config), to_dict(model.config.encoder))
        if not change.startswith(("drop_path:", "patch_init_scale:"))  # of training and of random weights alone
    ]
    if changed:
        raise ValueError(f"warm_start: {path} is another network ({'; '.join(changed)}): give jepa.encoder its sizes")
    model.student.load_state_dict(encoder.state_dict())
    model.teacher.load_state_dict(encoder.state_dict())


def _checkpoint_due(run: RunConfig, step: int, saved: float) -> bool:
    by_steps = run.checkpoint_steps is not None and step % run.checkpoint_steps == 0
    minutes = (time.monotonic() - saved) / 60
    return by_steps or (run.checkpoint_minutes is not None and minutes >= run.checkpoint_minutes)


def _summary(recipe: Recipe, corpus: Corpus, model: JEPA, progress: RunState, best: Figures) -> dict[str, Any]:
    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    return {
        "recipe": recipe.to_dict(),
        "recipe_digest": recipe.digest,
        "corpus_digest": corpus.digest,
        "records": len(corpus.train),
        "validation_records": len(corpus.validation_NLT),
        "parameters": {"encoder": count(model.student), "predictor": count(model.predictor)},
        "steps": progress.step,
        "samples": progress.step * recipe.batch,
        "first": progress.first,
        "last": progress.last,
        "best": best or None,
    }


def _write(run: RunConfig, recipe: Recipe, model: JEPA, summary: dict[str, Any], progress: RunState) -> None:
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
    chosen = recipe.select == "best" and summary["best"] is not None
    encoder = (run.out / BEST_FILE).read_bytes() if chosen else encoder_bytes(model.student)
    write_atomically(run.out / ENCODER_FILE, encoder)
