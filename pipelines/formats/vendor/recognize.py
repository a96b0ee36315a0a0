"""Name a vendor's format by the first bytes of a file. No XML is parsed here, and no entity expanded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath

HEAD = 1 << 16
"""How many bytes of a file are looked at."""

# The library that reads XML looks for marks in as many bytes.
_XML_HEAD = 4096
_DICOM_MARK = 128
_DICOM_DIRECTORY = re.compile(rb"1\.2\.840\.10008\.1\.3\.10(?![\d.])")
_NAME = re.compile(r"<([^\W\d][\w.:-]{0,99})")
_MORTARA = ("ACQUISITION_TIME", "<TYPICAL_CYCLE", "<CHANNEL", "<DEMOGRAPHIC_FIELDS", "<SUBJECT", "MORTARA", "ELI LINK")


class Kind(StrEnum):
    """A format that is read."""

    DICOM = "DICOM"
    SCP = "SCP-ECG"
    AECG = "HL7 aECG"
    MUSE = "GE MUSE XML"
    PHILIPS = "Philips XML"
    MORTARA = "Mortara ELI XML"
    ISHNE = "ISHNE"
    MFER = "MFER"
    EDF = "EDF"


@dataclass(frozen=True)
class Unread:
    """A file that is known, or claims by its ending, to be a vendor's, and is not read."""

    what: str
    """What it is."""
    instead: str
    """What to do."""
    ignored: bool = False
    """Whether it never holds an ECG, so that leaving it out loses none (DICOMDIR)."""


ENDINGS = (".dcm", ".dicom", ".scp", ".ecg", ".xml", ".mwf", ".mfer", ".mfr", ".edf")
"""Endings, in lower case, that vendors' files have. DICOM is found without one, too."""

_EXPORT = "export it as DICOM or HL7 aECG"
_READ = f"read are {', '.join(Kind)}: {_EXPORT}"
_MARKS = {
    ".dcm": "DICOM has the mark DICM at byte 128",
    ".dicom": "DICOM has the mark DICM at byte 128",
    ".scp": "SCP-ECG begins with a section 0 that points to itself, which other makers' .scp (Healforce) do not have",
    ".ecg": "ISHNE begins with ISHNE1.0",
    ".edf": "EDF begins with a 0 and seven spaces",
    ".mwf": "MFER begins with the mark MFR",
    ".mfer": "MFER begins with the mark MFR",
    ".mfr": "MFER begins with the mark MFR",
}
_ROOTS = {"AnnotatedECG": Kind.AECG, "restingecgdata": Kind.PHILIPS, "RestingECG": Kind.MUSE}
# Documents of other makers, by the last part of their root's name.
_FOREIGN_ROOTS = {
    "CardiologyXML": "GE CardioSoft XML",
    "SchillerEDI": "Schiller SEMA XML",
    "ClinicalDocument": "an HL7 CDA report",
}


def recognize(head: bytes, name: str) -> Kind | Unread | None:
    """Return the format of a file, from its first HEAD bytes and its name; None if it is no vendor's file."""
    suffix = PurePath(name).suffix.lower()
    if head[_DICOM_MARK : _DICOM_MARK + 4] == b"DICM":
        if PurePath(name).name.upper() == "DICOMDIR" or _DICOM_DIRECTORY.search(head, _DICOM_MARK, 1024):
            return Unread("a DICOM directory", "the files that it lists are read by themselves", ignored=True)
        return Kind.DICOM
    if kind := _by_mark(head):
        return kind
    text = text_of(head).lstrip()
    if text.startswith("<"):
        return _by_root(text, suffix)
    if suffix in (".mwf", ".mfer", ".mfr") and head[:1] in (b"\x01", b"\x02", b"\x03", b"\x40", b"\x3f", b"\x08"):
        return Kind.MFER  # without the mark, which is optional: by its ending and first tag
    if suffix in _MARKS:
        return Unread(f"a {suffix} file of another kind ({_MARKS[suffix]})", _EXPORT)
    if suffix == ".xml":
        return Unread("a file that does not begin as XML", _EXPORT)
    return None


def _by_mark(head: bytes) -> Kind | None:
    if head[:8] == b"ISHNE1.0":
        return Kind.ISHNE
    if head[:8] == b"0       " and len(head) >= 256:
        return Kind.EDF
    if head[0:1] == b"\x40" and head[2:6] == b"MFR ":
        return Kind.MFER
    # SCP-ECG: the id of section 0, and its first pointer, which is to itself at byte 7.
    section, pointer = head[8:10], (head[22:24], head[28:32])
    return Kind.SCP if section == b"\0\0" and pointer == (b"\0\0", b"\7\0\0\0") else None


def text_of(data: bytes) -> str:
    """Return a document's text by its byte order mark; without one, each byte is a character."""
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8")):
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    return data.decode("latin-1")


def root_of(text: str) -> str | None:
    """Return the name of the root element, without its namespace's prefix; None if it is not in this text."""
    at = 0
    while (at := text.find("<", at)) >= 0:
        if text.startswith("<?", at):
            at = _after(text, "?>", at)
        elif text.startswith("<!--", at):
            at = _after(text, "-->", at + 4)
        elif text.startswith("<!", at):
            at = _after_declaration(text, at)
        else:
            found = _NAME.match(text, at)
            return found[1].rsplit(":", 1)[-1] if found else None
    return None


def _after(text: str, end: str, at: int) -> int:
    found = text.find(end, at)
    return len(text) if found < 0 else found + len(end)


def _after_declaration(text: str, at: int) -> int:
    """Return the end of `<!DOCTYPE ...>`, with or without an internal subset in brackets."""
    end, bracket = text.find(">", at), text.find("[", at)
    if 0 <= bracket < end:
        end = text.find(">", _after(text, "]", bracket) - 1)
    return len(text) if end < 0 else end + 1


def _by_root(text: str, suffix: str) -> Kind | Unread | None:
    root = root_of(text)
    if root is None:
        return Unread("XML without a root element in its beginning", _EXPORT) if suffix == ".xml" else None
    if root in _ROOTS:
        return _ROOTS[root]
    if root == "ECG" and any(mark in text[:_XML_HEAD].upper() for mark in _MORTARA):
        return Kind.MORTARA
    if what := _FOREIGN_ROOTS.get(root.rsplit(".", 1)[-1]):
        return Unread(f"{what} (root {root})", _EXPORT)
    return Unread(f"XML with the root {root}", _READ) if suffix == ".xml" else None
