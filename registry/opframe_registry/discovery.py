"""Finding the installed plugins. What is wrong with one is data, and fatal only when it is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar, cast

import attrs
import pluggy
from attrs import frozen

from opframe_registry import hooks
from opframe_registry.component import Component
from opframe_registry.components import KINDS
from opframe_registry.errors import PluginError
from opframe_registry.keys import keys_of, unsupported

API = "opframe.v1"
"""The entry-point group. Its number is the version of the contract, so it is known before plugin code runs."""

AnyComponent = TypeVar("AnyComponent", bound=Component)


@frozen(kw_only=True)
class Plugin:
    """One entry point: what it offers, or why it offers nothing."""

    name: str
    distribution: str
    components: tuple[type[Component], ...] = ()
    error: str | None = None


@frozen
class Catalog:
    """All installed plugins, and look-up of components by kind and name."""

    plugins: tuple[Plugin, ...]

    def offers(self, kind: type[Component]) -> list[tuple[Plugin, type[Component]]]:
        """Every component of a kind with the plugin that offers it, sorted by name."""
        found = [(plugin, item) for plugin in self.plugins for item in plugin.components if issubclass(item, kind)]
        return sorted(found, key=lambda pair: (pair[1].name, pair[0].distribution))

    def names(self, kind: type[Component]) -> list[str]:
        """The names of a kind, without repetition."""
        return sorted({item.name for _, item in self.offers(kind)})

    def get(self, kind: type[AnyComponent], name: str) -> type[AnyComponent]:
        """The component of this kind and name; `distribution:name` chooses between two of one name.

        Raises PluginError when there is none or more than one, and says why.
        """
        distribution, _, short = name.rpartition(":")
        found = [
            (plugin, item)
            for plugin, item in self.offers(kind)
            if item.name == short and distribution in ("", plugin.distribution)
        ]
        if len(found) == 1:
            return cast("type[AnyComponent]", found[0][1])
        raise PluginError(self._why(kind, name, short, [plugin for plugin, _ in found]))

    def _why(self, kind: type[Component], name: str, short: str, found: Sequence[Plugin]) -> str:
        if found:
            choices = " or ".join(f"'{plugin.distribution}:{short}'" for plugin in found)
            owners = " and ".join(f"{plugin.distribution} (plugin {plugin.name})" for plugin in found)
            return f"{kind.kind} '{short}' is offered by {owners}; choose with {choices}"
        message = f"unknown {kind.kind} '{name}'{did_you_mean(short, self.names(kind))}"
        message += f"; installed: {', '.join(self.names(kind)) or 'none'}"
        broken = [f"plugin {item.name} of {item.distribution}: {item.error}" for item in self.plugins if item.error]
        return message + "".join(f"\n    could not be loaded: {line}" for line in broken)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'width'?`, or nothing when no known word is near."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def discover() -> Catalog:
    """Load every installed plugin. Never raises for a plugin's own faults."""
    found: list[Plugin] = []
    installed = entry_points()
    names: dict[int, str] = {}  # by object: a distribution reads its metadata anew whenever it is asked for its name
    for group in sorted(group for group in installed.groups if group.startswith("opframe.v")):
        for point in installed.select(group=group):
            if id(point.dist) not in names:
                names[id(point.dist)] = point.dist.name if point.dist else "unknown"
            found.append(_load(point, group, names[id(point.dist)]))
    return Catalog(tuple(sorted(found, key=lambda plugin: (plugin.distribution, plugin.name))))


def _load(point: EntryPoint, group: str, distribution: str) -> Plugin:
    if group != API:
        wrong = f"is made for {group}, this opframe speaks {API}; install a matching version of {distribution}"
        return Plugin(name=point.name, distribution=distribution, error=wrong)
    try:
        components = _components(point.load())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may fail in any way, exit included; the host must go on without it
        message = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
        return Plugin(name=point.name, distribution=distribution, error=message)
    return Plugin(name=point.name, distribution=distribution, components=components)


def _components(module: Any) -> tuple[type[Component], ...]:
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    manager.register(module)
    manager.check_pending()
    offered = [item for items in manager.hook.opframe_components() for item in _listed(items)]
    if not offered:
        raise PluginError("offers no components; implement the hook opframe_components with @hookimpl")
    for item in offered:
        if fault := _fault(item) or _type_fault(item) or _preset_fault(item):
            raise PluginError(fault)
    names = [f"{item.kind} '{item.name}'" for item in offered]
    if twice := [name for name in names if names.count(name) > 1]:
        raise PluginError(f"offers {twice[0]} twice; give each component of a kind its own name")
    return tuple(offered)


def _listed(items: Any) -> Sequence[Any]:
    """What a hook returned. Raises PluginError unless it is a list or tuple."""
    if not isinstance(items, list | tuple):
        raise PluginError(f"opframe_components returned {items!r}; expected a list of component classes")
    return items


def _fault(item: Any) -> str | None:
    """What keeps an object from being a component, or None."""
    if not (inspect.isclass(item) and issubclass(item, KINDS)) or item in KINDS:
        return f"{item!r} is not a class derived from {', '.join(kind.__name__ for kind in KINDS)}"
    if inspect.isabstract(item):
        return f"{item.__name__} is abstract; it lacks {', '.join(sorted(item.__abstractmethods__))}"
    if "__attrs_attrs__" not in vars(item):
        return f"{item.__name__} is not an attrs class; decorate it with @attrs.frozen(kw_only=True)"
    if not all(field.kw_only for field in attrs.fields(item)):
        return f"{item.__name__} takes settings by position; decorate it with @attrs.frozen(kw_only=True)"
    if not isinstance(vars(item).get("name"), str) or not item.name:
        return f'{item.__name__} has no name; add `name: ClassVar[str] = "..."`'
    return None


def _type_fault(item: type[Component]) -> str | None:
    """What keeps a component's fields from being keys in TOML, or None."""
    if "type" in attrs.fields_dict(item):
        return f"{item.__name__} has a field 'type', the key that names the component; call it otherwise"
    return unsupported(item)


def _preset_fault(item: type[Component]) -> str | None:
    """What keeps a component's presets from being laid under a person's keys, or None."""
    if not isinstance(item.presets, Mapping):
        return f"{item.__name__}.presets is {item.presets!r}; expected a mapping from sizes to their keys"
    known = {key.name for key in keys_of(item)} if item.presets else set()
    for size, settings in item.presets.items():
        if not isinstance(size, str) or not isinstance(settings, Mapping):
            return f"{item.__name__}.presets[{size!r}] is {settings!r}; expected a mapping from keys to values"
        for key in settings:
            if key not in known:
                return f"{item.__name__}.presets['{size}'] sets '{key}', which is no key{did_you_mean(str(key), known)}"
    return None
