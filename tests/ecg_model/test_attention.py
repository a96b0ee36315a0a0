"""CroPA by its two axes against the dense, masked scores."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_model.attention import cropa, cropa_mask, dense, dense_cropa, per_lead


def qkv(seed: int, shape: tuple[int, ...], dtype=torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) * 2 for _ in range(3)]


sizes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 8), st.integers(1, 20), st.integers(1, 9))


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31), shape=sizes)
def test_equals_the_dense_form_forward_and_backward(seed, shape):
    ours, oracle = (
        [x.requires_grad_() for x in qkv(seed, shape)],
        [x.requires_grad_() for x in qkv(seed, shape)],
    )
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    result, expected = cropa(*ours), dense_cropa(*oracle)
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-12)
    (result * weight).sum().backward()
    (expected * weight).sum().backward()
    for a, b in zip(ours, oracle, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_equals_the_dense_form_in_narrow_types(dtype, tolerance):
    exact = dense_cropa(*(x.double() for x in qkv(3, (2, 4, 8, 50, 12), dtype)))
    result = cropa(*qkv(3, (2, 4, 8, 50, 12), dtype))
    assert result.dtype == dtype
    assert (result.double() - exact).abs().max() / exact.abs().max() < tolerance


def test_gradients_by_finite_differences():
    inputs = [x.requires_grad_() for x in qkv(5, (1, 2, 3, 4, 2))]
    assert torch.autograd.gradcheck(cropa, inputs)


def test_scores_of_thousands_do_not_overflow():
    q, k, v = (x * 1e4 for x in qkv(7, (1, 1, 8, 10, 4), torch.float32))
    assert torch.isfinite(cropa(q, k, v)).all()


def test_a_token_sees_its_lead_and_its_column_and_nothing_else():
    mask = cropa_mask(8, 50)
    assert set(mask.sum(dim=1).tolist()) == {57}
    q, k, v = qkv(11, (1, 1, 8, 50, 4))
    base = cropa(q, k, v).flatten(2, 3)
    token = 3 * 50 + 17
    changed = v.flatten(2, 3).clone()
    changed[:, :, token] += 1.0
    seen = (cropa(q, k, changed.view_as(v)).flatten(2, 3) - base).abs().sum(dim=(0, 1, 3)) > 0
    assert torch.equal(seen, mask[token])


def test_dense_is_softmax_over_all_tokens_and_per_lead_over_each_lead():
    q, k, v = qkv(13, (2, 3, 4, 6, 8))
    flat = [x.flatten(2, 3) for x in (q, k, v)]
    wanted = ((flat[0] @ flat[1].mT) / 8**0.5).softmax(-1) @ flat[2]
    torch.testing.assert_close(dense(q, k, v).flatten(2, 3), wanted)
    torch.testing.assert_close(per_lead(q, k, v), ((q @ k.mT) / 8**0.5).softmax(-1) @ v)
