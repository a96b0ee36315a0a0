"""Training and embedding at paper size, compared with the released code's way.

    python -m benchmarks.train_step --device cpu --batch 16 --json FILE

Each way runs in a separate process, so that memory is separate, and they work in turn. Figures are medians over the
rounds; ratios are medians of the ratio in each round.

train_ratio, embed_ratio    the baseline's time over ours
*_utilisation               our FLOP/s over those of a large bfloat16 matrix product, measured between the rounds
*_ratio_at_matrix_rate      the ratio if our FLOPs ran at that rate without any other time
memory_share                our peak over the baseline's, with weights, moving average and AdamW's moments (state_mib)
activations_share           the same without these
checkpoint_share            a checkpoint's time over the default interval between two
best_*                      on a GPU: each way at its best batch, doubled as long as that trains faster
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.baseline import as_released
from ecg_model.blocks import set_recompute
from ecg_model.config import EncoderConfig, JEPAConfig, PredictorConfig
from ecg_model.jepa import JEPA, split_columns
from ecg_model.masking import masked_columns
from ecg_model.stochastic_depth import drop_path_scale
from pipelines.pretrain.checkpoint import CheckpointFolder
from pipelines.pretrain.flops import encoder_flops, jepa_flops, matrix_rate, step_flops
from pipelines.pretrain.objectives.jepa import matrices_decay
from pipelines.pretrain.recipes import Recipe
from pipelines.pretrain.run_state import RunState, capture
from pipelines.pretrain.train import RunConfig, adamw

CORPUS, EPOCHS = 174_140, 100  # ECGs and passes of the paper's pretraining
MOMENTUM = 0.996  # of the teacher
PAPER = JEPAConfig()
SMALL = JEPAConfig(encoder=EncoderConfig(dim=96, depth=2, heads=4), predictor=PredictorConfig(dim=48, depth=1, heads=4))


class Contender:
    """One way of training, on its device: ours in bfloat16; the released one in float32, or on a GPU in float16."""

    def __init__(
        self, way: str, config: JEPAConfig, device: torch.device, compiled: bool, parts: int, recompute: bool
    ) -> None:
        """Build the model and its optimiser on the device.

        way: `ours` or another name for the baseline.
        parts: parts in which a batch is computed.
        """
        self.config, self.device, self._parts = config, device, parts
        self._imported = peak_bytes(device)
        torch.manual_seed(0)
        self.model = (JEPA(config) if way == "ours" else as_released(config)).to(device).train()
        set_recompute(self.model, recompute)
        self.optimizer = adamw(matrices_decay(self.model, 0.05))
        released = torch.float16 if device.type == "cuda" else torch.float32
        self.precision = torch.bfloat16 if way == "ours" else released
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)
        # Dynamic as in the training loop, because a mask's size differs from step to step.
        self._forward = torch.compile(self.model, dynamic=True) if compiled else self.model
        self._embed = torch.compile(self.model.student.embed) if compiled else self.model.student.embed

    def train(self, batch: int, step: int) -> float:
        """Return the seconds of a whole training step."""
        x_BLT = self._ecgs(batch)
        began = self._now()
        columns = [part.to(self.device) for part in split_columns(torch.from_numpy(mask_of(self.config, step)))]
        scale = drop_path_scale(self.config.transformers[0], batch, seed=0, step=step)
        scale_K2B = None if scale is None else torch.from_numpy(scale).to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        for part in range(self._parts):
            some = slice(part, None, self._parts)
            with self._autocast():
                loss = self._forward(x_BLT[some], *columns, None if scale_K2B is None else scale_K2B[:, :, some])
            self._scaler.scale(loss / self._parts).backward()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.model.ema_update_(MOMENTUM)
        return self._now() - began

    def embed(self, batch: int) -> float:
        """Return the seconds of embedding a batch."""
        x_BLT = self._ecgs(batch)
        self.model.eval()
        began = self._now()
        with torch.inference_mode(), self._autocast():
            self._embed(x_BLT)
        return self._now() - began

    def matrix_rate(self) -> float:
        """Measure the FLOP/s of a large product in bfloat16 again."""
        matrix_rate.cache_clear()
        return matrix_rate(self.device, torch.bfloat16)

    def memory(self) -> tuple[int, int]:
        """Return bytes: the peak so far above that of the imports, and its part for weights and optimizer."""
        moments = [value for values in self.optimizer.state.values() for value in values.values()]
        state = sum(tensor.nbytes for tensor in [*self.model.state_dict().values(), *moments])
        return peak_bytes(self.device) - self._imported, state

    def checkpoint(self, parent: Path | None) -> float:
        """Return the seconds of writing a checkpoint."""
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            began = self._now()
            state = capture(RunState(step=1), Recipe(name="bench", jepa=self.config), "", self.model, self.optimizer)
            CheckpointFolder(Path(folder)).save(state)
            return self._now() - began

    def best_batch(self, first: int, rounds: int) -> tuple[int, float]:
        """Return the batch, `first` times a power of two, that trains most ECGs a second, and that number."""
        best, batch = (first, 0.0), first
        while True:
            try:
                seconds = [self.train(batch, 1) for _ in range(rounds + 1)][1:]
            except torch.cuda.OutOfMemoryError:
                return best
            speed = batch / statistics.median(seconds)
            if speed <= best[1]:
                return best
            best, batch = (batch, speed), 2 * batch

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def _ecgs(self, batch: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        encoder = self.config.transformers[0]
        return 0.2 * torch.randn(batch, encoder.leads, encoder.samples, generator=generator).to(self.device)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class OwnProcess:
    """A Contender in a separate process."""

    def __init__(self, *arguments: Any) -> None:
        """Prepare the process, which makes a Contender with these arguments."""
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, spawn, initializer=_begin, initargs=arguments)

    def __call__(self, method: str, *arguments: Any) -> Any:
        """Call a method of the Contender."""
        return self._pool.submit(_answer, method, arguments).result()


_contender: Contender | None = None


def _begin(*arguments: Any) -> None:
    global _contender  # stays in the process from one call to the next
    _contender = Contender(*arguments)


def _answer(method: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(_contender, method)(*arguments)


def peak_bytes(device: torch.device) -> int:
    """Return the peak memory of the GPU's tensors, or on a CPU (Linux) of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not ru_maxrss: a new process inherits its parent's.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def mask_of(config: JEPAConfig, step: int) -> Any:
    """Return the mask of a step, bool (columns,)."""
    return masked_columns(config.masking, config.transformers[0].patches, seed=0, step=step)


def compare(
    name: str,
    work: Callable[[OwnProcess, int], float],
    flops: Callable[[int], float],
    both: tuple[OwnProcess, OwnProcess],
    *,
    batch: int,
    rounds: int,
    warmup: int,
) -> dict[str, float]:
    """Return the figures of ours and of the baseline, measured in turn.

    name: prefix of the figures.
    work: does one step and returns its seconds.
    flops: of an ECG at a step.
    warmup: rounds that are not counted.
    """
    ours, baseline = both
    counted = [
        (work(ours, number), work(baseline, number), ours("matrix_rate"), batch * flops(number))
        for number in range(warmup + rounds)
    ][warmup:]
    return {
        f"{name}_ratio": round(statistics.median(b / a for a, b, _, _ in counted), 2),
        f"{name}_ratio_at_matrix_rate": round(statistics.median(b * rate / f for _, b, rate, f in counted), 2),
        f"{name}_utilisation": round(statistics.median(f / a / rate for a, _, rate, f in counted), 3),
        f"{name}_gflops_per_second": round(statistics.median(f / a for a, _, _, f in counted) / 1e9, 1),
        f"{name}_ms_per_ecg": round(1000 * statistics.median(a for a, _, _, _ in counted) / batch, 2),
        f"{name}_baseline_ms_per_ecg": round(1000 * statistics.median(b for _, b, _, _ in counted) / batch, 2),
        "matrix_gflops_per_second": round(statistics.median(rate for _, _, rate, _ in counted) / 1e9, 1),
    }


def memory(ours: OwnProcess, baseline: OwnProcess) -> dict[str, float]:
    """Return the figures of memory."""
    (peak, state), (baseline_peak, baseline_state) = ours("memory"), baseline("memory")
    return {
        "peak_mib": peak >> 20,
        "baseline_peak_mib": baseline_peak >> 20,
        "state_mib": state >> 20,
        "memory_share": round(peak / baseline_peak, 3),
        "activations_share": round((peak - state) / (baseline_peak - baseline_state), 3),
    }


def best_batches(ours: OwnProcess, baseline: OwnProcess, config: JEPAConfig, *, first: int, rounds: int) -> Any:
    """Return the figures of each way at the batch that is best for it."""
    batch, speed = ours("best_batch", first, rounds)
    baseline_batch, baseline_speed = baseline("best_batch", first, rounds)
    visible = config.transformers[0].patches - int(mask_of(config, 1).sum())
    achieved = speed * step_flops(config, visible)
    return {
        "best_batch": batch,
        "best_baseline_batch": baseline_batch,
        "best_ecgs_per_second": round(speed, 1),
        "best_baseline_ecgs_per_second": round(baseline_speed, 1),
        "best_ratio": round(speed / baseline_speed, 2),
        "best_utilisation": round(achieved / ours("matrix_rate"), 3),
    }


def measure(config: JEPAConfig, device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    """Return all figures."""
    batch, rounds = options.batch, options.rounds
    ours = OwnProcess("ours", config, device, options.compile, options.accumulate, options.recompute)
    baseline = OwnProcess("baseline", config, device, False, 1, False)
    warmup = 3 if options.compile else 1  # the first steps compile, and compile again once a mask's size has changed

    def visible(step: int) -> int:
        return config.transformers[0].patches - int(mask_of(config, step).sum())

    figures = compare(
        "train",
        lambda way, number: way("train", batch, number),
        lambda number: step_flops(config, visible(number)),
        (ours, baseline),
        batch=batch,
        rounds=rounds,
        warmup=warmup,
    )
    seconds = jepa_flops(config) * CORPUS * EPOCHS / (figures["train_gflops_per_second"] * 1e9)
    figures["hours_for_the_paper"] = round(seconds / 3600, 1)
    figures |= memory(ours, baseline)
    checkpoint = ours("checkpoint", options.folder)
    minutes = RunConfig(out=Path(), device=device).checkpoint_minutes
    assert minutes is not None
    figures |= {
        "checkpoint_seconds": round(checkpoint, 2),
        "checkpoint_share": round(checkpoint / (60 * minutes), 5),
    }
    if device.type == "cuda":
        figures |= best_batches(ours, baseline, config, first=64, rounds=rounds)
    encoder = config.transformers[0]
    return figures | compare(
        "embed",
        lambda way, _: way("embed", batch),
        lambda _: encoder_flops(encoder, encoder.leads, encoder.patches),
        (ours, baseline),
        batch=batch,
        rounds=rounds,
        warmup=warmup,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_step", description="Training and embedding, compared with the released way."
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--batch", type=int, help="ECGs a step (default: 16, on a GPU 64)")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds of both (default: 3)")
    parser.add_argument(
        "--compile", action="store_true", help="run ours under torch.compile, which takes minutes first"
    )
    parser.add_argument(
        "--accumulate", type=int, default=1, help="parts of ours that a batch is computed in (default: 1)"
    )
    parser.add_argument(
        "--recompute", action="store_true", help="ours computes blocks again in the backward pass, to take less memory"
    )
    parser.add_argument("--small", action="store_true", help="a small network, to try the benchmark itself")
    parser.add_argument("--folder", type=Path, help="folder for a temporary checkpoint (default: the system's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    device = torch.device(options.device)
    options.batch = options.batch or (64 if device.type == "cuda" else 16)
    config = SMALL if options.small else PAPER
    figures: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "compile": options.compile,
        "accumulate": options.accumulate,
        "recompute": options.recompute,
        "batch": options.batch,
        "gflops_per_sample": round(jepa_flops(config) / 1e9, 1),
        **measure(config, device, options),
    }
    for name, value in figures.items():
        print(f"{name:28} {value}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
