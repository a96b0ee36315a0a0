"""The product `raw/<source>/<partition>`: the verified files of one partition.

Files come from the original hosts or from a mirror URL, or are used in place from a mirror folder, which is never
written to. A mirror folder holds the partitions of which it has a file; if it lacks some files of such a partition, the
step fails and names them, since a shard must not silently lose records.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ecg_foundry.place import SIMULATED_MIRROR, SIMULATED_SPACE
from ecg_foundry.soundness import Damaged
from pipelines import versions
from pipelines.cache import ASIDE, DONE, Product, Workspace
from pipelines.download.fetch import fetch_missing
from pipelines.download.http import Retries, checksum_of, size_of
from pipelines.download.list_cache import load
from pipelines.download.mirror import Manifest, Mirror, find_in_folder, missing_files_error, partition_files
from pipelines.download.progress import OnProgress
from pipelines.durable import flush_files, make_folder, write_atomically
from pipelines.facts import Facts
from pipelines.formats.limits import file_size
from pipelines.hashing import digest_of
from pipelines.home import FILES as SPACE_FILES
from pipelines.home import Home
from pipelines.sources.base import RemoteFile, Source

HASHERS = 4  # threads; hashing releases the interpreter
FILES = "files.json"
ROOT = "root"  # below aside/: the path of the files' folder
DAMAGED = "damaged.json"  # below aside/: paths of files that are missing or damaged
LINKS = "linked"  # below the raw root: links to the files of a folder mirror that are not at their `wget -r` paths
DISCARDED = "let_go"  # below aside/: present if the files were deleted after harmonization


@dataclass(frozen=True, kw_only=True)
class RawFacts(Facts):
    """Facts of a product `raw/<source>/<partition>`."""

    files: int
    bytes: int
    """Total size of the files."""


def download_partition(
    source: Source,
    partition: str,
    *,
    mirror: Mirror,
    raw_root: Path,
    connections: int = 16,
    progress: OnProgress | None = None,
    retries: Retries | None = None,
) -> Manifest:
    """Fetch the files of a partition below `raw_root`, or find them in a folder mirror; all are verified by checksum.

    Files that are here already are not fetched again, and a partial file is resumed. Raises ValueError if the mirror
    lacks a listed file or has another one, ConnectionError if a host cannot be reached.
    """
    files = partition_files(source, partition, mirror=mirror, raw_root=raw_root, retries=retries)
    return _download(source, files, mirror, raw_root, connections, progress, retries)


def materialize_raw(
    workspace: Workspace,
    source: Source,
    partition: str,
    *,
    mirror: Mirror,
    raw_root: Path,
    connections: int = 16,
    progress: OnProgress | None = None,
    bring_back: bool = False,
) -> Product:
    """Build `raw/<source>/<partition>`: files.json (path, checksum, bytes), and aside/root, the files' folder.

    bring_back: fetch files again that were deleted after harmonization.

    It is built again if a file is gone, has another size or was found damaged. Files that were deleted after
    harmonization count as present as long as the shard made from them is current. A finished product needs no network.
    """
    name = f"raw/{source.name}/{partition}"

    def still_valid(product: Product) -> bool:
        if bring_back or not is_discarded(product):
            return not damaged(product) and not gone_files(*recorded_files(product))
        return _is_harmonized(workspace, product)

    files = _files_of_finished(workspace, source, partition, mirror, raw_root)
    if files is None:
        files = partition_files(source, partition, mirror=mirror, raw_root=raw_root)

    def make(directory: Path) -> dict[str, Any]:
        manifest = _download(source, files, mirror, raw_root, connections, progress, None)
        (directory / FILES).write_text(json.dumps([asdict(file) for file in manifest.files], indent=1))
        (directory / ASIDE).mkdir()
        (directory / ASIDE / ROOT).write_text(str(manifest.root))
        return RawFacts(files=len(manifest.files), bytes=manifest.bytes).to_dict()

    return workspace.build(
        name,
        version=versions.RAW,
        config={"source": source.name, "version": source.version, "partition": partition},
        inputs={"files": _digest_of(files)},
        make=make,
        still_valid=still_valid,
    )


def download_to_home(
    home: Home,
    source: Source,
    partition: str,
    *,
    connections: int = 16,
    progress: OnProgress | None = None,
    bring_back: bool = True,
) -> Product:
    """Materialize one partition of a data home from its mirror. bring_back: as `materialize_raw` takes it."""
    return materialize_raw(
        home.workspace(),
        source,
        partition,
        mirror=Mirror.parse(home.mirror),
        raw_root=home.raw_root,
        connections=connections,
        progress=progress,
        bring_back=bring_back,
    )


def raw_files(product: Product) -> tuple[Path, list[RemoteFile]]:
    """Return the folder of a raw product and its files. Raises ValueError if they are no longer as verified."""
    root, files = recorded_files(product)
    if is_discarded(product):
        _, source, partition = product.name.split("/")
        raise ValueError(
            f"{product.name}: its {len(files)} files were deleted after harmonization: fetch them again with "
            f"`ecg download {source} {partition}`"
        )
    if lost := damaged(product) or [file.path for file in gone_files(root, files)]:
        raise ValueError(
            f"{product.name}: {len(lost)} of {len(files)} files under {root} are gone or changed, "
            f"first {lost[0]}: materialize it again"
        )
    return root, files


def verified_files(workspace: Workspace, product: Product) -> tuple[Path, list[RemoteFile]]:
    """Return `raw_files` after hashing them again, so that a file that decayed on the disk is not harmonized.

    Raises ValueError naming the first that changed; the next materialization fetches the changed files again.
    """
    root, files = raw_files(product)

    def changed_of(part: Sequence[RemoteFile]) -> list[str]:
        return [file.path for file in part if checksum_of(root / file.path, file.checksum) != file.checksum]

    # A task for each thread: one for each file takes a third as long as hashing a small one.
    with ThreadPoolExecutor(HASHERS) as pool:
        changed = sorted(chain.from_iterable(pool.map(changed_of, (files[at::HASHERS] for at in range(HASHERS)))))
    if changed:
        mark_damaged(workspace, product, changed)
        raise ValueError(
            f"{product.name}: {len(changed)} of {len(files)} files under {root} are not what was verified, "
            f"first {changed[0]}: materialize it again"
        )
    return root, files


def recorded_files(product: Product) -> tuple[Path, list[RemoteFile]]:
    """Return the folder of a raw product and its files as they were verified, without looking at them.

    Raises Damaged if the record of them cannot be read.
    """
    with _readable(product, f"{ASIDE}/{ROOT}"):
        root = recorded_root(product.path)
    with _readable(product, FILES):
        return root, [RemoteFile(**file) for file in json.loads((product.path / FILES).read_text())]


def recorded_root(raw: Path) -> Path:
    """Return the folder of the files of `raw`, a folder such as `<space>/raw/chapman/01/<fingerprint>`.

    A folder that was in the data home is in it wherever the home is now. Raises ValueError if the record of it cannot
    be read, FileNotFoundError if there is none.
    """
    recorded = Path((raw / ASIDE / ROOT).read_text())
    if not recorded.is_absolute() or "\0" in str(recorded):
        raise ValueError(str(recorded))
    space = raw.parents[3]
    for inside in (Path(space.name) / SPACE_FILES, *([SIMULATED_MIRROR] if space.name == SIMULATED_SPACE else [])):
        for below in (recorded, *recorded.parents):
            if below.parts[-2:] == inside.parts:
                return space.parent / inside / recorded.relative_to(below)
    return recorded


def damaged(product: Product) -> list[str]:
    """Return the paths of a raw product's files that were found missing or damaged since.

    Raises Damaged if the record of them cannot be read.
    """
    mark = product.aside / DAMAGED
    with _readable(product, f"{ASIDE}/{DAMAGED}"):
        return json.loads(mark.read_text()) if mark.is_file() else []


@contextmanager
def _readable(product: Product, file: str) -> Iterator[None]:
    """Raise Damaged, naming the file, if the body cannot make sense of it."""
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise Damaged(product.name, product.path, f"{file} cannot be read") from error


def mark_damaged(workspace: Workspace, product: Product, paths: Sequence[str]) -> None:
    """Record which files of a raw product are missing or damaged; the next materialization fetches those again."""
    with workspace.locked(product.name):
        if not (product.path / DONE).is_file():
            return  # the product was removed meanwhile
        if paths:
            write_atomically(product.aside / DAMAGED, json.dumps(list(paths), indent=1).encode())
        else:
            (product.aside / DAMAGED).unlink(missing_ok=True)


def is_discarded(product: Product) -> bool:
    """Whether the files of a raw product were deleted after harmonization."""
    return (product.aside / DISCARDED).is_file()


def discard_raw(workspace: Workspace, source: Source, partition: str, *, raw_root: Path) -> int:
    """Delete the raw files of a harmonized partition, except those that partitions share; return the bytes freed.

    Nothing is deleted, and 0 returned, if the files are not in `raw_root` (a folder mirror), or if the current shard
    was not made from them. The raw product stays, and counts as finished as long as that shard is current.
    """
    name = f"{source.name}/{partition}"
    # The locks keep off a harmonization with other limits, and a download, that would use the files meanwhile.
    with workspace.locked(f"ecgs/{name}"), workspace.locked(f"raw/{name}"):
        product = workspace.require(f"raw/{name}")
        root, files = recorded_files(product)
        if root != raw_root.resolve() or not _is_harmonized(workspace, product):
            return 0
        # The mark first: if killed below, the remaining files are not mistaken for all of them.
        write_atomically(product.aside / DISCARDED, b"")
        own = [root / file.path for file in files if source.partition_of(file.path) == partition]
        freed = sum(size_of(path) for path in own)
        for path in own:
            path.unlink(missing_ok=True)
        return freed


def _is_harmonized(workspace: Workspace, raw: Product) -> bool:
    """Whether the current shard was made from this raw product, by the current version of the step."""
    ecgs = workspace.current(f"ecgs/{raw.name.partition('/')[2]}")
    if ecgs is None:
        return False
    done = json.loads((ecgs.path / DONE).read_text())
    return done["version"] == versions.ECGS and done["inputs"].get(raw.name) == raw.digest


def _files_of_finished(
    workspace: Workspace, source: Source, partition: str, mirror: Mirror, raw_root: Path
) -> list[RemoteFile] | None:
    """Return the partition's files by the local copy of the list, if the current raw product was made of exactly these.

    Returns None otherwise.
    """
    current = workspace.current(f"raw/{source.name}/{partition}")
    if current is None or mirror.folder is not None:
        return None

    def read(path: str) -> bytes:
        data = load(raw_root / path)
        if data is None:
            raise FileNotFoundError(path)
        return data

    try:
        files = source.files_of(source.list_files(read), partition)
    except (FileNotFoundError, ValueError):
        return None  # the host is asked next, which reports what is wrong with its list
    made_of = json.loads((current.path / DONE).read_text())["inputs"]
    return files if made_of == {"files": _digest_of(files)} else None


def _digest_of(files: Sequence[RemoteFile]) -> str:
    return digest_of([[file.path, file.checksum] for file in files])


def gone_files(root: Path, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Return the files that are no longer below root, or have another size."""
    return [file for file in files if file_size(root / file.path) != file.bytes]


def _download(
    source: Source,
    files: Sequence[RemoteFile],
    mirror: Mirror,
    raw_root: Path,
    connections: int,
    progress: OnProgress | None,
    retries: Retries | None,
) -> Manifest:
    """Return the manifest of a partition's files, found in a folder mirror or fetched below raw_root."""
    if mirror.folder is not None:
        return find_in_folder(source, files, mirror, mirror.folder, raw_root / LINKS, connections, progress)
    root = raw_root.resolve()
    folder = root / source.root
    make_folder(folder)
    try:
        # Partitions share files, and hosts count connections: one process at a time fetches from a source.
        fetched = fetch_missing(
            files,
            root,
            lock=folder / ".lock",
            urls=mirror.urls,
            connections=connections,
            progress=progress,
            retries=retries,
        )
    except FileNotFoundError as error:
        raise missing_files_error(source, mirror, [str(error)]) from error
    flush_files([root / file.path for file in fetched], root)
    return Manifest(root=root, files=tuple(fetched))
