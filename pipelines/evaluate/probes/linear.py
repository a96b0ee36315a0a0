"""The linear probe's one layer, fitted in two ways.

`fit_path` (the default) solves the layer's convex problem to convergence: standardised features, logistic loss, an L2
penalty. The paper trains the same layer by AdamW for ten epochs; its result depends on the seed, the order of batches
and the scale of the features (with embeddings that vary by 0.03 the layer hardly moves), so two encoders would be
compared by how far the loop got. The solution has one hyperparameter, the penalty, and is the same every time.
`fit_adamw` is the paper's loop, for comparison with its numbers.

Shapes: N records, D features, C classes, K principal axes and a bias, B records of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit, softmax

TOLERANCE = 2e-4
"""The last step changes no training record's probability by more; the remaining error is below 1e-4 (see `_solve`)."""

_MOST_STEPS = 100  # of Newton's method
_MOST_PRODUCTS = 1000  # with the Hessian, in one step
_MOST_HALVINGS = 30  # of one step
_BLOCK = 1024  # records whose features stay in the processor's cache


@dataclass(frozen=True, kw_only=True)
class LinearModel:
    """A linear layer on features as the encoder gives them: probabilities = link(x @ weight_DC + bias_C)."""

    weight_DC: np.ndarray
    bias_C: np.ndarray
    multi_class: bool

    def probabilities(self, x_ND: np.ndarray) -> np.ndarray:
        """Return probabilities, float64 (N, C): sigmoids, or a softmax over classes that exclude each other."""
        return _link(x_ND @ self.weight_DC + self.bias_C, self.multi_class)


def fit_path(
    x_ND: np.ndarray, y_NC: np.ndarray, penalties: Sequence[float], *, multi_class: bool
) -> Iterator[LinearModel]:
    """Yield the solution for each penalty, from strong to weak, each started from the one before.

    Minimises  mean_n loss(y_n, w^T z_n + b) + penalty / 2 * |w|^2  with z the features standardised by x_ND's mean and
    standard deviation; b is not penalised. (scikit-learn's C is 1 / (N * penalty).) Every class needs a positive and a
    negative. Raises RuntimeError if the solver does not converge.
    """
    mean_D = x_ND.mean(axis=0, dtype=np.float64)
    scale_D = x_ND.std(axis=0, dtype=np.float64)
    scale_D[scale_D <= 1e-6 * np.abs(mean_D)] = np.inf  # constant to float32's precision, so without information
    z_ND = (x_ND - mean_D) / scale_D
    # On the principal axes the Hessian is close to diagonal, which the preconditioner needs: embeddings are so strongly
    # correlated that otherwise the condition number would determine the number of steps. The penalty is invariant.
    variance_K, axes_DK = np.linalg.eigh(z_ND.T @ z_ND / len(z_ND))
    axes_DK = axes_DK[:, variance_K > 1e-12 * variance_K[-1]]  # along the others the penalised solution is zero
    # The last column is for the bias. float32 halves the time, and its noise is far below the tolerance.
    z_NK = np.concatenate([z_ND @ axes_DK, np.ones((len(z_ND), 1))], axis=1, dtype=np.float32, casting="same_kind")
    # Start at each class's prevalence, and solve for the penalties one after another.
    prevalence_C = y_NC.mean(axis=0)
    weight_KC = np.zeros((z_NK.shape[1], y_NC.shape[1]))
    weight_KC[-1] = np.log(prevalence_C) if multi_class else np.log(prevalence_C / (1 - prevalence_C))
    for penalty in penalties:
        penalty_K1 = np.full((z_NK.shape[1], 1), penalty)
        penalty_K1[-1] = 0.0
        weight_KC = _solve(z_NK, y_NC.astype(np.float32), penalty_K1, weight_KC, multi_class)
        weight_DC = (axes_DK @ weight_KC[:-1]) / scale_D[:, None]
        yield LinearModel(weight_DC=weight_DC, bias_C=weight_KC[-1] - mean_D @ weight_DC, multi_class=multi_class)


def _solve(
    z_NK: np.ndarray, y_NC: np.ndarray, penalty_K1: np.ndarray, weight_KC: np.ndarray, multi_class: bool
) -> np.ndarray:
    """Solve by Newton's method from the given weights, for all classes at once, as products of large matrices.

    If classes do not exclude each other they are separate problems: each has its own steps, and drops out when it is
    solved, which is after a step that changes no record's probability by more than TOLERANCE. Convergence is
    superlinear, so the remaining error is far smaller. Raises RuntimeError if it does not converge.
    """
    weight_KC = weight_KC.copy()
    open_C = np.arange(weight_KC.shape[1])
    for _ in range(_MOST_STEPS):
        w_KC, target_NC = weight_KC[:, open_C], y_NC[:, open_C]
        logit_NC = _logits(z_NK, w_KC)
        p_NC = _link(logit_NC, multi_class)
        gradient_KC = _centred(_gradient(z_NK, p_NC - target_NC), multi_class) + penalty_K1 * w_KC
        step_KC = _newton_step(z_NK, p_NC, penalty_K1, gradient_KC, multi_class)
        # Solved: the step changes no probability by more than the tolerance, to first order.
        moved_NC = _logits(z_NK, step_KC)
        change_C = np.abs(_curved(p_NC, moved_NC, multi_class)).max(axis=0)
        near_C = np.full_like(change_C, change_C.max()) <= TOLERANCE if multi_class else change_C <= TOLERANCE
        # Halve the steps of classes whose loss rises at their end about as steeply as it fell at their start.
        fall_C = -_slope(0.0, logit_NC, moved_NC, target_NC, penalty_K1, w_KC, step_KC, multi_class)
        share_C = np.ones(len(open_C))
        for _ in range(_MOST_HALVINGS):
            rise_C = _slope(share_C, logit_NC, moved_NC, target_NC, penalty_K1, w_KC, step_KC, multi_class)
            far_C = ~near_C & (rise_C > fall_C / 2)
            if not far_C.any():
                break
            share_C[far_C] /= 2
        weight_KC[:, open_C] = w_KC + share_C * step_KC
        open_C = open_C[~near_C]
        if not len(open_C):
            return weight_KC
    raise RuntimeError(f"the probe with penalty {penalty_K1[0, 0]:g} did not converge in {len(open_C)} classes")


def _slope(
    share_C: np.ndarray | float,
    logit_NC: np.ndarray,
    moved_NC: np.ndarray,
    target_NC: np.ndarray,
    penalty_K1: np.ndarray,
    w_KC: np.ndarray,
    step_KC: np.ndarray,
    multi_class: bool,
) -> np.ndarray:
    """Return the loss's slope along a step, (C,), at a share of it.

    The loss is convex: if it rises there about as steeply as it fell at first, the step is too long.

    share_C: the share of the step.
    logit_NC, moved_NC: logits before the step, and their change by the whole step.
    target_NC: the targets.
    w_KC, step_KC: weights before the step, and the step.
    """
    error_NC = _link(logit_NC + np.float32(share_C) * moved_NC, multi_class) - target_NC
    of_penalty_C = _sum(penalty_K1 * (w_KC + share_C * step_KC) * step_KC, multi_class)
    return _sum(error_NC * moved_NC, multi_class) / len(logit_NC) + of_penalty_C


def _newton_step(
    z_NK: np.ndarray, p_NC: np.ndarray, penalty_K1: np.ndarray, gradient_KC: np.ndarray, multi_class: bool
) -> np.ndarray:
    """Return minus the inverse Hessian times the gradient, (K, C), by preconditioned conjugate gradients.

    The preconditioner is the Hessian's diagonal. The nearer the solution, the smaller the residual at which they stop,
    which makes convergence superlinear.
    """
    diagonal_KC = _gradient(z_NK**2, p_NC * (1 - p_NC)) + penalty_K1
    if multi_class:  # one diagonal for all classes keeps directions centred (see `_centred`)
        diagonal_KC = np.broadcast_to(diagonal_KC.mean(axis=1, keepdims=True), diagonal_KC.shape)
    step_KC = np.zeros_like(gradient_KC)
    residual_KC = -gradient_KC
    direction_KC = residual_KC / diagonal_KC
    size_C = _sum(residual_KC * direction_KC, multi_class)
    enough_C = size_C * np.minimum(0.01, size_C)
    open_C = np.arange(len(size_C))
    for _ in range(_MOST_PRODUCTS):
        live_C = size_C > enough_C
        if not live_C.any():
            break
        if not live_C.all():  # go on with the classes that are not solved
            open_C, p_NC, size_C, enough_C = open_C[live_C], p_NC[:, live_C], size_C[live_C], enough_C[live_C]
            diagonal_KC, residual_KC = diagonal_KC[:, live_C], residual_KC[:, live_C]
            direction_KC = direction_KC[:, live_C]
        image_KC = _hessian_times(z_NK, p_NC, direction_KC, multi_class) + penalty_K1 * direction_KC
        length_C = size_C / _sum(direction_KC * image_KC, multi_class)
        step_KC[:, open_C] += length_C * direction_KC
        residual_KC = residual_KC - length_C * image_KC
        scaled_KC = residual_KC / diagonal_KC
        left_C = _sum(residual_KC * scaled_KC, multi_class)
        direction_KC = scaled_KC + left_C / size_C * direction_KC
        size_C = left_C
    return step_KC


def _hessian_times(z_NK: np.ndarray, p_NC: np.ndarray, w_KC: np.ndarray, multi_class: bool) -> np.ndarray:
    """Return the mean loss's Hessian, without the penalty's, times each class's column, (K, C).

    It goes by blocks of records that stay in the cache: with few classes left, reading z_NK from memory takes most of
    the time.
    """
    w_KC = w_KC.astype(np.float32)
    image_KC = np.zeros_like(w_KC)
    for first in range(0, len(z_NK), _BLOCK):
        z_BK, p_BC = z_NK[first : first + _BLOCK], p_NC[first : first + _BLOCK]
        image_KC += z_BK.T @ _curved(p_BC, z_BK @ w_KC, multi_class)
    return _centred(image_KC.astype(np.float64) / len(z_NK), multi_class)


def _logits(z_NK: np.ndarray, w_KC: np.ndarray) -> np.ndarray:
    """Return logits, float32 (N, C)."""
    return z_NK @ w_KC.astype(np.float32)


def _gradient(z_NK: np.ndarray, error_NC: np.ndarray) -> np.ndarray:
    """Return the mean loss's gradient by the weights, (K, C), given that by the logits, (N, C)."""
    return (z_NK.T @ error_NC).astype(np.float64) / len(z_NK)


def _curved(p_NC: np.ndarray, moved_NC: np.ndarray, multi_class: bool) -> np.ndarray:
    """Return the first-order change of probabilities, (N, C), given that of logits (the loss's Hessian by logits)."""
    if multi_class:
        return p_NC * (moved_NC - (p_NC * moved_NC).sum(axis=1, keepdims=True))
    return p_NC * (1 - p_NC) * moved_NC


def _sum(values: np.ndarray, multi_class: bool) -> np.ndarray:
    """Return each class's sum, (C,), or the sum over all classes for each if they are one problem."""
    sum_C = values.sum(axis=0, dtype=np.float64)
    return np.full_like(sum_C, sum_C.sum()) if multi_class else sum_C


def _centred(values_KC: np.ndarray, multi_class: bool) -> np.ndarray:
    """Subtract the mean over classes if they are one problem.

    A softmax does not depend on it, so it is rounding error alone, and the biases, which have no penalty, would drift
    along it.
    """
    return values_KC - values_KC.mean(axis=1, keepdims=True) if multi_class else values_KC


def _link(logit_NC: np.ndarray, multi_class: bool) -> np.ndarray:
    """Return probabilities, (N, C)."""
    return softmax(logit_NC, axis=1) if multi_class else expit(logit_NC)


def fit_adamw(x_ND: np.ndarray, y_NC: np.ndarray, *, multi_class: bool, seed: int) -> LinearModel:
    """Fit by the paper's loop: AdamW, lr 0.01 with a cosine to lr/10, batch 16, 10 epochs, raw features."""
    epochs, batch, peak = 10, 16, 0.01
    x, y = torch.as_tensor(x_ND, dtype=torch.float32), torch.as_tensor(y_NC, dtype=torch.float32)
    order = torch.Generator().manual_seed(seed)
    layer = torch.nn.Linear(x.shape[1], y.shape[1])
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=peak)
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, eta_min=peak / 10)
    criterion = torch.nn.CrossEntropyLoss() if multi_class else torch.nn.BCEWithLogitsLoss()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).split(batch):
            optimiser.zero_grad()
            criterion(layer(x[rows]), y[rows]).backward()
            optimiser.step()
            schedule.step()
    weight_CD, bias_C = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
    return LinearModel(weight_DC=weight_CD.T, bias_C=bias_C, multi_class=multi_class)
