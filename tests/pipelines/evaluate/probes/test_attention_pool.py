"""Attention pooling is multi-head attention with one query, finds what the mean drowns, and chooses on validation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ecg_model.serving.reader import attention
from pipelines.cache import Product
from pipelines.evaluate.features import TOKENS_FILE, Tokens
from pipelines.evaluate.probes.attention_pool import AttentionPool, Pooling
from pipelines.evaluate.probes.heads import FitProblem, Logistic

TRAIN, VALIDATION, TEST = np.arange(400), np.arange(400, 600), np.arange(600, 900)
QUICK = AttentionPool(heads=2, rates=(1e-2,), weight_decays=(1e-2,), epochs=8)


def tokens(classes: int = 3, *, multi_class: bool = False, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(N, P, D) float16 noise in which each class of a record marks one token at a place of its own, and labels."""
    rng = np.random.default_rng(seed)
    records, places, dim = 900, 24, 16
    x_NPD = rng.normal(size=(records, places, dim))
    if multi_class:
        y_NC = np.eye(classes, dtype=bool)[rng.integers(classes, size=records)]
    else:
        y_NC = rng.random((records, classes)) < 0.4
    for record, c in np.argwhere(y_NC):
        x_NPD[record, rng.integers(places), c] += 5.0
    return x_NPD.astype(np.float16), y_NC


def problem(*, multi_class: bool = False, **changes) -> FitProblem:
    x_NPD, y_NC = tokens(multi_class=multi_class)
    plain = FitProblem(x=x_NPD, y_NC=y_NC, train=TRAIN, validation=VALIDATION, multi_class=multi_class, seed=3)
    return replace(plain, **changes)


def test_pooling_is_multi_head_attention_with_one_query():
    torch.manual_seed(0)
    dim, heads = 12, 3
    network = Pooling(dim, heads, classes=2)
    network.initialise(torch.tensor([0.3, 0.5]), multi_class=False, seed=1)
    with torch.no_grad():
        network.query.mul_(100)  # so that the attention is far from even
    theirs = torch.nn.MultiheadAttention(dim, heads, bias=False, batch_first=True)
    with torch.no_grad():
        key_DD, value_DD = (part.reshape(dim, dim) for part in (network.key, network.value))
        theirs.in_proj_weight.copy_(torch.cat([torch.eye(dim), key_DD, value_DD]))
        theirs.out_proj.weight.copy_(torch.eye(dim))
    x_BPD = torch.randn(5, 40, dim)
    query_B1D = network.query.reshape(1, 1, dim).expand(5, 1, dim)
    pooled_B1D, weight_BH1P = theirs(query_B1D, x_BPD, x_BPD, average_attn_weights=False)
    weight_BHP = attention(network.token_query(), x_BPD)
    pooled_BD = network.pooled(weight_BHP @ x_BPD)
    torch.testing.assert_close(weight_BHP, weight_BH1P[:, :, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pooled_BD, pooled_B1D[:, 0], rtol=1e-5, atol=1e-6)
    assert float(weight_BHP.detach().max()) > 3 / 40
    pooled_BD.square().sum().backward()
    pooled_B1D.square().sum().backward()
    assert theirs.in_proj_weight.grad is not None
    assert network.key.grad is not None
    expected_DD = theirs.in_proj_weight.grad[dim : 2 * dim]
    torch.testing.assert_close(network.key.grad.reshape(dim, dim), expected_DD, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("multi_class", [False, True])
def test_it_finds_a_token_that_the_mean_drowns(multi_class):
    given = problem(multi_class=multi_class)
    fit = QUICK.fit(given)
    probability_NC = fit.model.probabilities(given.x, TEST)
    mean_ND = given.x[np.arange(900)].astype(np.float32).mean(axis=1)
    linear = Logistic(penalties=(1e-2,)).fit(replace(given, x=mean_ND))
    auc = roc_auc_score(given.y_NC[TEST], probability_NC, average="macro")
    assert auc > 0.9
    assert auc > roc_auc_score(given.y_NC[TEST], linear.model.probabilities(mean_ND, TEST), average="macro") + 0.05
    if multi_class:
        assert probability_NC.sum(axis=1) == pytest.approx(1.0, abs=1e-9)


def test_the_same_problem_gives_the_same_model_and_another_seed_another():
    given = problem()
    head = replace(QUICK, epochs=2)
    first, again = (head.fit(given) for _ in range(2))
    assert first.trials == again.trials
    assert np.array_equal(first.model.probabilities(given.x, TEST), again.model.probabilities(given.x, TEST))
    other = head.fit(replace(given, seed=4))
    assert not np.array_equal(first.model.probabilities(given.x, TEST), other.model.probabilities(given.x, TEST))


def test_the_setting_and_the_epoch_that_are_best_on_validation_are_kept():
    given = problem()
    head = replace(QUICK, rates=(1e-4, 1e-2), weight_decays=(0.0, 1.0), epochs=3)
    fit = head.fit(given)
    assert [(t.epoch, t.learning_rate, t.weight_decay) for t in fit.trials] == [
        (epoch, rate, decay) for epoch in (1, 2, 3) for rate in (1e-4, 1e-2) for decay in (0.0, 1.0)
    ]
    best = max(trial.validation_macro_auc for trial in fit.trials)
    kept_VC = fit.model.probabilities(given.x, VALIDATION)
    assert roc_auc_score(given.y_NC[VALIDATION], kept_VC, average="macro") == pytest.approx(best, abs=1e-12)


def test_settings_that_are_tried_together_do_not_touch_each_other():
    given = problem()
    both = replace(QUICK, rates=(1e-3, 1e-2), epochs=2).fit(given).trials
    alone = [replace(QUICK, rates=(rate,), epochs=2).fit(given).trials for rate in (1e-3, 1e-2)]
    in_turn = [trial for epoch in zip(*alone, strict=True) for trial in epoch]
    assert [(t.epoch, t.learning_rate) for t in both] == [(t.epoch, t.learning_rate) for t in in_turn]
    # Wider matrix products round differently.
    expected = pytest.approx([t.validation_macro_auc for t in in_turn], abs=2e-3)
    assert [t.validation_macro_auc for t in both] == expected


def test_labels_of_other_records_do_not_matter():
    given = problem()
    flipped_NC = given.y_NC.copy()
    flipped_NC[TEST] = ~flipped_NC[TEST]
    head = replace(QUICK, epochs=2)
    one, other = head.fit(given), head.fit(replace(given, y_NC=flipped_NC))
    assert np.array_equal(one.model.probabilities(given.x, TEST), other.model.probabilities(given.x, TEST))


def test_without_validation_the_last_epoch_of_one_setting_is_it():
    head = replace(QUICK, keep="last")
    assert not head.chooses
    assert QUICK.chooses
    assert replace(head, rates=(1e-3, 1e-2)).chooses
    given = problem(validation=np.arange(0))
    fit = head.fit(given)
    assert fit.trials == ()
    assert roc_auc_score(given.y_NC[TEST], fit.model.probabilities(given.x, TEST), average="macro") > 0.9


class Counted(Tokens):
    """Tokens on disk that note how many records are asked for at once."""

    most = 0

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.most = max(self.most, len(rows))
        return super().__getitem__(rows)


def test_tokens_stay_on_disk(tmp_path: Path):
    x_NPD, _ = tokens()
    products = {}
    for name, part_NPD in (("a", x_NPD[:500]), ("b", x_NPD[500:])):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / TOKENS_FILE, part_NPD)
        products[name] = Product(name=name, path=tmp_path / name, fingerprint="", digest="", seconds=0.0)
    on_disk = Counted(products)
    head = replace(QUICK, epochs=2)
    from_disk, from_memory = head.fit(problem(x=on_disk)), head.fit(problem())
    found_NC = from_disk.model.probabilities(on_disk, np.arange(900))
    assert on_disk.most <= 256
    assert np.array_equal(found_NC, from_memory.model.probabilities(x_NPD, np.arange(900)))


def test_a_class_begins_at_its_prevalence():
    network = Pooling(8, 2, classes=3)
    network.initialise(torch.tensor([0.2, 0.5, 0.9]), multi_class=False, seed=0)
    found_BC = network.eval()(torch.randn(4, 10, 8)).sigmoid()
    torch.testing.assert_close(found_BC, torch.tensor([[0.2, 0.5, 0.9]]).expand(4, 3))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 0}, "heads"),
        ({"epochs": 0}, "epochs"),
        ({"batch": 1}, "batch"),
        ({"rates": ()}, "rates"),
        ({"rates": (0.0,)}, "rates"),
        ({"weight_decays": (-1.0,)}, "weight_decays"),
        ({"keep": "first"}, "keep"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        AttentionPool(**wrong)


def test_problems_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="heads=3: use a divisor of 16"):
        replace(QUICK, heads=3).fit(problem())
    with pytest.raises(ValueError, match="at least 2"):
        QUICK.fit(problem(train=np.arange(1)))
