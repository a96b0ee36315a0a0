"""ECGs of vendors' files. A record is called by its content, since a file's name can be a patient's id."""

from __future__ import annotations

from pathlib import PurePosixPath

from pipelines.formats.vendor.read import read_vendor, record_id
from pipelines.incoming.description import check_plausible, rate_of
from pipelines.incoming.drop import Drop, Origins, RecordOrigin
from pipelines.records import Record, RecordError


def read(drop: Drop, path: PurePosixPath) -> Origins:
    """Yield the ECG of a vendor's file."""
    file = drop.root / path
    try:
        reading = read_vendor(file, None if drop.key is None else drop.key())
        rate_of(reading.rate, path.name)
        check_plausible(reading.signal_LT, reading.units)
    except RecordError as error:
        yield RecordOrigin(error.dropped(str(path)))
        return
    record = Record(
        record_id=record_id(file),
        signal_LT=reading.signal_LT,
        leads=reading.leads,
        rate=reading.rate,
        patient_id=reading.patient,
        age=reading.age,
        sex=reading.sex,
        notes=reading.notes,
    )
    yield RecordOrigin(drop.finished(record), reading.units, reading.form, reading.details)
