"""What an encoder saw, in pretraining and without labels, of the ECGs that it is tested on.

By data set, of which PTB-XL at 500 and at 100 Hz is one; by ECG where the index of its corpus is at hand. An ECG of the
corpus counts as seen whether the encoder was trained on it or validated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from pipelines.cache import Product, Workspace
from pipelines.corpus.index import CorpusIndex
from pipelines.corpus.step import PRODUCT, CorpusFacts
from pipelines.encoders.import_reference import ReferenceFacts
from pipelines.encoders.names import DENSE_ENCODER, ENCODER_FILE, OURS, REFERENCE
from pipelines.evaluate.features import EncoderSource
from pipelines.evaluate.probes import handcrafted
from pipelines.evaluate.probes.stored import Probe
from pipelines.pretrain.step import EncoderFacts

DATA_SETS = {"ptbxl100": "ptbxl"}
"""Sources of the same ECGs, under the same record ids, as another source; any other is a data set of its own."""

REFERENCE_SAW = ("chapman", "code15")
"""What the author's released encoder was pretrained on (Kim, arXiv 2410.08559); which ECGs of it were left out in
cleaning is not told."""

SEEN = (
    "what the encoder was pretrained on, without labels, of the data set that it is tested on; PTB-XL at 500 and at "
    "100 Hz is one"
)
"""What a column `seen` says."""

UNTRAINED = (OURS.random_baseline, REFERENCE.random_baseline, handcrafted.NAME)
"""Names of features that no ECG has shaped; `named` calls the random baseline of any other encoder random-<digest>."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What was seen of a test. data_set: whether ECGs of the test's data set were. test: how many of its `tested` ECGs.
    None: not known."""

    data_set: bool | None
    test: int | None
    tested: int

    def in_words(self) -> str:
        """As a cell of a column `seen`."""
        if self.data_set is None:
            return "not known"
        if not self.data_set:
            return "nothing"
        if self.test is None:
            return "its data set"
        return f"{self.test:,} of {self.tested:,} test ECGs" if self.test else "others, no test ECG"


@dataclass(frozen=True, kw_only=True)
class PretrainingData:
    """What an encoder was pretrained on. records: the ids by data set, None where only the data set is known. complete:
    whether there was nothing else."""

    records: Mapping[str, Collection[str] | None]
    complete: bool

    def to_dict(self) -> dict[str, Any]:
        """What there is, as JSON values: how many ids stand for which, since a corpus is never changed."""
        counts = {name: None if known is None else len(known) for name, known in sorted(self.records.items())}
        return {"records": counts, "complete": self.complete}

    def of(self, source: str, tested: Collection[str]) -> Overlap:
        """tested: the record ids of a test on ECGs of a source."""
        data_set = DATA_SETS.get(source, source)
        if data_set not in self.records and not self.complete:
            return Overlap(data_set=None, test=None, tested=len(tested))
        known = self.records.get(data_set, ()) if self.complete else None
        count = None if known is None else sum(record in known for record in tested)
        return Overlap(data_set=data_set in self.records, test=count, tested=len(tested))


class Overlaps:
    """What encoders saw of tests, looked up once an encoder, in a workspace that knows what they were pretrained on."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._seen: dict[str, PretrainingData] = {}

    def of_probe(self, probe: Probe) -> Overlap:
        """Of a probe's test; of no ECGs where it was not scored."""
        encoder, tested = probe.about["encoder"], () if probe.test is None else probe.test.record_id
        return self.of(encoder["name"], encoder["digest"], probe.about["task"]["source"], tested)

    def of(self, name: str, digest: str, source: str, tested: Collection[str]) -> Overlap:
        """name, digest: of a source of features."""
        return self.known(name, digest).of(source, tested)

    def known(self, name: str, digest: str) -> PretrainingData:
        """All that a source of features was pretrained on."""
        if name in UNTRAINED or name.startswith("random-"):
            return PretrainingData(records={}, complete=True)
        return self._of_file(digest)

    def _of_file(self, sha256: str) -> PretrainingData:
        """What the encoder in a file saw; nothing is known of a file that is no product of this workspace."""
        if sha256 not in self._seen:
            product = self._product(sha256)
            if product is None:
                self._seen[sha256] = PretrainingData(records={}, complete=False)
            elif product.name == REFERENCE.product:
                known = ReferenceFacts.of(product).published is not None  # another file in its form is anyone's
                self._seen[sha256] = PretrainingData(
                    records=dict.fromkeys(REFERENCE_SAW if known else ()), complete=known
                )
            else:
                self._seen[sha256] = self._pretrained(EncoderFacts.of(product))
        return self._seen[sha256]

    def _product(self, sha256: str) -> Product | None:
        for name in (OURS.product, DENSE_ENCODER, REFERENCE.product):
            for product in self._workspace.finished(name):
                file = product.path / ENCODER_FILE
                if file.is_file() and EncoderSource.of_file(product.name, file).digest == sha256:
                    return product
        return None

    def _pretrained(self, facts: EncoderFacts) -> PretrainingData:
        """What its corpus holds, and what the encoder saw that it began as."""
        own = corpus_of(self._workspace, facts.corpus_digest)
        records: dict[str, Collection[str] | None] = {} if own is None else _records(own)
        start = facts.warm_start
        began = PretrainingData(records={}, complete=True) if start is None else self._of_file(start)
        return PretrainingData(
            records={name: _both(records, began.records, name) for name in (*records, *began.records)},
            complete=own is not None and began.complete,
        )


def corpus_of(workspace: Workspace, digest: str | None) -> Product | None:
    """Return the corpus of this digest, on which an encoder was pretrained, or None if it is no longer here."""
    return next((one for one in workspace.finished(PRODUCT) if CorpusFacts.of(one).digest == digest), None)


def _records(product: Product) -> dict[str, Collection[str] | None]:
    """The record ids of a corpus by data set."""
    index = CorpusIndex(product.path).table(["source", "record_id"])
    found: dict[str, set[str]] = {}
    for source in map(str, index["source"].unique().to_pylist()):
        ids = index.filter(pc.field("source") == source)["record_id"].to_pylist()
        found.setdefault(DATA_SETS.get(source, source), set()).update(ids)
    return dict(found)


def _both(
    first: Mapping[str, Collection[str] | None], second: Mapping[str, Collection[str] | None], data_set: str
) -> Collection[str] | None:
    """The ids of a data set in one or the other; None where one of them does not tell."""
    one, other = first.get(data_set, ()), second.get(data_set, ())
    return None if one is None or other is None else {*one, *other}
