"""The command `ecg`, in this process and as people start it."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from ecg_model.config import EncoderConfig
from ecg_model.encoder import random_encoder, save_encoder
from ecg_model.serving.embed import embed
from ecg_model.signal import LEADS_12
from pipelines.cli import main
from pipelines.home import Home
from pipelines.records import DropReason
from pipelines.simulate import MirrorSizes, write_mirror

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared"
ECG = Path(sys.executable).with_name("ecg")
CHAPMAN = "physionet.org/files/ecg-arrhythmia/1.0.0/WFDBRecords/01/010"
CODE15 = "zenodo.org/records/4916206/files/exams_part0.zip"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = MirrorSizes(chapman=(6,), code15=(4,), ptbxl=(), cpsc2018=(), georgia=(), ludb=2)
    return write_mirror(tmp_path_factory.mktemp("cli") / "mirror", sizes=sizes).path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("ECG_HOME", str(tmp_path / "home"))
    for name in ("ECG_MIRROR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return Home(tmp_path / "home")


def ecg(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The installed command, in a process of its own."""
    command = [str(ECG), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)


def header(mirror: Path, at: int = 0) -> Path:
    """A record that the simulator planted no defect in."""
    planted = json.loads((mirror / "SIMULATED.json").read_text())["defects"].get("chapman", {})
    faulty = {record for records in planted.values() for record in records}
    return sorted(path for path in (mirror / CHAPMAN).glob("*.hea") if path.stem not in faulty)[at]


# help


def test_help_names_every_command_and_its_examples() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    for name, command in main.commands.items():
        assert re.search(rf"^  {name} ", shown.stdout, re.MULTILINE)
        told = ecg(name, "--help").output
        assert f"  ecg {name}" in told
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or getattr(parameter, "help", None)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, pipelines.cli; print(sorted({'numpy', 'torch', 'mlflow', 'pyarrow', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# sources


def test_sources_tell_what_there_is_and_what_is_here(home: Home) -> None:
    workspace = home.workspace()
    for partition, entered, kept in (("01", 10, 9), ("07", 5, 5)):
        workspace.build(
            f"ecgs/chapman/{partition}",
            version="1",
            config={},
            inputs={},
            make=lambda out, entered=entered, kept=kept: {"entered": entered, "kept": kept},
        )
    workspace.build("raw/chapman/01", version="1", config={}, inputs={}, make=lambda out: {})
    states = {state["name"]: state for state in json.loads(ecg("sources", "--json").output)}
    assert len(states) == 7
    assert states["chapman"]["harmonized"] == ["01", "07"]
    assert states["chapman"]["downloaded"] == ["01"]
    assert (states["chapman"]["entered"], states["chapman"]["kept"]) == (15, 14)
    assert states["code15"]["harmonized"] == []
    assert {state["role"] for state in states.values()} == {"pretraining", "evaluation"}

    table = ecg("sources").stdout
    line = next(line for line in table.splitlines() if line.split()[:1] == ["chapman"])
    assert "CC BY 4.0" in line
    assert "1 of 46" in line
    assert "2 of 46" in line
    assert "14 of 15" in line
    assert str(workspace.root) in table


def test_sources_tell_which_partitions_a_folder_mirror_has(home: Home, mirror: Path, tmp_path: Path) -> None:
    assert "has a part" not in ecg("sources").stdout
    own = shutil.copytree(mirror, tmp_path / "own")
    home.set_mirror(str(own))
    states = {state["name"]: state for state in json.loads(ecg("sources", "--json").output)}
    offered = states["chapman"]["offered"]
    assert 0 < len(offered) < 46
    home.workspace().build("raw/ludb/all", version="1", config={}, inputs={}, make=lambda out: {})
    told = ecg("sources").stdout.partition("choose the partitions that it has:\n")[2].splitlines()
    assert f"  chapman: {', '.join(offered)} ({len(offered)} of 46)" in told
    assert not [line for line in told if "ludb" in line], "all of it is here"
    shutil.rmtree(own)  # a disk that is not mounted
    assert "  chapman: none" in ecg("sources").stdout


# inspect


@pytest.mark.parametrize("suffix", [".hea", ".mat"])
def test_inspect_tells_what_was_read(mirror: Path, suffix: str) -> None:
    file = header(mirror).with_suffix(suffix)
    shown = run("inspect", file)
    assert shown.returncode == 0, shown.stderr
    told = {line[:18].strip(): line[18:].strip() for line in shown.stdout.splitlines()}
    assert told["record"] == file.stem
    assert told["leads"] == "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6"
    assert told["rate"] == "500 Hz"
    assert told["length"] == "5,000 samples, 10.00 s"
    assert told["units"] == "1000 units a millivolt, 16 bit"
    assert told["verdict"] == "kept"
    comments = dict(line[1:].split(": ") for line in header(mirror).read_text().splitlines() if line.startswith("#"))
    assert told["age"].split()[0] == comments["Age"]
    assert told["sex"] == comments["Sex"].lower()
    assert told["labels"].split(", ") == comments["Dx"].split(",")
    assert 20 < float(told["heart rate"].split()[0]) < 250


def test_inspect_draws_the_ecg(mirror: Path, tmp_path: Path) -> None:
    shown = ecg("inspect", header(mirror), "--png", tmp_path / "a.png")
    assert shown.exit_code == 0
    assert "a.png" in shown.stderr
    assert "a.png" not in shown.stdout
    ecg("inspect", header(mirror, 1), "--png", tmp_path / "b.png")
    first, second = (Image.open(io.BytesIO((tmp_path / name).read_bytes())) for name in ("a.png", "b.png"))
    assert first.format == "PNG"
    assert first.width == second.width == 1350
    assert first.tobytes() != second.tobytes()


def test_inspect_as_json(mirror: Path) -> None:
    told = json.loads(ecg("inspect", header(mirror), "--json").stdout)
    assert (told["kept"], told["reason"], told["samples"], told["rate"]) == (True, None, 5000, 500.0)
    assert set(told["quality"]) >= {"wander", "heart_rate", "einthoven"}
    assert told["range_millivolt"][0] < 0 < told["range_millivolt"][1]


def test_inspect_reads_an_exam_of_a_code15_part(mirror: Path) -> None:
    several = ecg("inspect", mirror / CODE15)
    assert several.exit_code == 1
    assert several.stdout == ""
    named = re.search(r"--record (\d+)", several.stderr)
    assert named
    shown = ecg("inspect", mirror / CODE15, "--record", named[1])
    told = {line[:18].strip(): line[18:].strip() for line in shown.stdout.splitlines()}
    assert (told["record"], told["rate"]) == (named[1], "400 Hz")
    assert told["leads"].startswith("DI DII DIII AVR")
    absent = ecg("inspect", mirror / CODE15, "--record", "7")
    assert absent.exit_code == 1
    assert "no record '7'" in absent.stderr


def test_inspect_knows_ludb_s_form(mirror: Path) -> None:
    shown = ecg("inspect", next((mirror / "physionet.org/files/ludb/1.0.1/data").glob("*.hea")))
    assert shown.exit_code == 0
    assert "not physical" in shown.stdout
    assert "baseline" in shown.stdout


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
        (lambda text: text.replace("1000/mV", "4880/mV"), DropReason.IMPLAUSIBLE_GAIN),
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
    shown = ecg("inspect", file)
    assert shown.exit_code == 1
    assert f"refused: {reason}" in shown.stdout
    told = json.loads(ecg("inspect", file, "--json").stdout)
    assert (told["kept"], told["reason"]) == (False, reason)
    assert told["detail"]


def test_changed_samples_are_refused(mirror: Path, tmp_path: Path) -> None:
    data = bytearray(header(mirror).with_suffix(".mat").read_bytes())
    data[3000] ^= 1
    shown = run("inspect", damaged(mirror, tmp_path, data=bytes(data)))
    assert shown.returncode == 1
    assert "refused: checksum wrong" in shown.stdout
    assert "Traceback" not in shown.stdout + shown.stderr


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
    shown = ecg("inspect", file, "--png", tmp_path / "short.png")
    assert shown.exit_code == 1
    assert "2,000 samples, 4.00 s" in shown.stdout
    assert "refused: too short" in shown.stdout
    with Image.open(tmp_path / "short.png") as picture:
        assert picture.width == 130 * 5  # four seconds are 100 mm


def test_what_is_no_ecg_is_one_line(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no ECG")
    archive = tmp_path / "exams_part0.zip"
    archive.write_bytes(b"no zip")
    (tmp_path / "exams.csv").write_text("exam_id\n1\n")
    for file in (text, archive):
        shown = ecg("inspect", file)
        assert shown.exit_code == 1
        assert shown.stdout == ""
        assert shown.stderr.startswith("Error: ")
        assert str(file) in shown.stderr
        assert len(shown.stderr.splitlines()) == 1
    assert ecg("inspect", tmp_path / "absent.hea").exit_code == 2


def test_every_real_record_is_kept_or_refused_in_words() -> None:
    if not SHARED.is_dir():
        pytest.skip("the real ECGs of ../shared are not here")
    real = SHARED / "real"
    files = sorted((real / "mirror/physionet.org").rglob("*.hea"))[::25] + sorted((real / "damaged").rglob("*.hea"))
    verdicts = set()
    for file in files:
        shown = ecg("inspect", file)
        kept = "verdict           kept" in shown.stdout
        assert kept is (shown.exit_code == 0)
        assert kept or "refused: " in shown.stdout
        verdicts.add(kept)
    assert verdicts == {True, False}


# embed


class Direct:
    """The encoder without MLflow: what the command is compared with, and what stands in for the model's way."""

    def __init__(self) -> None:
        self.encoder = random_encoder(EncoderConfig(dim=32, depth=1, heads=2), 0).eval()

    def embed(self, x_LT: np.ndarray, *, leads: Sequence[str], rate: float) -> np.ndarray:
        return embed(self.encoder, x_LT[None], sampling_rate=rate, leads=",".join(leads))[0]


def by_hand(header: Path) -> np.ndarray:
    """(12, 5000) millivolt of a record of the mirror, without the reader."""
    return np.frombuffer(header.with_suffix(".mat").read_bytes()[24:], "<i2").reshape(5000, 12).T / 1000


@pytest.mark.slow
def test_embed_pulls_the_champion_and_goes_on_after_a_bad_file(mirror: Path, home: Home, tmp_path: Path) -> None:
    """A released model through the installed command, against the encoder's own embedding of samples read by hand."""
    from pipelines.finding import Finding
    from pipelines.release.aliases import promote
    from pipelines.release.gate import GateVerdict
    from pipelines.release.model import Scores
    from pipelines.release.packaging import packaged_encoder
    from pipelines.release.registry import record, release_packaged
    from pipelines.tracking import Tracking

    direct = Direct()
    weights = tmp_path / "encoder.safetensors"
    save_encoder(weights, direct.encoder)
    tracking = Tracking(uri=home.tracking_uri, artifact_root=home.artifact_root)
    release = release_packaged(
        packaged_encoder(weights), Scores(), provenance={}, recipe={}, git_commit="g", tracking=tracking
    )
    verdict = GateVerdict(against=None, rules={"not_worse": Finding.passed("the first")})
    promote(record(release, verdict, tracking=tracking), tracking=tracking)
    bad = tmp_path / "JS99999.hea"
    bad.write_text("JS99999 12 500\n")
    files = [header(mirror, 0), bad, header(mirror, 1)]

    done = run("embed", *files, "-o", tmp_path / "e.csv")
    assert done.returncode == 1
    assert "JS99999: unreadable header" in done.stderr
    assert "1 records or files could not be embedded" in done.stderr
    assert "Traceback" not in done.stderr
    assert "2 embeddings of 32 numbers" in done.stdout
    listed = run("models")
    assert re.search(r"^ ?1 +champion +not scored +promoted: the first +20", listed.stdout, re.MULTILINE), listed.stdout
    assert "labels that both versions have" in listed.stdout
    back = run("rollback", "--why", "a test")
    assert (back.returncode, "has no previous champion: name a version" in back.stderr) == (1, True), back.stderr
    rows = pa_csv.read_csv(tmp_path / "e.csv")
    assert rows.column_names == ["file", "record_id", *(f"e{i}" for i in range(32))]
    assert rows.column("file").to_pylist() == [str(files[0]), str(files[2])]
    found_ND = np.stack([rows.column(f"e{i}").to_numpy() for i in range(32)], axis=1)
    expected_ND = np.stack([direct.embed(by_hand(files[i]), leads=LEADS_12, rate=500.0) for i in (0, 2)])
    np.testing.assert_allclose(found_ND, expected_ND, atol=1e-5)


def test_rollback_says_which_version_is_champion_and_in_which_store(home: Home) -> None:
    from pipelines.tracking import Tracking

    client = Tracking(uri=home.tracking_uri, artifact_root=home.artifact_root).client()
    client.create_registered_model("ecg-encoder")
    for alias in ("previous", "champion"):
        was_champion = {"moved 2026-11-23T20:00:00.000000Z": "promoted"}
        version = client.create_model_version("ecg-encoder", source="here", tags=was_champion).version
        client.set_registered_model_alias("ecg-encoder", alias, str(version))
    shown = ecg("rollback", "--why", "a test")
    assert shown.exit_code == 0, shown.output
    assert f"@champion is version 1 in sqlite:///{home.root}" in shown.output
    assert str(client.get_model_version_by_alias("ecg-encoder", "champion").version) == "1"


@pytest.mark.parametrize(("name", "refused"), [("00001_lr", True), ("other", False)])
def test_inspect_judges_a_ptbxl_gain_by_ptbxl_s_range(tmp_path: Path, name: str, refused: bool) -> None:
    samples = (np.sin(np.arange(1000) / 9)[:, None] * 200).astype("<i2").repeat(12, axis=1)
    (tmp_path / f"{name}.dat").write_bytes(samples.tobytes())
    lines = [
        f"{name}.dat 16 200.0(0)/mV 16 0 {samples[0, 0]} {samples[:, 0].sum(dtype='i2')} 0 {lead}" for lead in LEADS_12
    ]
    (tmp_path / f"{name}.hea").write_text("\n".join([f"{name} 12 100 1000", *lines, ""]))
    shown = run("inspect", tmp_path / f"{name}.hea")
    assert (shown.returncode == 1, "gain" in (shown.stdout + shown.stderr).lower()) == (refused, True), shown


def test_a_model_that_is_not_there_is_one_line(mirror: Path, home: Home, tmp_path: Path) -> None:
    import mlflow

    from pipelines.tracking import Tracking

    Tracking(uri=home.tracking_uri, artifact_root=home.artifact_root).client().create_registered_model("other")
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    try:
        shown = ecg("embed", header(mirror), "-o", tmp_path / "e.csv")
    finally:
        mlflow.set_tracking_uri(before)  # pyright: ignore[reportArgumentType]  # None unsets it
    assert shown.exit_code == 1
    assert "'models:/ecg-encoder@champion' cannot be loaded" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


def test_embed_reads_all_exams_of_a_part_into_parquet(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.cli._pull", lambda uri: Direct())
    shown = ecg("embed", header(mirror), mirror / CODE15, "-o", tmp_path / "e.parquet")
    table = pq.read_table(tmp_path / "e.parquet")
    with pq.ParquetFile(tmp_path / "e.parquet") as file:
        assert str(file.schema_arrow.field("embedding").type) == "fixed_size_list<element: float>[32]"
    assert table.column("record_id")[0].as_py() == header(mirror).stem
    exams = table.column("record_id").to_pylist()[1:]
    assert len(set(exams)) == len(exams) >= 3
    embedding_ND = np.array(table.column("embedding").to_pylist())
    assert np.isfinite(embedding_ND).all()
    assert len(np.unique(embedding_ND.round(6), axis=0)) == len(table)
    # The part ends with a row of zeros that is no exam.
    assert shown.exit_code == 1
    assert "0: not in the source's table" in shown.stderr


def test_embed_writes_nothing_where_nothing_was_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.cli._pull", lambda uri: Direct())
    bad = tmp_path / "notes.txt"
    bad.write_text("no ECG")
    shown = ecg("embed", bad, "-o", tmp_path / "e.csv")
    assert shown.exit_code == 1
    assert "nothing was written" in shown.stderr
    assert not (tmp_path / "e.csv").exists()


def test_embed_without_a_store_says_how_to_get_one(mirror: Path, home: Home, tmp_path: Path) -> None:
    shown = ecg("embed", header(mirror), "-o", tmp_path / "e.csv")
    assert shown.exit_code == 1
    assert "make demo" in shown.stderr
    assert not home.root.exists()


def test_embed_refuses_an_output_of_another_kind(mirror: Path, tmp_path: Path) -> None:
    shown = ecg("embed", header(mirror), "-o", tmp_path / "e.xlsx")
    assert shown.exit_code == 2
    assert ".parquet or .csv" in shown.stderr


# simulate and mirror


def test_simulate_writes_a_mirror_that_can_be_read(tmp_path: Path) -> None:
    shown = ecg("simulate", tmp_path / "m", "--size", "small", "--seed", "3")
    assert shown.exit_code == 0
    mark = json.loads((tmp_path / "m/SIMULATED.json").read_text())
    assert mark["seed"] == 3
    assert f"{sum(mark['records'].values()):,} simulated ECGs" in shown.stdout
    assert "chapman" in shown.stderr  # the progress bar
    again = ecg("simulate", tmp_path, "--size", "small")
    assert again.exit_code == 1
    assert "no simulated mirror" in again.stderr


def test_the_mirror_is_remembered(home: Home, tmp_path: Path) -> None:
    assert "true hosts" in ecg("mirror").output
    place = tmp_path / "data"
    place.mkdir()
    assert str(place) in ecg("mirror", place).output
    assert home.mirror == str(place)
    assert str(place) in ecg("sources").output
    wrong = ecg("mirror", tmp_path / "nowhere")
    assert wrong.exit_code == 1
    assert "no such folder" in wrong.stderr
    assert home.mirror == str(place)
    assert "true hosts" in ecg("mirror", "hosts").output
    assert home.mirror is None


def test_a_closed_pipe_ends_in_silence() -> None:
    with subprocess.Popen(
        [str(ECG), "sources", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
