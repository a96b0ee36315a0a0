"""The training loop: forward, backward, update, for any objective; and the files it leaves in its folder.

    encoder.safetensors            the encoder: the last one, or the best by probe if the recipe selects it
    best.safetensors, best.json    the encoder at its best probe, if there is a probe
    summary.json                   recipe, digests, steps, first and last figures: the same for the same run
    aside/metrics.jsonl            one line for each logging step
    aside/timing.json              seconds, device, versions: without influence on the product
    aside/sha256sums               of the files above, but timing.json
    aside/checkpoints/             see `checkpoint`

The host waits for the device only at logging steps, probes and checkpoints.
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
from ecg_model.ecg_encoder import ECGEncoder
from ecg_model.encoder_file import encoder_bytes, load_encoder
from ecg_model.settings import to_dict
from ecg_model.standard import SAMPLES
from pipelines.durable import write_atomically
from pipelines.encoders.names import ENCODER_FILE
from pipelines.hashing import sha256_of_file
from pipelines.pretrain import schedule
from pipelines.pretrain.best_encoder import BEST_FACTS, BEST_FILE, load_best, store_if_best
from pipelines.pretrain.checkpoint import CheckpointFolder
from pipelines.pretrain.data import BatchFeed, Corpus
from pipelines.pretrain.distributed import World
from pipelines.pretrain.metrics_log import Journal, OnLog, Probe, peak_memory_mb
from pipelines.pretrain.objectives import objective_of
from pipelines.pretrain.objectives.objective import Draw, Objective
from pipelines.pretrain.recipes import Recipe, differences
from pipelines.pretrain.run_state import Figures, RunState, capture, resume
from pipelines.pretrain.sampling_order import Order
from pipelines.pretrain.step import CHECKPOINTS, METRICS_FILE, SUMMARY_FILE, SUMS_FILE, TIMING_FILE, EncoderFacts
from pipelines.program import Stopped

ALONE = World()
_TRAINING_ALONE = ("drop_path:", "dropout:", "patch_init_scale:")
"""Fields of an encoder that concern training and random weights alone."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where and how a run works.

    Nothing here changes the weights, except that `device`, `compile`, `accumulate` and the number of processes change
    their last bits.
    """

    out: Path  # folder for all that the run writes
    device: torch.device
    checkpoint_steps: int | None = None  # steps between two checkpoints; None: steps write none
    checkpoint_minutes: float | None = 10.0
    """Minutes between two checkpoints; None: time writes none. One is also written at the end and on a stop."""
    compile: bool = False  # torch.compile, which takes minutes before it saves any
    accumulate: int = 1  # parts in which a batch is computed, one after another, so that it fits into memory
    recompute: bool = False
    """Blocks keep only their input for the backward pass and compute the rest again: less memory, a quarter more
    work."""
    warm_start: Path | None = None  # the encoder file whose sha256 the recipe names

    def __post_init__(self) -> None:
        for name in ("checkpoint_steps", "checkpoint_minutes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value!r}: use a positive number, or None for never")
        if self.accumulate < 1:
            raise ValueError(f"accumulate={self.accumulate!r}: use at least 1 part")

    def checkpoint_due(self, step: int, saved: float) -> bool:
        """Whether a checkpoint is due after this many steps, if the last one was written at `saved` (monotonic)."""
        by_steps = self.checkpoint_steps is not None and step % self.checkpoint_steps == 0
        minutes = (time.monotonic() - saved) / 60
        return by_steps or (self.checkpoint_minutes is not None and minutes >= self.checkpoint_minutes)


def train(
    recipe: Recipe,
    corpus: Corpus,
    run: RunConfig,
    *,
    world: World = ALONE,
    probe: Probe | None = None,
    on_log: OnLog = lambda line, total: None,
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> EncoderFacts:
    """Pretrain, from the newest checkpoint in `run.out` if there is one. Return the summary.

    world: this process's place in the run. Each process calls this; rank 0 writes, and needs the probe.
    on_log: gets each line of the metrics.
    asked_to_stop: called after every step. If true, a checkpoint is written and Stopped is raised.

    Raises ValueError if the checkpoint is of another recipe or corpus, if the batch cannot be shared evenly, or if the
    encoder to start from does not fit; DamagedCheckpoints if no checkpoint is intact; NonFinite, naming the step and
    its records, if the run diverged.
    """
    training = Training(recipe, corpus, run, world)
    state, total, records = training.state, training.total, len(corpus.train)
    probes = world.agree(probe is not None)  # all processes must log at the same steps
    best = load_best(run.out, step=state.step) if world.writes else {}

    with training.feed() as feed:
        journal = training.journal(feed, on_log)
        while state.step < total:
            probe_due = probes and recipe.probe_due(state.step, records)
            log_due = probe_due or journal.due(state.step)
            update = training.update(feed, with_norm=log_due)

            if log_due:
                probed = journal.write(
                    state, training.objective, training.autocast, update.figures(), probe if probe_due else None
                )
                if probed:
                    best = store_if_best(run.out, training.objective.encoder, {"step": state.step, **probed}, best)

            stop = world.agree(asked_to_stop()) and state.step < total
            if stop or state.step == total or world.agree(run.checkpoint_due(state.step, training.saved)):
                training.save(journal)
            if stop:
                raise Stopped(f"stopped at step {state.step} of {total}: the same command resumes from there")

    summary = _summary(recipe, corpus, training.objective, state, best)
    if world.writes:
        _write(run, recipe, training.objective.encoder, summary, state)
    world.wait()
    return summary


@dataclass(frozen=True, kw_only=True)
class Update:
    """One training step as it was done."""

    learning_rate: float
    of_objective: Figures
    norm: Tensor | None  # of all gradients before clipping, on the device; None if nobody needed it

    def figures(self) -> Figures:
        """Return the figures for the metrics. The host waits for the device here."""
        assert self.norm is not None
        return {
            "learning_rate": self.learning_rate,
            **self.of_objective,
            "gradient_norm": self.norm.item(),
        }


class Training:
    """Networks, optimizer and state of a run in one process: new, or as its newest checkpoint has them."""

    def __init__(self, recipe: Recipe, corpus: Corpus, run: RunConfig, world: World) -> None:
        recipe.require_even_shares(processes=world.size, accumulate=run.accumulate)
        self.recipe, self.corpus, self.run, self.world = recipe, corpus, run, world
        self.total = recipe.total_steps(len(corpus.train))
        self.warmup = round(recipe.warmup_share * self.total)
        torch.manual_seed(recipe.seed)
        self.objective = objective_of(recipe)
        if recipe.warm_start is not None:
            _start_from(self.objective, recipe.warm_start, run.warm_start)
        self.model = self.objective.model.to(run.device).train()
        set_recompute(self.model, run.recompute)
        self.optimizer = adamw(self.objective.groups(recipe.weight_decay))
        self.autocast = torch.autocast(run.device.type, torch.bfloat16, enabled=recipe.precision == "bf16")
        self.order = Order(seed=recipe.seed, batch=recipe.batch, chunk_N=corpus.chunk_N)

        self.checkpoints = CheckpointFolder(run.out / CHECKPOINTS)
        with world.rank_0_first():  # it renames damaged checkpoints
            self.state = resume(self.checkpoints.newest(), recipe, corpus.digest, self.model, self.optimizer)
        self._replica = DistributedDataParallel(self.model, gradient_as_bucket_view=True) if world.size > 1 else None
        module = self._replica or self.model
        # Dynamic, because a mask's size differs from step to step.
        self._forward = torch.compile(module, dynamic=True) if run.compile else module
        self._began = time.monotonic() - self.state.seconds
        self.saved = time.monotonic()

    def feed(self) -> BatchFeed:
        """Return the batches from the next step on, of which this process gets its share."""
        rank, size = self.world.rank, self.world.size
        window = self.recipe.encoder.window
        return self.corpus.feed(
            self.order,
            device=self.run.device,
            first_step=self.state.step,
            rank=rank,
            world=size,
            window=window if window < SAMPLES else None,
        )

    def journal(self, feed: BatchFeed, on_log: OnLog) -> Journal:
        """Open the metrics of this run, from the next step on."""
        return Journal(
            self.recipe,
            self.corpus,
            self.order,
            feed,
            self.world,
            out=self.run.out,
            device=self.run.device,
            begin=self.state.step,
            on_log=on_log,
        )

    def update(self, feed: BatchFeed, *, with_norm: bool) -> Update:
        """Do the next training step. with_norm: compute the norm of the gradients even if nothing is clipped."""
        recipe, step = self.recipe, self.state.step
        draw = self.objective.draw(recipe.batch, seed=recipe.seed, step=step).of(self.world.share).to(self.run.device)
        x_BLT = self.objective.read(feed.next())

        # 1. forward, 2. backward
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._forward_backward(draw, x_BLT)
        norm = gradient_norm(self.model) if with_norm or recipe.clip_norm is not None else None
        if norm is not None and recipe.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), recipe.clip_norm, norm)
        # 3. update
        lr = schedule.learning_rate(
            step, total=self.total, warmup=self.warmup, peak=recipe.peak_lr, edge=recipe.edge_lr
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["rate"]
        self.optimizer.step()
        # 4. what moves without a gradient
        moved = self.objective.after_step(step, self.total)

        self.state.step += 1
        self.state.losses.append(loss)
        return Update(learning_rate=lr, of_objective=moved | draw.figures, norm=norm)

    def _forward_backward(self, draw: Draw, x_BLT: Tensor) -> Tensor:
        """Add the gradients of a batch, part by part. Return its loss, float32 (), on the device."""
        parts = self.run.accumulate
        loss = torch.zeros((), device=self.run.device)
        for part in range(parts):
            # Processes exchange gradients once a step, with the last part.
            last, some = part + 1 == parts, slice(part, None, parts)
            with nullcontext() if last or self._replica is None else self._replica.no_sync():
                with self.autocast:
                    part_loss = self._forward(x_BLT[some], *draw.of(some).arguments) / parts
                part_loss.backward()
            loss += part_loss.detach()
        return loss

    def save(self, journal: Journal) -> None:
        """Write a checkpoint, in the process that writes. Raises NonFinite if a loss since the last line is not."""
        with journal.paused():
            # All processes go on with the mean losses, as they would after resuming from this checkpoint.
            self.state.losses = list(journal.finite_losses(self.state).to(self.run.device))
            self.state.seconds = time.monotonic() - self._began
            if self.world.writes:
                checkpoint = capture(self.state, self.recipe, self.corpus.digest, self.model, self.optimizer)
                self.checkpoints.save(checkpoint)
        self.saved = time.monotonic()


def adamw(groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    """Return AdamW (0.9, 0.999), fused, of an objective's groups of parameters."""
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), fused=True)


def gradient_norm(model: nn.Module) -> Tensor:
    """Return the 2-norm of all gradients as one vector, on the device."""
    return nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


def _start_from(objective: Objective, sha256: str, path: Path | None) -> None:
    """Begin with the encoder in that file. Raises ValueError if it is another file or network."""
    if path is None:
        raise ValueError(f"warm_start={sha256!r}: give the encoder's file with that sha256 too")
    actual = sha256_of_file(path)
    if actual != sha256:
        raise ValueError(f"warm_start={sha256!r}: {path} has sha256 {actual}; give the file that the recipe names")
    encoder = load_encoder(path)
    changed = [
        change
        for change in differences(to_dict(encoder.config), to_dict(objective.encoder.config))
        if not change.startswith(_TRAINING_ALONE)
    ]
    if changed:
        raise ValueError(
            f"warm_start: {path} is another network ({'; '.join(changed)}): give the recipe's encoder its sizes"
        )
    objective.begin_with(encoder)


def _summary(recipe: Recipe, corpus: Corpus, objective: Objective, state: RunState, best: Figures) -> EncoderFacts:
    return EncoderFacts(
        recipe=recipe.to_dict(),
        recipe_digest=recipe.digest,
        corpus_digest=corpus.digest,
        records=len(corpus.train),
        validation_records=len(corpus.validation_NLT),
        parameters=objective.parameters(),
        steps=state.step,
        samples=state.step * recipe.batch,
        first=state.first,
        last=state.last,
        best=best or None,
    )


def _write(run: RunConfig, recipe: Recipe, encoder: ECGEncoder, summary: EncoderFacts, state: RunState) -> None:
    timing: dict[str, Any] = {
        "seconds": round(state.seconds, 3),
        "samples_per_second": round(summary.samples / state.seconds, 2),
        "peak_memory_mb": round(peak_memory_mb(run.device), 1),
        "device": torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    write_atomically(run.out / TIMING_FILE, json.dumps(timing, indent=1).encode())
    chosen = recipe.select == "best" and summary.best is not None
    weights = (run.out / BEST_FILE).read_bytes() if chosen else encoder_bytes(encoder)
    write_atomically(run.out / ENCODER_FILE, weights)
    described = json.dumps(summary.to_dict(), indent=1, allow_nan=False).encode()
    files = [run.out / name for name in (ENCODER_FILE, BEST_FILE, BEST_FACTS, METRICS_FILE)]
    sums = {path: sha256_of_file(path) for path in files if path.is_file()}
    sums[run.out / SUMMARY_FILE] = hashlib.sha256(described).hexdigest()
    lines = [f"{digest}  {path.relative_to(run.out)}\n" for path, digest in sums.items()]
    write_atomically(run.out / SUMS_FILE, "".join(lines).encode())
    # Last: a folder with a summary counts as a training that has ended.
    write_atomically(run.out / SUMMARY_FILE, described)
