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
from safetensors.torch import load_file
from torch import Tensor, nn

from ecg_model.attention import cropa_mask
from ecg_model.config import EncoderConfig, JEPAConfig, PredictorConfig
from ecg_model.encoder import load_weights
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
    """A published state dict -> one with our names and shapes, without the fixed positions.

    Raises ValueError naming a weight that is missing, left over or of another shape.
    """
    left = {name: value for name, value in state.items() if name != "pos_embed"}
    weights: dict[str, Tensor] = {}
    for name, ours in module.state_dict().items():
        published = published_name(name, predictor=predictor)
        if published not in left:
            raise ValueError(f"weight {published!r} is missing: give a complete published state dict")
        value = left.pop(published)
        weights[name] = value.reshape(ours.shape) if name == "mask_token" else value
    if left:
        raise ValueError(f"weight {min(left)!r} is none of the published network's: give its state dict alone")
    load_weights(module, weights, "published state dict")
    return weights


def jepa_config(sizes: Mapping[str, Any]) -> JEPAConfig:
    """The `config` of reference.json -> ours. Stochastic depth is off: the published outputs are of eval mode."""
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
    from_published(_below(state, "encoder."), model.student)
    from_published(_below(state, "target_encoder."), model.teacher)
    from_published(_below(state, "predictor."), model.predictor, predictor=True)
    return model.eval()


def verify(folder: Path) -> list[Comparison]:
    """Compare all that the published code wrote into `folder` with what ours computes, in float32 on the CPU."""
    about = json.loads((folder / "reference.json").read_text())
    state = load_file(folder / "reference_state.safetensors")
    wanted = load_file(folder / "reference_outputs.safetensors")
    config = jepa_config(about["config"])
    model = load_jepa(state, config)
    found = {"attention_mask": cropa_mask(config.encoder.leads, config.encoder.patches)} | compute(
        model, wanted["signal"], wanted["mask"].bool(), about["reduced_leads"]
    )
    found["encoder.pos_embed"] = model.student.positions_LPD.flatten(0, 1)
    found["predictor.pos_embed"] = model.predictor.positions_PD
    wanted |= {name: state[name] for name in ("encoder.pos_embed", "predictor.pos_embed")}
    compared = [
        Comparison(name, _largest_error(found[name], wanted[name]), TOLERANCE)
        for name in wanted
        if name not in ("signal", "mask")
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
    ours: dict[str, Tensor | None] = {}
    for name, parameter in model.student.named_parameters():
        ours[f"encoder.{published_name(name)}"] = parameter.grad
    for name, parameter in model.predictor.named_parameters():
        ours[f"predictor.{published_name(name, predictor=True)}"] = parameter.grad
    compared = []
    for name, wanted in sorted(norms.items()):
        gradient = ours.get(name)
        error = float("nan") if gradient is None else abs(gradient.norm().item() - wanted) / max(abs(wanted), 1e-12)
        compared.append(Comparison(f"gradient of {name}", error, GRADIENT_TOLERANCE))
    return compared


def _largest_error(found: Tensor, wanted: Tensor) -> float:
    if found.shape != wanted.shape:
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
    compared = verify(options.folder)
    for row in compared:
        print(f"{'ok' if row.holds else 'WRONG':6}{row.error:10.2e}  (at most {row.tolerance:.0e})  {row.name}")
    wrong = sum(not row.holds for row in compared)
    print(f"{len(compared) - wrong} of {len(compared)} agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
