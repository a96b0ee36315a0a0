"""S4 and CPC at the published size: ours against the straightforward way, in turn in one process.

    python -m benchmarks.s4 [--batch 8] [--rounds 5] [--json FILE]

The straightforward way builds the candidates of each position, (B, positions, 1 + negatives, D), and computes the basis
of the kernels anew at each step, as a Cauchy sum would have to be. Prints medians of ratios; the last rows are of ours
alone: an embedding of 10 s against the rate of a large matrix product, and the latency of a token in a stream.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecg_model.config import CPCConfig
from ecg_model.cpc import CPC, negative_tokens
from ecg_model.s4 import S4
from ecg_model.s4_encoder import Stream
from pipelines.pretrain.flops import matrix_rate
from pipelines.pretrain.flops_s4 import cpc_flops, s4_encoder_flops
from pipelines.pretrain.objectives import objective_of
from pipelines.pretrain.recipes import recipe_named

CPU = torch.device("cpu")


def straightforward(model: CPC, x_BCT: Tensor, negatives_BMJ: Tensor) -> Tensor:
    """Return CPC's loss by a tensor of all candidates, with kernels that are computed anew."""
    for layer in model.modules():
        if isinstance(layer, S4):
            layer._forget_basis()
    z_BLD = model.encoder.encode(x_BCT)
    predicted_BLD = model.head(model.encoder.context(z_BLD))
    horizon, positions = model.config.horizon, negatives_BMJ.shape[1]
    true_BM1 = torch.arange(horizon, horizon + positions).expand(len(z_BLD), -1)[..., None]
    chosen_BMJ = torch.cat([true_BM1, negatives_BMJ.long()], dim=-1)
    candidates_BMJD = torch.stack([z_LD[chosen_MJ] for z_LD, chosen_MJ in zip(z_BLD, chosen_BMJ, strict=True)])
    scores_BMJ = torch.einsum("bmjd,bmd->bmj", candidates_BMJD, predicted_BLD[:, :positions])
    target_N = torch.zeros(len(z_BLD) * positions, dtype=torch.long)
    return F.cross_entropy(scores_BMJ.flatten(0, 1), target_N, reduction="sum") / len(z_BLD)


def seconds(work: Callable[[], object]) -> float:
    """Return the processor time of a call, over all threads."""
    began = time.process_time()
    work()
    return time.process_time() - began


def trained(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Return a training step without its update."""

    def step() -> None:
        model.zero_grad()
        loss().backward()

    return step


def measure(batch: int, rounds: int) -> dict[str, float]:
    """Return the figures: processor seconds, medians over rounds in which each way has its turn."""
    torch.manual_seed(0)
    config = CPCConfig()
    model, encoder = CPC(config).train(), config.encoder
    x_BCT = torch.randn(batch, encoder.leads, encoder.samples)
    drawn = negative_tokens(batch, encoder.tokens, horizon=config.horizon, count=config.negatives, seed=0, step=0)
    negatives_BMJ = torch.from_numpy(drawn)
    small = objective_of(recipe_named("small"))
    draw = small.draw(batch, seed=0, step=0)
    ecgs_BLT = torch.randn(batch, 8, 2500)

    def jepa() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return small.model(ecgs_BLT, *draw.arguments)

    ways = {
        "ours": trained(model, lambda: model(x_BCT, negatives_BMJ)),
        "straightforward": trained(model, lambda: straightforward(model, x_BCT, negatives_BMJ)),
        "jepa_small": trained(small.model.train(), jepa),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    embeddings: list[float] = []
    for _ in range(rounds + 1):
        for name, step in ways.items():
            times[name].append(seconds(step))
        model.eval()
        with torch.inference_mode():
            embeddings.append(seconds(lambda: model.encoder.embed(ecgs_BLT)))
        model.train()
    counted = {name: values[1:] for name, values in times.items()}
    rate = matrix_rate(CPU, torch.float32) / torch.get_num_threads()
    of_ten_seconds = 4 * s4_encoder_flops(encoder) * batch
    own = statistics.median(counted["ours"])
    return {
        "training_ms_a_window": 1e3 * own / batch,
        "training_gflops_per_second": cpc_flops(config) * batch / own / 1e9,
        "straightforward_over_ours": _ratio(counted["straightforward"], counted["ours"]),
        "jepa_small_over_ours_an_ecg": _ratio(counted["jepa_small"], counted["ours"]),
        "forward_gflop_a_window": s4_encoder_flops(encoder) / 1e9,
        "embedding_ms_a_10_s_ecg": 1e3 * statistics.median(embeddings[1:]) / batch,
        "embedding_over_its_flops_at_the_matrix_rate": statistics.median(embeddings[1:]) * rate / of_ten_seconds,
        "stream_ms_a_token": 1e3 * token_latency(model),
    }


def _ratio(these: list[float], those: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


def token_latency(model: CPC, tokens: int = 200) -> float:
    """Return the median seconds of a token of one record in a stream."""
    encoder = model.encoder.eval()
    stream = Stream(encoder, records=1)
    x_BCT = torch.randn(1, encoder.config.leads, encoder.config.token_samples)
    times = []
    for _ in range(tokens):
        began = time.perf_counter()
        stream(x_BCT)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="ECGs in a step (default: 8)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default: 5)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    figures = measure(options.batch, options.rounds)
    for name, value in figures.items():
        print(f"{name:45} {value:10.3f}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
