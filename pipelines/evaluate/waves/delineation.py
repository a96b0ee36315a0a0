"""Waves of harmonized ECGs from three origins, as products.

    delineation/<source>_<labels>/<partition>/waves.parquet      record_id, lead, wave, onset, peak, offset
    delineation/<source>_<labels>/<partition>/left_out.parquet   record_id, lead, reason

labels: `manual`, drawn by cardiologists (LUDB); `truth`, from the simulator (its PTB-XL); `pseudo`, from neurokit2
(any source). Manual boundaries are read from the raw files; those of the shard's records and window are used.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ecg_model.signal import independent_leads, resample, window_samples
from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.download.step import verified_files
from pipelines.evaluate.features import OnProgress
from pipelines.evaluate.statistics.bootstrap import InsufficientData
from pipelines.evaluate.waves.annotations import WAVES, Wave, Waves, inside_window
from pipelines.evaluate.waves.config import PseudoConfig
from pipelines.evaluate.waves.pseudo_labels import Failure, delineate_many
from pipelines.facts import Facts
from pipelines.formats.shard import LEADS, MILLIVOLT, RATE, open_shard, write_table
from pipelines.harmonize.shards import read_records, shards_of
from pipelines.simulate.simulator import SimulatedECG
from pipelines.simulate.truth import ptbxl_truth
from pipelines.simulate.wfdb_writer import digital
from pipelines.sources.ludb import MarkedWave, read_waves
from pipelines.tasks.catalogue import SUITE_TASKS
from pipelines.tasks.splits import PatientProtocol, Protocol, Split, patients, require_whole_patients

Labels = Literal["manual", "truth", "pseudo"]
TITLES: dict[Labels, str] = {
    "manual": "boundaries drawn by cardiologists",
    "truth": "the simulator's known boundaries",
    "pseudo": "pseudo-labels by neurokit2 (no person has looked at them)",
}

WAVES_FILE = "waves.parquet"
LEFT_OUT_FILE = "left_out.parquet"
LEFT_OUT = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("record_id", "lead", "reason")])

_ALL_LEADS = "all"
_SYMBOLS = {"p": Wave.P, "N": Wave.QRS, "t": Wave.T}
_SAME_MILLIVOLT = 0.003  # one step of the analog-digital converter and one of the store
_BATCH = 32  # leads in one task of a worker process


class Undelineated(StrEnum):
    """Why a record, or a lead of it, has no waves, in addition to `Failure`. The list is closed."""

    NOT_ANNOTATED = "no boundaries were drawn"
    REPEATED = "repeated to fill the window"
    OTHER_ECG = "not the ECG that was simulated"


@dataclass(frozen=True, kw_only=True)
class Delineated:
    """The waves of a shard."""

    waves: Waves
    """Record i is row i of the shard."""
    left_out: tuple[tuple[int, str, Undelineated | Failure], ...] = ()
    """(row, lead or `all`, reason) of what has no waves."""


@dataclass(frozen=True, kw_only=True)
class WaveTask:
    """A task on waves: the source of its ECGs, the origin of its waves, and the protocol that splits the records."""

    source: str
    labels: Labels
    protocol: Protocol
    pseudo: PseudoConfig = field(default_factory=PseudoConfig)

    @property
    def name(self) -> str:
        return f"{self.source}_{self.labels}"

    @property
    def title(self) -> str:
        return f"{self.source}, {TITLES[self.labels]}"

    def to_dict(self) -> dict[str, Any]:
        """Return what the scores depend on, as JSON values."""
        settings = {"source": self.source, "labels": self.labels, "protocol": self.protocol.to_dict()}
        return settings | ({"pseudo": self.pseudo.to_dict()} if self.labels == "pseudo" else {})


def usual_task(source: str, *, simulated: bool, pseudo: PseudoConfig | None = None) -> WaveTask:
    """Return the task on the best waves of a source.

    They are the manual ones of LUDB, the truth of PTB-XL if its ECGs are simulated, and pseudo-labels otherwise.
    """
    if source == "ludb":
        # Of 200 patients, 30 validate and 50 test.
        protocol = PatientProtocol(validation_share=0.15, test_share=0.25)
        return WaveTask(source=source, labels="manual", protocol=protocol)
    labels = "truth" if simulated and source == "ptbxl" else "pseudo"
    labelled = (task.protocol for task in SUITE_TASKS.values() if task.source == source)
    protocol = next(labelled, PatientProtocol())  # the split of the probes on the source's labels
    return WaveTask(source=source, labels=labels, protocol=protocol, pseudo=pseudo or PseudoConfig())


@dataclass(frozen=True, kw_only=True)
class WaveData:
    """A task's N records with their waves."""

    records: pa.Table
    waves: Waves
    split_N: NDArray[np.str_]
    patient_N: NDArray[np.str_]
    products: Mapping[str, Product]
    """The products that the waves were read from, by partition."""

    def require(self, taking_part_N: NDArray[np.bool_], least: int) -> dict[str, int]:
        """Count the records that take part, by split.

        Raises InsufficientData if a split has fewer than `least` patients that take part.
        """
        splits = (Split.TRAIN, Split.VALIDATION, Split.TEST)
        parts = {str(split): self.patient_N[taking_part_N & (self.split_N == split)] for split in splits}
        patients_of = {split: len(np.unique(patients)) for split, patients in parts.items()}
        if min(patients_of.values()) < least:
            listed = ", ".join(f"{split} {count}" for split, count in patients_of.items())
            raise InsufficientData(f"patients with waves, by split: {listed}; each needs {least}")
        return {split: len(patients) for split, patients in parts.items()}


def wave_data(
    workspace: Workspace, task: WaveTask, mirror: Path | None = None, progress: OnProgress | None = None
) -> WaveData:
    """Return the harmonized records of a task's source and their waves; missing waves are computed.

    mirror: see `materialize_delineation`. Raises ValueError if a patient is in two splits.
    """
    records = read_records(shards_of(workspace, task.source))
    split_N, patient_N = task.protocol.split(records), np.asarray(patients(records), dtype=str)
    require_whole_patients(task.name, patient_N, split_N)
    products = materialize_delineation(
        workspace, task.source, task.labels, pseudo=task.pseudo, mirror=mirror, progress=progress
    )
    return WaveData(
        records=records,
        waves=_read(products, records),
        split_N=split_N,
        patient_N=patient_N,
        products=products,
    )


def _read(products: Mapping[str, Product], records: pa.Table) -> Waves:
    """Read the waves of several partitions; record i is row i of `records`, which holds the partitions in order."""
    record_N, partition_N = (np.asarray(records.column(name).to_pylist()) for name in ("record_id", "partition"))
    parts, first = [], 0
    for partition, product in products.items():
        ids = record_N[partition_N == partition].tolist()
        waves = Waves.from_table(pq.read_table(product.path / WAVES_FILE), ids)
        parts.append(replace(waves, record_W=waves.record_W + first))
        first += len(ids)
    return Waves.joined(parts)


@dataclass(frozen=True, kw_only=True)
class DelineationFacts(Facts):
    """What a delineation of one partition reports."""

    records: int
    delineated: int
    """Records with waves."""
    waves: dict[str, int]
    """Waves by kind."""
    left_out: dict[str, int]
    """Records or leads without waves, by reason."""


def materialize_delineation(
    workspace: Workspace,
    source: str,
    labels: Labels,
    *,
    pseudo: PseudoConfig | None = None,
    mirror: Path | None = None,
    progress: OnProgress | None = None,
) -> dict[str, Product]:
    """Return the waves of all harmonized shards of a source, by partition; missing ones are computed.

    pseudo: settings of `pseudo` labels; the defaults if None.
    mirror: the simulated mirror that the shards are from, for `truth`.
    Facts: `DelineationFacts`. Raises ValueError if the source has no such labels, or if files are missing.
    """
    _require_labels(source, labels, mirror)
    config = pseudo or PseudoConfig()
    delineate = _delineator(workspace, source, labels, config, mirror, progress)

    def make(partition: str, shard: Product, folder: Path) -> dict[str, Any]:
        record_id = open_shard(shard.path).records().column("record_id").to_pylist()
        return _write(folder, record_id, delineate(partition, shard)).to_dict()

    return {
        partition: workspace.build(
            f"delineation/{source}_{labels}/{partition}",
            version=versions.DELINEATION,
            config={"labels": labels, **(config.to_dict() if labels == "pseudo" else {})},
            inputs={shard.name: shard.digest},
            make=lambda folder, shard=shard, partition=partition: make(partition, shard, folder),
        )
        for partition, shard in shards_of(workspace, source).items()
    }


def _require_labels(source: str, labels: Labels, mirror: Path | None) -> None:
    """Raise ValueError if a source does not have such labels."""
    if labels not in get_args(Labels):
        raise ValueError(f"labels={labels!r}: use one of {', '.join(get_args(Labels))}")
    if (labels == "manual" and source != "ludb") or (labels == "truth" and (source != "ptbxl" or mirror is None)):
        raise ValueError(
            f"labels={labels!r} of {source}: only ludb has `manual` ones, and only the ptbxl of a simulated mirror has "
            "`truth`; use `pseudo`"
        )


def _delineator(
    workspace: Workspace,
    source: str,
    labels: Labels,
    config: PseudoConfig,
    mirror: Path | None,
    progress: OnProgress | None,
) -> Callable[[str, Product], Delineated]:
    """Return the function that finds the waves of a partition's shard, from labels of that origin."""
    simulated: dict[str, SimulatedECG] = {}  # read once, for the first shard

    def delineate(partition: str, shard: Product) -> Delineated:
        opened = open_shard(shard.path)
        if labels == "manual":
            root, files = verified_files(workspace, workspace.require(f"raw/{source}/{partition}"))
            return drawn_waves(opened.records(), read_waves(root, files))
        if labels == "pseudo":
            return pseudo_waves(opened.records(), opened.signals(), config, progress)
        if not simulated:
            assert mirror is not None
            simulated.update(ptbxl_truth(mirror))
        return simulated_waves(opened.records(), opened.signals(), simulated)

    return delineate


def drawn_waves(records: pa.Table, drawn: Mapping[str, Sequence[MarkedWave]]) -> Delineated:
    """Return the waves that were drawn in the eight leads of each record, with times of the harmonized window.

    drawn: the waves of a recording, by record id.
    """
    rows, left_out = [], []
    columns = (records.column(name).to_pylist() for name in ("record_id", "rate", "samples"))
    for row, (record_id, rate, samples) in enumerate(zip(*columns, strict=True)):
        if record_id not in drawn:
            left_out.append((row, _ALL_LEADS, Undelineated.NOT_ANNOTATED))
        elif samples < window_samples(rate):
            left_out.append((row, _ALL_LEADS, Undelineated.REPEATED))
        else:
            rows += [
                (row, LEADS.index(wave.lead), _SYMBOLS[wave.symbol], *(_at_250(mark, rate) for mark in wave.marks))
                for wave in drawn[record_id]
                if wave.lead in LEADS
            ]
    return Delineated(waves=inside_window(Waves.of(rows)), left_out=tuple(left_out))


def simulated_waves(records: pa.Table, signal_NLT: NDArray[np.int16], truth: Mapping[str, SimulatedECG]) -> Delineated:
    """Return the waves that the simulator put into each record of int16 (N, 8, 2500), the same in all leads.

    A record whose signal is not the simulated ECG of its id, such as one of another mirror, is left out.
    """
    rows, left_out = [], []
    for row, record_id in enumerate(records.column("record_id").to_pylist()):
        ecg = truth.get(record_id)
        if ecg is None or not _is_simulated(signal_NLT[row], ecg):
            left_out.append((row, _ALL_LEADS, Undelineated.OTHER_ECG))
            continue
        waves = [
            (int(wave), *(RATE * time for time in wave_3.tolist()))
            for wave, wave_B3 in ((Wave.P, ecg.p_B3), (Wave.QRS, ecg.qrs_B3), (Wave.T, ecg.t_B3))
            for wave_3 in wave_B3[~np.isnan(wave_B3[:, 0])]
        ]
        rows += [(row, lead, *wave) for lead in range(len(LEADS)) for wave in waves]
    return Delineated(waves=inside_window(Waves.of(rows)), left_out=tuple(left_out))


def pseudo_waves(
    records: pa.Table, signal_NLT: NDArray[np.int16], config: PseudoConfig, progress: OnProgress | None = None
) -> Delineated:
    """Return the waves that neurokit2 finds in int16 (N, 8, 2500), lead by lead, in several processes if configured."""
    drawn = [row for row, name in enumerate(records.column("record_id").to_pylist()) if config.draws(name)]
    places = [(row, lead) for row in drawn for lead in config.leads]
    batches = [places[first : first + _BATCH] for first in range(0, len(places), _BATCH)]
    work = ([signal_NLT[row, LEADS.index(lead)] * MILLIVOLT for row, lead in batch] for batch in batches)
    rows, left_out = [], []
    with _workers(config.processes or len(os.sched_getaffinity(0)), len(batches)) as map_batches:
        done = 0
        for batch, results in zip(batches, map_batches(delineate_many, work), strict=True):
            for (row, lead), result in zip(batch, results, strict=True):
                if isinstance(result, Failure):
                    left_out.append((row, lead, result))
                else:
                    rows += [(row, LEADS.index(lead), *wave) for wave in result]
            done += len(batch)
            if progress is not None:
                progress(done // len(config.leads), len(drawn))
    return Delineated(waves=inside_window(Waves.of(rows)), left_out=tuple(left_out))


@contextmanager
def _workers(processes: int, batches: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Yield `map`, which runs in several processes if there is work for more than one.

    They are spawned, not forked, since this process may hold threads of torch.
    """
    if min(processes, batches) < 2:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, batches), mp_context=context) as pool:
        yield pool.map


def _write(folder: Path, record_id: Sequence[str], made: Delineated) -> DelineationFacts:
    """Write both tables and return the facts."""
    write_table(folder / WAVES_FILE, made.waves.to_table(record_id))
    rows = [{"record_id": record_id[row], "lead": lead, "reason": reason.value} for row, lead, reason in made.left_out]
    write_table(folder / LEFT_OUT_FILE, pa.Table.from_pylist(rows, schema=LEFT_OUT))
    kinds = Counter(Wave(wave).name for wave in made.waves.wave_W.tolist())
    return DelineationFacts(
        records=len(record_id),
        delineated=len(np.unique(made.waves.record_W)),
        waves={wave.name: kinds[wave.name] for wave in WAVES},
        left_out=dict(sorted(Counter(row["reason"] for row in rows).items())),
    )


def _at_250(mark: int | None, rate: float) -> float:
    """Return a recording's sample in samples of the window, which begins with the recording; NaN for None."""
    return math.nan if mark is None else mark * RATE / rate


def _is_simulated(signal_LT: NDArray[np.int16], ecg: SimulatedECG) -> bool:
    """Whether a harmonized record, int16 (8, 2500), is this ECG, judged by its first two seconds."""
    begin_LT = digital(ecg.signal_LT)[:, : 3 * round(ecg.rate)] / 1000
    own_LT = resample(independent_leads(begin_LT, ecg.leads), ecg.rate)[:, : 2 * RATE]
    return bool(np.abs(own_LT - signal_LT[:, : 2 * RATE] * MILLIVOLT).max() < _SAME_MILLIVOLT)
