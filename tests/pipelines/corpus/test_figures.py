"""The figures that compare a corpus' sources, and the page that shows them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assets.previews import compared_sources
from ecg_model.leads import LEADS
from pipelines.cache import Workspace
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.figures import source_figures
from pipelines.corpus.step import materialize_corpus
from pipelines.harmonize.convert import harmonize
from pipelines.harmonize.quality import QualityLimits
from pipelines.plots.comparison import SourceFigures, source_comparison
from pipelines.records import Record

TIME = np.arange(2500) / 250


def tone(at: int, hz: float, millivolt: float) -> Record:
    rng = np.random.default_rng(at)
    x_LT = millivolt * np.sin(2 * np.pi * (hz * TIME + rng.uniform(size=(8, 1)))) + 0.01 * rng.standard_normal(
        (8, 2500)
    )
    return Record(record_id=f"r{at}", signal_LT=x_LT.astype(np.float32), leads=LEADS, rate=250)


def test_each_source_is_drawn_from_its_own_ecgs(tmp_path: Path) -> None:
    """Tones of 10 and 40 Hz at 1 and 2 mV, the second source in two shards."""
    workspace = Workspace(tmp_path)
    for shard, (source, hz, millivolt) in {
        "chapman/01": ("chapman", 10.0, 1.0),
        "code15/0": ("code15", 40.0, 2.0),
        "code15/1": ("code15", 40.0, 2.0),
    }.items():
        records = [tone(len(shard) * 100 + ord(shard[-1]) * 10 + at, hz, millivolt) for at in range(6)]

        def make(out: Path, records: list[Record] = records, source: str = source) -> dict[str, object]:
            return {**harmonize(records, out, source=source, limits=QualityLimits()).facts(), "role": "pretraining"}

        workspace.build(f"ecgs/{shard}", version="1", config={}, inputs={}, make=make)
    corpus = materialize_corpus(workspace, CorpusConfig(validation_share=0.2))
    drawn = source_figures(workspace, corpus)
    assert compared_sources(workspace, corpus).startswith(b"\x89PNG")
    assert {name: len(one.amplitude_N) for name, one in drawn.items()} == {"chapman": 6, "code15": 12}
    for name, hz, millivolt in (("chapman", 10.0, 1.0), ("code15", 40.0, 2.0)):
        one = drawn[name]
        assert one.frequency_F[one.spectrum_F.argmax()] == hz
        power = np.trapezoid(one.spectrum_F, one.frequency_F)
        assert power == pytest.approx(millivolt**2 / 2, rel=0.05), "a density: its area is the power"
        np.testing.assert_allclose(one.amplitude_N, millivolt, atol=0.06)


def test_the_page_is_a_small_picture_and_draws_what_is_missing_as_missing() -> None:
    rng = np.random.default_rng(0)

    def figures(count: int) -> SourceFigures:
        wander_N = np.full(count, np.nan) if count == 3 else rng.random(count)
        return SourceFigures(
            amplitude_N=rng.gamma(3.0, size=count),
            wander_N=wander_N,
            frequency_F=np.linspace(0, 125, 251),
            spectrum_F=rng.random(251),
        )

    data = source_comparison({f"source{number}": figures(count) for number, count in enumerate((5000, 3, 40))}, "three")
    assert len(data) < 100_000
    assert Image.open(io.BytesIO(data)).size[0] > 900
    with pytest.raises(ValueError, match="no source to compare"):
        source_comparison({})
