"""Roll-out with input noise, and relative error (DPOT, arXiv 2403.03542, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from opframe_registry import Batch, ConfigError, Prediction


def relative_l2(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """‖prediction − target‖₂ / (‖target‖₂ + 1e-8) of every sample: (B, T, C, *grid) -> (B,).

    Norms are taken for each channel over time and space, where the mask is not zero. The mean is over the
    channels that have such a point; a sample without any has the error 0. `mask` broadcasts against the others.
    """
    mask = mask.expand(target.shape)
    space_time = (1, *range(3, target.ndim))
    error = torch.linalg.vector_norm((prediction - target) * mask, dim=space_time)
    size = torch.linalg.vector_norm(target * mask, dim=space_time)
    effective = (mask != 0).flatten(3).any(3).any(1)  # (B, C)
    ratios = torch.where(effective, error / (size + 1e-8), 0.0)
    return ratios.sum(1) / effective.sum(1).clamp(min=1)


@frozen(kw_only=True)
class AutoregressiveLoss:
    """The loss function of `RelativeL2`, which says what it computes, and the relative error of every sample."""

    name: str
    steps: int
    noise: float
    relative_to_rms: bool
    penalty_weight: float
    classification_weight: float

    def __call__(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Losses by name: the relative error, and with their weights the backbone's penalties and classification."""
        window, horizon = batch.inputs, batch.targets.shape[1] // self.steps
        valid = None if batch.complete else batch.conditions.valid[:, None]  # (B, 1, 1, *grid)
        mask = batch.mask.expand(batch.targets.shape)
        generators = [torch.Generator(window.device).manual_seed(seed) for seed in batch.seeds.tolist()]
        losses: dict[str, Tensor] = {}
        samples: dict[str, Tensor] = {}
        frames = batch.targets.shape[1]
        for start in range(0, frames, horizon):
            window = self._noisy(window, generators, valid)
            prediction: Prediction = model(window, batch.conditions)
            step = slice(start, start + horizon)
            error = relative_l2(prediction.field, batch.targets[:, step], mask[:, step])
            _add(losses, {self.name: error.mean()})
            _add(samples, {f"by_dataset/{self.name}/": error.detach()})
            _add(losses, {name: self.penalty_weight * penalty for name, penalty in prediction.penalties.items()})
            _add(losses, self._classification(prediction, batch.dataset))
            if start + horizon < frames:
                field = prediction.field if valid is None else prediction.field.masked_fill(~valid, 0.0)
                window = torch.cat([window, field], dim=1)[:, -window.shape[1] :]
        return losses | samples

    def _classification(self, prediction: Prediction, dataset: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the samples' datasets; with weight 0 too, as DDP wants a gradient of every parameter."""
        if prediction.class_logits is None:
            if self.classification_weight > 0:
                raise ConfigError(
                    "[objective] classification_weight is set, but the backbone has no classification head; "
                    "give it one with backbone.classes, or set the weight to 0"
                )
            return {}
        return {"classification": self.classification_weight * cross_entropy(prediction.class_logits, dataset)}

    def _noisy(self, window: Tensor, generators: Sequence[torch.Generator], valid: Tensor | None) -> Tensor:
        """Add noise of the scale of each sample's channels, drawn from each sample's own generator, at valid points."""
        if self.noise == 0:
            return window
        axes = (1, *range(3, window.ndim))
        seen = window if valid is None else window * valid
        scale = torch.linalg.vector_norm(seen, dim=axes, keepdim=True)
        if self.relative_to_rms:
            scale = scale / (window[0, :, 0].numel() ** 0.5 if valid is None else _root_count(valid, window.shape[1]))
        normal = torch.empty_like(window, memory_format=torch.contiguous_format)
        for sample, generator in zip(normal, generators, strict=True):
            sample.normal_(generator=generator)
        if valid is not None:
            normal *= valid
        return torch.addcmul(window, normal, scale, value=self.noise)


def _root_count(valid: Tensor, frames: int) -> Tensor:
    """The root of the number of values of a channel that are there: (B or 1, 1, 1, *grid) -> (B or 1, 1, 1, *ones)."""
    count = frames * valid.sum(tuple(range(3, valid.ndim)), keepdim=True)
    return count.clamp(min=1).double().sqrt().float()


def _add(losses: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    for name, value in more.items():
        losses[name] = losses[name] + value if name in losses else value
