"""Damaged files of every format that is read: a record, a drop with its reason, or one ValueError; nothing else.

Each case is one file of one record, mutated over and over from a seed. Where a header carries checksums, a record that
is still accepted after its signal file was mutated has the very same samples.
"""

from __future__ import annotations

import io
import json
import resource
import shutil
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from ecg_model.signal import LEADS_12
from pipelines.download.mirror import Mirror, list_source
from pipelines.formats.wfdb_annotations import parse_marks
from pipelines.incoming import INCOMING
from pipelines.incoming.listing import list_drop
from pipelines.records import DroppedRecord, DropReason, Record
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES
from pipelines.sources.base import RemoteFile, Source
from pipelines.sources.physionet import parse_sums
from tests.support.paths import SHARED

REAL = SHARED / "real" / "mirror"
SIZES = MirrorSizes(chapman=(2,), code15=(4,), ptbxl=(2,), cpsc2018=(2,), georgia=(2,), ludb=2)

# What a text field is replaced by. Lengths and rates are the dangerous ones: they decide how much is allocated.
NUMBERS = ("", "-1", "0", "1e9", "99999999999999999999", "nan", "inf", "-inf", "1e-300", "0x10", "12,5", "٣")
NAMES = ("..", "../../etc/passwd", "/etc/passwd", "a\\b", "nul\0", "é", "C:\\x", "JS00001.hea")


@dataclass(frozen=True)
class Case:
    """One file under test. read: what the product makes of the record it belongs to. checked: a checksum guards it."""

    name: str
    file: Path
    read: Callable[[], Iterator[Record | DroppedRecord]]
    text: bool
    checked: bool = False


# Mutations: bytes -> bytes


def bit_flipped(data: bytearray, rng: np.random.Generator) -> bytearray:
    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return data


def flipped(data: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(int(rng.integers(1, 5))):
        data = bit_flipped(data, rng)
    return data


def overwritten(data: bytearray, rng: np.random.Generator) -> bytearray:
    at, count = int(rng.integers(len(data))), int(rng.integers(1, 33))
    fill = (rng.bytes(count), b"\xff" * count, b"\0" * count)[int(rng.integers(3))]
    data[at : at + count] = fill[: len(data) - at]
    return data


def inserted(data: bytearray, rng: np.random.Generator) -> bytearray:
    at = int(rng.integers(len(data) + 1))
    return data[:at] + rng.bytes(int(rng.integers(1, 9))) + data[at:]


def cut(data: bytearray, rng: np.random.Generator) -> bytearray:
    first, last = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    return data[:first] if rng.random() < 0.5 else data[:first] + data[last:]


def line_doubled(data: bytearray, rng: np.random.Generator) -> bytearray:
    lines = bytes(data).split(b"\n")
    at = int(rng.integers(len(lines)))
    return bytearray(b"\n".join([*lines[:at], lines[at], *lines[at:]]))


def line_lost(data: bytearray, rng: np.random.Generator) -> bytearray:
    lines = bytes(data).split(b"\n")
    del lines[int(rng.integers(len(lines)))]
    return bytearray(b"\n".join(lines))


def word_replaced(data: bytearray, rng: np.random.Generator) -> bytearray:
    text = bytes(data).decode("utf-8", "replace")
    separator = [" ", ",", ":", "/"][int(rng.integers(4))]
    words = text.split(separator)
    choices = NUMBERS if rng.random() < 0.7 else NAMES
    words[int(rng.integers(len(words)))] = choices[int(rng.integers(len(choices)))]
    return bytearray(separator.join(words).encode())


ANY = (flipped, overwritten, inserted, cut)
# Two flips may cancel in a 16-bit sum: what a header's checksum cannot see, the download's SHA-256 does.
CHECKED = (bit_flipped, *ANY[1:])
TEXT = (*ANY, line_doubled, line_lost, word_replaced, word_replaced, word_replaced)


def mutated(data: bytes, case: Case, rng: np.random.Generator) -> bytes:
    kinds = TEXT if case.text else CHECKED if case.checked else ANY
    # The first kilobytes of a binary file say what the rest is: half of the changes go there.
    head = len(data) if case.text or rng.random() < 0.5 else min(len(data), 4096)
    changed = bytearray(data[:head])
    for _ in range(1 if case.checked else int(rng.integers(1, 3))):
        if changed:
            changed = kinds[int(rng.integers(len(kinds)))](changed, rng)
    return bytes(changed) + data[head:]


# Cases


def record_of(
    source: Source, root: Path, listing: Sequence[RemoteFile]
) -> Callable[[], Iterator[Record | DroppedRecord]]:
    partition = source.partition_of(listing[0].path)
    assert partition is not None
    return lambda: source.read(root, partition, listing)


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
            if suffix in (".hea", ".csv") or suffix in (".dat", ".mat"):
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
    for name in (part.name, "inner.hdf5"):
        with zipfile.ZipFile(folder / name.replace("inner.hdf5", part.name), "w") as archive:
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

    yield Case("code15 hdf5", inner, read_inner, text=False)
    yield Case("code15 exams.csv", folder / "exams.csv", read_inner, text=True)
    yield Case("code15 zip", folder / part.name, read, text=False)


def own_cases(root: Path) -> Iterator[Case]:
    """A drop of each format, with the description that lies beside it."""
    x_NLT = np.random.default_rng(0).normal(0, 0.3, (2, 12, 1000)).astype(np.float32)
    settings = {"rate": 100, "leads": list(LEADS_12), "units": "mV"}

    def drop(name: str) -> tuple[Path, Callable[[], Iterator[Record | DroppedRecord]]]:
        folder = root / "own" / name
        folder.mkdir(parents=True)

        def read() -> Iterator[Record | DroppedRecord]:
            return INCOMING.read(folder, name, [_listed(file.path) for file in list_drop(folder).files])

        return folder, read

    for kind in ("npy", "npz", "h5", "csv"):
        folder, read = drop(kind)
        file, description = folder / f"a.{kind}", folder / "a.json"
        if kind == "npy":
            np.save(file, x_NLT)
            description.write_text(json.dumps({**settings, "ids": ["a0", "a1"]}))
        elif kind == "npz":
            np.savez(file, a0=x_NLT[0], a1=x_NLT[1])
            description.write_text(json.dumps(settings))
        elif kind == "h5":
            with h5py.File(file, "w") as h5:
                h5["signals"], h5["ids"] = x_NLT, ["a0", "a1"]
                h5.attrs.update({"rate": 100, "units": "mV", "leads": LEADS_12})
        else:
            np.savetxt(file, x_NLT[0].T, delimiter=",", header=",".join(LEADS_12), comments="", fmt="%.4f")
            description = folder / "drop.json"
            description.write_text(json.dumps({"rate": 100, "units": "mV"}))
        yield Case(f"own {kind}", file, read, text=kind == "csv")
        if description.exists():
            yield Case(f"own {kind} json", description, read, text=True)


def _listed(path: str) -> RemoteFile:
    return RemoteFile(path, "sha256:" + "0" * 64)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    root = tmp_path_factory.mktemp("fuzz")
    write_mirror(root / "mirror", seed=1, sizes=SIZES)
    cases = [*wfdb_cases(root / "mirror", root, "simulated"), *part_cases(root, root / "mirror"), *own_cases(root)]
    if REAL.is_dir():
        cases += wfdb_cases(REAL, root, "real")
    return cases


# The rule


def outcome(case: Case, whole: Sequence[np.ndarray]) -> str:
    """What came of reading: `record`, a drop's reason, or `refused`; anything else fails."""
    try:
        items = list(case.read())
    except ValueError:
        return "refused"
    if not items:
        return "nothing"
    for item in items:
        if isinstance(item, DroppedRecord):
            assert item.reason in DropReason
            assert item.detail
            continue
        assert item.signal_LT.ndim == 2
        assert item.signal_LT.shape[0] == len(item.leads)
        assert 0 < item.rate < float("inf")
        assert not np.isinf(item.signal_LT).any()
    records = [item for item in items if isinstance(item, Record)]
    if case.checked and records:
        for item, expected in zip(records, whole, strict=True):
            np.testing.assert_array_equal(item.signal_LT, expected)
    return (
        "record" if len(records) == len(items) else next(str(i.reason) for i in items if isinstance(i, DroppedRecord))
    )


def fuzz(cases: Sequence[Case], count: int, seed: int) -> Counter[str]:
    """`count` mutations over all cases in turn; every outcome, counted."""
    seen: Counter[str] = Counter()
    originals = [case.file.read_bytes() for case in cases]
    whole = [[item.signal_LT for item in case.read() if isinstance(item, Record)] for case in cases]
    for case, signals in zip(cases, whole, strict=True):
        assert signals, f"{case.name} is read as it is"
    with room(1 << 30):
        for number in range(count):
            seen[one_mutation(cases, originals, whole, number, seed)] += 1
    return seen


def one_mutation(
    cases: Sequence[Case], originals: Sequence[bytes], whole: Sequence[Sequence[np.ndarray]], number: int, seed: int
) -> str:
    at = number % len(cases)
    case, rng = cases[at], np.random.default_rng([seed, number])
    try:
        case.file.write_bytes(mutated(originals[at], case, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return outcome(case, whole[at])
    except BaseException as error:
        error.add_note(f"case {case.name}, mutation {number} of seed {seed}")
        raise
    finally:
        case.file.write_bytes(originals[at])


@contextmanager
def room(more: int) -> Iterator[None]:
    """So many bytes may be allocated beyond what this process has: a length from a damaged file meets a MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def check_all_kinds(seen: Counter[str]) -> None:
    assert seen["record"] > 0, "some damage is harmless, or nothing was read at all"
    assert seen["refused"] > 0
    assert len(set(seen) & {str(reason) for reason in DropReason}) >= 5, seen


def test_damaged_files_are_records_drops_or_one_error(cases: list[Case]) -> None:
    check_all_kinds(fuzz(cases, 400, seed=1))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_twenty_thousand_damaged_files_are_records_drops_or_one_error(cases: list[Case]) -> None:
    seen = fuzz(cases, 20_000, seed=2)
    check_all_kinds(seen)
    print(dict(seen.most_common()))


def test_damaged_annotations_are_marks_within_reason_or_one_error() -> None:
    rng = np.random.default_rng(3)
    words = [(code << 10) | int(rng.integers(1, 200)) for code in (39, 24, 40, 39, 1, 40, 39, 27, 40) * 20]
    data = np.array([*words, 0], "<u2").tobytes()
    assert len(parse_marks(data, "1.i")) == 180
    case, refused = Case("marks", Path(), lambda: iter(()), text=False), 0
    for number in range(1000):
        try:
            marks = parse_marks(mutated(data, case, np.random.default_rng([3, number])), "1.i")
        except ValueError:
            refused += 1
            continue
        assert {mark.symbol for mark in marks} <= set("Npt()")
    assert 0 < refused < 1000


@pytest.mark.parametrize("seed", range(3))
def test_damaged_lists_name_no_path_outside(seed: int) -> None:
    """SHA256SUMS.txt, mutated: parsed into plain relative paths, or refused."""
    root = "physionet.org/files/x/1.0"
    text = "\n".join(f"{n:064x} WFDBRecords/01/010/JS{n:05d}.hea" for n in range(20)).encode()
    case, refused = Case("sums", Path(), lambda: iter(()), text=True), 0
    for number in range(300):
        rng = np.random.default_rng([seed, number])
        try:
            files = parse_sums(mutated(text, case, rng).decode("utf-8", "replace"), root)
        except ValueError:
            refused += 1
            continue
        for file in files:
            assert file.path.startswith(f"{root}/")
            assert not {"..", ".", ""} & set(file.path.split("/"))
    assert 0 < refused < 300
