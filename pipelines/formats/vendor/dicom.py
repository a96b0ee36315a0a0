"""DICOM waveforms by pydicom: which group is the rhythm, which channel is which lead, what was never recorded.

PS3.3 C.10.9: millivolt = (sample x sensitivity x correction factor + baseline) x unit. Runs in the process that reads
vendors' files. Shapes: T samples, C channels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from pydicom.waveforms.numpy_handler import multiplex_array

from ecg_model.leads import LEADS
from pipelines.formats.limits import require_size
from pipelines.formats.reading import MOST_SECONDS, Reading
from pipelines.formats.vendor.decoded import Decoded, maker_and_model, words
from pipelines.formats.vendor.limits import MOST_BYTES
from pipelines.formats.vendor.people import age_in_years, kept_age, kept_sex, years_between
from pipelines.formats.vendor.recognize import Kind
from pipelines.formats.vendor.rules import Channel, together, usual_name
from pipelines.records import DropReason, RecordError

# Everything else of the file is passed over: pixels, documents, names.
_TAGS = [
    "SOPClassUID",
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "PatientID",
    "PatientAge",
    "PatientBirthDate",
    "PatientSex",
    "AcquisitionDateTime",
    "ContentDate",
    "StudyDate",
    "WaveformSequence",
]
_NO_VALUE = -32768  # the count that means "no value" in 16 bits
_MILLIVOLT = {"nv": 1e-6, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "mv": 1.0, "v": 1e3}
# SCPECG `5.6.3-9-N` and MDC `2:N` (PS3.16 CID 3001) share their numbers.
_NUMBERS = {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF"} | {2 + v: f"V{v}" for v in range(1, 7)}
_CODE = re.compile(r"(?:5\.6\.3-9-|2:)(\d{1,3})", re.ASCII)
_MDC = re.compile(r"MDC_ECG_LEAD_(\w{1,16})", re.ASCII)
_MEANING = re.compile(r"(?:lead\s+)?(iii|ii|i|avr|avl|avf|v[1-6])(?:\s*[,(].*)?", re.IGNORECASE)


@dataclass(frozen=True)
class _Group:
    """A multiplex group: channels that share a rate and a length."""

    number: int  # from 1
    item: Dataset
    labels: tuple[str, ...]  # of an original group
    original: bool

    @property
    def seconds(self) -> float:
        rate = float(self.item.get("SamplingFrequency") or 0)
        return int(self.item.get("NumberOfWaveformSamples") or 0) / rate if rate > 0 else 0.0

    @property
    def text(self) -> str:
        label = words(self.item.get("MultiplexGroupLabel"))
        channels = int(self.item.get("NumberOfWaveformChannels") or 0)
        return f"group {self.number}{f' ({label})' if label else ''}: {channels} channels, {self.seconds:.4g} s"


def decode(path: Path) -> Decoded:
    """Read a DICOM file's ECG. Raises RecordError if it holds none, or one that cannot be used."""
    name = path.name
    config.settings.reading_validation_mode = config.IGNORE
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise RecordError(
            DropReason.UNKNOWN_FORMAT,
            f"{name}: a deflated DICOM is not read, since it can unfold to any size: export it uncompressed",
        )
    dataset = pydicom.dcmread(path, specific_tags=_TAGS)
    what = _object_name(dataset, meta)
    if not dataset.get("WaveformSequence"):
        raise RecordError(
            DropReason.NO_WAVEFORM, f"{name}: it is {what}, without a waveform: export the ECG as DICOM waveform"
        )
    too_large = partial(RecordError, DropReason.UNREADABLE_SIGNAL)
    require_size(path, MOST_BYTES[Kind.DICOM], "one DICOM", "export ten seconds of it", too_large)
    groups = [_group(number, item, name) for number, item in enumerate(dataset.WaveformSequence, 1)]
    taken = _rhythm(groups, name)
    leads = together(_channels(dataset, taken, name), name)
    age, age_notes = kept_age(_age(dataset))
    rest = [f"{group.text}{'' if group.original else ', derived'}" for group in groups if group is not taken]
    maker = maker_and_model(dataset.get("Manufacturer"), dataset.get("ManufacturerModelName"))
    reading = Reading(
        signal_LT=leads.signal_LT,
        leads=leads.names,
        rate=leads.rate,
        age=age,
        sex=kept_sex(str(dataset.get("PatientSex") or "")),
        notes=leads.notes + age_notes,
        units=leads.units,
        form=", ".join(part for part in ("DICOM", what, maker) if part),
        details=(("waveform", taken.text), *(("not read", text) for text in (*rest, *leads.not_read))),
    )
    return Decoded(reading, str(dataset.get("PatientID") or ""))


def _object_name(dataset: Dataset, meta: Dataset) -> str:
    """Return what kind of object a file is, as the standard names it."""
    uid = UID(str(dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or ""))
    name = uid.name.removesuffix(" Storage")
    modality = words(dataset.get("Modality"))
    return name if name != str(uid) else f"an object of modality {modality or 'unknown'}"


def _group(number: int, item: Dataset, name: str) -> _Group:
    original = str(item.get("WaveformOriginality") or "ORIGINAL").upper() == "ORIGINAL"
    definitions = (item.get("ChannelDefinitionSequence") or []) if original else []
    labels = tuple(_label(definition, position, name) for position, definition in enumerate(definitions, 1))
    return _Group(number, item, labels, original)


def _rhythm(groups: Sequence[_Group], name: str) -> _Group:
    """Return the longest original group with the eight leads, or the one with the most of them if none has all."""
    original = [group for group in groups if group.original]
    if not original:
        raise RecordError(
            DropReason.NO_WAVEFORM, f"{name}: it holds derived waveforms (median beats) alone: export the rhythm"
        )
    return max(original, key=lambda group: (len(set(LEADS) & set(group.labels)), group.seconds, -group.number))


def _label(definition: Dataset, position: int, name: str) -> str:
    """Return a channel's lead, from its code or else its meaning or label. Raises RecordError if these disagree."""
    source = next(iter(definition.get("ChannelSourceSequence") or []), Dataset())
    code, meaning = str(source.get("CodeValue") or ""), str(source.get("CodeMeaning") or "").strip()
    by_code = ""
    if found := _CODE.fullmatch(code):
        by_code = _NUMBERS.get(int(found[1]), "")
    elif found := _MDC.fullmatch(code):
        by_code = usual_name(found[1])
    found = _MEANING.fullmatch(meaning)
    by_meaning = usual_name(found[1]) if found else ""
    if by_code and by_meaning and by_code != by_meaning:
        raise RecordError(
            DropReason.UNREADABLE_HEADER,
            f"{name}: channel {position} is {by_code} by its code, {by_meaning} by its meaning: export it again",
        )
    label = words(definition.get("ChannelLabel")) or words(meaning)
    return by_code or by_meaning or usual_name(label) or f"channel {position}"


def _channels(dataset: Dataset, group: _Group, name: str) -> list[Channel]:
    item = group.item
    rate = float(item.get("SamplingFrequency") or 0)
    if not 0 < rate < math.inf:
        raise _unreadable(name, "its sampling frequency is missing")
    counts_TC = _counts(dataset, group, name)[: math.ceil(MOST_SECONDS * rate) + 1]
    missing_T = _padding(item, counts_TC)
    channels = []
    for position, (label, definition) in enumerate(zip(group.labels, item.ChannelDefinitionSequence, strict=True)):
        step, zero, known = _scale(definition)
        if label in LEADS and _skewed(definition, rate):
            raise _unreadable(name, f"lead {label} is skewed in time by a sample or more")
        x_T = counts_TC[:, position].astype(np.float64) * step + zero
        x_T[missing_T] = np.nan
        no_value = _NO_VALUE * step + zero if known and counts_TC.dtype == np.int16 else None
        known_step = abs(step) if known else 0.0
        channels.append(Channel(label=label, x_T=x_T, rate=rate, millivolt=known, step=known_step, no_value=no_value))
    return channels


def _counts(dataset: Dataset, group: _Group, name: str) -> NDArray[Any]:
    """Return a group's samples as stored (T, C). Raises RecordError if its sizes do not fit its bytes."""
    item = group.item
    samples, count = int(item.get("NumberOfWaveformSamples") or 0), int(item.get("NumberOfWaveformChannels") or 0)
    bits, kind = int(item.get("WaveformBitsAllocated") or 0), str(item.get("WaveformSampleInterpretation"))
    if (bits, kind) not in {(8, "SB"), (8, "UB"), (16, "SS"), (16, "US"), (32, "SL"), (32, "UL")}:
        raise _unreadable(name, f"samples of {bits} bits, {words(kind)}")
    stored = len(item.get("WaveformData") or b"")
    if samples <= 0 or count != len(group.labels) or samples * count * bits // 8 > stored:
        raise RecordError(
            DropReason.WRONG_FILE_SIZE,
            f"{name}: {samples} samples of {count} channels, {len(group.labels)} of them defined, do not fit "
            f"{stored} bytes: fetch it again",
        )
    counts_TC = multiplex_array(dataset, group.number - 1, as_raw=True)
    # Waveform data are read as little-endian, whatever the transfer syntax.
    return counts_TC if dataset.original_encoding[1] is not False else counts_TC.byteswap()


def _padding(item: Dataset, counts_TC: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the instants (T,) at which all channels hold the padding value.

    A single channel may hold it as a sample: converters write 0 as padding value.
    """
    padding = item.get("WaveformPaddingValue")
    width = counts_TC.dtype.itemsize
    if not isinstance(padding, bytes) or len(padding) < width:
        return np.zeros(len(counts_TC), bool)
    return (counts_TC == np.frombuffer(padding[:width], counts_TC.dtype)[0]).all(axis=1)


def _scale(definition: Dataset) -> tuple[float, float, bool]:
    """Return millivolt a count, millivolt at zero, and whether both are known."""
    units = next(iter(definition.get("ChannelSensitivityUnitsSequence") or []), Dataset())
    unit = _MILLIVOLT.get(str(units.get("CodeValue") or "").strip().lower())
    sensitivity = definition.get("ChannelSensitivity")
    if unit is None or sensitivity is None:
        return 1.0, 0.0, False
    correction = definition.get("ChannelSensitivityCorrectionFactor")
    step = float(sensitivity) * (1.0 if correction is None else float(correction)) * unit
    zero = float(definition.get("ChannelBaseline") or 0.0) * unit
    return step, zero, math.isfinite(step) and step != 0 and math.isfinite(zero)


def _skewed(definition: Dataset, rate: float) -> bool:
    samples = float(definition.get("ChannelSampleSkew") or 0.0)
    return abs(samples) >= 1 or abs(float(definition.get("ChannelTimeSkew") or 0.0)) * rate >= 1


def _age(dataset: Dataset) -> float | None:
    stated = age_in_years(str(dataset.get("PatientAge") or ""))
    if stated is not None:
        return stated
    dates = (dataset.get(tag) for tag in ("AcquisitionDateTime", "ContentDate", "StudyDate"))
    return years_between(str(dataset.get("PatientBirthDate") or ""), str(next(filter(None, dates), "")))


def _unreadable(name: str, what: str) -> RecordError:
    return RecordError(DropReason.UNREADABLE_SIGNAL, f"{name}: {what}: export it again")
