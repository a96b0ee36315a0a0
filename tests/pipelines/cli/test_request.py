"""`ecg request`: ECG files become what a served model takes, and answers as it does the file's ECG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder
from ecg_model.leads import LEADS, LEADS_12
from ecg_model.serving.reader import Reader
from ecg_model.serving.request import answered
from pipelines.formats.wfdb import read_wfdb
from pipelines.release.scoring_request import parsed
from tests.pipelines.cli.records import header
from tests.support.commands import ecg, run
from tests.support.drops import describe, ecgs

pytestmark = pytest.mark.usefixtures("home")


def test_files_become_a_request_that_is_answered_as_their_ecgs_are(mirror: Path) -> None:
    files = [header(mirror), header(mirror, 1)]
    done = run("request", *files)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [f"record {at}: {file} {file.stem}" for at, file in enumerate(files)]
    ecgs_NLT, params = parsed(done.stdout.encode(), ("sampling_rate", "leads", "on_bad"))
    assert (ecgs_NLT.shape, params["sampling_rate"]) == ((2, 8, 5000), 500.0)
    raw = read_wfdb(files[0])
    np.testing.assert_allclose(ecgs_NLT[0], raw.signal_LT[[raw.leads.index(lead) for lead in LEADS]], atol=1e-6)
    embedding_ND, reasons = answered(
        Reader(encoder=random_encoder(EncoderConfig(dim=32, depth=1, heads=2), 0).eval()), ecgs_NLT, params
    )
    assert reasons == [None, None]
    assert np.isfinite(embedding_ND).all()


def test_what_a_model_refuses_is_left_out_and_what_does_not_go_together_is_said(tmp_path: Path) -> None:
    for name, x_LT in (("a", ecgs(1)[0]), ("flat", 0 * ecgs(1)[0]), ("long", ecgs(1, seconds=12)[0])):
        np.save(tmp_path / f"{name}.npy", x_LT[None])
        describe(tmp_path / f"{name}.npy", rate=500, leads=list(LEADS_12), units="mV", ids=[name])
    done = ecg("request", tmp_path / "a.npy", tmp_path / "flat.npy")
    assert done.exit_code == 1
    assert f"left out: {tmp_path / 'flat.npy'}: flat lead: " in done.stderr
    assert "1 records or files were left out" in done.stderr
    assert parsed(done.stdout.encode(), ("sampling_rate", "leads"))[0].shape == (1, 8, 5000)
    none = ecg("request", tmp_path / "flat.npy")
    assert (none.exit_code, none.stdout) == (1, "")
    assert "left out; nothing was written" in none.stderr
    both = ecg("request", tmp_path / "a.npy", tmp_path / "long.npy")
    assert both.exit_code == 1
    said = " ".join(both.stderr.split())
    assert "long.npy of 6,000 samples at 500 Hz: the ECGs of a request have one rate and length" in said
