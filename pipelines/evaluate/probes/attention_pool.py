"""Attention pooling: a learned query attends to all tokens of a frozen encoder; one linear layer follows.

The mean over tokens gives a beat that occurs once no more weight than the silence around it; a query can find it
(attentive probing: Chen et al., arXiv 2202.03026; used for ECG encoders in arXiv 2602.17531).
It is multi-head cross-attention with one query, written so that no token is projected: of the keys only their product
with the query matters, and the mean of projected values is the projection of the mean. An epoch is then two thin matrix
products over the tokens, which are read from disk batch by batch, once for all settings that are tried.
In the product: layer.safetensors, as `Pooling.folded` returns it.

Shapes: B records, P tokens, D channels, H heads, E = D / H, C classes, K networks, V records of validation.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save
from torch import Tensor, nn

from ecg_model.serving.reader import attention
from pipelines.device import torch_device
from pipelines.durable import write_atomically
from pipelines.evaluate.features import Rows
from pipelines.evaluate.probes.heads import LAYER_FILE, Fit, FitProblem, Takes
from pipelines.evaluate.probes.result import Trial

_BATCH = 256  # records that are read at once for predictions: 40 MB of float16 tokens with D = 192


class Pooling(nn.Module):
    """Tokens (B, P, D) -> logits (B, C).

    The attention's output is normalised by batch statistics before the linear layer, as linear probes of transformers
    are (He et al., arXiv 2111.06377, appendix A): records differ by a few hundredths of what all tokens have in common.
    """

    def __init__(self, dim: int, heads: int, classes: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(heads, dim // heads))
        self.key = nn.Parameter(torch.empty(heads, dim // heads, dim))
        self.value = nn.Parameter(torch.empty(heads, dim // heads, dim))
        self.norm = nn.BatchNorm1d(dim, eps=1e-8, affine=False)
        self.layer = nn.Linear(dim, classes)

    def initialise(self, prevalence_C: Tensor, *, multi_class: bool, seed: int) -> None:
        """Set initial weights from a seed, so that training starts near the mean over tokens.

        A small query gives almost even attention; with zero weights of the layer and these biases each class's
        probability starts at its prevalence.
        """
        draw = torch.Generator().manual_seed(seed)
        dim = self.key.shape[-1]
        for projection in (self.key, self.value):
            nn.init.xavier_uniform_(projection.view(dim, dim), generator=draw)
        nn.init.trunc_normal_(self.query, std=0.02, generator=draw)
        nn.init.zeros_(self.layer.weight)
        with torch.no_grad():
            self.layer.bias.copy_(prevalence_C.log() if multi_class else prevalence_C.logit())

    def token_query(self) -> Tensor:
        """Return the product of query and keys, (H, D): the direction that a head looks for in a token."""
        return torch.einsum("he,hed->hd", self.query, self.key) / self.query.shape[1] ** 0.5

    def pooled(self, mean_BHD: Tensor) -> Tensor:
        """Project the heads' mean tokens (B, H, D) to their values, and concatenate these, (B, D)."""
        return torch.einsum("bhd,hed->bhe", mean_BHD, self.value).flatten(1)

    def forward(self, x_BPD: Tensor) -> Tensor:
        return logits_together([self], x_BPD)[0]

    def folded(self) -> dict[str, np.ndarray]:
        """Return what it computes in evaluation, float64: `query` (H, D), and of the heads' mean tokens, concatenated,
        a linear layer with `weight` (C, H * D) and `bias` (C,).
        """
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        value_HED = self.value.detach().double()
        heads, width, _ = value_HED.shape
        weight_CD = self.layer.weight.double() / (self.norm.running_var.double() + self.norm.eps).sqrt()
        weight_CHD = torch.einsum("che,hed->chd", weight_CD.unflatten(1, (heads, width)), value_HED)
        bias_C = self.layer.bias.double() - weight_CD @ self.norm.running_mean.double()
        parts = {"query": self.token_query().double(), "weight": weight_CHD.flatten(1), "bias": bias_C}
        return {name: part.detach().cpu().numpy() for name, part in parts.items()}


def logits_together(networks: Sequence[Pooling], x_BPD: Tensor) -> list[Tensor]:
    """Return each network's logits (B, C).

    All heads of all networks are computed in one pass over the tokens, since reading them takes most of the time.
    """
    query_HD = torch.cat([network.token_query() for network in networks])
    mean_BHD = attention(query_HD, x_BPD) @ x_BPD
    parts = zip(networks, mean_BHD.chunk(len(networks), dim=1), strict=True)
    return [network.layer(network.norm(network.pooled(part_BHD))) for network, part_BHD in parts]


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """A fitted `Pooling` as a `Model`."""

    network: Pooling
    multi_class: bool

    def probabilities(self, x: Rows, rows: np.ndarray) -> np.ndarray:
        return _probabilities([self.network], x, rows, self.multi_class)[0]


@dataclass(frozen=True, kw_only=True)
class AttentionPool:
    """Settings of attention pooling: AdamW with a cosine to zero, for each learning rate and weight decay. The setting
    and the epoch with the best macro AUC on validation are chosen, of equals the earlier."""

    heads: int = 8
    """Must divide the encoder's width."""
    rates: tuple[float, ...] = (3e-3, 1e-2)
    """Peak learning rates to try."""
    weight_decays: tuple[float, ...] = (1e-2, 1.0)
    """Weight decays to try."""
    epochs: int = 10
    batch: int = 64
    """Records of a step."""
    keep: Literal["best", "last"] = "best"
    """`last` chooses no epoch. With one rate and one weight decay nothing is chosen then, as protocols without
    validation need it."""
    device: str = "auto"
    """As `pipelines.device.torch_device` takes it."""

    takes: ClassVar[Takes] = "tokens"

    def __post_init__(self) -> None:
        for name in ("heads", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: use at least 1")
        if self.batch < 2:
            raise ValueError(f"batch={self.batch}: use at least 2 records, as batch normalisation needs a spread")
        if not self.rates or min(self.rates) <= 0:
            raise ValueError(f"rates={self.rates}: give positive learning rates")
        if not self.weight_decays or min(self.weight_decays) < 0:
            raise ValueError(f"weight_decays={self.weight_decays}: give numbers of at least 0")
        if self.keep not in ("best", "last"):
            raise ValueError(f"keep={self.keep!r}: use 'best' or 'last'")

    @property
    def chooses(self) -> bool:
        return self.keep == "best" or len(self.rates) * len(self.weight_decays) > 1

    def to_dict(self) -> dict[str, Any]:
        settings = {name: value for name, value in asdict(self).items() if name != "device"}
        return {"head": "attention_pool", **settings, "rates": list(self.rates), "weight_decays": [*self.weight_decays]}

    def fit(self, problem: FitProblem) -> Fit:
        """Train all settings side by side and choose the best.

        Raises ValueError if the heads do not divide the encoder's width or there are fewer than two training records.
        """
        train = problem.train
        dim = problem.x[train[:1]].shape[-1]
        if dim % self.heads:
            raise ValueError(f"heads={self.heads}: use a divisor of {dim}, the encoder's width")
        if len(train) < 2:
            raise ValueError(f"{len(train)} training records: attention pooling needs at least 2")
        settings = [(rate, decay) for rate in self.rates for decay in self.weight_decays]
        networks = [self._network(dim, problem) for _ in settings]
        optimisers = [
            torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
            for network, (rate, decay) in zip(networks, settings, strict=True)
        ]
        steps = self.epochs * _batches(train, self.batch)
        schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps) for optimiser in optimisers]
        best, trials = networks[0], []
        # The settings share each batch: reading the tokens takes most of the time.
        for epoch in range(self.epochs):
            for x_BPD, y_BC in self._epoch(problem, epoch, networks[0].query.device):
                for optimiser in optimisers:
                    optimiser.zero_grad()
                _loss(networks, x_BPD, y_BC, problem.multi_class).backward()
                for optimiser, schedule in zip(optimisers, schedules, strict=True):
                    optimiser.step()
                    schedule.step()
            if not self.chooses or (self.keep == "last" and epoch < self.epochs - 1):
                continue
            # A strictly better score replaces the best, so of equals the earlier stays.
            score_KVC = _probabilities(networks, problem.x, problem.validation, problem.multi_class)
            for network, (rate, decay), score_VC in zip(networks, settings, score_KVC, strict=True):
                auc = problem.auc_of(score_VC)
                if all(auc > trial.validation_macro_auc for trial in trials):
                    best = copy.deepcopy(network)
                trials.append(Trial(validation_macro_auc=auc, learning_rate=rate, weight_decay=decay, epoch=epoch + 1))
        if problem.folder is not None:
            write_atomically(problem.folder / LAYER_FILE, save(best.folded()))
        return Fit(model=Pooled(network=best, multi_class=problem.multi_class), trials=tuple(trials))

    def _network(self, dim: int, problem: FitProblem) -> Pooling:
        """Return a network with its initial weights, on the device."""
        y_NC = problem.y_NC[problem.train]
        network = Pooling(dim, self.heads, y_NC.shape[1])
        prevalence_C = torch.from_numpy(y_NC.mean(axis=0)).float()
        network.initialise(prevalence_C, multi_class=problem.multi_class, seed=problem.seed)
        return network.to(torch_device(self.device))

    def _epoch(self, problem: FitProblem, epoch: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield tokens and labels of all training records, in an order that depends on the seed and the epoch."""
        order = np.random.default_rng([problem.seed, epoch]).permutation(problem.train)
        for rows in np.array_split(order, _batches(problem.train, self.batch)):
            y_BC = torch.from_numpy(problem.y_NC[rows].astype(np.float32))
            yield _read(problem.x, rows, device), y_BC.to(device)


def _batches(train: np.ndarray, batch: int) -> int:
    """Return the number of batches of about one size, none of a single record, which has no spread to normalise by."""
    return min(-(-len(train) // batch), len(train) // 2)


def _loss(networks: Sequence[Pooling], x_BPD: Tensor, y_BC: Tensor, multi_class: bool) -> Tensor:
    """Return the sum of the networks' losses; the gradient of each depends on its own loss alone."""
    loss_of = F.cross_entropy if multi_class else F.binary_cross_entropy_with_logits
    logits = logits_together([network.train() for network in networks], x_BPD)
    return torch.stack([loss_of(logit_BC, y_BC) for logit_BC in logits]).sum()


def _probabilities(networks: Sequence[Pooling], x: Rows, rows: np.ndarray, multi_class: bool) -> np.ndarray:
    """Return each network's probabilities, float64 (K, len(rows), C)."""
    networks = [network.eval() for network in networks]
    layer = networks[0].layer
    probability_KNC = np.empty((len(networks), len(rows), layer.out_features))
    with torch.inference_mode():
        for first in range(0, len(rows), _BATCH):
            x_BPD = _read(x, rows[first : first + _BATCH], layer.weight.device)
            logit_KBC = torch.stack(logits_together(networks, x_BPD)).double()
            probability_KBC = logit_KBC.softmax(dim=-1) if multi_class else logit_KBC.sigmoid()
            probability_KNC[:, first : first + _BATCH] = probability_KBC.cpu().numpy()
    return probability_KNC


def _read(x: Rows, rows: np.ndarray, device: torch.device) -> Tensor:
    """Read the tokens of rows to the device, float32 (B, P, D)."""
    return torch.from_numpy(x[rows]).to(device).float()
