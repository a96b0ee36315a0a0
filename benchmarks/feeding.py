"""Time that training steps wait for their ECGs, with a corpus in memory and with one read when it is needed.

    python -m benchmarks.feeding --json FILE

A consumer takes batches of 64 and rests for a step's time after each, as the host does while a GPU computes; then it
takes them without rest (flat_out). waited_share is the share of the time spent waiting. Files are in the page cache,
since they were just written.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.corpus import fill
from pipelines.cache import Workspace
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from pipelines.pretrain.data import BYTES, Corpus, load_corpus
from pipelines.pretrain.sampling_order import Order

CPU = torch.device("cpu")
BATCH = 64


def measure(corpus: Corpus, steps: int, rest: float) -> dict[str, float]:
    """Return the share of the time that `steps` steps of `rest` seconds waited after the first, and ECGs a second."""
    order = Order(seed=0, batch=BATCH, chunk_N=corpus.chunk_N)
    with corpus.feed(order, device=CPU, first_step=0) as feed:
        feed.next()  # the first window: a run waits for it once
        first, began = feed.waited_seconds, time.perf_counter()
        for _ in range(steps):
            feed.next()
            time.sleep(rest)
        seconds = time.perf_counter() - began
        return {
            "waited_share": round((feed.waited_seconds - first) / seconds, 4),
            "ecgs_per_second": round(steps * BATCH / seconds),
            "first_batch_seconds": round(first, 2),
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feeding", description="How long steps wait for data.")
    parser.add_argument("--count", type=int, default=30_000, help="simulated ECGs (default: 30000)")
    parser.add_argument("--step-ms", type=float, default=60.0, help="a step's time, ms (default: 60, a GPU's)")
    parser.add_argument("--folder", type=Path, help="folder for temporary files (default: the system's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root = Path(folder)
        fill(Workspace(root), options.count)
        product = materialize_corpus(Workspace(root), CorpusConfig())
        figures: dict[str, Any] = {
            "machine": platform.processor() or platform.machine(),
            "ecgs": options.count,
            "step_ms": options.step_ms,
        }
        for name, budget in (("resident", options.count * BYTES), ("streamed", 0)):
            corpus = load_corpus(root, product.path, CPU, memory_budget=budget)
            epoch = len(corpus.train) // BATCH
            figures[name] = measure(corpus, epoch, options.step_ms / 1000)
            figures[f"{name}_flat_out"] = measure(corpus, epoch, 0.0)
    text = json.dumps(figures, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
