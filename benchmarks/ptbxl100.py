"""A real result, from raw files to a table: pretrain on folds 1-7 of PTB-XL at 100 Hz without labels, then probe.

    python -m benchmarks.ptbxl100 --mirror FOLDER --home DIR [--set FIELD=VALUE] [--evaluation NAME] [--markdown FILE]

Folds 1-7 train the probes, fold 8 is for choices, fold 9 is tested once; fold 10 is not used. Every stage is a product
of the data home, so that the same command resumes after a stop. On two cores the default takes about an hour and a
half; for a GPU use `--device cuda` and `--recipe paper_block`. docs/results.md has the output.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.cache import Workspace
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import CorpusFacts, materialize_corpus
from pipelines.download.mirror import Mirror, list_source
from pipelines.download.step import materialize_raw
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.report.step import HTML_FILE, materialize_report
from pipelines.evaluate.suite.baselines import probe_pair
from pipelines.evaluate.suite.names import evaluation
from pipelines.evaluate.suite.run import evaluate_encoder
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.shards import HarmonizedFacts
from pipelines.harmonize.step import materialize_ecgs
from pipelines.home import Home
from pipelines.pretrain.recipes import recipe_named
from pipelines.pretrain.step import materialize_encoder
from pipelines.sources import SOURCES

SOURCE = "ptbxl100"
TRAIN_FOLDS = tuple(range(1, 8))
LABELS = ("all", "diagnostic", "subclass", "form", "rhythm")
EVALUATIONS = (
    *(f"{SOURCE}_{labels}" for labels in LABELS),
    *(f"{SOURCE}_{labels}__attention_pool" for labels in ("superclass", "form", "rhythm")),
    *(
        f"{SOURCE}_superclass__{variant}"
        for variant in (
            "multi_class",
            "multi_class__nearest_mean",
            *("labels_1", "labels_5", "labels_10"),
            *("leads_II", "leads_II_V1"),
            *(f"noise_{kind}_{level}" for kind in ("baseline", "muscle", "electrode") for level in (1, 2)),
        )
    ),
)
"""Evaluations of the suite besides the plain superclass probe, those that two cores do in minutes."""


def harmonize_all(home: Home, workspace: Workspace) -> dict[str, int]:
    """Build all partitions. Return how many records entered and how many were kept."""
    source, mirror = SOURCES[SOURCE], Mirror.parse(home.mirror)
    entered = kept = 0
    for partition in source.available(list_source(source, mirror, raw_root=home.raw_root)):
        materialize_raw(workspace, source, partition, mirror=mirror, raw_root=home.raw_root)
        shard = materialize_ecgs(workspace, source, partition, limits=QualityLimits())
        facts = HarmonizedFacts.of(shard)
        entered, kept = entered + facts.entered, kept + facts.kept
    return {"entered": entered, "kept": kept}


def rows_of(name: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return lines of a Markdown table."""
    return [
        f"| {name if number == 0 else ''} | {row['features']} | {_figure(row['test macro AUC'])} | {row['interval']} "
        f"| {_figure(row['accuracy'])} | {row['ahead of it']} |"
        for number, row in enumerate(rows)
    ]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--mirror", required=True, help="a folder with PTB-XL 1.0.3, records100, as `wget -r` leaves it"
    )
    parser.add_argument("--home", required=True, type=Path, help="data home for all products")
    parser.add_argument("--recipe", default="small", help="recipe of the pretraining (default: small)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the recipe, such as steps=3600 with epochs=none",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto: a GPU if there is one (default: auto)")
    parser.add_argument(
        "--evaluation",
        action="append",
        metavar="NAME",
        help="evaluation of the suite, besides the superclass probe; may be given several times "
        "(default: those that take minutes)",
    )
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    options = parser.parse_args()
    home = Home(options.home, options.mirror)
    workspace, began = home.workspace(), time.monotonic()
    print(f"harmonized: {harmonize_all(home, workspace)}", flush=True)
    corpus = materialize_corpus(workspace, CorpusConfig(sources=(SOURCE,), unlabelled_folds=TRAIN_FOLDS))
    print(f"corpus: {CorpusFacts.of(corpus).train} ECGs to train on", flush=True)
    recipe = recipe_named(options.recipe, dict(change.split("=", 1) for change in options.set))
    encoder = materialize_encoder(
        workspace, recipe, lambda command: subprocess.run(command, check=True), device=options.device
    )
    print(f"encoder: {encoder.path} ({encoder.seconds:.0f} s)", flush=True)

    config, superclass = ProbeConfig(), evaluation(f"{SOURCE}_superclass")
    probe_pair(workspace, superclass.task, config)
    lines = [
        "| evaluation | features | test macro AUC | 95 % interval | accuracy | ahead of it |",
        "|---|---|---|---|---|---|",
    ]
    for name in (superclass.name, *(options.evaluation or EVALUATIONS)):
        rows = evaluate_encoder(workspace, evaluation(name), config)
        new = rows_of(name, [row.row() for row in rows])
        print("\n".join(new), flush=True)
        lines += new
    report = materialize_report(workspace, simulated=False)
    print(f"report: {report.path / HTML_FILE}\ntook {time.monotonic() - began:.0f} s")
    if options.markdown is not None:
        options.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
