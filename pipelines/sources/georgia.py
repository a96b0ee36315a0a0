"""Georgia 12-lead ECG Challenge database: 10,344 ECGs of 5 to 10 s at 500 Hz, in `challenge-2020` 1.0.2."""

from __future__ import annotations

from pipelines.sources.challenge import challenge_2020

GEORGIA = challenge_2020(
    name="georgia",
    title="Georgia 12-lead ECG Challenge database",
    folder="georgia",
    groups=11,
    size=1_250_000_000,
)
