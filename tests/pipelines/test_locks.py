"""Locks between processes: who waits says on whom, and one that is killed holds nothing."""

import logging
import multiprocessing
import os
import signal
import time

import pytest

from pipelines import locks


def hold(path, kind, held, release):
    with kind(path):
        held.set()
        release.wait(20)


@pytest.fixture
def other(tmp_path):
    """A function that lets another process hold a lock; it returns the process, and the event that ends it."""
    context, running = multiprocessing.get_context("fork"), []

    def start(kind):
        held, release = context.Event(), context.Event()
        process = context.Process(target=hold, args=(tmp_path / "lock", kind, held, release))
        process.start()
        running.append(process)
        assert held.wait(20)
        return process, release

    (tmp_path / "lock").touch()
    yield start
    for process in running:
        process.kill()
        process.join()


def alone(path):
    return locks.exclusive(path, "the thing")


def test_one_who_waits_names_the_holder_and_says_that_it_still_waits(other, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(locks, "REMINDER_SECONDS", 0.05)
    process, release = other(alone)
    with caplog.at_level(logging.WARNING):
        release_later = multiprocessing.get_context("fork").Process(target=lambda: (time.sleep(0.4), release.set()))
        release_later.start()
        with locks.exclusive(tmp_path / "lock", "the thing"):
            pass
        release_later.join()
    first, second, *_ = caplog.messages
    assert first == f"the thing: waiting for process {process.pid}, which is at work on it"
    assert second.startswith("the thing: waiting for 0 s already for process")


def test_a_killed_process_holds_nothing(other, tmp_path):
    process, _ = other(alone)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with locks.exclusive_now(tmp_path / "lock", "held by {holder}"):
        pass


def test_one_who_does_not_wait_gets_a_sentence(other, tmp_path):
    process, _ = other(alone)
    with (
        pytest.raises(ValueError, match=f"^the home is in use by process {process.pid}$"),
        locks.exclusive_now(tmp_path / "lock", "the home is in use by {holder}"),
    ):
        pass


def test_readers_share_a_file_and_keep_it_from_whoever_removes_it(other, tmp_path):
    with locks.unheld(tmp_path / "lock") as unheld:
        assert unheld
    (_, first), (process, second) = other(locks.shared), other(locks.shared)
    first.set()
    with locks.unheld(tmp_path / "lock") as unheld:
        assert not unheld
    second.set()
    process.join()
    with locks.unheld(tmp_path / "lock") as unheld:
        assert unheld
