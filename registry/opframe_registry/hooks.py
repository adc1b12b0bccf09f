"""The one hook that a plugin implements."""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from opframe_registry.component import Component

PROJECT = "opframe"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def opframe_components() -> Sequence[type[Component]]:
    """The component classes that this plugin offers."""
    raise AssertionError("a specification is never called")
