"""Settings of pseudo-labels and of segmentation. No torch: the launchpad's forms are made from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.evaluate.statistics.bootstrap import Bootstrap
from pipelines.formats.shard import LEADS
from pipelines.hashing import digest_of

Mode = Literal["frozen", "fine_tuned"]


@dataclass(frozen=True, kw_only=True)
class PseudoConfig:
    """Which ECGs and leads neurokit2 delineates, at about 30 ms per lead."""

    leads: tuple[str, ...] = ("II",)
    """Some of the eight leads, in the store's order."""
    share: float = field(default=0.2, metadata={"gt": 0, "le": 1})
    """Share of the ECGs that neurokit2 delineates if nobody has drawn boundaries, chosen by a hash of the record's id.
    A fifth of PTB-XL is 4,400 ECGs."""
    processes: int | None = field(default=None, metadata={"ge": 1})
    """Processes of this machine; the result does not depend on them. None: one per core."""

    def __post_init__(self) -> None:
        in_order = tuple(lead for lead in LEADS if lead in self.leads)
        if not self.leads or self.leads != in_order:
            raise ValueError(f"leads={self.leads}: use some of {', '.join(LEADS)}, in this order, each once")
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share}: use a share above 0 and at most 1")
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"processes={self.processes}: use at least 1, or None for one per core")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that the waves depend on, as JSON values."""
        return {"leads": list(self.leads), "share": self.share}

    def draws(self, record_id: str) -> bool:
        """Whether this record belongs to the share that is delineated."""
        return int(digest_of(record_id)[:12], 16) < self.share * 16**12


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """How the segmentation map is trained, and with `fine_tuned` the encoder: AdamW, and a cosine schedule to zero."""

    mode: Mode = "frozen"
    """`frozen` trains the map alone, `fine_tuned` the encoder too."""
    contexts: tuple[int, ...] = (0, 1)
    """How many neighbours of a token on each side the map sees (if tokens are of all leads together, how many stretches
    of 200 ms); each is tried, and validation chooses."""
    steps: int = field(default=1200, metadata={"ge": 1})
    """Steps of each training."""
    batch: int = field(default=4, metadata={"ge": 1})
    """Records per step."""
    lr: float = field(default=3e-3, metadata={"gt": 0, "lt": 1})
    """Learning rate of the map."""
    encoder_lr: float = field(default=0.1, metadata={"gt": 0, "lt": 1})
    """Learning rate of the encoder times its width: Adam's best rate falls with the width (Yang et al., arXiv
    2203.03466)."""
    weight_decay: float = 0.01
    """Of AdamW."""
    checks: int = field(default=12, metadata={"ge": 1})
    """How often in `steps` the validation split is scored; the weights of the best check are used."""
    min_patients: int = field(default=5, metadata={"ge": 1})
    """A split with fewer patients is not scored."""
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    """Resamples and level of the intervals."""
    seed: int = 0
    """Seed of the initial weights and of the order of records."""

    def __post_init__(self) -> None:
        if self.mode not in ("frozen", "fine_tuned"):
            raise ValueError(f"mode={self.mode!r}: use 'frozen' or 'fine_tuned'")
        if not self.contexts or min(self.contexts) < 0:
            raise ValueError(f"contexts={self.contexts}: give numbers of neighbours, 0 for none")
        for name in ("steps", "batch", "checks", "min_patients"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: use at least 1")
        for name in ("lr", "encoder_lr"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: use a rate between 0 and 1")


FROZEN = SegmentationConfig()
FINE_TUNED = SegmentationConfig(mode="fine_tuned", contexts=(1,))
