"""Own WFDB records: the header's comments say who it is, as those of the PhysioNet Challenges and of LUDB do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from pipelines.formats.wfdb import WfdbRecord, read_wfdb
from pipelines.formats.wfdb_header import Header
from pipelines.incoming.comments import people_fields
from pipelines.incoming.description import check_plausible, rate_of, sex_codes_of
from pipelines.incoming.drop import SHARED, Drop, Origins, RecordOrigin
from pipelines.records import DropReason, Record, RecordError
from pipelines.sources.challenge import challenge_record
from pipelines.sources.demographics import is_unknown, plain_id, stated_age, stated_sex
from pipelines.sources.ludb import ludb_record

ENDINGS = (".hea", ".mat", ".dat")


def read(drop: Drop, path: PurePosixPath) -> Origins:
    """Yield the record of a header, or of a signal file beside it."""
    header = drop.beside(path, ".hea")
    form = "WFDB"
    try:
        if header is None:
            raise _without_header(drop, path)
        raw = read_wfdb(drop.root / header)
        form = f"WFDB, {_comments(raw.header)}"
        rate_of(raw.header.rate, header.name)
        units = _units(raw)
        check_plausible(raw.signal_LT, units)
        yield RecordOrigin(drop.finished(_record(raw, drop)), units, form)
    except RecordError as error:
        yield RecordOrigin(error.dropped(path.stem), form=form)


def _without_header(drop: Drop, path: PurePosixPath) -> RecordError:
    """Return why a signal file is no record."""
    header = path.with_suffix(".hea").name
    with (drop.root / path).open("rb") as stream:
        matlab = stream.read(19) in (b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file")
    if path.suffix == ".mat" and matlab:
        return RecordError(
            DropReason.UNKNOWN_FORMAT,
            f"{path.name}: a MATLAB file without a WFDB header is not read: write its matrix with numpy.save, or as "
            "HDF5; CPSC 2018 is published as WFDB in PhysioNet's challenge-2020",
        )
    return RecordError(DropReason.FILE_MISSING, f"{header} is not there: it belongs to {path.name}")


def _record(raw: WfdbRecord, drop: Drop) -> Record:
    sex_codes = sex_codes_of(drop.shared, SHARED)
    record = ludb_record(raw) if _is_ludb(raw.header) else challenge_record(raw)
    if drop.tells_patients:  # LUDB has one record of each patient, and the drop says that it is otherwise
        record = replace(record, patient_id=None)
    fields = people_fields(raw.header.comments)
    patients = tuple(dict.fromkeys(plain_id(text) for text in fields["patient"] if not is_unknown(text)))
    notes = record.notes
    if len(patients) > 1:
        notes += (f"patient {patients[0][:40]!r} is taken: the header names {patients[1][:40]!r} too",)
    age, age_notes = stated_age(fields["age"][0]) if fields["age"] else (record.age, ())
    sex, sex_notes = stated_sex(fields["sex"][0], sex_codes) if fields["sex"] else (record.sex, ())
    return replace(
        record,
        patient_id=patients[0] if patients else record.patient_id,
        age=age,
        sex=sex,
        notes=tuple(dict.fromkeys((*notes, *age_notes, *sex_notes))),
    )


def _comments(header: Header) -> str:
    """Return whose form the header's comments have, for people."""
    if any(line.lower().startswith("dx") for line in header.comments):
        return "Challenge header"
    return "LUDB header" if _is_ludb(header) else "header without patient data"


def _is_ludb(header: Header) -> bool:
    return any(line.startswith("<diagnoses>") for line in header.comments)


def _units(raw: WfdbRecord) -> str:
    """Describe the gain in ADC units per millivolt, the format, and the baseline unless it is 0."""
    gains = {signal.gain for signal in raw.header.signals}
    baselines = {signal.baseline for signal in raw.header.signals}
    formats = " and ".join(sorted({signal.format for signal in raw.header.signals}))
    stored = "16 bit" if formats == "16" else f"format {formats}"
    if len(gains) > 1 or len(baselines) > 1:
        return f"{stored}, each lead by a gain and baseline of its own"
    text = f"{gains.pop():g} units a millivolt, {stored}"
    return text if baselines == {0} else f"{text}, baseline {baselines.pop()}"
