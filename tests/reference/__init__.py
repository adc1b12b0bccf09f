"""DPOT, MoE-POT and FNO, 2-D, as straightforward as their papers' text: what ours is compared with.

Every sentence of the papers is a module of torch on images (N, C, X, Y), in the order of the text. Weights have the
published names. Networks take the settings and the fields of ours, load the state dicts of ours, and have the same
inputs and outputs. They compute the same, as the tests say, the slow way.
"""

from __future__ import annotations

from torch import nn

from opframe_fno import FNO
from opframe_pot import DPOT, MoEPOT
from opframe_registry import Backbone, Fields
from tests.reference.fourier import FourierNeuralOperator
from tests.reference.transformer import PatchTransformer


def straightforward(settings: Backbone, fields: Fields) -> nn.Module:
    """The straightforward network of these settings, with weights of its own. Raises TypeError if there is none."""
    if isinstance(settings, DPOT | MoEPOT):
        return PatchTransformer(settings, fields)
    if isinstance(settings, FNO):
        return FourierNeuralOperator(settings, fields)
    raise TypeError(f"there is no straightforward {settings.name}")
