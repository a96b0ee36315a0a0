"""A physiological 12-lead ECG simulator with exact truth, and mirrors of the sources filled with its ECGs.

`simulate` makes one ECG; `write_mirror` and `ensure_mirror` make a mirror in the native layouts of the real sources.
"""

from pipelines.simulate.diagnosis import Diagnosis
from pipelines.simulate.mirror import MirrorSizes, MirrorSummary, ensure_mirror, write_mirror
from pipelines.simulate.mirror_tree import Defect
from pipelines.simulate.rhythm import Beat
from pipelines.simulate.simulator import SimulatedECG, simulate

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
