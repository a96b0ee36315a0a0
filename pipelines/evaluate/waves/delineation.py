"""Waves of harmonized ECGs from three origins, kept as products.

    delineation/<source>_<labels>/<partition>/waves.parquet      record_id, lead, wave, onset, peak, offset
    delineation/<source>_<labels>/<partition>/left_out.parquet   record_id, lead, reason

labels: `manual`, drawn by cardiologists (LUDB); `truth`, the simulator's (its PTB-XL); `pseudo`, neurokit2's (any).
Manual boundaries are read from the raw files again: what they are about is the shard's records, cut to its window.
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
_SAME_MILLIVOLT = 0.003  # a step of the converter and one of the store
_BATCH = 32  # leads that a worker process is handed at once


class Undelineated(StrEnum):
    """Why a record, or a lead of it, has no waves, beside `pseudo.Failure`. The list is closed."""

    NOT_ANNOTATED = "no boundaries were drawn"
    REPEATED = "repeated to fill the window"
    OTHER_ECG = "not the ECG that was simulated"


@dataclass(frozen=True, kw_only=True)
class Delineated:
    """A shard's waves; record i of them is its row i. left_out: (row, lead or `all`, why) of what has none."""

    waves: Waves
    left_out: tuple[tuple[int, str, Undelineated | Failure], ...] = ()


@dataclass(frozen=True, kw_only=True)
class WaveTask:
    """Whose waves are to be told from an encoder, where the waves come from, and who trains, validates and tests."""

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
        """What the scores depend on, as JSON values."""
        about = {"source": self.source, "labels": self.labels, "protocol": self.protocol.to_dict()}
        return about | ({"pseudo": self.pseudo.to_dict()} if self.labels == "pseudo" else {})


def usual_task(source: str, *, simulated: bool, pseudo: PseudoConfig | None = None) -> WaveTask:
    """The best waves that a source has: LUDB's own; PTB-XL's truth where its ECGs are simulated; else pseudo-labels."""
    if source == "ludb":
        # Of 200 patients 30 choose and 50 test.
        protocol = PatientProtocol(validation_share=0.15, test_share=0.25)
        return WaveTask(source=source, labels="manual", protocol=protocol)
    labels = "truth" if simulated and source == "ptbxl" else "pseudo"
    labelled = (task.protocol for task in SUITE_TASKS.values() if task.source == source)
    protocol = next(labelled, PatientProtocol())  # the split that the source's labels are probed by
    return WaveTask(source=source, labels=labels, protocol=protocol, pseudo=pseudo or PseudoConfig())


@dataclass(frozen=True, kw_only=True)
class WaveData:
    """A task's records with their waves; products: what they were read from."""

    records: pa.Table
    waves: Waves
    split_N: NDArray[np.str_]
    patient_N: NDArray[np.str_]
    products: Mapping[str, Product]

    def require(self, taking_part_N: NDArray[np.bool_], least: int) -> dict[str, int]:
        """Records that take part, by split. Raises InsufficientData where a split has fewer patients than `least`."""
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
    """The harmonized records of a task's source and their waves; those that are not there yet are computed.

    Raises ValueError for a patient in two splits.
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
    """The waves of several partitions; record i of them is row i of `records`, which holds the partitions in order."""
    record_N, partition_N = (np.asarray(records.column(name).to_pylist()) for name in ("record_id", "partition"))
    parts, first = [], 0
    for partition, product in products.items():
        ids = record_N[partition_N == partition].tolist()
        waves = Waves.from_table(pq.read_table(product.path / WAVES_FILE), ids)
        parts.append(replace(waves, record_W=waves.record_W + first))
        first += len(ids)
    return Waves.joined(parts)


def materialize_delineation(
    workspace: Workspace,
    source: str,
    labels: Labels,
    *,
    pseudo: PseudoConfig | None = None,
    mirror: Path | None = None,
    progress: OnProgress | None = None,
) -> dict[str, Product]:
    """The waves of all harmonized shards of a source, by partition; only those not there yet are computed.

    mirror: the simulated one that the shards are from, for `truth`. Facts: `records`, `delineated` (records with
    waves), `waves` by kind, `left_out` by reason. Raises ValueError for labels that a source does not have, and for
    files that are not there any more.
    """
    if labels not in get_args(Labels):
        raise ValueError(f"labels={labels!r}: use one of {', '.join(get_args(Labels))}")
    if (labels == "manual" and source != "ludb") or (labels == "truth" and (source != "ptbxl" or mirror is None)):
        raise ValueError(
            f"labels={labels!r} of {source}: `manual` are there for ludb, `truth` for the ptbxl of a simulated mirror; "
            "use `pseudo`"
        )
    config = pseudo or PseudoConfig()
    simulated: dict[str, SimulatedECG] = {}

    def found(partition: str, shard: Product) -> Delineated:
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

    def make(partition: str, shard: Product, folder: Path) -> dict[str, Any]:
        record_id = open_shard(shard.path).records().column("record_id").to_pylist()
        return _write(folder, record_id, found(partition, shard))

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


def drawn_waves(records: pa.Table, found: Mapping[str, Sequence[MarkedWave]]) -> Delineated:
    """The waves that were drawn in the eight leads of each record, in the time of the harmonized window."""
    rows, left_out = [], []
    columns = (records.column(name).to_pylist() for name in ("record_id", "rate", "samples"))
    for row, (record_id, rate, samples) in enumerate(zip(*columns, strict=True)):
        if record_id not in found:
            left_out.append((row, _ALL_LEADS, Undelineated.NOT_ANNOTATED))
        elif samples < window_samples(rate):
            left_out.append((row, _ALL_LEADS, Undelineated.REPEATED))
        else:
            rows += [
                (row, LEADS.index(wave.lead), _SYMBOLS[wave.symbol], *(_at_250(mark, rate) for mark in wave.marks))
                for wave in found[record_id]
                if wave.lead in LEADS
            ]
    return Delineated(waves=inside_window(Waves.of(rows)), left_out=tuple(left_out))


def simulated_waves(records: pa.Table, signal_NLT: NDArray[np.int16], truth: Mapping[str, SimulatedECG]) -> Delineated:
    """The waves that the simulator put into each record, the same in all leads.

    A record that does not hold the ECG of its id, such as one of another mirror, has no truth.
    """
    rows, left_out = [], []
    for row, record_id in enumerate(records.column("record_id").to_pylist()):
        ecg = truth.get(record_id)
        if ecg is None or not _holds(signal_NLT[row], ecg):
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
    """The waves that neurokit2 finds, lead by lead, in processes of their own where there are several."""
    drawn = [row for row, name in enumerate(records.column("record_id").to_pylist()) if config.draws(name)]
    places = [(row, lead) for row in drawn for lead in config.leads]
    batches = [places[first : first + _BATCH] for first in range(0, len(places), _BATCH)]
    work = ([signal_NLT[row, LEADS.index(lead)] * MILLIVOLT for row, lead in batch] for batch in batches)
    rows, left_out = [], []
    with _workers(config.processes or len(os.sched_getaffinity(0)), len(batches)) as each:
        done = 0
        for batch, results in zip(batches, each(delineate_many, work), strict=True):
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
    """`map`, over processes where more than one has work. They are spawned: this one may hold threads of torch."""
    if min(processes, batches) < 2:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, batches), mp_context=context) as pool:
        yield pool.map


def _write(folder: Path, record_id: Sequence[str], found: Delineated) -> dict[str, Any]:
    """Write both tables; the facts."""
    write_table(folder / WAVES_FILE, found.waves.to_table(record_id))
    rows = [{"record_id": record_id[row], "lead": lead, "reason": reason.value} for row, lead, reason in found.left_out]
    write_table(folder / LEFT_OUT_FILE, pa.Table.from_pylist(rows, schema=LEFT_OUT))
    kinds = Counter(Wave(wave).name for wave in found.waves.wave_W.tolist())
    return {
        "records": len(record_id),
        "delineated": len(np.unique(found.waves.record_W)),
        "waves": {wave.name: kinds[wave.name] for wave in WAVES},
        "left_out": dict(sorted(Counter(row["reason"] for row in rows).items())),
    }


def _at_250(mark: int | None, rate: float) -> float:
    """A sample of a recording in the time of the window, which begins with it."""
    return math.nan if mark is None else mark * RATE / rate


def _holds(signal_LT: NDArray[np.int16], ecg: SimulatedECG) -> bool:
    """Whether a harmonized record is this ECG, as far as its first two seconds say."""
    begin_LT = digital(ecg.signal_LT)[:, : 3 * round(ecg.rate)] / 1000
    own_LT = resample(independent_leads(begin_LT, ecg.leads), ecg.rate)[:, : 2 * RATE]
    return bool(np.abs(own_LT - signal_LT[:, : 2 * RATE] * MILLIVOLT).max() < _SAME_MILLIVOLT)
