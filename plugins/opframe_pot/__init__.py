"""DPOT and MoE-POT, one family of patch transformers with Fourier attention."""

from __future__ import annotations

from opframe_pot.settings import DPOT, MoEPOT
from opframe_registry import Component, hookimpl

__all__ = ["DPOT", "MoEPOT", "opframe_components"]


@hookimpl
def opframe_components() -> list[type[Component]]:
    """The components of this plugin."""
    return [DPOT, MoEPOT]
