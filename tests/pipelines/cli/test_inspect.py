"""`ecg inspect`: what was read of a file, how it is drawn, and how it is refused."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from ecg_model.leads import LEADS, LEADS_12
from pipelines.records import DropReason
from tests.pipelines.cli.records import CODE15, header
from tests.support.commands import ecg, run
from tests.support.paths import SHARED
from tests.support.pretraining import waves

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize("suffix", [".hea", ".mat"])
def test_inspect_tells_what_was_read(mirror: Path, suffix: str) -> None:
    file = header(mirror).with_suffix(suffix)
    result = run("inspect", file)
    assert result.returncode == 0, result.stderr
    fields = {line[:18].strip(): line[18:].strip() for line in result.stdout.splitlines()}
    assert fields["record"] == file.stem
    assert fields["leads"] == "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6"
    assert fields["rate"] == "500 Hz"
    assert fields["length"] == "5,000 samples, 10.00 s"
    assert fields["units"] == "1000 units a millivolt, 16 bit"
    assert fields["verdict"] == "kept"
    comments = dict(line[1:].split(": ") for line in header(mirror).read_text().splitlines() if line.startswith("#"))
    assert fields["age"].split()[0] == comments["Age"]
    assert fields["sex"] == comments["Sex"].lower()
    assert fields["labels"].split(", ") == comments["Dx"].split(",")
    assert 20 < float(fields["heart rate"].split()[0]) < 250


def test_inspect_draws_the_ecg(mirror: Path, tmp_path: Path) -> None:
    result = ecg("inspect", header(mirror), "--png", tmp_path / "a.png")
    assert result.exit_code == 0
    assert "a.png" in result.stderr
    assert "a.png" not in result.stdout
    ecg("inspect", header(mirror, 1), "--png", tmp_path / "b.png")
    first, second = (Image.open(io.BytesIO((tmp_path / name).read_bytes())) for name in ("a.png", "b.png"))
    assert first.format == "PNG"
    assert first.width == second.width == 1350
    assert first.tobytes() != second.tobytes()


def test_inspect_as_json(mirror: Path) -> None:
    fields = json.loads(ecg("inspect", header(mirror), "--json").stdout)
    assert (fields["kept"], fields["reason"], fields["samples"], fields["rate"]) == (True, None, 5000, 500.0)
    assert set(fields["quality"]) >= {"wander", "heart_rate", "einthoven"}
    assert fields["range_millivolt"][0] < 0 < fields["range_millivolt"][1]


def test_inspect_reads_an_exam_of_a_code15_part(mirror: Path, tmp_path: Path) -> None:
    several = ecg("inspect", mirror / CODE15, "--png", tmp_path / "a.png")
    assert several.exit_code == 1
    assert several.stdout == ""
    named = re.search(r"--png draws one record, and there are several: name one, as in --record (\d+)", several.stderr)
    assert named
    assert not (tmp_path / "a.png").exists()
    result = ecg("inspect", mirror / CODE15, "--record", named[1])
    fields = {line[:18].strip(): line[18:].strip() for line in result.stdout.splitlines()}
    assert (fields["record"], fields["rate"]) == (named[1], "400 Hz")
    assert fields["leads"].startswith("DI DII DIII AVR")
    absent = ecg("inspect", mirror / CODE15, "--record", "7")
    assert absent.exit_code == 1
    assert "no record '7'" in absent.stderr


def test_inspect_knows_ludb_s_form(mirror: Path) -> None:
    result = ecg("inspect", next((mirror / "physionet.org/files/ludb/1.0.1/data").glob("*.hea")))
    assert result.exit_code == 0
    assert "not physical" in result.stdout
    assert "baseline" in result.stdout


def damaged(mirror: Path, folder: Path, header_text: str | None = None, data: bytes | None = None) -> Path:
    """A copy of a good record with another header or other samples."""
    source = header(mirror)
    (folder / source.name).write_text(source.read_text() if header_text is None else header_text)
    good = source.with_suffix(".mat").read_bytes()
    (folder / source.with_suffix(".mat").name).write_bytes(good if data is None else data)
    return folder / source.name


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace("1000/mV", "4880000/mV"), DropReason.IMPLAUSIBLE_GAIN),
        (lambda text: text.replace("/mV", "/mmHg"), DropReason.UNKNOWN_UNIT),
        (lambda text: text.replace(" V6", " V5"), DropReason.LEAD_REPEATED),
        (lambda text: text.replace("12 500 5000", "12 500 4999", 1), DropReason.WRONG_FILE_SIZE),
        (lambda text: "\x00" + text[5:], DropReason.UNREADABLE_HEADER),
        (lambda text: "", DropReason.UNREADABLE_HEADER),
    ],
)
def test_a_refused_header_gets_its_reason_and_exit_code_1(
    change: Callable[[str], str], reason: str, mirror: Path, tmp_path: Path
) -> None:
    file = damaged(mirror, tmp_path, header_text=change(header(mirror).read_text()))
    result = ecg("inspect", file)
    assert result.exit_code == 1
    assert f"refused: {reason}" in result.stdout
    fields = json.loads(ecg("inspect", file, "--json").stdout)
    assert (fields["kept"], fields["reason"]) == (False, reason)
    assert fields["detail"]


def test_changed_samples_are_refused(mirror: Path, tmp_path: Path) -> None:
    data = bytearray(header(mirror).with_suffix(".mat").read_bytes())
    data[3000] ^= 1
    result = run("inspect", damaged(mirror, tmp_path, data=bytes(data)))
    assert result.returncode == 1
    assert "refused: checksum wrong" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_a_record_that_harmonization_drops_is_shown_and_drawn(mirror: Path, tmp_path: Path) -> None:
    source = header(mirror)
    data = np.frombuffer(source.with_suffix(".mat").read_bytes()[24:], "<i2").reshape(5000, 12)[:2000]
    head = source.with_suffix(".mat").read_bytes()[:8] + (2000).to_bytes(4, "little")
    head += source.with_suffix(".mat").read_bytes()[12:24]
    lines = source.read_text().replace("12 500 5000", "12 500 2000", 1).splitlines()
    sums = data.sum(axis=0, dtype=np.int64) % 65536
    for lead in range(12):
        fields = lines[1 + lead].split()
        fields[6] = str(sums[lead])
        lines[1 + lead] = " ".join(fields)
    file = damaged(mirror, tmp_path, header_text="\n".join(lines), data=head + data.tobytes())
    result = ecg("inspect", file, "--png", tmp_path / "short.png")
    assert result.exit_code == 1
    assert "2,000 samples, 4.00 s" in result.stdout
    assert "refused: too short" in result.stdout
    with Image.open(tmp_path / "short.png") as picture:
        assert picture.width == 130 * 5  # four seconds are 100 mm


def test_what_is_no_ecg_is_one_line(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no ECG")
    archive = tmp_path / "exams_part0.zip"
    archive.write_bytes(b"no zip")
    (tmp_path / "exams.csv").write_text("exam_id\n1\n")
    for file in (text, archive):
        result = ecg("inspect", file)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.startswith("Error: ")
        assert str(file) in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert ecg("inspect", tmp_path / "absent.hea").exit_code == 2


def test_every_real_record_is_kept_or_refused_in_words() -> None:
    if not SHARED.is_dir():
        pytest.skip("the real ECGs of ../shared are not here")
    real = SHARED / "real"
    files = sorted((real / "mirror/physionet.org").rglob("*.hea"))[::25] + sorted((real / "damaged").rglob("*.hea"))
    verdicts = set()
    for file in files:
        result = ecg("inspect", file)
        kept = "verdict           kept" in result.stdout
        assert kept is (result.exit_code == 0)
        assert kept or "refused: " in result.stdout
        verdicts.add(kept)
    assert verdicts == {True, False}


@pytest.mark.parametrize("name", ["00001_lr", "other"])
def test_a_files_name_does_not_change_what_its_gain_may_be(tmp_path: Path, name: str) -> None:
    samples = (np.sin(np.arange(1000) / 9)[:, None] * 200).astype("<i2").repeat(12, axis=1)
    (tmp_path / f"{name}.dat").write_bytes(samples.tobytes())
    lines = [
        f"{name}.dat 16 200.0(0)/mV 16 0 {samples[0, 0]} {samples[:, 0].sum(dtype='i2')} 0 {lead}" for lead in LEADS_12
    ]
    (tmp_path / f"{name}.hea").write_text("\n".join([f"{name} 12 100 1000", *lines, ""]))
    result = run("inspect", tmp_path / f"{name}.hea")
    assert (result.returncode, "200 units a millivolt" in result.stdout) == (0, True), result


def export(folder: Path) -> Path:
    """A folder as a hospital exports it: an HDF5 with many records, one of them flat, and files of other formats."""
    (folder / "more").mkdir(parents=True)
    signal_NLT = np.stack([waves(at).signal_LT for at in range(4)])
    signal_NLT[2] = 0
    about = json.dumps({"rate": 250, "units": "mV", "leads": list(LEADS)})
    with h5py.File(folder / "many.h5", "w") as file:
        file["signals"], file["ids"] = signal_NLT, [f"h{at}" for at in range(4)]
    np.save(folder / "more" / "one.npy", signal_NLT[0])
    for description in ("many.json", "more/one.json"):
        (folder / description).write_text(about)
    rows = [",".join(LEADS), *(",".join(f"{value:.4f}" for value in row) for row in signal_NLT[1].T)]
    (folder / "more" / "table.csv").write_text("\n".join(rows))
    (folder / "more" / "table.json").write_text(json.dumps({"rate": 250, "units": "mV"}))
    (folder / "bad.dcm").write_bytes(b"no DICOM")
    return folder


def test_of_several_records_each_is_a_line(tmp_path: Path) -> None:
    folder = export(tmp_path / "export")
    many = ecg("inspect", folder / "many.h5")
    lines = [line.split() for line in many.stdout.splitlines()]
    assert many.exit_code == 1
    assert lines[0] == ["record", "form", "leads", "Hz", "seconds", "verdict"]
    assert [line[0] for line in lines[1:5]] == ["h0", "h1", "h2", "h3"]
    assert [line[5] for line in lines[1:5]] == ["kept", "kept", "refused:", "kept"]
    assert lines[1][1:5] == ["HDF5", "8", "250", "10.00"]
    assert "3 of 4 records are kept; --record ID shows more of one" in many.stdout
    one = ecg("inspect", folder / "many.h5", "--record", "h3")
    assert (one.exit_code, "record            h3" in one.stdout) == (0, True)


def test_a_folder_is_read_as_a_drop_of_it_would_be(tmp_path: Path) -> None:
    folder = export(tmp_path / "export")
    told = json.loads(ecg("inspect", folder, "--json").stdout)
    kept = {(Path(one["file"]).name, one["record"]): one["reason"] for one in told}
    assert kept == {
        ("bad.dcm", "bad.dcm"): "unknown format",
        **{("many.h5", f"h{at}"): "flat lead" if at == 2 else None for at in range(4)},
        ("one.npy", "one"): None,
        ("table.csv", "table"): None,
    }
    assert ecg("inspect", folder).stdout.splitlines()[0].split()[0] == "file"
    drawn = ecg("inspect", folder, "--record", "table", "--png", tmp_path / "table.png")
    assert (drawn.exit_code, (tmp_path / "table.png").exists()) == (0, True)
    assert "it holds no record 'nobody'" in ecg("inspect", folder, "--record", "nobody").stderr
    (tmp_path / "empty").mkdir()
    assert "there is no file in it" in ecg("inspect", tmp_path / "empty").stderr
