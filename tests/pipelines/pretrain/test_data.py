"""Batches from a corpus in memory and from one that is read as it is needed: the same ones."""

from __future__ import annotations

import logging
import shutil
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.cache import Workspace
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from pipelines.formats.shard import CHUNK, THREADS, ShardWriter
from pipelines.formats.simhash import signatures
from pipelines.pretrain import data
from pipelines.pretrain import sampling_order as ordering
from pipelines.pretrain.crops import Crops
from pipelines.pretrain.data import BYTES, Corpus, Resident, Streamed, load_corpus, load_to, to_millivolt
from pipelines.pretrain.sampling_order import Order
from tests.support.pretraining import corpus

CPU = torch.device("cpu")
SHARDS = {"01": 1300, "02": 40, "03": 700}


def fill(folder: Path, shard: str, count: int) -> None:
    """ECGs of noise, each of its own."""
    rng = np.random.default_rng(int(shard))
    writer = ShardWriter(folder)
    signal_NLT = rng.integers(-900, 900, (count, 8, 2500), dtype=np.int16)
    for row, (signal_LT, signature) in enumerate(zip(signal_NLT, signatures(signal_NLT), strict=True)):
        record = {
            "source": "chapman",
            "record_id": f"{shard}-{row}",
            "patient_id": f"{shard}-{row}",
            "rate": 500.0,
            "samples": 5000,
            "labels": [],
            "notes": [],
            "content_hash": f"{shard}-{row}",
            "signature": signature.tobytes(),
        }
        writer.append(signal_LT, record)
    writer.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A corpus of three shards; the validation records are missing from the rows to train on."""
    workspace = Workspace(tmp_path_factory.mktemp("home"))
    for shard, count in SHARDS.items():

        def make(folder: Path, shard: str = shard, count: int = count) -> dict[str, object]:
            fill(folder, shard, count)
            return {"role": "pretraining", "kept": count, "entered": count, "dropped": {}}

        workspace.build(f"ecgs/chapman/{shard}", version="1", config={}, inputs={}, make=make)
    return workspace.root, materialize_corpus(workspace, CorpusConfig(validation_share=0.2)).path


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "WINDOW", 4)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize(("first_step", "rank", "world"), [(0, 0, 1), (37, 0, 1), (11, 0, 2), (11, 1, 2), (5, 3, 4)])
def test_both_readers_give_the_same_batches(home: tuple[Path, Path], first_step: int, rank: int, world: int) -> None:
    """Over two epochs, with batches across windows and epochs."""
    resident, streamed = (load_corpus(*home, CPU, memory_budget=budget) for budget in (10**9, 10**6))
    assert isinstance(resident.train, Resident)
    assert isinstance(streamed.train, Streamed)
    assert len(resident.train) == len(streamed.train) > 1500
    np.testing.assert_array_equal(resident.chunk_N, streamed.chunk_N)
    assert np.bincount(resident.chunk_N).max() <= CHUNK
    assert (resident.names, resident.digest) == (streamed.names, streamed.digest)
    order = Order(seed=3, batch=56, chunk_N=resident.chunk_N)
    with (
        resident.feed(order, device=CPU, first_step=first_step, rank=rank, world=world) as resident_feed,
        streamed.feed(order, device=CPU, first_step=first_step, rank=rank, world=world) as read,
    ):
        for step in range(first_step, first_step + 2 * len(resident.train) // 56):
            expected = resident_feed.next()
            assert torch.equal(read.next(), expected)
            rows = order.rows(step)[rank::world]
            assert torch.equal(expected, resident.train.signal_NLT[rows].float() * data.MILLIVOLT)
    assert resident_feed.waited_seconds > 0
    assert read.waited_seconds > 0


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize(("rank", "world"), [(0, 1), (1, 2)])
def test_both_readers_give_the_same_random_parts(home: tuple[Path, Path], rank: int, world: int) -> None:
    """Of each ECG the part that `Crops` names, from whichever step they begin."""
    resident, streamed = (load_corpus(*home, CPU, memory_budget=budget) for budget in (10**9, 10**6))
    assert isinstance(resident.train, Resident)
    order = Order(seed=3, batch=56, chunk_N=resident.chunk_N)
    first = len(resident.train) // 56 - 1  # across the end of an epoch
    with (
        resident.feed(order, device=CPU, first_step=first, rank=rank, world=world, window=600) as resident_feed,
        streamed.feed(order, device=CPU, first_step=first, rank=rank, world=world, window=600) as read,
    ):
        for step in range(first, first + 4):
            expected = resident_feed.next()
            assert torch.equal(read.next(), expected)
            starts_B = Crops(order, 600).starts(step, 2500)[rank::world]
            whole_BLT = resident.train.signal_NLT[order.rows(step)[rank::world]].float() * data.MILLIVOLT
            for x_LT, whole_LT, start in zip(expected, whole_BLT, starts_B, strict=True):
                assert torch.equal(x_LT, whole_LT[:, start : start + 600])


def test_two_windows_at_most_are_in_memory(home: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "WINDOW", 10)
    monkeypatch.setattr(data, "THREADS", 1)  # a reader holds some chunks of its own
    corpus = load_corpus(*home, CPU, memory_budget=0)
    order = Order(seed=3, batch=16, chunk_N=corpus.chunk_N)
    steps = 2 * len(corpus.train) // 16
    window = len(order.window(0).rows)
    tracemalloc.start()
    try:
        with corpus.feed(order, device=CPU, first_step=0) as feed:
            for _ in range(steps):
                feed.next()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * window * BYTES


@pytest.mark.usefixtures("small_windows")
def test_a_shard_that_goes_under_way_stops_the_run(home: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(home[0], tmp_path / "home")
    there = tmp_path / "home"
    corpus = load_corpus(there, there / home[1].relative_to(home[0]), CPU, memory_budget=0)
    order = Order(seed=3, batch=16, chunk_N=corpus.chunk_N)
    with corpus.feed(order, device=CPU, first_step=0) as feed:
        feed.next()
        (there / "ecgs/chapman/01").rename(tmp_path / "elsewhere")
        with pytest.raises(ValueError, match=r"has no harmonized shard|shard is incomplete|are missing"):  # noqa: PT012
            while True:
                feed.next()


def test_nothing_reads_on_after_the_end(home: tuple[Path, Path]) -> None:
    corpus = load_corpus(*home, CPU, memory_budget=0)
    before = threading.active_count()
    with corpus.feed(Order(seed=3, batch=16, chunk_N=corpus.chunk_N), device=CPU, first_step=0) as feed:
        feed.next()
    assert threading.active_count() == before


class Waiting:
    """ECGs whose first batch waits for a read that is queued behind as many as there are readers, all of them slow."""

    def __init__(self) -> None:
        self.begun, self.ended, self.read = threading.Event(), threading.Event(), threading.Event()

    def __len__(self) -> int:
        return 4

    def batches(self, order: Order, *, first_step: int, rank: int, world: int, readers: Executor) -> Iterator[Tensor]:
        for _ in range(THREADS):
            readers.submit(self.ended.wait, 30)
        queued = readers.submit(self.read.set)
        self.begun.set()
        try:
            queued.result()
        finally:
            self.ended.set()
        yield torch.zeros(4, 8, 2500, dtype=torch.int16)


def test_whoever_leaves_waits_for_no_window() -> None:
    signals = Waiting()
    corpus = Corpus(
        train=signals,
        validation_NLT=torch.zeros(1, 8, 2500, dtype=torch.int16),
        names=["a", "b", "c", "d"],
        chunk_N=np.zeros(4, np.int64),
        digest="",
    )
    before = threading.active_count()
    with corpus.feed(Order(seed=0, batch=4, chunk_N=corpus.chunk_N), device=CPU, first_step=0):
        assert signals.begun.wait(30)
    assert not signals.read.is_set()
    assert threading.active_count() == before


def test_a_corpus_goes_to_a_device_by_pieces(home: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "PIECE", 300)
    whole, stored = (load_corpus(*home, CPU, memory_budget=budget).train for budget in (10**9, 0))
    assert isinstance(whole, Resident)
    assert isinstance(stored, Streamed)
    assert torch.equal(load_to(CPU, stored), whole.signal_NLT)


def test_which_reader_it_is_follows_from_the_budget_and_is_said(
    home: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    need = BYTES * len(load_corpus(*home, CPU, memory_budget=0).train)
    assert "0.1 GB of ECGs are read when they are needed: the memory budget for them is 0.0 GB" in caplog.text
    assert isinstance(load_corpus(*home, CPU, memory_budget=need).train, Resident)
    assert isinstance(load_corpus(*home, CPU, memory_budget=need - 1).train, Streamed)
    assert isinstance(load_corpus(*home, CPU, memory_budget=2 * need, processes=2).train, Resident)
    assert isinstance(load_corpus(*home, CPU, memory_budget=2 * need, processes=3).train, Streamed)
    assert isinstance(load_corpus(*home, CPU).train, Resident), "this machine has a hundred megabytes free"


def test_batches_are_millivolt() -> None:
    signal_NLT = corpus().validation_NLT
    rows_B = np.array([3, 1, 3])
    x_BLT = to_millivolt(signal_NLT, rows_B, CPU)
    assert x_BLT.dtype == torch.float32
    np.testing.assert_allclose(x_BLT.numpy(), signal_NLT.numpy()[rows_B] / 1000.0, rtol=1e-6)
