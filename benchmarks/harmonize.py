"""Harmonizing Chapman, compared with wfdb and scipy, and a part of CODE-15%; size of the store, error of resampling.

    python -m benchmarks.harmonize --mirror FOLDER [FOLDER ...] --json FILE

Records are those of the mirrors, copied under new names until there are enough; without a mirror they are simulated.

chapman: two partitions at once in two processes, from the verified files to the written shard, against one process of
`wfdb.rdrecord` and `scipy.signal.resample` that writes nothing. Both ways run in turn, so that other load affects both;
ratio is the median over rounds, and cpu_ratio that of a record's processor time. code15: one part of full size, from
zip to shard, in a separate process. store: stored bytes over those of int16 of the same shape, by source. resampling:
error in microvolt, against the same sum of sines sampled at 250 Hz.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import multiprocessing
import os
import platform
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import wfdb
from numpy.typing import NDArray
from scipy.signal import resample as fft_resample

from benchmarks.corpus import BYTES, peak_bytes
from ecg_model.signal import RATE, SAMPLES, resample
from pipelines.cache import Workspace
from pipelines.download.mirror import Mirror, list_source
from pipelines.download.step import materialize_raw
from pipelines.formats.shard import SIGNALS
from pipelines.harmonize.convert import Kept, harmonize, judge
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.shards import HarmonizedFacts
from pipelines.harmonize.step import materialize_ecgs
from pipelines.records import DroppedRecord, Record
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES

CHAPMAN, CODE15 = SOURCES["chapman"], SOURCES["code15"]
PARTITIONS = ("01", "02")
ALL_EXAMS = 345_779
MOST_STORED = 1_000  # records of a source, at most, whose stored size is measured
RATES = (100.0, 257.0, 400.0, 500.0, 1000.0)
EDGE = RATE // 2  # samples


def cost(work: Callable[[], Any]) -> dict[str, float]:
    """Return the seconds and processor seconds (all threads) of a call."""
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}


# Chapman's records


def kept_headers(mirror: Path) -> list[Path]:
    """Return the headers of the mirror's Chapman records that are kept without repair, which wfdb can read too."""
    headers = {path.stem: path for path in sorted((mirror / CHAPMAN.root).rglob("*.hea"))}
    judged = judge(records_of(mirror, "chapman"), source="chapman", limits=QualityLimits())
    return [headers[item.row["record_id"]] for item in judged if isinstance(item, Kept) and not item.row["notes"]]


def records_of(mirror: Path, source: str) -> Iterator[Record | DroppedRecord]:
    """Yield the records of a source in a mirror."""
    reader = SOURCES[source]
    listing = list_source(reader, Mirror(mirror))
    for partition in reader.available(listing):
        yield from reader.read(mirror, partition, reader.files_of(listing, partition))


def write_chapman(root: Path, headers: Sequence[Path], count: int) -> dict[str, list[Path]]:
    """Write a mirror of two partitions of `count` copies of records each. Return their headers by partition."""
    sums: list[str] = []
    written: dict[str, list[Path]] = {partition: [] for partition in PARTITIONS}
    names = (f"JS{number:05d}" for number in range(1, 100_000))
    for partition in PARTITIONS:
        folder = root / CHAPMAN.root / "WFDBRecords" / partition / f"{partition}0"
        folder.mkdir(parents=True)
        for header, name in zip(islice(cycle(headers), count), names, strict=False):
            text = header.read_text().replace(header.stem, name)
            files = {f"{name}.hea": text.encode(), f"{name}.mat": header.with_suffix(".mat").read_bytes()}
            for file, data in files.items():
                (folder / file).write_bytes(data)
                place = (folder / file).relative_to(root / CHAPMAN.root).as_posix()
                sums.append(f"{hashlib.sha256(data).hexdigest()} {place}")
            written[partition].append(folder / f"{name}.hea")
    (root / CHAPMAN.root / "SHA256SUMS.txt").write_text("\n".join(sums) + "\n")
    return written


def read_as_usual(headers: Sequence[Path]) -> None:
    """Read and resample records with wfdb and scipy."""
    for header in headers:
        record: Any = wfdb.rdrecord(str(header.with_suffix("")))
        fft_resample(record.p_signal, SAMPLES, axis=0)


def usual_cost(headers: Sequence[Path]) -> dict[str, float]:
    """Return the cost of `read_as_usual`."""
    return cost(lambda: read_as_usual(headers))


def ours_cost(root: Path, source: str, partition: str) -> dict[str, float]:
    """Return the cost of harmonizing a downloaded partition, its counts, and the process's peak memory."""
    workspace = Workspace(root)
    figures = cost(lambda: materialize_ecgs(workspace, SOURCES[source], partition, limits=QualityLimits()))
    facts = HarmonizedFacts.of(workspace.require(f"ecgs/{source}/{partition}"))
    return {**figures, "entered": facts.entered, "kept": facts.kept, "peak_bytes": peak_bytes()}


def download(root: Path, mirror: Path, source: str, partitions: Sequence[str]) -> None:
    """Build the raw products of some partitions."""
    for partition in partitions:
        materialize_raw(Workspace(root), SOURCES[source], partition, mirror=Mirror(mirror), raw_root=root / "raw")


def chapman(processes: Executor, folder: Path, headers: Sequence[Path], count: int, rounds: int) -> dict[str, Any]:
    """Compare both ways on Chapman. processes: two idle ones; the first round, which starts them, is not counted."""
    written = write_chapman(folder / "mirror", headers, count)
    usual = [header for partition in PARTITIONS for header in written[partition]][: max(1, count // 4)]
    trials: list[tuple[float, float, float, float]] = []
    for number in range(rounds + 1):
        root = folder / f"home{number}"
        download(root, folder / "mirror", "chapman", PARTITIONS)
        began = time.perf_counter()
        ours = list(processes.map(ours_cost, [root] * 2, ["chapman"] * 2, PARTITIONS))
        seconds = time.perf_counter() - began
        assert all(partition["kept"] == count for partition in ours), "wfdb would do work that we do not"
        by_wfdb = processes.submit(usual_cost, usual).result()
        cpu = sum(partition["cpu_seconds"] for partition in ours) / (2 * count)
        trials.append(
            (seconds / (2 * count), by_wfdb["seconds"] / len(usual), cpu, by_wfdb["cpu_seconds"] / len(usual))
        )
        shutil.rmtree(root)
    timed = np.array(trials[1:])
    ours_ms, usual_ms, ours_cpu_ms, usual_cpu_ms = np.median(timed, axis=0) * 1000
    return {
        "records": 2 * count,
        "different_signals": len(headers),
        "rounds": rounds,
        "ratio": round(float(np.median(timed[:, 1] / timed[:, 0])), 2),
        "cpu_ratio": round(float(np.median(timed[:, 3] / timed[:, 2])), 2),
        "records_per_second": round(1000 / ours_ms),
        "ms_a_record": round(ours_ms, 2),
        "usual_ms_a_record": round(usual_ms, 2),
        "cpu_ms_a_record": round(ours_cpu_ms, 2),
        "usual_cpu_ms_a_record": round(usual_cpu_ms, 2),
    }


# A part of CODE-15%


def exams_of(mirror: Path) -> NDArray[np.float32]:
    """Return float32 (N, 4096, 12), millivolt: the tracings of the mirror's parts, as they are stored."""
    tracings: list[NDArray[np.float32]] = []
    for archive in sorted((mirror / CODE15.root / "files").glob("exams_part*.zip")):
        with zipfile.ZipFile(archive) as container, container.open(container.namelist()[0]) as member:
            tracings.append(np.asarray(h5py.File(member, "r")["tracings"], np.float32))
    return np.concatenate(tracings)


def write_part(root: Path, exams_NTL: NDArray[np.float32], count: int) -> None:
    """Write a mirror of part 0: `count` exams, contiguous and deflated as Zenodo's, and a table of all parts' exams."""
    files = root / CODE15.root / "files"
    files.mkdir(parents=True)
    plain = files / "exams_part0.hdf5"
    with h5py.File(plain, "w") as file:
        file["exam_id"] = np.arange(1, count + 1)
        tracings = file.create_dataset("tracings", (count, *exams_NTL.shape[1:]), np.float32)
        for first in range(0, count, len(exams_NTL)):
            tracings[first : first + len(exams_NTL)] = exams_NTL[: count - first]
    # Copies lie further apart than deflate looks back, so it packs them like different exams.
    with zipfile.ZipFile(files / "exams_part0.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as container:
        container.write(plain, plain.name)
    plain.unlink()
    columns = "exam_id,age,is_male,nn_predicted_age,1dAVb,RBBB,LBBB,SB,ST,AF,patient_id,death,timey,normal_ecg"
    with (files / "exams.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*columns.split(","), "trace_file"])
        for exam in range(max(ALL_EXAMS, count), 0, -1):
            part = f"exams_part{exam // 20_001}.hdf5"
            writer.writerow([exam, 52, "True", 50.1, *["False"] * 6, exam // 2, "", "", "True", part])
    listed: list[dict[str, Any]] = []
    for path in sorted(files.iterdir()):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "md5").hexdigest()
        listed.append({"key": path.name, "size": path.stat().st_size, "checksum": f"md5:{digest}"})
    api = root / "zenodo.org/api/records" / CODE15.root.rsplit("/", 1)[1]
    api.parent.mkdir(parents=True)
    api.write_text(json.dumps({"files": listed}))


def code15(process: Executor, folder: Path, exams_NTL: NDArray[np.float32], count: int) -> dict[str, Any]:
    """Measure a part of CODE-15%. process: a fresh one, so that its peak memory is the part's."""
    write_part(folder / "mirror", exams_NTL, count)
    download(folder / "home", folder / "mirror", "code15", ["0"])
    cost_of_part = process.submit(ours_cost, folder / "home", "code15", "0").result()
    return {
        "exams": count,
        "different_signals": len(exams_NTL),
        "zip_mib": (folder / "mirror" / CODE15.root / "files/exams_part0.zip").stat().st_size >> 20,
        "kept_share": round(cost_of_part["kept"] / cost_of_part["entered"], 3),
        "seconds": round(cost_of_part["seconds"], 2),
        "cpu_seconds": round(cost_of_part["cpu_seconds"], 2),
        "minutes_for_all_one_process": round(cost_of_part["seconds"] / count * ALL_EXAMS / 60, 1),
        "cpu_minutes_for_all": round(cost_of_part["cpu_seconds"] / count * ALL_EXAMS / 60, 1),
        "peak_mib": int(cost_of_part["peak_bytes"]) >> 20,
    }


# The store and the resampler


def stored_share(mirror: Path, source: str, out: Path) -> dict[str, float] | None:
    """Return the stored bytes over those of int16, or None if the mirror has no records of the source."""
    records = list(islice(records_of(mirror, source), MOST_STORED))
    if not records:
        return None
    counts = harmonize(records, out, source=source, limits=QualityLimits())
    stored = sum(path.stat().st_size for path in (out / SIGNALS / "signal").rglob("*") if path.is_file())
    return {"records": counts.kept, "share": round(stored / (counts.kept * BYTES), 3)}


def stored(mirrors: Sequence[Path], folder: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the stored share of each source, from the first mirror that has it."""
    for source in ("chapman", "ptbxl", "ptbxl100", "code15"):
        for number, mirror in enumerate(mirrors):
            share = stored_share(mirror, source, folder / f"{source}{number}")
            if share is not None:
                yield source, share
                break


def sines(rate: float, samples: int) -> NDArray[np.float64]:
    """Return (40, samples) at `rate`, millivolt: 24 sines of 0.5 to 40 Hz in each row, with peaks of about 1 mV."""
    rng = np.random.default_rng(0)
    frequency_LS1 = rng.uniform(0.5, 40.0, (40, 24, 1))
    phase_LS1 = rng.uniform(0, 2 * np.pi, (40, 24, 1))
    return np.sin(2 * np.pi * frequency_LS1 * np.arange(samples) / rate + phase_LS1).sum(axis=1) / 6


def resampling(rate: float) -> dict[str, float]:
    """Return the rms error in microvolt, inside and within half a second of the edges."""
    error_LT = (resample(sines(rate, int(np.ceil(10 * rate))), rate)[:, :SAMPLES] - sines(RATE, SAMPLES)) * 1000
    edges_LT = np.concatenate([error_LT[:, :EDGE], error_LT[:, -EDGE:]], axis=1)
    return {
        "inside_uv": round(float(np.sqrt(np.mean(error_LT[:, EDGE:-EDGE] ** 2))), 4),
        "edges_uv": round(float(np.sqrt(np.mean(edges_LT**2))), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.harmonize", description="From raw files to the store.")
    parser.add_argument("--mirror", type=Path, nargs="+", help="mirrors: the first has Chapman and CODE-15%%")
    parser.add_argument(
        "--records", type=int, default=980, help="records of each of two partitions (default: 980, as Chapman)"
    )
    parser.add_argument(
        "--exams", type=int, default=20_001, help="exams of the CODE-15%% part (default: 20001, as in the first)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of both ways for Chapman (default: 5)")
    parser.add_argument("--folder", type=Path, help="folder for temporary files (default: the system's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    needed = options.exams * 4096 * 12 * 4 * 3
    free = shutil.disk_usage(options.folder or tempfile.gettempdir()).free
    if free < needed:
        parser.error(f"--exams {options.exams} may take {needed >> 20} MiB and {free >> 20} are free: give less")
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        mirrors: list[Path] = options.mirror or [folder / "simulated"]
        if options.mirror is None:
            sizes = MirrorSizes(chapman=(40,), code15=(32,), ptbxl=(40,), cpsc2018=(), georgia=(), ludb=0)
            write_mirror(mirrors[0], sizes=sizes)
        figures: dict[str, Any] = {
            "machine": platform.processor() or platform.machine(),
            "signals": "real" if options.mirror else "simulated",
            "load_before": [round(load, 1) for load in os.getloadavg()],
        }
        headers = kept_headers(mirrors[0])
        with ProcessPoolExecutor(2, mp_context=spawn) as processes:
            figures["chapman"] = chapman(processes, folder / "chapman", headers, options.records, options.rounds)
        with ProcessPoolExecutor(1, mp_context=spawn) as process:
            figures["code15"] = code15(process, folder / "code15", exams_of(mirrors[0]), options.exams)
        shutil.rmtree(folder / "code15")
        figures["store"] = dict(stored(mirrors, folder))
        figures["resampling"] = {f"{rate:g}": resampling(rate) for rate in RATES}
        figures["load_after"] = [round(load, 1) for load in os.getloadavg()]
    text = json.dumps(figures, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
