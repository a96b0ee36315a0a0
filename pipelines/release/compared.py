"""Score the current encoder, or its classifier, and the champion on the same validation ECGs, and put them in contest.

The champion answers by the code that it was registered with.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from ecg_model.serving.classify import CalibratedHead
from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.encoders.names import OURS
from pipelines.evaluate.features import EncoderSource, materialize_features, read_features
from pipelines.evaluate.own_code import CannotAnswer, OwnCodeSource
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.result import Predictions, ProbeResult, load_result
from pipelines.evaluate.probes.stored import probed, protocol_and_config
from pipelines.evaluate.suite.names import Evaluation
from pipelines.evaluate.suite.run import materialize_evaluation
from pipelines.finding import Finding
from pipelines.harmonize.shards import read_records, shards_of
from pipelines.release.contest import Probed, contest_probes, contest_served
from pipelines.release.gate import Contest, GateConfig
from pipelines.release.gate_probes import LINEAR, gate_evaluation
from pipelines.release.model import Release
from pipelines.release.own_source import version_source
from pipelines.release.registry import files_of
from pipelines.release.tags import CHALLENGER, CHAMPION
from pipelines.tasks.catalogue import TASKS
from pipelines.tasks.splits import Split
from pipelines.tracking import Tracking


def contest_current(
    workspace: Workspace, gate_task: str, champion: Release, tracking: Tracking, config: GateConfig
) -> Contest | Finding | None:
    """Compare the current encoder's probes with the champion on the challenger's validation records.

    The champion's encoder is probed as the current one is, on the same ECGs; a champion with a head is scored with that
    head alone, as it is served. Returns None if either was not scored, and a finding if they have no probe in common.
    Raises ValueError if a probe of `config` cannot be of this task.
    """
    evaluations = {probe: gate_evaluation(gate_task, probe) for probe in config.probes}
    probe = workspace.require(f"probe/{gate_task}/{OURS.probe}")
    ours = EncoderSource.of_product(OURS.probe, workspace.require(OURS.product))
    require_probe_of(ours, probe)
    challenger = load_result(probe.path)
    if challenger.predictions is None:
        return None
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        encoder = version_source(champion, Path(folder), tracking=tracking, running=running, name=CHAMPION)
        if "head" not in champion.weights:
            protocol, how = protocol_and_config(probed(probe.path))
            alike = {name: replace(one, task=replace(one.task, protocol=protocol)) for name, one in evaluations.items()}
            both = []
            for name, weight in config.probes.items():
                with _named(name):
                    own = challenger if name == LINEAR else _probe_ours(workspace, alike[name], how, ours)
                    its, why = _champions(workspace, alike[name], how, encoder)
                both.append(Probed(name, weight, own, its, why))
            return contest_probes(both, config)
        files = files_of(champion, Path(folder) / "files", tracking=tracking)
        head = CalibratedHead.load(files["head"])
        score_NC = _served(workspace, gate_task, encoder, head, challenger.predictions.of(Split.VALIDATION))
    return contest_served(challenger, head.labels, score_NC, config)


def require_probe_of(encoder: EncoderSource, probe: Product) -> None:
    """Raise ValueError if a probe is of another encoder."""
    if probed(probe.path)["encoder"]["digest"] != encoder.digest:
        raise ValueError(f"{probe.name} is of an earlier encoder: probe the current one first")


@contextmanager
def _named(probe: str) -> Iterator[None]:
    """Name the probe, and how to do without it, in a ValueError of the body."""
    try:
        yield
    except ValueError as error:
        if probe == LINEAR:
            raise
        raise ValueError(f"probe {probe!r} of the gate: {error}; or leave it out of the setting `probes`") from error


def _probe_ours(workspace: Workspace, evaluation: Evaluation, config: ProbeConfig, ours: EncoderSource) -> ProbeResult:
    """Return our encoder's result of an evaluation: the one that is there if it is the same, else the gate's own.

    The gate's own has another name: the report, which is made before, is of all that is named as our encoder's are.
    """
    there = workspace.current(f"probe/{evaluation.name}/{ours.name}")
    if there is not None and there.version == versions.PROBE:
        about = probed(there.path)
        ecgs = {shard.name: shard.digest for shard in shards_of(workspace, evaluation.task.source).values()}
        same = (about["encoder"]["digest"], about["ecgs"], *protocol_and_config(about))
        if same == (ours.digest, ecgs, evaluation.task.protocol, config):
            return load_result(there.path)
    return load_result(materialize_evaluation(workspace, evaluation, replace(ours, name=CHALLENGER), config).path)


def _champions(
    workspace: Workspace, evaluation: Evaluation, config: ProbeConfig, champion: EncoderSource
) -> tuple[Predictions | None, str]:
    """Return the champion's predictions on validation by an evaluation, or None and why there are none."""
    try:
        its = load_result(materialize_evaluation(workspace, evaluation, champion, config).path)
    except CannotAnswer as error:
        return None, str(error)
    return (None, its.reason or "") if its.predictions is None else (its.predictions.of(Split.VALIDATION), "")


def _served(
    workspace: Workspace, gate_task: str, encoder: EncoderSource, head: CalibratedHead, held_out: Predictions
) -> np.ndarray:
    """Return a champion's probabilities, as it serves them, of the challenger's validation records, (N, C).

    encoder, head: the champion's
    held_out: the challenger's predictions on validation
    """
    features = materialize_features(workspace, encoder, TASKS[gate_task].source)
    records = read_records(shards_of(workspace, TASKS[gate_task].source))
    row_of = {record: row for row, record in enumerate(records.column("record_id").to_pylist())}
    answer_ND = read_features(features)[[row_of[record] for record in held_out.record_id]]
    return answer_ND if isinstance(encoder, OwnCodeSource) else head.probabilities(answer_ND)
