from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from pipelines.evaluate.probes.linear import fit_adamw, fit_path


def example(n=600, d=24, c=4, seed=0):
    """Correlated features far from zero and of very different scales, as embeddings are."""
    rng = np.random.default_rng(seed)
    factor_NK = rng.normal(size=(n, 6))
    x_ND = factor_NK @ rng.normal(size=(6, d)) + 0.3 * rng.normal(size=(n, d))
    logit_NC = factor_NK @ rng.normal(size=(6, c)) + rng.logistic(size=(n, c)) - np.linspace(0, 4, c)
    x_ND = x_ND * np.logspace(-3, 1, d) + rng.normal(size=d)
    return x_ND.astype(np.float32), logit_NC


@pytest.mark.parametrize("penalty", [1.0, 0.01])
def test_it_is_scikit_learns_logistic_regression(penalty):
    x_ND, logit_NC = example()
    y_NC = logit_NC > 0
    [model] = fit_path(x_ND, y_NC, [penalty], multi_class=False)
    z_ND = StandardScaler().fit_transform(x_ND.astype(np.float64))
    for c in range(y_NC.shape[1]):
        oracle = LogisticRegression(C=1 / (len(x_ND) * penalty), tol=1e-10, max_iter=5000).fit(z_ND, y_NC[:, c])
        assert model.probabilities(x_ND)[:, c] == pytest.approx(oracle.predict_proba(z_ND)[:, 1], abs=1e-4)


def test_it_is_scikit_learns_softmax_regression():
    x_ND, logit_NC = example()
    kind_N = logit_NC.argmax(axis=1)
    [model] = fit_path(x_ND, np.eye(4, dtype=bool)[kind_N], [0.02], multi_class=True)
    z_ND = StandardScaler().fit_transform(x_ND.astype(np.float64))
    oracle = LogisticRegression(C=1 / (len(x_ND) * 0.02), tol=1e-10, max_iter=5000).fit(z_ND, kind_N)
    assert model.probabilities(x_ND) == pytest.approx(oracle.predict_proba(z_ND), abs=1e-4)
    assert model.probabilities(x_ND).sum(axis=1) == pytest.approx(1)


def test_a_warm_start_ends_where_a_cold_one_does():
    x_ND, logit_NC = example()
    *_, warm = fit_path(x_ND, logit_NC > 0, [1.0, 0.1, 0.01], multi_class=False)
    [cold] = fit_path(x_ND, logit_NC > 0, [0.01], multi_class=False)
    assert warm.probabilities(x_ND) == pytest.approx(cold.probabilities(x_ND), abs=1e-4)


def test_the_same_input_gives_the_same_bits():
    x_ND, logit_NC = example()
    first, second = (list(fit_path(x_ND, logit_NC > 0, [0.1, 0.01], multi_class=False)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.weight_DC, b.weight_DC)
        assert np.array_equal(a.bias_C, b.bias_C)


def test_scale_and_offset_of_a_feature_change_nothing():
    x_ND, logit_NC = example()
    [plain] = fit_path(x_ND, logit_NC > 0, [0.1], multi_class=False)
    moved_ND = x_ND.astype(np.float64) * np.logspace(-1, 4, x_ND.shape[1]) + 3
    [moved] = fit_path(moved_ND, logit_NC > 0, [0.1], multi_class=False)
    assert moved.probabilities(moved_ND) == pytest.approx(plain.probabilities(x_ND), abs=1e-4)


def test_constant_and_repeated_features_more_features_than_records_and_separable_classes():
    rng = np.random.default_rng(2)
    x_ND = rng.normal(size=(40, 30)).astype(np.float32)
    y_NC = np.stack([x_ND[:, 0] > 0, np.arange(40) == 7], axis=1)
    wide_ND = np.concatenate([x_ND, x_ND, np.full((40, 3), 1234.567, np.float32)], axis=1)
    for model in fit_path(wide_ND, y_NC, [1.0, 0.01, 1e-4], multi_class=False):
        assert np.isfinite(model.weight_DC).all()
        assert (model.weight_DC[-3:] == 0).all()
        assert model.weight_DC[:30] == pytest.approx(model.weight_DC[30:60], abs=1e-9)
    assert roc_auc_score(y_NC, model.probabilities(wide_ND), average="macro") == 1.0


def test_the_papers_loop_learns_and_is_seeded():
    rng = np.random.default_rng(4)
    x_ND = rng.normal(size=(800, 16)).astype(np.float32)
    y_NC = (x_ND[:, :3] + 0.5 * rng.normal(size=(800, 3))) > 0
    first, again, other = (fit_adamw(x_ND, y_NC, multi_class=False, seed=s) for s in (0, 0, 1))
    assert np.array_equal(first.weight_DC, again.weight_DC)
    assert not np.array_equal(first.weight_DC, other.weight_DC)
    [solved] = fit_path(x_ND, y_NC, [1e-3], multi_class=False)
    best = roc_auc_score(y_NC, solved.probabilities(x_ND), average="macro")
    assert roc_auc_score(y_NC, first.probabilities(x_ND), average="macro") == pytest.approx(best, abs=0.01)
    kind_NC = np.eye(3, dtype=bool)[x_ND[:, :3].argmax(axis=1)]
    model = fit_adamw(x_ND, kind_NC, multi_class=True, seed=0)
    assert (model.probabilities(x_ND).argmax(axis=1) == kind_NC.argmax(axis=1)).mean() > 0.9
