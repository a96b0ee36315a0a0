"""`ecgs.open`: the stored arrays and tables as xarray has them, and what is said if there are none."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ecg_foundry import ecgs
from ecg_foundry.layout import SIGNALS, absent_note
from ecg_foundry.soundness import Damaged
from pipelines.cache import Product, Workspace
from pipelines.formats.shard import LEADS, QUALITY, SAMPLES, ShardWriter, open_shard
from pipelines.harmonize.shards import shards_of
from pipelines.home import HOSTS, Home

COUNTS = {"g10": 70, "g2": 0, "g1": 3, "g3": 131}  # records of partitions; 64 are a chunk
ORDER = ("g1", "g2", "g3", "g10")


def signals(partition: str) -> np.ndarray:
    steps = np.random.default_rng(COUNTS[partition]).integers(-99, 100, (COUNTS[partition], len(LEADS), SAMPLES))
    return steps.astype(np.int16)


def row(at: int, source: str, **known: Any) -> dict[str, Any]:
    return {
        "source": source,
        "record_id": f"r{at}",
        "rate": 500.0,
        "samples": 5000,
        "labels": [["AF", "a label; with more"], [], ["LBBB"]][at % 3],
        "notes": [],
        "content_hash": f"{at:064x}",
        "signature": bytes(128),
        **known,
    }


def stored(workspace: Workspace, name: str, signals_NLT: np.ndarray, rows: list[dict[str, Any]]) -> Product:
    """A shard `<source>/<partition>` in a workspace."""

    def make(out: Path) -> dict[str, Any]:
        writer = ShardWriter(out)
        for signal_LT, columns in zip(signals_NLT, rows, strict=True):
            writer.append(signal_LT, columns)
        writer.close()
        return {}

    config = {"n": len(rows), "notes": [one["notes"] for one in rows]}
    return workspace.build(f"ecgs/{name}", version="1", config=config, inputs={}, make=make)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with shards of Georgia: not sorted by name, one without records, one of several chunks."""
    root = tmp_path_factory.mktemp("home")
    workspace = Home(root, HOSTS).workspace()
    for partition, count in COUNTS.items():
        known = {"patient_id": "p", "age": 41.5, "sex": "female"} if partition == "g3" else {}
        rows = [row(at, "georgia", **known) for at in range(count)]
        stored(workspace, f"georgia/{partition}", signals(partition), rows)
    return root


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ECG_MIRROR", raising=False)


@cache
def expected() -> np.ndarray:
    return np.concatenate([signals(partition) for partition in ORDER]).astype(np.float32) * np.float32(0.001)


def test_a_source_is_all_its_partitions_in_their_order(root: Path) -> None:
    ds = ecgs.open("georgia", home=root)
    assert ds.ecg.dims == ("record", "lead", "time")
    assert (ds.ecg.dtype, ds.ecg.attrs["units"]) == (np.float32, "mV")
    np.testing.assert_array_equal(ds.ecg, expected())
    assert [*dict.fromkeys(ds.partition.values)] == ["g1", "g3", "g10"]
    assert [*ds.lead.values] == [*LEADS]
    np.testing.assert_allclose(ds.time, np.arange(SAMPLES) / 250)
    assert ds.attrs["licence"] == "CC BY 4.0"
    assert "Perez Alday" in ds.attrs["citation"]
    assert "simulated" not in ds.attrs


def test_what_a_table_holds_stands_along_the_records(root: Path) -> None:
    ds = ecgs.open("georgia", home=root)
    known, unknown = ds.isel(record=3), ds.isel(record=0)
    assert (known.patient.item(), known.age.item(), known.sex.item()) == ("p", 41.5, "female")
    assert (unknown.patient.item(), unknown.sex.item()) == ("", "")
    assert np.isnan(unknown.age)
    assert (known.rate.item(), known.samples.item(), known.source.item()) == (500, 5000, "georgia")
    assert "fold" not in ds.coords
    assert [*ds.quality.figure.values] == [*QUALITY]
    assert [*ds.label.values] == ["AF", "LBBB", "a label; with more"]
    assert ds.labels.values[:3].tolist() == ["AF; a label; with more", "", "LBBB"]
    assert ds.has_label.values[:3].tolist() == [[True, False, True], [False] * 3, [False, True, False]]
    with_af = ds.sel(record=ds.has_label.sel(label="AF", drop=True))
    np.testing.assert_array_equal(with_af.ecg, expected()[ds.has_label.sel(label="AF").values])


def along(length: int) -> st.SearchStrategy[Any]:
    """What an axis can be indexed by."""
    inside = st.integers(-length, length - 1)
    indices = arrays.arrays(np.int64, st.integers(0, 9), elements=inside)
    return st.one_of(inside, st.slices(length), indices, arrays.arrays(bool, length))


@settings(max_examples=25, deadline=None)
@given(draw=st.data(), stride=st.sampled_from([1, 3, -1, -7]))
def test_any_selection_is_that_of_the_stored_array(root: Path, draw: st.DataObject, stride: int) -> None:
    lazy, whole = _opened(root).ecg[::stride], xr.DataArray(expected()[::stride], dims=("record", "lead", "time"))
    for _ in range(2):  # a selection of a selection, too
        if 0 in whole.shape:
            break
        chosen = tuple(draw.draw(along(length)) for length in whole.shape)
        lazy, whole = lazy[chosen], whole[chosen]
        np.testing.assert_array_equal(lazy, whole)


@cache
def _opened(root: Path) -> xr.Dataset:
    return ecgs.open("georgia", home=root)


def test_single_points_are_read_along_all_axes_together(root: Path) -> None:
    at = {"record": [200, 3, 3], "lead": [7, 0, 1], "time": [2499, 0, 5]}
    points = {axis: xr.DataArray(places, dims="point") for axis, places in at.items()}
    found = _opened(root).ecg.isel(points)
    np.testing.assert_array_equal(found, expected()[*at.values()])


def test_nothing_is_read_until_numbers_are_asked_for_and_then_only_their_chunks(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, int]] = []
    before = ecgs.Signals.read
    monkeypatch.setattr(ecgs.Signals, "read", lambda *call: read.append(call[1:]) or before(*call))
    ds = ecgs.open("georgia", home=root)
    some = ds.sel(record=ds.partition == "g3").ecg.isel(record=slice(60, 70)).sel(lead="II")
    repr(ds), repr(some)
    assert read == []
    assert some.values.shape == (10, SAMPLES)
    assert sorted(read) == [(0, 64), (64, 128)]


def test_it_is_pickled_without_its_ecgs(root: Path) -> None:
    sent = pickle.dumps(_opened(root))
    assert len(sent) < 100_000
    again = pickle.loads(sent)  # noqa: S301  # made here
    np.testing.assert_array_equal(again.ecg[5], expected()[5])


def test_a_lead_that_was_not_recorded_is_missing(tmp_path: Path) -> None:
    workspace = Home(tmp_path, HOSTS).workspace()
    signals_NLT = signals("g1")
    signals_NLT[1, [2, 7]] = 0
    rows = [row(at, "incoming", fold=at or None) for at in range(3)]
    rows[1]["notes"] = ["padding trimmed", absent_note(["V1", "V6"])]
    stored(workspace, "incoming/ward.7", signals_NLT, rows)
    ds = ecgs.open("incoming/ward.7", home=tmp_path)
    wanted = signals_NLT * np.float32(0.001)
    wanted[1, [2, 7]] = np.nan
    np.testing.assert_array_equal(ds.ecg, wanted)
    assert np.isnan(ds.ecg[1, 2]).all()
    assert ds.notes[1].item() == "padding trimmed; leads not recorded: V1, V6"
    np.testing.assert_array_equal(ds.fold, [np.nan, 1, 2])
    assert ds.attrs == {"source": "incoming", "title": "Own ECGs", "licence": "your own"}


def test_simulated_ecgs_say_so_and_what_the_demo_harmonizes_is_what_opens(
    ptbxl_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECG_HOME", str(ptbxl_home / "home"))
    shard = open_shard(shards_of(Home(ptbxl_home / "home", HOSTS).workspace(), "ptbxl")["00000"].path)
    ds = ecgs.open("ptbxl")
    np.testing.assert_array_equal(ds.ecg, shard.signals() * np.float32(0.001))
    table = shard.records()
    for name, column in {"record": "record_id", "patient": "patient_id", "age": "age", "fold": "fold"}.items():
        assert ds[name].values.tolist() == table[column].to_pylist()
    for figure in QUALITY:
        np.testing.assert_array_equal(ds.quality.sel(figure=figure), table[f"quality_{figure}"].to_numpy())
    for labels, has_N in zip(table["labels"].to_pylist(), ds.has_label, strict=True):
        assert {*labels} == {*ds.label.values[has_N]}
    monkeypatch.setenv("ECG_MIRROR", str(ptbxl_home / "mirror"))  # it is marked as simulated
    space = Home.default().workspace().root
    space.mkdir()
    try:
        (space / "ecgs").symlink_to(ptbxl_home / "home" / "hosts" / "ecgs")
        assert ecgs.open("ptbxl/00000").attrs["simulated"].startswith("simulated")
    finally:
        shutil.rmtree(space)


@pytest.mark.parametrize("place", ["", "/g3", "/g3/current", "/g3/current/ecgs.zarr"])
def test_a_folder_opens_as_its_name_does(root: Path, place: str) -> None:
    georgia = root / "hosts" / "ecgs" / "georgia"
    place = place.replace("current", (georgia / "g3" / "current").read_text())
    named = ecgs.open("georgia/g3" if place else "ecgs/georgia/", home=root)
    for path in (georgia / place.strip("/"), f"{georgia}{place}"):
        xr.testing.assert_identical(ecgs.open(path), named)


def test_a_shard_that_was_copied_out_of_its_home_opens(root: Path) -> None:
    georgia = root / "hosts" / "ecgs" / "georgia"
    with tempfile.TemporaryDirectory() as folder:  # near the root of the disk
        shutil.copytree(georgia / "g1" / (georgia / "g1" / "current").read_text(), Path(folder) / "copy")
        xr.testing.assert_identical(ecgs.open(f"{folder}/copy").load(), ecgs.open("georgia/g1", home=root))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("georgi", r"source 'georgi' has no .*sources with their partitions here: georgia \(4\)\. There is no such so"),
        (
            "ptbxl",
            r"source 'ptbxl' has no .*: georgia \(4\)\. To have it, run `ecg run .* --partition ptbxl`.* in its UI",
        ),
        ("georgia/g4", r"partition 'g4' of georgia is not harmonized in .*/hosts; these are: g1, g2, g3, g10\."),
        (
            "incoming/ward",
            r"source 'incoming' has no .*To have it, run `ecg run download harmonize --partition incoming` ",
        ),
        ("a b", r"ECGs 'a b': name a source \(ptbxl\), a partition"),
        ("", r"ECGs '': name a source"),
        ("../ecgs", r"\.\./ecgs: no harmonized ECGs; give the folder of a shard"),
    ],
)
def test_what_is_not_there_is_answered_by_what_is_and_what_to_do(root: Path, what: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ecgs.open(what, home=root)


def test_a_source_of_another_place_or_the_short_name_of_a_drop_is_recognized(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "home")
    (tmp_path / "mirror").mkdir()
    Home(tmp_path / "home").set_mirror(str(tmp_path / "mirror"))
    with pytest.raises(ValueError, match=r"It is in hosts: choose its place with `ecg mirror`, or by ECG_MIRROR"):
        ecgs.open("georgia", home=tmp_path / "home")
    stored(
        Home(tmp_path / "home").workspace(), "incoming/ward", signals("g1"), [row(at, "incoming") for at in range(3)]
    )
    with pytest.raises(ValueError, match="A drop is called incoming/ward"):
        ecgs.open("ward", home=tmp_path / "home")
    with pytest.raises(ValueError, match="no such folder; set ECG_HOME, or give home="):
        ecgs.open("georgia", home=tmp_path / "nowhere")


def test_damage_is_refused_and_no_zeros_are_given_for_what_is_gone(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "home")
    ds = ecgs.open("georgia", home=tmp_path / "home")
    georgia = tmp_path / "home" / "hosts" / "ecgs" / "georgia"
    (file,) = (georgia / "g10").glob(f"*/{SIGNALS}/signal/c/0/0/0")
    file.unlink()
    with pytest.raises(Damaged, match=r"ecgs/georgia/g10 is damaged: ecgs\.zarr/signal/c/0/0/0 is missing"):
        ecgs.open("georgia", home=tmp_path / "home")
    with pytest.raises(ValueError, match=r"rows 0 to 64 are gone: open the ECGs again"):
        ds.ecg[-70:].load()
    np.testing.assert_array_equal(ds.ecg[:134], expected()[:134])


def test_labels_and_numbers_are_written_by_xarray_without_a_warning(root: Path, tmp_path: Path) -> None:
    few = ecgs.open("georgia/g1", home=root)
    few.to_zarr(tmp_path / "few.zarr", consolidated=False)
    again = xr.open_zarr(tmp_path / "few.zarr", consolidated=False).load()
    np.testing.assert_array_equal(again.ecg, few.ecg)
    assert again.labels.values.tolist() == few.labels.values.tolist()
