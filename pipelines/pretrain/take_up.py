"""Take up the folder of a training, `python -m pipelines.pretrain --out DIR`, as the product `encoder`.

The product has the fingerprint that the asset `encoder` gives to the same recipe and corpus, so that it is found by
whoever asks for that training. The folder is read only.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from ecg_model.encoder_file import load_encoder
from pipelines.cache import Product, Workspace
from pipelines.corpus.step import CorpusFacts, corpus_of
from pipelines.encoders.names import ENCODER_FILE, OURS
from pipelines.formats.limits import require_size
from pipelines.hashing import sha256_of_file
from pipelines.pretrain.recipes import Recipe
from pipelines.pretrain.step import (
    CHECKPOINTS,
    METRICS_FILE,
    SUMMARY_FILE,
    SUMS_FILE,
    TIMING_FILE,
    EncoderFacts,
    build_encoder,
    made_of,
)

_MOST = 1 << 20  # bytes of summary.json and of sha256sums
_LINE = re.compile(r"([0-9a-f]{64})  ((?:aside/)?[a-z]+\.[a-z]+)")
_BESIDE = (TIMING_FILE, f"{METRICS_FILE}.mlflow.json")
"""Files that are taken along as they are, if they are there."""


def take_up(workspace: Workspace, folder: Path) -> Product:
    """Build the product `encoder` from the folder of a finished training, by copies. Facts: `EncoderFacts`.

    Raises ValueError if the training has not ended, if a file is not as the training wrote it, if the corpus that it
    was trained on is not here, and if the same training is here with other weights.
    """
    sums = _sums(folder)
    facts, recipe = _summary(folder)
    corpus = _corpus(workspace, folder, facts)
    if facts.steps != recipe.total_steps(facts.records):
        raise ValueError(
            f"{folder}: {facts.steps} of {recipe.total_steps(facts.records)} steps are done: {_again(folder)}"
        )

    def fill(work: Path) -> None:
        (work / METRICS_FILE).parent.mkdir(exist_ok=True)
        for name in _BESIDE:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, work / name)
        shutil.copyfile(folder / SUMS_FILE, work / SUMS_FILE)
        for name, digest in sums.items():
            shutil.copyfile(folder / name, work / name)
            if sha256_of_file(work / name) != digest:
                raise ValueError(_changed(folder, name))
        if load_encoder(work / ENCODER_FILE).config != recipe.encoder:
            raise ValueError(f"{folder}: {ENCODER_FILE} is another network than {SUMMARY_FILE} says: {_again(folder)}")

    known = workspace.find(OURS.product, **made_of(recipe, corpus))
    if known is not None:
        _require_same(known, folder, sums)
    made = build_encoder(workspace, recipe, corpus, fill)
    if made.cached:  # another process has built it meanwhile
        _require_same(made, folder, sums)
    return made


def _sums(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file of a training, compared with what the training wrote of it."""
    if not (folder / SUMMARY_FILE).is_file():
        if any((folder / CHECKPOINTS).glob("step-*")):
            raise ValueError(f"{folder}: the training has not ended: {_again(folder)}")
        raise ValueError(
            f"{folder}: there is no training in it: give the folder that `python -m pipelines.pretrain --out` named"
        )
    if not (folder / SUMS_FILE).is_file():
        raise ValueError(f"{folder}: {SUMS_FILE} is not there, so the files cannot be compared: {_again(folder)}")
    require_size(folder / SUMS_FILE, _MOST, "a list of digests", "give the folder of a training")
    lines = [_LINE.fullmatch(line) for line in (folder / SUMS_FILE).read_text(errors="replace").splitlines()]
    sums = {line[2]: line[1] for line in lines if line is not None}
    needed = {ENCODER_FILE, SUMMARY_FILE, METRICS_FILE}
    if None in lines or not needed <= sums.keys():
        raise ValueError(_changed(folder, SUMS_FILE))
    for name, digest in sums.items():
        if not (folder / name).is_file() or sha256_of_file(folder / name) != digest:
            raise ValueError(_changed(folder, name))
    return sums


def _summary(folder: Path) -> tuple[EncoderFacts, Recipe]:
    """Return the summary of a training, and its recipe. Raises ValueError if this version cannot use them."""
    require_size(folder / SUMMARY_FILE, _MOST, "a summary", "give the folder of a training")
    try:
        facts = EncoderFacts.from_dict(json.loads((folder / SUMMARY_FILE).read_text()))
        return facts, Recipe.from_dict(facts.recipe)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder}: {SUMMARY_FILE} is not one that this version writes ({error})") from error


def _corpus(workspace: Workspace, folder: Path, facts: EncoderFacts) -> Product:
    """Return the corpus of a training. Raises ValueError if it is not here."""
    corpus = corpus_of(workspace, facts.corpus_digest)
    if corpus is None:
        current = workspace.current("corpus")
        here = "there is none" if current is None else f"the current one is {CorpusFacts.of(current).digest[:12]}"
        raise ValueError(
            f"{folder}: it was trained on the corpus {str(facts.corpus_digest)[:12]}, which is not in {workspace.root} "
            f"({here}): make the same one by `ecg run harmonize corpus` with the same ECGs and settings, or train on "
            "the corpus that is here"
        )
    return corpus


def _require_same(encoder: Product, folder: Path, sums: dict[str, str]) -> None:
    """Raise ValueError if the encoder of this recipe and corpus that is here has other weights than the folder's."""
    if sha256_of_file(encoder.path / ENCODER_FILE) != sums[ENCODER_FILE]:
        raise ValueError(
            f"{folder}: an encoder of this recipe and corpus is here already, {encoder.path}, with other weights (the "
            "last bits differ between devices): it stays. To have both, train with another `--set name=NAME`; to "
            f"compare them: `ecg compare {folder / ENCODER_FILE} {encoder.path / ENCODER_FILE}`"
        )


def _changed(folder: Path, name: str) -> str:
    return f"{folder}: {name} is not as the training wrote it: {_again(folder)}"


def _again(folder: Path) -> str:
    return (
        f"give the training's command again, with --out {folder}: it goes on from its last checkpoint and writes what "
        "is missing"
    )
