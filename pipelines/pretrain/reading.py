"""Keep what a training reads from `ecg gc --delete`: by locks while it runs, by a mark once it was stopped.

<corpus>/aside/trainings/<digest>    the output folder of a training that has begun and not ended, as text
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.cache import ASIDE, in_use
from pipelines.corpus.index import CorpusIndex
from pipelines.durable import write_atomically
from pipelines.hashing import digest_of
from pipelines.pretrain.step import CHECKPOINTS, SUMMARY_FILE

log = logging.getLogger(__name__)

_TRAININGS = Path(ASIDE, "trainings")


@contextmanager
def reading(workspace: Path, corpus: Path, out: Path) -> Iterator[None]:
    """Hold a corpus and its shards while a training reads them; unless it ends, the corpus stays marked."""
    shards = CorpusIndex(corpus).shard_folders(workspace).values()
    with in_use([corpus, *shards]):
        mark = corpus / _TRAININGS / digest_of(str(out.resolve()))[:16]
        try:
            write_atomically(mark, str(out.resolve()).encode())
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            log.warning("%s cannot be written (%s): `ecg gc` does not know of this training once it stops", mark, error)
            mark = None
        yield
        if mark is not None and (out / SUMMARY_FILE).is_file():
            mark.unlink(missing_ok=True)


def unfinished_trainings(corpus: Path) -> list[Path]:
    """Return the output folders of trainings on a corpus that were stopped and can be continued."""
    marks = sorted((corpus / _TRAININGS).glob("[!.]*"))
    folders = [Path(mark.read_text()) for mark in marks]
    return [out for out in folders if any((out / CHECKPOINTS).glob("step-*")) and not (out / SUMMARY_FILE).is_file()]
