"""The segmentation network and its training: scores of each sample's classes from an encoder's tokens.

Shapes: N records, B of a batch, L leads that have waves, R rows of tokens, P tokens of a row and S steps of a token
(`token_grid`), T samples, D channels, C = 4 classes (`annotations.CLASSES`).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ecg_model.ecg_encoder import ECGEncoder
from pipelines.evaluate.features import OnProgress, Rows
from pipelines.evaluate.waves.annotations import CLASSES, UNKNOWN
from pipelines.evaluate.waves.config import SegmentationConfig
from pipelines.evaluate.waves.token_grid import TokenGrid
from pipelines.formats.shard import MILLIVOLT

_SCALED_BY = 64  # training records from which the channels' means and standard deviations are taken


@dataclass(frozen=True, kw_only=True)
class SegmentationTrial:
    """A context that was tried, its best step, and the mean IoU on validation at that step."""

    context: int
    step: int
    validation_miou: float


class PatchMap(nn.Module):
    """Tokens (..., P, D) -> class scores (..., T, C): one linear map of a token and its neighbours on each side.

    Tokens of all leads together, (B, P, D), have a map for each lead: (B, L, T, C).
    Channels are first standardized with their mean and standard deviation in training, which is linear too.
    """

    mean_D: Tensor
    std_D: Tensor
    step_T: Tensor | None

    def __init__(self, mean_D: Tensor, std_D: Tensor, grid: TokenGrid, context: int, leads: int) -> None:
        """context: as in `SegmentationConfig.contexts`; leads: L."""
        super().__init__()
        self.grid, self.neighbours = grid, grid.neighbours(context)
        self.maps = leads if grid.shared else 1
        self.register_buffer("mean_D", mean_D)
        self.register_buffer("std_D", std_D)
        self.register_buffer("step_T", grid.step_of_sample(), persistent=False)
        self.linear = nn.Linear(len(mean_D) * (2 * self.neighbours + 1), self.maps * grid.steps * len(CLASSES))

    def forward(self, token_PD: Tensor) -> Tensor:
        x_PD = (token_PD - self.mean_D) / self.std_D
        if self.neighbours:
            padded_PD = functional.pad(x_PD, (0, 0, self.neighbours, self.neighbours))
            x_PD = padded_PD.unfold(-2, 2 * self.neighbours + 1, 1).flatten(-2)
        logit = self.linear(x_PD)
        if self.grid.shared:
            logit = logit.unflatten(-1, (self.maps, -1)).transpose(-3, -2)
        logit_TC = logit.unflatten(-1, (self.grid.steps, len(CLASSES))).flatten(-3, -2)
        return logit_TC if self.step_T is None else logit_TC.index_select(-2, self.step_T)


class FineTunedSegmenter(nn.Module):
    """ECGs (B, 8, T) millivolt -> class scores (B, L, T, C) of some leads: the encoder and the map on its tokens."""

    def __init__(self, encoder: ECGEncoder, head: PatchMap, leads: Sequence[int]) -> None:
        super().__init__()
        self.encoder, self.head, self.leads = encoder, head, list(leads)

    def forward(self, x_BLT: Tensor) -> Tensor:
        return self.head(self.head.grid.rows(self.encoder.tokens(x_BLT), self.leads))


class SegmenterFeed(Protocol):
    """Makes the models of a task and their inputs, by rows of the task's records."""

    def model(self, context: int, rows: NDArray[np.int64], leads: Sequence[int]) -> nn.Module:
        """Return a new model that gives class scores (B, L, T, C) of these leads.

        rows: training records, from which channels are standardized.
        """
        ...

    def batch(self, rows: NDArray[np.int64], leads: Sequence[int]) -> Tensor:
        """Return the model's input for these records."""
        ...


@dataclass(frozen=True, kw_only=True)
class TokenFeed:
    """Feed of a frozen encoder's tokens, float16 (N, R * P, D); the model is the map."""

    tokens: Rows
    grid: TokenGrid

    def model(self, context: int, rows: NDArray[np.int64], leads: Sequence[int]) -> nn.Module:
        mean_D, std_D = _channels(self.batch(rows, leads))
        return PatchMap(mean_D, std_D, self.grid, context, len(leads))

    def batch(self, rows: NDArray[np.int64], leads: Sequence[int]) -> Tensor:
        return self.grid.rows(torch.from_numpy(self.tokens[rows]), leads).float()


@dataclass(frozen=True, kw_only=True)
class SignalFeed:
    """Feed of ECGs int16 (N, 8, T), microvolt; the model is the encoder and the map."""

    signal_NLT: NDArray[np.int16]
    encoder: Callable[[], ECGEncoder]
    """Returns a new copy of the encoder, since training changes it."""
    grid: TokenGrid

    def model(self, context: int, rows: NDArray[np.int64], leads: Sequence[int]) -> nn.Module:
        encoder = self.encoder().eval()
        with torch.inference_mode():
            mean_D, std_D = _channels(encoder.tokens(self.batch(rows, leads)))
        head = PatchMap(mean_D.clone(), std_D.clone(), self.grid, context, len(leads))
        return FineTunedSegmenter(encoder, head, leads)

    def batch(self, rows: NDArray[np.int64], leads: Sequence[int]) -> Tensor:
        return torch.from_numpy(self.signal_NLT[rows]).float() * MILLIVOLT


def confusions(true_NLT: NDArray[np.int8], predicted_NLT: NDArray[np.int8]) -> NDArray[np.int64]:
    """Count the known samples of each record by annotated class, then by predicted class, int64 (N, C, C)."""
    count = len(CLASSES)
    known_NLT = true_NLT != UNKNOWN
    record = np.broadcast_to(np.arange(len(true_NLT))[:, None, None], true_NLT.shape)[known_NLT]
    place = (record * count + true_NLT[known_NLT]) * count + predicted_NLT[known_NLT]
    return np.bincount(place, minlength=len(true_NLT) * count**2).reshape(-1, count, count)


def iou_of(confusion_CC: NDArray[Any]) -> np.ma.MaskedArray:
    """Return each class's intersection over union (Jaccard), (..., C, C) -> (..., C), masked if it does not occur."""
    hit_C = np.diagonal(confusion_CC, axis1=-2, axis2=-1).astype(np.float64)
    union_C = confusion_CC.sum(axis=-1) + confusion_CC.sum(axis=-2) - hit_C
    return np.ma.MaskedArray(hit_C / np.maximum(union_C, 1), mask=union_C == 0)


def train_segmenter(
    feed: SegmenterFeed,
    target_NLT: NDArray[np.int8],
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    leads: list[int],
    context: int,
    config: SegmentationConfig,
    device: torch.device,
    progress: OnProgress | None,
) -> tuple[nn.Module, SegmentationTrial]:
    """Train a model and return it in the state that was best on validation.

    target_NLT: class maps (N, L, T) of the leads that have waves.
    rows: the records that train, and those that validate.
    leads: the leads of `target_NLT`, as rows in LEADS.
    context: neighbours of a token on each side that the map sees.
    """
    train, validation = rows
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = feed.model(context, train[:_SCALED_BY], leads).to(device)
    optimizer = _optimizer(model, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: (1 + math.cos(math.pi * s / config.steps)) / 2)
    due = set(np.linspace(0, config.steps, config.checks + 1).round().astype(int)[1:].tolist())
    best, best_state = SegmentationTrial(context=context, step=0, validation_miou=-1.0), model.state_dict()
    for step, batch in enumerate(_batches(train, config), start=1):
        model.train()
        logit_BLTC = model(feed.batch(batch, leads).to(device))
        target_BLT = torch.from_numpy(target_NLT[batch]).to(device).long()
        loss = functional.cross_entropy(logit_BLTC.flatten(0, -2), target_BLT.flatten(), ignore_index=UNKNOWN)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step in due:
            predicted_NLT = predict_classes(model, feed, validation, leads, config, device)
            miou = float(iou_of(confusions(target_NLT[validation], predicted_NLT).sum(axis=0)).mean())
            if miou > best.validation_miou:
                best = SegmentationTrial(context=context, step=step, validation_miou=miou)
                best_state = copy.deepcopy(model.state_dict())
            if progress is not None:
                progress(step, config.steps)
    model.load_state_dict(best_state)
    return model, best


def _optimizer(model: nn.Module, config: SegmentationConfig) -> torch.optim.AdamW:
    """Return AdamW with a learning rate for the map, and another for the encoder if it is trained, too."""
    of_encoder = [weight for name, weight in model.named_parameters() if name.startswith("encoder.")]
    of_map = [weight for name, weight in model.named_parameters() if not name.startswith("encoder.")]
    groups = [{"params": of_map, "lr": config.lr}]
    if isinstance(model, FineTunedSegmenter):
        groups.append({"params": of_encoder, "lr": config.encoder_lr / model.encoder.config.dim})
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


def _batches(train: NDArray[np.int64], config: SegmentationConfig) -> Iterator[NDArray[np.int64]]:
    """Yield one batch of rows for each step; each pass over the records has another random order."""
    rng = np.random.default_rng(config.seed)
    in_a_pass = math.ceil(len(train) / config.batch)
    passes = (rng.permutation(train) for _ in range(math.ceil(config.steps / in_a_pass)))
    batches = (order[at * config.batch : (at + 1) * config.batch] for order in passes for at in range(in_a_pass))
    return itertools.islice(batches, config.steps)


def predict_classes(
    model: nn.Module,
    feed: SegmenterFeed,
    rows: NDArray[np.int64],
    leads: list[int],
    config: SegmentationConfig,
    device: torch.device,
) -> NDArray[np.int8]:
    """Return the most probable class of each sample, int8 (len(rows), L, T)."""
    model.eval()
    parts = []
    with torch.inference_mode():
        for first in range(0, len(rows), config.batch):
            batch = feed.batch(rows[first : first + config.batch], leads).to(device)
            parts.append(model(batch).argmax(dim=-1).to(torch.int8).cpu().numpy())
    return np.concatenate(parts)


def _channels(token_PD: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of each channel (the last axis) over all other axes."""
    flat_ND = token_PD.flatten(0, -2)
    return flat_ND.mean(dim=0), flat_ND.std(dim=0).clamp_min(1e-6)
