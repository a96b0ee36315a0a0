"""The cache of stages: built once, never half, never twice at a time."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.cache import Product, Workspace
from pipelines.durable import write_atomically
from pipelines.hashing import digest_of


def build(workspace: Workspace, text: str = "a", *, config=None, inputs=None, calls=None, **more) -> Product:
    def make(work: Path) -> dict:
        if calls is not None:
            calls.append(text)
        (work / "sub").mkdir()
        (work / "sub" / "out.txt").write_text(text)
        (work / "aside").mkdir()
        (work / "aside" / "time.txt").write_text(str(time.time_ns()))
        return {"length": len(text)}

    return workspace.build("stage/one", version="1", config=config or {}, inputs=inputs or {}, make=make, **more)


def test_second_build_is_found_and_not_made(tmp_path):
    calls: list[str] = []
    first = build(Workspace(tmp_path), calls=calls)
    second = build(Workspace(tmp_path), calls=calls)
    assert calls == ["a"]
    assert (first.cached, second.cached) == (False, True)
    assert second.facts == {"length": 1}
    assert (second.path / "sub" / "out.txt").read_text() == "a"


@pytest.mark.parametrize("change", [{"config": {"k": 2}}, {"inputs": {"in": "other"}}])
def test_another_config_or_input_is_another_product_and_both_stay(tmp_path, change):
    workspace = Workspace(tmp_path)
    first, second = build(workspace), build(workspace, **change)
    assert first.fingerprint != second.fingerprint
    assert first.digest == second.digest, "the same bytes have the same digest, whatever made them"
    assert first.path.is_dir()
    assert workspace.require("stage/one").fingerprint == second.fingerprint
    assert build(workspace).cached
    assert workspace.require("stage/one").fingerprint == first.fingerprint


def test_every_finished_build_is_found_the_current_one_first(tmp_path):
    workspace = Workspace(tmp_path)
    assert workspace.finished("stage/one") == []
    for text in "abc":
        build(workspace, text, config={"k": text})
    middle = build(workspace, config={"k": "b"})
    (workspace.folder("stage/one") / "0123.partial").mkdir()
    builds = workspace.finished("stage/one")
    assert builds[0] == middle
    assert len({product.fingerprint for product in builds}) == 3


def test_what_lies_aside_is_no_part_of_the_digest(tmp_path):
    digests = {build(Workspace(tmp_path / name)).digest for name in ("x", "y")}
    assert len(digests) == 1
    assert build(Workspace(tmp_path / "z"), "b").digest not in digests


def test_a_failed_build_leaves_nothing_and_does_not_move_current(tmp_path):
    workspace = Workspace(tmp_path)
    first = build(workspace)

    def fail(work: Path) -> dict:
        (work / "half.txt").write_text("half")
        raise RuntimeError("no disk")

    with pytest.raises(RuntimeError, match="no disk"):
        workspace.build("stage/one", version="2", config={}, inputs={}, make=fail)
    assert workspace.require("stage/one").fingerprint == first.fingerprint
    assert not list(tmp_path.rglob("half.txt"))
    assert not list(tmp_path.rglob("*.partial"))


def test_a_resumable_build_goes_on_where_it_was_left(tmp_path):
    workspace = Workspace(tmp_path)

    def make(work: Path) -> dict:
        seen = (work / "progress").exists()
        (work / "progress").write_text("1")
        if not seen:
            raise KeyboardInterrupt
        return {"resumed": seen}

    with pytest.raises(KeyboardInterrupt):
        workspace.build("long", version="1", config={}, inputs={}, make=make, resumable=True)
    assert workspace.current("long") is None
    product = workspace.build("long", version="1", config={}, inputs={}, make=make, resumable=True)
    assert product.facts == {"resumed": True}


def test_a_product_that_is_no_longer_valid_is_built_again(tmp_path):
    calls: list[str] = []
    workspace = Workspace(tmp_path)
    build(workspace, calls=calls)
    assert not build(workspace, calls=calls, still_valid=lambda product: False).cached
    assert calls == ["a", "a"]
    assert build(workspace, calls=calls, still_valid=lambda product: product.facts["length"] == 1).cached


def test_a_removed_product_is_asked_for_by_name(tmp_path):
    with pytest.raises(ValueError, match="materialize it first"):
        Workspace(tmp_path).require("corpus")


@pytest.mark.parametrize("name", ["../out", "/abs", "a/../b", "", "a//b", "Upper", "a/.hidden"])
def test_names_that_leave_the_workspace_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="product"):
        Workspace(tmp_path).current(name)


def test_done_json_says_what_made_it(tmp_path):
    product = build(Workspace(tmp_path), config={"k": 1}, inputs={"up": "d"})
    done = json.loads((product.path / "done.json").read_text())
    assert (done["version"], done["config"], done["inputs"]) == ("1", {"k": 1}, {"up": "d"})


def test_digest_ignores_the_order_of_keys_and_refuses_nan():
    assert digest_of({"a": 1, "b": [1.5]}) == digest_of({"b": [1.5], "a": 1})
    with pytest.raises(ValueError, match=r"NaN|not JSON"):
        digest_of(float("nan"))


def _slow(root: str, started, log: str) -> None:
    def make(work: Path) -> dict:
        with Path(log).open("a") as stream:
            stream.write("made\n")
        started.set()
        time.sleep(0.5)
        (work / "x").write_text("x")
        return {}

    Workspace(root).build("shared", version="1", config={}, inputs={}, make=make)


def test_of_two_processes_one_works_and_the_other_waits(tmp_path):
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    log = tmp_path / "log"
    workers = [context.Process(target=_slow, args=(str(tmp_path / "home"), started, str(log))) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert log.read_text() == "made\n"


def test_a_killed_build_leaves_nothing_finished_and_the_next_one_works(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from pipelines.cache import Workspace\n"
        "def make(work):\n"
        "    (work / 'half').write_text('half'); print('ready', flush=True); time.sleep(60); return {}\n"
        "Workspace(sys.argv[1]).build('stage/one', version='1', config={}, inputs={}, make=make)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    assert Workspace(tmp_path).current("stage/one") is None
    assert len(list(tmp_path.rglob("half"))) == 1
    product = build(Workspace(tmp_path), config={"another": "fingerprint"})
    assert not product.cached
    assert not list(tmp_path.rglob("half"))


def test_what_a_killed_write_left_is_no_part_of_a_resumed_product(tmp_path):
    """Killed between writing the temporary file and renaming it."""
    script = (
        "import os, sys; from pathlib import Path; from pipelines.cache import Workspace\n"
        "from pipelines.durable import write_atomically\n"
        "def make(work):\n"
        "    if sys.argv[2] == 'die': Path.replace = lambda *_: os._exit(9)\n"
        "    write_atomically(work / 'result', b'whole'); return {}\n"
        "done = Workspace(sys.argv[1]).build("
        "'long', version='1', config={}, inputs={}, make=make, resumable=True)\n"
        "print(done.digest)"
    )
    digests = []
    for folder, acts in (("disturbed", ("die", "live")), ("calm", ("live",))):
        for act in acts:
            command = [sys.executable, "-c", script, str(tmp_path / folder), act]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if act == "die":
                assert done.returncode == 9
                assert len(list((tmp_path / folder).rglob("*.tmp"))) == 1
        assert done.returncode == 0, done.stderr
        digests.append(done.stdout)
    assert digests[0] == digests[1]
    assert not list(tmp_path.rglob("*.tmp"))


def test_write_atomically_replaces_whole_files(tmp_path):
    target = tmp_path / "deep" / "file"
    write_atomically(target, b"one")
    write_atomically(target, b"two")
    assert target.read_bytes() == b"two"
    assert [p.name for p in target.parent.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_neither_file_nor_temporary(tmp_path):
    (tmp_path / "held").mkdir()
    with pytest.raises(OSError, match="held"):
        write_atomically(tmp_path / "held", b"a file cannot replace a folder")
    assert [p.name for p in tmp_path.iterdir()] == ["held"]
