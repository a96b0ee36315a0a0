"""Figures that show a collapse: effective rank and spread."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_model.ecg_encoder import windows
from pipelines.pretrain import monitor as monitoring
from pipelines.pretrain.data import to_millivolt
from pipelines.pretrain.monitor import Monitor, effective_rank
from pipelines.pretrain.objectives import objective_of
from pipelines.pretrain.objectives.cpc import CPCObjective
from tests.support.pretraining import CPU, TINY_RECIPE, TINY_RECIPES, corpus


@given(rank=st.integers(1, 12), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_effective_rank_counts_equal_directions(rank: int, seed: int) -> None:
    """`rank` orthogonal directions of equal strength, each with mean zero: the rank is exactly that."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(np.c_[np.ones(40), rng.standard_normal((40, rank))])
    axes, _ = np.linalg.qr(rng.standard_normal((16, rank)))
    x_ND = torch.from_numpy(basis[:, 1:] @ axes.T + rng.standard_normal(16))  # an offset changes nothing
    assert effective_rank(x_ND) == pytest.approx(rank, rel=1e-6)


def test_effective_rank_at_its_limits() -> None:
    assert effective_rank(torch.full((5, 3), 0.1)) == 0.0
    assert effective_rank(torch.randn(1, 3)) == 0.0
    assert math.isnan(effective_rank(torch.tensor([[1.0, float("nan")], [0.0, 1.0]])))


def test_the_monitor_agrees_with_figures_over_all_records_at_once() -> None:
    torch.manual_seed(0)
    objective = objective_of(TINY_RECIPE)
    model = objective.model.train()
    signal_NLT = corpus(1, 70).validation_NLT  # three batches, the last one short
    state = torch.get_rng_state()
    figures = Monitor(signal_NLT, CPU).figures(objective, torch.autocast("cpu", enabled=False))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not model.teacher.training
    x_NLT = to_millivolt(signal_NLT, np.arange(70), CPU)
    with torch.no_grad():
        embedding_ND = model.student.eval().embed(x_NLT)
        targets_NLPD = model.targets(x_NLT)
    assert figures["embedding_std"] == pytest.approx(embedding_ND.numpy().std(axis=0).mean(), rel=1e-5)
    assert figures["target_std"] == pytest.approx(targets_NLPD.double().numpy().std(axis=0).mean(), rel=1e-5)
    assert figures["effective_rank"] == pytest.approx(effective_rank(embedding_ND), rel=1e-3)
    assert 0 < figures["validation_loss"] < 2


def test_the_monitor_of_cpc_agrees_with_figures_over_all_records() -> None:
    torch.manual_seed(0)
    objective = objective_of(TINY_RECIPES["cpc"])
    assert isinstance(objective, CPCObjective)
    model = objective.model.train()
    signal_NLT = corpus(1, 70).validation_NLT  # three batches, the last one short
    before = {name: value.clone() for name, value in model.state_dict().items()}
    figures = Monitor(signal_NLT, CPU).figures(objective, torch.autocast("cpu", enabled=False))
    assert figures == Monitor(signal_NLT, CPU).figures(objective, torch.autocast("cpu", enabled=False))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    x_NLT = to_millivolt(signal_NLT, np.arange(70), CPU)
    with torch.no_grad():
        z_NLD = model.eval().encoder.encode(objective.read(windows(x_NLT, 625)))
        embedding_ND = model.encoder.embed(x_NLT)
    assert figures["dead_channels"] == pytest.approx((z_NLD <= 0).flatten(0, 1).all(dim=0).float().mean().item())
    assert figures["effective_rank"] == pytest.approx(effective_rank(embedding_ND), rel=1e-3)
    assert figures["chance_nats"] == pytest.approx(math.log(9))
    assert figures["validation_nats"] == pytest.approx(figures["validation_loss"] / 22)
    assert 0 <= figures["validation_accuracy"] <= 1


def test_the_monitor_takes_evenly_spaced_records_of_many() -> None:
    many = torch.zeros(1000, 8, 2500, dtype=torch.int16)
    rows = Monitor(many, CPU)._rows
    assert len(rows) == monitoring.RECORDS
    assert (rows[0], rows[-1]) == (0, 999)
