"""The file of an encoder: its weights and its configuration, as safetensors.

A file from outside is read as far as its sizes allow: header, configuration and shapes before any weight.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ecg_model.config import AnyEncoderConfig, EncoderConfig, S4EncoderConfig
from ecg_model.ecg_encoder import ECGEncoder
from ecg_model.encoder import Encoder
from ecg_model.s4_encoder import S4Encoder
from ecg_model.settings import from_dict, part_of, to_dict

FORMAT = "ecg-foundry encoder 1"  # in the metadata of an encoder file

_NETWORKS: dict[type, type[ECGEncoder]] = {EncoderConfig: Encoder, S4EncoderConfig: S4Encoder}
"""The network of each configuration."""

MOST_DIM = 16_384
"""The widest embedding that a file may have."""
_MOST: dict[type, dict[str, float]] = {
    EncoderConfig: {
        **{"leads": 64, "patches": 4096, "patch_size": 65_536, "depth": 256, "dim": MOST_DIM},
        **{"mlp_ratio": 64, "input_scale": 1e6, "patch_init_scale": 1e6},
    },
    S4EncoderConfig: {
        **{"samples": 1 << 20, "token_samples": 65_536, "stem_dim": 16_384, "stem_depth": 256, "stem_kernel": 65_537},
        **{"dim": MOST_DIM, "depth": 256, "state": 256, "input_scale": 1e6},
    },
}
"""The largest sizes that a file may ask for, before any memory is taken on its word."""
MOST_CONSTANTS = 1 << 26
"""Numbers that follow from the sizes and are bounded by no weight in the file; the paper's encoder has 307,200."""
MOST_HEADER = 1 << 20
"""Bytes of the names and shapes in a file of weights; the paper's encoder has 14,000."""


def new_encoder(config: AnyEncoderConfig) -> ECGEncoder:
    """Return the network of a configuration, with initial weights from torch's global generator."""
    return _NETWORKS[type(config)](config)


def random_encoder(config: AnyEncoderConfig, seed: int) -> ECGEncoder:
    """Return an encoder with initial weights of this seed, the baseline for pretraining."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return new_encoder(config).eval()


def encoder_bytes(encoder: ECGEncoder) -> bytes:
    """Return the encoder's file: float32 weights and the configuration, as safetensors."""
    weights = {name: _in_float32(value.detach()).cpu().contiguous() for name, value in encoder.state_dict().items()}
    description = {"format": FORMAT, "config": to_dict(encoder.config)}
    # One key, because safetensors writes several in random order and the same encoder must give the same bytes.
    return save(weights, metadata={"encoder": json.dumps(description, sort_keys=True)})


def save_encoder(path: Path | str, encoder: ECGEncoder) -> None:
    """Write `encoder_bytes` under a temporary name and rename it."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(encoder_bytes(encoder))
    temporary.replace(path)


def load_encoder(path: Path | str) -> ECGEncoder:
    """Load an encoder from a file of `save_encoder`, in eval mode, on the CPU.

    Raises ValueError if the file is not such a file, or if its weights do not fit its configuration.
    """
    config = stored_config(path)
    with torch.device("meta"):  # names and shapes only: no memory is reserved before the weights fit
        encoder = new_encoder(config)
    with safe_open(str(path), framework="numpy") as stored:
        shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    require_shapes(encoder, shapes, str(path))
    with safe_open(str(path), framework="pt") as stored:
        weights = {name: stored.get_tensor(name) for name in shapes}
    types = {name: value.dtype for name, value in encoder.state_dict().items()}
    weights = {name: value.to(types[name], copy=True) for name, value in weights.items()}
    encoder.load_state_dict(weights, assign=True)
    encoder.compute_constants()
    return encoder.eval()


def _in_float32(value: Tensor) -> Tensor:
    """Return weights as they are stored; counts stay whole numbers."""
    return value.float() if value.is_floating_point() else value


def stored_config(path: Path | str) -> AnyEncoderConfig:
    """Read the configuration in a file of `save_encoder`, without its weights.

    Raises ValueError if the file is not such a file.
    """
    require_short_header(path)
    try:
        # Not for torch, which would map all of the file at once.
        with safe_open(str(path), framework="numpy") as stored:
            return _stored_config(stored.metadata() or {}, path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error}): give an encoder.safetensors") from error


def _stored_config(metadata: Mapping[str, str], path: Path | str) -> AnyEncoderConfig:
    """Read the configuration in a file's metadata. Raises ValueError if it is not an encoder's."""
    try:
        description = json.loads(metadata.get("encoder", "{}"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} has unreadable metadata ({error}): give an encoder.safetensors") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        given = description.get("format") if isinstance(description, dict) else None
        raise ValueError(f"{path} has format {given!r}, not {FORMAT!r}: give an encoder.safetensors")
    stored = description.get("config", {})
    try:
        config = from_dict(part_of(get_args(AnyEncoderConfig), "config", stored), stored)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for name, most in _MOST[type(config)].items():
        if getattr(config, name) > most:
            raise ValueError(f"{path}: {name}={getattr(config, name)}: an encoder has at most {most}")
    if config.constants > MOST_CONSTANTS:
        raise ValueError(
            f"{path}: its sizes ask for {config.constants:,} numbers that no weight holds, such as positions: an "
            f"encoder has at most {MOST_CONSTANTS:,}"
        )
    return config


def require_short_header(path: Path | str) -> None:
    """Raise ValueError if a safetensors file states a header that no model has, before it is parsed."""
    with Path(path).open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
    if size > MOST_HEADER:
        raise ValueError(
            f"{path} is not a safetensors file of a model: its header has {size:,} bytes, at most {MOST_HEADER:,} are "
            "read"
        )


def require_fit(module: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Raise ValueError naming the first weight whose name or shape is not the module's.

    origin: where the weights come from, for the message.
    """
    require_shapes(module, {name: tuple(value.shape) for name, value in weights.items()}, origin)


def require_shapes(module: nn.Module, given: dict[str, tuple[int, ...]], origin: str) -> None:
    """Do as `require_fit`, by the shapes of weights that have not been read."""
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    for name in sorted(wanted | given):
        if wanted.get(name) != given.get(name):
            raise ValueError(
                f"{origin}: weight {name!r} has shape {given.get(name)}, the configuration asks for {wanted.get(name)}"
            )
