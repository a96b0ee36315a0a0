"""Writers of one ECG in each vendor's format, from the format's description. Counts (L, T) int16, microvolt a count."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
PERSON = "PRIVATE^PERSON"
PATIENT = "MRN-4711"


def counts(leads: int = 8, samples: int = 5000, seed: int = 1) -> NDArray[np.int16]:
    """Counts that differ from lead to lead and from sample to sample, (L, T)."""
    steps = np.random.default_rng(seed).integers(-9, 10, (leads, samples))
    return np.clip(np.cumsum(steps, axis=1), -400, 400).astype(np.int16)


@dataclass(frozen=True, kw_only=True)
class Ecg:
    """What a writer writes."""

    d_LT: NDArray[np.int16] = field(default_factory=counts)
    leads: Sequence[str] = EIGHT
    rate: float = 500
    step: float = 5.0  # uV
    patient: str = PATIENT
    age: int = 63

    @property
    def millivolt_LT(self) -> NDArray[np.float64]:
        """What must be read."""
        return self.d_LT.astype(np.float64) * self.step / 1000


def muse(ecg: Ecg, *, lead: Callable[[str], str] = str, rhythm: str = "Rhythm", units: str = "MICROVOLTS") -> bytes:
    """GE MUSE XML. lead: changes one lead's XML."""
    exponent = 0 if ecg.rate == int(ecg.rate) else -1
    base = f"{ecg.rate * 10**-exponent:g}"

    def data(name: str, d_T: NDArray[np.int16]) -> str:
        stored = d_T.astype("<i2").tobytes()
        return lead(
            f"<LeadData><LeadByteCountTotal>{len(stored)}</LeadByteCountTotal>"
            f"<LeadSampleCountTotal>{len(d_T)}</LeadSampleCountTotal>"
            f"<LeadAmplitudeUnitsPerBit>{ecg.step:g}</LeadAmplitudeUnitsPerBit>"
            f"<LeadAmplitudeUnits>{units}</LeadAmplitudeUnits><LeadID>{name}</LeadID>"
            f"<FirstSampleBaseline>0</FirstSampleBaseline><LeadSampleSize>2</LeadSampleSize>"
            f"<LeadDataCRC32>{zlib.crc32(stored)}</LeadDataCRC32>"
            f"<WaveFormData>{base64.b64encode(stored).decode()}</WaveFormData></LeadData>"
        )

    def waveform(kind: str, d_LT: NDArray[np.int16]) -> str:
        leads = "".join(data(name, d_T) for name, d_T in zip(ecg.leads, d_LT, strict=True))
        return (
            f"<Waveform><WaveformType>{kind}</WaveformType><SampleBase>{base}</SampleBase>"
            f"<SampleExponent>{exponent}</SampleExponent>{leads}</Waveform>"
        )

    text = (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<!DOCTYPE RestingECG SYSTEM "restecg.dtd">\n<RestingECG>'
        "<MuseInfo><MuseVersion>9.0.9</MuseVersion></MuseInfo><PatientDemographics>"
        f"<PatientID>{ecg.patient}</PatientID><PatientAge>{ecg.age}</PatientAge><AgeUnits>YEARS</AgeUnits>"
        f"<DateofBirth>02-29-1960</DateofBirth><Gender>FEMALE</Gender><PatientLastName>{PERSON}</PatientLastName>"
        "</PatientDemographics><TestDemographics><AcquisitionDevice>MAC55</AcquisitionDevice>"
        "<AcquisitionDate>03-04-2023</AcquisitionDate></TestDemographics>"
        f"<DiagnosisStatement><StmtText>Confirmed by {PERSON}</StmtText></DiagnosisStatement>"
        f"{waveform('Median', ecg.d_LT[:, :600])}{waveform(rhythm, ecg.d_LT)}</RestingECG>"
    )
    return text.encode("latin-1")


def aecg(ecg: Ecg, *, increment: str = "", unit: str = "uV", origin: str = '<origin value="0" unit="uV"/>') -> bytes:
    """HL7 aECG. increment: attributes of the time base."""
    increment = increment or f'value="{1 / ecg.rate:.6g}" unit="s"'
    leads = "".join(
        f'<component><sequence><code code="MDC_ECG_LEAD_{name.upper()}"/><value type="SLIST_PQ">{origin}'
        f'<scale value="{ecg.step:g}" unit="{unit}"/><digits>{" ".join(map(str, d_T.tolist()))}</digits>'
        "</value></sequence></component>"
        for name, d_T in zip(ecg.leads, ecg.d_LT, strict=True)
    )
    return (
        '<?xml version="1.0"?><AnnotatedECG xmlns="urn:hl7-org:v3"><id root="1.2.3"/><componentOf><timepointEvent>'
        "<componentOf><subjectAssignment><subject><trialSubject>"
        f'<id extension="{ecg.patient}"/><subjectDemographicPerson><name>{PERSON}</name>'
        '<administrativeGenderCode code="F"/></subjectDemographicPerson></trialSubject></subject></subjectAssignment>'
        '</componentOf></timepointEvent></componentOf><component><series><code code="RHYTHM"/><component><sequenceSet>'
        '<component><sequence><code code="TIME_ABSOLUTE"/><value type="GLIST_TS"><head value="20230304101112"/>'
        f"<increment {increment}/></value></sequence></component>{leads}"
        "</sequenceSet></component></series></component></AnnotatedECG>"
    ).encode()


def philips(ecg: Ecg, *, seconds: float | None = None, data: str | None = None, compression: str = "") -> bytes:
    """Philips XML 1.04 in UTF-16, with plain samples lead by lead, unless `data` are given."""
    stored = data or base64.b64encode(ecg.d_LT.astype("<i2").tobytes()).decode()
    milliseconds = 1000 * (seconds or ecg.d_LT.shape[1] / ecg.rate)
    return (
        '<?xml version="1.0" encoding="UTF-16"?><restingecgdata xmlns="http://www3.medical.philips.com">'
        "<documentinfo><documenttype>PhilipsECG</documenttype><documentversion>1.04</documentversion></documentinfo>"
        '<dataacquisition date="2023-03-04" time="10:11:12"><machine>PageWriter</machine><signalcharacteristics>'
        f"<resolution>{ecg.step:g}</resolution><samplingrate>{ecg.rate:g}</samplingrate>"
        f"<numberchannelsallocated>{len(ecg.leads)}</numberchannelsallocated><signalsigned>True</signalsigned>"
        "</signalcharacteristics></dataacquisition><patient><generalpatientdata>"
        f"<patientid>{ecg.patient}</patientid><name><lastname>{PERSON}</lastname></name>"
        f"<age><dateofbirth>1960-02-29</dateofbirth><years>{ecg.age}</years></age><sex>Female</sex>"
        "</generalpatientdata></patient><waveforms>"
        f'<parsedwaveforms dataencoding="Base64"{compression} numberofleads="{len(ecg.leads)}" '
        f'leadlabels="{" ".join(ecg.leads)}" durationperchannel="{milliseconds:g}" samplespersecond="{ecg.rate:g}" '
        f'resolution="{ecg.step:g}">{stored}</parsedwaveforms></waveforms></restingecgdata>'
    ).encode("utf-16")


def xli(d_LT: NDArray[np.int16]) -> str:
    """Philips' compression: second differences, high bytes before low ones, in LZW codes of single bytes.

    Of leads in the usual order, III and the augmented ones are stored as what I and II leave of them.
    """
    x_LT = d_LT.astype(np.int64)
    one, two, three = x_LT[:3]
    stored = [one, two, two - one - three, -x_LT[3] - (one + two) // 2]
    stored += [(one - three) // 2 - x_LT[4], (two + three) // 2 - x_LT[5], *x_LT[6:]]
    chunks = []
    for x_T in stored:
        last_T = 2 * x_T[1:-1] - x_T[:-2] - x_T[2:]
        words = np.concatenate([x_T[:2], last_T[1:] + 64, [64]]).astype(np.int16).view(np.uint16)
        data = np.concatenate([words >> 8, words & 255])
        bits = np.unpackbits(data.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)[:, 6:]
        packed = np.packbits(bits).tobytes()
        chunks.append(struct.pack("<iHh", len(packed), 0, int(last_T[0])) + packed)
    return base64.b64encode(b"".join(chunks)).decode()


def mortara(ecg: Ecg, *, more: str = "") -> bytes:
    """Mortara ELI XML. more: further attributes of each channel."""
    channels = "".join(
        f'<CHANNEL NAME="{name}" UNITS_PER_MV="{1000 / ecg.step:g}" SAMPLE_FREQ="{ecg.rate:g}" BITS="16" '
        f'FORMAT="SIGNED" ENCODING="BASE64" DURATION="{len(d_T)}" {more} '
        f'DATA="{base64.b64encode(d_T.astype("<i2").tobytes()).decode()}"/>'
        for name, d_T in zip(ecg.leads, ecg.d_LT, strict=True)
    )
    return (
        f'<?xml version="1.0"?><ECG ACQUISITION_TIME="20230304101112" AGE="{ecg.age}" AGE_UNITS="YEARS">'
        '<SOURCE MANUFACTURER="Mortara" MODEL="ELI 280"/>'
        f'<SUBJECT ID="{ecg.patient}" LAST_NAME="{PERSON}" GENDER="FEMALE" DOB="19600229"/>{channels}</ECG>'
    ).encode()


_ISHNE_LEADS = dict(zip(("I", "II", "III", "aVR", "aVL", "aVF", *EIGHT[2:]), range(5, 17), strict=True))


def ishne(ecg: Ecg, *, offset: int = 522) -> bytes:
    """ISHNE 1.0 with a header's checksum."""
    head = bytearray(512)

    def put(at: int, form: str, *values: object) -> None:
        struct.pack_into(f"<{form}", head, at - 10, *values)

    put(10, "iiiih", 0, ecg.d_LT.shape[1], 522, offset, 1)
    put(28, "40s40s20s", b"", PERSON.encode(), ecg.patient.encode())
    put(128, "hh3h3h", 2, 0, 29, 2, 1960, 4, 3, 2023)
    put(156, "h", len(ecg.leads))
    put(158, "12h", *[_ISHNE_LEADS.get(name, 0) for name in ecg.leads], *[-9] * (12 - len(ecg.leads)))
    put(206, "12h", *[round(ecg.step * 1000)] * 12)
    put(272, "h", int(ecg.rate))
    checksum = binascii.crc_hqx(bytes(head), 0xFFFF)
    return b"ISHNE1.0" + struct.pack("<H", checksum) + bytes(head) + ecg.d_LT.T.astype("<i2").tobytes()


_MFER_LEADS = dict(zip(EIGHT, range(1, 9), strict=True)) | {"III": 61, "aVR": 62, "aVL": 63, "aVF": 64}


def mfer(ecg: Ecg) -> bytes:
    """MFER, big-endian, one block."""

    def tag(number: int, value: bytes) -> bytes:
        length = bytes([len(value)]) if len(value) < 128 else b"\x84" + struct.pack(">I", len(value))
        return bytes([number]) + length + value

    attributes = b"".join(
        b"\x3f" + bytes([at]) + bytes([4]) + tag(0x09, struct.pack(">H", _MFER_LEADS[name]))
        for at, name in enumerate(ecg.leads)
    )
    leads, samples = ecg.d_LT.shape
    return b"".join(
        (
            tag(0x40, b"MFR Standard 12 leads ECG".ljust(32)),
            tag(0x01, b"\0"),
            tag(0x82, ecg.patient.encode()),
            tag(0x81, PERSON.encode()),
            tag(0x84, b"\2"),
            tag(0x83, struct.pack(">BHHBB", ecg.age, 0, 1960, 2, 29)),
            tag(0x0B, struct.pack(">Bbi", 0, -1, round(10 * ecg.rate))),
            tag(0x0C, struct.pack(">Bbi", 0, -9, round(1000 * ecg.step))),
            tag(0x04, struct.pack(">I", samples)),
            tag(0x05, struct.pack(">H", leads)),
            tag(0x06, struct.pack(">H", 1)),
            attributes,
            tag(0x1E, ecg.d_LT.astype(">i2").tobytes()),
            b"\x80\x00",
        )
    )


def edf(ecg: Ecg, *, plus: bool = True, records: int | None = None, unit: str = "uV") -> bytes:
    """EDF+C without annotations, or EDF, in records of a second. records: the number that the header states."""
    width = int(ecg.rate)
    d_NLT = ecg.d_LT.reshape(len(ecg.leads), -1, width).transpose(1, 0, 2)
    limit = 32767 * ecg.step
    patient = f"{ecg.patient} F 29-FEB-1960 {PERSON}"
    fields: list[tuple[int, Sequence[str]]] = [
        (16, [f"ECG {name}" for name in ecg.leads]),
        (80, [""] * len(ecg.leads)),
        (8, [unit] * len(ecg.leads)),
        (8, [f"{-limit:.7g}"[:8]] * len(ecg.leads)),
        (8, [f"{limit:.7g}"[:8]] * len(ecg.leads)),
        (8, ["-32767"] * len(ecg.leads)),
        (8, ["32767"] * len(ecg.leads)),
        (80, [""] * len(ecg.leads)),
        (8, [str(width)] * len(ecg.leads)),
        (32, [""] * len(ecg.leads)),
    ]
    head = (
        f"{'0':<8}{patient:<80}{'Startdate 04-MAR-2023 X X X':<80}04.03.2310.11.12{256 * (len(ecg.leads) + 1):<8}"
        f"{'EDF+C' if plus else '':<44}{len(d_NLT) if records is None else records:<8}{1:<8}{len(ecg.leads):<4}"
    )
    texts = "".join(f"{text:<{length}}" for length, column in fields for text in column)
    return (head + texts).encode() + d_NLT.astype("<i2").tobytes()


_SCP_LEADS = dict(zip(EIGHT, range(1, 9), strict=True)) | {"III": 61, "aVR": 62, "aVL": 63, "aVF": 64}


def huffman(d_T: NDArray[np.int16]) -> bytes:
    """Second differences by SCP-ECG's default table."""

    def code(value: int) -> str:
        if abs(value) <= 8:
            return "0" if value == 0 else "1" * abs(value) + ("01" if value < 0 else "00")
        if abs(value) < 128:
            return "1111111110" + f"{value & 255:08b}"
        return "1111111111" + f"{value & 65535:016b}"

    x_T = d_T.astype(np.int64)
    bits = "".join(map(code, [*x_T[:2].tolist(), *np.diff(x_T, 2).tolist()]))
    bits += "0" * (-len(bits) % 16)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def scp(ecg: Ecg, *, first: int = 1, wrong: Sequence[int] = (), compressed: bool = False) -> bytes:
    """SCP-ECG 2.0. first: number of the first sample; wrong: sections with a wrong checksum."""

    def tag(number: int, value: bytes) -> bytes:
        return struct.pack("<BH", number, len(value)) + value

    samples = ecg.d_LT.shape[1]
    device = struct.pack("<HHHBB6sBBBBB", 0, 0, 0, 0, 8, b"CART\0\0", 20, 0xA0, 0, 0, 1) + bytes(16) + b"\1" + bytes(5)
    bodies = {
        1: tag(0, PERSON.encode() + b"\0")
        + tag(2, ecg.patient.encode() + b"\0")
        + tag(4, struct.pack("<HB", ecg.age, 1))
        + tag(5, struct.pack("<HBB", 1960, 2, 29))
        + tag(8, b"\2")
        + tag(14, device)
        + tag(255, b""),
        3: struct.pack("<BB", len(ecg.leads), 4 | len(ecg.leads) << 3)
        + b"".join(struct.pack("<IIB", first, first + samples - 1, _SCP_LEADS[name]) for name in ecg.leads),
    }
    data = [huffman(d_T) if compressed else d_T.astype("<i2").tobytes() for d_T in ecg.d_LT]
    bodies[6] = (
        struct.pack("<HHBB", round(1000 * ecg.step), round(1e6 / ecg.rate), 2 * compressed, 0)
        + struct.pack(f"<{len(ecg.leads)}H", *map(len, data))
        + b"".join(data)
    )
    if compressed:
        bodies[2] = struct.pack("<H", 19999)

    def section(number: int, body: bytes) -> bytes:
        body += b"\0" * (len(body) % 2)
        reserved = b"SCPECG" if number == 0 else bytes(6)
        rest = struct.pack("<HIBB6s", number, 16 + len(body), 20, 20, reserved) + body
        return struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF) ^ (number in wrong)) + rest

    sections = {number: section(number, body) for number, body in bodies.items()}
    pointers, at = [], 7 + 16 + 10 * 12
    # Sections lie in the order of their numbers.
    sections = dict(sorted(sections.items()))
    for number in range(12):
        length = 16 + 10 * 12 if number == 0 else len(sections.get(number, b""))
        pointers.append(struct.pack("<HII", number, length, 7 if number == 0 else at if length else 0))
        at += length if number else 0
    rest = section(0, b"".join(pointers)) + b"".join(sections.values())
    rest = struct.pack("<I", 6 + len(rest)) + rest
    return struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest


@dataclass(frozen=True, kw_only=True)
class Group:
    """A multiplex group of a DICOM file."""

    ecg: Ecg
    original: bool = True
    label: str = "RHYTHM"
    padding: int | None = None
    units: str | None = "uV"
    code: str = "5.6.3-9-"  # with the lead's number; or MDC_ECG_LEAD_ with its name
    meaning: str = ""  # the lead's name if empty
    baseline: float = 0.0
    correction: float = 1.0
    skew: float = 0.0


def dicom(*groups: Group, deflated: bool = False, big: bool = False) -> bytes:
    """A DICOM file with waveforms, by pydicom."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence as Items
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

    def coded(value: str, scheme: str, meaning: str) -> Items:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
        return Items([code])

    def channel(group: Group, name: str) -> Dataset:
        number = group.code.endswith(("-", ":"))
        value = f"{group.code}{_SCP_LEADS[name] if number else name.upper()}"
        made = Dataset()
        made.ChannelSourceSequence = coded(value, "SCPECG", group.meaning or f"Lead {name}")
        made.ChannelSensitivity = f"{group.ecg.step / (1000 if group.units == 'mV' else 1):g}"
        made.ChannelSensitivityCorrectionFactor = group.correction
        made.ChannelBaseline, made.ChannelSampleSkew = group.baseline, group.skew
        if group.units:
            made.ChannelSensitivityUnitsSequence = coded(group.units, "UCUM", "unit")
        return made

    def item(group: Group) -> Dataset:
        made = Dataset()
        made.WaveformOriginality = "ORIGINAL" if group.original else "DERIVED"
        leads, samples = group.ecg.d_LT.shape
        made.NumberOfWaveformChannels, made.NumberOfWaveformSamples = leads, samples
        made.SamplingFrequency, made.MultiplexGroupLabel = group.ecg.rate, group.label
        made.ChannelDefinitionSequence = Items([channel(group, name) for name in group.ecg.leads])
        made.WaveformBitsAllocated, made.WaveformSampleInterpretation = 16, "SS"
        if group.padding is not None:
            made.add_new("WaveformPaddingValue", "OW", np.int16(group.padding).tobytes())
        order = ">i2" if big else "<i2"
        made.add_new("WaveformData", "OW", group.ecg.d_LT.T.astype(order).tobytes())
        return made

    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.9.1.1", "1.2.3.4"
    dataset.PatientName, dataset.PatientID = PERSON, groups[0].ecg.patient if groups else PATIENT
    dataset.PatientBirthDate, dataset.PatientSex, dataset.AcquisitionDateTime = "19600229", "F", "20230304101112"
    dataset.PatientAge = "063Y"
    dataset.Manufacturer, dataset.ManufacturerModelName, dataset.Modality = "Maker", "Cart 1", "ECG"
    if groups:
        dataset.WaveformSequence = Items([item(group) for group in groups])
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    syntax = DeflatedExplicitVRLittleEndian if deflated else ExplicitVRBigEndian if big else ExplicitVRLittleEndian
    dataset.file_meta.TransferSyntaxUID = syntax
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


WRITERS: dict[str, Callable[[Ecg], bytes]] = {
    "muse.xml": muse,
    "aecg.xml": aecg,
    "philips.xml": philips,
    "mortara.xml": mortara,
    "ishne.ecg": ishne,
    "mfer.mwf": mfer,
    "plus.edf": edf,
    "scp.scp": scp,
    "dicom.dcm": lambda ecg: dicom(Group(ecg=ecg)),
}
"""A file name of each format, and its writer."""
