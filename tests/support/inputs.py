"""A small valid input of every format that is read from outside, each with its reader, to be damaged.

The files are made here, from a simulated mirror, and from real ECGs where they lie beside the repository.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import encoder_bytes, load_encoder, random_encoder
from ecg_model.leads import LEADS, LEADS_12
from ecg_model.reference import published_name
from ecg_model.serving.classify import CalibratedHead
from pipelines.download.mirror import Mirror, list_source
from pipelines.encoders.import_reference import read_released
from pipelines.evaluate.suite.own_labels import read_labels
from pipelines.formats.vendor.read import read_vendor
from pipelines.formats.wfdb_annotations import parse_marks
from pipelines.formats.wfdb_header import FORMATS
from pipelines.incoming import INCOMING
from pipelines.incoming.listing import list_drop
from pipelines.records import DroppedRecord, Record, RecordError
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES
from pipelines.sources.base import RemoteFile, Source
from pipelines.sources.code15 import parse_api
from pipelines.sources.physionet import parse_sums
from tests.support.paths import SHARED
from tests.support.vendor_files import WRITERS, Ecg, counts
from tests.support.wfdb_files import put_record

REAL = SHARED / "real" / "mirror"
VENDOR = SHARED / "vendor"
SIZES = MirrorSizes(chapman=(2,), code15=(4,), ptbxl=(2,), cpsc2018=(2,), georgia=(2,), ludb=2)
SMALL = EncoderConfig(dim=16, depth=1, heads=2, patches=10, patch_size=5)


@dataclass(frozen=True)
class Case:
    """One file under test."""

    name: str
    file: Path
    read: Callable[[], Iterable[Record | DroppedRecord] | None]
    """The entry by which the product reads it: the records that it belongs to, or None for what holds no records."""
    text: bool = False
    checked: bool = False
    """Whether a checksum guards it: a record that is still read then has the very same samples."""


def all_cases(root: Path) -> list[Case]:
    """Write the files of all cases below `root`."""
    write_mirror(root / "mirror", seed=1, sizes=SIZES)
    cases = [
        *wfdb_cases(root / "mirror", root, "simulated"),
        *part_cases(root, root / "mirror"),
        *own_cases(root),
        *weight_cases(root),
        *table_cases(root),
        *vendor_cases(root),
    ]
    return cases + list(wfdb_cases(REAL, root, "real")) if REAL.is_dir() else cases


def record_of(
    source: Source, root: Path, listing: Sequence[RemoteFile]
) -> Callable[[], Iterator[Record | DroppedRecord]]:
    partition = source.partition_of(listing[0].path)
    assert partition is not None
    return lambda: source.read(root, partition, listing)


def vendor_cases(root: Path) -> Iterator[Case]:
    """A file of each vendor's format: ours, and real ones."""

    def reader(file: Path) -> Callable[[], list[Record | DroppedRecord]]:
        def read() -> list[Record | DroppedRecord]:
            try:
                reading = read_vendor(file)
            except RecordError as error:
                return [error.dropped(file.name)]
            return [Record(record_id="x", signal_LT=reading.signal_LT, leads=reading.leads, rate=reading.rate)]

        return read

    written = {name: write(Ecg(d_LT=counts(8, 6000))) for name, write in WRITERS.items()}
    real = [file for file in sorted(VENDOR.glob("*/*")) if file.parent.name != "unknown"]
    for name, data in (*written.items(), *((f"real-{file.name}", file.read_bytes()) for file in real)):
        file = root / "vendor" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
        # SCP-ECG has a checksum of each section.
        yield Case(f"vendor {name}", file, reader(file), text=name.endswith(".xml"), checked=name.endswith(".scp"))


def wfdb_cases(mirror: Path, root: Path, tag: str) -> Iterator[Case]:
    """Header, signal file and tables of a record of each WFDB source, copied below root."""
    for name, source in SOURCES.items():
        if name == "code15":
            continue
        listing = list_source(source, Mirror.parse(str(mirror)), raw_root=root / "lists")
        headers = [file for file in listing if file.path.endswith(".hea") and source.partition_of(file.path)]
        if not headers:
            continue
        stem = headers[0].path.removesuffix(".hea")
        own = [file for file in listing if file.path.rsplit(".", 1)[0] == stem]
        tables = [file for file in listing if source.shared(file.path)]
        here = root / tag / name
        for file in (*own, *tables):
            (here / file.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(mirror / file.path, here / file.path)
        read = record_of(source, here, [file for file in own if source.partition_of(file.path)])
        for file in (*own, *tables):
            suffix = Path(file.path).suffix
            if suffix in (".hea", ".csv", ".dat", ".mat"):
                signal = suffix in (".dat", ".mat")
                yield Case(f"{tag} {name} {suffix}", here / file.path, read, text=not signal, checked=signal)


def part_cases(root: Path, mirror: Path) -> Iterator[Case]:
    """The archive, its HDF5 file and the table of a small part."""
    source = SOURCES["code15"]
    part = next((mirror / source.root / "files").glob("exams_part*.zip"))
    table = part.with_name("exams.csv")
    folder = root / "code15" / source.root / "files"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(part) as archive:
        (member,) = archive.namelist()
        whole = h5py.File(io.BytesIO(archive.read(member)), "r")
    small = io.BytesIO()
    with h5py.File(small, "w") as file:
        file["exam_id"], file["tracings"] = whole["exam_id"][:2], whole["tracings"][:2]
    with zipfile.ZipFile(folder / part.name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, small.getvalue())
    shutil.copy(table, folder / "exams.csv")
    inner = folder / "inner.hdf5"
    inner.write_bytes(small.getvalue())
    files = [RemoteFile(f"{source.root}/files/{part.name}", "md5:" + "0" * 32)]
    read = record_of(source, root / "code15", files)

    def read_inner() -> Iterator[Record | DroppedRecord]:
        with zipfile.ZipFile(folder / part.name, "w") as archive:
            archive.write(inner, member)
        yield from read()

    yield Case("code15 hdf5", inner, read_inner)
    yield Case("code15 exams.csv", folder / "exams.csv", read_inner, text=True)
    yield Case("code15 zip", folder / part.name, read)


def own_cases(root: Path) -> Iterator[Case]:
    """A drop of each format, with the description that lies beside it."""
    for kind, write in _DROPS.items():
        folder = root / "own" / kind
        folder.mkdir(parents=True)
        ecg, description = write(folder)
        read = partial(_read_drop, folder)
        yield Case(f"own {kind}", ecg, read, text=ecg.suffix in (".csv", ".hea"))
        if description is not None:
            yield Case(f"own {kind} json", description, read, text=True)
        if ecg.suffix == ".npz":
            yield _member_case(f"own {kind} array", ecg, read)
        if ecg.suffix == ".hea":
            for file in sorted(folder.iterdir()):
                if file != ecg:
                    named = file.suffix if file.stem == ecg.stem else file.name
                    yield Case(f"own {kind} {named}", file, read, text=file.suffix == ".hea")


def _member_case(name: str, archive: Path, read: Callable[[], Iterator[Record | DroppedRecord]]) -> Case:
    """Damage an array of an archive that is itself sound."""
    with zipfile.ZipFile(archive) as stored:
        members = {member: stored.read(member) for member in stored.namelist()}
    # Hidden, so that it is no file of the drop.
    first, inner = min(members), archive.parent / ".inner"
    inner.write_bytes(members[first])

    def read_with() -> Iterator[Record | DroppedRecord]:
        with zipfile.ZipFile(archive, "w") as changed:
            for member, data in members.items():
                changed.writestr(member, inner.read_bytes() if member == first else data)
        yield from read()

    return Case(name, inner, read_with)


def _read_drop(folder: Path) -> Iterator[Record | DroppedRecord]:
    return INCOMING.read(folder, folder.name, [_listed(file.path) for file in list_drop(folder).files])


def _listed(path: str) -> RemoteFile:
    return RemoteFile(path, "sha256:" + "0" * 64)


X_NLT = np.random.default_rng(0).normal(0, 0.3, (2, 12, 1000)).astype(np.float32)
_FORM: dict[str, Any] = {"rate": 100, "leads": list(LEADS_12), "units": "mV"}
_PEOPLE = {"patient_ids": ["p1", None], "ages": [63, "71"], "sexes": ["male", "F"], "labels": [["AF", "SR"], "AF"]}


def _described(file: Path, **fields: Any) -> tuple[Path, Path]:
    description = file.with_suffix(".json")
    description.write_text(json.dumps({**_FORM, **_PEOPLE, **fields}))
    return file, description


def _npy(folder: Path) -> tuple[Path, Path]:
    np.save(folder / "a.npy", X_NLT)
    return _described(folder / "a.npy", ids=["a0", "a1"])


def _npz(save: Callable[..., None], folder: Path) -> tuple[Path, Path]:
    save(folder / "a.npz", a0=X_NLT[0], a1=X_NLT[1])
    return _described(folder / "a.npz")


def _csv(folder: Path) -> tuple[Path, Path]:
    ecg, description = folder / "a.csv", folder / "drop.json"
    np.savetxt(ecg, X_NLT[0].T, delimiter=",", header=",".join(LEADS_12), comments="", fmt="%.4f")
    description.write_text(json.dumps({"rate": 100, "units": "mV"}))
    return ecg, description


def _hdf5(folder: Path, *, chunks: bool, text: Any, libver: str | None = None) -> tuple[Path, None]:
    stored = {"chunks": True, "compression": "gzip", "shuffle": True} if chunks else {}
    with h5py.File(folder / "a.h5", "w", libver=libver) as file:
        file.create_dataset("signals", data=X_NLT, **stored)
        for name, values in {"ids": ["a0", "a1"], "sexes": ["male", "F"], "labels": ["AF", "SR"]}.items():
            file.create_dataset(name, data=np.array(values, object if text is None else text), **stored)
        file["ages"] = [63, 71]
        file.attrs.update({"rate": 100, "units": "mV", "leads": LEADS_12})
    return folder / "a.h5", None


def _wfdb(folder: Path) -> tuple[Path, None]:
    d_LT = np.round(X_NLT[0] * 1000).astype("<i2")
    (folder / "a.dat").write_bytes(d_LT.T.tobytes())
    lines = [
        f"a.dat 16 1000(0)/mV 16 0 {d_T[0]} {int(d_T.sum(dtype=np.int64)) % 65536} 0 {lead}"
        for lead, d_T in zip(LEADS_12, d_LT, strict=True)
    ]
    people = ["#Age: 63", "#Sex: Female", "#Dx: 164889003,270492004", "#Patient: p17"]
    (folder / "a.hea").write_text("\n".join([f"a 12 100 {d_LT.shape[1]}", *lines, *people]) + "\n")
    return folder / "a.hea", None


def _wfdb_form(number: str, folder: Path, **form: Any) -> tuple[Path, None]:
    """A record in a format of fewer or more bits, or in FLAC."""
    d_LT = np.round(X_NLT[0, :8] * 60).clip(-120, 120).astype(int)
    return put_record(folder, d_LT.T, number, leads=LEADS, gain=60, **form), None


def _wfdb_segments(folder: Path) -> tuple[Path, None]:
    for at, number in enumerate(("16", "212")):
        d_LT = np.round(X_NLT[at, :8] * 150).astype(int)
        put_record(folder, d_LT.T, number, name=f"s{at}", leads=LEADS, gain=200, comments=["Age: 63"])
    (folder / "m.hea").write_text("m/3 8 500 2010\ns0 1000\n~ 10\ns1 1000\n# Patient: p1\n")
    return folder / "m.hea", None


_DROPS: dict[str, Callable[[Path], tuple[Path, Path | None]]] = {
    "npy": _npy,
    "npz": partial(_npz, np.savez),
    "npz deflated": partial(_npz, np.savez_compressed),
    "csv": _csv,
    "h5": partial(_hdf5, chunks=False, text=None),
    "h5 chunks": partial(_hdf5, chunks=True, text=None),
    "h5 fixed text": partial(_hdf5, chunks=True, text="S8"),
    "h5 latest": partial(_hdf5, chunks=True, text=None, libver="latest"),
    "wfdb": _wfdb,
    **{f"wfdb {number}": partial(_wfdb_form, number) for number in FORMATS if number not in ("8", "16")},
    "wfdb frames": partial(_wfdb_form, "16", per_frame=[4] * 8, skew=[0, 3] * 4, ahead=24),
    "wfdb segments": _wfdb_segments,
}


def weight_cases(root: Path) -> Iterator[Case]:
    """Files of weights: an encoder, a classifier's head, a released `.pth`, zipped and in the older format."""
    folder = root / "weights"
    folder.mkdir()
    encoder = random_encoder(SMALL, 1)
    own = folder / "encoder.safetensors"
    own.write_bytes(encoder_bytes(encoder))
    yield Case("encoder safetensors", own, partial(_done, load_encoder, own))
    head, ones = folder / "head.safetensors", np.ones(2)
    head.write_bytes(
        CalibratedHead(
            labels=("a", "b"), weight_CD=np.ones((2, 3)), bias_C=ones, slope_C=ones, intercept_C=ones
        ).to_bytes()
    )
    yield Case("head safetensors", head, partial(_done, CalibratedHead.load, head))
    weights = {published_name(name): value for name, value in encoder.state_dict().items()}
    content = {"encoder": weights | {"pos_embed": encoder.positions_LPD.flatten(0, 1)[None]}, "epoch": 9}
    for zipped in (True, False):
        released = folder / f"released-{zipped}.pth"
        torch.save(content, released, _use_new_zipfile_serialization=zipped)
        yield Case(f"released {'zip' if zipped else 'old'}", released, partial(_done, _read_released, released))


def _read_released(file: Path) -> None:
    with file.open("rb") as stream:
        read_released(stream, SMALL)


def table_cases(root: Path) -> Iterator[Case]:
    """Lists, annotations and labels: what is parsed beside ECGs."""
    folder = root / "tables"
    folder.mkdir()

    def case(name: str, data: bytes, parse: Callable[[Path], Any], *, text: bool = True) -> Case:
        file = folder / name
        file.write_bytes(data)
        return Case(name, file, partial(_done, parse, file), text=text)

    sums = "\n".join(f"{n:064x} WFDBRecords/01/010/JS{n:05d}.hea" for n in range(20))
    yield case(
        "SHA256SUMS.txt", sums.encode(), lambda file: parse_sums(file.read_bytes().decode("utf-8", "replace"), "x/1.0")
    )
    files = [{"key": f"exams_part{n}.zip", "checksum": f"md5:{n:032x}", "size": 1000 + n} for n in range(18)]
    yield case("4916206.json", json.dumps({"files": files}).encode(), lambda file: parse_api(file.read_bytes(), "x"))
    yield case("labels.csv", b"record_id,label\na0,AF\na1,SR\n" * 3, read_labels)
    words = [(code << 10) | 100 for code in (39, 24, 40, 39, 1, 40, 39, 27, 40) * 20]
    marks = np.array([*words, 0], "<u2").tobytes()
    yield case("1.i", marks, lambda file: parse_marks(file.read_bytes(), "1.i"), text=False)


def _done(read: Callable[[Path], Any], file: Path) -> None:
    read(file)
