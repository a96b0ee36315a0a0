"""The baseline computes what our network computes, and the programs write what they promise."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from benchmarks import attention, harmonize, train_step
from benchmarks.baseline import as_released
from ecg_model.config import EncoderConfig, JEPAConfig, PredictorConfig
from ecg_model.jepa import JEPA, split_columns
from ecg_model.signal import resample
from pipelines.simulate import MirrorSizes, write_mirror

TINY = JEPAConfig(
    encoder=EncoderConfig(dim=16, depth=2, heads=2, patches=10, patch_size=5),
    predictor=PredictorConfig(dim=8, depth=1, heads=2),
)


def test_the_released_way_gives_our_loss_and_our_gradients():
    torch.manual_seed(0)
    released = as_released(TINY).train()
    ours = JEPA(TINY).train()
    ours.load_state_dict(released.state_dict())
    x_BLT = torch.randn(3, 8, 50, generator=torch.Generator().manual_seed(1))
    columns = split_columns(torch.arange(10) % 3 == 0)
    losses = [model(x_BLT, *columns) for model in (ours, released)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for parameter, reference in zip(ours.parameters(), released.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, reference.grad, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(ours.student.embed(x_BLT), released.student.embed(x_BLT))


@pytest.mark.parametrize("name", ["split", "SDPA with a mask", "dense", "as released"])
def test_each_way_of_attention_is_measured_on_the_same_numbers(name):
    qkvg = attention.inputs(2, 7, torch.device("cpu"), torch.float64)
    exact = attention.both_ways(attention.dense_cropa, qkvg)
    way = attention.eager_ways(7, torch.device("cpu"))[name]
    assert max(attention.errors(attention.both_ways(way, qkvg), exact)) < 1e-12
    wrong = attention.both_ways(attention.dense_cropa, [*qkvg[:2], qkvg[2] + 1.0, qkvg[3]])
    assert max(attention.errors(wrong, exact)) > 0.1


@pytest.mark.slow
def test_a_small_run_writes_its_figures(tmp_path, monkeypatch):
    file = tmp_path / "figures.json"
    options = ["--small", "--batch", "2", "--rounds", "1", "--json", str(file)]
    monkeypatch.setattr("sys.argv", ["train_step", *options])
    train_step.main()
    figures = json.loads(file.read_text())
    assert {"train_ratio", "embed_ratio", "hours_for_the_paper", "memory_share", "checkpoint_share"} <= set(figures)
    assert all(figures[name] > 0 for name in ("train_ratio", "embed_ratio", "peak_mib", "baseline_peak_mib"))


def test_harmonization_is_measured_on_what_both_ways_can_read(tmp_path, monkeypatch):
    mirror = tmp_path / "mirror"
    write_mirror(mirror, sizes=MirrorSizes(chapman=(4,), code15=(6,), ptbxl=(), cpsc2018=(), georgia=(), ludb=0))
    headers = harmonize.kept_headers(mirror)
    monkeypatch.setattr(harmonize, "ALL_EXAMS", 50)
    with ThreadPoolExecutor(2) as workers:  # as the program does, but for processes of their own
        chapman = harmonize.chapman(workers, tmp_path / "chapman", headers, count=2, rounds=1)
        code15 = harmonize.code15(workers, tmp_path / "code15", harmonize.exams_of(mirror), count=9)
    assert chapman["records"] == 4
    assert chapman["ratio"] > 0
    assert code15["exams"] == 9
    assert 0 < code15["kept_share"] <= 1
    assert code15["cpu_seconds"] > 0
    stored = dict(harmonize.stored([tmp_path / "chapman/mirror", mirror], tmp_path / "stored"))
    assert set(stored) == {"chapman", "code15"}
    assert all(0 < share["share"] < 1.2 for share in stored.values())


def test_the_resampler_is_measured_against_the_sines_themselves(monkeypatch):
    figures = harmonize.resampling(100.0)
    assert 0 < figures["inside_uv"] < 1
    assert 0 < figures["edges_uv"] < 5
    monkeypatch.setattr(harmonize, "resample", lambda x_LT, rate: resample(x_LT, rate) + 0.001)
    assert harmonize.resampling(100.0)["inside_uv"] == pytest.approx(1.0, abs=0.1)
