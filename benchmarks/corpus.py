"""Time and memory for building the index of a corpus of 180,000 simulated ECGs and for loading its signals.

    python -m benchmarks.corpus --json FILE

A data home is filled with ECGs of random rhythm, one in a hundred of them a copy of another (scaled and rounded), and
with an evaluation shard that holds copies too; then the index is built, and loaded in a separate process. Files are in
the page cache, since they were just written. memory_ratio is the loading process's peak over the bytes of the array.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft

from pipelines import versions
from pipelines.cache import Workspace
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.index import load_signals
from pipelines.corpus.step import materialize_corpus
from pipelines.formats.shard import LEADS, RATE, SAMPLES, SHARD, ShardWriter
from pipelines.formats.simhash import signatures

PARTITION = 10 * SHARD  # ECGs
COPIES = 100  # one ECG in so many is a copy
BYTES = len(LEADS) * SAMPLES * 2  # of an ECG in int16


def ecgs(count: int, seed: int) -> NDArray[np.int16]:
    """Return int16 (count, 8, 2500), microvolt: P, QRS and T of random size and time, with noise."""
    rng = np.random.default_rng(seed)
    rate_N1 = rng.uniform(0.5, 1.3, (count, 1))
    beats_NB = rng.uniform(0, 1, (count, 1)) + np.cumsum(rate_N1 * rng.normal(1, 0.05, (count, 24)), axis=1)
    at_NB = (beats_NB * RATE).astype(int)
    # A train of impulses for each ECG, convolved with the three waves, then mixed to leads.
    trains_NT = np.zeros((count, SAMPLES), np.float32)
    rows = np.broadcast_to(np.arange(count)[:, None], at_NB.shape)
    inside = at_NB < SAMPLES
    trains_NT[rows[inside], at_NB[inside]] = 1
    time_T = (np.arange(SAMPLES) - SAMPLES // 2) / RATE
    waves_KT = np.stack(
        [np.exp(-0.5 * ((time_T - delay) / width) ** 2) for delay, width in ((-0.16, 0.025), (0, 0.012), (0.25, 0.05))]
    )
    spectra: Any = rfft(np.fft.ifftshift(waves_KT, axes=-1).astype(np.float32))
    heart_NKT: Any = irfft(np.asarray(rfft(trains_NT))[:, None] * spectra, SAMPLES)
    sizes_NLK = rng.normal(0, (80, 600, 200), (count, len(LEADS), 3)).astype(np.float32)
    x_NLT = np.rint(sizes_NLK @ heart_NKT).astype(np.int16)
    # Noise from random places of one long piece, which is much faster than fresh noise.
    noise = np.rint(rng.normal(0, 8, 1 << 20)).astype(np.int16)
    for x_LT, start in zip(x_NLT, rng.integers(0, len(noise) - x_NLT[0].size, count), strict=True):
        x_LT += noise[start : start + x_LT.size].reshape(x_LT.shape)
    return x_NLT


def copied(x_NLT: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the ECGs, 1.2 times as large and rounded to 5 uV."""
    return (np.rint(x_NLT * (1.2 / 5)) * 5).astype(np.int16)


def blocks(count: int, seed: int) -> Iterator[NDArray[np.int16]]:
    """Yield ECGs, SHARD at a time; one in COPIES is a copy of the one before."""
    for first in range(0, count, SHARD):
        x_NLT = ecgs(min(SHARD, count - first), seed + first)
        x_NLT[1::COPIES] = copied(x_NLT[: len(x_NLT) - 1 : COPIES])
        yield x_NLT


def write(workspace: Workspace, name: str, role: str, signals: Iterator[NDArray[np.int16]]) -> None:
    """Build the product `ecgs/<name>`, `name` being source/partition, from blocks of signals."""
    source, partition = name.split("/")

    def make(folder: Path) -> dict[str, Any]:
        writer, kept = ShardWriter(folder), 0
        for x_NLT in signals:
            for signal_LT, signature_B in zip(x_NLT, signatures(x_NLT), strict=True):
                row = {"source": source, "record_id": f"{partition}-{kept}", "rate": 500.0, "samples": 5000}
                row |= {"patient_id": f"{partition}-{kept // 2}", "labels": [], "notes": []}
                row |= {"content_hash": hashlib.sha256(signal_LT.tobytes()).hexdigest()}
                writer.append(signal_LT, row | {"signature": signature_B.tobytes()})
                kept += 1
        writer.close()
        return {"entered": kept, "kept": kept, "dropped": {}, "role": role}

    workspace.build(f"ecgs/{name}", version=versions.ECGS, config={}, inputs={}, make=make)


def fill(workspace: Workspace, count: int) -> None:
    """Build partitions with `count` ECGs for pretraining, and an evaluation shard with copies of some."""
    for number, first in enumerate(range(0, count, PARTITION)):
        write(workspace, f"train/{number:02d}", "pretraining", blocks(min(PARTITION, count - first), 1 + first))
    write(workspace, "test/00", "evaluation", (copied(x_NLT[::COPIES]) for x_NLT in blocks(min(PARTITION, count), 1)))


def peak_bytes() -> int:
    """Return the peak memory of this process (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def load(root: Path, folder: Path) -> dict[str, float]:
    """Load the training signals and return the figures of that."""
    began = time.perf_counter()
    x_NLT = load_signals(root, folder, "train")
    seconds = time.perf_counter() - began
    return {"load_seconds": round(seconds, 2), "memory_ratio": round(peak_bytes() / x_NLT.nbytes, 3)}


def index(root: Path) -> dict[str, Any]:
    """Build the corpus and return the figures of that."""
    began = time.perf_counter()
    product = materialize_corpus(Workspace(root), CorpusConfig())
    seconds = time.perf_counter() - began
    counts = {name: product.facts[name] for name in ("considered", "train", "validation", "excluded")}
    return {"index_seconds": round(seconds, 2), "index_peak_mib": peak_bytes() >> 20, **counts}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description="A corpus indexed and loaded.")
    parser.add_argument("--count", type=int, default=180_000, help="simulated ECGs (default: 180000)")
    parser.add_argument("--folder", type=Path, help="folder for temporary files (default: the system's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    needed = options.count * BYTES
    free = shutil.disk_usage(options.folder or tempfile.gettempdir()).free
    if free < needed:
        parser.error(f"--count {options.count} may take {needed >> 20} MiB and {free >> 20} are free: give less")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root = Path(folder)
        began = time.perf_counter()
        fill(Workspace(root), options.count)
        figures: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "ecgs": options.count}
        figures["written_seconds"] = round(time.perf_counter() - began, 1)
        # Each in a separate process, so that peaks are separate.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
            figures |= pool.submit(index, root).result()
            figures |= pool.submit(load, root, Workspace(root).require("corpus").path).result()
    text = json.dumps(figures, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
