"""The published weights of contrastive predictive coding on S4 (ECG-CPC) under the names of this network.

What a checkpoint does not say is as published: a stride of 2 samples, 240 samples a second, LayerNorm after each block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ecg_model.agreement import renamed
from ecg_model.config import S4EncoderConfig
from ecg_model.cpc import CPC
from ecg_model.s4 import S4, hippo_legs
from ecg_model.s4_encoder import S4Encoder

PREFIX = "ts_encoder."
"""Of the names of all published weights."""
_STEM, _STACK = f"{PREFIX}encoder.layers.", f"{PREFIX}predictor.predictor."
_HEAD = f"{PREFIX}head_ssl.proj.0.weight"
_LAYER = {
    "s4.C": "kernel.kernel.C",
    "s4.D": "D",
    "s4.w": "kernel.kernel.w",
    "s4.B": "kernel.kernel.B",
    "s4.P": "kernel.kernel.P",
    "s4.log_dt": "kernel.kernel.log_dt",
    "linear.weight": "output_linear.0.weight",
    "linear.bias": "output_linear.0.bias",
}
_OMEGA, _Z, _Q = "kernel.kernel.omega", "kernel.kernel.z", "kernel.kernel.Q"
"""Published buffers that follow from others."""

_ROUNDING = 1e-4  # of fixed tensors, which the public code computes in float32
_LEAST_LEFT = 1e-3  # of 1 - Ā^L0: with less of it left, C cannot be told from its length-corrected form in float32


def published_name(name: str) -> str:
    """Return the published name of a weight of `CPC`: `ts_encoder.encoder.layers.0.0.weight` for the first filter."""
    if name == "head.weight":
        return _HEAD
    part, _, inside = name.removeprefix("encoder.").partition(".")
    number, _, inside = inside.partition(".")
    if part == "stem":
        return f"{_STEM}{number}.{inside.replace('conv.', '0.').replace('norm.', '1.')}"
    if inside in _LAYER:
        return f"{_STACK}s4_layers.{number}.{_LAYER[inside]}"
    return f"{_STACK}norms.{number}.{inside.removeprefix('norm.')}"


def encoder_names(names: Mapping[str, object]) -> list[str]:
    """Return those of the names that are of an encoder's published weights, without the head."""
    return [name for name in names if name.startswith(PREFIX) and name != _HEAD]


def published_sizes(shapes: Mapping[str, tuple[int, ...]]) -> S4EncoderConfig:
    """Return the configuration of an encoder whose published weights have these shapes.

    Raises ValueError if one that a size is read off is missing or has another number of axes, and if this network has
    no such size. The other shapes are compared when the weights are loaded (`from_published`).
    """

    def shape(name: str, axes: int) -> tuple[int, ...]:
        if name not in shapes:
            raise ValueError(f"weight {name!r} is missing: give a complete published state dict")
        if len(shapes[name]) != axes:
            raise ValueError(f"weight {name!r} has shape {shapes[name]}: the published one has {axes} axes")
        return shapes[name]

    stem_dim, leads, kernel = shape(f"{_STEM}0.0.weight", 3)
    directions, dim, pairs, _ = shape(f"{_STACK}s4_layers.0.{_LAYER['s4.C']}", 4)
    rows, _ = shape(f"{_STACK}s4_layers.0.{_OMEGA}", 2)
    if stem_dim != dim:
        raise ValueError(
            f"a stem of {stem_dim} channels before S4 layers of {dim}: the published ones have equal widths"
        )
    if directions not in (1, 2):
        raise ValueError(f"S4 layers of {directions} kernels: the published ones have 1, or 2 in two directions")
    published = S4EncoderConfig()
    return S4EncoderConfig(
        leads=leads,
        samples=2 * (rows - 1) * published.token_samples,
        stem_dim=stem_dim,
        stem_depth=_count(shapes, _STEM, ".0.weight"),
        stem_kernel=kernel,
        dim=dim,
        depth=_count(shapes, f"{_STACK}s4_layers.", ".D"),
        state=2 * pairs,
        causal=directions == 1,
    )


def _count(names: Mapping[str, object], before: str, after: str) -> int:
    """Return how many of the names `before0after`, `before1after`, ... there are."""
    return next(number for number in range(len(names) + 1) if f"{before}{number}{after}" not in names)


def from_published(state: Mapping[str, Tensor], module: CPC | S4Encoder) -> dict[str, Tensor]:
    """Convert a published state dict to one for `module`; an encoder takes it without the head.

    Raises ValueError naming a weight that is missing, superfluous, of another shape or not finite, a state space that
    this network cannot have (Q is the conjugate of P, and each state fades), and weights of another length than the
    module's.
    """
    alone = isinstance(module, S4Encoder)
    config = module.config if alone else module.config.encoder
    names = encoder_names(state) if alone else [name for name in state if name.startswith(PREFIX)]
    remaining = {name: state[name] for name in names}
    layers = [f"{_STACK}s4_layers.{number}." for number in range(config.depth)]
    following = [_taken(remaining, layer) for layer in layers]
    weights = renamed(remaining, module, published_name, _fitted)
    for number, (layer, (omega, Q)) in enumerate(zip(layers, following, strict=True)):
        ours = f"{'' if alone else 'encoder.'}blocks.{number}.s4."
        _require_length(omega, layer, config.tokens)
        _require_state_space(weights[f"{ours}w"], weights[f"{ours}P"], Q, layer)
    return weights


def require_recoverable(encoder: S4Encoder) -> None:
    """Raise ValueError, naming the tensor, if a step is so short or long that the kernels cannot be computed."""
    for number, block in enumerate(encoder.s4_blocks):
        if not _recoverable(block.s4):
            low, high = block.s4.log_dt.exp().aminmax()
            raise ValueError(
                f"weight '{_STACK}s4_layers.{number}.{_LAYER['s4.log_dt']}' states steps of {low:.3g} to {high:.3g} "
                f"tokens, for which no kernel of {block.s4.tokens} tokens follows: give weights of a finished training"
            )


def _recoverable(layer: S4) -> bool:
    try:
        A_HNN, _ = layer.discrete()
        # The bilinear rule makes contractions of systems that fade. torch's eigenvalues of NaN end the process.
        if not (A_HNN.abs() <= 1 + _ROUNDING).all():
            return False
        left_HN = (1 - torch.linalg.eigvals(A_HNN) ** layer.tokens).abs()
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]  # numbers too large for an inverse
        return False
    return bool((left_HN >= _LEAST_LEFT).all())  # False for NaN


def is_legs(layer: S4) -> bool:
    """Whether a layer's fixed state space is HiPPO-LegS, as published. B and P have a phase in common that is free."""
    w_N, B_N, P_N = hippo_legs(2 * layer.w.shape[1])
    w_HN, B_HN, P_HN = (torch.view_as_complex(value.double()) for value in (layer.w, layer.B, layer.P))
    order_HN = w_HN.imag.argsort(dim=1, descending=True)
    w_HN, B_HN, P_HN = (value.gather(1, order_HN) for value in (w_HN, B_HN, P_HN))
    pairs = ((w_HN, w_N), (B_HN.abs(), B_N.abs()), (B_HN.conj() * P_HN, B_N.conj() * P_N))
    return all(torch.allclose(ours, legs.expand_as(ours), rtol=_ROUNDING, atol=_ROUNDING) for ours, legs in pairs)


def _fitted(ours: Tensor, value: Tensor, published: str) -> Tensor:
    """Return a weight in our shape, which may lack axes of one. Raises ValueError if it cannot be, or is not finite."""
    if value.numel() != ours.numel() or [n for n in value.shape if n > 1] != [n for n in ours.shape if n > 1]:
        shapes = f"has shape {tuple(value.shape)}, the network asks for {tuple(ours.shape)}"
        raise ValueError(f"weight {published!r} {shapes}")
    if value.dtype != ours.dtype or not value.isfinite().all():
        raise ValueError(f"weight {published!r} is {value.dtype} or not finite: give finite {ours.dtype}")
    if published.endswith("running_var") and (value < 0).any():
        raise ValueError(f"weight {published!r} has variances below 0: give weights of a finished training")
    return value.reshape(ours.shape)


def _taken(remaining: dict[str, Tensor], layer: str) -> tuple[Tensor, Tensor]:
    """Take away a layer's buffers that follow from others. Returns omega and Q."""
    for name in (_OMEGA, _Z, _Q):
        if layer + name not in remaining:
            raise ValueError(f"weight {layer + name!r} is missing: give a complete published state dict")
    omega, _, Q = (remaining.pop(layer + name) for name in (_OMEGA, _Z, _Q))
    return omega, Q


def _require_length(omega: Tensor, layer: str, tokens: int) -> None:
    """Raise ValueError if omega is not half of the roots of unity of so many tokens."""
    length = 2 * (omega.shape[0] - 1) if omega.ndim else 0
    if length != tokens:
        raise ValueError(f"{layer}{_OMEGA}: the weights belong to {length} tokens, the network to {tokens}")
    turns = -2 * math.pi / length * torch.arange(length // 2 + 1, dtype=torch.float64)
    roots = torch.stack([turns.cos(), turns.sin()], dim=-1)
    if omega.shape != roots.shape or not torch.allclose(omega.double(), roots, rtol=0, atol=_ROUNDING):
        raise ValueError(f"{layer}{_OMEGA} is not the roots of unity of {tokens} tokens: give weights as published")


def _require_state_space(w: Tensor, P: Tensor, Q: Tensor, layer: str) -> None:
    """Raise ValueError if Q is not the conjugate of P, or if a state does not fade."""
    if not torch.equal(P, _fitted(P, Q, layer + _Q) * P.new_tensor([1.0, -1.0])):
        raise ValueError(f"{layer}{_Q} is not the conjugate of P: give weights whose state space is fixed")
    if not (w[..., 0] < 0).all():
        raise ValueError(f"{layer}{_LAYER['s4.w']} has states that grow: give weights whose state space is fixed")
