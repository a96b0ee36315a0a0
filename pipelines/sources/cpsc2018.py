"""CPSC2018: 6,877 ECGs of 6 to 144 s at 500 Hz with nine diagnoses, in `challenge-2020` 1.0.2.

Record n lies in g<n // 1000 + 1>. Each folder's RECORDS names one record of the next folder, so it is not used.
"""

from __future__ import annotations

from pipelines.sources.challenge import CHALLENGE, challenge_2020

CPSC2018 = challenge_2020(
    name="cpsc2018",
    title="China Physiological Signal Challenge 2018",
    folder="cpsc_2018",
    groups=7,
    size=1_300_000_000,
    citation=(
        "Liu F, Liu C, Zhao L, et al. An open access database for evaluating the algorithms of electrocardiogram "
        "rhythm and morphology abnormality detection. J Med Imaging Health Inform 2018;8(7):1368-1373. "
        f"doi:10.1166/jmihi.2018.2442. {CHALLENGE}"
    ),
)
