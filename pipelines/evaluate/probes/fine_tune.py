"""Fine-tuning: the encoder is trained together with a linear layer on the mean of its tokens.

The published recipe (method of ST-MEM, Na et al., arXiv 2402.09450, used by ECG-JEPA): ECGs band-passed to 0.67-40 Hz,
RandAugment (see `augment`), AdamW with a warm-up and a cosine. ECGs are whole and in millivolt, while ST-MEM takes nine
seconds of each and standardises them. Learning rates that fall from the linear layer to the input are those of the
benchmark of Al-Masud et al., arXiv 2509.25095, with its groups of layers for this encoder.
Order of records, augmentation and stochastic depth are pure functions of the seed and the epoch or step. So after a
kill the run resumes from the weights and the optimizer's state of its last checkpoint, bit for bit on the same machine.
ECGs are read from the store when they are needed. The product has the files of `tuned_network`.
Shapes: B records, L leads, T samples, D channels, C classes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ecg_model.band_pass import band_pass
from pipelines.device import torch_device
from pipelines.evaluate.probes.augment import AugmentConfig, augmented
from pipelines.evaluate.probes.fine_tune_process import fit_in_process
from pipelines.evaluate.probes.heads import CHECKPOINTS, Fit, FitProblem, Takes, scorable
from pipelines.evaluate.probes.layer_start import start_at_prevalence, start_at_probe
from pipelines.evaluate.probes.read_ahead import read_ahead
from pipelines.evaluate.probes.result import Trial
from pipelines.evaluate.probes.tuned_network import FineTunedClassifier, Network, parameter_groups
from pipelines.formats.shard import MILLIVOLT
from pipelines.hashing import digest_of
from pipelines.pretrain.checkpoint import Checkpoint, CheckpointFolder
from pipelines.pretrain.schedule import learning_rate
from pipelines.program import Stopped
from pipelines.tasks.splits import Split

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 600.0  # between two checkpoints of a long epoch


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
    start: Literal["prevalence", "probe"] = "prevalence"
    """Of the linear layer: small weights and each class's prevalence, or the linear probe (`layer_start`)."""
    keep: Literal["best", "last", "last_or_start"] = "best"
    """`best` is the epoch with the best macro AUC on validation, of equals the earlier. `last_or_start` is the last, or
    the start if that is no worse there: on few ECGs the best of many epochs is the luckiest."""
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
        if self.start not in ("prevalence", "probe"):
            raise ValueError(f"start={self.start!r}: use 'prevalence' or 'probe'")
        if self.keep not in ("best", "last", "last_or_start"):
            raise ValueError(f"keep={self.keep!r}: use 'best', 'last' or 'last_or_start'")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision={self.precision!r}: use 'fp32' or 'bf16'")

    @property
    def chooses(self) -> bool:
        return self.keep != "last"

    @property
    def torch_device(self) -> torch.device:
        """The device. Raises ValueError as `pipelines.device.torch_device` does."""
        return torch_device(self.device)

    def to_dict(self) -> dict[str, Any]:
        settings = {name: value for name, value in asdict(self).items() if name != "device"}
        if self.start == "prevalence":  # as what was fitted before there was a choice
            del settings["start"]
        operations = list(self.augment.operations)
        return {"head": "fine_tune", **settings, "augment": {**settings["augment"], "operations": operations}}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> FineTune:
        """Return the head of settings as `to_dict` gives them, and `device`."""
        values = {name: value for name, value in settings.items() if name != "head"}
        augment = {**values["augment"], "operations": tuple(values["augment"]["operations"])}
        return cls(**{**values, "augment": AugmentConfig(**augment)})

    def fit(self, problem: FitProblem) -> Fit:
        """Train, or resume after the last checkpoint if the problem's folder has one.

        Raises ValueError if the problem has no encoder, if the folder has a checkpoint of another run, or if the loss
        is not finite.
        """
        if problem.encoder is None:
            raise ValueError("fine-tuning needs an encoder to train on: probe an encoder, not features")
        if self.chooses:  # raises InsufficientData now, rather than after hours of training
            scorable(problem.y_NC[problem.validation], problem.min_positives, Split.VALIDATION)
        if problem.launch is not None:
            return fit_in_process(self.to_dict(), problem, self.torch_device)
        training = Training(self, problem)
        model = training.finish()
        if problem.folder is not None:
            model.write(problem.folder)
        return Fit(model=model, trials=tuple(training.trials))


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is after a step."""

    step: int
    total: int
    epoch: int
    """From 1."""
    records: int
    """ECGs of this epoch that were trained on in this process."""
    seconds: float
    """That these took."""
    mean_loss: Callable[[], float]
    """Of this epoch so far. To read it waits for the device."""


def _never() -> bool:
    return False


class Training:
    """A fine-tuning that is under way.

    on_step: called after each step
    on_epoch: called at the end of each epoch, before its line is logged
    asked_to_stop: called after each step and each batch of validation; if true, a checkpoint is written and Stopped is
        raised
    """

    def __init__(
        self,
        head: FineTune,
        problem: FitProblem,
        *,
        on_step: Callable[[Progress], None] | None = None,
        on_epoch: Callable[[], None] | None = None,
        asked_to_stop: Callable[[], bool] = _never,
    ) -> None:
        assert problem.encoder is not None
        self.head, self.problem = head, problem
        self._on_step, self._on_epoch, self._asked_to_stop = on_step, on_epoch, asked_to_stop
        self.batches = -(-len(problem.train) // head.batch)  # of an epoch
        self.epoch, self.batch = 0, 0  # epochs done, and batches of the next one
        self.loss_sum = torch.zeros((), device=head.torch_device)  # of this epoch, over its records
        self.losses: list[float] = []
        self.trials: list[Trial] = []
        self.best: dict[str, Tensor] = {}  # the weights of the best epoch so far, if one is chosen
        y_NC = problem.y_NC[problem.train]
        self.network = Network(problem.encoder(), y_NC.shape[1])
        start_at_prevalence(self.network.layer, y_NC, problem)
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
        self._saved = time.monotonic()

    @property
    def step(self) -> int:
        """Steps done."""
        return self.epoch * self.batches + self.batch

    @property
    def total(self) -> int:
        """Steps of the whole training."""
        return self.head.epochs * self.batches

    def finish(self) -> FineTunedClassifier:
        """Go on from the newest checkpoint, if there is one, to the end, and return the chosen model.

        Raises ValueError as `FineTune.fit` does, and Stopped if that was asked for.
        """
        self._resume()
        if self.head.start == "probe" and not self.step:
            start_at_probe(self.network, self.problem)
            self.trials.clear()
            if self.head.chooses:
                self._validate(0)
        while self.epoch < self.head.epochs:
            self._train_epoch()
        return self._chosen()

    def _train_epoch(self) -> None:
        """Train on what is left of the epoch, score validation if an epoch is chosen, and write a checkpoint.

        Raises ValueError if the loss is not finite.
        """
        began, first = time.monotonic(), self.step
        self.network.train()
        if not self.head.train_encoder:
            self.network.encoder.eval()  # batch norm would go by the batch, and move its statistics
        for x_BLT, y_BC in self._batches():
            for group in self.optimiser.param_groups:
                warmup = self.batches * self.head.warmup
                group["lr"] = learning_rate(self.step, total=self.total, warmup=warmup, peak=group["peak"], edge=0.0)
            # The losses add up on the device: to read one here would wait for the GPU in each step.
            self.loss_sum += self._train_step(x_BLT, y_BC) * len(x_BLT)
            self.batch += 1
            if self._on_step is not None:
                self._on_step(self._progress(first, time.monotonic() - began))
            self._stop_if_asked()
            if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
                self._save()
        loss = float(self.loss_sum) / len(self.problem.train)
        if not np.isfinite(loss):
            raise ValueError(f"fine-tuning diverged in epoch {self.epoch + 1}: use a lower rate than {self.head.rate}")
        auc = self._validate(self.epoch + 1) if self.head.chooses else None
        self.losses.append(loss)
        self.epoch, self.batch = self.epoch + 1, 0
        self.loss_sum = torch.zeros_like(self.loss_sum)
        self._save()
        if self._on_epoch is not None:
            self._on_epoch()
        log.info(
            "fine-tuning: epoch %d of %d, loss %.4f%s, about %.0f s left",
            self.epoch,
            self.head.epochs,
            loss,
            "" if auc is None else f", validation macro AUC {auc:.4f}",
            (time.monotonic() - began) / max(self.step - first, 1) * (self.total - self.step),
        )

    def _progress(self, first: int, seconds: float) -> Progress:
        """Return how far it is. first: the step that this process began the epoch at, `seconds` ago."""
        seen = min(self.batch * self.head.batch, len(self.problem.train))
        return Progress(
            step=self.step,
            total=self.total,
            epoch=self.epoch + 1,
            records=seen - (first - self.epoch * self.batches) * self.head.batch,
            seconds=seconds,
            mean_loss=lambda: float(self.loss_sum) / seen,
        )

    def _train_step(self, x_BLT: Tensor, y_BC: Tensor) -> Tensor:
        """Do one step of the optimiser and return the batch's mean loss, on the device."""
        head, problem, device = self.head, self.problem, self.head.torch_device
        noise = None
        if head.train_encoder:
            noise = self.network.encoder.noise(len(x_BLT), seed=problem.seed, step=self.step)
        noise_K2B = None if noise is None else torch.from_numpy(noise).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=head.precision == "bf16"):
            logit_BC = self.network(x_BLT.to(device), noise_K2B)
        loss_of = F.cross_entropy if problem.multi_class else F.binary_cross_entropy_with_logits
        loss = loss_of(logit_BC.float(), y_BC.to(device))
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what is left of an epoch: ECGs (B, L, T) in millivolt, filtered and augmented, and labels (B, C)."""
        problem, seed, size = self.problem, self.problem.seed, self.head.batch
        order = problem.train[np.random.default_rng([seed, self.epoch]).permutation(len(problem.train))]

        def batch(rows: np.ndarray) -> tuple[Tensor, Tensor]:
            x_BLT = band_pass(problem.x[rows] * MILLIVOLT)
            # A generator for each record, so that its augmentation does not depend on the batch.
            draws = [np.random.default_rng([seed, epoch, row]) for row in rows.tolist()]
            changed = [augmented(x_LT, self.head.augment, rng) for x_LT, rng in zip(x_BLT, draws, strict=True)]
            return torch.from_numpy(np.stack(changed)), torch.from_numpy(problem.y_NC[rows].astype(np.float32))

        epoch = self.epoch
        return read_ahead(batch, [order[at : at + size] for at in range(self.batch * size, len(order), size)])

    def _validate(self, epoch: int) -> float:
        """Return the macro AUC on validation after an epoch, and store the weights if they are the best to be kept."""
        model = FineTunedClassifier(
            network=self.network.eval(),
            multi_class=self.problem.multi_class,
            losses=(),
            epoch=epoch,
            between=self._stop_if_asked,
        )
        auc = self.problem.validation_auc(model)
        if self._may_keep(epoch) and all(auc > trial.validation_macro_auc for trial in self._candidates):
            self.best = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
        self.trials.append(Trial(validation_macro_auc=auc, epoch=epoch))
        return auc

    def _may_keep(self, epoch: int | None) -> bool:
        return self.head.keep == "best" or epoch in (0, self.head.epochs)

    @property
    def _candidates(self) -> list[Trial]:
        return [trial for trial in self.trials if self._may_keep(trial.epoch)]

    def _stop_if_asked(self) -> None:
        if self._asked_to_stop():
            self._save()
            raise Stopped(f"stopped at step {self.step} of {self.total}: the same command resumes from there")

    def _chosen(self) -> FineTunedClassifier:
        """Return the model of the chosen epoch, on the device."""
        epoch = self.epoch
        if self.head.chooses:
            self.network.load_state_dict(self.best)
            epoch = max(self._candidates, key=lambda trial: trial.validation_macro_auc).epoch or 0
        return FineTunedClassifier(
            network=self.network.eval(),
            multi_class=self.problem.multi_class,
            losses=tuple(self.losses),
            epoch=epoch,
        )

    def _resume(self) -> None:
        """Load the newest checkpoint, if there is one. Raises ValueError if it is of another head or other records."""
        checkpoint = None if self.folder is None else self.folder.newest()
        if checkpoint is None:
            return
        assert self.folder is not None
        facts = checkpoint.facts
        if facts["about"] != self.about:
            raise ValueError(
                f"{self.folder.folder} has a checkpoint of another head or of other records: use an empty folder"
            )
        # Those of earlier commits are of whole epochs, and count these.
        self.epoch, self.batch = facts.get("epoch", checkpoint.step), facts.get("batch", 0)
        self.loss_sum = checkpoint.tensors.get("loss_sum", self.loss_sum).to(self.loss_sum.device)
        self.losses = list(facts["losses"])
        self.trials = [Trial(**trial) for trial in facts["trials"]]
        self.best = _below("best.", checkpoint)
        self.network.load_state_dict(_below("network.", checkpoint))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimiser.", checkpoint).items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        within = f" and step {self.batch} of {self.batches}" if self.batch else ""
        log.info("fine-tuning: resumed after epoch %d of %d%s", self.epoch, self.head.epochs, within)

    def _save(self) -> None:
        """Write a checkpoint, which `_resume` reads, if there is a folder."""
        self._saved = time.monotonic()
        if self.folder is None:
            return
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors["loss_sum"] = self.loss_sum
        facts = {
            "about": self.about,
            "epoch": self.epoch,
            "batch": self.batch,
            "losses": self.losses,
            "trials": [asdict(trial) for trial in self.trials],
        }
        tensors = {name: value.detach().cpu() for name, value in tensors.items()}
        self.folder.save(Checkpoint(step=self.step, facts=facts, tensors=tensors))


def _below(prefix: str, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    tensors = checkpoint.tensors
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
