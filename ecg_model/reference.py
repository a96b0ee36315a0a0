"""The published code's weights under the names of this network, and a check that both compute the same.

    python -m ecg_model.reference verify DIR

DIR holds reference_state.safetensors (weights under the published names), reference_outputs.safetensors (an input, and
the published code's outputs for it) and reference.json (sizes, leads of the reduced embedding, gradient norms). It is
of this method (ECG-JEPA), or of contrastive predictive coding (`reference_cpc`): the sizes say which.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ecg_model.agreement import Comparison, below, compare_gradients, largest_error, renamed
from ecg_model.attention import cropa_mask
from ecg_model.config import EncoderConfig, JEPAConfig, PredictorConfig
from ecg_model.jepa import JEPA, split_columns
from ecg_model.reference_cpc import verify_cpc

TOLERANCE = 1e-5  # absolute, of outputs and positions

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


def published_name(name: str, *, predictor: bool = False) -> str:
    """Return the published name of a parameter: `encoder_blocks.blocks.0.mlp.fc1.bias` for `blocks.0.fc1.bias`."""
    names = _PREDICTOR if predictor else _ENCODER
    inside = re.fullmatch(r"blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if inside:
        number, layer, kind = inside.groups()
        return f"{names['blocks']}.{number}.{_IN_BLOCK[layer]}.{kind}"
    layer, _, kind = name.partition(".")
    return f"{names[layer]}.{kind}" if kind else names[layer]


def from_published(state: Mapping[str, Tensor], module: nn.Module, *, predictor: bool = False) -> dict[str, Tensor]:
    """Convert a published state dict to one for `module`, with its names and shapes, without the fixed positions.

    Raises ValueError naming a weight that is missing, superfluous, of another shape or not finite float32. Raises it
    also for positions other than the network's, which are computed, not loaded. `module` may be on the meta device,
    except for its positions.
    """
    remaining = dict(state)
    positions = remaining.pop("pos_embed", None)
    if positions is not None:
        _require_positions(positions, module)
    return renamed(remaining, module, partial(published_name, predictor=predictor), _fitted)


def _fitted(ours: Tensor, value: Tensor, name: str) -> Tensor:
    if name == _PREDICTOR["mask_token"] and value.numel() == ours.numel():
        value = value.reshape(ours.shape)
    _require_like(ours, value, name)
    return value


def _require_like(ours: Tensor, value: Tensor, name: str) -> None:
    """Raise ValueError if a weight is not finite float32 of our weight's shape.

    The shape is checked first: a few stored numbers can claim to be a tensor of any size.
    """
    if value.shape != ours.shape:
        raise ValueError(f"weight {name!r} has shape {tuple(value.shape)}, the network asks for {tuple(ours.shape)}")
    if value.dtype != torch.float32 or value.layout != torch.strided or value.is_meta:
        kind = f"{value.layout}, {value.dtype} on {value.device}"
        raise ValueError(f"weight {name!r} is {kind}: give dense float32, as published")
    if not value.isfinite().all():
        raise ValueError(f"weight {name!r} is not finite: give weights of a training that did not diverge")


def _require_positions(positions: Tensor, module: nn.Module) -> None:
    """Raise ValueError if the stored positions are not the fixed ones of the module."""
    (ours,) = module.buffers()  # the positions are the only buffer
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
    """Return the configuration for the `config` of reference.json.

    Stochastic depth is off, since the published outputs are of eval mode. Raises ValueError if a size is missing, or if
    the published network cannot have it.
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
    """Build student, teacher and predictor from `encoder.*`, `target_encoder.*` and `predictor.*`, in eval mode."""
    model = JEPA(config)
    model.student.load_state_dict(from_published(below(state, "encoder."), model.student))
    model.teacher.load_state_dict(from_published(below(state, "target_encoder."), model.teacher))
    model.predictor.load_state_dict(from_published(below(state, "predictor."), model.predictor, predictor=True))
    return model.eval()


def verify(folder: Path) -> list[Comparison]:
    """Compare the published code's outputs in `folder` with those of this network, in float32 on the CPU.

    A tensor that only one of both has counts as wrong. Raises ValueError if weights or sizes are not the published
    network's.
    """
    reference = json.loads((folder / "reference.json").read_text())
    contrastive = "negatives" in reference.get("config", {})
    wanted = ("tokens", "loss", "grad_norms") if contrastive else ("config", "reduced_leads", "grad_norms")
    missing = [name for name in wanted if name not in reference]
    if missing:
        raise ValueError(f"{folder / 'reference.json'} has no {missing[0]!r}")
    state = load_file(folder / "reference_state.safetensors")
    published = load_file(folder / "reference_outputs.safetensors")
    if contrastive:
        return verify_cpc(reference, state, published)
    return _verify_jepa(reference, state, published)


def _verify_jepa(
    reference: Mapping[str, Any], state: dict[str, Tensor], published: dict[str, Tensor]
) -> list[Comparison]:
    config = jepa_config(reference["config"])
    model = load_jepa(state, config)
    ours = compute(model, published["signal"], published["mask"].bool(), reference["reduced_leads"])
    ours["attention_mask"] = cropa_mask(config.encoder.leads, model.student.config.patches)
    ours["encoder.pos_embed"] = model.student.positions_LPD.flatten(0, 1)
    ours["predictor.pos_embed"] = model.predictor.positions_PD
    positions = {name: state[name] for name in ("encoder.pos_embed", "predictor.pos_embed") if name in state}
    outputs = {name: value for name, value in published.items() if name not in ("signal", "mask")} | positions
    compared = [
        Comparison(name, largest_error(ours.get(name), outputs.get(name)), TOLERANCE) for name in sorted(ours | outputs)
    ]
    model(published["signal"], *split_columns(published["mask"].bool())).backward()
    parameters = {f"encoder.{published_name(name)}": value for name, value in model.student.named_parameters()}
    for name, value in model.predictor.named_parameters():
        parameters[f"predictor.{published_name(name, predictor=True)}"] = value
    return compared + compare_gradients(parameters, reference["grad_norms"])


@torch.no_grad()
def compute(model: JEPA, x_BLT: Tensor, mask_P: Tensor, reduced_leads: list[int]) -> dict[str, Tensor]:
    """Return the outputs that reference_outputs.safetensors holds, under its names."""
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


def main(arguments: list[str] | None = None) -> int:
    """Run the program. Return 1 if a comparison fails, else 0."""
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
