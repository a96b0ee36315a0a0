"""The published code's names in ours, and the proof that both compute the same.

    python -m ecg_model.reference verify DIR

DIR holds reference_state.safetensors (weights under the published names), reference_outputs.safetensors (what the
published code made of an input) and reference.json (sizes, leads of the reduced embedding, gradient norms).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ecg_model.attention import cropa_mask
from ecg_model.config import EncoderConfig, JEPAConfig, PredictorConfig
from ecg_model.jepa import JEPA, split_columns

TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4

_ENCODER = {"patch": "W_P", "blocks": "encoder_blocks.blocks", "norm": "norm"}
_PREDICTOR = {
    "embed": "predictor_embed",
    "mask_token": "mask_token",
    "blocks": "predictor_blocks.blocks",
    "norm": "predictor_norm",
    "proj": "predictor_proj",
}
_IN_BLOCK = {
    "norm1": "norm1",
    "qkv": "attn.qkv",
    "proj": "attn.proj",
    "norm2": "norm2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
_SIZES = {
    "encoder_embed_dim",
    "encoder_depth",
    "encoder_num_heads",
    "predictor_embed_dim",
    "predictor_depth",
    "predictor_num_heads",
    "leads",
    "patches",
    "patch_size",
    "mlp_ratio",
}


@dataclass(frozen=True)
class Comparison:
    """A tensor's largest absolute error, or a gradient norm's relative one, and what it may be."""

    name: str
    error: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return self.error <= self.tolerance  # False for NaN


def published_name(name: str, *, predictor: bool = False) -> str:
    """Our parameter's name -> the published one: `blocks.0.fc1.bias` -> `encoder_blocks.blocks.0.mlp.fc1.bias`."""
    names = _PREDICTOR if predictor else _ENCODER
    inside = re.fullmatch(r"blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if inside:
        number, layer, kind = inside.groups()
        return f"{names['blocks']}.{number}.{_IN_BLOCK[layer]}.{kind}"
    layer, _, kind = name.partition(".")
    return f"{names[layer]}.{kind}" if kind else names[layer]


def from_published(state: Mapping[str, Tensor], module: nn.Module, *, predictor: bool = False) -> dict[str, Tensor]:
    """A published state dict -> one for `module`, with our names and shapes, without the fixed positions.

    Raises ValueError naming a weight that is missing, left over, of another shape or not finite float32, and for other
    positions than ours: they are computed here, not loaded. `module` may lie on the meta device, but for its positions.
    """
    left = dict(state)
    positions = left.pop("pos_embed", None)
    if positions is not None:
        _require_positions(positions, module)
    weights: dict[str, Tensor] = {}
    for name, ours in module.state_dict().items():
        published = published_name(name, predictor=predictor)
        if published not in left:
            raise ValueError(f"weight {published!r} is missing: give a complete published state dict")
        value = left.pop(published)
        if name == "mask_token" and value.numel() == ours.numel():
            value = value.reshape(ours.shape)
        _require_like(ours, value, published)
        weights[name] = value
    if left:
        raise ValueError(f"weight {min(left)!r} is none of the published network's: give its state dict alone")
    return weights


def _require_like(ours: Tensor, value: Tensor, name: str) -> None:
    """The shape before the values: a few stored numbers can claim to be a tensor of any size."""
    if value.shape != ours.shape:
        raise ValueError(f"weight {name!r} has shape {tuple(value.shape)}, the network asks for {tuple(ours.shape)}")
    if value.dtype != torch.float32 or value.layout != torch.strided or value.is_meta:
        kind = f"{value.layout}, {value.dtype} on {value.device}"
        raise ValueError(f"weight {name!r} is {kind}: give dense float32, as published")
    if not value.isfinite().all():
        raise ValueError(f"weight {name!r} is not finite: give weights of a training that did not diverge")


def _require_positions(positions: Tensor, module: nn.Module) -> None:
    (ours,) = module.buffers()  # the positions are the only one
    ours = ours.reshape(-1, ours.shape[-1])
    fits = positions.shape[-2:] == ours.shape and positions.numel() == ours.numel()
    if fits:
        _require_like(ours, positions := positions.reshape(ours.shape), "pos_embed")
    if not fits or not torch.allclose(positions, ours, rtol=0.0, atol=TOLERANCE):
        raise ValueError(
            f"'pos_embed' of shape {tuple(positions.shape)} is not the fixed sine and cosine of "
            f"{len(ours)} tokens and {ours.shape[-1]} channels: give weights of the published network"
        )


def jepa_config(sizes: Mapping[str, Any]) -> JEPAConfig:
    """The `config` of reference.json -> ours. Stochastic depth is off: the published outputs are of eval mode.

    Raises ValueError for sizes that are missing, or that the published network cannot have.
    """
    missing = sorted(_SIZES - set(sizes))
    if missing:
        raise ValueError(f"the sizes have no {missing[0]!r}: give {', '.join(sorted(_SIZES))}")
    if sizes.get("qkv_bias"):
        raise ValueError(f"qkv_bias={sizes['qkv_bias']!r}: the published network has no bias on q, k and v")
    ratio = float(sizes["mlp_ratio"])
    return JEPAConfig(
        encoder=EncoderConfig(
            dim=sizes["encoder_embed_dim"],
            depth=sizes["encoder_depth"],
            heads=sizes["encoder_num_heads"],
            mlp_ratio=ratio,
            leads=sizes["leads"],
            patches=sizes["patches"],
            patch_size=sizes["patch_size"],
            drop_path=0.0,
        ),
        predictor=PredictorConfig(
            dim=sizes["predictor_embed_dim"],
            depth=sizes["predictor_depth"],
            heads=sizes["predictor_num_heads"],
            mlp_ratio=ratio,
        ),
    )


def load_jepa(state: Mapping[str, Tensor], config: JEPAConfig) -> JEPA:
    """Student, teacher and predictor from `encoder.*`, `target_encoder.*` and `predictor.*`, in eval mode."""
    model = JEPA(config)
    model.student.load_state_dict(from_published(_below(state, "encoder."), model.student))
    model.teacher.load_state_dict(from_published(_below(state, "target_encoder."), model.teacher))
    model.predictor.load_state_dict(from_published(_below(state, "predictor."), model.predictor, predictor=True))
    return model.eval()


def verify(folder: Path) -> list[Comparison]:
    """Compare all that the published code wrote into `folder` with what ours computes, in float32 on the CPU.

    What only one of both has counts as wrong. Raises ValueError for weights or sizes that are not the published
    network's.
    """
    about = json.loads((folder / "reference.json").read_text())
    missing = [name for name in ("config", "reduced_leads", "grad_norms") if name not in about]
    if missing:
        raise ValueError(f"{folder / 'reference.json'} has no {missing[0]!r}")
    state = load_file(folder / "reference_state.safetensors")
    wanted = load_file(folder / "reference_outputs.safetensors")
    config = jepa_config(about["config"])
    model = load_jepa(state, config)
    found = {"attention_mask": cropa_mask(config.encoder.leads, config.encoder.patches)} | compute(
        model, wanted["signal"], wanted["mask"].bool(), about["reduced_leads"]
    )
    found["encoder.pos_embed"] = model.student.positions_LPD.flatten(0, 1)
    found["predictor.pos_embed"] = model.predictor.positions_PD
    positions = {name: state[name] for name in ("encoder.pos_embed", "predictor.pos_embed") if name in state}
    outputs = {name: value for name, value in wanted.items() if name not in ("signal", "mask")} | positions
    compared = [
        Comparison(name, _largest_error(found.get(name), outputs.get(name)), TOLERANCE)
        for name in sorted(found | outputs)
    ]
    model(wanted["signal"], *split_columns(wanted["mask"].bool())).backward()
    return compared + _compare_gradients(model, about["grad_norms"])


@torch.no_grad()
def compute(model: JEPA, x_BLT: Tensor, mask_P: Tensor, reduced_leads: list[int]) -> dict[str, Tensor]:
    """What reference_outputs.safetensors holds, by its names."""
    visible_V, masked_M = split_columns(mask_P)
    return {
        "embedding": model.student.embed(x_BLT),
        "embedding_reduced_leads": model.student.embed(x_BLT[:, reduced_leads], leads=reduced_leads),
        "context_tokens": model.student(x_BLT, visible_V),
        "teacher_tokens": model.teacher(x_BLT),
        "teacher_targets": model.targets(x_BLT).flatten(1, 2),
        "predictor_tokens": model.predict(x_BLT, visible_V, masked_M).flatten(1, 2),
        "loss": model(x_BLT, visible_V, masked_M)[None],
    }


def _compare_gradients(model: JEPA, norms: Mapping[str, float]) -> list[Comparison]:
    parameters = {f"encoder.{published_name(name)}": value for name, value in model.student.named_parameters()}
    for name, value in model.predictor.named_parameters():
        parameters[f"predictor.{published_name(name, predictor=True)}"] = value
    ours = {name: value.grad.norm().item() for name, value in parameters.items() if value.grad is not None}
    compared = []
    for name in sorted(parameters.keys() | norms):
        found, wanted = ours.get(name, float("nan")), norms.get(name, float("nan"))
        compared.append(
            Comparison(f"gradient of {name}", abs(found - wanted) / max(abs(wanted), 1e-12), GRADIENT_TOLERANCE)
        )
    return compared


def _largest_error(found: Tensor | None, wanted: Tensor | None) -> float:
    """NaN where one is missing or their shapes differ."""
    if found is None or wanted is None or found.shape != wanted.shape:
        return float("nan")
    return (found.double() - wanted.double()).abs().max().item()


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ecg_model.reference", description="The published code's weights in our network."
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("verify", help="compare our network with the tensors that the published code wrote")
    command.add_argument("folder", type=Path, metavar="DIR", help="folder with reference.json and its safetensors")
    options = parser.parse_args(arguments)
    try:
        compared = verify(options.folder)
    except (OSError, ValueError, SafetensorError) as error:
        parser.error(str(error))
    for row in compared:
        print(f"{'ok' if row.holds else 'WRONG':6}{row.error:10.2e}  (at most {row.tolerance:.0e})  {row.name}")
    wrong = sum(not row.holds for row in compared)
    print(f"{len(compared) - wrong} of {len(compared)} agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
