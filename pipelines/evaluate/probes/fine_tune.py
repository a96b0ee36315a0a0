"""Fine-tuning: the encoder is trained together with a linear layer on the mean of its tokens.

The published recipe (method of ST-MEM, Na et al., arXiv 2402.09450, used by ECG-JEPA): ECGs band-passed to 0.67-40 Hz,
RandAugment (see `augment`), AdamW with a warm-up and a cosine. ECGs are whole and in millivolt, while ST-MEM takes nine
seconds of each and standardises them. Learning rates that fall from the linear layer to the input are those of the
benchmark of Al-Masud et al., arXiv 2509.25095, with its groups of layers for this encoder.
Order of records, augmentation and stochastic depth are pure functions of the seed and the epoch or step. So after a
kill the run resumes from the weights and the optimizer's state of the last epoch, bit for bit on the same machine.
In the product: encoder.safetensors, readable by `load_encoder`; layer.safetensors (weight (C, D), bias (C,));
fine_tuning.json, the loss of each epoch and the epoch that was chosen.
Shapes: B records, L leads, T samples, D channels, C classes.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from ecg_model.band_pass import band_pass
from ecg_model.encoder import Encoder, save_encoder
from ecg_model.stochastic_depth import drop_path_scale
from pipelines.device import torch_device
from pipelines.durable import write_atomically
from pipelines.encoders.names import ENCODER_FILE
from pipelines.evaluate.features import Rows
from pipelines.evaluate.probes.augment import AugmentConfig, augmented
from pipelines.evaluate.probes.heads import CHECKPOINTS, LAYER_FILE, Fit, FitProblem, Takes, scorable
from pipelines.evaluate.probes.result import Trial
from pipelines.formats.shard import MILLIVOLT
from pipelines.hashing import digest_of
from pipelines.pretrain.checkpoint import Checkpoint, CheckpointFolder
from pipelines.pretrain.schedule import learning_rate
from pipelines.tasks.splits import Split

log = logging.getLogger(__name__)

TRAINING_FILE = "fine_tuning.json"

_BATCH = 64  # records that are read at once for predictions
_REPORT_SECONDS = 30.0


class Network(nn.Module):
    """ECGs (B, L, T) in millivolt -> logits (B, C)."""

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.layer = nn.Linear(encoder.config.dim, classes)

    def forward(self, x_BLT: Tensor, scale_K2B: Tensor | None = None) -> Tensor:
        return self.layer(self.encoder(x_BLT, scale_K2B=scale_K2B).mean(dim=1))


@dataclass(frozen=True, kw_only=True)
class FineTunedClassifier:
    """A fine-tuned network as a `Model`."""

    network: Network
    multi_class: bool
    losses: tuple[float, ...]
    """The mean loss of each epoch."""
    epoch: int
    """The chosen epoch, from 1."""

    def probabilities(self, x: Rows, rows: np.ndarray) -> np.ndarray:
        return _probabilities(self.network, x, rows, self.multi_class)


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """Settings of fine-tuning. The defaults are the published recipe's except `keep`: it chooses nothing (`last`)."""

    epochs: int = 10
    warmup: int = 3
    """Epochs."""
    batch: int = 16
    """Records of a step."""
    rate: float = 1e-4
    """The peak learning rate for a batch of 256; it is scaled in proportion to the batch."""
    weight_decay: float = 0.05
    """Of weight matrices; biases and norms have none."""
    group_decay: float = 1.0
    """Factor on the learning rate from each group of layers to the one below it, see `parameter_groups`."""
    train_encoder: bool = True
    """False freezes the encoder."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    keep: Literal["best", "last"] = "best"
    """`best` is the epoch with the best macro AUC on validation, of equals the earlier."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` computes the network's products in bfloat16."""
    device: str = "auto"
    """As `pipelines.device.torch_device` takes it."""

    takes: ClassVar[Takes] = "signals"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: use at least 1")
        if not 0 <= self.warmup <= self.epochs:
            raise ValueError(f"warmup={self.warmup}: use 0 to {self.epochs}, the number of epochs")
        if self.rate <= 0:
            raise ValueError(f"rate={self.rate}: give a positive learning rate")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay={self.weight_decay}: give a number of at least 0")
        if not 0 < self.group_decay <= 1:
            raise ValueError(f"group_decay={self.group_decay}: use a factor above 0 and at most 1")
        if self.keep not in ("best", "last"):
            raise ValueError(f"keep={self.keep!r}: use 'best' or 'last'")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision={self.precision!r}: use 'fp32' or 'bf16'")

    @property
    def chooses(self) -> bool:
        return self.keep == "best"

    @property
    def torch_device(self) -> torch.device:
        """The device. Raises ValueError as `pipelines.device.torch_device` does."""
        return torch_device(self.device)

    def to_dict(self) -> dict[str, Any]:
        settings = {name: value for name, value in asdict(self).items() if name != "device"}
        operations = list(self.augment.operations)
        return {"head": "fine_tune", **settings, "augment": {**settings["augment"], "operations": operations}}

    def fit(self, problem: FitProblem) -> Fit:
        """Train, or resume after the last finished epoch if the problem's folder has one.

        Raises ValueError if the problem has no encoder, if the folder has a checkpoint of another run, or if the loss
        is not finite.
        """
        run = _Training(self, problem)
        run.resume()
        while run.epoch < self.epochs:
            run.train_epoch()
        model = run.chosen()
        if problem.folder is not None:
            _write(problem.folder, model)
        return Fit(model=model, trials=tuple(run.trials))


def parameter_groups(network: Network, *, rate: float, weight_decay: float, group_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's groups: a peak learning rate for each group of layers, and no weight decay on biases and norms.

    The linear layer has `rate`; the upper three quarters of the blocks with the encoder's last norm `group_decay` times
    that; the blocks below and the patch projection `group_decay` times that again.
    """
    depth = len(network.encoder.blocks)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, weight in network.named_parameters():
        below = _groups_above(name, depth)
        matrix = weight.ndim > 1
        group = groups.setdefault(
            (below, matrix),
            {"params": [], "peak": rate * group_decay**below, "weight_decay": weight_decay if matrix else 0.0},
        )
        group["params"].append(weight)
    return list(groups.values())


def _groups_above(name: str, depth: int) -> int:
    """Return how many groups of layers are above that of a weight."""
    part, *rest = name.split(".")
    if part == "layer":
        return 0
    low = rest[0] == "patch" or (rest[0] == "blocks" and int(rest[1]) < depth // 4)
    return 2 if low else 1


class _Training:
    """The state of a fine-tuning between two epochs."""

    def __init__(self, head: FineTune, problem: FitProblem) -> None:
        if problem.encoder is None:
            raise ValueError("fine-tuning needs an encoder to train on: probe an encoder, not features")
        self.head, self.problem = head, problem
        self.epoch, self.losses, self.trials = 0, [], []
        self.best: dict[str, Tensor] = {}  # the weights of the best epoch so far, if one is chosen
        if head.chooses:  # raises InsufficientData now, rather than after hours of training
            scorable(problem.y_NC[problem.validation], problem.min_positives, Split.VALIDATION)
        y_NC = problem.y_NC[problem.train]
        self.network = Network(problem.encoder(), y_NC.shape[1])
        _initialise(self.network.layer, y_NC, problem)
        self.network.encoder.requires_grad_(head.train_encoder)
        self.network.to(head.torch_device)
        groups = parameter_groups(
            self.network,
            rate=head.rate * head.batch / 256,
            weight_decay=head.weight_decay,
            group_decay=head.group_decay,
        )
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95))
        self.folder = None if problem.folder is None else CheckpointFolder(problem.folder / CHECKPOINTS)
        rows = {"train": problem.train.tolist(), "validation": problem.validation.tolist()}
        self.about = {"head": digest_of(head.to_dict()), "problem": digest_of({**rows, "seed": problem.seed})}

    def train_epoch(self) -> None:
        """Train on all training records once, score validation if an epoch is chosen, and write a checkpoint.

        Raises ValueError if the loss is not finite.
        """
        head, problem = self.head, self.problem
        batches = -(-len(problem.train) // head.batch)
        steps = batches * head.epochs
        reported = began = time.monotonic()
        total = torch.zeros((), device=head.torch_device)
        self.network.train()
        for number, (x_BLT, y_BC) in enumerate(self._batches()):
            step = self.epoch * batches + number
            for group in self.optimiser.param_groups:
                peak = group["peak"]
                group["lr"] = learning_rate(step, total=steps, warmup=batches * head.warmup, peak=peak, edge=0.0)
            # The losses add up on the device: to read one here would wait for the GPU in each step.
            total += self._train_step(x_BLT, y_BC, step) * len(x_BLT)
            if time.monotonic() - reported > _REPORT_SECONDS:
                reported = time.monotonic()
                left = (reported - began) / (number + 1) * (steps - step - 1)
                log.info("fine-tuning: step %d of %d, about %.0f s left", step + 1, steps, left)
        self.losses.append(float(total) / len(problem.train))
        if not np.isfinite(self.losses[-1]):
            raise ValueError(f"fine-tuning diverged in epoch {self.epoch + 1}: use a lower rate than {head.rate}")
        self.epoch += 1
        auc = self._validate() if head.chooses else None
        if self.folder is not None:
            self.folder.save(self._checkpoint())
        left = (time.monotonic() - began) * (head.epochs - self.epoch)
        validated = "" if auc is None else f", validation macro AUC {auc:.4f}"
        log.info(
            "fine-tuning: epoch %d of %d, loss %.4f%s, about %.0f s left",
            self.epoch,
            head.epochs,
            self.losses[-1],
            validated,
            left,
        )

    def _train_step(self, x_BLT: Tensor, y_BC: Tensor, step: int) -> Tensor:
        """Do one step of the optimiser and return the batch's mean loss, on the device."""
        head, problem, device = self.head, self.problem, self.head.torch_device
        scale_K2B = None
        if head.train_encoder:
            scale = drop_path_scale(self.network.encoder.config, len(x_BLT), seed=problem.seed, step=step)
            scale_K2B = None if scale is None else torch.from_numpy(scale).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=head.precision == "bf16"):
            logit_BC = self.network(x_BLT.to(device), scale_K2B)
        loss_of = F.cross_entropy if problem.multi_class else F.binary_cross_entropy_with_logits
        loss = loss_of(logit_BC.float(), y_BC.to(device))
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def resume(self) -> None:
        """Load the newest checkpoint, if there is one. Raises ValueError if it is of another head or other records."""
        checkpoint = None if self.folder is None else self.folder.newest()
        if checkpoint is None:
            return
        assert self.folder is not None
        if checkpoint.facts["about"] != self.about:
            raise ValueError(
                f"{self.folder.folder} has a checkpoint of another head or of other records: use an empty folder"
            )
        self.epoch, self.losses = checkpoint.step, list(checkpoint.facts["losses"])
        self.trials = [Trial(**trial) for trial in checkpoint.facts["trials"]]
        self.best = _below("best.", checkpoint)
        self.network.load_state_dict(_below("network.", checkpoint))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimiser.", checkpoint).items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        log.info("fine-tuning: resumed after epoch %d of %d", self.epoch, self.head.epochs)

    def chosen(self) -> FineTunedClassifier:
        """Return the model of the chosen epoch, on the device."""
        epoch = self.epoch
        if self.head.chooses:
            self.network.load_state_dict(self.best)
            epoch = 1 + int(np.argmax([trial.validation_macro_auc for trial in self.trials]))
        return FineTunedClassifier(
            network=self.network.eval(),
            multi_class=self.problem.multi_class,
            losses=tuple(self.losses),
            epoch=epoch,
        )

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ECGs (B, L, T) in millivolt, band-passed and augmented, and labels (B, C)."""
        problem, seed = self.problem, self.problem.seed
        order = problem.train[np.random.default_rng([seed, self.epoch]).permutation(len(problem.train))]
        for first in range(0, len(order), self.head.batch):
            rows = order[first : first + self.head.batch]
            x_BLT = band_pass(problem.x[rows] * MILLIVOLT)
            # A generator for each record, so that its augmentation does not depend on the batch.
            draws = [np.random.default_rng([seed, self.epoch, row]) for row in rows.tolist()]
            changed = [augmented(x_LT, self.head.augment, rng) for x_LT, rng in zip(x_BLT, draws, strict=True)]
            yield torch.from_numpy(np.stack(changed)), torch.from_numpy(problem.y_NC[rows].astype(np.float32))

    def _validate(self) -> float:
        """Return the macro AUC on validation, and store the weights if it is the best."""
        problem = self.problem
        model = FineTunedClassifier(
            network=self.network.eval(), multi_class=problem.multi_class, losses=(), epoch=self.epoch
        )
        auc = problem.validation_auc(model)
        if all(auc > trial.validation_macro_auc for trial in self.trials):
            self.best = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
        self.trials.append(Trial(validation_macro_auc=auc, epoch=self.epoch))
        return auc

    def _checkpoint(self) -> Checkpoint:
        """Return the state after an epoch; `resume` reads it."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        facts = {
            "about": self.about,
            "losses": self.losses,
            "trials": [asdict(trial) for trial in self.trials],
        }
        return Checkpoint(
            step=self.epoch, facts=facts, tensors={name: value.detach().cpu() for name, value in tensors.items()}
        )


def _initialise(layer: nn.Linear, y_NC: np.ndarray, problem: FitProblem) -> None:
    """Set small weights from the seed, and biases with which each class's probability starts at its prevalence."""
    draw = torch.Generator().manual_seed(problem.seed)
    nn.init.trunc_normal_(layer.weight, std=0.02, generator=draw)
    prevalence_C = torch.from_numpy(y_NC.mean(axis=0)).float()
    with torch.no_grad():
        layer.bias.copy_(prevalence_C.log() if problem.multi_class else prevalence_C.logit())


def _probabilities(network: Network, x: Rows, rows: np.ndarray, multi_class: bool) -> np.ndarray:
    """Return probabilities, float64 (len(rows), C), of band-passed ECGs without augmentation, computed in float32."""
    device = network.layer.weight.device
    probability_NC = np.empty((len(rows), network.layer.out_features))
    with torch.inference_mode():
        for first in range(0, len(rows), _BATCH):
            x_BLT = torch.from_numpy(band_pass(x[rows[first : first + _BATCH]] * MILLIVOLT))
            logit_BC = network(x_BLT.to(device)).double()
            probability_BC = logit_BC.softmax(dim=1) if multi_class else logit_BC.sigmoid()
            probability_NC[first : first + _BATCH] = probability_BC.cpu().numpy()
    return probability_NC


def _below(prefix: str, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    tensors = checkpoint.tensors
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _write(folder: Path, model: FineTunedClassifier) -> None:
    """Write the chosen network to the product's folder."""
    save_encoder(folder / ENCODER_FILE, model.network.encoder)
    layer = {name: value.detach().cpu().contiguous() for name, value in model.network.layer.state_dict().items()}
    write_atomically(folder / LAYER_FILE, save(layer))
    about = {"losses": list(model.losses), "epoch": model.epoch}
    write_atomically(folder / TRAINING_FILE, json.dumps(about, indent=1).encode())
