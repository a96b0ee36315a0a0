"""The data home: one space for each place that ECGs come from."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.home import Home


def test_places_never_share_a_space(tmp_path):
    first, second = tmp_path / "a" / "mirror", tmp_path / "b" / "mirror"
    spaces = {Home(tmp_path, place).space for place in ("hosts", str(first), str(second), "https://example.org/ecg/")}
    assert len(spaces) == 4
    assert Home(tmp_path).space == "hosts"


def test_the_simulated_mirror_has_its_name(tmp_path):
    home = Home(tmp_path)
    home.simulated_mirror.mkdir(parents=True)
    home.set_mirror(str(home.simulated_mirror))
    assert Home(tmp_path).space == "simulated"
    assert home.workspace().root == tmp_path / "simulated"


def test_a_mirror_is_remembered_and_an_override_wins(tmp_path, monkeypatch):
    folder = tmp_path / "mirror-of-mine"
    folder.mkdir()
    Home(tmp_path).set_mirror(str(folder))
    assert Home(tmp_path).mirror == str(folder)
    assert Home(tmp_path, "hosts").mirror is None
    assert Home(tmp_path, "https://example.org/x/").mirror == "https://example.org/x"
    monkeypatch.setenv("ECG_HOME", str(tmp_path))
    monkeypatch.setenv("ECG_MIRROR", "hosts")
    assert Home.default().mirror is None


def test_what_production_remembers_holds_for_whoever_has_the_home_alone_and_the_environment_wins(tmp_path, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "ECG_INCOMING"):
        monkeypatch.delenv(name, raising=False)
    home = Home(tmp_path)
    assert (home.tracking_uri, home.incoming) == (f"sqlite:///{tmp_path}/mlflow/mlflow.db", tmp_path / "incoming")
    (tmp_path / "tracking").write_text("http://127.0.0.1:5000\n")
    (tmp_path / "drops").write_text("s3://ward/ecgs\n")
    assert (home.tracking_uri, home.incoming) == ("http://127.0.0.1:5000", "s3://ward/ecgs")
    (tmp_path / "drops").write_text("\n")
    assert home.incoming == tmp_path / "incoming"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other:5000")
    monkeypatch.setenv("ECG_INCOMING", "/dropped")
    assert (home.tracking_uri, str(home.incoming)) == ("http://other:5000", "/dropped")


def test_a_relative_folder_is_remembered_as_an_absolute_one(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    Home(tmp_path / "home").set_mirror("here")
    monkeypatch.chdir("/")
    assert Home(tmp_path / "home").mirror == str(tmp_path / "here")


@pytest.mark.parametrize(
    "place", ["https://bob:s3cret@example.org/ecg", "http://s3cret@example.org", "http://b:s3cret@h:x"]
)
def test_a_password_in_a_mirror_s_address_is_neither_kept_nor_shown(tmp_path, place):
    with pytest.raises(ValueError, match="set NETRC to a file") as refused:
        Home(tmp_path).set_mirror(place)
    assert "s3cret" not in str(refused.value)
    assert not (tmp_path / "mirror").exists()
    with pytest.raises(ValueError, match="set NETRC to a file"):
        _ = Home(tmp_path, place).mirror
    (tmp_path / "mirror").write_text(place)
    with pytest.raises(ValueError, match="set NETRC to a file"):
        _ = Home(tmp_path).mirror


def test_a_folder_that_is_not_there_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match="no such folder; give a folder, a base URL"):
        Home(tmp_path).set_mirror(str(tmp_path / "nowhere"))


def test_the_key_of_pseudonyms_is_made_once_for_its_owner_alone(tmp_path: Path):
    key = Home(tmp_path).patient_key()
    assert len(key) == 32
    assert Home(tmp_path).patient_key() == key
    assert Home(tmp_path / "other").patient_key() != key
    file = tmp_path / "keys" / "patients"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["patients"]


def test_all_that_make_the_key_at_once_have_the_same(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: Home(tmp_path).patient_key(), range(32)))
    assert len(keys) == 1


@pytest.mark.parametrize("text", ["", "abc", "g" * 64])
def test_a_damaged_key_is_refused_and_not_replaced(text: str, tmp_path: Path):
    Home(tmp_path).patient_key()
    file = tmp_path / "keys" / "patients"
    file.write_text(text)
    with pytest.raises(ValueError, match="restore it from a backup"):
        Home(tmp_path).patient_key()
    assert file.read_text() == text


def test_a_folder_whose_name_is_no_text_is_refused(tmp_path, monkeypatch):
    """MLflow and Dagster store and show names as text."""
    odd = tmp_path / os.fsdecode(b"K\xe4the")
    odd.mkdir()
    with pytest.raises(ValueError, match=r"data home \(ECG_HOME\) '.*K\\udce4the': its name is no text in UTF-8"):
        Home(odd)
    with pytest.raises(ValueError, match=r"mirror '.*: its name is no text"):
        Home(tmp_path).set_mirror(str(odd))
    with pytest.raises(ValueError, match=r"mirror '.*: its name is no text"):
        _ = Home(tmp_path, str(odd)).mirror
    monkeypatch.setenv("ECG_INCOMING", str(odd))
    with pytest.raises(ValueError, match=r"place of drops \(ECG_INCOMING\) '"):
        _ = Home(tmp_path).incoming
