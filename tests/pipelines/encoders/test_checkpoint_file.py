"""A checkpoint is read as data: its weights are those that were saved, and nothing in it is run."""

from __future__ import annotations

import copyreg
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines.encoders.checkpoint_file import MOST_NUMBERS, Checkpoint
from pipelines.encoders.inert_pickle import MOST_BYTES, MOST_STEPS, read_pickle
from tests.support.checkpoints import FOREIGN, lightning_checkpoint, with_pickle


def read(file: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    with file.open("rb") as stream:
        checkpoint = Checkpoint(stream)
        return checkpoint.read(list(checkpoint.tensors)), checkpoint.skipped


def refused(file: Path) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        read(file)
    assert "\n" not in str(error.value)
    return str(error.value)


def some_weights() -> dict[str, Tensor]:
    """Weights in all forms that a state dict may have them in."""
    many = torch.arange(24.0)
    return {
        "plain": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "turned": many.reshape(4, 6).T,
        "cut": many[3:20:4],
        "same storage": many[20:],
        "spread": torch.tensor([1.0, 2.0]).expand(3, 2),
        "half": torch.tensor([1.5], dtype=torch.float16),
        "brain": torch.tensor([1.5], dtype=torch.bfloat16),
        "double": torch.tensor([0.1], dtype=torch.float64),
    }


def test_weights_are_those_that_were_saved_and_foreign_classes_are_passed_over(tmp_path: Path) -> None:
    file = lightning_checkpoint(tmp_path / "a.ckpt", some_weights())
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        torch.load(file, weights_only=True)
    with pytest.raises(ModuleNotFoundError):
        torch.load(file, weights_only=False)
    weights, skipped = read(file)
    assert weights.keys() == some_weights().keys()
    for name, value in some_weights().items():
        assert torch.equal(weights[name], value), name
        assert weights[name].dtype == value.dtype
        assert weights[name].is_contiguous()
    assert {f"{FOREIGN}.DictConfig", f"{FOREIGN}.AnyNode", "datetime.timedelta"} <= set(skipped)
    assert not [name for name in skipped if name.startswith("torch._utils")]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickle_is_read(tmp_path: Path, protocol: int) -> None:
    parameters = {name: torch.nn.Parameter(value) for name, value in some_weights().items() if name != "scalar"}
    torch.save({"state_dict": parameters}, tmp_path / "a.ckpt", pickle_protocol=protocol)
    weights, skipped = read(tmp_path / "a.ckpt")
    assert all(torch.equal(weights[name], value) for name, value in parameters.items())
    assert skipped == ()


def test_what_is_saved_alone_is_the_state_dict(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "a.pt")
    assert set(read(tmp_path / "a.pt")[0]) == {"weight", "bias"}


def test_a_pickle_of_python_s_own_says_what_was_pickled() -> None:
    """Every literal, in all protocols, against what Python makes of them."""
    literals = [0, 1, 255, 256, -1, 1 << 31, -(1 << 90), True, False, None, 1.5, "a", "ü" * 300, b"", b"a" * 300]
    nested = {"a": {"b": tuple(literals)}, "c": ((), (1,), (1, 2), (1, 2, 3))}
    for protocol in range(6):
        value = (
            nested
            if protocol > 2
            else {"c": nested["c"], "a": {"b": tuple(v for v in literals if type(v) is not bytes)}}
        )
        assert read_pickle(pickle.dumps(value, protocol)).value == value


# What would run


class Calls:
    """Unpickled, it calls a function."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.what = function, arguments

    def __reduce__(self) -> tuple:
        return self.what


class SetsState:
    """Unpickled, its `__setstate__` writes a file."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __setstate__(self, state: dict) -> None:
        Path(state["file"]).write_text("run")


class IsMade(str):
    """Unpickled by NEWOBJ, its `__new__` writes a file."""

    def __new__(cls, file: str) -> IsMade:
        if file:
            Path(file).write_text("run")
        return super().__new__(cls, file)

    def __getnewargs__(self) -> tuple[str]:
        return (str(self),)


def unmade(file: str) -> IsMade:
    return str.__new__(IsMade, file)


TRAPS: dict[str, Callable[[Path], Any]] = {
    "system": lambda file: Calls(os.system, f"echo run > '{file}'"),
    "eval": lambda file: Calls(eval, f"__import__('pathlib').Path({str(file)!r}).touch()"),
    "a bound method": lambda file: Calls(Path.touch, file),
    "setstate": lambda file: SetsState(str(file)),
    "new": lambda file: unmade(str(file)),
    "in a tuple": lambda file: (1, {"a": [Calls(os.system, f"echo run > '{file}'")]}),
    "as an argument": lambda file: Calls(list, [Calls(os.system, f"echo run > '{file}'")]),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_code_beside_the_weights_is_named_and_not_run(tmp_path: Path, trap: str) -> None:
    file, canary = tmp_path / "evil.ckpt", tmp_path / "canary"
    lightning_checkpoint(file, some_weights(), evil=TRAPS[trap](canary))
    weights, skipped = read(file)
    assert not canary.exists()
    assert torch.equal(weights["plain"], some_weights()["plain"])
    assert {"posix.system", "builtins.eval", "__builtin__.eval", "pathlib.PosixPath", f"{__name__}.SetsState"} & set(
        skipped
    )
    pickle.loads(pickle.dumps(TRAPS[trap](canary)))  # noqa: S301
    assert canary.exists(), "the trap is a real one"


@pytest.mark.parametrize("trap", TRAPS)
def test_code_in_a_weight_s_place_is_no_weight(tmp_path: Path, trap: str) -> None:
    canary = tmp_path / "canary"
    torch.save({"state_dict": {"a": TRAPS[trap](canary), "b": torch.zeros(2)}}, tmp_path / "evil.ckpt")
    assert set(read(tmp_path / "evil.ckpt")[0]) == {"b"}
    torch.save({"state_dict": TRAPS[trap](canary)}, tmp_path / "evil.ckpt")
    assert read(tmp_path / "evil.ckpt")[0] == {}
    torch.save(TRAPS[trap](canary), tmp_path / "evil.ckpt")
    assert read(tmp_path / "evil.ckpt")[0] == {}
    assert not canary.exists()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def tensor(
    storage: bytes, offset: bytes = b"K\x00", shape: bytes = b"K\x02\x85", stride: bytes = b"K\x01\x85"
) -> bytes:
    """The opcodes of a tensor; storage: those of its persistent id."""
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"Q" + offset + shape + stride + b"\x89}tR"


def storage(key: str = "0", numbers: bytes = b"K\x02", kind: bytes = b"ctorch\nFloatStorage\n") -> bytes:
    return b"(" + text("storage") + kind + text(key) + text("cpu") + numbers + b"t"


def long_int(value: int) -> bytes:
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def crafted(tmp_path: Path, steps: bytes, more: dict[str, bytes] | None = None) -> Path:
    """A checkpoint whose state dict has the weight `a` made by these steps, and two numbers in its member 0."""
    torch.save({"a": torch.tensor([1.0, 2.0])}, tmp_path / "good.ckpt")
    content = b"\x80\x02}" + text("state_dict") + b"}" + text("a") + steps + b"ss."
    return with_pickle(tmp_path / "good.ckpt", tmp_path / "crafted.ckpt", lambda _: content, more)


def test_the_crafted_tensor_is_a_good_one_if_nothing_is_wrong_with_it(tmp_path: Path) -> None:
    assert read(crafted(tmp_path, tensor(storage())))[0]["a"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (tensor(storage(), offset=b"K\x01"), "'a' reaches beyond the 2 numbers that hold it"),
        (tensor(storage(), stride=b"K\x02\x85"), "reaches beyond"),
        (tensor(storage(), shape=long_int(1 << 39) + b"\x85"), "reaches beyond|numbers, and at most"),
        (tensor(storage(), shape=long_int(1 << 80) + b"\x85"), "states a shape that no tensor has"),
        (tensor(storage(), shape=long_int(-2) + b"\x85"), "states a shape that no tensor has"),
        (tensor(storage(), shape=b"\x88\x85"), "states a shape that no tensor has"),
        (tensor(storage(), shape=b"G" + struct.pack(">d", 2) + b"\x85"), "states a shape that no tensor has"),
        (tensor(storage(), stride=long_int(-1) + b"\x85"), "states a shape that no tensor has"),
        (tensor(storage(), offset=long_int(-1)), "states a shape that no tensor has"),
        (tensor(storage(), stride=b"K\x01K\x01\x86"), "states a shape that no tensor has"),
        (tensor(storage(), shape=b"(" + b"K\x01" * 9 + b"t", stride=b"(" + b"K\x01" * 9 + b"t"), "no tensor has"),
        (tensor(storage(numbers=b"K\x09")), "states 9 numbers of torch.float32, and has 8 bytes"),
        (tensor(storage(numbers=long_int(1 << 62))), "states a shape that no tensor has"),
        (tensor(storage(numbers=long_int(1 << 39)), shape=long_int(1 << 39) + b"\x85"), "at most 33,554,432 are read"),
        (tensor(storage(kind=b"ctorch\nDoubleStorage\n")), "states 2 numbers of torch.float64, and has 8 bytes"),
        (tensor(storage(key="1")), "has no 'data/1'"),
        (tensor(storage(key="../../../../etc/passwd")), "has no 'data/../../../../etc/passwd'"),
        (tensor(storage(), shape=long_int(MOST_NUMBERS + 1) + b"\x85", stride=b"K\x00\x85"), "33,554,432 are read"),
        (tensor(storage()).replace(b"\x89}tR", b"\x89}}" + text("conj") + b"\x88stR"), "is a view of other numbers"),
    ],
)  # fmt: skip
def test_a_tensor_that_its_bytes_do_not_hold_is_refused(tmp_path: Path, steps: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(crafted(tmp_path, steps))


@pytest.mark.parametrize(
    "steps",
    [
        tensor(storage(kind=b"cos\nsystem\n")),
        tensor(b"(" + text("storage") + b"ctorch\nFloatStorage\n" + storage() + b"Q" + text("cpu") + b"K\x02t"),
        tensor(storage() + b"Q"),
        tensor(text("0")),
        b"ctorch._utils\n_rebuild_tensor_v2\n)R",
        b"ctorch._utils\n_rebuild_parameter\n)R",
        b"ctorch.serialization\nload\n" + text("x") + b"\x85R",
        b"cos\nsystem\n" + text("touch canary") + b"\x85R",
        b"(" + text("touch canary") + b"ios\nsystem\n",
        b"(cos\nsystem\n" + text("touch canary") + b"o",
        text("os") + text("sys") + b"0" + text("system") + b"\x93" + text("touch canary") + b"\x85R",
        text("os") + b"K\x01\x93" + text("touch canary") + b"\x85R",
        b"\x82\xf0" + text("touch canary") + b"\x85R",
        b"\x83\xf0\x00)R",
        b"cbuiltins\ngetattr\ncos\nsystem\n" + text("__call__") + b"\x86R" + text("touch canary") + b"\x85R",
        b"cos\nsystem\n)}\x92",
        b"Pnot here\n",
    ],
)
def test_what_is_made_like_a_tensor_and_is_none_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    copyreg.add_extension("os", "system", 240)
    try:
        assert read(crafted(tmp_path, steps, {"archive/code/evil.py": b"open('canary', 'w')"}))[0] == {}
    finally:
        copyreg.remove_extension("os", "system", 240)
    assert not Path("canary").exists()


# What is no checkpoint, or takes too much


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "exhausted"),
        (b"hello", "contradicts itself"),
        (b"\x80\x02", "exhausted"),
        (b"\x80\x02.", "contradicts itself"),
        (b"\x80\x02a.", "contradicts itself"),
        (b"\x80\x02t.", "contradicts itself"),
        (b"\x80\x02h\x07.", "contradicts itself"),
        (b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"a.", "expected"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a.", "expected"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"a.", "expected"),
        (b"\x80\x02" + b"(" * (MOST_STEPS + 1), "more than 300,000 steps"),
        (b"\x80\x02" + b"\x8f" * (MOST_STEPS + 1), "more than 300,000 steps"),
        (b"\x80\x02I" + b"9" * 10_000 + b"\n.", "4300 digits"),
        (bytes(MOST_BYTES + 1), "and at most 8,388,608 are read"),
    ],
)
def test_what_is_no_pickle_or_too_long_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_pickle(content)


def test_values_that_hold_each_other_many_times_take_no_time_and_are_let_go() -> None:
    doubled = b"\x80\x02K\x01" + b"2\x86" * 20_000 + b"."  # 2 ** 20,000 numbers, if they were visited
    assert isinstance(read_pickle(doubled).value, tuple)
    as_key = b"\x80\x02}" + b"K\x01" + b"2\x86" * 60 + b"K\x01s."  # hashing it would take centuries
    assert read_pickle(as_key).value == {}
    assert read_pickle(b"\x80\x02K\x01r\xff\xff\xff\xff.").value == 1, "a place in the memo takes no room before it"


def test_zips_that_torch_does_not_write_are_refused(tmp_path: Path) -> None:
    good = lightning_checkpoint(tmp_path / "good.ckpt", some_weights())
    packed = tmp_path / "packed.ckpt"
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) + (bytes(50_000_000) if name.endswith("data/0") else b""))
    assert "a compressed zip, which torch does not write" in refused(packed)
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as notes:
        notes.writestr("notes/readme.txt", "hello")
    assert "it holds 'notes/readme.txt'" in refused(tmp_path / "notes.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert "a zip that torch did not write" in refused(tmp_path / "empty.zip")
    twice = with_pickle(good, tmp_path / "twice.ckpt", lambda data: data, {"other/data.pkl": b"\x80\x02N."})
    assert "two files of one name" in refused(twice)
    for share in (0.05, 0.5, 0.98):
        (tmp_path / "cut.ckpt").write_bytes(good.read_bytes()[: int(good.stat().st_size * share)])
        assert "a zip that is damaged" in refused(tmp_path / "cut.ckpt")
    changed = bytearray(good.read_bytes())
    at = changed.index(some_weights()["plain"].numpy().tobytes())
    changed[at] ^= 255
    (tmp_path / "changed.ckpt").write_bytes(changed)
    assert "is damaged (Bad CRC-32" in refused(tmp_path / "changed.ckpt")
    big = with_pickle(good, tmp_path / "big.ckpt", lambda data: data)
    content = big.read_bytes().replace(b"little", b"bigger")
    big.write_bytes(content)
    assert "another byte order" in refused(big) or "damaged" in refused(big)
    with zipfile.ZipFile(tmp_path / "many.ckpt", "w") as many:
        for number in range(25_000):
            many.writestr(f"a/data/{number}", b"")
    assert "its directory cannot be read" in refused(tmp_path / "many.ckpt")


def test_any_damage_is_refused_in_a_line_or_harmless(tmp_path: Path) -> None:
    """Changed bytes of the pickle and of the whole file: a ValueError, or weights of whatever numbers."""
    good = lightning_checkpoint(tmp_path / "good.ckpt", some_weights())
    rng, outcomes = random.Random(0), set()
    for number in range(150):
        file = tmp_path / "changed.ckpt"
        if number % 3:
            with_pickle(good, file, lambda data: mutated(data, rng))
        else:
            file.write_bytes(mutated(good.read_bytes(), rng))
        try:
            read(file)
            outcomes.add("read")
        except ValueError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def mutated(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(changed))
        if rng.random() < 0.7:
            changed[at] = rng.randrange(256)
        else:
            del changed[at : at + rng.randint(1, 9)]
    return bytes(changed)
