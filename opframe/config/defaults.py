"""What is laid under the tables of an experiment before they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULTS: Mapping[str, Any] = {
    "metrics": [{"type": "relative_l2"}],
}
"""Tables that an experiment has where its file does not name them."""


def completed(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of an experiment, also of one that was written before some of them were there, with all of them."""
    return {**DEFAULTS, **tables}
