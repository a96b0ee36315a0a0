"""Figures that compare the sources of a corpus: amplitude, baseline wander and spectrum."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
from scipy.signal import welch

from pipelines.cache import Product, Workspace
from pipelines.formats.shard import MILLIVOLT, RATE, open_shard, read_rows
from pipelines.plots.comparison import SourceFigures

SPECTRA = 512  # ECGs of a source, about


def source_figures(workspace: Workspace, corpus: Product) -> dict[str, SourceFigures]:
    """By source: amplitude and wander of all its ECGs in a corpus, the spectrum of some, evenly spaced."""
    shards = json.loads((corpus.path / "corpus.json").read_text())["shards"]
    index = pq.read_table(corpus.path / "index.parquet", columns=["shard", "row", "source"])
    shard_N, source_N = (np.asarray(index[name].to_pylist()) for name in ("shard", "source"))
    row_N = index["row"].to_numpy()
    figures: dict[str, SourceFigures] = {}
    for source in dict.fromkeys(source_N.tolist()):
        amplitudes, wanders, signals = [], [], []
        its_shards = dict.fromkeys(shard_N[source_N == source].tolist())
        for name in its_shards:
            shard, rows = open_shard(workspace.root / shards[name]["path"]), row_N[shard_N == name]
            records = shard.records().take(rows)
            peaks = [records[f"quality_{end}"].to_numpy() for end in ("minimum", "maximum")]
            amplitudes.append(np.abs(peaks).max(axis=0))
            wanders.append(records["quality_wander"].to_numpy())
            some = rows[np.linspace(0, len(rows) - 1, min(len(rows), SPECTRA // len(its_shards) + 1)).astype(int)]
            signals.append(read_rows([(shard.folder, np.unique(some))]))
        frequency_F, power_NLF = welch(np.concatenate(signals) * MILLIVOLT, RATE, nperseg=2 * RATE)
        figures[source] = SourceFigures(
            amplitude_N=np.concatenate(amplitudes),
            wander_N=np.concatenate(wanders),
            frequency_F=frequency_F,
            spectrum_F=np.median(power_NLF.mean(axis=1), axis=0),
        )
    return figures
