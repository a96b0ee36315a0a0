"""Drops whose few bytes ask for much: a case writes its files into a folder, and says what is to become of them.

As a program: `python -m tests.support.bombs FOLDER CASE...` makes and reads cases in this process, and prints a line of
JSON for each: its name, what came of it, and how much memory the reading took at most.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from ecg_model.leads import LEADS, LEADS_12
from pipelines.incoming import INCOMING
from pipelines.incoming.listing import list_drop
from pipelines.records import DroppedRecord
from pipelines.sources.base import RemoteFile
from tests.support.hostile import ROOM, room
from tests.support.wfdb_files import flac_head, put_record

Make = Callable[[Path], None]
X_NLT = np.random.default_rng(0).normal(0, 0.3, (2, 12, 1000)).astype(np.float32)
FORM: dict[str, Any] = {"rate": 100, "units": "mV", "leads": list(LEADS_12)}

CASES: dict[str, tuple[Make, str]] = {}
"""By name: what writes a case, and a part of what is said of it."""
LARGE: dict[str, tuple[Make, str]] = {}
"""The same, of files of hundreds of megabytes."""


def case(said: str, *, large: bool = False) -> Callable[[Make], Make]:
    def add(make: Make) -> Make:
        (LARGE if large else CASES)[make.__name__.removeprefix("_")] = make, said
        return make

    return add


# csv


def _csv(folder: Path, *parts: bytes) -> None:
    (folder / "drop.json").write_text(json.dumps({"rate": 100, "units": "mV"}))
    with (folder / "a.csv").open("wb") as file:
        file.writelines(parts)


@case("names more than 64 columns")
def _csv_columns(folder: Path) -> None:
    _csv(folder, b",".join([b"1"] * 140_000) + b"\n", *[b",".join([b"1"] * 140_000) + b"\n"] * 4)


@case("its first line is empty")
def _csv_columns_behind_a_blank_line(folder: Path) -> None:
    _csv(folder, b"\n", *[b",".join([b"1"] * 140_000) + b"\n"] * 4)


@case("Expected 1 columns, got 500001")
def _csv_columns_below(folder: Path) -> None:
    _csv(folder, b"I\n", *[b"," * 500_000 + b"\n"] * 4)


@case("names more than 64 columns")
def _csv_of_one_line(folder: Path) -> None:
    _csv(folder, b"1" * (30 << 20))


@case("not a csv of numbers")
def _csv_with_a_line_without_end(folder: Path) -> None:
    _csv(folder, b"I\n", b"1" * (30 << 20))


@case("not a csv of numbers")
def _csv_with_a_field_without_end(folder: Path) -> None:
    _csv(folder, b'I,II\n1,"', b"x\n" * (15 << 20))


@case("read")
def _csv_of_short_rows(folder: Path) -> None:
    _csv(folder, b"I\n", b"1\n2\n" * 2_000_000)


@case("at most 268,435,456 are read of one record", large=True)
def _csv_beyond_the_limit(folder: Path) -> None:
    _csv(folder, b"I\n", *[b"1\n2\n" * (1 << 20)] * 65)


@case("read", large=True)
def _csv_of_eight_leads(folder: Path) -> None:
    _csv(folder, b"I,II,V1,V2,V3,V4,V5,V6\n", *[b"1,2,1,2,1,2,1,2\n2,1,2,1,2,1,2,1\n" * (1 << 19)] * 12)


@case("not a csv of numbers", large=True)
def _csv_with_a_field_of_100_mb(folder: Path) -> None:
    _csv(folder, b'I,II\n1,"', b"x" * 100_000_000, b'"\n')


# JSON


def _json(folder: Path, *parts: bytes) -> None:
    np.save(folder / "a.npy", X_NLT)
    with (folder / "a.json").open("wb") as file:
        file.writelines(parts)


@case("values, and at most 3,000,000 are read")
def _json_of_empty_objects(folder: Path) -> None:
    _json(folder, b'{"labels":[', b"{}," * 10_000_000, b"{}]}")


@case("values, and at most 3,000,000 are read")
def _json_of_keys(folder: Path) -> None:
    _json(folder, b"{", b'"":1,' * 2_000_000, b'"":1}')


@case("a list of 2 is needed")
def _json_that_just_passes(folder: Path) -> None:
    """As many values as are read, and a letter for which each of the text takes four bytes."""
    form = json.dumps({**FORM, "ids": ["a", "b"]}).encode()[:-1]
    text = "\N{GRINNING FACE}".encode() + b"x" * (27 << 20)
    _json(folder, form, b',"labels":[', b"{}," * 1_499_000, b'"', text, b'"]}')


@case("is no JSON")
def _json_nested(folder: Path) -> None:
    _json(folder, b'{"rate":' + b"[" * 1_000_000)


@case("is no JSON")
def _json_nested_objects(folder: Path) -> None:
    _json(folder, b'{"rate":' * 1_000_000)


@case("is no JSON")
def _json_number(folder: Path) -> None:
    _json(folder, b'{"rate":', b"9" * 5_000_000, b"}")


@case("at most 33,554,432 are read of a description", large=True)
def _json_of_ten_million_keys(folder: Path) -> None:
    _json(folder, b"{", *(b'"%d":1,' % n for n in range(10_000_000)), b'"":1}')


# HDF5


def _hdf5(folder: Path, write: Callable[[h5py.File], None], **fields: Any) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file.attrs.update({**FORM, **fields})
        write(file)
    return folder / "a.h5"


def _with_signals(write: Callable[[h5py.File], None]) -> Callable[[h5py.File], None]:
    def both(file: h5py.File) -> None:
        file["signals"] = X_NLT
        write(file)

    return both


def _column_case(name: str, kind: Any, said: str, **stored: Any) -> None:
    def write(file: h5py.File) -> None:
        file.create_dataset(name, (1_000_000,), kind, chunks=(1000,), **stored)
        if name != "ids":
            file["ids"] = ["a", "b"]

    def make(folder: Path) -> None:
        _hdf5(folder, _with_signals(write))

    made = f"h5_{name}_{'vlen' if kind == h5py.string_dtype() else kind}"
    CASES[made] = make, said


for _name in ("ids", "patient_ids", "ages", "sexes", "labels"):
    _column_case(_name, "S4000", "states 4,000,000,000 bytes, 0 are stored")
    _column_case(_name, "f8", "states 8,000,000 bytes, 0 are stored")
    _column_case(_name, h5py.string_dtype(), "states 8,000,000 bytes, 0 are stored", fillvalue="x" * 60_000)


@case("0 are stored")
def _h5_labels_that_are_one_text(folder: Path) -> None:
    _hdf5(
        folder, _with_signals(lambda file: file.create_dataset("ids", (2,), h5py.string_dtype(), fillvalue="x" * 100))
    )


@case("more than 64 MiB of text")
def _h5_text_that_expands(folder: Path) -> None:
    """100,000 values that all refer to one text of 100 kB."""

    def write(file: h5py.File) -> None:
        count = 100_000
        file["signals"] = np.zeros((count, 1, 1), "i1")
        file["ids"] = ["x" * 100_000] + [""] * (count - 1)

    path = _hdf5(folder, write, leads=["I"])
    with h5py.File(path) as file:
        at, count = file["ids"].id.get_offset(), len(file["ids"])
    with path.open("r+b") as file:
        file.seek(at)
        first = file.read(16)
        file.seek(at)
        file.write(first * count)


def _with_heap(length: int, *, free: bool) -> Make:
    """A heap of texts with an object, or a free space, of a length."""

    def make(folder: Path) -> None:
        path = _hdf5(folder, _with_signals(lambda file: file.__setitem__("ids", ["a", "b"])))
        data = bytearray(path.read_bytes())
        at = data.index(b"GCOL") + 16
        if free:
            data[at : at + 2] = bytes(2)
        struct.pack_into("<Q", data, at + 8, length)
        path.write_bytes(data)

    return make


for _name, _length, _free in (
    ("overflow", (1 << 64) - 16, False),
    ("back", (1 << 64) - 32, False),
    ("of_nothing", 0, True),
    ("beyond", 1 << 40, False),
):
    CASES[f"h5_heap_{_name}"] = _with_heap(_length, free=_free), "a heap of texts has an object of"


@case("would be read at once", large=True)
def _h5_text_of_200_mb(folder: Path) -> None:
    _hdf5(folder, _with_signals(lambda file: file.__setitem__("ids", ["x" * 200_000_000, "b"])))


@case("numbers with three axes are needed")
def _h5_compound(folder: Path) -> None:
    kind = np.dtype([(f"f{n}", "f8", (1000,)) for n in range(100)])
    _hdf5(folder, lambda file: file.create_dataset("signals", data=np.zeros((1, 1, 1), kind)))


@case("text or numbers are needed")
def _h5_compound_ids(folder: Path) -> None:
    kind = np.dtype([("a", "S100"), ("b", "f8")])
    _hdf5(folder, _with_signals(lambda file: file.create_dataset("ids", data=np.zeros(2, kind))))


@case("rows for 12 leads")
def _h5_leads(folder: Path) -> None:
    """A gigabyte of zeros as one record, in a megabyte."""
    plain = np.zeros((1, 1 << 20, 16), "u1")

    def write(file: h5py.File) -> None:
        stored = {"chunks": plain.shape, "compression": "gzip"}
        signals = file.create_dataset("signals", (1, 64 << 20, 16), "u1", **stored)
        packed = zlib.compress(plain.tobytes(), 9)
        for at in range(64):
            signals.id.write_direct_chunk((0, at << 20, 0), packed)
        file["ids"] = ["a"]

    _hdf5(folder, write)


@case("at most 128 MiB a chunk are read")
def _h5_chunk(folder: Path) -> None:
    def write(file: h5py.File) -> None:
        shape = (1, 12, 20_000_000)
        file.create_dataset("signals", shape, "f4", chunks=shape, compression="gzip").id.write_direct_chunk(
            (0, 0, 0), bytes(1_000_000)
        )

    _hdf5(folder, write)


@case("is packed by filter 32008")
def _h5_filter(folder: Path) -> None:
    def write(file: h5py.File) -> None:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk(X_NLT.shape)
        plan.set_filter(32008, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple(X_NLT.shape)
        made = h5py.h5d.create(file.id, b"signals", h5py.h5t.IEEE_F32LE, space, plan)
        made.write_direct_chunk((0, 0, 0), X_NLT.tobytes())
        file["ids"] = ["a", "b"]

    _hdf5(folder, write)


@case("1,000,001 records: at most 1,000,000 are read of a file or a drop")
def _h5_records(folder: Path) -> None:
    _hdf5(folder, lambda file: file.__setitem__("signals", np.zeros((1_000_001, 1, 1), "i1")), leads=["I"])


# NumPy


def _head(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": kind, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _npz(folder: Path) -> Path:
    (folder / "a.json").write_text(json.dumps(FORM))
    return folder / "a.npz"


@case("100,000,000 records")
def _npy_records(folder: Path) -> None:
    (folder / "a.json").write_text(json.dumps({**FORM, "leads": ["I"]}))
    head = _head((100_000_000, 1, 1), "|i1")
    with (folder / "a.npy").open("wb") as file:
        file.write(head)
        file.truncate(len(head) + 100_000_000)


@case("not a NumPy array")
def _npy_head(folder: Path) -> None:
    (folder / "a.json").write_text(json.dumps({**FORM, "ids": ["a"]}))
    with (folder / "a.npy").open("wb") as file:
        file.write(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2_000_000_000))
        file.truncate(2_000_000_100)


@case("rows for 12 leads")
def _npz_of_zeros(folder: Path) -> None:
    """A thousand times as large unpacked."""
    with zipfile.ZipFile(_npz(folder), "w", zipfile.ZIP_DEFLATED) as archive, archive.open("r.npy", "w") as member:
        member.write(_head((16, 1_000_000)))
        for _ in range(64):
            member.write(bytes(1_000_000))


@case("packed by a method other than deflate")
def _npz_lzma(folder: Path) -> None:
    with zipfile.ZipFile(_npz(folder), "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("r.npy", _head((12, 1_000_000)) + bytes(5_000_000))


@case("not a NumPy array")
def _npz_in_npz(folder: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("r.npy", bytes(10_000_000))
    with zipfile.ZipFile(_npz(folder), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("r.npy", inner.getvalue())


@case("its members overlap")
def _npz_overlap(folder: Path) -> None:
    """Four thousand entries for one member."""
    path = _npz(folder)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0000.npy", _head((12, 1000)) + bytes(48_000))
    data = path.read_bytes()
    at = data.rfind(b"PK\1\2")
    entry = data[at : data.rfind(b"PK\5\6")]
    entries = b"".join(entry.replace(b"0000.npy", b"%04d.npy" % n) for n in range(4000))
    path.write_bytes(data[:at] + entries + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 4000, 4000, len(entries), at, 0))


@case("states 536,870,912 bytes in")
def _npz_that_states_more_than_it_can_hold(folder: Path) -> None:
    path = _npz(folder)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("r.npy", _head((12, 1000)) + bytes(48_000))
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rfind(b"PK\1\2") + 24, 1 << 29)
    path.write_bytes(data)


@case("its directory cannot be read")
def _npz_directory(folder: Path) -> None:
    """A directory of 400,000 members that are not there."""
    entries = (b"PK\1\2" + bytes(24) + struct.pack("<H", 8) + bytes(16) + b"0000.npy") * 400_000
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(entries), 0, 0)
    _npz(folder).write_bytes(entries + end)


@case("read", large=True)
def _npz_of_300000(folder: Path) -> None:
    with zipfile.ZipFile(_npz(folder), "w") as archive:
        for n in range(150_000):
            archive.writestr(f"{n}.npy", b"")


# WFDB


def _wfdb(folder: Path, header: bytes, samples: int = 1000, ending: str = ".dat") -> None:
    (folder / "a.hea").write_bytes(header)
    with (folder / f"a{ending}").open("wb") as file:
        file.truncate(samples)


@case("at most 1,048,576 are read of a header")
def _hea_of_comments(folder: Path) -> None:
    _wfdb(folder, b"a 1 500 500\na.dat 16 1000/mV 16 0 0 0 0 I\n" + b"#\n" * 1_000_000)


@case("9999 leads: at most 64 are read")
def _hea_leads(folder: Path) -> None:
    _wfdb(folder, b"a 9999 500 500\n" + b"a.dat 16 1000/mV 16 0 0 0 0 I\n" * 9999)


@case("record line")
def _hea_leads_beyond(folder: Path) -> None:
    _wfdb(folder, b"a 1000000000 500 500\na.dat 16 1000/mV 16 0 0 0 0 I\n")


@case("record line")
def _hea_samples_beyond(folder: Path) -> None:
    _wfdb(folder, b"a 1 500 1000000000000000000\na.dat 16 1000/mV 16 0 0 0 0 I\n")


@case("wrong file size")
def _hea_samples(folder: Path) -> None:
    _wfdb(folder, b"a 1 500 999999999999\na.dat 16 1000/mV 16 0 0 0 0 I\n")


@case("at most 268,435,456 are read of one record")
def _dat_sparse(folder: Path) -> None:
    _wfdb(folder, b"a 1 500 0\na.dat 16 1000/mV 16 0 0 0 0 I\n", samples=10 << 30)


@case("its signal files have 17,179,869,184 bytes")
def _dat_of_each_lead(folder: Path) -> None:
    lines = [f"a{n}.dat 16 1000/mV 16 0 0 0 0 I\n" for n in range(64)]
    _wfdb(folder, f"a 64 500 0\n{''.join(lines)}".encode())
    for n in range(64):
        with (folder / f"a{n}.dat").open("wb") as file:
            file.truncate(256 << 20)


@case("the name of a file beside the header is needed")
def _hea_of_a_long_name(folder: Path) -> None:
    _wfdb(folder, b"a 1 500 500\n" + b"x" * 300 + b".dat 16 1000/mV 16 0 0 0 0 I\n")


@case("not that of a MATLAB 4 matrix")
def _mat_of_version_5(folder: Path) -> None:
    """Twelve megabytes of zeros, deflated, where a matrix of version 4 is expected."""
    scipy.io.savemat(folder / "a.mat", {"val": np.zeros((12, 500_000), "i2")}, do_compression=True)
    size = (folder / "a.mat").stat().st_size
    lines = [f"a.mat 16+24 1000/mV 16 0 0 0 0 {lead}\n" for lead in LEADS_12]
    samples = (size - 24) // 24
    with (folder / "a.mat").open("r+b") as file:
        file.truncate(24 + 24 * samples)
    (folder / "a.hea").write_text(f"a 12 500 {samples}\n{''.join(lines)}")


@case("wrong file size")
def _hea_samples_of_12_bits(folder: Path) -> None:
    _wfdb(folder, b"a 1 500 999999999999\na.dat 212 1000/mV 12 0 0 0 0 I\n")


@case("at most 16,777,216 are read of a file of format 80")
def _dat_of_8_bits(folder: Path) -> None:
    _wfdb(folder, b"a 1 500 0\na.dat 80 1000/mV 8 0 0 0 0 I\n", samples=(16 << 20) + 1)


@case("549,755,813,880 samples: at most 16,777,216")
def _flac(folder: Path) -> None:
    """As many samples as FLAC can state."""
    frames = (1 << 36) - 1
    header = put_record(folder, np.zeros((1000, 8), int), "516", leads=LEADS)
    header.write_text(header.read_text().replace(" 1000\n", f" {frames}\n", 1))
    file = header.with_suffix(".dat")
    file.write_bytes(flac_head(file.read_bytes(), frames))


@case("read", large=True)
def _flac_of_silence(folder: Path) -> None:
    """As much as is read of FLAC, a thousand times as large as the file."""
    put_record(folder, np.zeros((2 << 20, 8), int), "516", leads=LEADS)


@case("samples with gaps: at most 67,108,864")
def _hea_of_a_gap(folder: Path) -> None:
    header = put_record(folder, np.ones((1000, 8), int), "16", leads=LEADS)
    (folder / "m.hea").write_text(f"m/2 8 500 0\n{header.stem} 1000\n~ 99999999999\n")


@case("at most 10,000 are read")
def _hea_of_segments(folder: Path) -> None:
    header = put_record(folder, np.ones((1000, 8), int), "16", leads=LEADS)
    (folder / "m.hea").write_text("m/100000 8 500 0\n" + f"{header.stem} 1000\n" * 100_000)


@case("at most 67,108,864")
def _hea_of_segments_that_repeat(folder: Path) -> None:
    """A record of 16 kilobytes, ten thousand times."""
    header = put_record(folder, np.ones((1000, 8), int), "16", leads=LEADS)
    (folder / "m.hea").write_text("m/10000 8 500 0\n" + f"{header.stem} 1000\n" * 10_000)


@case("is believed of a lead that fills 16 bits", large=True)
def _dat_of_one_lead(folder: Path) -> None:
    _wfdb(folder, b"a 1 500 0\na.dat 16 1000000/mV 16 0 0 0 0 I\n", samples=256 << 20)


# Reading them


def read(folder: Path) -> str:
    """Return what is said of a drop: `read`, the first reason and its detail, or why the whole is refused."""
    files = [RemoteFile(file.path, "sha256:" + "0" * 64) for file in list_drop(folder).files]
    first, kinds = "", Counter[str]()
    try:
        for item in INCOMING.read(folder, folder.name, files):
            dropped = isinstance(item, DroppedRecord)
            kinds["dropped" if dropped else "read"] += 1
            if isinstance(item, DroppedRecord):
                first = first or f"{item.reason}: {item.detail[:300]}"
    except ValueError as error:
        return f"refused: {error}"
    return first or "read"


def measured(folder: Path) -> tuple[str, int]:
    """Read a drop with no more than ROOM; return what is said of it, and the bytes that it took at most."""
    with room(ROOM):
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        said = read(folder)
        return said, _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    folder, *names = sys.argv[1:]
    for name in names or (*CASES, *LARGE):
        here = Path(folder) / name
        here.mkdir(parents=True)
        (CASES | LARGE)[name][0](here)
        print(json.dumps([name, *measured(here)]), flush=True)
        shutil.rmtree(here)


if __name__ == "__main__":
    main()
