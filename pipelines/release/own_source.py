"""A registered version as a source of features, by the code that it was registered with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.encoders.names import ENCODER_FILE
from pipelines.evaluate.features import EncoderSource
from pipelines.evaluate.own_code import OwnCodeSource
from pipelines.formats.shard import LEADS, RATE
from pipelines.hashing import digest_of
from pipelines.release.model import Release
from pipelines.release.own_code import other_code
from pipelines.release.own_process import OwnProcess
from pipelines.release.registry import model_folder
from pipelines.tracking import Tracking

HARMONIZED = {"sampling_rate": float(RATE), "leads": ",".join(LEADS)}
"""Parameters of a request with harmonized ECGs."""


def version_source(
    release: Release, folder: Path, *, tracking: Tracking, running: ExitStack, name: str = ENCODER_FILE
) -> EncoderSource:
    """Return a version's encoder: its weights in this checkout's network if it was registered with this code.

    Else what it answers from a process of its own: a classifier's features are then its probabilities.

    folder: an empty one for the version's files
    running: ends the process
    name: of its features

    Raises ValueError if a file is not the one that was released.
    """
    model = model_folder(release, tracking=tracking, into=folder)
    weights = EncoderSource.of_file(name, model / "artifacts" / ENCODER_FILE)
    code = other_code(model)
    if code is None:
        return weights

    @cache  # one process, for all that asks it
    def process(device: torch.device) -> OwnProcess:
        return running.enter_context(OwnProcess(model, called=release.model_uri, tracking=tracking, device=str(device)))

    def own(device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
        own_process = process(device)
        return lambda x_BLT: answered(own_process.predict(x_BLT, HARMONIZED))

    def own_tokens(device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
        own_process = process(device)
        return lambda x_BLT: own_process.tokens(x_BLT, HARMONIZED)

    return OwnCodeSource(
        name=name,
        digest=digest_of({"encoder": weights.digest, **release.weights, "code": code}),
        config=weights.config,
        load=weights.load,
        file=weights.digest,
        own=own,
        own_tokens=own_tokens,
    )


def answered(answer: Any) -> np.ndarray:
    """Return a model's answer as an array (B, D): embeddings, or the probabilities of a classifier's labels."""
    if isinstance(answer, list):  # for each record what it says of labels, and a text if it refuses the record
        answer = [[value for value in row.values() if not isinstance(value, str)] for row in answer]
    return np.asarray(answer)
