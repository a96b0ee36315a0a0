"""Content-addressed cache. A product is built once per version, configuration and input digests, and reused afterwards.

    root/<product>/<fingerprint>/done.json   version, configuration, inputs, digest and sizes of the files, facts
    root/<product>/<fingerprint>/...         the product's files; `aside/` (pictures, logs) is not part of the digest
    root/<product>/current                   the fingerprint that was built or requested last

The fingerprint is a digest of the step's version, its configuration and its inputs' digests. The product's own digest
is taken over its bytes, so a step that is repeated and gives the same bytes changes nothing downstream.
A build happens in `<fingerprint>.partial` under a lock and is renamed when it is complete: a killed step leaves nothing
that looks finished, and of two processes building one product one works and the other waits (`pipelines.locks`). The
files are on the disk before done.json is (`pipelines.durable`); a finished product whose files are not as written
(`ecg_foundry.soundness`) is built again. While a build runs, making.json in its directory states its version,
configuration and inputs; garbage collection reads it (`pipelines.maintenance.garbage`).
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ecg_foundry.layout import CURRENT, pointed
from ecg_foundry.soundness import ASIDE, DONE, FILES, Damaged, digest_of_tree, files_of, read_done
from pipelines import durable, locks
from pipelines.disk_space import full_disk_explained
from pipelines.durable import TEMPORARY, write_atomically
from pipelines.hashing import digest_of

log = logging.getLogger(__name__)


MAKING = "making.json"
PARTIAL = ".partial"
LOCK = ".lock"
_PRODUCT = re.compile(r"[a-z0-9][a-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*")


@dataclass(frozen=True, kw_only=True)
class Product:
    """A finished product: its directory and what it was built from."""

    name: str  # such as `ecgs/chapman/01`
    path: Path
    fingerprint: str  # of version, config and inputs
    digest: str  # of the product's bytes
    seconds: float  # that the build took
    version: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)  # digests by the input's name
    facts: dict[str, Any] = field(default_factory=dict)  # what the step reported; see `pipelines.facts`
    cached: bool = True  # False if the call that returned it built it

    @property
    def aside(self) -> Path:
        """The folder for pictures and logs, which are not part of the digest."""
        return self.path / ASIDE


class Workspace:
    """All products of one data home. Names are paths such as `ecgs/chapman/01`."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def folder(self, product: str) -> Path:
        """Return the folder of a product's builds. Raises ValueError if the name is not valid."""
        if not _PRODUCT.fullmatch(product):
            raise ValueError(f"product {product!r}: use names of letters, digits, '.', '_' and '-', joined by '/'")
        return self.root / product

    def current(self, product: str) -> Product | None:
        """Return the product as it was last built or requested.

        Returns None if it never was, or was removed, or, with a warning, if it is damaged.
        """
        return self._finished(product, self._pointed(product))

    def current_folder(self, product: str) -> Path | None:
        """Return the folder of the build that was built or requested last, whether or not it is sound."""
        fingerprint = self._pointed(product)
        return self.folder(product) / fingerprint if fingerprint else None

    def listed(self, pattern: str) -> dict[str, Product]:
        """Return the current products whose names match a glob such as `ecgs/*/*`, by name, in the names' order.

        Raises Damaged if one of them is damaged: left out, its records would be missing without a word.
        """
        pointers = self.root.glob(f"{pattern}/{CURRENT}")
        names = sorted(pointer.parent.relative_to(self.root).as_posix() for pointer in pointers)
        products = {name: self._sound(name, self._pointed(name)) for name in names}
        return {name: product for name, product in products.items() if product is not None}

    def finished(self, product: str) -> list[Product]:
        """Return every finished build of the product, the current one first."""
        current = self.current(product)
        names = sorted(done.parent.name for done in self.folder(product).glob(f"*/{DONE}"))
        builds = [self._finished(product, name) for name in names if not name.endswith(PARTIAL)]
        others = [build for build in builds if build is not None and (current is None or build.path != current.path)]
        return others if current is None else [current, *others]

    def require(self, product: str) -> Product:
        """Return the current product. Raises ValueError if it is not built, Damaged if its files are not as written."""
        current = self._sound(product, self._pointed(product))
        if current is None:
            raise ValueError(f"product {product!r} is not built in {self.root}: materialize it first")
        return current

    def find(
        self, product: str, *, version: str, config: Mapping[str, Any], inputs: Mapping[str, str]
    ) -> Product | None:
        """Return the finished product for (version, config, inputs), current or not, or None. Builds nothing."""
        return self._finished(product, _fingerprint(version, config, inputs))

    def make_current(self, product: Product) -> Product:
        """Make a finished product the current one, as building it does, and return it."""
        with self.locked(product.name):
            self._point(product.name, product.fingerprint)
        return product

    def locked(self, product: str) -> AbstractContextManager[None]:
        """Hold the lock that a build of the product takes, so that no other process builds it meanwhile."""
        folder = self.folder(product)
        durable.make_folder(folder)
        return locks.exclusive(folder / LOCK, product)

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
        """Return the product for (version, config, inputs), calling `make(directory)` only if it is not built yet.

        version, config, inputs: what the fingerprint is made of; inputs are digests by name.
        make: fills the directory and returns the facts, JSON values.
        resumable: if `make` raises, keep its directory and hand it to the next call; otherwise it is removed.
        still_valid: returns False for a finished product that was damaged, or that depends on files outside it which
            changed; such a product is built again.
        """
        fingerprint = _fingerprint(version, config, inputs)
        with self.locked(product):
            finished = self._finished(product, fingerprint)
            if finished is not None and (still_valid is None or self._is_valid(finished, still_valid)):
                self._point(product, fingerprint)
                log.info("%s: cached (%s)", product, fingerprint)
                return finished
            made_of = {"version": version, "config": dict(config), "inputs": dict(inputs)}
            work = self._work_folder(product, fingerprint, resumable)
            with nullcontext() if resumable else _removed_on_error(work), full_disk_explained(work):
                facts, seconds = _fill(work, make, making={**made_of, "resumable": resumable})
                done = {
                    "product": product,
                    "fingerprint": fingerprint,
                    "digest": digest_of_tree(work),
                    FILES: {name: path.stat().st_size for name, path in files_of(work).items()},
                    **made_of,
                    "facts": facts,
                    "seconds": round(seconds, 3),
                }
                durable.flush_tree(work)  # before done.json, which vouches for them
                write_atomically(work / DONE, json.dumps(done, indent=1, allow_nan=False).encode())
            final = self.folder(product) / fingerprint
            shutil.rmtree(final, ignore_errors=True)
            durable.replace(work, final)
            self._point(product, fingerprint)
            log.info("%s: built in %.1f s (%s)", product, seconds, fingerprint)
            built = self._finished(product, fingerprint)
            assert built is not None
            return replace(built, cached=False)

    def _work_folder(self, product: str, fingerprint: str, resumable: bool) -> Path:
        """Return the folder of a build in progress, without what killed processes left; needs the product's lock."""
        folder = self.folder(product)
        if not resumable:  # all other partial builds go too: while the lock is held, none of their processes runs
            for partial in folder.glob(f"*{PARTIAL}"):
                shutil.rmtree(partial)
        work = folder / f"{fingerprint}{PARTIAL}"
        durable.make_folder(work)
        for temporary in work.rglob(f".*{TEMPORARY}"):  # left by a killed `write_atomically`
            temporary.unlink()
        return work

    def _finished(self, product: str, fingerprint: str) -> Product | None:
        """Return a finished build; None if there is none, or, with a warning, if its files are not as written."""
        try:
            return self._sound(product, fingerprint)
        except Damaged as error:
            log.warning("%s: %s in %s, so it is built again", product, error.what, self.folder(product) / fingerprint)
            return None

    def _sound(self, product: str, fingerprint: str) -> Product | None:
        """Return a finished build, or None if there is none. Raises Damaged if its files are not as written."""
        path = self.folder(product) / fingerprint
        done = read_done(path, product) if fingerprint else None
        if done is None:
            return None
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

    def _is_valid(self, product: Product, still_valid: Callable[[Product], bool]) -> bool:
        try:
            return still_valid(product)
        except Damaged as error:
            log.warning("%s: %s in %s, so it is built again", product.name, error.what, product.path)
            return False

    def _pointed(self, product: str) -> str:
        """Return the fingerprint that was built or requested last; empty if there is none."""
        return pointed(self.folder(product))

    def _point(self, product: str, fingerprint: str) -> None:
        write_atomically(self.folder(product) / CURRENT, fingerprint.encode())


def _fill(
    work: Path, make: Callable[[Path], dict[str, Any]], *, making: Mapping[str, Any]
) -> tuple[dict[str, Any], float]:
    """Run `make` in its folder, with making.json there while it runs. Return the facts, and the seconds it took."""
    began = time.monotonic()
    write_atomically(work / MAKING, json.dumps(making, indent=1, allow_nan=False).encode())
    facts = make(work)
    (work / MAKING).unlink()
    return facts, time.monotonic() - began


@contextmanager
def _removed_on_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _fingerprint(version: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    return digest_of({"version": version, "config": dict(config), "inputs": dict(inputs)})[:24]


@contextmanager
def in_use(folders: Iterable[Path]) -> Iterator[None]:
    """Keep finished products from garbage collection while the body reads them, whether they are current or not.

    A folder without done.json, such as a copy on a machine for training, is not collected and not held.
    """
    with ExitStack() as held:
        for done in (folder / DONE for folder in folders):
            if done.is_file():
                held.enter_context(locks.shared(done))
        yield


@contextmanager
def unread(folder: Path, refusal: str) -> Iterator[None]:
    """Keep readers off a product while the body removes it. Raises ValueError with the refusal if one holds it."""
    done = folder / DONE
    with locks.unheld(done) if done.is_file() else nullcontext(True) as unheld:
        if not unheld:
            raise ValueError(refusal.format(holder=locks.holder(done)))
        yield
