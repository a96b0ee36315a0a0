"""The online probe: how well embeddings distinguish diagnoses, measured during training.

The loss does not rank checkpoints, so every few epochs a ridge regression to each label is fitted on embeddings of some
training ECGs and scored by its AUC on ECGs of validation patients. Labels are each source's codes, so each source is a
separate problem. Scored on some dozens of ECGs, as in the demo, the probe distinguishes a trained encoder from a random
one, but not one late checkpoint from another. The results that count, with intervals and on records outside the
pretraining data, come from the probes of `pipelines.evaluate`.

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

from ecg_model.ecg_encoder import ECGEncoder
from pipelines.corpus.index import CorpusIndex, rows_by_shard
from pipelines.formats.shard import open_shard, read_rows
from pipelines.pretrain.data import to_millivolt
from pipelines.pretrain.monitor import eval_mode
from pipelines.tasks.splits import patients

log = logging.getLogger(__name__)

FIT_RECORDS, SCORED_RECORDS = 2048, 1024  # ECGs of all sources together, at most
# A label counts if each part has at least so many ECGs with it, and so many without. Three scored ECGs are few for one
# label; the mean over more labels is still the steadier figure. A full sample, with parts of 2 to 1, has more anyway.
FIT_LEAST, SCORED_LEAST = 10, 3
BATCH = 64
# Divided by the number of records: from almost none to a penalty that shrinks an average direction to a tenth.
PENALTIES = tuple(10 ** (exponent / 2) for exponent in range(-8, 3))

_SEED = 0  # of the sample: the same for all recipes, so that their curves can be compared
_CONSTANT = 1e-6  # spread over mean: a channel with less is constant in float32's precision


@dataclass(frozen=True, kw_only=True)
class RidgeProblem:
    """The labels of one source, with the ECGs to fit on and to score."""

    names: tuple[str, ...]  # of the labels, `source/code`
    fit: NDArray[np.int64]  # (N,): ECGs to fit on, as rows of the probe's signals
    scored: NDArray[np.int64]  # (M,): ECGs to score
    fit_NC: Tensor  # bool: which ECG has which label
    scored_MC: Tensor  # bool


class OnlineProbe:
    """A fixed set of labelled ECGs for scoring encoders: at most FIT_RECORDS to fit on and SCORED_RECORDS to score."""

    def __init__(self, signal_NLT: Tensor, problems: Sequence[RidgeProblem]) -> None:
        """Take int16 (N, L, T), microvolt, on the device of the encoders, and the problems on them."""
        self.signal_NLT, self.problems = signal_NLT, tuple(problems)

    @classmethod
    def load(cls, workspace_root: Path, corpus_dir: Path, device: torch.device) -> OnlineProbe | None:
        """Draw the ECGs from a corpus product: one ECG of a patient, and an equal share for each labelled source.

        The probe is fitted on ECGs of the split `train` and scored on `validation`; the corpus splits by patient.
        Returns None if no label has enough ECGs. Raises ValueError if a shard of the corpus is missing.
        """
        corpus = CorpusIndex(corpus_dir)
        folders, index = corpus.shard_folders(workspace_root), corpus.table()
        index = index.append_column("labels", _labels(index, folders))
        problems = _problems(index)
        if not problems:
            log.info(
                "no online probe: no label has %d training and %d validation ECGs with it, and as many without",
                FIT_LEAST,
                SCORED_LEAST,
            )
            return None
        used = np.unique(np.concatenate([rows for problem in problems for rows in (problem.fit, problem.scored)]))
        signal_NLT = torch.from_numpy(_signals(index.take(used), folders)).to(device)
        probe = cls(
            signal_NLT,
            [replace(p, fit=np.searchsorted(used, p.fit), scored=np.searchsorted(used, p.scored)) for p in problems],
        )
        fitted, scored = sum(len(p.fit) for p in problems), sum(len(p.scored) for p in problems)
        log.info("online probe: %d labels, fitted on %d ECGs, scored on %d", len(probe.names), fitted, scored)
        return probe

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all labels, `source/code`."""
        return tuple(name for problem in self.problems for name in problem.names)

    def score(self, encoder: ECGEncoder, autocast: torch.autocast) -> dict[str, float]:
        """Return probe_auc, the mean AUC over labels, and probe_labels, their number.

        The AUC is NaN if an embedding is not finite.

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
    def _embeddings(self, encoder: ECGEncoder, autocast: torch.autocast) -> Tensor:
        """Return float64 (N, D) on the CPU, where the little algebra that follows has the same bits for all devices."""
        rows_N, device = np.arange(len(self.signal_NLT)), self.signal_NLT.device
        with eval_mode(encoder), autocast:
            batches = [
                encoder.embed(to_millivolt(self.signal_NLT, rows_N[first : first + BATCH], device)).float()
                for first in range(0, len(rows_N), BATCH)
            ]
        return torch.cat(batches).cpu().double()


def ridge(x_ND: Tensor, y_NC: Tensor, x_MD: Tensor, penalties: Sequence[float] = PENALTIES) -> Tensor:
    """Return float64 (M, C): the predictions for x_MD of ridge regressions from x_ND to y_NC (0 or 1).

    Features are standardised by mean and spread of x_ND; an intercept is fitted and not penalised. Penalties are
    divided by N. Each label takes the penalty with the smallest mean squared leave-one-out error, which follows from
    the leverages h without fitting again: e = (y - prediction) / (1 - h) (Golub, Heath and Wahba, Technometrics 21,
    1979, equation 1.4).
    """
    x_ND, x_MD, y_NC = x_ND.double(), x_MD.double(), y_NC.double()
    mean_D, spread_D, records = x_ND.mean(dim=0), x_ND.std(dim=0, correction=0), len(x_ND)
    spread_D = torch.where(spread_D > _CONSTANT * mean_D.abs(), spread_D, torch.inf)
    z_ND, z_MD = (x_ND - mean_D) / spread_D, (x_MD - mean_D) / spread_D
    mean_C = y_NC.mean(dim=0)
    # In the principal axes a ridge regression is one factor per axis, for all penalties and labels.
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
    # Each label's weights at its best penalty, turned back from principal axes to features by axes_DK.
    best_C = torch.stack(errors).argmin(dim=0)
    weight_KC = torch.stack(weights)[best_C, :, torch.arange(len(best_C))].T
    return z_MD @ axes_DK @ weight_KC + mean_C


def auc(y_NC: Tensor, score_NC: Tensor) -> Tensor:
    """Return the area under the ROC curve of each label, float64 (C,).

    It is the Mann-Whitney statistic from mid-ranks, so ties count half. y_NC is bool; each label needs an ECG with it
    and one without.
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
    """Return the raw codes of each row of the index, lists of strings."""
    columns = [open_shard(folders[shard]).records()["labels"].take(rows) for shard, rows in rows_by_shard(index)]
    return pa.chunked_array(chunk for column in columns for chunk in column.chunks)


def _signals(index: pa.Table, folders: Mapping[str, Path]) -> NDArray[np.int16]:
    """Return int16 (N, 8, 2500), microvolt: the ECGs that the rows of an index name."""
    return read_rows([(folders[shard], rows) for shard, rows in rows_by_shard(index)])


def _problems(index: pa.Table) -> list[RidgeProblem]:
    """Return a problem for each source with a label that has enough ECGs in both parts; rows are those of the index."""
    source_N, split_N, person_N = (
        np.asarray(values) for values in (index["source"].to_pylist(), index["split"].to_pylist(), patients(index))
    )
    codes_N: list[list[str]] = index["labels"].to_pylist()
    labelled = sorted({source for source, codes in zip(source_N.tolist(), codes_N, strict=True) if codes})

    def sample(source: str, split: str, limit: int) -> NDArray[np.int64]:
        rows = np.flatnonzero((source_N == source) & (split_N == split))
        return rows[one_of_each(person_N[rows], limit // len(labelled))]

    problems = (
        _problem(source, sample(source, "train", FIT_RECORDS), sample(source, "validation", SCORED_RECORDS), codes_N)
        for source in labelled
    )
    return [problem for problem in problems if problem.names]


def _problem(
    source: str, fit: NDArray[np.int64], scored: NDArray[np.int64], codes_N: Sequence[Sequence[str]]
) -> RidgeProblem:
    """Return the problem of a source with the labels that have enough ECGs in both parts, possibly none."""
    fit_codes_N, scored_codes_M = ([codes_N[int(row)] for row in rows] for rows in (fit, scored))
    codes = sorted({code for record in fit_codes_N for code in record})
    fit_NC, scored_MC = _has(codes, fit_codes_N), _has(codes, scored_codes_M)
    usable = np.flatnonzero(_enough(fit_NC, FIT_LEAST) & _enough(scored_MC, SCORED_LEAST))
    return RidgeProblem(
        names=tuple(f"{source}/{codes[column]}" for column in usable),
        fit=fit,
        scored=scored,
        fit_NC=torch.from_numpy(fit_NC[:, usable]),
        scored_MC=torch.from_numpy(scored_MC[:, usable]),
    )


def one_of_each(person_N: NDArray[np.str_], limit: int) -> NDArray[np.int64]:
    """Return ascending places of at most `limit` records, drawn at random, no two of one person.

    With two of one person, a record that is left out would be predicted from the other.
    """
    order_N = np.random.default_rng(_SEED).permutation(len(person_N))
    _, first = np.unique(person_N[order_N], return_index=True)
    return np.sort(order_N[np.sort(first)[:limit]])


def _has(codes: Sequence[str], codes_N: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
    """Return bool (N, C): which records have which code."""
    column = {code: number for number, code in enumerate(codes)}
    has_NC = np.zeros((len(codes_N), len(codes)), dtype=bool)
    for row, record in enumerate(codes_N):
        has_NC[row, [column[code] for code in record if code in column]] = True
    return has_NC


def _enough(has_NC: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Return bool (C,): whether a label has at least so many records with it, and so many without."""
    with_it_C = has_NC.sum(axis=0)
    return (with_it_C >= least) & (len(has_NC) - with_it_C >= least)
