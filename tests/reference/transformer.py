"""DPOT (arXiv 2403.03542) and what MoE-POT (arXiv 2510.25803) has of it, module by module.

Legend: B batch, T frames in, S frames out, C channels, X Y grid, P side of a patch, X' = X/P, Y' = Y/P, D width,
h heads, E = D/h, K modes kept.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from opframe_pot import DPOT, MoEPOT
from opframe_registry import Conditions, Fields, Prediction
from tests.reference.mixture import Mixture
from tests.reference.shared import Embedding, classification_head, coordinates


class PatchTransformer(nn.Module):
    """DPOT (arXiv 2403.03542, section 3) and MoE-POT (arXiv 2510.25803): (B, T, C, X, Y) -> Prediction."""

    def __init__(self, settings: DPOT | MoEPOT, fields: Fields) -> None:
        super().__init__()
        channels, width, patch = len(fields.channels), settings.width, settings.patch
        inner, outputs = settings.output_width, fields.horizon * channels
        self.horizon = fields.horizon
        self.patch_embed = Embedding(channels + 3, channels * patch + 3, width, patch)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, width, *(points // patch for points in fields.grid)))
        self.time_agg_layer = TimeAggregation(fields.history, width, settings.time_aggregation == "exp_mlp")
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.depth))
        self.out_layer = nn.Sequential(
            nn.ConvTranspose2d(width, inner, patch, stride=patch),
            nn.GELU(),
            nn.Conv2d(inner, inner, 1),
            nn.GELU(),
            nn.Conv2d(inner, outputs, 1),
        )
        self.scale_feats_mu = nn.Linear(2 * channels, width) if settings.normalize else None
        self.scale_feats_sigma = nn.Linear(2 * channels, width) if settings.normalize else None
        self.cls_head = classification_head(width, settings.classes)

    def forward(self, u: Tensor, conditions: Conditions | None = None) -> Prediction:
        """Predict the next S frames."""
        if self.scale_feats_mu is None or self.scale_feats_sigma is None:
            return self._blocks_and_head(self._embed(u))
        μ, σ = u.mean((1, 3, 4), keepdim=True), u.std((1, 3, 4), keepdim=True) + 1e-6
        moments = torch.cat([μ, σ], dim=2).flatten(1)  # (B, 2C)
        z = self._embed((u - μ) / σ)
        z = self.scale_feats_sigma(moments)[..., None, None] * z + self.scale_feats_mu(moments)[..., None, None]
        made = self._blocks_and_head(z)
        return Prediction(field=made.field * σ + μ, penalties=made.penalties, class_logits=made.class_logits)

    def _embed(self, u: Tensor) -> Tensor:
        """(B, T, C, X, Y) -> (B, D, X', Y')."""
        x, y, t = coordinates(u, 3, 4, 1)
        images = torch.cat([u, x, y, t], dim=2).flatten(0, 1)  # (B·T, C + 3, X, Y)
        z = self.patch_embed(images) + self.pos_embed
        z = torch.unflatten(z, 0, u.shape[:2]).permute(0, 3, 4, 1, 2)  # (B, X', Y', T, D)
        return cast(Tensor, self.time_agg_layer(z)).permute(0, 3, 1, 2)

    def _blocks_and_head(self, z: Tensor) -> Prediction:
        """(B, D, X', Y') -> Prediction."""
        balance: list[Tensor] = []
        for block in self.blocks:
            z, penalties = block(z)
            balance += penalties
        frames = torch.unflatten(self.out_layer(z), 1, (self.horizon, -1))
        logits = None if self.cls_head is None else self.cls_head(z.mean((2, 3)))
        return Prediction(
            field=frames, penalties={"balance": torch.stack(balance).sum()} if balance else {}, class_logits=logits
        )


class TimeAggregation(nn.Module):
    """Σ_t (z_t ⊙ cos(t·γ)) W_t, t from 0 to 1; without γ, Σ_t z_t W_t: (B, X', Y', T, D) -> (B, X', Y', D)."""

    def __init__(self, frames: int, width: int, with_frequencies: bool) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(frames, width, width) / (frames * width**0.5))
        self.gamma = nn.Parameter(2 ** torch.linspace(-10, 10, width)[None]) if with_frequencies else None

    def forward(self, z: Tensor) -> Tensor:
        """Aggregate the frames."""
        if self.gamma is not None:
            t = torch.linspace(0, 1, z.shape[3], dtype=z.dtype, device=z.device)[:, None]
            z = z * torch.cos(t @ self.gamma)
        return torch.einsum("bxyti,tij->bxyj", z, self.w)


class Block(nn.Module):
    """Fourier attention, then a perceptron or a mixture of experts: (B, D, X', Y') -> the same, and penalties."""

    def __init__(self, settings: DPOT | MoEPOT) -> None:
        super().__init__()
        width, hidden = settings.width, settings.hidden
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.filter = FourierAttention(width, settings.heads, settings.modes)
        if isinstance(settings, MoEPOT):
            self.MoE = Mixture(settings)
        else:
            self.mlp = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.GELU(), nn.Conv2d(hidden, width, 1))

    def forward(self, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The inner skip carries the normalised tokens."""
        normal = self.norm1(z)
        mixed = self.norm2(normal + self.filter(normal))
        if not hasattr(self, "MoE"):
            return z + self.mlp(mixed), []
        mixed, penalties = self.MoE(mixed)
        return z + mixed, penalties


class FourierAttention(nn.Module):
    """F⁻¹ [MLP_ℂ (F z)] with the corner of K×K modes, the rest zero: (B, D, X', Y') -> the same."""

    def __init__(self, width: int, heads: int, modes: int) -> None:
        super().__init__()
        self.heads, self.modes = heads, modes
        size = width // heads
        self.w1, self.w2 = (nn.Parameter(torch.rand(2, heads, size, size) / size**2) for _ in range(2))
        self.b1, self.b2 = (nn.Parameter(torch.rand(2, heads, size) / size**2) for _ in range(2))

    def forward(self, z: Tensor) -> Tensor:
        """Real and imaginary parts by themselves, four products to a layer."""
        spectrum = torch.fft.rfft2(z.movedim(1, -1), dim=(1, 2), norm="ortho")  # (B, X', Y'/2 + 1, D)
        kept = torch.unflatten(spectrum[:, : self.modes, : self.modes], -1, (self.heads, -1))
        real, imaginary = self._layer(kept.real, kept.imag, self.w1, self.b1)
        real, imaginary = self._layer(functional.gelu(real), functional.gelu(imaginary), self.w2, self.b2)
        filtered = torch.zeros_like(spectrum)
        filtered[:, : self.modes, : self.modes] = torch.complex(real, imaginary).flatten(-2)
        fields: Tensor = torch.fft.irfft2(filtered, s=z.shape[2:], dim=(1, 2), norm="ortho")
        return fields.movedim(-1, 1)

    def _layer(self, real: Tensor, imaginary: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, L, h, E) twice -> the same."""
        return (
            _by_head(real, w[0]) - _by_head(imaginary, w[1]) + b[0],
            _by_head(imaginary, w[0]) + _by_head(real, w[1]) + b[1],
        )


def _by_head(z: Tensor, w: Tensor) -> Tensor:
    return torch.einsum("bklhi,hio->bklho", z, w)
