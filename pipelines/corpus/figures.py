"""Figures that compare the sources of a corpus: amplitude, baseline wander and spectrum."""

from __future__ import annotations

import numpy as np
from scipy.signal import welch

from pipelines.cache import Product, Workspace
from pipelines.corpus.index import CorpusIndex
from pipelines.formats.shard import MILLIVOLT, RATE, open_shard, read_rows
from pipelines.plots.comparison import SourceFigures

SPECTRA = 512  # ECGs of a source, about


def source_figures(workspace: Workspace, corpus: Product) -> dict[str, SourceFigures]:
    """Return figures by source: amplitude and wander of all its ECGs in a corpus, the spectrum of a spread sample."""
    description = CorpusIndex(corpus.path)
    folders, index = description.shard_folders(workspace.root), description.table(["shard", "row", "source"])
    shard_N, source_N = (np.asarray(index[name].to_pylist()) for name in ("shard", "source"))
    row_N = index["row"].to_numpy()
    figures: dict[str, SourceFigures] = {}
    for source in dict.fromkeys(source_N.tolist()):
        amplitudes, wanders, signals = [], [], []
        shard_names = dict.fromkeys(shard_N[source_N == source].tolist())
        for name in shard_names:
            shard, rows = open_shard(folders[name]), row_N[shard_N == name]
            # Amplitude and wander were measured at harmonization: the table has them for every ECG.
            records = shard.records().take(rows)
            peaks = [records[f"quality_{end}"].to_numpy() for end in ("minimum", "maximum")]
            amplitudes.append(np.abs(peaks).max(axis=0))
            wanders.append(records["quality_wander"].to_numpy())
            # A spectrum needs the signals: evenly spaced ECGs, an equal share from each shard.
            places = np.linspace(0, len(rows) - 1, min(len(rows), SPECTRA // len(shard_names) + 1)).astype(int)
            signals.append(read_rows([(shard.folder, np.unique(rows[places]))]))
        frequency_F, power_NLF = welch(np.concatenate(signals) * MILLIVOLT, RATE, nperseg=2 * RATE)
        figures[source] = SourceFigures(
            amplitude_N=np.concatenate(amplitudes),
            wander_N=np.concatenate(wanders),
            frequency_F=frequency_F,
            spectrum_F=np.median(power_NLF.mean(axis=1), axis=0),
        )
    return figures
