"""`ecg embed`: files to embeddings in a CSV or parquet file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder, save_encoder
from ecg_model.leads import LEADS_12
from ecg_model.serving.embed import embed
from pipelines.evaluate.features import EncoderSource, materialize_features, read_features
from pipelines.harmonize.convert import harmonize
from pipelines.harmonize.quality import QualityLimits
from pipelines.home import Home
from pipelines.tracking import Tracking
from tests.pipelines.cli.records import CODE15, header
from tests.support.commands import ecg, run
from tests.support.pretraining import waves
from tests.support.releases import edit_code

pytestmark = pytest.mark.usefixtures("home")


class Direct:
    """The encoder without MLflow: what the command is compared with, and what stands in for the model's way."""

    def __init__(self) -> None:
        self.encoder = random_encoder(EncoderConfig(dim=32, depth=1, heads=2), 0).eval()

    def __enter__(self) -> Direct:
        return self

    def __exit__(self, *_: object) -> None:
        pass

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
    tracking = Tracking.of(home)
    release = release_packaged(
        packaged_encoder(weights), Scores(), provenance={}, recipe={}, git_commit="g", tracking=tracking
    )
    verdict = GateVerdict(against=None, rules={"not_worse": Finding.passed("the first")})
    promote(record(release, verdict, tracking=tracking), tracking=tracking)
    bad = tmp_path / "JS99999.hea"
    bad.write_text("JS99999 12 500\n")
    # The first ten seconds are good, so that the model alone can refuse it.
    flat = tmp_path / "flat.npy"
    np.save(flat, np.concatenate([by_hand(header(mirror, 0)), 2e-4 * (np.arange(12 * 5000) % 2).reshape(12, 5000)], 1))
    flat.with_suffix(".json").write_text(json.dumps({"rate": 500, "leads": LEADS_12, "units": "mV"}))
    files = [header(mirror, 0), bad, flat, header(mirror, 1)]

    done = run("embed", *files, "-o", tmp_path / "e.csv")
    assert done.returncode == 1
    assert "JS99999: unreadable header" in done.stderr
    why = "flat: flat lead: I, II, V1, V2, V3, V4, V5, V6 are constant, in the window that begins at 10 s"
    assert why in " ".join(done.stderr.split())
    assert "2 records or files could not be embedded" in done.stderr
    assert "Traceback" not in done.stderr
    assert "2 embeddings of 32 numbers" in done.stdout
    listed = run("models")
    assert re.search(r"^ ?1 +champion +not scored +promoted: the first +20", listed.stdout, re.MULTILINE), listed.stdout
    assert "labels that both versions have" in listed.stdout
    assert "version 1, the champion, was never scored: harmonize labelled ECGs" in listed.stdout
    back = run("rollback", "--why", "a test")
    assert (back.returncode, "has no previous champion: name a version" in back.stderr) == (1, True), back.stderr
    rows = pa_csv.read_csv(tmp_path / "e.csv")
    assert rows.column_names == ["file", "record_id", *(f"e{i}" for i in range(32))]
    assert rows.column("file").to_pylist() == [str(files[0]), str(files[3])]
    found_ND = np.stack([rows.column(f"e{i}").to_numpy() for i in range(32)], axis=1)
    expected_ND = np.stack([direct.embed(by_hand(files[i]), leads=LEADS_12, rate=500.0) for i in (0, 3)])
    np.testing.assert_allclose(found_ND, expected_ND, atol=1e-5)

    # As if the version were of an earlier commit, whose code doubled the signal.
    edit_code(release, tracking, "signal.py", "return resample(reach_LT, rate)", "return 2 * resample(reach_LT, rate)")
    done = run("embed", files[0], "-o", tmp_path / "own.csv")
    assert done.returncode == 0, done.stderr
    row = pa_csv.read_csv(tmp_path / "own.csv")
    own_D = np.array([row.column(f"e{i}")[0].as_py() for i in range(32)])
    np.testing.assert_allclose(own_D, direct.embed(2 * by_hand(files[0]), leads=LEADS_12, rate=500.0), atol=1e-5)
    edit_code(release, tracking, "signal.py", "return 2 * resample", "raise KeyError('gone')\n    return resample")
    done = run("embed", *files, "-o", tmp_path / "none.csv")
    assert (done.returncode, done.stdout, (tmp_path / "none.csv").exists()) == (1, "", False)
    assert done.stderr.strip().endswith("was not answered: KeyError: 'gone'")
    assert "Traceback" not in done.stderr


def test_a_model_that_is_not_there_is_one_line(
    mirror: Path, home: Home, tmp_path: Path, new_store: Callable[[Path], Tracking]
) -> None:
    import mlflow

    new_store(home.root / "mlflow").client().create_registered_model("other")
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    try:
        shown = ecg("embed", header(mirror), "-o", tmp_path / "e.csv")
    finally:
        mlflow.set_tracking_uri(before)  # pyright: ignore[reportArgumentType]  # None unsets it
    assert shown.exit_code == 1
    assert "models:/ecg-encoder@champion is not registered at" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


def test_embed_reads_all_exams_of_a_part_into_parquet(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.cli.embed.pull", lambda uri: nullcontext(Direct()))
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
    monkeypatch.setattr("pipelines.cli.embed.pull", lambda uri: nullcontext(Direct()))
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


def test_embed_takes_a_folder_as_a_drop_of_it_would_be_read(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.cli.embed.pull", lambda uri: nullcontext(Direct()))
    folder = tmp_path / "export"
    for at in (0, 1):
        (folder / f"p{at}").mkdir(parents=True)
        for ending in (".hea", ".mat"):
            source = header(mirror, at).with_suffix(ending)
            (folder / f"p{at}" / source.name).write_bytes(source.read_bytes())
    (folder / "notes.txt").write_text("no ECG")
    shown = ecg("embed", folder, "-o", tmp_path / "e.parquet")
    assert shown.exit_code == 0, shown.output
    table = pq.read_table(tmp_path / "e.parquet")
    assert [Path(file).parent.name for file in table["file"].to_pylist()] == ["p0", "p1"]
    (folder / "x.parquet").write_bytes(b"PAR1")
    (folder / "link.csv").symlink_to("/etc/passwd")
    shown = ecg("embed", folder, "-o", tmp_path / "e.parquet")
    assert shown.exit_code == 1
    assert "x.parquet: unknown format" in shown.stderr
    assert "link.csv" in shown.stderr
    (tmp_path / "empty").mkdir()
    assert "there is no file in it" in ecg("embed", tmp_path / "empty", "-o", tmp_path / "f.csv").stderr


@pytest.fixture
def harmonized(home: Home, new_store: Callable[[Path], Tracking]) -> EncoderSource:
    """A home with a harmonized shard, a harmonized drop and an encoder; the encoder as the probes take it."""
    new_store(home.root / "mlflow")
    workspace, direct = home.workspace(), Direct()

    def shard(out: Path, first: int) -> dict[str, object]:
        records = [replace(waves(at), patient_id=f"p{at // 2}") for at in range(first, first + 6)]
        return {**harmonize(records, out, source="x", limits=QualityLimits()).facts(), "role": "pretraining"}

    def encoder(out: Path) -> dict[str, object]:
        save_encoder(out / "encoder.safetensors", direct.encoder)
        return {}

    for name, first in (("ecgs/ptbxl/00000", 0), ("ecgs/ptbxl/01000", 6), ("ecgs/incoming/ward-7", 12)):
        workspace.build(name, version="1", config={}, inputs={}, make=lambda out, first=first: shard(out, first))
    return EncoderSource.of_product(
        "pretrained", workspace.build("encoder", version="1", config={}, inputs={}, make=encoder)
    )


def test_harmonized_ecgs_are_embedded_as_the_probes_embed_them(
    home: Home, harmonized: EncoderSource, tmp_path: Path
) -> None:
    features = {
        source: read_features(materialize_features(home.workspace(), harmonized, source))
        for source in ("ptbxl", "incoming")
    }
    for words, expected_ND, files in (
        (("--shard", "ecgs/ptbxl/01000"), features["ptbxl"][6:], ["ecgs/ptbxl/01000"]),
        (("--shard", "ptbxl"), features["ptbxl"], ["ecgs/ptbxl/00000", "ecgs/ptbxl/01000"]),
        (("--drop", "ward-7", "--drop", "ward-7"), features["incoming"], ["ecgs/incoming/ward-7"]),
    ):
        shown = ecg("embed", *words, "--model", "pretrained", "-o", tmp_path / "e.parquet")
        assert shown.exit_code == 0, shown.output
        assert f"{len(expected_ND)} embeddings of 32 numbers" in shown.stdout
        table = pq.read_table(tmp_path / "e.parquet")
        assert table.column_names == ["file", "record_id", "patient_id", "embedding"]
        np.testing.assert_allclose(np.array(table["embedding"].to_pylist()), expected_ND, atol=1e-5)
        assert table["file"].unique().to_pylist() == files
    assert table["record_id"].to_pylist() == [f"r{at}" for at in range(12, 18)]
    assert table["patient_id"].to_pylist() == [f"p{at // 2}" for at in range(12, 18)]
    ecg("embed", "--drop", "ward-7", "--model", "pretrained", "-o", tmp_path / "e.csv")
    assert pa_csv.read_csv(tmp_path / "e.csv").column_names[:4] == ["file", "record_id", "patient_id", "e0"]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--drop", "ward-8"), 1, "incoming/ward-8 is not harmonized here (there are incoming/ward-7, ptbxl/00000"),
        (("--drop", "ward-8"), 1, "run `ecg run download harmonize --partition incoming/ward-8` first"),
        (("--drop", "../x"), 1, "drop '../x': use 1 to 64 letters"),
        (("--shard", "ecgs/ptbxl/77000"), 1, "run `ecg run download harmonize --partition ptbxl/77000` first"),
        (("--shard", "nowhere"), 1, "nowhere is not harmonized here"),
        ((), 2, "give PATHs, or harmonized ECGs by --drop or --shard, and not both"),
        (("pyproject.toml", "--drop", "ward-7"), 2, "and not both"),
        (("--drop", "ward-7", "--model", "models:/nobody/1"), 1, "models:/nobody/1 is not registered at"),
        (("--drop", "ward-7", "--model", "nobody"), 1, "'nobody' is no encoder: give pretrained, reference"),
    ],
)
@pytest.mark.usefixtures("harmonized")
def test_a_wrong_name_of_harmonized_ecgs_is_one_sentence(
    words: tuple[str, ...], code: int, sentence: str, tmp_path: Path
) -> None:
    shown = ecg("embed", *words, "-o", tmp_path / "e.csv")
    assert shown.exit_code == code
    assert sentence in shown.stderr
    assert not (tmp_path / "e.csv").exists()
