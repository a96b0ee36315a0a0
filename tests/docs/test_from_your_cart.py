"""docs/from-your-cart.md: its commands and its Python, one after another, on files as carts write them."""

from __future__ import annotations

import re
import shlex
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.pipelines.cli.test_embed import Direct
from tests.support import vendor_files
from tests.support.commands import ecg
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "from-your-cart.md").read_text()
COMMANDS = [
    line.removeprefix("ecg ")
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("ecg ")
]


def recording(seed: int) -> vendor_files.Ecg:
    counts = np.random.default_rng(seed).integers(-100, 100, (8, 5000))
    return vendor_files.Ecg(d_LT=counts.astype(np.int16))


def export(folder: Path) -> None:
    folder.mkdir()
    (folder / "ecg.dcm").write_bytes(vendor_files.dicom(vendor_files.Group(ecg=recording(1))))
    for seed, (name, write) in enumerate({"muse.xml": vendor_files.muse, "a.scp": vendor_files.scp}.items(), 2):
        (folder / name).write_bytes(write(recording(seed)))


def test_the_page_s_commands_lead_from_files_to_the_most_similar_ecgs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ECG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("pipelines.cli.embed.pull", lambda uri: nullcontext(Direct()))
    export(tmp_path / "export")
    inspect, check, embed = COMMANDS
    for command in (inspect, check, embed):
        done = ecg(*shlex.split(command))
        assert done.exit_code == 0, done.output
    with Image.open("ecg.png") as picture:
        assert min(picture.size) > 500
    files = ["export/a.scp", "export/ecg.dcm", "export/muse.xml"]
    assert sorted(pq.read_table("embeddings.parquet")["file"].to_pylist()) == files
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(snippet, scope := {})
    assert scope["embeddings"].shape == (3, 32)
    assert np.isfinite(scope["embeddings"]).all()
    assert int(scope["similar"][0]) == 0
    assert sorted(eval(capsys.readouterr().out.splitlines()[-1])) == files
