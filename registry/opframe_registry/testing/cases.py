"""Which components of an installed package are tried, and with which settings."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from opframe_registry.component import Component
from opframe_registry.discovery import discover
from opframe_registry.errors import PluginError
from opframe_registry.values import Location

Settings = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Keys by kind and name."""


def read_settings(path: Path) -> Settings:
    """Tables such as `[dataset.heat]`, whose strings may say `{here}` for the folder of the file."""
    with path.open("rb") as file:
        settings: Settings = _placed(tomllib.load(file), str(path.resolve().parent))
    return settings


def _placed(value: Any, folder: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _placed(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_placed(item, folder) for item in value)
    return Location(value.replace("{here}", folder)) if isinstance(value, str) else value


def components_of(package: str) -> Iterator[type[Component]]:
    """What an installed package offers, by the name of its distribution or of its module.

    Raises PluginError where there is none, or where it cannot be loaded.
    """
    plugins = discover().plugins
    plain = package.replace("-", "_").lower()
    found = [
        plugin
        for plugin in plugins
        if plain in (plugin.distribution.replace("-", "_").lower(), plugin.name.replace("-", "_").lower())
        or any(item.__module__.partition(".")[0] == package for item in plugin.components)
    ]
    if not found:
        known = ", ".join(sorted({plugin.distribution for plugin in plugins}))
        raise PluginError(f"--opframe {package}: no such package has plugins of opframe; there are {known}")
    for plugin in found:
        if plugin.error:
            raise PluginError(f"--opframe {package}: the plugin {plugin.name} cannot be loaded: {plugin.error}")
        yield from plugin.components


def made(component: type[Component], settings: Settings) -> Component:
    """A component with its settings. Raises PluginError where these are not enough, or not right."""
    keys = settings.get(component.kind, {}).get(component.name, {})
    try:
        return component(**keys)
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"{component.name}[{component.kind}] cannot be made ({error}); give its keys in a TOML file, under "
            f"[{component.kind}.{component.name}], with --opframe-settings FILE"
        ) from error
