"""The cache: a product is built once for what made it, in a directory named by that, and found there ever after.

    root/<product>/<fingerprint>/done.json   what made it, the digest of its bytes, the facts its maker reported
    root/<product>/<fingerprint>/...         the product's files; `aside/` holds what does not count (pictures, logs)
    root/<product>/current                   the fingerprint that was built or asked for last

The fingerprint is a digest of the step's version, its configuration and its inputs' digests. The product's own digest
is taken over its bytes, so a step that is done again and gives the same bytes changes nothing downstream.
A build happens in `<fingerprint>.partial` under a lock and is renamed when it is whole: a killed step leaves nothing
that looks finished, and of two processes on one product one works and the other waits. Until then making.json in it
says what it is made of, for those who look whether something is still needed (`pipelines.maintenance.garbage`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipelines.hashing import digest_of

log = logging.getLogger(__name__)


DONE = "done.json"
MAKING = "making.json"
ASIDE = "aside"
PARTIAL = ".partial"
_TEMPORARY = ".tmp"
_PRODUCT = re.compile(r"[a-z0-9][a-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*")


@dataclass(frozen=True, kw_only=True)
class Product:
    """A finished directory. version, config, inputs: what made it. `facts` is what its maker reported; `cached` says
    that this call did not build it."""

    name: str
    path: Path
    fingerprint: str
    digest: str
    seconds: float
    version: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    cached: bool = True

    @property
    def aside(self) -> Path:
        """Pictures and logs: beside the product, not part of its digest."""
        return self.path / ASIDE


def digest_of_tree(root: Path) -> str:
    """sha256 over the relative paths and bytes of all files below root, without `aside/` and done.json."""
    total = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        relative = path.relative_to(root)
        if relative.parts[0] == ASIDE or relative == Path(DONE):
            continue
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{relative.as_posix()}\0{content}\n".encode())
    return total.hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary name beside `path`, flush to the disk, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{_TEMPORARY}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class Workspace:
    """All products of one data home. Names are paths such as `ecgs/chapman/01`."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def folder(self, product: str) -> Path:
        if not _PRODUCT.fullmatch(product):
            raise ValueError(f"product {product!r}: use names of letters, digits, '.', '_' and '-', joined by '/'")
        return self.root / product

    def current(self, product: str) -> Product | None:
        """The product as it was last built or asked for; None where it never was, or was removed."""
        pointer = self.folder(product) / "current"
        if not pointer.is_file():
            return None
        return self._finished(product, pointer.read_text().strip())

    def listed(self, pattern: str) -> dict[str, Product]:
        """Return the current products whose names match a glob such as `ecgs/*/*`, by name, in the names' order."""
        pointers = self.root.glob(f"{pattern}/current")
        names = sorted(pointer.parent.relative_to(self.root).as_posix() for pointer in pointers)
        products = {name: self.current(name) for name in names}
        return {name: product for name, product in products.items() if product is not None}

    def finished(self, product: str) -> list[Product]:
        """Every build of the product that is still here, the current one first."""
        current = self.current(product)
        names = sorted(done.parent.name for done in self.folder(product).glob(f"*/{DONE}"))
        found = [self._finished(product, name) for name in names if not name.endswith(PARTIAL)]
        others = [one for one in found if one is not None and (current is None or one.path != current.path)]
        return others if current is None else [current, *others]

    def require(self, product: str) -> Product:
        """`current`, or a ValueError that says what to build first."""
        found = self.current(product)
        if found is None:
            raise ValueError(f"product {product!r} is not built in {self.root}: materialize it first")
        return found

    def find(
        self, product: str, *, version: str, config: Mapping[str, Any], inputs: Mapping[str, str]
    ) -> Product | None:
        """The finished product for (version, config, inputs), current or not; builds nothing."""
        return self._finished(product, _fingerprint(version, config, inputs))

    def make_current(self, product: Product) -> Product:
        """Make a finished product the current one again, as building it does."""
        with self.locked(product.name):
            self._point(product.name, product.fingerprint)
        return product

    def locked(self, product: str) -> AbstractContextManager[None]:
        """Hold a product as a build of it does: nobody builds it meanwhile."""
        folder = self.folder(product)
        folder.mkdir(parents=True, exist_ok=True)
        return _locked(folder / ".lock", product)

    def build(
        self,
        product: str,
        *,
        version: str,
        config: Mapping[str, Any],
        inputs: Mapping[str, str],
        make: Callable[[Path], dict[str, Any]],
        resumable: bool = False,
        still_valid: Callable[[Product], bool] | None = None,
    ) -> Product:
        """Return the product for (version, config, inputs), calling `make(directory)` only where it is not there yet.

        make fills the directory and returns facts (JSON values). Where it raises, the directory is removed, unless
        `resumable`: then it stays and is handed to the next call as it was left. `still_valid` may refuse a finished
        product that was damaged, or whose meaning depends on files outside it; such a one is built again.
        """
        fingerprint = _fingerprint(version, config, inputs)
        folder = self.folder(product)
        with self.locked(product):
            found = self._finished(product, fingerprint)
            if found is not None and (still_valid is None or still_valid(found)):
                self._point(product, fingerprint)
                log.info("%s: cached (%s)", product, fingerprint)
                return found
            made_of = {"version": version, "config": dict(config), "inputs": dict(inputs)}
            work = folder / f"{fingerprint}{PARTIAL}"
            if not resumable:  # and what other killed builds left: under this lock none of them is alive
                for left in folder.glob(f"*{PARTIAL}"):
                    shutil.rmtree(left)
            work.mkdir(exist_ok=True)
            for left in work.rglob(f".*{_TEMPORARY}"):  # of a killed `write_atomically`: no part of the product
                left.unlink()
            making = json.dumps({**made_of, "resumable": resumable}, indent=1, allow_nan=False)
            began = time.monotonic()
            try:
                write_atomically(work / MAKING, making.encode())
                facts = make(work)
            except BaseException:
                if not resumable:
                    shutil.rmtree(work, ignore_errors=True)
                raise
            seconds = time.monotonic() - began
            (work / MAKING).unlink()
            done = {
                "product": product,
                "fingerprint": fingerprint,
                "digest": digest_of_tree(work),
                **made_of,
                "facts": facts,
                "seconds": round(seconds, 3),
            }
            write_atomically(work / DONE, json.dumps(done, indent=1, allow_nan=False).encode())
            final = folder / fingerprint
            shutil.rmtree(final, ignore_errors=True)
            work.replace(final)
            self._point(product, fingerprint)
            log.info("%s: built in %.1f s (%s)", product, seconds, fingerprint)
            built = self._finished(product, fingerprint)
            assert built is not None
            return replace(built, cached=False)

    def _finished(self, product: str, fingerprint: str) -> Product | None:
        path = self.folder(product) / fingerprint
        if not fingerprint or not (path / DONE).is_file():
            return None
        done = json.loads((path / DONE).read_text())
        return Product(
            name=product,
            path=path,
            fingerprint=fingerprint,
            digest=done["digest"],
            seconds=done["seconds"],
            version=done["version"],
            config=done["config"],
            inputs=done["inputs"],
            facts=done["facts"],
        )

    def _point(self, product: str, fingerprint: str) -> None:
        write_atomically(self.folder(product) / "current", fingerprint.encode())


def _fingerprint(version: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    return digest_of({"version": version, "config": dict(config), "inputs": dict(inputs)})[:24]


@contextmanager
def _locked(path: Path, product: str) -> Iterator[None]:
    """Hold the exclusive lock on a product; say so once where another process holds it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("%s: another process is at work on it; waiting", product)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
