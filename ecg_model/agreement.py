"""How far our tensors are from those that published code wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

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


def renamed(
    remaining: dict[str, Tensor],
    module: nn.Module,
    published_name: Callable[[str], str],
    fitted: Callable[[Tensor, Tensor, str], Tensor],
) -> dict[str, Tensor]:
    """Return a published state dict under the names of `module`, whose weights are taken away from `remaining`.

    published_name: of a weight of the module. fitted: our weight, the published one and its name -> the weight as the
    module takes it.

    Raises ValueError naming a weight that is missing or superfluous, and as `fitted` does.
    """
    weights: dict[str, Tensor] = {}
    for name, ours in module.state_dict().items():
        published = published_name(name)
        if published not in remaining:
            raise ValueError(f"weight {published!r} is missing: give a complete published state dict")
        weights[name] = fitted(ours, remaining.pop(published), published)
    if remaining:
        raise ValueError(f"weight {min(remaining)!r} is none of the published network's: give its state dict alone")
    return weights


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
