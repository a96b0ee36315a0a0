"""Training and embedding at paper size, ours against the released code's way, alternating, medians of ratios.

    python -m benchmarks.train_step --device cpu --batch 16 --json FILE

train_ratio and embed_ratio are the baseline's time over ours. Prints the FLOPs of a sample too, and how long 174,140
ECGs x 100 epochs would take.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.baseline import DenseEncoder
from ecg_model.config import EncoderConfig, JEPAConfig, PredictorConfig
from ecg_model.jepa import JEPA, split_columns
from ecg_model.masking import masked_columns
from pipelines.pretrain.train import adamw

CORPUS, EPOCHS = 174_140, 100
MOMENTUM = 0.996


def training(model: JEPA, batch: int, device: torch.device, precision: torch.dtype) -> Callable[[int], None]:
    """A function of the step that does one whole training step and waits for it."""
    optimizer = adamw(model.train(), 0.05)
    x_BLT = ecgs(batch, model.config.encoder, device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)

    def step(number: int) -> None:
        mask_P = torch.from_numpy(
            masked_columns(model.config.masking, model.config.encoder.patches, seed=0, step=number)
        )
        columns = [part.to(device) for part in split_columns(mask_P)]
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            loss = model(x_BLT, *columns)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        model.ema_update_(MOMENTUM)
        settle(device)

    return step


def embedding(model: JEPA, batch: int, device: torch.device, precision: torch.dtype) -> Callable[[int], None]:
    """A function that embeds one batch and waits for it."""
    encoder, x_BLT = model.student.eval(), ecgs(batch, model.config.encoder, device)

    def step(_: int) -> None:
        encoder.eval()
        with torch.inference_mode(), torch.autocast(device.type, precision, enabled=precision != torch.float32):
            encoder.embed(x_BLT)
        settle(device)

    return step


def alternate(
    ours: Callable[[int], None], baseline: Callable[[int], None], rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of each, in turn, after one uncounted round of both."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for function, found in zip((ours, baseline), seconds, strict=True):
            began = time.perf_counter()
            function(number)
            if number:
                found.append(time.perf_counter() - began)
    return seconds


def flops_per_sample(config: JEPAConfig) -> float:
    """Of a training step, a multiply and an add counted as two: matrices and attention of student (forward and
    backward, at the mean share of visible columns), teacher (forward) and predictor (forward and backward)."""
    encoder, predictor = config.encoder, config.predictor
    visible = 1.0 - mean_mask_share(config)
    tokens = encoder.leads * encoder.patches

    def block(dim: int, mlp_ratio: float, tokens: float, keys: float) -> float:
        return tokens * (2 * dim * dim * (4 + 2 * mlp_ratio) + 4 * keys * dim)

    seen = visible * tokens
    student = encoder.depth * block(encoder.dim, encoder.mlp_ratio, seen, visible * encoder.patches + encoder.leads)
    teacher = encoder.depth * block(encoder.dim, encoder.mlp_ratio, tokens, encoder.patches + encoder.leads)
    filled = predictor.depth * block(predictor.dim, predictor.mlp_ratio, tokens, encoder.patches)
    return 3 * (student + filled) + teacher


def mean_mask_share(config: JEPAConfig) -> float:
    masks = [masked_columns(config.masking, config.encoder.patches, seed=0, step=step).mean() for step in range(500)]
    return float(statistics.fmean(masks))


def ecgs(batch: int, config: EncoderConfig, device: torch.device) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.2 * torch.randn(batch, config.leads, config.samples, generator=generator).to(device)


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def as_released(config: JEPAConfig) -> JEPA:
    """The same networks with the released code's encoders."""
    model = JEPA(config)
    model.student, model.teacher = DenseEncoder(config.encoder), DenseEncoder(config.encoder)
    model.teacher.requires_grad_(False)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_step", description="Ours against the released way."
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--batch", type=int, default=16, help="ECGs a step (default: 16)")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds of both (default: 3)")
    parser.add_argument("--small", action="store_true", help="a small network, to try the benchmark itself")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    device = torch.device(options.device)
    config = JEPAConfig()
    if options.small:
        config = JEPAConfig(
            encoder=EncoderConfig(dim=96, depth=2, heads=4), predictor=PredictorConfig(dim=48, depth=1, heads=4)
        )
    theirs = torch.float16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    ours, baseline = JEPA(config).to(device), as_released(config).to(device)
    figures: dict[str, object] = {
        "machine": platform.processor() or platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "batch": options.batch,
        "gflops_per_sample": round(flops_per_sample(config) / 1e9, 1),
    }
    for name, make in (("train", training), ("embed", embedding)):
        mine, other = alternate(
            make(ours, options.batch, device, torch.bfloat16),
            make(baseline, options.batch, device, theirs),
            options.rounds,
        )
        ratio = statistics.median(b / a for a, b in zip(mine, other, strict=True))
        seconds = statistics.median(mine)
        figures |= {
            f"{name}_ratio": round(ratio, 2),
            f"{name}_ms_per_ecg": round(1000 * seconds / options.batch, 2),
            f"{name}_baseline_ms_per_ecg": round(1000 * statistics.median(other) / options.batch, 2),
        }
        if name == "train":
            figures["hours_for_the_paper"] = round(seconds / options.batch * CORPUS * EPOCHS / 3600, 1)
            figures["achieved_gflops_per_second"] = round(flops_per_sample(config) * options.batch / seconds / 1e9, 1)
    for name, value in figures.items():
        print(f"{name:28} {value}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
