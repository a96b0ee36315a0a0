"""A structured state-space layer, S4 (Gu et al., arXiv 2111.00396), with the start and the fixed parts of ECG-CPC.

Each channel is a linear system x' = A x + B u, y = Re(C x) + D u of N states, with A = diag(w) - P Q^T (rank-1 DPLR,
HiPPO-LegS), discretised by the bilinear rule with a step of its own. Only C and D learn. So the kernel of the
convolution is a product of C with a basis that is constant: it is computed once, in float64, and no Cauchy sum is
needed. Of the states, which come in conjugate pairs, half is stored.

The stored C is length-corrected: C (I - Ā^L0), with L0 the tokens of training. A kernel of another length uses the same
L0, so that one file of weights fits any length.

Shapes: B records, L tokens, H channels, N states (N/2 stored), R directions (1 causal, 2 both).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

STEP_RANGE = (0.001, 0.1)  # of the initial step of a channel, in tokens


class S4(nn.Module):
    """The convolution of each channel with its system's kernel: (B, H, L) -> (B, H, L).

    tokens: L0. Draws its start from torch's global generator. Raises ValueError if the number of states is odd.
    """

    def __init__(self, dim: int, state: int, tokens: int, *, causal: bool = True) -> None:
        super().__init__()
        _require_pairs(state)
        self.tokens, self.causal = tokens, causal
        for name in ("w", "B", "P"):
            self.register_buffer(name, torch.empty(dim, state // 2, 2))
        self.register_buffer("log_dt", torch.empty(dim))
        self.w: Tensor
        self.B: Tensor
        self.P: Tensor
        self.log_dt: Tensor
        self.C = nn.Parameter(torch.empty(1 if causal else 2, dim, state // 2, 2))
        self.D = nn.Parameter(torch.empty(dim))
        self._basis: tuple[int, Tensor] | None = None
        self.register_load_state_dict_post_hook(lambda layer, _: layer._forget_basis())
        if not self.D.is_meta:  # else only names and shapes are wanted
            self._initialise(state)

    @torch.no_grad()
    def _initialise(self, state: int) -> None:
        for buffer, value_N in zip((self.w, self.B, self.P), hippo_legs(state), strict=True):
            buffer.copy_(torch.view_as_real(value_N).expand_as(buffer))
        low, high = map(math.log, STEP_RANGE)
        self.log_dt.copy_(low + (high - low) * torch.rand_like(self.log_dt))
        self.C.copy_(self._length_corrected(torch.randn_like(self.C) * 0.5**0.5))
        self.D.copy_(torch.randn_like(self.D))

    def forward(self, u_BHL: Tensor) -> Tensor:
        """Convolve, in float32 or float64 whatever autocast says: half precision has no FFT of these lengths."""
        length = u_BHL.shape[-1]
        with torch.autocast(u_BHL.device.type, enabled=False):
            u_BHL = u_BHL.to(self.D.dtype)
            kernel_HL, *backward = self.kernel(length)
            for backward_HL in backward:
                kernel_HL = F.pad(kernel_HL, (0, length)) + F.pad(backward_HL.flip(-1), (length, 0))
            return _Convolution.apply(u_BHL, kernel_HL) + self.D[:, None] * u_BHL

    def kernel(self, length: int) -> Tensor:
        """Return (R, H, length): the response to a unit impulse by direction. The second begins a token late."""
        return torch.einsum("rhk,hkl->rhl", self.C.flatten(-2), self.basis(length))

    def basis(self, length: int) -> Tensor:
        """Return (H, N, length), so that a kernel is `C_HN @ basis`, with real and imaginary part of C in turn.

        The last length is kept.
        """
        if self._basis is None or self._basis[0] != length:
            with torch.inference_mode(False):  # it is kept, and a later call may need gradients through it
                self._basis = length, self._computed_basis(length).to(self.C.device, self.C.dtype)
        return self._basis[1]

    def _computed_basis(self, length: int) -> Tensor:
        A_HNN, B_HN1 = self.discrete()
        powers_HNL = _powers(A_HNN, B_HN1, length)
        half_HNL = torch.linalg.solve(_one_less(A_HNN, self.tokens), powers_HNL)[:, : self.w.shape[1]]
        # 2 Re(C G) is 2 Re(C) Re(G) - 2 Im(C) Im(G).
        return torch.stack([2 * half_HNL.real, -2 * half_HNL.imag], dim=2).flatten(1, 2)

    def discrete(self) -> tuple[Tensor, Tensor]:
        """Return Ā (H, N, N) and B̄ (H, N, 1), complex128, on the CPU: the system from one token to the next."""
        w_HN, B_HN, P_HN = (_with_conjugates(value) for value in (self.w, self.B, self.P))
        dt_H11 = self.log_dt.detach().double().cpu().exp()[:, None, None]
        A_HNN = torch.diag_embed(w_HN) - P_HN[:, :, None] * P_HN.conj()[:, None, :]
        one_NN = torch.eye(A_HNN.shape[-1], dtype=A_HNN.dtype)
        both = torch.cat([one_NN + dt_H11 / 2 * A_HNN, dt_H11 * B_HN[:, :, None]], dim=-1)
        solved = torch.linalg.solve(one_NN - dt_H11 / 2 * A_HNN, both)
        return solved[..., :-1], solved[..., -1:]

    def output(self) -> Tensor:
        """Return C (R, H, N), complex128, on the CPU, of the system that is not length-corrected."""
        A_HNN, _ = self.discrete()
        return torch.linalg.solve(_one_less(A_HNN, self.tokens), _with_conjugates(self.C)[..., None, :], left=False)[
            ..., 0, :
        ]

    def _length_corrected(self, C_RHN2: Tensor) -> Tensor:
        A_HNN, _ = self.discrete()
        corrected = _with_conjugates(C_RHN2)[..., None, :] @ _one_less(A_HNN, self.tokens)
        return torch.view_as_real(corrected[..., 0, : C_RHN2.shape[-2]]).to(C_RHN2.dtype)

    def _forget_basis(self) -> None:
        self._basis = None

    def _apply(self, *arguments: Any, **options: Any) -> S4:
        self._forget_basis()  # it is of another device or type
        return super()._apply(*arguments, **options)


class _Convolution(torch.autograd.Function):
    """The first L values of u * k, (B, H, L) and (H, at most 2 L) -> (B, H, L), by real FFTs of 2 L points.

    PyTorch's own backward pass of a real FFT is a complex one of all points, at twice the cost.
    """

    @staticmethod
    def forward(ctx: Any, u_BHL: Tensor, kernel_HL: Tensor) -> Tensor:
        length = u_BHL.shape[-1]
        u_BHF, kernel_HF = torch.fft.rfft(u_BHL, 2 * length), torch.fft.rfft(kernel_HL, 2 * length)
        ctx.save_for_backward(u_BHF, kernel_HF)
        ctx.length, ctx.lags = length, kernel_HL.shape[-1]
        return torch.fft.irfft(u_BHF * kernel_HF, 2 * length)[..., :length]

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides the name of ctx
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        u_BHF, kernel_HF = ctx.saved_tensors
        gradient_BHF = torch.fft.rfft(grad_outputs[0], 2 * ctx.length)
        of_u_BHL = torch.fft.irfft(gradient_BHF * kernel_HF.conj(), 2 * ctx.length)[..., : ctx.length]
        of_kernel_HF = (gradient_BHF * u_BHF.conj()).sum(dim=0)
        return of_u_BHL, torch.fft.irfft(of_kernel_HF, 2 * ctx.length)[..., : ctx.lags]


class Recurrence:
    """An `S4` as a recurrence, one token after another, equal to its convolution: for streams.

    Keeps the state of B records, zeros at the start. Without gradient.
    """

    def __init__(self, layer: S4, records: int) -> None:
        if not layer.causal:
            raise ValueError("causal=False: a layer that sees later tokens has no recurrence; use a causal one")
        device, dtype = layer.D.device, torch.promote_types(layer.D.dtype, torch.complex64)
        A_HNN, B_HN1 = layer.discrete()
        self._A_HNN, self._B_HN = A_HNN.to(device, dtype), B_HN1[..., 0].to(device, dtype)
        self._C_HN, self._D_H = layer.output()[0].to(device, dtype), layer.D.detach()
        self._state_BHN = torch.zeros(records, *self._B_HN.shape, device=device, dtype=dtype)

    def __call__(self, u_BH: Tensor) -> Tensor:
        """Take one token of each record, (B, H), and return its output, (B, H)."""
        stepped_BHN = torch.einsum("hnm,bhm->bhn", self._A_HNN, self._state_BHN)
        self._state_BHN = stepped_BHN + self._B_HN * u_BH[..., None]
        return (self._C_HN * self._state_BHN).sum(dim=-1).real + self._D_H * u_BH


def hippo_legs(state: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return w, B and P of HiPPO-LegS as DPLR, each complex128 (N/2,): the states of positive imaginary part of w.

    A = diag(w) - P P^* in the basis of the eigenvectors of its normal part (arXiv 2111.00396, theorem 1). Raises
    ValueError if the number of states is odd.
    """
    _require_pairs(state)
    order_N = torch.arange(state, dtype=torch.float64)
    B_N, P_N = (2 * order_N + 1).sqrt(), (order_N + 0.5).sqrt()
    A_NN = -torch.tril(B_N[:, None] * B_N[None], diagonal=-1) - torch.diag(order_N + 1)
    # A + P P^T is -1/2 on the diagonal and skew-symmetric otherwise, so that i times the rest is Hermitian.
    skew_NN = A_NN + P_N[:, None] * P_N[None] + 0.5 * torch.eye(state, dtype=torch.float64)
    frequency_N, vectors_NN = torch.linalg.eigh(-1j * skew_NN)
    frequency_N, vectors_NN = frequency_N.flip(0)[: state // 2], vectors_NN.flip(1)[:, : state // 2]
    w_N = torch.complex(torch.full_like(frequency_N, -0.5), frequency_N)
    B_N, P_N = (vectors_NN.conj().T @ value.to(vectors_NN) for value in (B_N, P_N))
    return w_N, B_N, P_N


def _require_pairs(state: int) -> None:
    if state < 2 or state % 2:
        raise ValueError(f"state={state!r}: use an even number of states, since they come in pairs")


def _with_conjugates(half: Tensor) -> Tensor:
    """Return all states, complex128 (..., N), of half of them with real and imaginary part last (..., N/2, 2)."""
    value = torch.view_as_complex(half.detach().double().cpu().contiguous())
    return torch.cat([value, value.conj()], dim=-1)


def _one_less(A_HNN: Tensor, tokens: int) -> Tensor:
    """Return I - A^tokens."""
    return torch.eye(A_HNN.shape[-1], dtype=A_HNN.dtype) - torch.linalg.matrix_power(A_HNN, tokens)


def _powers(A_HNN: Tensor, B_HN1: Tensor, length: int) -> Tensor:
    """Return (H, N, length): A^l B, by doubling."""
    powers_HNL = B_HN1
    while powers_HNL.shape[-1] < length:
        powers_HNL = torch.cat([powers_HNL, A_HNN @ powers_HNL], dim=-1)
        A_HNN = A_HNN @ A_HNN
    return powers_HNL[..., :length]
