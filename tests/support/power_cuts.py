"""Cut the power at random moments of a stage's work, start it again, and compare with a run that was left alone.

    cut_power("harmonize", cuts=6, folder=tmp_path)

The stage works in a process of its own on a disk that is shut down without its log being flushed (`power.Disk`). The
process says, to a file on another disk, what it has finished. After a cut the same work is done again: it has to find
everything that was said, and to end with the digests of the run that was left alone.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder, save_encoder
from pipelines.cache import Product, Workspace, digest_of_tree
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from pipelines.download import fetch
from pipelines.download.mirror import Mirror
from pipelines.download.step import materialize_raw
from pipelines.encoders.names import ENCODER_FILE
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.hashing import sha256_of_file
from pipelines.pretrain import __main__ as program
from pipelines.pretrain.checkpoint import Checkpoint, CheckpointFolder
from pipelines.release.aliases import aliases_of, promote, versions_of
from pipelines.release.registry import files_of
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES
from pipelines.tracking import Tracking
from tests.support.fault_server import FaultServer
from tests.support.power import Disk, disk
from tests.support.pretraining import TINY, small_home
from tests.support.releases import judged, put, scored

PARTITIONS = (("chapman", "01"), ("code15", "0"), ("ptbxl", "00000"))
SIZES = MirrorSizes(chapman=(12,), code15=(6,), ptbxl=(10,), cpsc2018=(), georgia=(), ludb=0)
PIECE = 50_000  # so that the small archive here comes in pieces, as a part of CODE-15% does
RATE = 1_500_000.0  # bytes a second of the mirror
SHARES = (0.1, 0.15, 0.2, 0.25, 0.3)  # of validation: so many corpora
RUN = TINY | {"steps": 16, "precision": "fp32"}
SMALL = EncoderConfig(dim=32, depth=2, heads=2)

Say = Callable[..., None]
"""Called with a thing's name, its digest or number, and whether it was there already."""


@dataclass(frozen=True)
class Place:
    """Where a stage works."""

    root: Path  # on the disk whose power is cut
    beside: Path  # on another disk: the mirror, what is said, logs
    url: str = ""  # of the mirror

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.root / "home")

    @property
    def tracking(self) -> Tracking:
        folder = self.root / "mlflow"
        return Tracking(uri=f"sqlite:///{folder / 'mlflow.db'}", artifact_root=folder / "artifacts")


@dataclass(kw_only=True)
class Outcome:
    """What a series of power cuts did."""

    stage: str
    cuts: int = 0
    at_work: int = 0
    """Cuts that found the process at work; the others came after its end."""
    said: int = 0
    """Things that were said to be finished before a cut."""
    faults: list[str] = field(default_factory=list)


# what each stage does, in a process of its own


def download(place: Place, say: Say) -> None:
    fetch.PIECE = PIECE
    for source, partition in PARTITIONS:
        say_product(
            say,
            materialize_raw(
                place.workspace,
                SOURCES[source],
                partition,
                mirror=Mirror.parse(place.url),
                raw_root=place.root / "home" / "files",
                connections=4,
            ),
        )


def harmonize(place: Place, say: Say) -> None:
    for source, partition in PARTITIONS:
        say_product(say, materialize_ecgs(place.workspace, SOURCES[source], partition, limits=QualityLimits()))


def corpus(place: Place, say: Say) -> None:
    for share in SHARES:
        say_product(say, materialize_corpus(place.workspace, CorpusConfig(validation_share=share)), f" {share}")


def train(place: Place, say: Say) -> None:
    out, save, newest = place.root / "run", CheckpointFolder.save, CheckpointFolder.newest

    def saved(folder: CheckpointFolder, checkpoint: Checkpoint) -> Path:
        path = save(folder, checkpoint)
        say("checkpoint", checkpoint.step, False)
        return path

    def found(folder: CheckpointFolder) -> Checkpoint | None:
        checkpoint = newest(folder)
        say("checkpoint", 0 if checkpoint is None else checkpoint.step, True)
        return checkpoint

    CheckpointFolder.save, CheckpointFolder.newest = saved, found
    (built,) = (place.workspace.root / "corpus").glob("[!.]*/")
    changes = [f"--set={name}={value}" for name, value in RUN.items()]
    places = ["--workspace", str(place.workspace.root), "--corpus", str(built), "--out", str(out)]
    code = program.main([*places, "--device=cpu", "--checkpoint-every=4", *changes])
    assert code == 0, f"exit code {code}"


def release(place: Place, say: Say) -> None:
    file = place.root / ENCODER_FILE
    made = put(place.tracking, "ecg-encoder", file, scored(0.7), artifacts=[file])
    say("version", made.weights["encoder"], not made.created)
    if made.verdict is None:
        made = judged(place.tracking, made)
    say("champion", promote(made, tracking=place.tracking).weights["encoder"], False)


def say_product(say: Say, product: Product, ending: str = "") -> None:
    say(product.name + ending, product.digest, product.cached)


WORK: dict[str, Callable[[Place, Say], None]] = {
    stage.__name__: stage for stage in (download, harmonize, corpus, train, release)
}
STAGES = tuple(WORK)


# what a stage leaves


def left_by(stage: str, place: Place, folder: Path) -> dict[str, str]:
    """Digests of the bytes that a stage left, by name. folder: an empty one to fetch files to."""
    if stage == "train":
        names = [path for path in (place.root / "run").glob("*") if path.suffix in (".json", ".safetensors")]
        digests = {path.name: sha256_of_file(path) for path in names}
        return digests | {"metrics": json.dumps(learning_curve(place.root / "run" / "aside" / "metrics.jsonl"))}
    if stage == "release":
        versions = versions_of(tracking=place.tracking)
        fetched = {
            version.version: files_of(version, folder / str(version.version), tracking=place.tracking)["encoder"]
            for version in versions
        }
        champion = aliases_of(tracking=place.tracking)
        return {f"version {version}": sha256_of_file(file) for version, file in fetched.items()} | {
            f"alias {alias}": str(version) for alias, version in champion.items()
        }
    done = {path.parent: json.loads(path.read_text()) for path in (place.root / "home").rglob("done.json")}
    for path, what in done.items():
        assert digest_of_tree(path) == what["digest"], f"{path} is not what its done.json says"
    return {f"{what['product']}/{what['fingerprint']}": what["digest"] for what in done.values()}


def learning_curve(file: Path) -> list[dict[str, float]]:
    """The lines of a metrics file without what a clock gave."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{name: line[name] for name in ("step", "loss", "validation_loss", "effective_rank")} for line in lines]


def prepare(stage: str, before: Path, mirror: Path) -> None:
    """Make what a stage finds on the disk when it begins."""
    home, workspace = before / "home", Workspace(before / "home")
    home.mkdir(parents=True)
    if stage in ("harmonize", "corpus"):
        for source, partition in PARTITIONS:
            materialize_raw(
                workspace, SOURCES[source], partition, mirror=Mirror.parse(str(mirror)), raw_root=home / "files"
            )
            if stage == "corpus":
                materialize_ecgs(workspace, SOURCES[source], partition, limits=QualityLimits())
    if stage == "train":
        small_home(home)
    if stage == "release":
        save_encoder(before / ENCODER_FILE, random_encoder(SMALL, 0))


# cutting


def cut_power(stage: str, cuts: int, folder: Path, *, seed: int = 0) -> Outcome | None:
    """Cut the power so many times at a stage's work; None if this machine lets nobody mount a disk.

    stage: one of STAGES. folder: an empty one, on a disk that stays. seed: of the moments.
    """
    with ExitStack() as stack:
        drive = stack.enter_context(disk(folder))
        if drive is None:
            return None
        mirror, before, draw = folder / "mirror", folder / "before", random.Random(f"{stage} {seed}")
        write_mirror(mirror, sizes=SIZES)
        prepare(stage, before, mirror)
        server = stack.enter_context(FaultServer(mirror, rate=RATE))
        place = Place(drive.root, folder, server.url)
        outcome = Outcome(stage=stage)
        lay_out(before, place)
        seconds, calm = undisturbed(stage, place)
        for number in range(cuts):
            lay_out(before, place)
            # Some moments are right after the end: what was just said to be finished has to be there.
            at_work, said = cut_at(stage, place, drive, draw.uniform(0, 1.15 * seconds))
            outcome.cuts += 1
            outcome.at_work += at_work
            outcome.said += len(said)
            outcome.faults += [f"cut {number}: {fault}" for fault in again(stage, place, said, calm)]
        return outcome


def undisturbed(stage: str, place: Place) -> tuple[float, dict[str, str]]:
    """Do a stage's work; the seconds that it took, and what it left."""
    start(_nothing, stage, place).join()  # the process that all others are forked from has imported everything
    began = time.monotonic()
    process = start(_work, stage, place)
    process.join()
    seconds = time.monotonic() - began
    assert process.exitcode == 0, log_of(place)
    return seconds, left(stage, place)


def cut_at(stage: str, place: Place, drive: Disk, seconds: float) -> tuple[bool, list[dict[str, Any]]]:
    """Begin a stage's work and cut the power; whether it was at work, and what it said to be finished."""
    process = start(_work, stage, place)
    process.join(seconds)
    at_work = process.is_alive()
    if at_work:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)  # what it says is true: nothing comes between the last word and the cut
    drive.shut_down()
    said = what_was_said(place)
    process.kill()
    process.join()
    drive.start()
    return at_work, [line for line in said if not line["cached"]]


def again(stage: str, place: Place, said: list[dict[str, Any]], calm: dict[str, str]) -> list[str]:
    """Do a stage's work again; what is lost or wrong."""
    process = start(_work, stage, place)
    process.join(120)
    if process.exitcode != 0:
        process.kill()
        process.join()
        return [f"the same command ended with {process.exitcode}: {log_of(place)[-500:]}"]
    now = {line["name"]: line for line in reversed(what_was_said(place))}
    faults: list[str] = []
    for line in said:
        found = now[line["name"]]
        if line["name"] == "checkpoint":
            if found["what"] < line["what"]:
                faults.append(f"checkpoint {line['what']} was written, and {found['what']} was found")
        elif not found["cached"] and line["name"] != "champion":
            faults.append(f"{line['name']} was finished, and is made again")
    if faults:
        faults.append(log_of(place)[-1000:])
    try:
        result = left(stage, place)
    except AssertionError as error:
        return [*faults, str(error)]
    return faults + [f"{name} differs" for name in calm.keys() | result.keys() if calm.get(name) != result.get(name)]


def start(task: Callable[[str, Place], None], stage: str, place: Place) -> ForkServerProcess:
    """Start a process of its own, forked from one that has imported everything and opened nothing."""
    (place.beside / "said").write_text("")  # here: a process may be stopped before it does anything
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_logged, args=(task, stage, place))
    process.start()
    return process


def _logged(task: Callable[[str, Place], None], stage: str, place: Place) -> None:
    log = os.open(place.beside / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(level=logging.WARNING)
    task(stage, place)


def _nothing(stage: str, place: Place) -> None:
    pass


def _work(stage: str, place: Place) -> None:
    with (place.beside / "said").open("a", buffering=1) as stream:

        def say(name: str, what: object, cached: bool) -> None:
            stream.write(json.dumps({"name": name, "what": what, "cached": cached}) + "\n")

        WORK[stage](place, say)


def what_was_said(place: Place) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place.beside / "said").read_text().splitlines()]


def log_of(place: Place) -> str:
    return (place.beside / "log").read_text(errors="replace")


def left(stage: str, place: Place) -> dict[str, str]:
    """What a stage left, looked at by a process that keeps nothing open on the disk."""
    process = start(_look, stage, place)
    process.join()
    if process.exitcode != 0:
        raise AssertionError(log_of(place))
    return json.loads((place.beside / "left").read_text())


def _look(stage: str, place: Place) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (place.beside / "left").write_text(json.dumps(left_by(stage, place, Path(folder))))


def lay_out(before: Path, place: Place) -> None:
    """Make the disk as it is before the stage's work, all of it flushed."""
    for path in place.root.iterdir():
        if path.name != "lost+found":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(before, place.root, dirs_exist_ok=True)
    subprocess.run(["sync", "--file-system", str(place.root)], check=True)
