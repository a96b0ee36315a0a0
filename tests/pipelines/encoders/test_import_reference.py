"""The author's released file: imported where it is one, refused in a line where it is not, and never run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from ecg_model.config import EncoderConfig
from ecg_model.encoder import Encoder
from ecg_model.encoder_file import load_encoder, random_encoder
from ecg_model.reference import jepa_config, published_name
from pipelines.cache import Workspace
from pipelines.cli import main
from pipelines.encoders.import_reference import materialize_reference
from pipelines.encoders.names import ENCODER_FILE
from pipelines.home import Home
from tests.support.paths import SHARED

GOLDEN = SHARED / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the published code's tensors are not at {GOLDEN}")
SMALL = EncoderConfig(dim=16, depth=1, heads=2, patches=10, patch_size=5)


def published(encoder: Encoder) -> dict[str, torch.Tensor]:
    """An encoder's weights as the author's file has them: published names, a batch axis on the positions."""
    state = {published_name(name): value for name, value in encoder.state_dict().items()}
    return OrderedDict(state | {"pos_embed": encoder.positions_LPD.flatten(0, 1)[None]})


def small(**changes: Any) -> dict[str, Any]:
    state = published(random_encoder(SMALL, 1)) | changes
    return {"encoder": {name: value for name, value in state.items() if value is not None}, "epoch": 100}


def saved(path: Path, content: Any, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home")


# What is imported


@needs_golden
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_the_published_weights_give_the_published_embedding(workspace: Workspace, tmp_path: Path, zipped: bool) -> None:
    state = load_file(GOLDEN / "reference_state.safetensors")
    encoder = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    content = {"encoder": encoder, "epoch": 99}
    file = saved(tmp_path / "released.pth", content, _use_new_zipfile_serialization=zipped)
    sizes = json.loads((GOLDEN / "reference.json").read_text())["config"]
    imported = materialize_reference(workspace, file, jepa_config(sizes).encoder)
    assert (imported.facts["epoch"], imported.facts["file"], imported.facts["published"]) == (99, "released.pth", None)
    outputs = load_file(GOLDEN / "reference_outputs.safetensors")
    with torch.inference_mode():
        embedding = load_encoder(imported.path / ENCODER_FILE).embed(outputs["signal"])
    np.testing.assert_allclose(embedding, outputs["embedding"], atol=1e-5, rtol=0)


def test_the_same_file_is_imported_once_and_named_by_its_hash(workspace: Workspace, tmp_path: Path) -> None:
    file = saved(tmp_path / "a.pth", small())
    first = materialize_reference(workspace, file, SMALL)
    again = materialize_reference(workspace, file.rename(tmp_path / "b.pth"), SMALL)
    assert (first.cached, again.cached) == (False, True)
    assert first.facts["sha256"] == hashlib.sha256((tmp_path / "b.pth").read_bytes()).hexdigest()
    assert first.facts["weights"] == sum(p.numel() for p in random_encoder(SMALL, 0).parameters())
    other = saved(tmp_path / "c.pth", small() | {"epoch": 7})
    assert materialize_reference(workspace, other, SMALL).facts["epoch"] == 7
    current = workspace.require("reference")
    assert current.facts["epoch"] == 7
    assert current.digest == first.digest, "the same weights are the same product to what follows"


def test_parameters_and_views_are_weights_too(workspace: Workspace, tmp_path: Path) -> None:
    """What `model.state_dict()` may hold: parameters, and tensors that are cut from a larger storage."""
    content = small()
    content["encoder"]["W_P.weight"] = torch.nn.Parameter(content["encoder"]["W_P.weight"])
    content["encoder"]["norm.bias"] = torch.arange(32.0)[::2]
    imported = materialize_reference(workspace, saved(tmp_path / "a.pth", content), SMALL)
    assert torch.equal(load_encoder(imported.path / ENCODER_FILE).norm.bias, torch.arange(0.0, 32.0, 2.0))


@pytest.fixture(scope="module")
def paper_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the released one's size; initial weights of one block in all twelve, which is quick to draw."""
    encoder = random_encoder(EncoderConfig(depth=1), 0)
    state = published(encoder)
    for name in [name for name in state if ".blocks.0." in name]:
        for number in range(1, 12):
            state[name.replace(".blocks.0.", f".blocks.{number}.")] = state[name].clone()
    file = tmp_path_factory.mktemp("paper") / "multiblock.pth"
    return saved(file, {"encoder": state, "epoch": 100})


def test_the_command_imports_a_file_of_the_paper_s_size(
    paper_size: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert abs(paper_size.stat().st_size - 341_551_405) < 20_000, "as large as the released one"
    monkeypatch.setenv("ECG_HOME", str(tmp_path))
    done = CliRunner().invoke(main, ["import-reference", str(paper_size)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "85,067,520 weights" in done.output
    assert "not one of the published files" in done.output
    product = Home(tmp_path).workspace().require("reference")
    encoder = load_encoder(product.path / ENCODER_FILE)
    assert encoder.config == EncoderConfig()
    source = torch.load(paper_size, weights_only=True, mmap=True)["encoder"]
    assert torch.equal(encoder.state_dict()["blocks.11.fc1.weight"], source["encoder_blocks.blocks.11.mlp.fc1.weight"])


# What is refused


class Evil:
    """Unpickled by `pickle`, it writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.write_text, (self.file, "run")


class EvilBySystem(Evil):
    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.system, (f"echo run > '{self.file}'",)


def refused(file: Path, workspace: Workspace) -> str:
    """The one line that refuses a file; nothing is left of it."""
    with pytest.raises(ValueError) as error:  # noqa: PT011
        materialize_reference(workspace, file, SMALL)
    message = str(error.value)
    assert "\n" not in message
    assert file.name in message
    assert workspace.current("reference") is None
    left = list(workspace.folder("reference").iterdir()) if workspace.folder("reference").exists() else []
    assert [path.name for path in left if path.name != ".lock"] == []
    return message


@pytest.mark.parametrize("evil", [Evil, EvilBySystem])
@pytest.mark.parametrize("form", ["zip", "legacy", "plain", "in a weight's place"])
def test_code_in_a_file_is_named_and_not_run(workspace: Workspace, tmp_path: Path, evil: type[Evil], form: str) -> None:
    trap, file = tmp_path / "trap", tmp_path / "evil.pth"
    if form == "plain":
        file.write_bytes(pickle.dumps(evil(trap), protocol=2))
    elif form == "in a weight's place":
        saved(file, small(**{"norm.bias": evil(trap)}))
    else:
        saved(file, evil(trap), _use_new_zipfile_serialization=form == "zip")
    message = refused(file, workspace)
    assert not trap.exists()
    refused_name = "getattr" if evil is Evil else "system"
    assert "not run" in message or form == "plain", message
    assert refused_name in message or form == "plain", message
    if form == "plain":
        pickle.loads(file.read_bytes())  # noqa: S301
        assert trap.exists(), "the trap is a real one"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"W_P.bias": None}, "'W_P.bias' is missing"),
        ({"head.weight": torch.zeros(1)}, "'head.weight' is none of the published network's"),
        ({"norm.bias": torch.zeros(5)}, "'norm.bias' has shape (5,)"),
        ({"norm.bias": torch.zeros(16, dtype=torch.float64)}, "'norm.bias' is torch.strided, torch.float64"),
        ({"norm.bias": torch.zeros(16, dtype=torch.int64)}, "torch.int64"),
        ({"norm.bias": torch.full((16,), torch.nan)}, "'norm.bias' is not finite"),
        ({"norm.bias": torch.zeros(16).to_sparse()}, "torch.sparse_coo"),
        ({"norm.bias": torch.zeros(16, device="meta")}, "on meta"),
        ({"norm.bias": torch.zeros(1).expand(10**9, 10**9)}, "has shape (1000000000, 1000000000)"),
        ({"pos_embed": torch.zeros(1).expand(10**9, 16)}, "is not the fixed sine and cosine"),
        ({"pos_embed": torch.zeros(1, 80, 16)}, "is not the fixed sine and cosine"),
        ({"pos_embed": torch.zeros(1, 80, 16, dtype=torch.float16)}, "torch.float16"),
        ({"pos_embed": torch.tensor(1.0)}, "is not the fixed sine and cosine"),
        ({"norm.bias": [0.0] * 16}, "'encoder' has entries that are not named weights"),
    ],
)
def test_other_weights_are_refused_by_name(workspace: Workspace, tmp_path: Path, change: dict, words: str) -> None:
    assert words in refused(saved(tmp_path / "other.pth", small(**change)), workspace)


@pytest.mark.parametrize(
    "content",
    [
        published(random_encoder(SMALL, 1)),
        [1, 2],
        small() | {"optimizer": {}},
        {"encoder": small()["encoder"]},
        small() | {"epoch": "100"},
        small() | {"epoch": True},
        small() | {"epoch": -1},
        small() | {"encoder": [torch.zeros(3)]},
        small() | {"encoder": {0: torch.zeros(3)}},
        torch.zeros(3),
    ],
)
def test_another_structure_is_refused(workspace: Workspace, tmp_path: Path, content: Any) -> None:
    assert "give the author's .pth" in refused(saved(tmp_path / "other.pth", content), workspace)


class Shadowed:
    """Unpickled, an OrderedDict whose `items` and `keys` are words."""

    def __init__(self, items: dict) -> None:
        self.items = items

    def __reduce__(self) -> tuple:
        return OrderedDict, (), {"items": "mine", "keys": "mine"}, None, iter(self.items.items())


def test_attributes_that_a_pickle_sets_are_not_called(workspace: Workspace, tmp_path: Path) -> None:
    """`weights_only` lets a file give a dict an `items` of its own and a tensor a `shape` that is none."""
    state = small()["encoder"]
    state["norm.bias"].reshape = "mine"
    state["norm.bias"].isfinite = "mine"
    file = saved(tmp_path / "shadowed.pth", {"encoder": Shadowed(state), "epoch": 1})
    loaded = torch.load(file, weights_only=True)["encoder"]
    assert (loaded.items, loaded["norm.bias"].reshape) == ("mine", "mine")
    assert not materialize_reference(workspace, file, SMALL).cached


def rezipped(file: Path, into: Path, compression: int, more: bytes = b"") -> Path:
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(into, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) + (more if name.endswith("data/0") else b""))
    return into


def overlapping(file: Path) -> Path:
    """A zip of stored members that all claim the same 200 kB: 50 times what the file has."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("archive/data/0", bytes(200_000))
        (only,) = made.infolist()
        for number in range(1, 50):
            twin = zipfile.ZipInfo(f"archive/data/{number}")
            twin.header_offset, twin.file_size, twin.compress_size = only.header_offset, 200_000, 200_000
            twin.CRC = only.CRC
            made.filelist.append(twin)
        made._didModify = True  # pyright: ignore[reportAttributeAccessIssue]  # so that the directory is written
    file.write_bytes(buffer.getvalue())
    return file


def test_a_zip_that_unpacks_to_more_is_refused_before_it_is_read(workspace: Workspace, tmp_path: Path) -> None:
    plain = saved(tmp_path / "plain.pth", small())
    bomb = rezipped(plain, tmp_path / "bomb.pth", zipfile.ZIP_DEFLATED, bytes(50_000_000))
    assert bomb.stat().st_size < 2**20
    assert "is a compressed or too large zip" in refused(bomb, workspace)
    assert "its members overlap" in refused(overlapping(tmp_path / "overlapping.pth"), workspace)


def test_files_that_are_none_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    whole = {
        form: saved(tmp_path / form, small(), _use_new_zipfile_serialization=form == "zip") for form in ("zip", "old")
    }
    contents = {f"{form}-{share}": path.read_bytes()[: int(path.stat().st_size * share)]
                for form, path in whole.items() for share in (0.05, 0.5, 0.98)}  # fmt: skip
    damaged = bytearray(whole["zip"].read_bytes())
    damaged[-30:-20] = b"\xff" * 10
    contents |= {
        "empty": b"",
        "text": b"not found\n" * 100,
        "json": b'{"encoder": {}, "epoch": 1}',
        "page": b"<!DOCTYPE html><html>Google Drive: quota exceeded</html>",
        "damaged": bytes(damaged),
        "zip-start": b"PK\x03\x04" + bytes(100),
        "pickle-2": pickle.dumps({"encoder": {}, "epoch": 1}, protocol=2),
        "pickle-4": pickle.dumps({"encoder": {}, "epoch": 1}, protocol=4),
        "deep": b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
        "long": b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"a.",
        "stack": b"\x80\x02a.",
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.pth").write_bytes(content)
        refused(tmp_path / f"{name}.pth", workspace)
    with zipfile.ZipFile(tmp_path / "notes.pth", "w") as notes:
        notes.writestr("readme.txt", "hello")
    refused(tmp_path / "notes.pth", workspace)
    scripted = tmp_path / "script.pth"  # how torch knows a TorchScript archive, which is code
    with zipfile.ZipFile(whole["zip"]) as old, zipfile.ZipFile(scripted, "w") as new:
        for name in [*old.namelist(), "zip/constants.pkl"]:
            new.writestr(name, old.read(name) if name in old.namelist() else b"")
    refused(scripted, workspace)


def test_what_is_too_large_is_refused_by_its_size_alone(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "huge.pth"
    with file.open("wb") as stream:
        stream.truncate(10**12)  # a hole: nothing is written, and reading it would take minutes
    assert "has 1,000,000,000,000 bytes" in refused(file, workspace)


def test_a_folder_and_a_device_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    for place in (tmp_path, Path("/dev/zero"), tmp_path / "nowhere.pth"):
        assert "is not a file: give the author's .pth" in refused(place, workspace)


def test_the_command_refuses_in_a_line_and_exits_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECG_HOME", str(tmp_path / "home"))
    trap = tmp_path / "trap"
    evil = saved(tmp_path / "evil.pth", EvilBySystem(trap))
    smaller = saved(tmp_path / "small.pth", small())
    for file, words in (
        (evil, "it asks for 'posix.system', which is not a weight and was not run"),
        (smaller, "shape"),
    ):
        done = CliRunner().invoke(main, ["import-reference", str(file)])
        assert done.exit_code == 1
        assert done.stdout == ""
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
    assert not trap.exists()
