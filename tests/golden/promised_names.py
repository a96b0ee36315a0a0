"""Fields, columns, closed lists, file names and programs, and the numbers that hashes and seeds give.

Of a class the table has the fields alone: classes may be renamed, what is stored of them may not.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, fields
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

from ecg_model.config import EncoderConfig, JEPAConfig, MaskingConfig
from ecg_model.encoder_file import encoder_bytes, random_encoder
from ecg_model.masking import masked_columns
from ecg_model.reference import main as reference_program
from ecg_model.stochastic_depth import drop_path_scale
from orchestration.demo import main as demo_program
from orchestration.ui import main as ui_program
from pipelines.cache import Workspace
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.index import EXCLUSIONS, INDEX
from pipelines.corpus.selection import Exclusion
from pipelines.evaluate.exposure import Overlap
from pipelines.evaluate.probes.assessment import Assessment, LabelAssessment
from pipelines.evaluate.probes.attention_pool import AttentionPool
from pipelines.evaluate.probes.augment import OPERATIONS, AugmentConfig
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.fine_tune import FineTune
from pipelines.evaluate.probes.result import ClassScore, ProbeScores, SplitScores, Trial
from pipelines.evaluate.report.model import (
    TITLES,
    AucDifference,
    EncoderComparison,
    EvaluationReport,
    LabelComparison,
    Pretraining,
    Probed,
    ReportVerdict,
    SuiteRow,
    SuiteTable,
    TaskComparison,
    TaskReport,
    WaveReport,
)
from pipelines.evaluate.report.published import Published
from pipelines.evaluate.statistics.bootstrap import Bootstrap, Interval, PairedDifference
from pipelines.evaluate.statistics.calibration import ReliabilityBin
from pipelines.evaluate.suite.names import NOISES
from pipelines.evaluate.suite.noise import lead_noise
from pipelines.evaluate.waves.annotations import SCHEMA as WAVES
from pipelines.evaluate.waves.boundaries import BoundaryScore
from pipelines.evaluate.waves.config import PseudoConfig, SegmentationConfig
from pipelines.evaluate.waves.delineation import LEFT_OUT, Undelineated
from pipelines.evaluate.waves.intervals import PREDICTIONS, FigureScores, RegressionConfig, RegressionTrial
from pipelines.evaluate.waves.pseudo_labels import Failure
from pipelines.evaluate.waves.segmentation import ReadOff, SegmentationScores
from pipelines.evaluate.waves.segmentation_model import SegmentationTrial
from pipelines.finding import Finding
from pipelines.formats.shard import DROPS, RECORDS, content_hash
from pipelines.formats.simhash import signatures
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.window import Incomplete
from pipelines.pretrain.__main__ import main as pretrain_program
from pipelines.pretrain.data import load_corpus
from pipelines.pretrain.recipes import RECIPES, Recipe, recipe_named
from pipelines.pretrain.sampling_order import Order
from pipelines.pretrain.train import RunConfig, train
from pipelines.program import REFUSED
from pipelines.records import DropReason
from pipelines.release.gate import CLASSIFIER_RULES, GateConfig
from pipelines.release.model import Scores
from pipelines.release.retraining import RetrainingConfig
from pipelines.sources.base import RemoteFile, Role
from pipelines.tasks.splits import FewLabels, FoldProtocol, PartitionProtocol, PatientProtocol, Protocol
from tests.golden.promised_commands import parameters_of
from tests.golden.promised_steps import constant_encoder, zero_head
from tests.support.paths import ROOT

READ = re.compile(r"""environ(?:\.get\(|\[|\.setdefault\()\s*"([A-Z][A-Z0-9_]+)\"""")
PROGRAMS = (
    "pipelines.pretrain",
    "pipelines.pretrain.torchrun",
    "ecg_model.reference",
    "orchestration.demo",
    "orchestration.ui",
    "orchestration.limits",
)

SETTINGS: dict[str, Any] = {
    "quality limits": QualityLimits(),
    "incomplete records": Incomplete(),
    "corpus": CorpusConfig(),
    "recipe": Recipe(name="x"),
    "networks": JEPAConfig(),
    "probe": ProbeConfig(),
    "segmentation": SegmentationConfig(),
    "regression": RegressionConfig(),
    "pseudo-labels": PseudoConfig(),
    "bootstrap": Bootstrap(),
    "augmentation": AugmentConfig(),
    "fine-tuning": FineTune(),
    "attention pool": AttentionPool(),
    "gate": GateConfig(),
    "retraining": RetrainingConfig(),
    "split by fold": FoldProtocol(),
    "split by partition": PartitionProtocol(train=("a",), test=("b",)),
    "split by patient": PatientProtocol(),
    "few labels": FewLabels(of=FoldProtocol(), percent=10.0),
}
STORED: dict[str, type] = {
    "listed file": RemoteFile,
    "finding": Finding,
    "interval": Interval,
    "paired difference": PairedDifference,
    "class score": ClassScore,
    "split scores": SplitScores,
    "probe scores": ProbeScores,
    "trial": Trial,
    "release scores": Scores,
    "overlap": Overlap,
    "label comparison": LabelComparison,
    "task comparison": TaskComparison,
    "encoder comparison": EncoderComparison,
    "probed": Probed,
    "task report": TaskReport,
    "lead over another": AucDifference,
    "suite row": SuiteRow,
    "suite table": SuiteTable,
    "wave report": WaveReport,
    "pretraining": Pretraining,
    "verdict of the report": ReportVerdict,
    "report": EvaluationReport,
    "published": Published,
    "assessment": Assessment,
    "label assessment": LabelAssessment,
    "reliability bin": ReliabilityBin,
    "segmentation scores": SegmentationScores,
    "segmentation trial": SegmentationTrial,
    "interval read off": ReadOff,
    "boundary score": BoundaryScore,
    "regression scores": FigureScores,
    "regression trial": RegressionTrial,
}
COLUMNS: dict[str, pa.Schema] = {
    "records": RECORDS,
    "drops": DROPS,
    "corpus index": INDEX,
    "corpus exclusions": EXCLUSIONS,
    "waves": WAVES,
    "waves left out": LEFT_OUT,
    "regression predictions": PREDICTIONS,
}
LISTS: dict[str, type[StrEnum]] = {
    "drop reasons": DropReason,
    "corpus exclusions": Exclusion,
    "roles": Role,
    "not delineated": Undelineated,
    "delineation failures": Failure,
}


def stored() -> dict[str, Any]:
    """Fields with their defaults, columns with their types, closed lists with their values."""
    return {
        "settings": {name: _defaults(one) for name, one in SETTINGS.items()},
        "stored": {name: [field.name for field in fields(one)] for name, one in STORED.items()},
        "columns": {
            name: {
                "fields": [f"{one.name}: {one.type}{'' if one.nullable else ', never null'}" for one in schema],
                "metadata": {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()},
            }
            for name, schema in COLUMNS.items()
        },
        "lists": {name: [one.value for one in members] for name, members in LISTS.items()},
        "augmentations": list(OPERATIONS),
        "probes on the page": list(TITLES),
        "rules of the gate": list(CLASSIFIER_RULES),
    }


def _defaults(settings: Any) -> dict[str, str]:
    """Each field's value; of nested settings their fields', so that no class is named."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {name: repr(asdict(one) if hasattr(one, "__dataclass_fields__") else one) for name, one in values.items()}


def surroundings(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Environment variables that are read, programs that are started by `python -m`, and their options."""
    code = [
        path
        for folder in ("pipelines", "assets", "orchestration", "ecg_foundry", "ecg_model")
        for path in _files(folder, "*.py")
    ]
    deploy = [path for path in [*_files("deploy", "*"), ROOT / "Makefile"] if path.is_file()]
    return {
        "read by the code": sorted({name for path in code for name in READ.findall(path.read_text())}),
        "named in deployment": sorted(
            {name for path in deploy for name in re.findall(r"ECG_[A-Z_]+", path.read_text())}
        ),
        "programs": {name: _is_program(name) for name in PROGRAMS},
        "pretrain": _options(pretrain_program, capsys),
        "reference": _options(reference_program, capsys),
        "demo": _parameters(demo_program),
        "ui": _parameters(ui_program),
        "exit code of a refusal": REFUSED,
    }


def _files(folder: str, pattern: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob(pattern) if "__pycache__" not in path.parts)


def _is_program(name: str) -> bool:
    """Whether `python -m` finds it."""
    spec = find_spec(name)
    return spec is not None and (spec.submodule_search_locations is None or find_spec(f"{name}.__main__") is not None)


def _options(program: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit):
        program(["--help"])
    usage = capsys.readouterr().out.split("\n\n")[0]
    return sorted({" ".join(one.split()) for one in re.findall(r"\[[^\]]*\]|\{[^}]*\}|--[\w-]+ [A-Z]+", usage)})


def _parameters(program: object) -> list[dict[str, Any]]:
    assert isinstance(program, click.Command)
    return parameters_of(program)


def draws(workspace: Workspace) -> dict[str, Any]:
    """What seeds and salts give. workspace: one that holds the corpus of `promised_steps.write_shard`."""
    signal_NLT = (np.frombuffer(hashlib.shake_256(b"golden").digest(3 * 8 * 2500 * 2), np.int16) >> 6).reshape(
        3, 8, 2500
    )
    by: dict[str, Protocol] = {
        "fold": FoldProtocol(),
        "partition": PartitionProtocol(train=("a",), test=("b",), validation_share=0.3),
        "patient": PatientProtocol(validation_share=0.3, test_share=0.3),
        "patient, seed 1": PatientProtocol(validation_share=0.3, test_share=0.3, seed=1),
        "few labels": FewLabels(of=FoldProtocol(), percent=30.0),
        "few labels, seed 1": FewLabels(of=FoldProtocol(), percent=30.0, seed=1),
    }
    order = Order(seed=3, batch=8, chunk_N=np.arange(1000) // 4)
    masks = {"block": MaskingConfig(), "random": MaskingConfig(kind="random"), "each": MaskingConfig(per_record=True)}
    branches = drop_path_scale(EncoderConfig(drop_path=0.5), 4, seed=1, step=2)
    assert branches is not None
    corpus = workspace.require("corpus")
    index = pq.read_table(corpus.path / "index.parquet")
    return {
        "signatures": [_hash(one) for one in signatures(signal_NLT)],
        "content hash": content_hash(signal_NLT[0]),
        "splits": {name: "".join(one[1] for one in protocol.split(_people())) for name, protocol in by.items()},
        "corpus": "".join(one[0] for one in index["split"].to_pylist()),
        "corpus order": [
            f"{shard} {row}" for shard, row in zip(index["shard"].to_pylist(), index["row"].to_pylist(), strict=True)
        ][::7],
        "pseudo-labels": "".join("yn"[not PseudoConfig().draws(f"r{i}")] for i in range(60)),
        "order": [order.rows(step).tolist() for step in (0, 1, 124, 1000)],
        "masks": {name: _bits(masked_columns(config, 50, seed=1, step=7, records=3)) for name, config in masks.items()},
        "stochastic depth": _bits(branches > 0),
        "noise": {
            kind: [round(float(one), 4) for one in lead_noise(kind, "r1", 2500)[[0, 1, 4], [9, 99, 1999]]]
            for kind in NOISES
        },
        "bootstrap": _hash(Bootstrap(resamples=50, seed=4).times(np.array([f"p{i // 2}" for i in range(30)]))),
        "recipes": {name: make().digest for name, make in RECIPES.items()},
        "initial weights": [
            round(float(one), 4)
            for one in random_encoder(EncoderConfig(dim=16, depth=1, heads=2), 5).patch.weight.detach().flatten()[:5]
        ],
    }


def _people() -> pa.Table:
    """Sixty records, two of each patient, of folds 1 to 10 and of two partitions; some of no known patient."""
    rows = range(60)
    return pa.table(
        {
            "record_id": [f"r{i}" for i in rows],
            "patient_id": [None if i % 8 == 7 else f"{i // 2}" for i in rows],
            "fold": pa.array([i // 2 % 10 + 1 for i in rows], pa.int8()),
            "partition": ["b" if i >= 50 else "a" for i in rows],
        }
    )


def _hash(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def _bits(array: np.ndarray) -> list[str]:
    return ["".join("01"[int(one)] for one in row) for row in np.atleast_2d(array).reshape(-1, array.shape[-1])]


def trained(workspace: Workspace, folder: Path) -> dict[str, Any]:
    """What a training of two steps leaves: files, the keys of its summary and metrics, and the names of its tensors."""
    changes = {"jepa.encoder.dim": 16, "jepa.encoder.depth": 1, "jepa.encoder.heads": 2, "steps": 2, "batch": 4}
    changes |= {"jepa.predictor.dim": 8, "probe_epochs": None}
    corpus = load_corpus(workspace.root, workspace.require("corpus").path, torch.device("cpu"))
    run = RunConfig(out=folder, device=torch.device("cpu"), checkpoint_steps=1, checkpoint_minutes=None)
    summary = train(recipe_named("demo", changes), corpus, run).to_dict()
    lines = (folder / "aside" / "metrics.jsonl").read_text().splitlines()
    head = folder / "head.safetensors"
    head.write_bytes(zero_head().to_bytes())
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    # All weights the same: these bytes hold names, shapes and metadata alone.
    return {
        "files": [name for name in names if name != head.name],
        "summary": sorted(summary),
        "figures": {name: sorted(summary[name]) for name in ("first", "last", "parameters")},
        "metrics": sorted({name for line in lines for name in json.loads(line)}),
        "tensors": {name: _tensors(folder / name) for name in names if name.endswith(".safetensors")},
        "encoder": hashlib.sha256(
            encoder_bytes(constant_encoder(EncoderConfig(dim=16, depth=1, heads=2), 0.01))
        ).hexdigest()[:16],
    }


def _tensors(path: Path) -> dict[str, Any]:
    """Names, kinds and shapes in a safetensors file, with the keys of its metadata."""
    with safe_open(str(path), framework="pt") as file:
        slices = {name: file.get_slice(name) for name in sorted(file.keys())}
        return {
            "metadata": sorted(file.metadata() or {}),
            "tensors": [f"{name} {one.get_dtype()} {one.get_shape()}" for name, one in slices.items()],
        }


def written(workspace: Workspace) -> dict[str, Any]:
    """Keys of the JSON files that products hold, and what a shard's Zarr group says of itself."""
    files = {
        "corpus": "corpus.json",
        "probe/ptbxl_superclass/pretrained": "scores.json",
        "probe/ptbxl_superclass__labels_5/pretrained": "mean.json",
        "dense/georgia__multi_class": "difference.json",
    }
    found: dict[str, Any] = {
        f"{product}: {file}": _keys(json.loads((workspace.require(product).path / file).read_text()))
        for product, file in files.items()
    }
    store = workspace.require("ecgs/ptbxl/00000").path / "ecgs.zarr"
    for file in sorted(store.rglob("zarr.json")):
        about = json.loads(file.read_text())
        names = ("attributes", "shape", "data_type", "dimension_names")
        found[f"shard: {file.relative_to(store)}"] = {name: about.get(name) for name in names}
    product = workspace.require("ecgs/ptbxl/00000").path
    found["shard"] = sorted(path.name for path in product.iterdir())
    return found


def _keys(value: Any) -> Any:
    """The keys of a JSON object, two levels of them."""
    return {key: sorted(one) if isinstance(one, dict) else None for key, one in value.items()}
