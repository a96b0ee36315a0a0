"""Features of an encoder that was registered with other code than this checkout's, by that code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ecg_model.ecg_encoder import ECGEncoder
from pipelines.evaluate.features import EncoderSource, Extract, FeatureConfig, OnProgress, Tokenize
from pipelines.formats.shard import MILLIVOLT

_CHECKOUT = "use a checkout of its own commit (its tag git_commit)"


class CannotAnswer(ValueError):
    """A registered encoder's own code does not do what it is asked for."""


@dataclass(frozen=True, kw_only=True)
class OwnCodeSource(EncoderSource):
    """A registered encoder that answers by the code that it was registered with.

    It has features, and tokens if that code has; its network cannot be trained further here.
    """

    file: str
    """The file's sha256; `digest` is of that and of the code."""
    own: Callable[[torch.device], Callable[[np.ndarray], np.ndarray]]
    """Starts the code on a device, and returns what embeds float32 ECGs (B, 8, 2500) in millivolt, (B, D)."""
    own_tokens: Callable[[torch.device], Callable[[np.ndarray], np.ndarray]]
    """The same for their tokens, (B, P, D); what it returns raises CannotAnswer if the code has none."""

    def extractor(self, config: FeatureConfig) -> Extract:
        """Start the code and return its embedding. Raises ValueError for what only the network itself can do."""
        self._require_plain(config)
        own_embed = self.own(config.torch_device)

        def extract(signal_NLT: np.ndarray, progress: OnProgress | None) -> np.ndarray:
            parts: list[np.ndarray] = []
            for first in range(0, len(signal_NLT), config.batch):
                x_BLT = signal_NLT[first : first + config.batch].astype(np.float32) * np.float32(MILLIVOLT)
                parts.append(np.asarray(own_embed(x_BLT), np.float32))
                if progress is not None:
                    progress(first + len(x_BLT), len(signal_NLT))
            feature_ND = np.concatenate(parts) if parts else np.zeros((0, self.config.dim), np.float32)
            self._require_finite(feature_ND)
            return feature_ND

        return extract

    def tokenizer(self, config: FeatureConfig) -> Tokenize:
        """Start the code and return its tokens. Raises ValueError as `extractor` does."""
        self._require_plain(config)
        own_tokens = self.own_tokens(config.torch_device)

        def tokenize(x_BLT: torch.Tensor) -> torch.Tensor:
            token_BPD = own_tokens(x_BLT.cpu().numpy())
            self._require_finite(token_BPD)
            return torch.from_numpy(token_BPD)

        return tokenize

    def _require_plain(self, config: FeatureConfig) -> None:
        """Raise ValueError for what only the network itself can do."""
        if config.leads is not None or config.precision != "fp32":
            raise self._refusal(
                f"it embeds 8 leads in fp32, not leads={config.leads}, precision={config.precision!r}: leave both out, "
                f"or {_CHECKOUT}"
            )

    def _require_finite(self, answer_N: np.ndarray) -> None:
        """Raise ValueError if not all answers, a row an ECG, are finite."""
        refused = sum(not np.isfinite(row).all() for row in answer_N)
        if refused:
            raise ValueError(
                f"{self._other_code()}: {refused} of {len(answer_N)} answers of that code are not finite, so it "
                "refuses these ECGs, or its weights have diverged: evaluate another version, or pretrain from this "
                "one's weights (warm_start) and register what comes of it"
            )

    def loaded(self) -> ECGEncoder:
        """Raise ValueError: this checkout's network is not the one that was registered."""
        raise self._refusal(f"its network cannot be run here: use a frozen head, or {_CHECKOUT}")

    def _refusal(self, why: str) -> CannotAnswer:
        return CannotAnswer(f"{self._other_code()}: {why}")

    def _other_code(self) -> str:
        return f"encoder {self.name!r} was registered with other code than this checkout's"
