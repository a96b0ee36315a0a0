"""SCP-ECG, HL7 aECG, MUSE, Philips, Mortara, ISHNE, MFER and EDF by ecgdatakit, which no other module imports.

It is used only through the parsers below: others of its parsers open further files, by names that a file states. It
hands out counts where a scale is missing, unequal leads and rounded rates without an error, so all of this is checked
here and in `rules.py`. Runs in the process that reads vendors' files.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from ecgdatakit import ECGRecord, FileParser, Lead
from ecgdatakit.exceptions import ECGDataKitError
from numpy.typing import NDArray

from ecg_model.leads import LEADS
from pipelines.formats.reading import Reading
from pipelines.formats.vendor.decoded import Decoded, maker_and_model, words
from pipelines.formats.vendor.people import edf_patient, kept_age, kept_sex
from pipelines.formats.vendor.recognize import Kind
from pipelines.formats.vendor.rules import Channel, together
from pipelines.formats.vendor.stated import mindray_patient, stated_rate
from pipelines.formats.vendor.warned import error_of, notes_of
from pipelines.records import DropReason, RecordError

PARSERS = {
    Kind.SCP: "SCPECGParser",
    Kind.AECG: "HL7aECGParser",
    Kind.MUSE: "GEMuseXMLParser",
    Kind.PHILIPS: "SierraXMLParser",
    Kind.MORTARA: "MortaraEL250Parser",
    Kind.ISHNE: "ISHNEHolterParser",
    Kind.MFER: "MFERParser",
    Kind.EDF: "EDFParser",
}
"""The parsers that may be used."""

_MOST_CHANNELS = 256
_NO_VALUE = -32768  # the count that means "no value" in 16 bits
_PER_UNIT = {"nV": 1e-6, "uV": 1e-3, "mV": 1.0, "V": 1e3}
# Behind the tenth second of a Philips recording stand zeros and a calibration pulse in all leads.
_PHILIPS_SECONDS = 10.0
_UNVERIFIED = ("reference beat subtraction", "bimodal")


def find_parsers() -> None:
    """Import the library's parsers, which takes a second the first time."""
    FileParser.supported_formats()


def decode(path: Path, kind: Kind) -> Decoded:
    """Read the ECG of a file of this kind. Raises RecordError if it cannot be used."""
    name = path.name
    record, warned = _parsed(path, kind)
    notes = notes_of(warned, name)
    if len(record.leads) > _MOST_CHANNELS:
        raise RecordError(DropReason.UNREADABLE_HEADER, f"{name}: {len(record.leads):,} channels: no ECG has as many")
    rates = _rates(path, kind, record)
    channels = [_channel(lead, rate) for lead, rate in zip(record.leads, rates, strict=True)]
    _check_times(record.leads, name)
    details = [("waveform", f"rhythm: {len(channels)} channels")]
    if kind is Kind.PHILIPS:
        channels, more = _first_ten_seconds(channels)
        details += more
    leads = together(channels, name)
    if record.median_beats:
        details.append(("not read", f"median beats of {len(record.median_beats)} leads"))
    age, age_notes = kept_age(record.patient.age)
    reading = Reading(
        signal_LT=leads.signal_LT,
        leads=leads.names,
        rate=leads.rate,
        age=age,
        sex=kept_sex(record.patient.sex),
        notes=notes + _unverified(record) + leads.notes + age_notes,
        units=leads.units,
        form=_form(kind, record),
        details=(*details, *(("not read", text) for text in leads.not_read)),
    )
    return Decoded(reading, _patient(path, kind, record))


def _parsed(path: Path, kind: Kind) -> tuple[ECGRecord, list[str]]:
    """Return the library's record of a file, in millivolt, and its warnings."""
    found = FileParser.detect_format(path)
    if found is None or found["parser"] != PARSERS[kind]:
        raise RecordError(
            DropReason.UNKNOWN_FORMAT, f"{path.name}: begins as {kind}, but is not one: export it again, or as DICOM"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            record = FileParser.parse(path)
        except ECGDataKitError as error:
            raise error_of(type(error).__name__, str(error), path.name) from error
    return record, [str(warning.message) for warning in caught if not issubclass(warning.category, RuntimeWarning)]


def _rates(path: Path, kind: Kind, record: ECGRecord) -> list[float]:
    """Return each lead's rate before it was rounded."""
    meta, rounded = record.raw_metadata, [float(lead.sampling_rate) for lead in record.leads]
    if kind is Kind.EDF:
        exact = meta.get("exact_sampling_rates", {})
        return [exact.get(lead.label, rate) for lead, rate in zip(record.leads, rounded, strict=True)]
    if kind is Kind.SCP:
        # The interval is in whole microseconds: 3,906 of them are 256 Hz.
        interval = meta["rhythm_sample_interval_us"]
        return [rate if round(1e6 / rate) == interval else 1e6 / interval for rate in rounded]
    if kind in (Kind.MUSE, Kind.PHILIPS, Kind.MORTARA):
        exact = {rate: stated_rate(path, kind, rate) for rate in set(rounded)}
        return [exact[rate] for rate in rounded]
    if kind is Kind.AECG:
        stated = [meta["rhythm_time"]["sampling_rate_exact"]] * len(rounded)
    else:
        stated = meta.get("sampling_rates", rounded)
    # A period such as 0.001953125 s is a whole rate but for the last digits.
    pairs = zip(stated, rounded, strict=True)
    return [rate if abs(exact - rate) < 1e-6 * rate else exact for exact, rate in pairs]


def _channel(lead: Lead, rate: float) -> Channel:
    # An aECG without a scale comes as 1 uV a digit, with no resolution of its converter.
    known = not lead.is_raw and lead.units == "mV" and lead.adc_resolution != 0
    per_unit = _PER_UNIT.get(lead.resolution_unit, 0.0) if known else 0.0
    step = lead.resolution * per_unit
    return Channel(
        label=_own_label(lead.label),
        x_T=np.asarray(lead.samples, np.float64),
        rate=rate,
        millivolt=known,
        step=abs(step),
        no_value=_NO_VALUE * step + lead.offset * per_unit if step else None,
    )


def _own_label(label: str) -> str:
    """Return a label without the number that the library gives to repeated ones (`II_2`)."""
    stem, _, number = label.rpartition("_")
    return stem if stem and number.isdigit() and len(number) <= 2 else label


def _check_times(leads: Sequence[Lead], name: str) -> None:
    """Raise RecordError if a needed lead does not begin with the others."""
    for lead in leads:
        if lead.label in LEADS and {"start_sample", "LeadTimeOffset"} & set(lead.annotations):
            raise RecordError(
                DropReason.UNREADABLE_SIGNAL,
                f"{name}: lead {lead.label} begins later than others: leads recorded one after another are not read",
            )


def _first_ten_seconds(channels: Sequence[Channel]) -> tuple[list[Channel], list[tuple[str, str]]]:
    """Return the part of a Philips recording that is ECG in all leads, and what is said of the rest."""
    cut = [replace(channel, x_T=_first(channel)) for channel in channels]
    rest = max((len(channel.x_T) / channel.rate - _PHILIPS_SECONDS for channel in channels), default=0.0)
    said = [("not read", f"{rest:.3g} s behind the tenth second: zeros and a calibration pulse")] if rest > 0 else []
    return cut, said


def _first(channel: Channel) -> NDArray[np.floating]:
    return channel.x_T[: round(_PHILIPS_SECONDS * channel.rate)]


def _unverified(record: ECGRecord) -> tuple[str, ...]:
    compression = record.recording.acquisition.signal.compression
    found = [method for method in _UNVERIFIED if method in compression]
    return (f"SCP-ECG with {' and '.join(found)}: not compared with another reader",) if found else ()


def _form(kind: Kind, record: ECGRecord) -> str:
    version = record.file_format.version
    begin = words(version) if kind is Kind.EDF else words(kind, version)
    device = record.recording.device
    return ", ".join(part for part in (begin, maker_and_model(device.manufacturer, device.model)) if part)


def _patient(path: Path, kind: Kind, record: ECGRecord) -> str:
    if kind is Kind.EDF and not record.raw_metadata.get("is_edfplus"):
        return edf_patient(record.patient.patient_id)
    if kind is Kind.AECG and not record.patient.patient_id:
        return mindray_patient(path)
    return record.patient.patient_id
