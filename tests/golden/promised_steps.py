"""What each step asks the cache for: version, configuration, the names of its inputs, and the fingerprint of these.

The steps are called as people's commands and Dagster's assets call them, in a workspace that writes down each build,
gives every input a digest that depends on its name alone, and fills most products with next to nothing. Probes, means,
corpora and classifiers are made for real: of so few records they say that they were not scored.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ecg_model.config import EncoderConfig
from ecg_model.encoder import Encoder
from ecg_model.encoder_file import save_encoder
from ecg_model.serving.classify import CalibratedHead
from pipelines.cache import Product, Workspace
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from pipelines.download.mirror import Mirror, list_source
from pipelines.download.step import materialize_raw
from pipelines.encoders.import_reference import materialize_reference
from pipelines.encoders.names import OURS, REFERENCE
from pipelines.evaluate.features import (
    EncoderSource,
    FeatureConfig,
    FeatureSource,
    encoder_and_random_baseline,
    materialize_features,
)
from pipelines.evaluate.probes.augment import AugmentConfig
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.handcrafted import HandcraftedSource
from pipelines.evaluate.probes.heads import Logistic
from pipelines.evaluate.probes.step import materialize_probe
from pipelines.evaluate.report.model import EncoderComparison
from pipelines.evaluate.report.step import materialize_comparison, materialize_report
from pipelines.evaluate.suite.attention_ablation import against_dense, materialize_dense
from pipelines.evaluate.suite.names import AGAINST_DENSE, SUITE, evaluation
from pipelines.evaluate.suite.own_labels import own_task
from pipelines.evaluate.suite.run import head_of, materialize_evaluation
from pipelines.evaluate.waves.annotations import Waves
from pipelines.evaluate.waves.config import FINE_TUNED, FROZEN, PseudoConfig
from pipelines.evaluate.waves.delineation import usual_task
from pipelines.evaluate.waves.intervals import RegressionConfig, materialize_regression
from pipelines.evaluate.waves.segmentation import materialize_segmentation
from pipelines.formats.shard import SAMPLES, ShardWriter, content_hash, write_table
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.harmonize.window import Incomplete
from pipelines.hashing import digest_of
from pipelines.home import Home
from pipelines.incoming import INCOMING
from pipelines.incoming.step import materialize_drop
from pipelines.pretrain.recipes import RECIPES, recipe_named
from pipelines.pretrain.step import materialize_encoder
from pipelines.release.classifier import materialize_classifier
from pipelines.sources import SOURCES
from pipelines.tasks.catalogue import SUITE_TASKS, TASKS, LabelTask
from pipelines.tasks.splits import PAPER_FOLDS, FewLabels

RECORDS = 40
TESTED = 4  # of these, in the fold that tests
ARTIFICIAL = {"files": 0, "bytes": 0}


def named_digest(name: str) -> str:
    """The digest that a product or an input of this name is given here."""
    return hashlib.sha256(f"golden {name}".encode()).hexdigest()


def shortened(value: Any) -> Any:
    """A configuration with each task's classes, which are another table, as a short hash."""
    if isinstance(value, Mapping):
        return {key: digest_of(one)[:16] if key == "classes" else shortened(one) for key, one in value.items()}
    return [shortened(one) for one in value] if isinstance(value, list | tuple) else value


class Recorder(Workspace):
    """A workspace that writes down what is asked of it, as the tables have it: `asked`, by a label and the product."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: dict[str, Any] = {}
        self.label = ""
        self.real = ("probe", "dense", "corpus", "classifier")  # made for real
        self.files: dict[str, str] = {}  # sha256 of an encoder's file -> the digest it has here

    def build(
        self,
        product: str,
        *,
        version: str,
        config: Mapping[str, Any],
        inputs: Mapping[str, str],
        make: Callable[[Path], dict[str, Any]],
        resumable: bool = False,
        still_valid: Callable[[Product], bool] | None = None,
    ) -> Product:
        text = json.dumps(config, sort_keys=True, allow_nan=False)
        for found, stands_for in self.files.items():
            text = text.replace(found, stands_for)
        real = product.split("/")[0] in self.real

        def filled(folder: Path) -> dict[str, Any]:
            return make(folder) if real else self._fill(product, config, folder)

        built = super().build(
            product,
            version=version,
            config=json.loads(text),
            inputs={name: named_digest(name) for name in inputs},
            make=filled,
            resumable=resumable,
        )
        entry = {
            "version": version,
            "config": shortened(json.loads(text)),
            "inputs": sorted(inputs),
            "fingerprint": built.fingerprint,
        }
        if real:
            done = json.loads((built.path / "done.json").read_text())
            entry |= {"files": sorted(one.name for one in built.path.iterdir()), "done": sorted(done)}
            entry |= {"facts": sorted(built.facts)}
        if entry != self.asked.get(product):
            self.asked[f"{product} ({self.label})" if self.label else product] = entry
        return replace(built, digest=named_digest(product))

    def current(self, product: str) -> Product | None:
        found = super().current(product)
        return None if found is None else replace(found, digest=named_digest(product))

    def _fill(self, product: str, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """As little as the steps above it read."""
        kind, *rest = product.split("/")
        if kind == "raw":
            (folder / "files.json").write_text("[]")
            (folder / "aside").mkdir()
            (folder / "aside" / "root").write_text(str(folder))
            return ARTIFICIAL
        if kind == "ecgs":
            write_shard(folder, rest[0], RECORDS)
            return {"entered": 0, "kept": 0, "dropped": {}, "role": config["role"], "findings": {}}
        if kind in ("encoder", "dense_encoder", "reference"):
            network = recipe_named("demo").jepa.encoder
            path = folder / "encoder.safetensors"
            save_encoder(path, constant_encoder(network, {"encoder": 0.01}.get(kind, 0.02)))
            self.files[EncoderSource.of_file(kind, path).digest] = named_digest(f"{kind} file")
            if kind == "reference":
                return {"file": "x.pth", "sha256": "0" * 64, "published": None, "epoch": 1, "weights": 1}
            corpus = self.require("corpus")
            return {"recipe": dict(config), "steps": 1, "corpus_digest": corpus.facts["digest"], "recipe_digest": "0"}
        if kind in ("features", "tokens"):
            rows = TESTED if "condition" in config else RECORDS
            shape = (rows, 3) if kind == "features" else (rows, 2, 3)
            np.save(folder / f"{kind}.npy", np.zeros(shape, np.float32 if kind == "features" else np.float16))
            return {"records": RECORDS}
        if kind == "classifier":
            worth = {"brier": 0.1, "brier_uncalibrated": 0.2}
            (folder / "head.safetensors").write_bytes(zero_head().to_bytes())
            return {"scored": True, "reason": None, "labels": ["a", "b"], **worth}
        if kind == "delineation":
            write_table(folder / "waves.parquet", Waves.of([]).to_table([]))
        if kind == "report":
            return {"encoder_digest": "", "headline": "nothing is scored here", "sentences": []}
        return {"scored": False, "reason": "nothing is scored here", "data_digest": product}


class RecorderHome(Home):
    """A data home with such a workspace."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.recorder = Recorder(root / "workspace")

    def workspace(self) -> Workspace:
        return self.recorder

    @property
    def incoming(self) -> Path:
        return self.root / "incoming"


def constant_encoder(config: EncoderConfig, value: float) -> Encoder:
    """An encoder whose weights are all the same."""
    encoder = Encoder(config)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.fill_(value)
    return encoder


def zero_head(width: int = 96) -> CalibratedHead:
    """A classifier's head of two labels that says nothing."""
    zero_C = np.zeros(2)
    return CalibratedHead(
        labels=("a", "b"), weight_CD=np.zeros((2, width)), bias_C=zero_C, slope_C=zero_C, intercept_C=zero_C
    )


def write_shard(folder: Path, source: str, records: int) -> None:
    """Records of a source with folds 1 to 10, two of each patient, whose signals are random whole numbers."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(source.encode())))
    writer = ShardWriter(folder)
    for i in range(records):
        # Whole numbers from raw bits: the same for each version of NumPy.
        signal_LT = (np.frombuffer(rng.bytes(8 * SAMPLES * 2), np.int16) >> 6).reshape(8, SAMPLES)
        row = {
            "source": source,
            "record_id": f"{source}-{i}",
            "patient_id": None if i % 8 == 7 else f"p{i // 2}",
            "age": None,
            "sex": None,
            "rate": 500.0,
            "samples": 5000,
            "labels": ["NORM", "426783006"][: 1 + i % 2],
            "fold": i // 2 % 10 + 1,
            "notes": [],
            "content_hash": content_hash(signal_LT),
            "signature": rng.bytes(128),
        }
        writer.append(signal_LT, row)
    writer.close()


def walk(folder: Path, mirror_folder: Path) -> Recorder:
    """Ask for every product there is, from the files to the report. mirror_folder: a simulated mirror."""
    home = RecorderHome(folder)
    workspace = home.recorder
    _sources(home, Mirror.parse(str(mirror_folder)))
    _training(workspace, folder)
    _probes(workspace, folder)
    _waves(workspace)
    _pages(workspace)
    return workspace


def _sources(home: RecorderHome, mirror: Mirror) -> None:
    workspace = home.recorder
    for source in SOURCES.values():
        first, *more = source.available(list_source(source, mirror))
        materialize_raw(workspace, source, first, mirror=mirror, raw_root=home.raw_root)
        materialize_ecgs(workspace, source, first, limits=QualityLimits())
        assert not more or source.name == "cpsc2018"
    drop = home.incoming / "ward-7"
    drop.mkdir(parents=True)
    (drop / "ecgs.npz").write_bytes(b"not looked at here")
    (drop / "_COMPLETE").write_bytes(b"")
    materialize_drop(home, "ward-7")
    materialize_ecgs(workspace, INCOMING, "ward-7", limits=QualityLimits(), incomplete=Incomplete())
    workspace.label = "marked"
    materialize_ecgs(
        workspace, INCOMING, "ward-7", limits=QualityLimits(), incomplete=Incomplete(repeat_from=5.0, mark_leads=True)
    )
    workspace.label = ""


def _training(workspace: Recorder, folder: Path) -> None:
    workspace.label = "unlabelled folds of some sources"
    materialize_corpus(workspace, CorpusConfig(sources=("chapman", "ptbxl"), unlabelled_folds=(1, 2)))
    workspace.label = ""
    materialize_corpus(workspace, CorpusConfig())

    def launch(command: list[str]) -> None:
        raise AssertionError(f"nothing is trained here: {command}")

    file = folder / "x.pth"
    file.write_bytes(b"nobody reads it")
    materialize_reference(workspace, file)
    for name in (*RECIPES, "demo"):  # demo last: it is current then
        workspace.label = name
        materialize_encoder(workspace, recipe_named(name), launch)
    workspace.label = ""
    materialize_dense(workspace, launch)


def _probes(workspace: Recorder, folder: Path) -> None:
    ours, random_baseline = encoder_and_random_baseline(workspace, OURS)
    others: tuple[FeatureSource, ...] = (
        random_baseline,
        *encoder_and_random_baseline(workspace, REFERENCE),
        HandcraftedSource(),
    )
    for task in (*SUITE_TASKS.values(), *(one.task for one in SUITE.values())):
        materialize_evaluation(workspace, evaluation(task.name), ours)
    for name in TASKS:
        for source in others:
            materialize_evaluation(workspace, evaluation(name), source)
    superclass = TASKS["ptbxl_superclass"]
    # `ecg evaluate` makes of these what a name asks for.
    names = ("ptbxl_superclass__labels_25", "ptbxl_superclass__leads_I", "cpsc2018__multi_class__labels_10")
    for name in names:
        materialize_evaluation(workspace, evaluation(name), ours)
    workspace.label = "folds of the paper, its loop"
    paper = replace(superclass, protocol=PAPER_FOLDS)
    materialize_probe(workspace, paper, ours, ProbeConfig(solver="adamw"))
    workspace.label = "half precision"
    materialize_probe(workspace, superclass, ours, features=FeatureConfig(precision="bf16", leads=("II",)))
    workspace.label = "one penalty, named"
    materialize_probe(workspace, superclass, ours, head=Logistic(penalties=(0.01,)))
    workspace.label = ""
    materialize_probe(workspace, superclass, ours)  # the current one again
    materialize_features(workspace, HandcraftedSource(), "ludb")
    csv = folder / "Own labels.csv"
    csv.write_text("record_id,label\n" + "".join(f"georgia-{i},{'ab'[i % 2]}\n" for i in range(RECORDS)))
    materialize_probe(workspace, own_task(workspace, csv, "georgia"), ours)
    for name in AGAINST_DENSE:
        against_dense(workspace, evaluation(name), workspace.require("dense_encoder"))
    materialize_classifier(workspace, "ptbxl_superclass")


def _waves(workspace: Recorder) -> None:
    ours, random_baseline = encoder_and_random_baseline(workspace, OURS)
    every = PseudoConfig(share=1.0, leads=("II", "V5"))
    mirror = Path("a simulated mirror that nobody reads")
    for task in (
        usual_task("ludb", simulated=False),
        usual_task("ptbxl", simulated=True),
        usual_task("ptbxl", simulated=False),
        usual_task("chapman", simulated=False, pseudo=every),
    ):
        materialize_segmentation(workspace, task, ours, FROZEN, mirror=mirror)
        materialize_segmentation(workspace, task, ours, FINE_TUNED, mirror=mirror)
        materialize_regression(workspace, task, ours, RegressionConfig(), mirror=mirror)
    task = usual_task("ludb", simulated=False)
    materialize_segmentation(workspace, task, random_baseline, mirror=mirror)
    materialize_regression(workspace, task, random_baseline, mirror=mirror)


def _pages(workspace: Recorder) -> None:
    # Segmentations are facts of nobody here, so the report is asked for without them.
    for kind in ("segmentation", "regression"):
        workspace.folder(kind).rename(workspace.root / f"{kind}-aside")
    for simulated in (True, False):
        workspace.label = "simulated" if simulated else ""
        materialize_report(workspace, simulated=simulated)
    materialize_comparison(workspace, nothing_compared())


def nothing_compared() -> EncoderComparison:
    """A comparison of two encoders on no task."""
    return EncoderComparison(
        first="a", second="b", first_digest="1", second_digest="2", confidence=0.95, tasks=(), seen={}, not_scored={}
    )


def tasks() -> dict[str, Any]:
    """Every task that has a name, in full: what its probes' configurations hold."""
    named: dict[str, LabelTask] = {**SUITE_TASKS, **{name: one.task for name, one in SUITE.items()}}
    few = replace(TASKS["ptbxl_superclass"], protocol=FewLabels(of=PAPER_FOLDS, percent=10.0, seed=1))
    own = replace(TASKS["cpsc2018"], codes={"b": ("1",), "a": ("1", "2")})
    told = {name: task for name, task in named.items() if "__" not in name}
    return {
        "tasks": {name: {"title": task.title, **task.to_dict()} for name, task in told.items()},
        "variants": {name: one.task.title for name, one in SUITE.items()},
        "heads": {
            name: None if (head := head_of(one)) is None else head.to_dict() for name, one in sorted(SUITE.items())
        },
        "few labels": shortened(few.to_dict()),
        "own codes": shortened(own.to_dict()),
        "augment": asdict(AugmentConfig()),
    }
