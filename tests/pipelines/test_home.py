"""The data home: one space for each place that ECGs come from."""

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


def test_a_relative_folder_is_remembered_as_an_absolute_one(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    Home(tmp_path / "home").set_mirror("here")
    monkeypatch.chdir("/")
    assert Home(tmp_path / "home").mirror == str(tmp_path / "here")


def test_a_folder_that_is_not_there_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match="no such folder; give a folder, a base URL"):
        Home(tmp_path).set_mirror(str(tmp_path / "nowhere"))
