"""Ways to compute CroPA, one layer at paper size: milliseconds, forward and both ways, with how exact each is.

    python -m benchmarks.attention --device cuda --json FILE

At 50 columns (teacher, embedding) and 23 (the student's mean). Errors: the largest difference from the dense form in
float64 on the same numbers, over its largest value, of the output and of the gradients. The ways are timed in turn;
figures are medians. If the device, or torch on it, has no kernel for a way, its row gives the error instead.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

from benchmarks.baseline import mask_by_loops, masked_attention
from ecg_model.attention import cropa, cropa_mask, dense_cropa
from ecg_model.blocks import Attend

LEADS, HEADS, CHANNELS = 8, 16, 48
COLUMNS = (50, 23)


def eager_ways(columns: int, device: torch.device) -> dict[str, Attend]:
    """Return the ways without compilation by name, each (q, k, v) of (B, H, L, P, E) -> (B, H, L, P, E)."""
    mask_NN = cropa_mask(LEADS, columns, device)

    def by_sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q_BHNE, k_BHNE, v_BHNE = (x.flatten(2, 3) for x in (q, k, v))
        return F.scaled_dot_product_attention(q_BHNE, k_BHNE, v_BHNE, attn_mask=mask_NN).view_as(q)

    def as_released(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return masked_attention(q, k, v, mask_by_loops(LEADS, columns).to(device))

    return {"split": cropa, "SDPA with a mask": by_sdpa, "dense": dense_cropa, "as released": as_released}


def compiled_ways(columns: int, device: torch.device) -> dict[str, Attend]:
    """Return the compiled ways by name."""
    torch.compiler.reset()  # otherwise earlier sizes count towards the limit of recompilations
    return {
        "split, compiled": torch.compile(cropa, dynamic=False),
        "FlexAttention, compiled": by_flex(columns, device),
        "merged by log-sum-exp, compiled": merged(device),
        "dense, compiled": torch.compile(dense_cropa, dynamic=False),
    }


def by_flex(columns: int, device: torch.device) -> Attend:
    """Return CroPA as one FlexAttention call with a block mask."""

    def same_lead_or_column(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query // columns == key // columns) | (query % columns == key % columns)

    tokens = LEADS * columns
    block_mask = create_block_mask(same_lead_or_column, None, None, tokens, tokens, device=str(device))
    flex: Any = torch.compile(flex_attention, dynamic=False)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q_BHNE, k_BHNE, v_BHNE = (x.flatten(2, 3).contiguous() for x in (q, k, v))
        return flex(q_BHNE, k_BHNE, v_BHNE, block_mask=block_mask).view_as(q)

    return attend


def merged(device: torch.device) -> Attend:
    """Return CroPA as one attention for each axis, weighted by the sums of their exponentials."""

    def other_lead(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query != key

    flex: Any = flex_attention
    others = create_block_mask(other_lead, None, None, LEADS, LEADS, device=str(device))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        records = q.shape[:2]
        by_lead = [x.flatten(0, 1) for x in (q, k, v)]  # (B * H, L, P, E)
        by_column = [x.transpose(1, 2).contiguous() for x in by_lead]  # (B * H, P, L, E)
        with_lse = AuxRequest(lse=True)
        along, along_aux = flex(*by_lead, return_aux=with_lse)
        across, across_aux = flex(*by_column, block_mask=others, return_aux=with_lse)
        share = torch.sigmoid(along_aux.lse - across_aux.lse.transpose(1, 2))[..., None].to(q.dtype)
        return (share * along + (1 - share) * across.transpose(1, 2)).unflatten(0, records)

    return torch.compile(attend, dynamic=False)


def inputs(batch: int, columns: int, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Return random q, k, v and gradient of the output, each (B, H, L, P, E)."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, HEADS, LEADS, columns, CHANNELS)
    return [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(4)]


def both_ways(way: Attend, qkvg: list[Tensor]) -> list[Tensor]:
    """Return the output and the gradients of q, k and v."""
    *qkv, gradient = qkvg
    leaves = [x.detach().requires_grad_() for x in qkv]
    out = way(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, gradient)]


def forward(way: Attend, qkvg: list[Tensor]) -> list[Tensor]:
    """Return the output alone."""
    with torch.no_grad():
        return [way(*qkvg[:3])]


def errors(computed: list[Tensor], exact: list[Tensor]) -> list[float]:
    """Return the largest difference of each tensor over its largest value."""
    pairs = zip(computed, exact[: len(computed)], strict=True)
    return [float((c.double() - e).abs().max() / e.abs().max()) for c, e in pairs]


def compare(columns: int, device: torch.device, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each way: its error and its median time in each direction, or why it was refused."""
    dtype = getattr(torch, options.dtype)
    qkvg = inputs(options.batch, columns, device, dtype)
    few = [x[:2] for x in qkvg]
    exact = both_ways(dense_cropa, [x.double() for x in few])
    rows: list[dict[str, Any]] = []
    runs: list[tuple[dict[str, Any], str, Callable[[], Any]]] = []
    for name, way in (eager_ways(columns, device) | compiled_ways(columns, device)).items():
        row: dict[str, Any] = {"columns": columns, "way": name}
        for direction, run in (("forward", forward), ("both_ways", both_ways)):
            try:
                row[f"{direction}_error"] = float(f"{max(errors(run(way, few), exact)):.2g}")
                run(way, qkvg)  # compiles for this batch
            except (NotImplementedError, RuntimeError) as error:
                row[f"{direction}_refused"] = str(error).strip().splitlines()[0][:200]
            else:
                row[f"{direction}_times"] = []
                runs.append((row, direction, lambda run=run, way=way: run(way, qkvg)))
        rows.append(row)
    for _ in range(options.rounds):
        for row, direction, run in runs:
            row[f"{direction}_times"].append(seconds(run, device))
    for row in rows:
        for direction in ("forward", "both_ways"):
            if f"{direction}_times" in row:
                row[f"{direction}_ms"] = round(1000 * statistics.median(row.pop(f"{direction}_times")), 3)
    return rows


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds of a call until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention", description="Ways to compute CroPA.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--batch", type=int, help="ECGs (default: 16, on a GPU 64)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of all ways (default: 7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    device = torch.device(options.device)
    options.batch = options.batch or (64 if device.type == "cuda" else 16)
    figures: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "dtype": options.dtype,
        "batch": options.batch,
        "rows": [row for columns in COLUMNS for row in compare(columns, device, options)],
    }
    for name in ("machine", "device", "torch", "dtype", "batch"):
        print(f"{name:10} {figures[name]}")
    print(f"{'columns':8}{'way':34}{'forward ms':>12}{'error':>10}{'both ms':>12}{'error':>10}")
    for row in figures["rows"]:
        cells = [row.get(f"{d}_{figure}", "-") for d in ("forward", "both_ways") for figure in ("ms", "error")]
        print(f"{row['columns']:<8}{row['way']:34}{cells[0]:>12}{cells[1]:>10}{cells[2]:>12}{cells[3]:>10}")
        for direction in ("forward", "both_ways"):
            if f"{direction}_refused" in row:
                print(f"{'':8}  {direction.replace('_', ' ')} refused: {row[f'{direction}_refused']}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
