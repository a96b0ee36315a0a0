"""The diagnoses of simulated ECGs: which can occur together, how often, and each source's codes for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np


class Diagnosis(StrEnum):
    """A diagnosis that the simulator can draw."""

    NORMAL = "normal"
    SINUS_BRADYCARDIA = "sinus bradycardia"
    SINUS_TACHYCARDIA = "sinus tachycardia"
    ATRIAL_FIBRILLATION = "atrial fibrillation"
    FIRST_DEGREE_BLOCK = "first-degree AV block"
    LBBB = "left bundle branch block"
    RBBB = "right bundle branch block"
    ANTERIOR_INFARCTION = "anterior infarction"
    INFERIOR_INFARCTION = "inferior infarction"
    ST_T_CHANGE = "ST-T change"
    HYPERTROPHY = "left ventricular hypertrophy"
    ATRIAL_PREMATURE = "premature atrial beats"
    VENTRICULAR_PREMATURE = "premature ventricular beats"


RHYTHMS = (Diagnosis.SINUS_BRADYCARDIA, Diagnosis.SINUS_TACHYCARDIA, Diagnosis.ATRIAL_FIBRILLATION)
INFARCTIONS = (Diagnosis.ANTERIOR_INFARCTION, Diagnosis.INFERIOR_INFARCTION)


@dataclass(frozen=True, kw_only=True)
class Codes:
    """A diagnosis in the vocabularies of the sources; None if the source has no code for it."""

    snomed: str  # SNOMED CT, in ecg-arrhythmia and Georgia
    cpsc: str | None = None  # one of the nine codes of CPSC2018
    scp: tuple[str, ...]  # PTB-XL's SCP-ECG codes, of which a record gets one
    code15: str | None = None  # the column of CODE-15%
    ludb: str | None = None  # the line in LUDB's headers


CODES: dict[Diagnosis, Codes] = {
    Diagnosis.NORMAL: Codes(snomed="426783006", cpsc="426783006", scp=("NORM",), code15="normal_ecg"),
    Diagnosis.SINUS_BRADYCARDIA: Codes(snomed="426177001", scp=("SBRAD",), code15="SB"),
    Diagnosis.SINUS_TACHYCARDIA: Codes(snomed="427084000", scp=("STACH",), code15="ST"),
    Diagnosis.ATRIAL_FIBRILLATION: Codes(snomed="164889003", cpsc="164889003", scp=("AFIB",), code15="AF"),
    Diagnosis.FIRST_DEGREE_BLOCK: Codes(
        snomed="270492004", cpsc="270492004", scp=("1AVB",), code15="1dAVb", ludb="I degree AV block"
    ),
    Diagnosis.LBBB: Codes(
        snomed="164909002", cpsc="164909002", scp=("CLBBB",), code15="LBBB", ludb="Complete left bundle branch block"
    ),
    Diagnosis.RBBB: Codes(
        snomed="59118001", cpsc="59118001", scp=("CRBBB",), code15="RBBB", ludb="Complete right bundle branch block"
    ),
    Diagnosis.ANTERIOR_INFARCTION: Codes(
        snomed="164865005", cpsc="164931005", scp=("ASMI", "AMI", "ALMI"), ludb="STEMI: anterior wall"
    ),
    Diagnosis.INFERIOR_INFARCTION: Codes(
        snomed="164865005", cpsc="164931005", scp=("IMI", "ILMI"), ludb="STEMI: inferior wall"
    ),
    Diagnosis.ST_T_CHANGE: Codes(
        snomed="428750005", cpsc="429622005", scp=("NDT", "NST_", "ISC_", "ISCAL"), ludb="Ischemia: lateral wall"
    ),
    Diagnosis.HYPERTROPHY: Codes(snomed="164873001", scp=("LVH",), ludb="Left ventricular hypertrophy"),
    Diagnosis.ATRIAL_PREMATURE: Codes(
        snomed="284470004", cpsc="284470004", scp=("PAC",), ludb="Atrial extrasystole, type: single PAC"
    ),
    Diagnosis.VENTRICULAR_PREMATURE: Codes(
        snomed="17338001", cpsc="164884008", scp=("PVC",), ludb="Ventricular extrasystole, type: single PVC"
    ),
}

PREVALENCE: dict[Diagnosis, float] = {
    Diagnosis.NORMAL: 0.34,
    Diagnosis.SINUS_BRADYCARDIA: 0.06,
    Diagnosis.SINUS_TACHYCARDIA: 0.05,
    Diagnosis.ATRIAL_FIBRILLATION: 0.07,
    Diagnosis.FIRST_DEGREE_BLOCK: 0.05,
    Diagnosis.LBBB: 0.06,
    Diagnosis.RBBB: 0.07,
    Diagnosis.ANTERIOR_INFARCTION: 0.08,
    Diagnosis.INFERIOR_INFARCTION: 0.08,
    Diagnosis.ST_T_CHANGE: 0.08,
    Diagnosis.HYPERTROPHY: 0.08,
    Diagnosis.ATRIAL_PREMATURE: 0.03,
    Diagnosis.VENTRICULAR_PREMATURE: 0.03,
}
"""How often each diagnosis is the first of a record; a second one may be added (`draw_diagnoses`)."""

_SECOND_SHARE = 0.3


def conflict(first: Diagnosis, second: Diagnosis) -> str | None:
    """Return why two diagnoses cannot be in one record, or None if they can."""
    pair = {first, second}
    if Diagnosis.NORMAL in pair:
        return "a normal ECG has no other diagnosis"
    if pair <= set(RHYTHMS):
        return "a record has one rhythm"
    if pair == {Diagnosis.LBBB, Diagnosis.RBBB}:
        return "one bundle branch conducts"
    if Diagnosis.ATRIAL_FIBRILLATION in pair and pair & {Diagnosis.FIRST_DEGREE_BLOCK, Diagnosis.ATRIAL_PREMATURE}:
        return "fibrillating atria have no P wave"
    if Diagnosis.LBBB in pair and pair & {*INFARCTIONS, Diagnosis.ST_T_CHANGE, Diagnosis.HYPERTROPHY}:
        return "left bundle branch block hides infarction, ST-T change and hypertrophy"
    return None


def checked(diagnoses: Diagnosis | Sequence[Diagnosis]) -> tuple[Diagnosis, ...]:
    """Return the diagnoses in the enumeration's order. Raises ValueError if there is none, or if two conflict."""
    chosen = {diagnoses} if isinstance(diagnoses, Diagnosis) else {Diagnosis(d) for d in diagnoses}
    if not chosen:
        raise ValueError("diagnosis=(): name at least one, Diagnosis.NORMAL for a normal ECG")
    ordered = tuple(d for d in Diagnosis if d in chosen)
    for place, first in enumerate(ordered):
        for second in ordered[place + 1 :]:
            if (reason := conflict(first, second)) is not None:
                raise ValueError(f"diagnosis {first!s} with {second!s}: {reason}; remove one of them")
    return ordered


def draw_diagnoses(
    rng: np.random.Generator, prevalence: Mapping[Diagnosis, float] = PREVALENCE
) -> tuple[Diagnosis, ...]:
    """Draw one diagnosis by prevalence, and for three in ten abnormal ECGs a second one that can occur with it."""
    names = list(prevalence)
    share = np.array([prevalence[d] for d in names])
    first = names[rng.choice(len(names), p=share / share.sum())]
    others = [d for d in names if d is not first and conflict(first, d) is None]
    if others and rng.random() < _SECOND_SHARE:
        return checked((first, others[rng.integers(len(others))]))
    return (first,)
