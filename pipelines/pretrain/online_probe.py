"""How well do embeddings tell diagnoses apart? Asked every few epochs, because the loss does not rank checkpoints.

A ridge regression to each label, on embeddings of some of the corpus' training ECGs, is scored by its AUC on ECGs of
the corpus' validation patients. Labels are each source's own codes, so a source is a problem of its own. Scored on some
dozens of ECGs, as in the demo, it tells trained from random, but not one late checkpoint from another. The probes that
count, with intervals and on records that no pretraining has seen, are those of `pipelines.evaluate`.

Shapes: N records to fit on, M records to score, L leads, T samples, D channels, K principal axes, C labels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecg_model.encoder import Encoder
from pipelines.corpus.index import CorpusIndex, rows_by_shard
from pipelines.formats.shard import open_shard, read_rows
from pipelines.pretrain.data import to_millivolt
from pipelines.pretrain.monitor import eval_mode
from pipelines.tasks.splits import patients

log = logging.getLogger(__name__)

FIT_RECORDS, SCORED_RECORDS = 2048, 1024
# A label counts where each part has as many ECGs with it, and as many without. Three to score are few for one label;
# the mean over more labels is the steadier figure all the same, and a full sample has more: its parts are 2 to 1.
FIT_LEAST, SCORED_LEAST = 10, 3
BATCH = 64
# Over the number of records: from hardly any to where an average direction keeps a tenth.
PENALTIES = tuple(10 ** (exponent / 2) for exponent in range(-8, 3))

_SEED = 0  # of the sample: the same for all recipes, so that their curves compare
_CONSTANT = 1e-6  # spread over mean: a channel with less is constant to float32's precision


@dataclass(frozen=True, kw_only=True)
class RidgeProblem:
    """A source's labels. fit, scored: its ECGs, as rows of the probe's signals; fit_NC, scored_MC: bool, who has which.

    names: of the labels, `source/code`.
    """

    names: tuple[str, ...]
    fit: NDArray[np.int64]
    scored: NDArray[np.int64]
    fit_NC: Tensor
    scored_MC: Tensor


class OnlineProbe:
    """A fixed set of labelled ECGs that encoders are scored on: at most FIT_RECORDS to fit, SCORED_RECORDS to score.

    signal_NLT: int16 microvolt, on the device where encoders will be.
    """

    def __init__(self, signal_NLT: Tensor, problems: Sequence[RidgeProblem]) -> None:
        self.signal_NLT, self.problems = signal_NLT, tuple(problems)

    @classmethod
    def load(cls, workspace_root: Path, corpus_dir: Path, device: torch.device) -> OnlineProbe | None:
        """Drawn from a corpus product with a seed of its own, one ECG of a patient, each labelled source its equal
        share; None where no label has enough ECGs.

        Fitted are ECGs of the split `train`, scored those of `validation`: the corpus splits by patient. Raises
        ValueError where a shard of the corpus has gone.
        """
        corpus = CorpusIndex(corpus_dir)
        folders, index = corpus.shard_folders(workspace_root), corpus.table()
        index = index.append_column("labels", _labels(index, folders))
        problems = _problems(index)
        if not problems:
            log.info(
                "no online probe: no label has %d training and %d validation ECGs with it, and as many without",
                *(FIT_LEAST, SCORED_LEAST),
            )
            return None
        used = np.unique(np.concatenate([rows for problem in problems for rows in (problem.fit, problem.scored)]))
        signal_NLT = torch.from_numpy(_signals(index.take(used), folders)).to(device)
        probe = cls(
            signal_NLT,
            [replace(p, fit=np.searchsorted(used, p.fit), scored=np.searchsorted(used, p.scored)) for p in problems],
        )
        fitted, scored = (sum(map(len, rows)) for rows in zip(*((p.fit, p.scored) for p in problems), strict=True))
        log.info("online probe: %d labels, fitted on %d ECGs, scored on %d", len(probe.names), fitted, scored)
        return probe

    @property
    def names(self) -> tuple[str, ...]:
        """The labels, `source/code`."""
        return tuple(name for problem in self.problems for name in problem.names)

    def score(self, encoder: Encoder, autocast: torch.autocast) -> dict[str, float]:
        """probe_auc: the mean over labels; probe_labels: how many. The AUC is NaN where an embedding is not finite.

        Draws nothing from a global generator and leaves the encoder in the mode it was in.
        """
        embedding_ND = self._embeddings(encoder, autocast)
        figures = {"probe_auc": float("nan"), "probe_labels": float(len(self.names))}
        if torch.isfinite(embedding_ND).all():
            areas = [
                auc(problem.scored_MC, ridge(embedding_ND[problem.fit], problem.fit_NC, embedding_ND[problem.scored]))
                for problem in self.problems
            ]
            figures["probe_auc"] = torch.cat(areas).mean().item()
        return figures

    @torch.no_grad()
    def _embeddings(self, encoder: Encoder, autocast: torch.autocast) -> Tensor:
        """float64 (N, D) on the CPU: so little algebra follows that its bits had better not depend on the device."""
        rows_N, device = np.arange(len(self.signal_NLT)), self.signal_NLT.device
        with eval_mode(encoder), autocast:
            batches = [
                encoder.embed(to_millivolt(self.signal_NLT, rows_N[first : first + BATCH], device)).float()
                for first in range(0, len(rows_N), BATCH)
            ]
        return torch.cat(batches).cpu().double()


def ridge(x_ND: Tensor, y_NC: Tensor, x_MD: Tensor, penalties: Sequence[float] = PENALTIES) -> Tensor:
    """float64 (M, C): what ridge regressions from x_ND to y_NC (0 or 1) predict for x_MD, each with its best penalty.

    Features are standardised by x_ND. Of the penalties, given over N, each label takes the one of the smallest mean
    squared error when each record is left out in turn, which the leverages h give without fitting again:
    e = (y - prediction) / (1 - h) (Golub, Heath and Wahba, Technometrics 21, 1979, equation 1.4). An intercept is
    fitted and not penalised.
    """
    x_ND, x_MD, y_NC = x_ND.double(), x_MD.double(), y_NC.double()
    mean_D, spread_D, records = x_ND.mean(dim=0), x_ND.std(dim=0, correction=0), len(x_ND)
    spread_D = torch.where(spread_D > _CONSTANT * mean_D.abs(), spread_D, torch.inf)
    z_ND, z_MD = (x_ND - mean_D) / spread_D, (x_MD - mean_D) / spread_D
    mean_C = y_NC.mean(dim=0)
    variance_K, axes_DK = torch.linalg.eigh(z_ND.T @ z_ND)
    z_NK = z_ND @ axes_DK
    moment_KC = z_NK.T @ (y_NC - mean_C)
    weights, errors = [], []
    for penalty in penalties:
        shrunk_K = 1 / (variance_K.clamp_min(0.0) + penalty * records)
        weight_KC = shrunk_K[:, None] * moment_KC
        leverage_N = 1 / records + z_NK.square() @ shrunk_K
        left_out_NC = (y_NC - mean_C - z_NK @ weight_KC) / (1 - leverage_N)[:, None]
        weights.append(weight_KC)
        errors.append(left_out_NC.square().mean(dim=0))
    best_C = torch.stack(errors).argmin(dim=0)
    weight_KC = torch.stack(weights)[best_C, :, torch.arange(len(best_C))].T
    return z_MD @ axes_DK @ weight_KC + mean_C


def auc(y_NC: Tensor, score_NC: Tensor) -> Tensor:
    """Area under the ROC curve of each label, (C,): the Mann-Whitney statistic from mid-ranks, so ties count half.

    y_NC is bool; each label needs an ECG with it and one without.
    """
    score_CN = score_NC.T.contiguous()
    sorted_CN = score_CN.sort(dim=1).values
    below_CN = torch.searchsorted(sorted_CN, score_CN)
    not_above_CN = torch.searchsorted(sorted_CN, score_CN, right=True)
    rank_NC = (below_CN + not_above_CN + 1).T.double() / 2
    positives_C = y_NC.sum(dim=0).double()
    rank_sum_C = (rank_NC * y_NC).sum(dim=0)
    return (rank_sum_C - positives_C * (positives_C + 1) / 2) / (positives_C * (len(y_NC) - positives_C))


def _labels(index: pa.Table, folders: Mapping[str, Path]) -> pa.ChunkedArray:
    """The raw codes of each row of the index, lists of strings."""
    found = [open_shard(folders[shard]).records()["labels"].take(rows) for shard, rows in rows_by_shard(index)]
    return pa.chunked_array(chunk for column in found for chunk in column.chunks)


def _signals(index: pa.Table, folders: Mapping[str, Path]) -> NDArray[np.int16]:
    """int16 (N, 8, 2500), microvolt: the ECGs that the rows of an index name."""
    return read_rows([(folders[shard], rows) for shard, rows in rows_by_shard(index)])


def _problems(index: pa.Table) -> list[RidgeProblem]:
    """One for each source with a label that both parts have enough of; rows are those of the index."""
    source_N, split_N, person_N = (
        np.asarray(values) for values in (index["source"].to_pylist(), index["split"].to_pylist(), patients(index))
    )
    codes_N: list[list[str]] = index["labels"].to_pylist()
    labelled = sorted({source for source, codes in zip(source_N.tolist(), codes_N, strict=True) if codes})

    def sample(source: str, split: str, limit: int) -> NDArray[np.int64]:
        rows = np.flatnonzero((source_N == source) & (split_N == split))
        return rows[one_of_each(person_N[rows], limit // len(labelled))]

    found = (
        _problem(source, sample(source, "train", FIT_RECORDS), sample(source, "validation", SCORED_RECORDS), codes_N)
        for source in labelled
    )
    return [problem for problem in found if problem.names]


def _problem(
    source: str, fit: NDArray[np.int64], scored: NDArray[np.int64], codes_N: Sequence[Sequence[str]]
) -> RidgeProblem:
    """The labels of a source that both parts have enough of: maybe none."""
    fitted, seen = ([codes_N[int(row)] for row in rows] for rows in (fit, scored))
    codes = sorted({code for found in fitted for code in found})
    fit_NC, scored_MC = _has(codes, fitted), _has(codes, seen)
    usable = np.flatnonzero(_enough(fit_NC, FIT_LEAST) & _enough(scored_MC, SCORED_LEAST))
    return RidgeProblem(
        names=tuple(f"{source}/{codes[column]}" for column in usable),
        fit=fit,
        scored=scored,
        fit_NC=torch.from_numpy(fit_NC[:, usable]),
        scored_MC=torch.from_numpy(scored_MC[:, usable]),
    )


def one_of_each(person_N: NDArray[np.str_], limit: int) -> NDArray[np.int64]:
    """Ascending places of at most `limit` records, drawn at random, no two of one person.

    Otherwise a record that is left out would be predicted from others of its patient.
    """
    order_N = np.random.default_rng(_SEED).permutation(len(person_N))
    _, first = np.unique(person_N[order_N], return_index=True)
    return np.sort(order_N[np.sort(first)[:limit]])


def _has(codes: Sequence[str], codes_N: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
    """bool (N, C): which records have which code."""
    column = {code: number for number, code in enumerate(codes)}
    has_NC = np.zeros((len(codes_N), len(codes)), dtype=bool)
    for row, found in enumerate(codes_N):
        has_NC[row, [column[code] for code in found if code in column]] = True
    return has_NC


def _enough(has_NC: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """bool (C,): whether a label has that many records with it and as many without."""
    with_it_C = has_NC.sum(axis=0)
    return (with_it_C >= least) & (len(has_NC) - with_it_C >= least)
