"""The ECG encoder: patches of 200 ms of every lead, positions before every block, CroPA, and its file.

Shapes: B records, L leads, T samples, P columns (patches of a lead), N = L * P tokens (lead-major), D channels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ecg_model import attention
from ecg_model.blocks import Block, initialise, positions_2d
from ecg_model.config import EncoderConfig, from_dict, to_dict
from ecg_model.leads import DERIVED, LEADS

FORMAT = "ecg-foundry encoder 1"  # in the metadata of an encoder file


class Encoder(nn.Module):
    """Vision transformer on the grid of leads and patches. Input: millivolt, 250 Hz, the leads of `leads.LEADS`.

    A network of 12 leads takes the same input: it computes III, aVR, aVL and aVF from I and II, as its rows 8..11.
    """

    positions_LPD: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        attend = attention.cropa if config.attention == "cropa" else attention.dense
        self.patch = nn.Linear(config.patch_size, config.dim)
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.mlp_ratio, attend) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.dim, eps=1e-5)
        positions_LPD = positions_2d(config.leads, config.patches, config.dim)
        self.register_buffer("positions_LPD", positions_LPD, persistent=False)
        initialise(self, self.blocks)
        with torch.no_grad():
            self.patch.weight.mul_(config.patch_init_scale)

    def forward(
        self,
        x_BLT: Tensor,
        visible_V: Tensor | None = None,
        leads: Sequence[int] | None = None,
        scale_K2B: Tensor | None = None,
    ) -> Tensor:
        """Return the tokens (B, N, D) after the final LayerNorm.

        x_BLT: float (B, L, T) millivolt; T may be any number of whole patches up to the configured one.
        visible_V: the columns to keep, int64, ascending, (V,) or (B, V); None for all.
        leads: the configured leads that the rows of x_BLT are; None for all in order.
        scale_K2B: stochastic depth (`ecg_model.stochastic_depth`), for training.

        Raises ValueError if a shape fits neither the configuration nor `leads`.
        """
        x_BLT, leads = self._with_derived_leads(x_BLT, leads)
        self._require_shape(x_BLT, leads)
        x_BLPS = x_BLT.unflatten(-1, (-1, self.config.patch_size)) * self.config.input_scale
        # Indexed only if leads are named: copying the index to the device makes the host wait.
        positions_LPD = self.positions_LPD if leads is None else self.positions_LPD[list(leads)]
        positions_BLPD = positions_LPD[None, :, : x_BLPS.shape[2]]
        if visible_V is not None:
            x_BLPS = take_columns(x_BLPS, visible_V)
            positions_BLPD = take_columns(positions_BLPD, visible_V)
        x_BLPD = self.patch(x_BLPS)
        for number, block in enumerate(self.blocks):
            x_BLPD = block(x_BLPD + positions_BLPD, None if scale_K2B is None else scale_K2B[number])
        return self.norm(x_BLPD).flatten(1, 2)

    def embed(self, x_BLT: Tensor, leads: Sequence[int] | None = None) -> Tensor:
        """Return the embedding of each ECG, (B, D): the mean over all its tokens."""
        return self(x_BLT, leads=leads).mean(dim=1)

    def _with_derived_leads(self, x_BLT: Tensor, leads: Sequence[int] | None) -> tuple[Tensor, Sequence[int] | None]:
        """Add rows III, aVR, aVL and aVF for a network of 12 leads, if I and II are given and they are not."""
        if self.config.leads != len(LEADS) + len(DERIVED) or x_BLT.ndim != 3:
            return x_BLT, leads
        independent = list(range(len(LEADS)))
        if leads is None and x_BLT.shape[1] == len(LEADS):
            return torch.cat([x_BLT, _derived(x_BLT[:, :2])], dim=1), None
        if leads is not None and {0, 1} <= set(leads) <= set(independent) and x_BLT.shape[1] == len(leads):
            limb_B2T = x_BLT[:, [list(leads).index(0), list(leads).index(1)]]
            rows = range(len(LEADS), len(LEADS) + len(DERIVED))
            return torch.cat([x_BLT, _derived(limb_B2T)], dim=1), [*leads, *rows]
        return x_BLT, leads

    def _require_shape(self, x_BLT: Tensor, leads: Sequence[int] | None) -> None:
        """Raise ValueError if ECGs or leads do not fit the configuration."""
        config = self.config
        rows = list(range(config.leads)) if leads is None else list(leads)
        if x_BLT.ndim != 3 or x_BLT.shape[1] != len(rows):
            raise ValueError(f"ECGs of shape {tuple(x_BLT.shape)}: give (records, {len(rows)} leads, samples)")
        if not rows or len(set(rows)) != len(rows) or not all(0 <= row < config.leads for row in rows):
            raise ValueError(f"leads={rows}: name some of 0..{config.leads - 1}, each once")
        samples = x_BLT.shape[2]
        if samples == 0 or samples % config.patch_size or samples > config.samples:
            raise ValueError(
                f"ECGs of {samples} samples: give a multiple of {config.patch_size}, at most {config.samples}"
            )


def _derived(limb_B2T: Tensor) -> Tensor:
    """Compute the leads DERIVED from I and II, (B, 2, T) -> (B, 4, T)."""
    i_BT, ii_BT = limb_B2T.unbind(1)
    return torch.stack([ii_BT - i_BT, -(i_BT + ii_BT) / 2, i_BT - ii_BT / 2, ii_BT - i_BT / 2], dim=1)


def take_columns(x_BLPD: Tensor, columns: Tensor) -> Tensor:
    """Select columns, (B, L, P, D) -> (B, L, V, D): the same for all records (V,), or each record's own (B, V)."""
    if columns.ndim == 1:
        return x_BLPD.index_select(2, columns)
    x_BLPD = x_BLPD.expand(len(columns), -1, -1, -1)
    index = columns[:, None, :, None].expand(-1, x_BLPD.shape[1], -1, x_BLPD.shape[3])
    return x_BLPD.gather(2, index)


MOST = {
    **{"leads": 64, "patches": 4096, "patch_size": 65_536, "depth": 256, "dim": 16_384},
    **{"mlp_ratio": 64, "input_scale": 1e6, "patch_init_scale": 1e6},
}
"""The largest sizes that a file may ask for, before any memory is taken on its word."""
MOST_POSITIONS = 1 << 26
"""Numbers in the positions of all tokens, which no weight in the file bounds; the paper's encoder has 307,200."""
MOST_HEADER = 1 << 20
"""Bytes of the names and shapes in a file of weights; the paper's encoder has 14,000."""


def random_encoder(config: EncoderConfig, seed: int) -> Encoder:
    """Return an encoder with initial weights of this seed, the baseline for pretraining."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(config).eval()


def encoder_bytes(encoder: Encoder) -> bytes:
    """Return the encoder's file: float32 weights and the configuration, as safetensors."""
    weights = {name: value.detach().float().cpu().contiguous() for name, value in encoder.state_dict().items()}
    description = {"format": FORMAT, "config": to_dict(encoder.config)}
    # One key, because safetensors writes several in random order and the same encoder must give the same bytes.
    return save(weights, metadata={"encoder": json.dumps(description, sort_keys=True)})


def save_encoder(path: Path | str, encoder: Encoder) -> None:
    """Write `encoder_bytes` under a temporary name and rename it."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(encoder_bytes(encoder))
    temporary.replace(path)


def load_encoder(path: Path | str) -> Encoder:
    """Load an encoder from a file of `save_encoder`, in eval mode, on the CPU.

    Raises ValueError if the file is not such a file, or if its weights do not fit its configuration.
    """
    config = stored_config(path)
    with torch.device("meta"):  # names and shapes only: no memory is reserved before the weights fit
        encoder = Encoder(config)
    with safe_open(str(path), framework="numpy") as stored:
        shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    require_shapes(encoder, shapes, str(path))
    with safe_open(str(path), framework="pt") as stored:
        weights = {name: stored.get_tensor(name) for name in shapes}
    owned = {name: value.to(torch.float32, copy=True) for name, value in weights.items()}
    encoder.load_state_dict(owned, assign=True)
    encoder.positions_LPD = positions_2d(config.leads, config.patches, config.dim)
    return encoder.eval()


def stored_config(path: Path | str) -> EncoderConfig:
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


def _stored_config(metadata: Mapping[str, str], path: Path | str) -> EncoderConfig:
    """Read the configuration in a file's metadata. Raises ValueError if it is not an encoder's."""
    try:
        description = json.loads(metadata.get("encoder", "{}"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} has unreadable metadata ({error}): give an encoder.safetensors") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        given = description.get("format") if isinstance(description, dict) else None
        raise ValueError(f"{path} has format {given!r}, not {FORMAT!r}: give an encoder.safetensors")
    try:
        config = from_dict(EncoderConfig, description.get("config", {}))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for name, most in MOST.items():
        if getattr(config, name) > most:
            raise ValueError(f"{path}: {name}={getattr(config, name)}: an encoder has at most {most}")
    positions = config.leads * config.patches * config.dim
    if positions > MOST_POSITIONS:
        raise ValueError(
            f"{path}: leads={config.leads}, patches={config.patches} and dim={config.dim} need {positions:,} numbers "
            f"for positions: an encoder has at most {MOST_POSITIONS:,}"
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
