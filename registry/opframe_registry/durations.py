"""How long something may take, as a person writes it."""

from __future__ import annotations

import re

from attrs import Attribute

_SECONDS = (86400, 3600, 60, 1)
"""Of a day, an hour, a minute and a second."""
_DURATION = re.compile(r"(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def seconds(duration: str) -> int:
    """A duration as days, hours, minutes and seconds, such as `11h50m`, in seconds. Raises ValueError for another."""
    parts = _DURATION.fullmatch(duration)
    total = sum(int(count or 0) * unit for count, unit in zip(parts.groups(), _SECONDS, strict=True)) if parts else 0
    if total == 0:
        raise ValueError(f"'{duration}' is no duration; write it as 11h50m, 90m or 2d")
    return total


def is_duration(component: object, attribute: Attribute[str], value: str) -> None:
    """An attrs validator of a key that is a duration. Raises ValueError."""
    try:
        seconds(value)
    except ValueError as error:
        raise ValueError(f"{attribute.name} = {error}") from None
