"""Which components of an installed package are tried, and with which settings."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from opframe_registry.component import Component
from opframe_registry.components import KINDS
from opframe_registry.discovery import Plugin, did_you_mean, discover
from opframe_registry.errors import PluginError
from opframe_registry.testing.written import placed, structured

Settings = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Keys by kind and name."""

_PROJECT = "pyproject.toml"


def read_settings(path: Path) -> Settings:
    """Tables such as `[dataset.heat]`; of a pyproject.toml, those below `[tool.opframe.conformance]`.

    A relative path is relative to the folder of the file, and `{here}` in a string is that folder. Raises PluginError.
    """
    tables = _tables(path)
    if path.name == _PROJECT:
        tables = tables.get("tool", {}).get("opframe", {}).get("conformance", {})
    kinds = [kind.kind for kind in KINDS]
    for kind, named in tables.items():
        if kind not in kinds:
            raise PluginError(f"{path}: [{kind}] is no kind of component{did_you_mean(kind, kinds)}")
        if not isinstance(named, dict) or not all(isinstance(keys, dict) for keys in named.values()):
            raise PluginError(f"{path}: [{kind}] holds keys; expected a table for each component, as [{kind}.NAME]")
    return placed(tables, path.resolve().parent)  # type: ignore[no-any-return]


def settings_of(folder: Path) -> Settings:
    """Those in the pyproject.toml of a folder, if there is one. Raises PluginError."""
    path = folder / _PROJECT
    return read_settings(path) if path.is_file() else {}


def project_in(folder: Path) -> str | None:
    """The name of the distribution that the pyproject.toml of a folder makes. Raises PluginError."""
    path = folder / _PROJECT
    return _tables(path).get("project", {}).get("name") if path.is_file() else None


def _tables(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PluginError(f"{path} cannot be read: {error}") from None


def components_of(package: str) -> Iterator[type[Component]]:
    """What an installed package offers, by the name of its distribution, its plugin or its module.

    Raises PluginError where there is none, or where it cannot be loaded.
    """
    plugins = discover().plugins
    found = [plugin for plugin in plugins if _is_meant(plugin, package)]
    if not found:
        known = sorted({plugin.distribution for plugin in plugins})
        near = did_you_mean(package, known)
        raise PluginError(f"{package}: no such package has plugins of opframe{near}; there are {', '.join(known)}")
    for plugin in found:
        if plugin.error:
            raise PluginError(f"{package}: the plugin {plugin.name} cannot be loaded: {plugin.error}")
        yield from plugin.components


def _is_meant(plugin: Plugin, package: str) -> bool:
    names = {plugin.distribution, plugin.name} | {item.__module__.partition(".")[0] for item in plugin.components}
    return package.replace("-", "_").lower() in {name.replace("-", "_").lower() for name in names}


def made(component: type[Component], settings: Settings) -> Component:
    """A component with its settings, else with its preset `mini`, else with its defaults.

    Raises PluginError where these are not enough, or not right.
    """
    keys = settings.get(component.kind, {}).get(component.name)
    if keys is None:
        sized = "mini" in component.presets and "size" in attrs.fields_dict(component)
        keys = {"size": "mini"} if sized else {}
    try:
        return structured(component, keys)
    except Exception as error:  # whatever a component's own validators raise
        words = str(error) if isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: {error}"
        raise PluginError(
            f"{component.name}[{component.kind}] cannot be made ({words}); give its keys in a TOML file, under "
            f"[{component.kind}.{component.name}], with --opframe-settings FILE, or in pyproject.toml, under "
            f"[tool.opframe.conformance.{component.kind}.{component.name}]"
        ) from error


def named(component: type[Component]) -> str:
    """How a component is called in what is said of it: `heat[dataset]`."""
    return f"{component.name}[{component.kind}]"


def folder_name(component: type[Component]) -> str:
    """A name for its own folder, whatever characters its name has."""
    return "".join(letter if letter.isalnum() else "_" for letter in f"{component.kind}_{component.name}")
