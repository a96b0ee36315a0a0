"""Time of a linear probe and of a bootstrap, for all statements of PTB-XL from cached features.

    python -m benchmarks.probes --features FILE.npy --records FILE.parquet --json FILE

Without files the features are simulated: of PTB-XL's size, with a spectrum that falls as that of embeddings, and with
labels as rare. `--features` takes real ones, float32 (N, D), with the rows of the records in `--records`. The bootstrap
is compared with scikit-learn's AUC on some resamples.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.fit import run_probe
from pipelines.evaluate.statistics.bootstrap import resample_patients
from pipelines.evaluate.statistics.ranking import resampled_auc
from pipelines.tasks.catalogue import SUITE_TASKS, LabelTask

RECORDS, TEST_RECORDS, LABELS, RESAMPLES = 21_799, 2_198, 71, 1_000
WIDTHS = (192, 768)
T = TypeVar("T")


def simulated(records: int, width: int, seed: int = 0) -> tuple[np.ndarray, pa.Table]:
    """Return features, float32 (records, width), whose variance falls as 1 / rank^2, and records with folds and labels.

    A label's logit lies along some axes; its prevalence falls from 0.4 to 0.0005 as PTB-XL's statements' do.
    """
    rng = np.random.default_rng(seed)
    factor_ND = rng.normal(size=(records, width))
    mixing_DD = np.linalg.qr(rng.normal(size=(width, width)))[0]
    feature_ND = (factor_ND / np.arange(1, width + 1)) @ mixing_DD
    codes = [label.codes[0] for label in SUITE_TASKS["ptbxl_all"].classes]
    weight_DC = rng.normal(size=(width, len(codes))) * (np.arange(width) < 40)[:, None]
    logit_NC = factor_ND @ weight_DC / 3 + rng.logistic(size=(records, len(codes)))
    prevalence_C = np.geomspace(0.4, 0.0005, len(codes))
    threshold_C = np.array([np.quantile(logit_NC[:, c], 1 - share) for c, share in enumerate(prevalence_C)])
    labels = [[codes[c] for c in np.flatnonzero(row)] for row in logit_NC > threshold_C]
    columns = {
        "record_id": pa.array([str(i) for i in range(records)]),
        "patient_id": pa.array([str(i) for i in range(records)]),
        "labels": pa.array(labels, pa.list_(pa.string())),
        "fold": pa.array([i % 10 + 1 for i in range(records)], pa.int8()),
    }
    return feature_ND.astype(np.float32), pa.table(columns)


def probe_figures(task: LabelTask, feature_ND: np.ndarray, records: pa.Table) -> dict[str, Any]:
    """Return the seconds from features to scores, with the choice of a penalty and without the bootstrap."""
    result, (seconds, cpu_seconds) = timed(lambda: run_probe(task, feature_ND, records, ProbeConfig(resamples=1)))
    assert result.scores is not None
    return {
        "records": len(feature_ND),
        "labels": len(task.classes),
        "probe_seconds": round(seconds, 1),
        "probe_cpu_seconds": round(cpu_seconds, 1),
        "penalty": result.scores.penalty,
        "penalties_tried": len(result.scores.trials),
        "test_macro_auc": round(result.scores.test.macro_auc.value, 4),
    }


def bootstrap_figures(checked: int = 5) -> dict[str, Any]:
    """Return the seconds of 1,000 bootstrap AUCs over 71 labels, and the largest difference from scikit-learn's."""
    rng = np.random.default_rng(0)
    y_NC = rng.random((TEST_RECORDS, LABELS)) < np.geomspace(0.4, 0.005, LABELS)
    score_NC = np.round(rng.random((TEST_RECORDS, LABELS)) + 0.2 * y_NC, 3)  # with ties
    patient = [f"{i // 2}" for i in range(TEST_RECORDS)]
    times_RN = resample_patients(patient, resamples=RESAMPLES, seed=0)
    auc_RC, seconds = timed(lambda: resampled_auc(y_NC, score_NC, times_RN))
    worst = 0.0
    for times_N, auc_C in zip(times_RN[:checked], auc_RC[:checked], strict=True):
        rows = np.repeat(np.arange(TEST_RECORDS), times_N)
        for c in np.flatnonzero(~np.ma.getmaskarray(auc_C)):
            worst = max(worst, abs(float(auc_C[c]) - float(roc_auc_score(y_NC[rows, c], score_NC[rows, c]))))
    return {"bootstrap_seconds": round(seconds[0], 2), "from_scikit_learn": worst}


def timed(work: Callable[[], T]) -> tuple[T, tuple[float, float]]:
    """Return the result of a call, and its seconds by the clock and of the processor."""
    began, spent = time.perf_counter(), time.process_time()
    result = work()
    return result, (time.perf_counter() - began, time.process_time() - spent)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.probes", description="Time of a linear probe and of a bootstrap."
    )
    parser.add_argument("--features", type=Path, help="float32 (N, D) .npy (default: simulated, D 192 and 768)")
    parser.add_argument("--records", type=Path, help="the records of --features, a parquet")
    parser.add_argument("--task", default="ptbxl_all", choices=[name for name in SUITE_TASKS if name.startswith("ptb")])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    task = SUITE_TASKS[options.task]
    figures: dict[str, Any] = {"machine": platform.processor() or platform.machine(), **bootstrap_figures()}
    if options.features is not None:
        if options.records is None:
            parser.error("--features needs --records")
        feature_ND = np.load(options.features, allow_pickle=False)
        figures[f"D = {feature_ND.shape[1]}"] = probe_figures(task, feature_ND, pq.read_table(options.records))
    else:
        for width in WIDTHS:
            figures[f"D = {width}, simulated"] = probe_figures(task, *simulated(RECORDS, width))
    text = json.dumps(figures, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
