"""Overlap between an encoder's pretraining data and its test sets. Pretraining uses no labels.

The overlap is counted by data set (PTB-XL at 500 and at 100 Hz is one), and by ECG if the index of the encoder's corpus
is still here. An ECG of the corpus counts whether it was in training or in validation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from pipelines.cache import Product, Workspace
from pipelines.corpus.index import CorpusIndex
from pipelines.corpus.step import corpus_of
from pipelines.encoders.import_reference import ReferenceFacts
from pipelines.encoders.names import (
    DENSE_ENCODER,
    ENCODER_FILE,
    OURS,
    REFERENCE,
    REFERENCE_CPC,
    RELEASED,
    SCALING_ENCODERS,
)
from pipelines.evaluate.features import EncoderSource
from pipelines.evaluate.probes import handcrafted
from pipelines.evaluate.probes.stored import Probe
from pipelines.pretrain.step import EncoderFacts

DATA_SETS = {"ptbxl100": "ptbxl"}
"""Sources of the same ECGs, under the same record ids, as another source; any other is a data set of its own."""

REFERENCE_SAW = ("chapman", "code15")
"""The data sets that the author's released encoder was pretrained on (Kim, arXiv 2410.08559). Which of their ECGs were
left out in cleaning is not published."""

SEEN = (
    "what the encoder was pretrained on, without labels, of the data set that it is tested on; PTB-XL at 500 and at "
    "100 Hz is one"
)
"""Explanation of a column `seen`."""

UNTRAINED = (OURS.random_baseline, *(names.random_baseline for names in RELEASED), handcrafted.NAME)
"""Names of features that depend on no training data; the random baseline of any other encoder is random-<digest>."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Overlap of an encoder's pretraining data with a test set."""

    data_set: bool | None
    """Whether ECGs of the test's data set were in the pretraining data; None if not known."""
    test: int | None
    """How many of the test ECGs were in the pretraining data; None if not known."""
    tested: int
    """How many test ECGs there are."""

    def in_words(self) -> str:
        """Return the overlap as a cell of a column `seen`."""
        if self.data_set is None:
            return "not known"
        if not self.data_set:
            return "nothing"
        if self.test is None:
            return "its data set"
        return f"{self.test:,} of {self.tested:,} test ECGs" if self.test else "others, no test ECG"


@dataclass(frozen=True, kw_only=True)
class PretrainingData:
    """The ECGs that an encoder was pretrained on, as far as they are known."""

    records: Mapping[str, Collection[str] | None]
    """Record ids by data set; None if only the data set is known."""
    complete: bool
    """Whether there was nothing else."""

    def to_dict(self) -> dict[str, Any]:
        """Return the data as JSON values, with counts in place of ids: a corpus never changes, so they identify it."""
        counts = {name: None if ids is None else len(ids) for name, ids in sorted(self.records.items())}
        return {"records": counts, "complete": self.complete}

    def of(self, source: str, tested: Collection[str]) -> Overlap:
        """Return the overlap with a test on ECGs of a source, given the test's record ids."""
        data_set = DATA_SETS.get(source, source)
        if data_set not in self.records and not self.complete:
            return Overlap(data_set=None, test=None, tested=len(tested))
        ids = self.records.get(data_set, ()) if self.complete else None
        count = None if ids is None else sum(record in ids for record in tested)
        return Overlap(data_set=data_set in self.records, test=count, tested=len(tested))


class Overlaps:
    """Overlaps of encoders' pretraining data with test sets, from a workspace's products.

    Each encoder is looked up once.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._data: dict[str, PretrainingData] = {}  # by the encoder file's sha256

    def of_probe(self, probe: Probe) -> Overlap:
        """Return the overlap with a probe's test set, which is empty if the probe was not scored."""
        encoder, tested = probe.about["encoder"], () if probe.test is None else probe.test.record_id
        file = encoder.get("file", encoder["digest"])  # an encoder with other code names its file beside its digest
        return self.of(encoder["name"], file, probe.about["task"]["source"], tested)

    def of(self, name: str, digest: str, source: str, tested: Collection[str]) -> Overlap:
        """Return the overlap with the test ECGs of a source.

        name, digest: of the source of features.
        tested: the test's record ids.
        """
        return self.known(name, digest).of(source, tested)

    def known(self, name: str, digest: str) -> PretrainingData:
        """Return the data that a source of features was pretrained on."""
        if name in UNTRAINED or name.startswith("random-"):
            return PretrainingData(records={}, complete=True)
        return self._of_file(digest)

    def _of_file(self, sha256: str) -> PretrainingData:
        """Return the data of an encoder file, or incomplete data if it is not known."""
        if sha256 not in self._data:
            product = self._product(sha256)
            if product is None or product.name == REFERENCE_CPC.product:  # its authors published no list of records
                self._data[sha256] = PretrainingData(records={}, complete=False)
            elif product.name == REFERENCE.product:
                known = (
                    ReferenceFacts.of(product).published is not None
                )  # nothing is known of any other file in this form
                self._data[sha256] = PretrainingData(
                    records=dict.fromkeys(REFERENCE_SAW if known else ()), complete=known
                )
            else:
                self._data[sha256] = self._pretrained(EncoderFacts.of(product))
        return self._data[sha256]

    def _product(self, sha256: str) -> Product | None:
        """Return the product with that encoder file, or None."""

        def kept() -> Iterator[Product]:
            for name in (OURS.product, DENSE_ENCODER, *(names.product for names in RELEASED)):
                yield from self._workspace.finished(name)
            yield from self._workspace.listed(f"{SCALING_ENCODERS}/*").values()

        for product in kept():
            file = product.path / ENCODER_FILE
            if file.is_file() and EncoderSource.of_file(product.name, file).digest == sha256:
                return product
        return None

    def _pretrained(self, facts: EncoderFacts) -> PretrainingData:
        """Return the data of an encoder's corpus, and of the encoder that its training started from."""
        own = corpus_of(self._workspace, facts.corpus_digest)
        records: dict[str, Collection[str] | None] = {} if own is None else _records(own)
        start = facts.warm_start
        earlier = PretrainingData(records={}, complete=True) if start is None else self._of_file(start)
        return PretrainingData(
            records={name: _both(records, earlier.records, name) for name in (*records, *earlier.records)},
            complete=own is not None and earlier.complete,
        )


def _records(product: Product) -> dict[str, Collection[str] | None]:
    """Return the record ids of a corpus by data set."""
    index = CorpusIndex(product.path).table(["source", "record_id"])
    records: dict[str, set[str]] = {}
    for source in map(str, index["source"].unique().to_pylist()):
        ids = index.filter(pc.field("source") == source)["record_id"].to_pylist()
        records.setdefault(DATA_SETS.get(source, source), set()).update(ids)
    return dict(records)


def _both(
    first: Mapping[str, Collection[str] | None], second: Mapping[str, Collection[str] | None], data_set: str
) -> Collection[str] | None:
    """Return the ids of a data set that are in one or the other, or None if one of them is not known."""
    ids, more = first.get(data_set, ()), second.get(data_set, ())
    return None if ids is None or more is None else {*ids, *more}
