"""A physiological 12-lead ECG simulator with exact truth, and mirrors of the sources filled with its ECGs.

    diagnosis.py  rhythm.py  morphology.py  noise.py   diagnoses, beat times, the waves of a beat, disturbances
    simulator.py                                       one ECG with its truth: `simulate`
    wfdb_writer.py                                     WFDB files as bytes
    physionet.py  ptbxl.py  code15.py                  the sources in their native layouts
    mirror_tree.py  mirror.py                          a mirror of all sources: `write_mirror`, `ensure_mirror`
    truth.py                                           the truth about a mirror's ECGs

The mirror is read by the same code as the real sources.
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
