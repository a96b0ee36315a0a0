"""Where a source's files lie in a mirror folder: at their `wget -r` paths, or as people have them.

People give PhysioNet's zip unpacked, an `aws s3 sync` of the open bucket, or a folder above or below the one with
`physionet.org/`. A project is taken by the name of its folder, which tells its version; its list of checksums then
decides on each file. A folder whose name does not tell the version is not taken, but named.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ecg_foundry.place import SIMULATED
from pipelines.download.http import MOST_LIST
from pipelines.durable import make_folder, replace
from pipelines.formats.limits import require_size
from pipelines.sources.base import Source
from pipelines.sources.physionet import SUMS

_DEPTH = 4  # folders below the mirror
_MOST_ENTRIES = 20_000  # looked at below a mirror
_SHOWN = 5  # names in a message
_VERSION = re.compile(r"(?:^|-)(\d+(?:\.\d+)+)$", re.ASCII)


@dataclass(frozen=True)
class Place:
    """A source's files in a mirror folder."""

    files: Path
    """The folder that `wget -r` calls `source.root`."""
    base: Path | None
    """The folder below which all files have their `wget -r` paths; None if there is none."""

    def path(self, source: Source, listed: str) -> Path:
        """Return where a listed file is."""
        if self.base is not None:
            return self.base / listed
        return self.files / listed.removeprefix(f"{source.root}/")

    def root(self, source: Source, links: Path) -> Path:
        """Return a folder below which the files have their `wget -r` paths: one of links to them if there is none.

        links: the folder for links; the mirror itself is never written to.
        """
        if self.base is not None:
            return self.base
        link = links / source.root
        make_folder(link.parent)
        if not link.is_symlink() or link.readlink() != self.files:
            made = link.with_name(f".{link.name}.{os.getpid()}.{os.urandom(4).hex()}")
            made.symlink_to(self.files)
            replace(made, link)
        return links.resolve()


@dataclass(frozen=True)
class Layout:
    """What a mirror folder has of one source."""

    source: Source
    folder: Path

    def place(self) -> Place:
        """Return where the source's files are: the expected place if it exists, or if they are nowhere.

        Raises ValueError if they are elsewhere, in several places.
        """
        expected = Place(self.folder / self.source.root, self.folder)
        if expected.files.is_dir():
            return expected
        found = {place.files.resolve(): place for place in self._elsewhere()}
        listed = [place for place in found.values() if place.base is not None or (place.files / SUMS).is_file()]
        places = listed or list(found.values())
        if len(places) > 1:
            there = ", ".join(str(place.files) for place in places)
            raise ValueError(
                f"{self.source.name}: it is in several places of the mirror {self.folder}: {there}: keep one of them "
                "there, or name one with `ecg mirror`"
            )
        return places[0] if places else expected

    def absence(self) -> str:
        """Say what was looked for and what was found instead, with a remedy."""
        names = ", ".join(self._names)
        looked = f"looked for {self._list} in {self.folder}"
        if names:
            looked += f", and there, {_DEPTH} folders deep among {_MOST_ENTRIES:,} entries, for a folder called {names}"
        held = [entry.name for entry in _entries(self.folder)]
        more = f" and {len(held) - _SHOWN} more" if len(held) > _SHOWN else ""
        others = f"it has {', '.join(held[:_SHOWN]) or 'nothing'}{more}: name another place with `ecg mirror`"
        return f"{looked}; {self.near() or others}"

    @property
    def _names(self) -> tuple[str, ...]:
        """The names of a folder that has the source's files, version included; none if only its full path has them."""
        *_, slug, version = self.source.root.split("/")
        archive = self.source.archive
        return (f"{slug}/{version}", f"{slug}-{version}", f"{archive}-{version}") if archive else ()

    def _elsewhere(self) -> Iterator[Place]:
        if _simulated(self.folder.parents) is not None:
            return  # nothing would mark its ECGs as simulated
        for base in (*self._around, *self._below):
            if (base / self.source.root).is_dir() and (base == self.folder or _simulated([base]) is None):
                yield Place(base / self.source.root, base)
        for folder in self._below:
            if self._is_called(folder, self.source.version):
                yield Place(folder, None)

    @property
    def _around(self) -> list[Path]:
        """The folder of `physionet.org`, if the mirror is part of it: at most one."""
        root, parts = self.source.root.split("/"), self.folder.parts
        depths = range(1, min(len(root), len(parts) - 1) + 1)
        return [self.folder.parents[k - 1] for k in depths if list(parts[-k:]) == root[:k]]

    @cached_property
    def _below(self) -> list[Path]:
        """The mirror and the folders below it, without what is inside a project or another mirror that is simulated."""
        folders, level, seen = [self.folder], [self.folder], 0
        for _ in range(_DEPTH):
            inside: list[Path] = []
            for folder in level:
                if (folder / SUMS).is_file() or (folder != self.folder and (folder / SIMULATED).is_file()):
                    continue
                entries = _entries(folder)
                seen += len(entries)
                if seen > _MOST_ENTRIES:
                    return folders
                inside += [Path(entry.path) for entry in entries if entry.is_dir()]
            folders, level = folders + inside, inside
        return folders

    def _is_called(self, folder: Path, version: str) -> bool:
        if not self.source.archive:
            return False
        slug = self.source.root.split("/")[-2]
        names = (f"{slug}-{version}", f"{self.source.archive}-{version}")
        return folder.name in names or folder.parts[-2:] == (slug, version)

    def near(self) -> str | None:
        """Say what is like the source, or near it, and what to do with it. Returns None if there is nothing."""
        name, version, files = self.source.name, self.source.version, self.place().files
        if files.is_dir():
            return f"{files} has none of the files that its list names: complete it"
        if (simulated := _simulated(self.folder.parents)) is not None:
            return f"it is a part of {simulated}, a mirror of simulated ECGs: `{_named(simulated)}`"
        for outer in self.folder.parents:
            if self._is_called(outer, version):
                return f"it is a part of {outer}: `{_named(outer)}`"
        for folder in self._below:
            said = _VERSION.search(folder.name)
            if said is not None and said[1] != version and self._is_like(folder, said[1]):
                return f"{folder} is {said[1]} by its name: take version {version}, {self.source.homepage}"
            if self._lists_the_source(folder):
                slug = self.source.root.split("/")[-2]
                named = folder.with_name(f"{slug}-{version}")
                rename = f"mv {shlex.quote(str(folder))} {shlex.quote(str(named))}"
                then = f"; {_named(named)}" if folder == self.folder else ""
                return (
                    f"{folder} lists files of {name}, and its name does not tell which version they are: if it is "
                    f"{version}, call it so: `{rename}{then}`"
                )
        for folder in self._below:
            for archive in (f"{stem}.zip" for stem in self._names if "/" not in stem):
                if (folder / archive).is_file():
                    return f"{folder / archive} is not unpacked: unpack it there"
            loose = [entry.name for entry in _entries(folder) if self._is_loose(entry.name)]
            if loose:
                return (
                    f"{folder} has {loose[0]}: put such files into {self.folder / self.source.root}/files, and "
                    f"https://{self._list} as {self.folder / self._list}"
                )
        if (simulated := _simulated(self._below[1:])) is not None:
            return f"{simulated} is a mirror of simulated ECGs: `{_named(simulated)}`"
        return None

    def _is_loose(self, name: str) -> bool:
        """Whether a file has the name of one that a browser saves from the source's page, without folders."""
        return not self.source.archive and self.source.partition_of(f"{self.source.root}/files/{name}") is not None

    @property
    def _list(self) -> str:
        """The path of the source's list."""

        def name(path: str) -> bytes:
            raise FileNotFoundError(path)

        try:
            self.source.list_files(name)
        except FileNotFoundError as error:
            return str(error)
        raise AssertionError(f"{self.source.name} has no list")

    def _is_like(self, folder: Path, version: str) -> bool:
        """Whether a folder has another version of the source, or another project with the same files."""
        return self._is_called(folder, version) or self._lists_the_source(folder)

    def _lists_the_source(self, folder: Path) -> bool:
        """Whether a folder has a list of checksums with files of the source."""
        if not self.source.archive or not (folder / SUMS).is_file():
            return False
        require_size(folder / SUMS, MOST_LIST, "a list", "correct the mirror")
        try:
            listing = self.source.list_files(lambda path: (folder / SUMS).read_bytes())
        except ValueError:
            return False  # the list of something else
        return bool(self.source.available(listing))


def _named(folder: Path) -> str:
    """Return the command that names a mirror."""
    return f"ecg mirror {shlex.quote(str(folder))}"


def _simulated(folders: Iterable[Path]) -> Path | None:
    """Return the first of some folders that is a mirror of simulated ECGs."""
    return next((folder for folder in folders if (folder / SIMULATED).is_file()), None)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what a folder has, by name, without what is hidden. A folder that may not be entered has nothing."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
    except PermissionError:
        return []
