"""The layers of the U-Net. Their names in the state dict are those of MONAI's, of which it was made before.

Legend: B batch, C channels.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from torch import nn

from opframe_unet import NORM_GROUPS

if TYPE_CHECKING:
    from opframe_unet import UNet

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
POOLINGS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
"""By number of space axes, less one."""

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh}


def two_convolutions(settings: UNet, axes: int, channels: int, width: int) -> nn.Sequential:
    """(B, channels, *grid) -> (B, width, *grid): twice a convolution over 3 points, norm and activation."""
    first, second = (_convolution(settings, axes, given, width) for given in (channels, width))
    return nn.Sequential(OrderedDict(conv_0=first, conv_1=second))


def halving(settings: UNet, axes: int, channels: int, width: int) -> nn.Sequential:
    """(B, channels, *grid) -> (B, width, *grid // 2): the maximum of every two points, then two convolutions."""
    convolutions = two_convolutions(settings, axes, channels, width)
    return nn.Sequential(OrderedDict(max_pooling=POOLINGS[axes - 1](kernel_size=2), convs=convolutions))


def doubling(axes: int, channels: int, width: int) -> nn.Sequential:
    """(B, channels, *grid) -> (B, width, *grid · 2) by a transposed convolution."""
    return nn.Sequential(OrderedDict(deconv=TRANSPOSED[axes - 1](channels, width, kernel_size=2, stride=2)))


def pointwise(axes: int, channels: int, width: int) -> nn.Module:
    """(B, channels, *grid) -> (B, width, *grid), each point by itself."""
    return CONVOLUTIONS[axes - 1](channels, width, kernel_size=1)


def _convolution(settings: UNet, axes: int, channels: int, width: int) -> nn.Sequential:
    convolution = CONVOLUTIONS[axes - 1](channels, width, kernel_size=3, padding=1, bias=False)
    norm = nn.GroupNorm(NORM_GROUPS, width) if settings.norm == "group" else BATCH_NORMS[axes - 1](width)
    after = nn.Sequential(OrderedDict(N=norm, A=ACTIVATIONS[settings.activation]()))
    return nn.Sequential(OrderedDict(conv=convolution, adn=after))
