"""`ecg gc`: what nothing depends on is listed and removed, and nothing else."""

import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.cache import PARTIAL, Product, Workspace, in_use
from pipelines.cli import main
from pipelines.hashing import digest_of
from pipelines.home import HOSTS, Home
from pipelines.maintenance.garbage import Unreferenced, registered_digests, remove, unreferenced
from pipelines.pretrain.reading import reading
from pipelines.tracking import Tracking


def build(
    workspace: Workspace, product: str, content: str, made_of: Mapping[str, Product] | None = None, **facts: str
) -> Product:
    def make(folder: Path) -> dict:
        name = {"encoder": "encoder.safetensors", "classifier": "head.safetensors"}.get(product, "content")
        (folder / name).write_text(content)
        return facts

    inputs = {name: one.digest for name, one in (made_of or {}).items()}
    return workspace.build(product, version="1", config={"content": content}, inputs=inputs, make=make)


def shard(workspace: Workspace, content: str) -> Product:
    raw = build(workspace, "raw/chapman/01", f"raw {content}")
    return build(workspace, "ecgs/chapman/01", content, {raw.name: raw})


def train(workspace: Workspace, content: str) -> Product:
    """A shard, a corpus of it, and an encoder of that."""
    ecgs = shard(workspace, content)
    corpus = build(workspace, "corpus", content, {ecgs.name: ecgs}, digest=digest_of(content))
    return build(workspace, "encoder", content, {"corpus": corpus})


def listed(home: Home, registered=frozenset(), **options: bool) -> set[str]:
    return {f"{one.product}/{one.path.name}" for one in unreferenced(home, registered, **options)[0]}


def named(*products: Product) -> set[str]:
    return {f"{one.name}/{one.fingerprint}" for one in products}


def everything(workspace: Workspace) -> set[str]:
    return {path.parent.relative_to(workspace.root).as_posix() for path in workspace.root.rglob("done.json")}


def test_what_is_superseded_goes_with_what_it_was_made_of_and_the_rest_stays(home):
    workspace = home.workspace()
    train(workspace, "old")
    old = everything(workspace)
    train(workspace, "new")
    new = everything(workspace) - old
    assert len(old) == len(new) == 4
    assert listed(home) == old
    for one in unreferenced(home, frozenset())[0]:
        assert one.bytes == sum(file.stat().st_size for file in one.path.rglob("*") if file.is_file())
        assert remove(home, one)
    assert everything(workspace) == new
    assert listed(home) == set()
    again = train(workspace, "old")
    assert not again.cached
    assert workspace.current("encoder") is not None


def test_what_a_current_corpus_was_made_of_stays_if_a_shard_was_built_anew(home):
    workspace = home.workspace()
    train(workspace, "first")
    shard(workspace, "second")
    assert listed(home) == set(), "the corpus still reads the first shard"
    third = shard(workspace, "third")
    gone = listed(home)
    assert len(gone) == 2
    assert third.fingerprint not in str(gone)


def test_a_registered_encoder_keeps_all_that_it_was_made_of(home):
    workspace = home.workspace()
    encoder = train(workspace, "registered")
    kept = everything(workspace)
    train(workspace, "lost")
    lost = everything(workspace) - kept
    train(workspace, "current")
    weights = hashlib.sha256((encoder.path / "encoder.safetensors").read_bytes()).hexdigest()
    assert listed(home, {weights}) == lost
    corpus_alone = {digest_of("registered")}
    assert listed(home, corpus_alone) == lost | named(encoder), "a corpus that is named, with its shard"


def test_a_registered_head_keeps_the_probe_that_it_was_made_of(home):
    workspace = home.workspace()
    encoder = train(workspace, "only one")

    def fit(content: str) -> tuple[Product, Product]:
        probe = build(workspace, "probe/task/pretrained", content, {"encoder": encoder})
        return probe, build(workspace, "classifier", content, {"probe": probe})

    probe, head = fit("registered")
    fit("current")
    assert listed(home) == named(probe, head)
    weights = hashlib.sha256((head.path / "head.safetensors").read_bytes()).hexdigest()
    assert listed(home, {weights}) == set()


def test_what_a_training_would_go_on_from_goes_when_it_has_ended(home):
    workspace = home.workspace()

    def checkpointed(folder: Path) -> None:
        (folder / "aside" / "checkpoints").mkdir(parents=True)
        (folder / "aside" / "checkpoints" / "step-1.safetensors").write_text("tensors")
        (folder / "aside" / "metrics.jsonl").write_text("{}")

    current = train(workspace, "current")
    checkpointed(current.path)
    stopped = workspace.folder("encoder") / f"{'0' * 24}{PARTIAL}"
    checkpointed(stopped)
    ((found,), _) = unreferenced(home, frozenset())
    assert (found.path, found.bytes) == (current.path / "aside" / "checkpoints", len("tensors"))
    assert "training that has ended" in found.why
    assert remove(home, found)
    again = workspace.require("encoder")
    assert (again.digest, (again.aside / "metrics.jsonl").is_file()) == (current.digest, True)
    assert train(workspace, "current").cached
    assert (stopped / "aside" / "checkpoints").is_dir(), "it may go on"


def test_a_registry_that_is_not_there_names_none_and_is_not_made(home):
    tracking = Tracking.of(home)
    assert registered_digests(tracking) == (0, frozenset())
    assert not (home.root / "mlflow").exists()


def test_nothing_is_removed_if_the_registry_is_not_there(home):
    train(home.workspace(), "perhaps the champion")
    train(home.workspace(), "new")
    before = everything(home.workspace())
    assert "4 outputs" in CliRunner().invoke(main, ["gc"]).output
    done = CliRunner().invoke(main, ["gc", "--delete"])
    assert done.exit_code == 1, done.output
    assert "mlflow.db does not exist" in done.output
    assert "MLFLOW_TRACKING_URI" in done.output
    assert everything(home.workspace()) == before


def test_the_registry_is_asked_for_every_digest_of_every_model(tracking):
    client = tracking.client()
    for name in ("ecg-encoder", "ecg-classifier"):
        client.create_registered_model(name)
        tags = {"encoder_digest": digest_of(name), "validation": "0.9", "scores": json.dumps({"data": "d" * 64})}
        client.create_model_version(name, source="here", tags=tags)
    assert registered_digests(tracking) == (2, {digest_of("ecg-encoder"), digest_of("ecg-classifier"), "d" * 64})


def test_a_server_that_is_away_stops_it_in_one_line(home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    train(home.workspace(), "old")
    train(home.workspace(), "new")
    before = everything(home.workspace())
    done = CliRunner().invoke(main, ["gc", "--delete"])
    assert done.exit_code == 1
    assert "does not answer" in done.output
    assert everything(home.workspace()) == before


def _build_slowly(root: Path, product: str, inputs: dict[str, str], resumable: bool, started) -> None:
    def make(folder: Path) -> dict:
        (folder / "some").write_text("work")
        started.set()
        time.sleep(60)
        return {}

    Workspace(root).build(product, version="1", config={}, inputs=inputs, make=make, resumable=resumable)


@pytest.mark.parametrize(("product", "resumable"), [("encoder", True), ("probe/task/one", False)])
def test_a_build_that_runs_keeps_its_inputs_and_a_killed_one_is_told_by_its_kind(home, product, resumable):
    workspace = home.workspace()
    ecgs = shard(workspace, "old")
    corpus = build(workspace, "corpus", "old", {ecgs.name: ecgs})
    fork = multiprocessing.get_context("fork")
    started = fork.Event()
    process = fork.Process(
        target=_build_slowly, args=(workspace.root, product, {"corpus": corpus.digest}, resumable, started)
    )
    process.start()
    assert process.pid is not None
    try:
        assert started.wait(30)
        moved = shard(workspace, "new")
        build(workspace, "corpus", "new", {moved.name: moved})
        assert listed(home, unfinished=True) == set(), "it reads the old corpus, and so its shards"
        partial = next(workspace.folder(product).glob(f"*{PARTIAL}"))
        assert not remove(home, Unreferenced(product=product, path=partial, bytes=0, why="a wrong guess"))
        assert partial.is_dir()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    old = {*named(corpus, ecgs), f"{product}/{partial.name}"}
    raw = next(name for name in everything(workspace) if name.startswith("raw/") and name not in _current(workspace))
    assert listed(home) == (set() if resumable else old | {raw})
    assert listed(home, unfinished=True) == old | {raw}


def _current(workspace: Workspace) -> set[str]:
    return {
        f"{path.parent.relative_to(workspace.root).as_posix()}/{path.read_text()}"
        for path in workspace.root.rglob("current")
    }


def test_what_is_asked_for_again_after_it_was_listed_stays(home):
    workspace = home.workspace()
    old = shard(workspace, "old")
    shard(workspace, "new")
    found, _ = unreferenced(home, frozenset())
    shard(workspace, "old")
    assert [remove(home, one) for one in found] == [False, False]
    assert workspace.require("ecgs/chapman/01").fingerprint == old.fingerprint


def test_a_removal_that_was_cut_short_looks_unfinished_and_is_ended_by_the_next(home):
    workspace = home.workspace()
    old = build(workspace, "corpus", "old")
    build(workspace, "corpus", "new")
    (old.path / "done.json").unlink()
    ((found,), _) = unreferenced(home, frozenset())
    assert found.why == "a removal that was cut short"
    assert remove(home, found)
    assert not old.path.exists()


def test_a_copy_of_a_drop_goes_when_another_took_its_place(home):
    workspace = home.workspace()

    def take(content: str) -> Path:
        copy = home.raw_root.resolve() / "incoming" / "monday" / digest_of(content)[:16]
        copy.mkdir(parents=True, exist_ok=True)
        (copy / "ecg.csv").write_text(content)

        def make(folder: Path) -> dict:
            (folder / "files.json").write_text("[]")
            (folder / "content").write_text(content)
            (folder / "aside").mkdir()
            (folder / "aside" / "root").write_text(str(copy))
            return {}

        workspace.build("raw/incoming/monday", version="1", config={"c": content}, inputs={}, make=make)
        return copy

    old, new = take("old"), take("new")
    found, _ = unreferenced(home, frozenset())
    assert {one.path for one in found} >= {old}
    assert new not in {one.path for one in found}
    assert all(remove(home, one) for one in found)
    assert not old.exists()
    assert new.is_dir()


@pytest.mark.parametrize("lost", ["done.json", "files.json", "aside/root"])
def test_a_copy_of_a_drop_stays_when_the_record_of_it_is_damaged(home, lost):
    """The drop itself may be gone from the hospital's folder."""
    workspace, copy = home.workspace(), home.raw_root.resolve() / "incoming" / "monday" / ("0" * 16)
    copy.mkdir(parents=True)

    def make(folder: Path) -> dict:
        (folder / "files.json").write_text("[]")
        (folder / "aside").mkdir()
        (folder / "aside" / "root").write_text(str(copy))
        return {}

    raw = workspace.build("raw/incoming/monday", version="1", config={}, inputs={}, make=make)
    (raw.path / lost).write_bytes(bytes((raw.path / lost).stat().st_size))
    assert unreferenced(home, frozenset())[0] == []


@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_nothing_that_is_reached_from_what_is_kept_is_ever_listed(tmp_path_factory, data):
    """Random graphs: a product is built several times, of random outputs of the products before it."""
    home = Home(tmp_path_factory.mktemp("home"), HOSTS)
    workspace = home.workspace()
    built: list[tuple[Product, list[Product]]] = []
    for number in range(data.draw(st.integers(1, 4))):
        before = [product for product, _ in built]
        for content in range(data.draw(st.integers(1, 3))):
            made_of = data.draw(st.lists(st.sampled_from(before), max_size=3)) if before else []
            inputs = {str(at): one for at, one in enumerate(made_of)}
            built.append((build(workspace, f"product{number}", f"{number} {content}", inputs), made_of))
    pinned = data.draw(st.sets(st.sampled_from([product.digest for product, _ in built]), max_size=2))
    kept = {p.path for p, _ in built if p.path == workspace.require(p.name).path or p.digest in pinned}
    for product, made_of in reversed(built):  # a maker was built before what was made of it
        if product.path in kept:
            kept |= {other.path for other, _ in built if other.digest in {one.digest for one in made_of}}
    assert {one.path for one in unreferenced(home, pinned)[0]} == {product.path for product, _ in built} - kept


def test_the_command_lists_first_and_removes_when_told(home, tracking):
    workspace = home.workspace()
    train(workspace, "old")
    old = everything(workspace)
    train(workspace, "new")
    done = CliRunner().invoke(main, ["gc"])
    assert done.exit_code == 0, done.output
    assert "4 outputs" in done.output
    assert "nothing was removed: `ecg gc --delete`" in done.output
    assert everything(workspace) > old
    told = json.loads(CliRunner().invoke(main, ["gc", "--json", "--delete"]).output)
    assert {Path(one["path"]).name for one in told["leftovers"]} == {Path(name).name for name in old}
    assert all(one["removed"] for one in told["leftovers"])
    assert not everything(workspace) & old
    assert "is left over" in CliRunner().invoke(main, ["gc"]).output


def corpus_of(workspace: Workspace, content: str) -> Product:
    """A shard, and a corpus that names it as trainings read it."""
    ecgs = shard(workspace, content)

    def make(folder: Path) -> dict:
        path = ecgs.path.relative_to(workspace.root).as_posix()
        (folder / "corpus.json").write_text(json.dumps({"shards": {"chapman/01": {"path": path}}}))
        return {}

    return workspace.build("corpus", version="1", config={"of": content}, inputs={ecgs.name: ecgs.digest}, make=make)


def test_what_somebody_reads_stays_with_what_it_was_made_of(home):
    workspace = home.workspace()
    old = train(workspace, "old")
    train(workspace, "new")
    listed_before = unreferenced(home, frozenset())[0]
    corpus = next(one for one in listed_before if one.product == "corpus")
    with in_use([corpus.path]):
        found, (used,) = unreferenced(home, frozenset())
        assert [one.path for one in found] == [old.path]
        assert (used.product, used.path, used.by) == ("corpus", corpus.path, f"process {os.getpid()}")
        assert not remove(home, corpus)
    found, used = unreferenced(home, frozenset())
    assert (found, used) == (listed_before, [])
    assert remove(home, corpus)


def test_what_a_stopped_training_of_the_shell_reads_stays_until_it_has_ended(home, tmp_path):
    workspace, out = home.workspace(), tmp_path / "run"
    old = corpus_of(workspace, "old")
    corpus_of(workspace, "new")
    assert f"corpus/{old.fingerprint}" in listed(home)

    def train_until_stopped() -> None:
        with reading(workspace.root, old.path, out):
            assert listed(home) == set()
            (out / "aside/checkpoints").mkdir(parents=True)
            (out / "aside/checkpoints/step-000000050.safetensors").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_until_stopped()
    found, (used,) = unreferenced(home, frozenset())
    assert (found, used.path) == ([], old.path)
    assert used.by == f"the training in {out}, which was stopped and can be continued"
    assert f"corpus/{old.fingerprint}" in listed(home, unfinished=True)
    with reading(workspace.root, old.path, out):
        (out / "summary.json").touch()
    assert f"corpus/{old.fingerprint}" in listed(home)


def test_gc_names_who_reads_what_it_keeps(home, new_store):
    new_store(home.root / "mlflow")
    old = train(home.workspace(), "old")
    corpus = home.workspace().require("corpus")
    train(home.workspace(), "new")
    with in_use([corpus.path]):
        ran = CliRunner().invoke(main, ["gc", "--delete"])
    assert f"kept, in use by process {os.getpid()}: corpus {corpus.fingerprint}" in ran.output
    assert (corpus.path.is_dir(), old.path.is_dir()) == (True, False)
