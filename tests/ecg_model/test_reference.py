"""Our network against the tensors that the published code wrote."""

import json
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from ecg_model.encoder_file import random_encoder
from ecg_model.reference import from_published, jepa_config, main, published_name, verify
from tests.support.paths import SHARED

GOLDEN = SHARED / "golden"
GOLDEN_CPC = SHARED / "golden_cpc"
needs_golden_cpc = pytest.mark.skipif(not GOLDEN_CPC.is_dir(), reason=f"the published code's are not at {GOLDEN_CPC}")
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the published code's tensors are not at {GOLDEN}")
SIZES = {
    "encoder_embed_dim": 16,
    "encoder_depth": 1,
    "encoder_num_heads": 2,
    "predictor_embed_dim": 8,
    "predictor_depth": 1,
    "predictor_num_heads": 2,
    "leads": 8,
    "patches": 10,
    "patch_size": 5,
    "mlp_ratio": 4,
    "qkv_bias": False,
}


@needs_golden
def test_every_tensor_and_gradient_agrees():
    compared = verify(GOLDEN)
    names = {row.name for row in compared}
    outputs = load_file(GOLDEN / "reference_outputs.safetensors")
    assert {name for name in outputs if name not in ("signal", "mask")} <= names
    assert len([name for name in names if name.startswith("gradient")]) == len(
        json.loads((GOLDEN / "reference.json").read_text())["grad_norms"]
    )
    assert [row for row in compared if not row.holds] == []


@needs_golden_cpc
def test_every_tensor_gradient_and_update_of_the_contrastive_method_agrees(capsys):
    assert main(["verify", str(GOLDEN_CPC)]) == 0
    outputs = load_file(GOLDEN_CPC / "reference_outputs.safetensors")
    about = json.loads((GOLDEN_CPC / "reference.json").read_text())
    names = {line.split(")  ")[1] for line in capsys.readouterr().out.splitlines() if ")  " in line}
    inputs = {"signal", "long.signal", "negatives"} | {name for name in outputs if name.startswith("dropout.mask.")}
    assert set(outputs) - inputs <= names
    assert {f"gradient of {name}" for name in about["grad_norms"]} <= names
    assert {f"loss before update {number}" for number in range(3)} <= names


@needs_golden_cpc
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("kernel.kernel.omega", lambda value: value[:-1], "the weights belong to 298 tokens, the network to 300"),
        ("kernel.kernel.Q", lambda value: value + 1, "Q is not the conjugate of P"),
        ("kernel.kernel.C", lambda value: value[..., :1], r"C' has shape .*, the network asks for \(1, 32, 4, 2\)"),
        ("D", lambda value: value * float("nan"), "D' is torch.float32 or not finite"),
        ("D", None, "D' is missing"),
    ],
)
def test_weights_of_another_state_space_or_length_are_refused(tmp_path, capsys, name, change, message):
    for file in ("reference.json", "reference_outputs.safetensors"):
        (tmp_path / file).write_bytes((GOLDEN_CPC / file).read_bytes())
    state = load_file(GOLDEN_CPC / "reference_state.safetensors")
    value = state.pop(f"ts_encoder.predictor.predictor.s4_layers.1.{name}")
    if change is not None:
        state[f"ts_encoder.predictor.predictor.s4_layers.1.{name}"] = change(value).contiguous()
    save_file(state, tmp_path / "reference_state.safetensors")
    with pytest.raises(SystemExit):
        main(["verify", str(tmp_path)])
    assert re.search(message, capsys.readouterr().err)


@needs_golden
def test_the_command_says_so_and_a_changed_weight_fails_it(tmp_path, capsys):
    done = subprocess.run(
        [sys.executable, "-m", "ecg_model.reference", "verify", str(GOLDEN)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "65 of 65 agree" in done.stdout
    for name in ("reference.json", "reference_outputs.safetensors"):
        (tmp_path / name).write_bytes((GOLDEN / name).read_bytes())
    state = load_file(GOLDEN / "reference_state.safetensors")
    state["encoder.encoder_blocks.blocks.1.attn.qkv.weight"][0, 0] += 0.05
    save_file(state, tmp_path / "reference_state.safetensors")
    assert main(["verify", str(tmp_path)]) == 1
    assert "WRONG" in capsys.readouterr().out


@needs_golden
def test_what_only_one_side_has_is_wrong(tmp_path):
    for name in ("reference.json", "reference_state.safetensors"):
        (tmp_path / name).write_bytes((GOLDEN / name).read_bytes())
    outputs = load_file(GOLDEN / "reference_outputs.safetensors")
    del outputs["loss"]
    save_file(outputs | {"attention_weights": torch.zeros(1)}, tmp_path / "reference_outputs.safetensors")
    about = json.loads((GOLDEN / "reference.json").read_text())
    del about["grad_norms"]["encoder.W_P.bias"]
    (tmp_path / "reference.json").write_text(json.dumps(about))
    wrong = [row.name for row in verify(tmp_path) if not row.holds]
    assert wrong == ["attention_weights", "loss", "gradient of encoder.W_P.bias"]


def test_a_folder_that_is_none_is_refused_in_a_line(tmp_path, capsys):
    for content, named in ((None, "reference.json"), ("{", "Expecting"), ("{}", "no 'config'")):
        if content is not None:
            (tmp_path / "reference.json").write_text(content)
        with pytest.raises(SystemExit) as stopped:
            main(["verify", str(tmp_path)])
        assert stopped.value.code == 2
        assert named in capsys.readouterr().err


def test_published_names_round_trip():
    encoder = random_encoder(jepa_config(SIZES).encoder, 3)
    published = {published_name(name): value for name, value in encoder.state_dict().items()}
    assert {"W_P.weight", "encoder_blocks.blocks.0.attn.qkv.weight", "norm.bias"} <= set(published)
    positions = encoder.positions_LPD.reshape(80, 16)
    back = from_published(published | {"pos_embed": positions}, random_encoder(encoder.config, 4))
    assert all(torch.equal(back[name], value) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W_P.bias": None}, "'W_P.bias' is missing"),
        ({"head.weight": torch.zeros(1)}, "'head.weight' is none of the published network's"),
        ({"norm.bias": torch.zeros(5)}, r"has shape \(5,\)"),
        ({"pos_embed": torch.zeros(80, 16)}, "'pos_embed' .* is not the fixed sine and cosine of 80 tokens"),
        ({"pos_embed": torch.zeros(50, 16)}, "'pos_embed' .* is not the fixed sine and cosine of 80 tokens"),
    ],
)
def test_other_state_dicts_are_refused(change, message):
    encoder = random_encoder(jepa_config(SIZES).encoder, 3)
    state = {published_name(name): value for name, value in encoder.state_dict().items()} | change
    with pytest.raises(ValueError, match=message):
        from_published({name: value for name, value in state.items() if value is not None}, encoder)


def test_sizes_that_the_published_network_has_not_are_refused():
    with pytest.raises(ValueError, match="qkv_bias=True"):
        jepa_config(SIZES | {"qkv_bias": True})
    with pytest.raises(ValueError, match="no 'patches'"):
        jepa_config({name: value for name, value in SIZES.items() if name != "patches"})
