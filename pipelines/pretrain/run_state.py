"""The state of a run between two steps: into a checkpoint, and back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ecg_model.jepa import JEPA
from pipelines.pretrain.checkpoint import Checkpoint
from pipelines.pretrain.recipes import Recipe, differences

log = logging.getLogger(__name__)

Figures = dict[str, float]


@dataclass(kw_only=True)
class RunState:
    """What a run knows beside its weights. losses: of the steps since the last log, on the device, this process's."""

    step: int = 0
    seconds: float = 0.0
    losses: list[Tensor] = field(default_factory=list)
    first: Figures = field(default_factory=dict)
    last: Figures = field(default_factory=dict)


def captured(
    progress: RunState, recipe: Recipe, corpus_digest: str, model: JEPA, optimizer: torch.optim.Optimizer
) -> Checkpoint:
    """All that the next step depends on, and what the metrics and the summary need of the past."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    tensors["losses"] = torch.stack(progress.losses) if progress.losses else torch.zeros(0)
    tensors["rng.cpu"] = torch.get_rng_state()
    if next(model.parameters()).is_cuda:
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    facts = {
        "recipe": recipe.to_dict(),
        "corpus": corpus_digest,
        "seconds": progress.seconds,
        "first": progress.first,
        "last": progress.last,
    }
    return Checkpoint(
        step=progress.step, facts=facts, tensors={name: value.detach().cpu() for name, value in tensors.items()}
    )


def resumed(
    checkpoint: Checkpoint | None,
    recipe: Recipe,
    corpus_digest: str,
    model: JEPA,
    optimizer: torch.optim.Optimizer,
) -> RunState:
    """Put a checkpoint back into model, optimizer and generators; from the beginning where there is none.

    Raises ValueError naming the fields where it is of another recipe, and where it is of another corpus.
    """
    if checkpoint is None:
        return RunState()
    facts, tensors = checkpoint.facts, checkpoint.tensors
    changed = differences(facts["recipe"], recipe.to_dict())
    if facts["corpus"] != corpus_digest:
        changed.append(f"corpus: {facts['corpus']} -> {corpus_digest}")
    if changed:
        raise ValueError(
            f"the run at step {checkpoint.step} was started with other settings ({'; '.join(changed)}): "
            "go on with the former ones, or start anew in another output folder"
        )
    model.load_state_dict(_below("model.", tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _below("optimizer.", tensors).items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["rng.cpu"])
    device = next(model.parameters()).device
    if device.type == "cuda" and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    log.info("going on from step %d", checkpoint.step)
    return RunState(
        step=checkpoint.step,
        seconds=facts["seconds"],
        losses=list(tensors["losses"].to(device)),
        first=facts["first"],
        last=facts["last"],
    )


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
