"""FNO (arXiv 2010.08895) by way of the FFT, as DPOT and MoE-POT compare with it.

Legend: B batch, T frames in, S frames out, C channels, X Y grid, D width, K L modes kept.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from opframe_fno import FNO
from opframe_registry import Conditions, Fields, Prediction
from tests.reference.shared import Embedding, classification_head, coordinates


class FourierNeuralOperator(nn.Module):
    """FNO (arXiv 2010.08895) as DPOT and MoE-POT compare with it: (B, T, C, X, Y) -> Prediction."""

    def __init__(self, settings: FNO, fields: Fields) -> None:
        super().__init__()
        channels, width, blocks = len(fields.channels), settings.width, range(settings.depth)
        inputs = fields.history * channels + 2
        self.horizon = fields.horizon
        self.patch_embed = Embedding(inputs, inputs, width, 1)
        modes = settings.modes_along(fields.grid)
        self.spectral_convs = nn.ModuleList(SpectralConvolution(width, *modes) for _ in blocks)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in blocks)
        self.ln_layers = nn.ModuleList(nn.GroupNorm(4, width) if settings.group_norm else nn.Identity() for _ in blocks)
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, fields.horizon * channels)
        self.scale_feats = nn.Linear(2 * channels, width) if settings.normalize else None
        self.cls_head = classification_head(width, settings.classes)

    def forward(self, u: Tensor, conditions: Conditions | None = None) -> Prediction:
        """Predict the next S frames."""
        if self.scale_feats is None:
            return self._predict(self._embed(u))
        μ, σ = u.mean((1, 3, 4), keepdim=True), u.std((1, 3, 4), keepdim=True) + 1e-6
        moments = torch.cat([μ, σ], dim=2).flatten(1)  # (B, 2C)
        made = self._predict(self._embed((u - μ) / σ) + self.scale_feats(moments)[..., None, None])
        return Prediction(field=made.field * σ + μ, class_logits=made.class_logits)

    def _embed(self, u: Tensor) -> Tensor:
        x, y = (each[:, 0] for each in coordinates(u, 3, 4))
        return cast(Tensor, self.patch_embed(torch.cat([u.flatten(1, 2), x, y], dim=1)))

    def _predict(self, z: Tensor) -> Prediction:
        """(B, D, X, Y) -> Prediction."""
        for spectral, convolution, norm in zip(self.spectral_convs, self.convs, self.ln_layers, strict=True):
            z = norm(functional.gelu(spectral(z) + convolution(z)))
        logits = None if self.cls_head is None else self.cls_head(z.mean((2, 3)))
        points = self.fc2(functional.gelu(self.fc1(z.movedim(1, -1))))  # (B, X, Y, S·C)
        return Prediction(field=torch.unflatten(points.movedim(-1, 1), 1, (self.horizon, -1)), class_logits=logits)


class SpectralConvolution(nn.Module):
    """F⁻¹ [R · F z] with K×L modes of both signs along the first axis, the rest zero: (B, D, X, Y) -> the same."""

    def __init__(self, width: int, modes1: int, modes2: int) -> None:
        super().__init__()
        self.modes = (modes1, modes2)
        shape = (2, width, width, modes1, modes2)
        self.weights1, self.weights2 = (nn.Parameter(torch.rand(shape) / width**2) for _ in range(2))
        self.register_load_state_dict_pre_hook(_from_ours)  # type: ignore[no-untyped-call]

    def forward(self, z: Tensor) -> Tensor:
        """Real and imaginary parts by themselves."""
        modes1, modes2 = self.modes
        spectrum = torch.fft.rfft2(z)
        filtered = torch.zeros_like(spectrum)
        filtered[:, :, :modes1, :modes2] = _by_mode(spectrum[:, :, :modes1, :modes2], self.weights1)
        filtered[:, :, -modes1:, :modes2] = _by_mode(spectrum[:, :, -modes1:, :modes2], self.weights2)
        fields: Tensor = torch.fft.irfft2(filtered, s=z.shape[2:])
        return fields


def _from_ours(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Put the published weights where the state has ours, which keep the matrices of all modes in one tensor."""
    ours = state.pop(f"{prefix}weight", None)  # (2, K, L, 2·I, O), positive frequencies first, then real parts
    if ours is not None:
        for number, matrices in enumerate(torch.unflatten(ours, -2, (2, -1)), start=1):
            state[f"{prefix}weights{number}"] = matrices.permute(2, 3, 4, 0, 1)


def _by_mode(z: Tensor, w: Tensor) -> Tensor:
    """Complex (B, I, K, L), parts (2, I, O, K, L) -> complex (B, O, K, L)."""

    def product(part: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("bikl,iokl->bokl", part, weight)

    real = product(z.real, w[0]) - product(z.imag, w[1])
    return torch.complex(real, product(z.real, w[1]) + product(z.imag, w[0]))
