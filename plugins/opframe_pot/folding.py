"""The linear layers of an embedding, put together: products with the matrices of the temporal aggregation.

Legend: T frames, M rows, D width before and E after the aggregation, A_t = diag(c_t) W_t.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def aggregated(rows: Tensor, cosines: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor]:
    """rows · A_t of every frame, and Σ_t A_t: (M, D), c (T, D), W (T, D, E) -> (T, M, E), (D, E).

    The A_t are not made. They and W are most of a small batch's work, so that the gradient goes through them once.
    """
    return cast(tuple[Tensor, Tensor], _Aggregated.apply(rows, cosines, matrices))  # type: ignore[no-untyped-call]


class _Aggregated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, cosines: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(rows, cosines, matrices)
        total = torch.zeros_like(matrices[0])
        for scale, matrix in zip(cosines.unbind(), matrices.unbind(), strict=True):
            total.addcmul_(scale[:, None], matrix)
        return (rows * cosines[:, None]) @ matrices, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_products: Tensor, by_total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, cosines, matrices = ctx.saved_tensors
        by_total = by_total.contiguous()  # it meets every matrix
        by_scaled = by_products @ matrices.mT  # (T, M, D)
        by_matrices = (rows * cosines[:, None]).mT @ by_products  # (T, D, E)
        by_cosines = (by_scaled * rows).sum(1)
        for frame, scale in enumerate(cosines.unbind()):
            by_matrices[frame].addcmul_(scale[:, None], by_total)
            by_cosines[frame] += (matrices[frame] * by_total).sum(1)
        return (by_scaled * cosines[:, None]).sum(0), by_cosines, by_matrices
