"""The published weights of contrastive predictive coding on S4 under the names of this network, and their check.

`python -m ecg_model.reference verify DIR` calls it for a folder with tensors of that method. Its reference.json has
config, tokens (the length that C belongs to), grad_norms, and loss with that before each of the updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ecg_model.agreement import Comparison, below, compare_gradients, largest_error, renamed
from ecg_model.config import CPCConfig, S4EncoderConfig
from ecg_model.cpc import CPC

TOLERANCE = 1e-5  # of outputs: times the largest absolute value, at least 1
UPDATES = "loss before update"
_UPDATED = "updated."

_STEM, _STACK = "ts_encoder.encoder.layers.", "ts_encoder.predictor.predictor."
_HEAD = "ts_encoder.head_ssl.proj.0.weight"
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
_OURS_COMPUTED = ("kernel.kernel.omega", "kernel.kernel.z", "kernel.kernel.Q")
"""Published buffers that follow from others."""


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


def cpc_config(sizes: Mapping[str, Any], tokens: int) -> CPCConfig:
    """Return the configuration for the `config` of reference.json.

    tokens: the length that the weights belong to. Raises ValueError if a size is missing, or if this network cannot
    have it.
    """
    wanted = {
        "kernels": [*sizes.get("kernels", [3])[:1], 1, 1, 1],
        "strides": [*sizes.get("strides", [2])[:1], 1, 1, 1],
        "dilations": [1, 1, 1, 1],
        "prenorm": False,
        "temperature": 1.0,
        "negatives_from": "same record",
    }
    for name, value in wanted.items():
        if sizes.get(name) != value:
            raise ValueError(f"{name}={sizes.get(name)!r}: this network is that of {name}={value!r}")
    missing = {"features", "leads", "model_dim", "layers", "state_dim", "dropout", "causal", "negatives"} - set(sizes)
    if missing:
        raise ValueError(f"the sizes have no {min(missing)!r}: give all of the published network's")
    if len(set(sizes["features"])) != 1 or len(sizes["features"]) != 4:
        raise ValueError(f"features={sizes['features']!r}: this network has four convolutions of one width")
    return CPCConfig(
        encoder=S4EncoderConfig(
            leads=sizes["leads"],
            samples=tokens * sizes["strides"][0],
            token_samples=sizes["strides"][0],
            stem_dim=sizes["features"][0],
            stem_depth=len(sizes["features"]),
            stem_kernel=sizes["kernels"][0],
            dim=sizes["model_dim"],
            depth=sizes["layers"],
            state=sizes["state_dim"],
            dropout=sizes["dropout"],
            causal=sizes["causal"],
        ),
        horizon=sizes["steps_predicted"],
        negatives=sizes["negatives"],
    )


def from_published(state: Mapping[str, Tensor], module: CPC) -> dict[str, Tensor]:
    """Convert a published state dict to one for `module`.

    Raises ValueError naming a weight that is missing, superfluous, of another shape or not finite, a state space that
    is not the published one's (Q is the conjugate of P), and weights of another length than the module's.
    """
    remaining = {name: value for name, value in state.items() if name.startswith("ts_encoder.")}
    for number in range(module.config.encoder.depth):
        _require_fixed(remaining, f"{_STACK}s4_layers.{number}.", module.config.encoder.tokens)
    return renamed(remaining, module, published_name, _fitted)


def _fitted(ours: Tensor, value: Tensor, published: str) -> Tensor:
    """Return a weight in our shape, which may lack axes of one. Raises ValueError if it cannot be, or is not finite."""
    if value.numel() != ours.numel() or [n for n in value.shape if n > 1] != [n for n in ours.shape if n > 1]:
        shapes = f"has shape {tuple(value.shape)}, the network asks for {tuple(ours.shape)}"
        raise ValueError(f"weight {published!r} {shapes}")
    if value.dtype != ours.dtype or not value.isfinite().all():
        raise ValueError(f"weight {published!r} is {value.dtype} or not finite: give finite {ours.dtype}")
    return value.reshape(ours.shape)


def _require_fixed(remaining: dict[str, Tensor], layer: str, tokens: int) -> None:
    """Take away the buffers that follow from others. Raises ValueError if they do not."""
    fixed = {name: remaining.pop(layer + name, None) for name in _OURS_COMPUTED}
    missing = [name for name, value in fixed.items() if value is None]
    if missing:
        raise ValueError(f"weight {layer + missing[0]!r} is missing: give a complete published state dict")
    omega, Q, P = fixed[_OURS_COMPUTED[0]], fixed[_OURS_COMPUTED[2]], remaining.get(f"{layer}kernel.kernel.P")
    assert omega is not None
    assert Q is not None
    length = 2 * (len(omega) - 1)
    if length != tokens:
        raise ValueError(f"{layer}kernel.kernel.omega: the weights belong to {length} tokens, the network to {tokens}")
    if P is None or P.shape != Q.shape or not torch.equal(P, Q * Q.new_tensor([1.0, -1.0])):
        raise ValueError(f"{layer}kernel.kernel.Q is not the conjugate of P: give weights whose state space is fixed")


def verify_cpc(
    reference: Mapping[str, Any], state: dict[str, Tensor], published: dict[str, Tensor]
) -> list[Comparison]:
    """Compare published tensors of the method with those of this network, in float32 on the CPU.

    reference: what reference.json says. A tensor that only one of both has counts as wrong. Raises ValueError if
    weights or sizes are not the published network's.
    """
    config = cpc_config(reference["config"], reference["tokens"])

    def fresh() -> CPC:
        model = CPC(config)
        model.load_state_dict(from_published(state, model))
        return model

    inputs = {name: published.pop(name) for name in ("signal", "long.signal", "negatives")}
    masks = [
        torch.stack([published.pop(f"dropout.mask.{block}.{place}") for place in ("inner", "outer")])
        for block in range(config.encoder.depth)
    ]
    drop_K2BD = torch.stack(masks) / (1.0 - config.encoder.dropout)
    losses = {f"{UPDATES} {number}": torch.tensor(value) for number, value in enumerate(reference["loss"]["updates"])}
    ours = evaluated(fresh().eval(), inputs, below(state, "attention_pool."), reference["config"]["pool_heads"])
    ours |= trained(fresh(), inputs, drop_K2BD) | updated(fresh(), inputs, reference["config"], len(losses))
    # Published parameters have axes of one that ours have not.
    published = {name: value.squeeze() if _UPDATED in name else value for name, value in published.items()} | losses
    compared = [
        Comparison(
            name,
            largest_error(ours.get(name), published.get(name)),
            TOLERANCE * max(1.0, published[name].abs().max().item() if name in published else 1.0),
        )
        for name in sorted(ours | published)
    ]
    model = fresh().train()
    model(inputs["signal"], inputs["negatives"])[0].backward()
    parameters = {published_name(name): value for name, value in model.named_parameters()}
    return compared + compare_gradients(parameters, reference["grad_norms"])


@torch.no_grad()
def evaluated(model: CPC, inputs: Mapping[str, Tensor], pool: Mapping[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Return the outputs of eval mode, under the names of reference_outputs.safetensors."""
    signal, encoder = inputs["signal"], model.encoder
    found: dict[str, Tensor] = {}
    x_BCT = signal
    for number, block in enumerate(encoder.stem_blocks):
        found[f"conv.{number}"] = x_BCT = block(x_BCT)
    found["encoded"] = x_BLD = encoder.encode(signal)
    for number, block in enumerate(encoder.s4_blocks):
        found[f"kernel.{number}"] = block.s4.kernel(x_BLD.shape[1])
        found[f"s4.{number}"] = block.gated(block.s4(x_BLD.mT).mT).mT
        found[f"block.{number}"] = x_BLD = block(x_BLD)
    found |= {"context": encoder(signal), "predicted": model.head(encoder(signal)), "embedding": encoder.embed(signal)}
    loss, accuracy = model(signal, inputs["negatives"])
    found |= {"loss": loss[None], "accuracy": accuracy[None]}
    return {f"eval.{name}": value for name, value in found.items()} | {
        "short.context": encoder(signal[..., : signal.shape[-1] // 2]),
        "long.context": encoder(inputs["long.signal"])[:, ::10],
        "pool.logits": attention_pool(found["context"], pool, heads),
    }


@torch.no_grad()
def trained(model: CPC, inputs: Mapping[str, Tensor], drop_K2BD: Tensor) -> dict[str, Tensor]:
    """Return the outputs of train mode, without and with dropout, and the statistics after one forward."""
    z_BLD = model.train().encoder.encode(inputs["signal"])
    found = {
        f"train.after.{published_name(name)}": value.clone()
        for name, value in model.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    }
    context_BLD = model.encoder.context(z_BLD)
    loss, accuracy = model(inputs["signal"], inputs["negatives"])
    dropped, _ = model(inputs["signal"], inputs["negatives"], drop_K2BD)
    return found | {
        "train.encoded": z_BLD,
        "train.context": context_BLD,
        "train.predicted": model.head(context_BLD),
        "train.loss": loss[None],
        "train.accuracy": accuracy[None],
        "dropout.context": model.encoder.context(z_BLD, drop_K2BD),
        "dropout.loss": dropped[None],
    }


def updated(model: CPC, inputs: Mapping[str, Tensor], sizes: Mapping[str, Any], updates: int) -> dict[str, Tensor]:
    """Return the parameters after updates by AdamW on one batch, and the loss before each."""
    groups = model.train().parameter_groups(sizes["lr"], sizes["lr_factor"])
    optimizer = torch.optim.AdamW(groups, weight_decay=sizes["weight_decay"])
    found: dict[str, Tensor] = {}
    for number in range(updates):
        loss, _ = model(inputs["signal"], inputs["negatives"])
        found[f"{UPDATES} {number}"] = loss.detach()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    names = {published_name(name): value.detach() for name, value in model.named_parameters()}
    return found | {f"{_UPDATED}{name}": value.squeeze() for name, value in names.items()}


def attention_pool(x_BLD: Tensor, weights: Mapping[str, Tensor], heads: int) -> Tensor:
    """Return logits (B, classes) of the frozen protocol's pool: one learned query over all tokens."""
    query_B1D = F.linear(weights["query"], weights["q_proj.weight"]).expand(len(x_BLD), -1, -1)
    q, k, v = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2)
        for part in (query_B1D, F.linear(x_BLD, weights["k_proj.weight"]), F.linear(x_BLD, weights["v_proj.weight"]))
    )
    pooled_BD = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1)
    return F.linear(pooled_BD, weights["c_proj.weight"])
