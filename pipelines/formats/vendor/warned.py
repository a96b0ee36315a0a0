"""What the warnings and errors of ecgdatakit mean for a record: a note in our words, a drop, or nothing.

Its texts can hold the file's name, a date of birth or any text of the file, so they are matched, and never kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipelines.records import DropReason, RecordError

_DROPS: tuple[tuple[str, DropReason, str], ...] = (
    (
        r"CRC32 mismatch in lead .* \(rhythm\)",
        DropReason.CHECKSUM_WRONG,
        "the CRC32 of a rhythm lead does not fit its samples: export it again",
    ),
    (
        r"(FirstSampleBaseline|LeadOffsetFirstSample) is non-zero .*\(rhythm\)",
        DropReason.UNREADABLE_SIGNAL,
        "a lead has a FirstSampleBaseline (or LeadOffsetFirstSample), which readers differ in: export it as DICOM",
    ),
    (
        r"CHANNEL OFFSET is non-zero",
        DropReason.UNREADABLE_SIGNAL,
        "a channel has an OFFSET, which readers differ in: export it as DICOM",
    ),
    (
        r"EDF\+D file has gaps",
        DropReason.UNREADABLE_SIGNAL,
        "an EDF+D with gaps in time: export it without interruption (EDF+C)",
    ),
    (
        r"MFER: frame \d+ starts at pointer",
        DropReason.UNREADABLE_SIGNAL,
        "its frames have gaps in time: export it without interruption",
    ),
    (
        r"ISHNE: (variable block|ECG block) offset",
        DropReason.UNREADABLE_SIGNAL,
        "its header states another place of the samples than ISHNE's layout, so that readers differ: export it again",
    ),
)

_SCP_CHECKSUMS = re.compile(r"SCP-ECG CRC mismatch in: (.*)")
# Sections that say what the samples are: pointers, Huffman tables, leads, QRS, reference beat, rhythm.
_SCP_SIGNAL = {0, 2, 3, 4, 5, 6}

_NOTES: tuple[tuple[str, str], ...] = (
    (r"CRC32 mismatch in lead .* \(median\)", "the checksum of a median beat, which is not used, is wrong"),
    (r"ISHNE checksum mismatch", "the header's checksum is wrong, as an anonymizer leaves it"),
    (r"SCP-ECG: Section \d+ length is", "a section's length is stated twice, differently: the shorter was taken"),
    (r"SCP-ECG: Section 1 has a wrong tag length", "a tag of the patient's section has a wrong length"),
    (r"SCP-ECG: Section 12", "a long-term recording in section 12 is not read"),
    (r"Additional .* waveform ignored", "a further waveform of the same kind is not read"),
    (r"\d+ rhythm series found", "further rhythm series are not read"),
    (r"\d+ sequence sets in the rhythm", "further sequence sets are not read"),
    (r"Unrecognised sequences ignored in the rhythm", "sequences that are no leads are not read"),
    (r"EDF header size field", "the header's own size is wrong"),
    (r"EDF number of data records is -1", "the recorder did not close the file: all whole records are read"),
    (r"EDF file truncated", "the file is cut off: its whole records are read"),
    (r"EDF file has \d+ byte", "bytes behind the last record are not read"),
    (r"ISHNE: (odd number of data bytes|incomplete final frame)", "the file is cut off: its whole samples are read"),
    (r"MFER: attributes for channel", "attributes of channels that do not exist are not read"),
    (r"MFER: waveform data shorter", "the file is cut off: what is not there is missing"),
    (r"MFER: frame declares", "the file states more than it holds"),
    (r"MFER: .*redefine the channels", "later frames with other channels are not read"),
    (r"MFER: no sampling interval", "no sampling interval: 1,000 Hz, as MFER then means"),
)

# Said of median beats, measurements, dates, or of what the rules for leads check themselves.
_NOTHING: tuple[str, ...] = (
    r"Leads \[.*\] (contain raw ADC samples|are not in a voltage unit)",
    r"GE MUSE: LeadAmplitudeUnits missing",
    r"(FirstSampleBaseline|LeadOffsetFirstSample) is non-zero",
    r"TYPICAL_CYCLE has no",
    r"representative beat",
    r"<repbeats>",
    r"sequence sets in the median",
    r"Unrecognised sequences ignored in the median",
    r"Sampling rate .* is not an integer",
    r"Unit .* not recognised",
    r"SCP-ECG: (Section [45]|reference beat|Section 6 amplitude multiplier)",
    r"ISHNE: stored lead \d+ has spec code -9",
    r"Sierra XML: no signal resolution",
    r"MFER: invalid (birth date|measurement time)",
    r"EDF signal .*: invalid range",
)

_NO_WAVEFORM = re.compile(
    r"No rhythm (waveform|series)|No ECG lead sequence|Section 6 \(rhythm data\) is missing|No CHANNEL waveform"
    r"|no waveform data \(MWF_WAV\)|parsedwaveforms$|holds no samples|only status channels"
)
_QUOTED = re.compile(r"'[^']*'?|\"[^\"]*\"?")


def notes_of(warnings: Iterable[str], name: str) -> tuple[str, ...]:
    """Return the notes of a record that gave these warnings. Raises RecordError if one means that it is dropped."""
    notes: dict[str, None] = {}
    for text in warnings:
        for pattern, reason, why in _DROPS:
            if re.search(pattern, text):
                raise RecordError(reason, f"{name}: {why}")
        if found := _SCP_CHECKSUMS.search(text):
            notes[_scp_checksum(found[1], name)] = None
        elif any(re.search(pattern, text) for pattern in _NOTHING):
            continue
        else:
            note = next((note for pattern, note in _NOTES if re.search(pattern, text)), None)
            notes[note or "ecgdatakit warned of something else"] = None
    return tuple(notes)


def _scp_checksum(where: str, name: str) -> str:
    """Return the note of wrong checksums `record, Section 1`. Raises RecordError if it concerns the signal."""
    wrong = {int(number) for number in re.findall(r"Section (\d+)", where)}
    if wrong & _SCP_SIGNAL:
        sections = ", ".join(str(number) for number in sorted(wrong & _SCP_SIGNAL))
        raise RecordError(
            DropReason.CHECKSUM_WRONG, f"{name}: the checksum of section {sections} is wrong: fetch it again"
        )
    return f"wrong checksums of {where}, as an anonymizer leaves them"


def error_of(kind: str, text: str, name: str) -> RecordError:
    """Return the drop that an error of the library means. kind: the error's class."""
    if "entity declarations are not allowed" in text or "Entities" in kind:
        return RecordError(
            DropReason.UNREADABLE_HEADER, f"{name}: the XML declares entities, which no export needs: export it again"
        )
    if _NO_WAVEFORM.search(text):
        return RecordError(DropReason.NO_WAVEFORM, f"{name}: it holds no rhythm: export it with its waveforms")
    reason = DropReason.UNKNOWN_FORMAT if kind == "UnsupportedFormatError" else DropReason.UNREADABLE_SIGNAL
    return RecordError(reason, f"{name}: {plain(text, name)}: export it again, or as DICOM")


def plain(text: str, name: str) -> str:
    """Return an error's text without what it quotes of the file, and without the file's name and folder."""
    text = re.sub(rf"\S*{re.escape(name)}\S*", "the file", text)
    text = _QUOTED.sub("...", text)
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= 160 else text[:157] + "..."
