"""A data home that was moved, or copied beside the first: its models, mirror and raw files are those in its folder."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder, save_encoder
from pipelines.download.mirror import Mirror
from pipelines.download.step import LINKS, materialize_raw, raw_files, recorded_root
from pipelines.home import SERVERS_LOCK, Home
from pipelines.locks import exclusive_now
from pipelines.moved import BACKUP, mend
from pipelines.release.aliases import aliases_of
from pipelines.release.model import REGISTERED_NAME
from pipelines.release.registry import files_of, model_folder, version_named
from pipelines.release.tags import CHAMPION, PREVIOUS
from pipelines.sources import SOURCES
from pipelines.tracking import Tracking
from tests.pipelines.download.test_step import small_mirror
from tests.support.commands import ecg
from tests.support.releases import crown, put, scored
from tests.support.shared import made_once


def weights(folder: Path, seed: int) -> Path:
    file = folder / f"seed{seed}" / "encoder.safetensors"
    file.parent.mkdir(parents=True)
    save_encoder(file, random_encoder(EncoderConfig(dim=32, depth=1, heads=2), seed))
    return file


@pytest.fixture(scope="session")
def made(run_folder: Path, new_store: Callable[[Path], Tracking]) -> Path:
    """A home in a folder `my data/homé`, with two versions and a mirror of its own that is stored as it used to be."""

    def make(folder: Path) -> None:
        root = folder / "my data" / "homé"
        tracking = new_store(root / "mlflow")
        for seed in (1, 2):
            crown(tracking, REGISTERED_NAME, weights(folder, seed), scored(0.5 + seed / 10))
        (root / "mirrors" / "simulated").mkdir(parents=True)
        (root / "mirrors" / "simulated" / "SIMULATED.json").write_text("{}")
        (root / "simulated").mkdir()
        (root / "mirror").write_text(str(root / "mirrors" / "simulated"))

    # It is used where it is made: a copy would already be another place.
    return made_once(run_folder / "home-with-models", make) / "my data" / "homé"


@pytest.fixture
def copied(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A copy of the home, beside the first."""
    shutil.copytree(made, tmp_path / "copied")
    monkeypatch.setenv("ECG_HOME", str(tmp_path / "copied"))
    for name in ("ECG_MIRROR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return Home.default()


def texts(database: Path) -> str:
    """Everything that a database holds."""
    with closing(sqlite3.connect(database)) as store:
        return "\n".join(store.iterdump())


def check_all_is_here(home: Home, former: Path, tmp_path: Path) -> None:
    """Versions are listed, fetched, rolled back and released, and nothing of it is in the former place."""
    database = home.root / "mlflow" / "mlflow.db"
    before = texts(database)
    assert former.as_uri() in before
    listed = ecg("models")
    assert listed.exit_code == 0, listed.output
    assert f"{home.root} was at {former} before" not in listed.stdout, "a note, not a result"
    assert former.as_uri() not in texts(database)
    assert str(former) not in texts(database)
    assert texts(database.with_name(BACKUP)) == before
    tracking = Tracking.of(home)
    for version in (1, 2):
        release = version_named(f"models:/{REGISTERED_NAME}/{version}", tracking=tracking)
        assert files_of(release, tmp_path / str(version), tracking=tracking)["encoder"].is_file()
        assert model_folder(release, tracking=tracking).is_relative_to(home.root)
    assert ecg("rollback", "--why", "a test").exit_code == 0
    assert aliases_of(tracking=tracking) == {CHAMPION: 1, PREVIOUS: 2}
    third = put(tracking, REGISTERED_NAME, weights(tmp_path, 3), scored(0.9))
    assert third.version == 3
    assert model_folder(third, tracking=tracking).is_relative_to(home.root)
    assert home.mirror == str(home.root / "mirrors" / "simulated")
    assert home.space == "simulated"
    mended = database.read_bytes()
    mend(home)
    assert database.read_bytes() == mended


def test_a_copy_beside_the_first_uses_its_own_models(made: Path, copied: Home, tmp_path: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in made.rglob("*"))
    check_all_is_here(copied, made, tmp_path)
    assert sorted((path, path.stat().st_mtime_ns) for path in made.rglob("*")) == before


def test_a_moved_home_uses_its_own_models(copied: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ecg("models")
    former = copied.root
    (former / "mirror").write_text(str(former / "mirrors" / "simulated"))
    shutil.move(former, tmp_path / "moved")
    monkeypatch.setenv("ECG_HOME", str(tmp_path / "moved"))
    home = Home.default()
    assert home.mirror == str(home.root / "mirrors" / "simulated"), "found before anything is mended"
    check_all_is_here(home, former, tmp_path)


def test_models_that_were_left_behind_stay_where_they_are(
    made: Path, copied: Home, caplog: pytest.LogCaptureFixture
) -> None:
    artifacts = copied.root / "mlflow" / "artifacts"
    shutil.rmtree(artifacts)
    before = texts(copied.root / "mlflow" / "mlflow.db")
    mend(copied)
    assert texts(copied.root / "mlflow" / "mlflow.db") == before
    assert "2 of 2 are not in" in caplog.text
    assert "copy that folder as well" in caplog.text
    shutil.copytree(made / "mlflow" / "artifacts", artifacts)
    mend(copied)
    assert made.as_uri() not in texts(copied.root / "mlflow" / "mlflow.db")
    assert not (copied.root / "mlflow" / f"{BACKUP}.partial").exists()


def test_an_artifact_that_is_gone_is_one_sentence(copied: Home, tmp_path: Path) -> None:
    mend(copied)
    shutil.rmtree(copied.root / "mlflow" / "artifacts")
    told = ecg("embed", __file__, "-o", tmp_path / "e.csv")
    assert told.exit_code == 1
    assert "is not there" in told.stderr
    assert "`ECG_HOME=NEW-PLACE ecg models` finds them there" in told.stderr
    assert "No such artifact" not in told.stderr


def test_it_is_not_done_under_servers_nor_to_a_store_elsewhere(
    made: Path, copied: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with exclusive_now(copied.root / SERVERS_LOCK, "busy"):
        refused = ecg("models")
    assert refused.exit_code == 1
    assert "was moved, and its MLflow store must be told: stop its servers first (" in refused.stderr
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{made / 'mlflow' / 'mlflow.db'}")
    assert ecg("models").exit_code == 0
    assert made.as_uri() in texts(made / "mlflow" / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    # Artifacts on another disk, by a link: they are the same in both homes.
    artifacts = copied.root / "mlflow" / "artifacts"
    shutil.rmtree(artifacts)
    artifacts.symlink_to(made / "mlflow" / "artifacts")
    assert ecg("models").exit_code == 0
    assert made.as_uri() in texts(copied.root / "mlflow" / "mlflow.db")
    assert not (artifacts.parent / BACKUP).exists()
    (copied.root / "mlflow" / "mlflow.db").write_bytes(b"not a database")
    assert "mlflow.db: it cannot be read, or told where" in ecg("models").stderr


def test_a_moved_home_keeps_its_mirror_and_its_raw_files(home: Home, tmp_path: Path) -> None:
    source = SOURCES["chapman"]
    own = small_mirror(home.root / "mirrors" / "ours")
    home.set_mirror(str(own))
    assert (home.root / "mirror").read_text() == "mirrors/ours"
    home.set_mirror(str(small_mirror(home.simulated_mirror)))

    def product(where: Home):
        mirror = Mirror.parse(where.mirror)
        return materialize_raw(where.workspace(), source, "01", mirror=mirror, raw_root=where.raw_root)

    made = product(home)
    moved = Home(shutil.move(home.root, tmp_path / "elsewhere"))
    assert moved.mirror == str(tmp_path / "elsewhere" / "mirrors" / "simulated")
    kept = moved.workspace().require("raw/chapman/01")
    assert raw_files(kept)[0] == moved.simulated_mirror
    assert product(moved).cached
    assert product(moved).digest == made.digest


@pytest.mark.parametrize(
    ("space", "recorded", "found"),
    [
        ("hosts", "/old/hosts/files", "hosts/files"),
        ("hosts", "/old/hosts/files/incoming/ward/0123", "hosts/files/incoming/ward/0123"),
        ("ours-0a1b2c", f"/old/ours-0a1b2c/files/{LINKS}", f"ours-0a1b2c/files/{LINKS}"),
        ("simulated", "/old/mirrors/simulated", "mirrors/simulated"),
        ("ours-0a1b2c", "/data/ours", None),
        ("ours-0a1b2c", "/data/hosts/files", None),
        ("files-0a1b2c", "/data/mirrors/simulated", None),
    ],
)
def test_a_folder_of_the_home_is_in_it_wherever_it_is(
    space: str, recorded: str, found: str | None, tmp_path: Path
) -> None:
    raw = tmp_path / space / "raw" / "chapman" / "01" / "0123"
    (raw / "aside").mkdir(parents=True)
    (raw / "aside" / "root").write_text(recorded)
    assert recorded_root(raw) == (Path(recorded) if found is None else tmp_path / found)
