"""Scores -> probabilities that come true as often as they say, by a logistic curve fitted on held-out records.

Platt (Advances in Large Margin Classifiers, 1999), with his smoothed targets; solved as Lin, Lin and Weng (Machine
Learning 68, 2007) write the problem. Two figures a label: few validation records do not overfit it, and the order of
records, so every AUC, stays where the slope is above 0.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit


def fit_platt(logit_N: np.ndarray, y_N: np.ndarray) -> tuple[float, float]:
    """Slope and intercept: probability = sigmoid(slope * logit + intercept). The slope is 0 where logits tell positives
    from negatives not at all, or the wrong way round.

    Raises ValueError where y_N holds no positive or no negative.
    """
    positives = int(y_N.sum())
    negatives = len(y_N) - positives
    if not positives or not negatives:
        raise ValueError(f"{positives} positives and {negatives} negatives: calibration needs both")
    target_N = np.where(y_N, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, intercept = parameters
        z_N = slope * logit_N + intercept
        error_N = expit(z_N) - target_N
        value = np.logaddexp(0.0, z_N) - target_N * z_N
        return float(value.mean()), np.array([(error_N * logit_N).mean(), error_N.mean()])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)])
    return float(found.x[0]), float(found.x[1])
