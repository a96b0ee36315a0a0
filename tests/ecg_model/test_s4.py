"""The S4 layer against scipy's discretisation and a plain recurrence."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import cont2discrete

from ecg_model.s4 import S4, Recurrence, hippo_legs

sizes = st.fixed_dictionaries(
    {
        "dim": st.integers(1, 3),
        "state": st.sampled_from([2, 4, 8, 16]),
        "tokens": st.integers(2, 40),
        "length": st.integers(1, 90),  # odd ones too, shorter and longer than the training's
        "seed": st.integers(0, 2**16),
    }
)


def layer_of(dim: int, state: int, tokens: int, seed: int, *, causal: bool = True) -> S4:
    torch.manual_seed(seed)
    return S4(dim, state, tokens, causal=causal).double()


def responses(layer: S4, length: int) -> np.ndarray:
    """The response of each direction and channel to a unit impulse, (R, H, length): by scipy, step by step."""
    w_HN, B_HN, P_HN = (torch.view_as_complex(value).numpy() for value in (layer.w, layer.B, layer.P))
    C_RHN = torch.view_as_complex(layer.C.detach()).numpy()
    found = np.zeros((*C_RHN.shape[:2], length))
    for channel, dt in enumerate(layer.log_dt.exp().tolist()):
        w_N, B_N, P_N = (np.r_[each[channel], each[channel].conj()] for each in (w_HN, B_HN, P_HN))
        A_NN = np.diag(w_N) - np.outer(P_N, P_N.conj())
        one_NN = np.eye(len(w_N))
        # scipy's bilinear rule, and its own B̄ and Ā alone: its C and D belong to another way of sampling the input.
        A_NN, B_N1, *_ = cont2discrete((A_NN, B_N[:, None], one_NN, 0 * B_N[:, None]), dt, method="bilinear")
        for direction, C_HN in enumerate(C_RHN):
            corrected_N = np.r_[C_HN[channel], C_HN[channel].conj()]
            C_N = corrected_N @ np.linalg.inv(one_NN - np.linalg.matrix_power(A_NN, layer.tokens))
            state_N = B_N1[:, 0]
            for at in range(length):
                found[direction, channel, at] = (C_N @ state_N).real
                state_N = A_NN @ state_N
    return found


def test_hippo_legs_has_the_published_values() -> None:
    w_N, B_N, P_N = hippo_legs(8)
    assert w_N.real.tolist() == pytest.approx([-0.5] * 4)
    assert w_N.imag.tolist() == pytest.approx([19.857410, 5.354209, 1.957794, 0.427489], abs=1e-6)
    assert B_N.abs().square().tolist() == pytest.approx([26.580475, 3.399853, 1.380531, 0.639142], abs=1e-6)
    assert torch.allclose(P_N, B_N / 2**0.5)
    with pytest.raises(ValueError, match="state=7: use an even number"):
        hippo_legs(7)


@settings(max_examples=12, deadline=None)
@given(sizes=sizes, causal=st.booleans())
def test_a_kernel_of_any_length_is_the_response_of_the_recurrence(sizes: dict[str, int], causal: bool) -> None:
    length = sizes.pop("length")
    layer = layer_of(**sizes, causal=causal)
    expected_RHL = responses(layer, length)
    actual_RHL = layer.kernel(length).detach().numpy()
    np.testing.assert_allclose(actual_RHL, expected_RHL, atol=1e-9 * max(1.0, float(np.abs(expected_RHL).max())))


@settings(max_examples=12, deadline=None)
@given(sizes=sizes, causal=st.booleans(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_the_output_is_the_sum_over_the_impulses(sizes: dict[str, int], causal: bool, dtype: torch.dtype) -> None:
    length = sizes.pop("length")
    layer = layer_of(**sizes, causal=causal)
    kernel_RHL = responses(layer, length)
    u_HL = np.random.default_rng(sizes["seed"]).standard_normal((sizes["dim"], length))
    expected_HL = layer.D.detach().numpy()[:, None] * u_HL
    for at in range(length):
        expected_HL[:, at:] += u_HL[:, at, None] * kernel_RHL[0, :, : length - at]
        if not causal:  # the second direction begins one token earlier and goes back
            expected_HL[:, :at] += u_HL[:, at, None] * kernel_RHL[1, :, :at][:, ::-1]
    actual_HL = layer.to(dtype)(torch.from_numpy(u_HL[None]).to(dtype))[0].detach()
    assert actual_HL.dtype == dtype
    bound = (2e-5 if dtype == torch.float32 else 1e-9) * max(1.0, float(np.abs(expected_HL).max()))
    np.testing.assert_allclose(actual_HL.numpy(), expected_HL, atol=bound)


@settings(max_examples=8, deadline=None)
@given(sizes=sizes)
def test_a_stream_gives_what_the_convolution_gives(sizes: dict[str, int]) -> None:
    length = sizes.pop("length")
    layer = layer_of(**sizes).float()
    u_BHL = torch.randn(2, sizes["dim"], length)
    stream = Recurrence(layer, records=2)
    streamed_BHL = torch.stack([stream(u_BH) for u_BH in u_BHL.unbind(-1)], dim=-1)
    whole_BHL = layer(u_BHL)
    assert (streamed_BHL - whole_BHL).abs().max() <= 1e-4 * max(1.0, whole_BHL.abs().max().item())


def test_a_layer_that_sees_later_tokens_has_no_stream() -> None:
    with pytest.raises(ValueError, match=r"causal=False: .* use a causal one"):
        Recurrence(layer_of(1, 2, 4, 0, causal=False), records=1)


def test_half_precision_does_not_reach_the_convolution() -> None:
    layer, u_BHL = S4(4, 8, 50), torch.randn(2, 4, 50)
    with torch.autocast("cpu", torch.bfloat16):
        actual_BHL = layer(u_BHL)
    assert actual_BHL.dtype == torch.float32
    assert torch.equal(actual_BHL, layer(u_BHL))


def test_the_basis_follows_loaded_weights_and_other_types() -> None:
    first, second = layer_of(2, 4, 9, 1), layer_of(2, 4, 9, 2)
    assert not torch.allclose(first.kernel(9), second.kernel(9))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.kernel(9), second.kernel(9))
    assert second.float().kernel(9).dtype == torch.float32


def test_a_basis_that_was_computed_for_inference_serves_training() -> None:
    layer, u_BHL = S4(2, 4, 9), torch.randn(1, 2, 9)
    with torch.inference_mode():
        expected_BHL = layer(u_BHL).clone()
    trained_BHL = layer(u_BHL)
    trained_BHL.sum().backward()
    assert layer.C.grad is not None
    assert torch.equal(trained_BHL.detach(), expected_BHL)


def test_only_output_and_passage_learn() -> None:
    layer = S4(2, 4, 9)
    layer(torch.randn(1, 2, 9)).square().sum().backward()
    assert {name for name, _ in layer.named_parameters()} == {"C", "D"}
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in layer.parameters())


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [7, 12])
def test_gradients_are_those_of_finite_differences(causal: bool, length: int) -> None:
    torch.manual_seed(0)
    layer = S4(3, 4, 12, causal=causal).double()

    def convolved(u_BHL: torch.Tensor, C_RHN2: torch.Tensor, D_H: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"C": C_RHN2, "D": D_H}, (u_BHL,))

    u_BHL = torch.randn(2, 3, length, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(convolved, (u_BHL, layer.C, layer.D))
