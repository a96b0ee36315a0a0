"""Published weights of ECG-CPC in our encoder: sizes read off them, the outputs of the public code, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ecg_model.config import S4EncoderConfig
from ecg_model.published_cpc import encoder_names, from_published, is_legs, published_sizes, require_recoverable
from ecg_model.s4_encoder import S4Encoder
from tests.support.checkpoints import published_state
from tests.support.paths import SHARED

GOLDEN = SHARED / "golden_cpc"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the published code's tensors are not at {GOLDEN}")
SMALL = S4EncoderConfig(leads=12, samples=48, stem_dim=8, stem_depth=2, dim=8, depth=2, state=4)
LAYER = "ts_encoder.predictor.predictor.s4_layers.1."
State = dict[str, Tensor]


def sizes_of(state: State) -> S4EncoderConfig:
    return published_sizes({name: tuple(value.shape) for name, value in state.items()})


def loaded(state: State) -> S4Encoder:
    encoder = S4Encoder(sizes_of(state))
    encoder.load_state_dict(from_published(state, encoder))
    require_recoverable(encoder)
    return encoder.eval()


@needs_golden
def test_the_published_encoder_is_read_without_being_told_its_sizes() -> None:
    state = load_file(GOLDEN / "reference_state.safetensors")
    encoder = loaded(state)
    wanted = json.loads((GOLDEN / "reference.json").read_text())["config"]
    found = encoder.config
    assert (found.leads, found.samples, found.tokens) == (wanted["leads"], wanted["samples"], 300)
    assert (found.stem_dim, found.stem_depth, found.dim, found.depth) == (32, 4, wanted["model_dim"], wanted["layers"])
    assert (found.state, found.causal, found.stem_kernel) == (wanted["state_dim"], True, 3)
    outputs = load_file(GOLDEN / "reference_outputs.safetensors")
    with torch.inference_mode():
        context = encoder.network(outputs["signal"])
    torch.testing.assert_close(context, outputs["eval.context"], atol=1e-5, rtol=0)
    assert all(is_legs(block.s4) for block in encoder.s4_blocks)
    assert len(encoder_names(state)) == len([name for name in state if name.startswith("ts_encoder.")]) - 1


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        S4EncoderConfig(leads=12, samples=120, stem_dim=16, stem_depth=1, stem_kernel=5, dim=16, depth=1, state=2),
        S4EncoderConfig(leads=8, samples=48, stem_dim=4, stem_depth=5, dim=4, depth=3, state=16, causal=False),
    ],
)
def test_any_sizes_come_back_with_their_weights(config: S4EncoderConfig) -> None:
    torch.manual_seed(0)
    encoder = S4Encoder(config).eval()
    back = loaded(published_state(encoder))
    assert back.config == config
    signal = torch.randn(2, config.leads, config.samples)
    with torch.inference_mode():
        assert torch.equal(back.network(signal), encoder.network(signal))


def test_the_phase_and_the_order_of_the_eigenvectors_are_free_and_other_systems_are_kept() -> None:
    torch.manual_seed(0)
    encoder = S4Encoder(SMALL)
    layer = encoder.s4_blocks[0].s4
    turn = torch.polar(torch.ones(2), torch.tensor([0.3, 2.0]))
    for name in ("B", "P"):
        turned = torch.view_as_complex(getattr(layer, name)) * turn
        getattr(layer, name).copy_(torch.view_as_real(turned).flip(1))
    layer.w.copy_(layer.w.flip(1))
    assert is_legs(loaded(published_state(encoder)).s4_blocks[0].s4)
    layer.w[..., 1] *= 1.001
    assert not is_legs(loaded(published_state(encoder)).s4_blocks[0].s4)


def with_(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[State], None]:
    def changed(state: State) -> None:
        state[name] = change(state[name])

    return changed


def everywhere(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[State], None]:
    def changed(state: State) -> None:
        for full in [full for full in state if full.endswith(name)]:
            state[full] = change(state[full])

    return changed


STEM = "ts_encoder.encoder.layers."


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop(f"{STEM}0.0.weight"), "layers.0.0.weight' is missing"),
        (lambda state: state.pop(f"{LAYER}kernel.kernel.Q"), "Q' is missing"),
        (lambda state: state.pop(f"{STEM}1.1.num_batches_tracked"), "num_batches_tracked' is missing"),
        (lambda state: state.update({f"{STEM}7.0.weight": torch.zeros(1)}), "is none of the published network's"),
        (with_(f"{STEM}0.0.weight", lambda value: value[0]), r"has shape \(12, 3\): the published one has 3 axes"),
        (with_(f"{STEM}0.0.weight", lambda value: value[..., :2]), "stem_kernel=2: use an odd number"),
        (everywhere("layers.0.0.weight", lambda value: value[:4]), "a stem of 4 channels .* S4 layers of 8"),
        (everywhere("kernel.kernel.C", lambda value: value.repeat(3, 1, 1, 1)), "S4 layers of 3 kernels"),
        (everywhere("kernel.kernel.omega", lambda value: value[:1]), "samples=0"),
        (with_(f"{LAYER}kernel.kernel.omega", lambda value: value[:-1]), "belong to 22 tokens, the network to 24"),
        (with_(f"{LAYER}kernel.kernel.omega", lambda value: value.flip(0)), "omega is not the roots of unity"),
        (with_(f"{LAYER}kernel.kernel.omega", lambda value: value[:, :1]), "omega is not the roots of unity"),
        (with_(f"{LAYER}kernel.kernel.omega", lambda value: value[0, 0]), "belong to 0 tokens"),
        (with_(f"{LAYER}kernel.kernel.Q", lambda value: -value), "Q is not the conjugate of P"),
        (with_(f"{LAYER}kernel.kernel.Q", lambda value: value.double()), "Q' is torch.float64"),
        (with_(f"{LAYER}kernel.kernel.Q", lambda value: value[..., :1]), "Q' has shape"),
        (with_(f"{LAYER}kernel.kernel.P", lambda value: value.repeat(2, 1, 1, 1)), "P' has shape"),
        (with_(f"{LAYER}kernel.kernel.w", lambda value: -value), "w has states that grow"),
        (with_(f"{LAYER}kernel.kernel.w", lambda value: value[0, 0, 0]), "w' has shape"),
        (with_(f"{LAYER}kernel.kernel.log_dt", lambda value: value - 20), "log_dt' states steps of"),
        (with_(f"{LAYER}kernel.kernel.log_dt", lambda value: value + 60), "log_dt' states steps of"),
        (with_(f"{LAYER}kernel.kernel.log_dt", lambda value: value * 0 + 1e30), "log_dt' states steps of"),
        (with_(f"{LAYER}kernel.kernel.B", lambda value: value * float("inf")), "B' is torch.float32 or not finite"),
        (with_(f"{STEM}0.1.running_var", lambda value: -value), "running_var' has variances below 0"),
        (with_(f"{LAYER}D", lambda value: value.half()), "D' is torch.float16 or not finite"),
        (with_(f"{LAYER}output_linear.0.bias", lambda value: value[:-1]), "bias' has shape"),
    ],
)  # fmt: skip
def test_other_weights_are_refused_by_name(change: Callable[[State], object], words: str) -> None:
    state = dict(published_state(S4Encoder(SMALL)))
    change(state)
    with pytest.raises(ValueError, match=words):
        loaded(state)
