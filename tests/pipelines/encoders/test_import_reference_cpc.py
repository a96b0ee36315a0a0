"""A published ECG-CPC: imported from its Lightning checkpoint, told from an ECG-JEPA, refused where it is neither."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from ecg_model.config import EncoderConfig, S4EncoderConfig
from ecg_model.encoder_file import load_encoder, random_encoder
from ecg_model.reference import published_name
from ecg_model.s4_encoder import S4Encoder
from pipelines.cache import Workspace
from pipelines.cli import main
from pipelines.encoders.import_reference_cpc import ReferenceCPCFacts, materialize_reference_cpc
from pipelines.encoders.import_released import materialize_released
from pipelines.encoders.names import ENCODER_FILE, REFERENCE, REFERENCE_CPC
from pipelines.home import Home
from tests.pipelines.encoders.test_checkpoint_file import Calls, mutated
from tests.support.checkpoints import FOREIGN, lightning_checkpoint, published_state, with_pickle
from tests.support.paths import SHARED

GOLDEN = SHARED / "golden_cpc"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the published code's tensors are not at {GOLDEN}")
SMALL = S4EncoderConfig(leads=12, samples=48, stem_dim=8, stem_depth=2, dim=8, depth=1, state=4)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home")


@pytest.fixture
def encoder() -> S4Encoder:
    made = random_encoder(SMALL, 1)
    assert isinstance(made, S4Encoder)
    return made


@needs_golden
def test_a_checkpoint_gives_the_outputs_of_the_published_code(workspace: Workspace, tmp_path: Path) -> None:
    state = load_file(GOLDEN / "reference_state.safetensors")
    file = lightning_checkpoint(tmp_path / "cpc_e10.ckpt", state)
    encoder_names, imported = materialize_released(workspace, file)
    assert encoder_names == REFERENCE_CPC
    facts = ReferenceCPCFacts.of(imported)
    assert (facts.file, facts.epoch, facts.tokens, facts.legs) == ("cpc_e10.ckpt", 10, 300, True)
    assert facts.in_words().endswith("trained on windows of 300 tokens, state space as published")
    assert f"{FOREIGN}.DictConfig" in facts.skipped
    encoder = load_encoder(imported.path / ENCODER_FILE)
    outputs = load_file(GOLDEN / "reference_outputs.safetensors")
    assert isinstance(encoder, S4Encoder)
    with torch.inference_mode():
        context = encoder.network(outputs["signal"])
        longer = encoder.network(outputs["long.signal"])[:, ::10]
    for ours, name in ((context, "eval.context"), (context.mean(dim=1), "eval.embedding"), (longer, "long.context")):
        bound = 1e-5 * max(1.0, outputs[name].abs().max().item())
        torch.testing.assert_close(ours, outputs[name], atol=bound, rtol=0)


def test_the_same_checkpoint_is_imported_once_and_embeds_ecgs_of_ours(
    workspace: Workspace, tmp_path: Path, encoder: S4Encoder
) -> None:
    file = lightning_checkpoint(tmp_path / "a.ckpt", published_state(encoder))
    first, again = (materialize_reference_cpc(workspace, file) for _ in range(2))
    assert (first.cached, again.cached) == (False, True)
    assert first.facts["weights"] == sum(value.numel() for value in encoder.parameters())
    loaded = load_encoder(first.path / ENCODER_FILE)
    assert loaded.config == SMALL
    ecgs = torch.randn(2, 8, 2500)
    with torch.inference_mode():
        assert torch.equal(loaded.embed(ecgs), encoder.embed(ecgs))


@pytest.mark.parametrize("word", ["", "model.", "_orig_mod.module."])
def test_a_state_dict_alone_and_names_with_a_word_before_them_are_read(
    workspace: Workspace, tmp_path: Path, encoder: S4Encoder, word: str
) -> None:
    state = {f"{word}{name}": value for name, value in published_state(encoder).items()}
    torch.save(state | {"head.weight": torch.zeros(3)}, tmp_path / "alone.pt")
    encoder_names, product = materialize_released(workspace, tmp_path / "alone.pt")
    assert (encoder_names, product.facts.get("epoch"), product.facts["skipped"]) == (REFERENCE_CPC, None, [])


def jepa(path: Path, *, zipped: bool) -> Path:
    encoder = random_encoder(EncoderConfig(dim=16, depth=1, heads=2, patches=10, patch_size=5), 1)
    state = {published_name(name): value for name, value in encoder.state_dict().items()}
    torch.save({"encoder": state, "epoch": 1}, path, _use_new_zipfile_serialization=zipped)
    return path


def refused(workspace: Workspace, file: Path) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        materialize_released(workspace, file)
    message = str(error.value)
    assert "\n" not in message
    assert file.name in message
    assert [workspace.current(names.product) for names in (REFERENCE, REFERENCE_CPC)] == [None, None]
    return message


@pytest.mark.parametrize("zipped", [True, False])
def test_an_ecg_jepa_goes_to_its_own_import(workspace: Workspace, tmp_path: Path, zipped: bool) -> None:
    """Of smaller sizes than the author's, so that its import names them."""
    assert "the network asks for" in refused(workspace, jepa(tmp_path / "jepa.pth", zipped=zipped))
    with pytest.raises(ValueError, match=r"no weights of an ECG-CPC|no zip, as torch writes it"):
        materialize_reference_cpc(workspace, jepa(tmp_path / "jepa.pth", zipped=zipped))


def test_anything_else_is_refused_with_what_was_found(workspace: Workspace, tmp_path: Path, encoder: S4Encoder) -> None:
    other = lightning_checkpoint(tmp_path / "other.ckpt", torch.nn.Linear(2, 3).state_dict())
    assert "weights of another network, such as 'bias'" in refused(workspace, other)
    contents = {
        "page.ckpt": (b"<!DOCTYPE html><html>", "it begins with '<!DOCTYPE html><html>'"),
        "empty.ckpt": (b"", "it is empty"),
        "pickle.ckpt": (b"\x80\x02}.", "is not a file of weights"),
    }
    for name, (content, words) in contents.items():
        (tmp_path / name).write_bytes(content)
        assert words in refused(workspace, tmp_path / name)
    torch.save(published_state(encoder), tmp_path / "older.ckpt", _use_new_zipfile_serialization=False)
    assert "in torch's older form, which this is, ECG-JEPA alone is read" in refused(workspace, tmp_path / "older.ckpt")
    good = lightning_checkpoint(tmp_path / "good.ckpt", published_state(encoder))
    (tmp_path / "cut.ckpt").write_bytes(good.read_bytes()[:-100])
    assert "a zip that is damaged" in refused(workspace, tmp_path / "cut.ckpt")
    with (tmp_path / "huge.ckpt").open("wb") as stream:
        stream.truncate(10**12)
    assert "at most 1,073,741,824 are read" in refused(workspace, tmp_path / "huge.ckpt")
    for place in (tmp_path, Path("/dev/zero"), tmp_path / "nowhere.ckpt"):
        assert "is not a file: give the .pth of ECG-JEPA or the .ckpt of ECG-CPC" in refused(workspace, place)


def test_a_length_that_takes_any_memory_is_refused_before_it_is_taken(workspace: Workspace, tmp_path: Path) -> None:
    encoder = S4Encoder(SMALL)
    state = published_state(encoder)
    for name in [name for name in state if name.endswith("omega")]:
        state[name] = torch.zeros(1, 2).expand(7_999_993, 2)
    file = lightning_checkpoint(tmp_path / "long.ckpt", state)
    assert "numbers beside its weights" in refused(workspace, file)


def test_the_command_says_what_was_read_and_what_was_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: S4Encoder
) -> None:
    monkeypatch.setenv("ECG_HOME", str(tmp_path / "home"))
    canary = tmp_path / "canary"
    evil = Calls(os.system, f"echo run > '{canary}'")
    file = lightning_checkpoint(tmp_path / "cpc.ckpt", published_state(encoder), evil=evil)
    done = CliRunner().invoke(main, ["import-reference", str(file)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "reference encoder: ECG-CPC, sha256" in done.output
    assert "epoch 10, " in done.output
    assert "posix.system" in done.output.split("passed over and not run: ")[1]
    assert Home(tmp_path / "home").workspace().require("reference_cpc").facts["tokens"] == 24
    text = tmp_path / "notes.txt"
    text.write_text("no weights")
    done = CliRunner().invoke(main, ["import-reference", str(text)])
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "it begins with 'no weights'" in done.stderr
    assert not canary.exists()


def test_any_damage_of_a_checkpoint_is_refused_in_a_line_or_harmless(tmp_path: Path, encoder: S4Encoder) -> None:
    good = lightning_checkpoint(tmp_path / "good.ckpt", published_state(encoder))
    rng, outcomes, messages = random.Random(1), set(), []
    for number in range(60):
        file, workspace = tmp_path / "changed.ckpt", Workspace(tmp_path / f"home{number}")
        with_pickle(good, file, lambda data: mutated(data, rng))
        try:
            materialize_released(workspace, file)
            outcomes.add("read")
        except ValueError as error:
            outcomes.add("refused")
            messages.append(str(error))
    assert not [message for message in messages if "\n" in message]
    assert outcomes == {"read", "refused"}
