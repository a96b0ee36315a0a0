"""A physiological 12-lead ECG simulator with exact truth, and mirrors of the sources filled with its ECGs.

`simulate` makes one ECG; `write_mirror` and `ensure_mirror` make a mirror in the native layouts of the real sources.
"""

from pipelines.sources.simulated.diagnosis import Diagnosis
from pipelines.sources.simulated.heart import SimulatedECG, simulate
from pipelines.sources.simulated.mirror import MirrorSizes, MirrorSummary, ensure_mirror, write_mirror
from pipelines.sources.simulated.rhythm import Beat
from pipelines.sources.simulated.tree import Defect

__all__ = [
    "Beat",
    "Defect",
    "Diagnosis",
    "MirrorSizes",
    "MirrorSummary",
    "SimulatedECG",
    "ensure_mirror",
    "simulate",
    "write_mirror",
]
