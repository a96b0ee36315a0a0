"""JEPA on an S4 encoder: what the prediction sees, and how the teacher follows."""

from __future__ import annotations

import pytest
import torch

from ecg_model.config import JEPAConfig, S4EncoderConfig, S4PredictorConfig
from ecg_model.jepa_s4 import S4JEPA

TINY = JEPAConfig(
    encoder=S4EncoderConfig(
        leads=8, rate=250, samples=60, token_samples=5, stem_kernel=5, stem_dim=6, dim=8, depth=2, state=4, causal=False
    ),
    predictor=S4PredictorConfig(state=4),
)
MASKED = torch.tensor([2, 3, 4, 9])
VISIBLE = torch.tensor([token for token in range(12) if token not in MASKED])
EACH = torch.tensor([[2, 3, 4, 9], [0, 1, 6, 11]])


def model_of() -> S4JEPA:
    torch.manual_seed(0)
    model = S4JEPA(TINY)
    with torch.no_grad():
        model.predictor.hidden.normal_()
    return model.train()


@pytest.mark.parametrize("masked", [MASKED, EACH], ids=["one mask", "a mask for each record"])
def test_the_prediction_sees_nothing_of_the_hidden_tokens(
    masked: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of()
    z_BLD = model.student.encode(torch.randn(2, 8, 60)).detach().requires_grad_()
    monkeypatch.setattr(model.student, "encode", lambda x_BCT: z_BLD)
    model(torch.randn(2, 8, 60), VISIBLE, masked).backward()
    assert z_BLD.grad is not None
    moved_BL = z_BLD.grad.abs().amax(dim=-1) > 0
    hidden_BL = torch.zeros(2, 12, dtype=torch.bool).scatter(1, masked.expand(2, -1), True)
    assert torch.equal(moved_BL, ~hidden_BL), "of the visible ones each, since the blocks see both directions"
    assert model.predictor.hidden.grad is not None
    assert model.predictor.hidden.grad.abs().sum() > 0


def test_hidden_samples_reach_the_loss_by_the_targets_alone() -> None:
    """In eval mode, where the batch has no statistics of its own."""
    model = model_of().eval()
    x_BCT = torch.randn(2, 8, 60)
    changed_BCT = x_BCT.clone()
    changed_BCT[:, :, 8:23] += 1.0  # the samples that tokens 2, 3 and 4 are made of
    predicted: list[torch.Tensor] = []
    model.predictor.register_forward_hook(lambda module, inputs, output: predicted.append(output))
    losses = [model(each, VISIBLE, MASKED).item() for each in (x_BCT, changed_BCT)]
    assert torch.equal(*predicted)
    assert losses[0] != losses[1]


def test_the_teacher_follows_by_its_weights_and_has_the_students_statistics() -> None:
    model = model_of()
    before = {name: value.clone() for name, value in model.teacher.named_parameters()}
    for _ in range(3):
        model.student.encode(torch.randn(4, 8, 60) + 1.0)
    with torch.no_grad():
        for value in model.student.parameters():
            value.add_(1.0)
    model.ema_update_(0.75)
    for name, value in model.teacher.named_parameters():
        torch.testing.assert_close(value, before[name] + 0.25)
        assert not value.requires_grad
    student = dict(model.student.named_buffers())
    for name, value in model.teacher.named_buffers():
        assert torch.equal(value, student[name]), name
    assert model.teacher.stem_blocks[0].norm.num_batches_tracked == 3
    assert not model.teacher.training


def test_the_teacher_does_not_learn_from_its_batch() -> None:
    model = model_of()
    before = {name: value.clone() for name, value in model.teacher.state_dict().items()}
    model(torch.randn(2, 8, 60), VISIBLE, MASKED).backward()
    assert all(torch.equal(value, before[name]) for name, value in model.teacher.state_dict().items())
    assert all(value.grad is None for value in model.teacher.parameters())
