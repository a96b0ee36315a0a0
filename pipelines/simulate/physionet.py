"""The PhysioNet data sets in their native layouts, with simulated ECGs: ecg-arrhythmia, challenge-2020, ludb."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

import numpy as np

from ecg_model.leads import LEADS_12
from pipelines.simulate.diagnosis import CODES, PREVALENCE, RHYTHMS, Diagnosis, draw_diagnoses
from pipelines.simulate.mirror_tree import NOTICE, Defect, Tree, spread
from pipelines.simulate.simulator import SimulatedECG, simulate
from pipelines.simulate.wfdb_writer import INVALID, annotation_bytes, dat_bytes, digital, header, mat_bytes

CHAPMAN = "physionet.org/files/ecg-arrhythmia/1.0.0"
CHALLENGE = "physionet.org/files/challenge-2020/1.0.2"
LUDB = "physionet.org/files/ludb/1.0.1"

Tick = Callable[[], None]
"""Called once for each record written."""

# Part of the seeds, a number per source, so that no two sources share an ECG.
_CHAPMAN, _CPSC2018, _GEORGIA, _LUDB = range(4)

_CHAPMAN_DEFECTS = (
    Defect.FLAT_LEAD,
    Defect.MISSING_SAMPLES,
    Defect.TOO_SHORT,
    Defect.CHECKSUM_WRONG,
    Defect.MERGED_RECORD_LINE,
    Defect.EXACT_DUPLICATE,
    Defect.FLAT_LEAD,
    Defect.MISSING_SAMPLES,
    Defect.EXACT_DUPLICATE,
)
_CPSC2018_DEFECTS = (Defect.TOO_SHORT, Defect.CHECKSUM_WRONG, Defect.TOO_SHORT)
_GEORGIA_DEFECTS = (Defect.MISSING_SAMPLES,)

_SINUS_RHYTHM = CODES[Diagnosis.NORMAL].snomed
_CHAPMAN_NAMES = (
    ("1AVB", "1 degree atrioventricular block", "270492004"),
    ("APB", "atrial premature beats", "284470004"),
    ("LBBB", "left bundle branch block", "164909002"),
    ("LVH", "left ventricle hypertrophy", "164873001"),
    ("MI", "myocardial infarction", "164865005"),
    ("RBBB", "right bundle branch block", "59118001"),
    ("STTC", "ST-T Change", "428750005"),
    ("VPB", "ventricular premature beat", "17338001"),
    ("SB", "Sinus Bradycardia", "426177001"),
    ("SR", "Sinus Rhythm", "426783006"),
    ("AFIB", "Atrial Fibrillation", "164889003"),
    ("ST", "Sinus Tachycardia", "427084000"),
)


def write_chapman(tree: Tree, sizes: Sequence[int], seed: int, tick: Tick) -> None:
    """Write ecg-arrhythmia 1.0.0: folders of a hundred records, ten folders per partition, 10 s at 500 Hz."""
    defects = spread(_CHAPMAN_DEFECTS, sum(sizes))
    original = None
    index = 0
    for partition, size in enumerate(sizes, start=1):
        for place in range(size):
            number = 10 * partition + place // 100
            name = f"JS{(number - 10) * 100 + place % 100 + 1:05d}"
            folder = f"{CHAPMAN}/WFDBRecords/{partition:02d}/{number:03d}"
            ecg = simulate((seed, _CHAPMAN, index))
            x_LT = digital(ecg.signal_LT)
            # Exact duplicates are copies of the first record.
            original = x_LT if original is None else original
            defect = defects.get(index)
            x_LT = original if defect is Defect.EXACT_DUPLICATE else damaged(x_LT, defect)
            comments = [*_person(ecg), f"Dx: {','.join(_snomed(ecg))}", "Rx: Unknown", "Hx: Unknown", "Sx: Unknown"]
            text = header(
                name,
                x_LT,
                leads=LEADS_12,
                rate=500,
                file=f"{name}.mat",
                layout="16+24",
                gains=["1000/mV"] * 12,
                stamp="23-Mar-2021 20:20:47",
                comments=comments,
            )
            _write_record(tree, "chapman", folder, name, x_LT, text, defect)
            index += 1
            tick()
    _write_lists(tree, CHAPMAN)
    rows = ["AcronymName,FullName,Snomed_CT", *(",".join(row) for row in _CHAPMAN_NAMES)]
    tree.write(f"{CHAPMAN}/ConditionNames_SNOMED-CT.csv", "\ufeff" + _lines(rows))
    tree.write(f"{CHAPMAN}/LICENSE.txt", NOTICE)
    tree.records["chapman"] = index


def write_cpsc2018(tree: Tree, sizes: Sequence[int], seed: int, tick: Tick) -> None:
    """Write CPSC2018 of challenge-2020 1.0.2: 500 Hz, 6 to 60 s, nine codes; record n is in g(n // 1000 + 1)."""
    prevalence = {d: share for d, share in PREVALENCE.items() if CODES[d].cpsc is not None}
    defects = spread(_CPSC2018_DEFECTS, sum(sizes))
    index = 0
    for group, size in enumerate(sizes, start=1):
        for place in range(size):
            name = f"A{(group - 1) * 1000 + place + (group == 1):04d}"
            defect = defects.get(index)
            rng = np.random.default_rng((seed, _CPSC2018, index))
            diagnoses = draw_diagnoses(rng, prevalence)
            seconds = _cpsc2018_seconds(rng, short=defect is Defect.TOO_SHORT)
            ecg = simulate((seed, _CPSC2018, index), seconds=seconds, diagnosis=diagnoses)
            codes = dict.fromkeys(code for d in diagnoses if (code := CODES[d].cpsc))
            # A record that is too short was simulated with that length.
            x_LT = damaged(digital(ecg.signal_LT), None if defect is Defect.TOO_SHORT else defect)
            text = header(
                name,
                x_LT,
                leads=LEADS_12,
                rate=500,
                file=f"{name}.mat",
                layout="16+24",
                gains=["1000/mV"] * 12,
                stamp="12-May-2020 12:33:59",
                comments=[*_person(ecg), f"Dx: {','.join(codes)}", "Rx: Unknown", "Hx: Unknown", "Sx: Unknown"],
            )
            _write_record(tree, "cpsc2018", f"{CHALLENGE}/training/cpsc_2018/g{group}", name, x_LT, text, defect)
            index += 1
            tick()
    tree.records["cpsc2018"] = index


def write_georgia(tree: Tree, sizes: Sequence[int], seed: int, tick: Tick) -> None:
    """Write Georgia of challenge-2020 1.0.2: 10 s at 500 Hz; g1 has the older form of headers, g8 on the newer."""
    defects = spread(_GEORGIA_DEFECTS, sum(sizes))
    index = 0
    for place_of_group, size in enumerate(sizes):
        older = place_of_group == 0
        group = 1 if older else 7 + place_of_group
        for place in range(size):
            name = f"E{(group - 1) * 1000 + place + (500 if group == 8 else 1):05d}"
            defect = defects.get(index)
            ecg = simulate((seed, _GEORGIA, index))
            x_LT = damaged(digital(ecg.signal_LT), defect)
            comments = [*_person(ecg), f"Dx: {','.join(_snomed(ecg))}", "Rx: Unknown", "Hx: Unknown"]
            text = header(
                name,
                x_LT,
                leads=LEADS_12,
                rate=500,
                file=f"{name}.mat",
                layout="16+24" if older else "16x1+24",
                gains=["1000/mV" if older else "1000.0(0)/mV"] * 12,
                stamp="05-May-2020 14:50:55" if older else "",
                comments=comments if older else [f" {comment}" for comment in comments],
            )
            _write_record(tree, "georgia", f"{CHALLENGE}/training/georgia/g{group}", name, x_LT, text, defect)
            index += 1
            tick()
    tree.records["georgia"] = index


def finish_challenge(tree: Tree) -> None:
    """Write the lists of records of challenge-2020, once all its collections are written."""
    _write_lists(tree, CHALLENGE)


def _write_lists(tree: Tree, project: str) -> None:
    """Write RECORDS of each folder of a project, and of the project."""
    folders = sorted({path.rsplit("/", 1)[0] for path in tree.below(project, ".hea")})
    for folder in folders:
        names = [path.removesuffix(".hea") for path in tree.below(f"{project}/{folder}", ".hea")]
        tree.write(f"{project}/{folder}/RECORDS", _lines(names))
    tree.write(f"{project}/RECORDS", _lines([f"{folder}/" for folder in folders]))


def write_ludb(tree: Tree, size: int, seed: int, tick: Tick) -> None:
    """Write ludb 1.0.1: lower-case leads, each with its own gain, and a file of wave boundaries per lead."""
    names = [lead.lower() for lead in LEADS_12]
    rows = []
    for index in range(size):
        record = str(index + 1)
        rng = np.random.default_rng((seed, _LUDB, index))
        ecg = simulate((seed, _LUDB, index))
        baseline_L = rng.integers(-5, 7, 12)
        x_LT = (digital(ecg.signal_LT) + baseline_L[:, None]).astype("<i2")
        # LUDB is normalised: the gain makes every lead span 0.8 "mV" from peak to peak.
        gain_L = np.rint(np.ptp(x_LT.astype(np.int64), axis=1) / 0.8).astype(int)
        rhythm, findings = _ludb_words(ecg)
        letter = "F" if ecg.sex == "female" else "M"
        axis = _axis(ecg)
        lines = [f"Rhythm: {rhythm}.", *(f"{line}. " for line in (f"Electric axis of the heart: {axis}", *findings))]
        text = header(
            record,
            x_LT,
            leads=names,
            rate=500,
            file=f"{record}.dat",
            layout="16",
            gains=[f"{gain}({baseline})/mV" for gain, baseline in zip(gain_L, baseline_L, strict=True)],
            resolution=0,
            comments=[f"<age>: {ecg.age}", f"<sex>: {letter}", "<diagnoses>:", *lines],
        )
        # The real headers have no line break at the end, and here all leads have the same marks.
        tree.write(f"{LUDB}/data/{record}.hea", text.removesuffix("\n"))
        tree.write(f"{LUDB}/data/{record}.dat", dat_bytes(x_LT))
        marks = annotation_bytes(_marks(ecg))
        for name in names:
            tree.write(f"{LUDB}/data/{record}.{name}", marks)
        rows.append(_ludb_row(record, letter, ecg, rhythm, axis))
        tick()
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_LUDB_COLUMNS)
    writer.writerows(rows)
    tree.write(f"{LUDB}/ludb.csv", table.getvalue())
    tree.write(f"{LUDB}/RECORDS", _lines([f"data/{index + 1}" for index in range(size)]))
    tree.write(f"{LUDB}/ANNOTATORS", _lines([f"{name}\tboundaries and peaks of the simulated waves" for name in names]))
    tree.write(f"{LUDB}/LICENSE.txt", NOTICE)
    tree.records["ludb"] = size


def damaged(x_LT: np.ndarray, defect: Defect | None) -> np.ndarray:
    """Return the samples with the defect, if it is one of the samples; otherwise the same array."""
    if defect is Defect.TOO_SHORT:
        return x_LT[:, : x_LT.shape[1] * 7 // 10]
    if defect is Defect.FLAT_LEAD:
        x_LT = x_LT.copy()
        x_LT[LEADS_12.index("V3")] = 0
    if defect is Defect.MISSING_SAMPLES:
        x_LT = x_LT.copy()
        x_LT[LEADS_12.index("V4"), x_LT.shape[1] // 3 : x_LT.shape[1] // 3 + 40] = INVALID
    return x_LT


def _damaged_header(text: str, name: str, defect: Defect | None) -> str:
    """Return the header with the defect, if it is one of the header."""
    if defect is Defect.MERGED_RECORD_LINE:
        # As JS01052.hea was published: the record line's numbers, then the rest of the first signal line.
        first, rest = text.split(f"\n{name}.mat 16+24 10", 1)
        return " ".join(first.split(" ")[:4]) + rest
    if defect is Defect.CHECKSUM_WRONG:
        lines = text.split("\n")
        fields = lines[2].split(" ")
        fields[6] = str(int(fields[6]) // 2 + 77)
        lines[2] = " ".join(fields)
        return "\n".join(lines)
    return text


def _write_record(
    tree: Tree, source: str, folder: str, name: str, x_LT: np.ndarray, text: str, defect: Defect | None
) -> None:
    tree.write(f"{folder}/{name}.hea", _damaged_header(text, name, defect))
    tree.write(f"{folder}/{name}.mat", mat_bytes(x_LT))
    if defect is not None:
        tree.plant(source, defect, name)


def _lines(items: Sequence[str]) -> str:
    return "".join(f"{item}\n" for item in items)


def _person(ecg: SimulatedECG) -> list[str]:
    return [f"Age: {ecg.age}", f"Sex: {ecg.sex.capitalize()}"]


def _snomed(ecg: SimulatedECG) -> list[str]:
    """Return SNOMED CT codes, the rhythm first; sinus rhythm if there is no other rhythm."""
    rhythm = [CODES[d].snomed for d in ecg.diagnoses if d in RHYTHMS] or [_SINUS_RHYTHM]
    return list(dict.fromkeys(rhythm + [CODES[d].snomed for d in ecg.diagnoses]))


def _cpsc2018_seconds(rng: np.random.Generator, *, short: bool) -> float:
    """Draw a duration: 10 s for a third of the records, up to a minute for the others; 6 to 9 s for short ones."""
    if short:
        return int(rng.integers(3000, 4600)) / 500
    return 10.0 if rng.random() < 0.35 else min(5000 + int(rng.exponential(4500)), 30000) / 500


_LUDB_COLUMNS = (
    "ID",
    "Sex",
    "Age",
    "Rhythms",
    "Electric axis of the heart",
    "Conduction abnormalities",
    "Extrasystolies",
    "Hypertrophies",
    "Cardiac pacing",
    "Ischemia",
    "Non-specific repolarization abnormalities",
    "Other states",
)
_LUDB_GROUPS = {
    "Conduction abnormalities": (Diagnosis.FIRST_DEGREE_BLOCK, Diagnosis.LBBB, Diagnosis.RBBB),
    "Extrasystolies": (Diagnosis.ATRIAL_PREMATURE, Diagnosis.VENTRICULAR_PREMATURE),
    "Hypertrophies": (Diagnosis.HYPERTROPHY,),
    "Ischemia": (Diagnosis.ANTERIOR_INFARCTION, Diagnosis.INFERIOR_INFARCTION, Diagnosis.ST_T_CHANGE),
}


def _ludb_words(ecg: SimulatedECG) -> tuple[str, list[str]]:
    """Return the rhythm and the other findings in the words of LUDB's headers."""
    rhythm = next((str(d).capitalize() for d in ecg.diagnoses if d in RHYTHMS), "Sinus rhythm")
    return rhythm, [words for d in ecg.diagnoses if (words := CODES[d].ludb)]


def _ludb_row(record: str, letter: str, ecg: SimulatedECG, rhythm: str, axis: str) -> list[str]:
    """Return a row of ludb.csv; sex and age end in a newline, and findings of one kind are lines of one cell."""
    cells: dict[str, str] = {"ID": record, "Sex": f"{letter}\n", "Age": f"{ecg.age}\n", "Rhythms": rhythm}
    cells["Electric axis of the heart"] = f"Electric axis of the heart: {axis}"
    for column, members in _LUDB_GROUPS.items():
        cells[column] = "\n".join(words for d in ecg.diagnoses if d in members and (words := CODES[d].ludb))
    return [cells.get(column, "") for column in _LUDB_COLUMNS]


def _axis(ecg: SimulatedECG) -> str:
    """Return the electric axis in words, from the net area of the QRS in I and aVF."""
    inside_T = np.zeros(ecg.signal_LT.shape[1], dtype=bool)
    for onset, _, offset in ecg.qrs_B3[~np.isnan(ecg.qrs_B3[:, 0])]:
        inside_T[round(onset * ecg.rate) : round(offset * ecg.rate)] = True
    left, down = ecg.signal_LT[[0, 5]][:, inside_T].sum(axis=1)
    degrees = np.degrees(np.arctan2(down, left))
    names = ((-30, "left axis deviation"), (30, "horizontal"), (70, "normal"), (90, "vertical"))
    return next((name for limit, name in names if degrees < limit), "right axis deviation")


def _marks(ecg: SimulatedECG) -> list[tuple[int, str]]:
    """Return onset, peak and offset of all waves, ascending; as in LUDB, the first and the last beat have no marks.

    If a wave begins before the previous one has ended (P in T at high rates), it is marked from that end on.
    """
    inner = slice(1, -1)
    waves = [
        (*(round(t * ecg.rate) for t in wave), symbol)
        for symbol, wave_B3 in (("p", ecg.p_B3), ("N", ecg.qrs_B3), ("t", ecg.t_B3))
        for wave in wave_B3[inner]
        if not np.isnan(wave[0])
    ]
    marks: list[tuple[int, str]] = []
    last = -1
    for onset, peak, offset, symbol in sorted(waves):
        start = max(onset, last + 1)
        if start < peak:
            marks += [(start, "("), (peak, symbol), (offset, ")")]
            last = offset
    return marks
