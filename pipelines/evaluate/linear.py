"""The linear probe's one layer, fitted in two ways.

`fit_path` (the default) solves the convex problem that the layer poses, to convergence: standardised features, logistic
loss, an L2 penalty. The paper trains the same layer by AdamW for ten epochs; where that ends depends on the seed, the
order of batches and the scale of the features (an encoder whose embeddings vary by 0.03 hardly moves), so two encoders
would be compared by how far the loop got. The solution has one hyperparameter, the penalty, and is the same every time.
`fit_adamw` is the paper's loop, for comparison with its numbers.

Shapes: N records, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, softmax


@dataclass(frozen=True, kw_only=True)
class LinearModel:
    """probabilities = link(x @ weight_DC + bias_C), on features as the encoder gives them."""

    weight_DC: np.ndarray
    bias_C: np.ndarray
    multi_class: bool

    def probabilities(self, x_ND: np.ndarray) -> np.ndarray:
        """float64 (N, C): a sigmoid for each class, or a softmax over classes that exclude each other."""
        return _link(x_ND @ self.weight_DC + self.bias_C, self.multi_class)


def fit_path(
    x_ND: np.ndarray, y_NC: np.ndarray, penalties: Sequence[float], *, multi_class: bool
) -> Iterator[LinearModel]:
    """The probe for each penalty, from strong to weak, each started from the one before.

    Minimises  mean_n loss(y_n, w^T z_n + b) + penalty / 2 * |w|^2  with z the features standardised by x_ND's mean and
    standard deviation; b is not penalised. (scikit-learn's C is 1 / (N * penalty).) Every class needs a positive and a
    negative. Raises RuntimeError where L-BFGS does not converge.
    """
    mean_D = x_ND.mean(axis=0, dtype=np.float64)
    scale_D = x_ND.std(axis=0, dtype=np.float64)
    scale_D[scale_D <= 1e-6 * np.abs(mean_D)] = np.inf  # constant to float32's precision: it carries nothing
    z_ND = (x_ND - mean_D) / scale_D
    # On the principal axes the Hessian is close to diagonal, which `_solve` makes use of: embeddings are so strongly
    # correlated that without it the condition number would decide how many steps it takes. The penalty is invariant.
    variance_K, axes_DK = np.linalg.eigh(z_ND.T @ z_ND / len(z_ND))
    axes_DK = axes_DK[:, variance_K > 1e-12 * variance_K[-1]]  # along the others the penalised solution is zero
    z_NK = (z_ND @ axes_DK).astype(np.float32)
    target_NC = y_NC.astype(np.float64)
    prevalence_C = target_NC.mean(axis=0)
    weight_KC = np.zeros((axes_DK.shape[1], target_NC.shape[1]))
    bias_C = np.log(prevalence_C) if multi_class else np.log(prevalence_C / (1 - prevalence_C))
    for penalty in penalties:
        weight_KC, bias_C = _solve(z_NK, target_NC, penalty, weight_KC, bias_C, multi_class)
        weight_DC = (axes_DK @ weight_KC) / scale_D[:, None]
        yield LinearModel(weight_DC=weight_DC, bias_C=bias_C - mean_D @ weight_DC, multi_class=multi_class)


def _solve(
    z_NK: np.ndarray,
    target_NC: np.ndarray,
    penalty: float,
    weight_KC: np.ndarray,
    bias_C: np.ndarray,
    multi_class: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """L-BFGS from (weight, bias), in variables scaled by the square root of the Hessian's diagonal at that start.

    z_NK is float32 and so are its products, which halves the time; their noise is far below the tolerance.
    """
    split, records = weight_KC.size, len(target_NC)

    def logits(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        return (z_NK @ weight.astype(np.float32)).astype(np.float64) + bias

    probability_NC = _link(logits(weight_KC, bias_C), multi_class)
    spread_NC = probability_NC * (1 - probability_NC)
    scale_KC = np.sqrt((z_NK**2).T @ spread_NC.astype(np.float32) / records + penalty)
    scale_C = np.sqrt(spread_NC.mean(axis=0))

    def unpack(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return u[:split].reshape(scale_KC.shape) / scale_KC, u[split:] / scale_C

    def loss_and_gradient(u: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = unpack(u)
        logit_NC = logits(weight, bias)
        excess = float(np.sum(logsumexp(logit_NC, axis=1) if multi_class else _softplus(logit_NC)))
        loss = (excess - np.vdot(target_NC, logit_NC)) / records + penalty / 2 * np.vdot(weight, weight)
        error_NC = (_link(logit_NC, multi_class) - target_NC) / records
        gradient_KC = z_NK.T @ error_NC.astype(np.float32) + penalty * weight
        return loss, np.concatenate([(gradient_KC / scale_KC).ravel(), error_NC.sum(axis=0) / scale_C])

    start = np.concatenate([(weight_KC * scale_KC).ravel(), bias_C * scale_C])
    # In these variables the curvature is about one, so the tolerance bounds the distance to the solution as well.
    options = {"maxiter": 1000, "maxfun": 2000, "maxcor": 20, "ftol": 0.0, "gtol": 1e-4}
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
    if not found.success:
        raise RuntimeError(f"the probe with penalty {penalty} did not converge: {found.message}")
    return unpack(found.x)


def _link(logit_NC: np.ndarray, multi_class: bool) -> np.ndarray:
    return softmax(logit_NC, axis=1) if multi_class else expit(logit_NC)


def _softplus(x: np.ndarray) -> np.ndarray:
    """log(1 + exp(x)) without overflow; a third of the time of np.logaddexp(0, x)."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def fit_adamw(x_ND: np.ndarray, y_NC: np.ndarray, *, multi_class: bool, seed: int) -> LinearModel:
    """The paper's linear evaluation: AdamW, lr 0.01 with a cosine to lr/10, batch 16, 10 epochs, raw features."""
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
