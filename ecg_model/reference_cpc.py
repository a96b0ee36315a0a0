"""A check that published tensors of contrastive predictive coding on S4 are those of this network.

`python -m ecg_model.reference verify DIR` calls it for a folder with tensors of that method. Its reference.json has
config, tokens (the length that C belongs to), grad_norms, and loss with that before each of the updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ecg_model.agreement import Comparison, below, compare_gradients, largest_error
from ecg_model.config import CPCConfig, S4EncoderConfig
from ecg_model.cpc import CPC
from ecg_model.published_cpc import from_published, published_name

TOLERANCE = 1e-5  # of outputs: times the largest absolute value, at least 1
UPDATES = "loss before update"
_UPDATED = "updated."


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
        blocks_lr=sizes["lr_factor"],
        stem_lr=sizes["lr_factor"] ** 2,
    )


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
    model(inputs["signal"], inputs["negatives"]).backward()
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
    found |= {
        "context": encoder.network(signal),
        "predicted": model.head(encoder.network(signal)),
        "embedding": encoder.network(signal).mean(dim=1),
    }
    loss, accuracy = model.judged(encoder.encode(signal), inputs["negatives"])
    found |= {"loss": loss[None], "accuracy": accuracy[None]}
    return {f"eval.{name}": value for name, value in found.items()} | {
        "short.context": encoder.network(signal[..., : signal.shape[-1] // 2]),
        "long.context": encoder.network(inputs["long.signal"])[:, ::10],
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
    loss, accuracy = model.judged(z_BLD, inputs["negatives"])
    dropped, _ = model.judged(z_BLD, inputs["negatives"], drop_K2BD)
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
    groups = [{"params": parameters, "lr": share * sizes["lr"]} for share, parameters in model.train().parts()]
    optimizer = torch.optim.AdamW(groups, weight_decay=sizes["weight_decay"])
    found: dict[str, Tensor] = {}
    for number in range(updates):
        loss = model(inputs["signal"], inputs["negatives"])
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
