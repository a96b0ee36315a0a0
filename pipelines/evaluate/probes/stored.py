"""A finished probe loaded from its folder: result, predictions and settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.cache import Workspace
from pipelines.encoders.names import OURS
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.result import SCORES_FILE, Predictions, ProbeResult, load_result
from pipelines.tasks.catalogue import LabelTask
from pipelines.tasks.splits import Protocol as SplitProtocol
from pipelines.tasks.splits import Split, protocol_from_dict


def probed(folder: Path) -> dict[str, Any]:
    """Read what was probed and how from a probe's folder: task, encoder, ECGs and settings."""
    return json.loads((folder / SCORES_FILE).read_text())["about"]


def protocol_and_config(about: Mapping[str, Any]) -> tuple[SplitProtocol, ProbeConfig]:
    """Return the protocol and the settings of a probe. about: as `probed` reads it."""
    config = ProbeConfig(**{**about["probe"], "penalties": tuple(about["probe"]["penalties"])})
    return protocol_from_dict(about["task"]["protocol"]), config


def as_ours_was_probed(workspace: Workspace, task: LabelTask) -> tuple[LabelTask, ProbeConfig]:
    """Return the task as our encoder was last probed on it, and the probe's settings: an encoder has one score.

    If there is no such probe: the task as it is, and the defaults.
    """
    probe = workspace.current(f"probe/{task.name}/{OURS.probe}")
    if probe is None:
        return task, ProbeConfig()
    protocol, config = protocol_and_config(probed(probe.path))
    return replace(task, protocol=protocol), config


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A finished probe."""

    folder: Path
    result: ProbeResult
    about: Mapping[str, Any]
    """What was probed and how: task, encoder, ECGs and settings, as scores.json has them."""

    @classmethod
    def load(cls, folder: Path) -> Probe:
        """Read the probe in a product's directory."""
        return cls(folder=folder, result=load_result(folder), about=probed(folder))

    @property
    def test(self) -> Predictions | None:
        """Its predictions on the test split; None if it was not scored."""
        return None if self.result.predictions is None else self.result.predictions.of(Split.TEST)

    @property
    def settings(self) -> ProbeConfig:
        """The bootstrap of its intervals, and the positives that it requires of a label."""
        names = ("resamples", "confidence", "seed", "min_positives")
        return ProbeConfig(**{name: self.about["probe"][name] for name in names})

    def comparable(self, other: Probe) -> bool:
        """Return whether another probe is of the same ECGs, labels and protocol, and both are scored."""
        same = self.about["data_digest"] == other.about["data_digest"]
        return same and self.result.scores is not None and other.result.scores is not None
