"""How far our tensors are from those that published code wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

GRADIENT_TOLERANCE = 1e-4  # relative, of gradient norms


@dataclass(frozen=True)
class Comparison:
    """A comparison of one tensor, or of one gradient's norm, with the published code's."""

    name: str
    error: float  # largest absolute error of a tensor, relative error of a norm
    tolerance: float  # largest error that is accepted

    @property
    def holds(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error <= self.tolerance  # False for NaN


def largest_error(ours: Tensor | None, published: Tensor | None) -> float:
    """Return the largest absolute difference, or NaN if one is missing or their shapes differ."""
    if ours is None or published is None or ours.shape != published.shape:
        return float("nan")
    return (ours.double() - published.double()).abs().max().item()


def compare_gradients(parameters: Mapping[str, Tensor], norms: Mapping[str, float]) -> list[Comparison]:
    """Compare the norm of each parameter's gradient with the published one; both by published name."""
    ours = {name: value.grad.norm().item() for name, value in parameters.items() if value.grad is not None}
    compared = []
    for name in sorted(parameters.keys() | norms):
        norm, published = ours.get(name, float("nan")), norms.get(name, float("nan"))
        error = abs(norm - published) / max(abs(published), 1e-12)
        compared.append(Comparison(f"gradient of {name}", error, GRADIENT_TOLERANCE))
    return compared


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
