"""Drops in a bucket of S3, Google Cloud Storage, Azure, or any server that speaks S3: each is a common prefix of keys.

Keys and secrets come from the environment alone, under the names that the stores' own tools use (docs/own-data.md).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, InvalidPathError
from obstore.store import ObjectStore, from_url

from pipelines.addresses import require_no_credentials
from pipelines.disk_space import full_disk_explained
from pipelines.download.fetch import map_in_threads
from pipelines.durable import flush
from pipelines.formatting import format_bytes
from pipelines.incoming.listing import MARKER, FolderOfDrops, ListedFile, Listing, Place, Refused, refusal

if TYPE_CHECKING:
    from obstore import ObjectMeta

SCHEMES = ("s3", "gs", "az")
TRIES = 4
_THREADS = 8
_REFUSED = re.compile(r"status code: 4(?!08|29)\d\d")
_BLOCK = 4 << 20
_ANSWER = timedelta(seconds=10)
SILENCE = timedelta(seconds=15)
_WHOLE_FILE = timedelta(hours=2)
_KEEP_TRYING = timedelta(seconds=30)  # Dagster gives a tick of a sensor 60 seconds


def place_of(where: Path | str) -> Place:
    """Return the place of drops that a home names: a folder's path, or a bucket's URL."""
    return FolderOfDrops(where) if isinstance(where, Path) else BucketOfDrops(where)


class BucketOfDrops:
    """Drops below a URL such as `s3://bucket/incoming`, one prefix each. Raises ValueError for other URLs."""

    def __init__(self, url: str) -> None:
        require_no_credentials(url, "ECG_INCOMING", "set the store's own variables, such as AWS_ACCESS_KEY_ID")
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES or not parts.netloc:
            raise ValueError(f"ECG_INCOMING {url!r}: give a folder, or s3://BUCKET/PREFIX, gs://... or az://...")
        self.url = url.rstrip("/")
        try:
            self._store: ObjectStore = from_url(
                self.url,
                client_options={
                    "connect_timeout": _ANSWER,
                    "read_timeout": SILENCE,
                    "timeout": _WHOLE_FILE,
                    "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true",  # for a private server
                },
                retry_config={"max_retries": TRIES, "retry_timeout": _KEEP_TRYING},
            )
        except BaseError as error:
            raise ValueError(f"{self.url}: {_first_line(error)}; check the settings in the environment") from error

    @property
    def tags_are_sure(self) -> bool:
        return True

    def __str__(self) -> str:
        return self.url

    def is_there(self) -> bool:
        return True  # a bucket has no folders to make; listing a wrong bucket raises

    def names(self) -> list[str]:
        with self._explained():
            prefixes = obstore.list_with_delimiter(self._store)["common_prefixes"]
        return sorted(prefix.rsplit("/", 1)[-1] for prefix in prefixes)

    def listing(self, name: str) -> Listing:
        """List the keys below a drop's prefix. The empty object that a console writes for a folder is not a file."""
        with self._explained():
            try:
                objects = obstore.list(self._store, prefix=name).collect()
            except InvalidPathError as error:
                return Listing(files=(), refused=(Refused(name, _first_line(error)),), marked=True)
        files: list[ListedFile] = []
        refused: list[Refused] = []
        # The key of an empty folder ends in `/`, which obstore strips: it then looks like a file's key.
        keys = [(item["path"].removeprefix(f"{name}/"), item) for item in objects if item["path"] != name]
        if not keys:
            raise ValueError(f"{self.url}/{name}: no such drop")
        folders = {str(parent) for path, _ in keys for parent in Path(path).parents}
        for path, item in keys:
            hidden = any(part[0] == "." for part in path.split("/"))
            if path == MARKER or hidden or (item["size"] == 0 and path in folders):
                continue
            if path in folders:
                refused.append(Refused(path, "a file and a folder of one name"))
            elif (misnamed := refusal(path)) is not None:
                refused.append(misnamed)
            else:
                files.append(ListedFile(path, item["size"], _version(item)))
        return Listing(
            files=tuple(sorted(files)), refused=tuple(sorted(refused)), marked=any(path == MARKER for path, _ in keys)
        )

    def fetch(self, name: str, listing: Listing, here: Path) -> Path:
        """Fetch the drop's files below `here` and return their folder.

        A file is complete or absent; after a kill the next call resumes. Files of another listing are removed. Raises
        ValueError if a file is no longer as listed, or if the disk has no room.
        """
        folder = here / listing.digest[:16]
        folder.mkdir(parents=True, exist_ok=True)
        for other in here.iterdir():
            if other != folder:
                shutil.rmtree(other)
        waiting = [file for file in listing.files if not (folder / file.path).is_file()]
        needed, free = sum(file.bytes for file in waiting), shutil.disk_usage(folder).free
        if needed > free:
            raise ValueError(
                f"{format_bytes(needed)} have to be fetched and {format_bytes(free)} are free in {here}: make room"
            )
        with full_disk_explained(folder):
            map_in_threads(waiting, lambda file: self._fetch(name, file, folder / file.path), _THREADS)
        return folder

    def _fetch(self, name: str, file: ListedFile, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.part")
        with self._explained(), partial.open("wb") as copy:
            stored = obstore.get(self._store, f"{name}/{file.path}")
            for block in stored.stream(min_chunk_size=_BLOCK):
                copy.write(block)
        flush(partial)
        if _version(stored.meta) != file.version or partial.stat().st_size != file.bytes:
            raise ValueError(
                f"{self.url}/{name}/{file.path}: changed while it was fetched: write {MARKER} last, then take it again"
            )
        partial.replace(target)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the store's errors into one line that names the place: a mistake is ValueError, a failure OSError."""
        try:
            yield
        except InvalidPathError as error:
            raise ValueError(f"{self.url}: {_first_line(error)}: give the object another key") from error
        except (BaseError, FileNotFoundError) as error:
            message = (
                f"{self.url}: {_first_line(error)}; check the bucket's name, the keys in the environment, the network"
            )
            # A missing bucket and a wrong key have no exception type of their own; a retry would not help.
            raise (ValueError if _REFUSED.search(message) else OSError)(message) from error


def _version(meta: ObjectMeta) -> str:
    return meta["e_tag"] or meta["last_modified"].isoformat()


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0].rstrip()
