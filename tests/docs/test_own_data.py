"""The examples of docs/own-data.md, as a hospital would copy them."""

import re
from pathlib import Path

import numpy as np
import pytest

from pipelines.incoming.check import check_drop
from pipelines.incoming.description import FIELDS
from pipelines.incoming.hdf5 import NAMES
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "own-data.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("kind", ["npy", "npz", "h5", "csv", "wfdb"])
def test_each_example_writes_a_valid_drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    (example,) = [text for text in EXAMPLES if f".{kind}" in text or (kind == "wfdb" and kind in text)]
    monkeypatch.chdir(tmp_path)
    Path("drop").mkdir()
    exec(example, {"ecgs": np.random.default_rng(0).normal(0, 0.3, (3, 12, 5000))})
    report = check_drop(tmp_path / "drop")
    assert (report.records, report.kept, report.drops) == (3, 3, ())


@pytest.mark.parametrize("scaled", [False, True])
def test_a_quiet_lead_passes_the_wfdb_example_with_its_gain_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scaled: bool
) -> None:
    (example,) = [text for text in EXAMPLES if "wfdb" in text]
    form = ', "adc_gain": [1000] * 12, "baseline": [0] * 12'
    assert form in example
    monkeypatch.chdir(tmp_path)
    Path("drop").mkdir()
    ecgs = np.random.default_rng(0).normal(0, 0.3, (3, 12, 5000))
    ecgs[:, 5] /= np.ptp(ecgs[:, 5], axis=-1, keepdims=True) / 0.06  # aVF; wrsamp's own gain is a million a millivolt
    exec(example.replace(form, "") if scaled else example, {"ecgs": ecgs})
    report = check_drop(tmp_path / "drop")
    assert (report.records, report.kept, report.drops) == (3, 3, ())
    assert list(report.parts[0].units) == [
        "16 bit, each lead by a gain and baseline of its own" if scaled else "1000 units a millivolt, 16 bit"
    ]


def test_the_page_names_every_field() -> None:
    assert all(f"`{name}`" in PAGE for name in (*FIELDS, *NAMES))
