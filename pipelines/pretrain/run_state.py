"""The state of a run between two steps, to a checkpoint and back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pipelines.pretrain.checkpoint import Checkpoint
from pipelines.pretrain.recipes import Recipe, differences

log = logging.getLogger(__name__)

Figures = dict[str, float]


@dataclass(kw_only=True)
class RunState:
    """The state of a run other than its weights."""

    step: int = 0  # updates done
    seconds: float = 0.0  # of training, up to the last checkpoint
    losses: list[Tensor] = field(default_factory=list)  # of this process since the last metrics line, on the device
    first: Figures = field(default_factory=dict)  # of the first metrics line
    last: Figures = field(default_factory=dict)  # of the last metrics line


def capture(
    state: RunState, recipe: Recipe, corpus_digest: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Checkpoint:
    """Return a checkpoint: all that the next step depends on, and the past that metrics and summary need."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    tensors["losses"] = torch.stack(state.losses) if state.losses else torch.zeros(0)
    tensors["rng.cpu"] = torch.get_rng_state()
    if next(model.parameters()).is_cuda:
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    facts = {
        "recipe": recipe.to_dict(),
        "corpus": corpus_digest,
        "seconds": state.seconds,
        "first": state.first,
        "last": state.last,
    }
    return Checkpoint(
        step=state.step, facts=facts, tensors={name: value.detach().cpu() for name, value in tensors.items()}
    )


def resume(
    checkpoint: Checkpoint | None,
    recipe: Recipe,
    corpus_digest: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> RunState:
    """Load a checkpoint into model, optimizer and generators, and return its state; a new state if it is None.

    Raises ValueError, naming the fields, if the checkpoint is of another recipe or corpus.
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
            "continue with the former ones, or start in another output folder"
        )
    model.load_state_dict(_below("model.", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _below("optimizer.", tensors).items():
        index, key = name.split(".")
        moments.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
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
    """Return the tensors whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
