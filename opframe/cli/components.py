"""`opframe list`, `show` and `schema`: what is installed, and which keys it has."""

from __future__ import annotations

import argparse
import json

from rich.console import Console
from rich.markup import escape

from opframe_registry import KINDS, Backbone, Catalog, Component, OpframeError, Plugin, did_you_mean, discover


def add_components(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `list`, `show` and `schema` to the command line."""
    commands.add_parser("list", help="all installed components").set_defaults(command=_list)
    show = commands.add_parser("show", help="the keys of a component")
    show.add_argument("name", help="a name from 'opframe list'")
    show.set_defaults(command=_show)
    schema = commands.add_parser("schema", help="JSON Schema of configs, for editors")
    schema.add_argument("--markdown", action="store_true", help="the same as a page to read")
    schema.set_defaults(command=_schema)


def _list(_: argparse.Namespace) -> int:
    from opframe_registry.component import summary

    catalog, lines = discover(), []
    for kind in KINDS:
        lines.append(f"[bold]{kind.kind}[/bold]")
        for plugin, item in catalog.offers(kind):
            lines.append(f"  {item.name:22} {escape(summary(item))} [dim]({plugin.distribution})[/dim]")
    lines += [
        f"[red]plugin {plugin.name} of {plugin.distribution}: {escape(plugin.error)}[/red]"
        for plugin in catalog.plugins
        if plugin.error
    ]
    Console(highlight=False).print("\n".join(lines), soft_wrap=True)  # at once, which takes half the time
    return 0


def _show(arguments: argparse.Namespace) -> int:
    catalog, console = discover(), Console()
    found = _named(catalog, arguments.name)
    if not found:
        names = [name for kind in KINDS for name in catalog.names(kind)]
        near = did_you_mean(arguments.name, names)
        raise OpframeError(f"unknown component '{arguments.name}'{near}; installed: {', '.join(names)}")
    for plugin, item in found:
        _show_component(console, plugin, item)
    return 0


def _named(catalog: Catalog, name: str) -> list[tuple[Plugin, type[Component]]]:
    return [pair for kind in KINDS for pair in catalog.offers(kind) if pair[1].name == name]


def _show_component(console: Console, plugin: Plugin, item: type[Component]) -> None:
    from rich.table import Table

    from opframe.config.describe import default_in_words, keys, paragraphs

    console.print(f"[bold]{item.kind} {item.name}[/bold] from {plugin.distribution} (plugin {plugin.name})")
    console.print(escape(paragraphs(item)), "\n")
    table = Table(title="keys", title_justify="left")
    for heading in ("key", "type", "default", "help"):
        table.add_column(heading, overflow="fold")
    for key in keys(item):
        table.add_row(key.name, key.type, key.default, key.help)
    console.print(table)
    for size, settings in item.presets.items():
        words = ", ".join(f"{key} = {default_in_words(value)}" for key, value in settings.items())
        console.print(f'size = "{size}": {words}', markup=False)
    if issubclass(item, Backbone):
        _show_network(console, item)


def _show_network(console: Console, backbone: type[Backbone]) -> None:
    from opframe.weights.model_size import EXAMPLE, in_words, size_table

    console.print(f"parts, for [init] and [[parameters]]: {', '.join(backbone.parts) or 'none'}", "\n", markup=False)
    console.print(f"parameters for {in_words(EXAMPLE)}")
    console.print(size_table(backbone))


def _schema(arguments: argparse.Namespace) -> int:
    from opframe.config.describe import markdown
    from opframe.config.schema import json_schema

    catalog = discover()
    print(markdown(catalog) if arguments.markdown else json.dumps(json_schema(catalog), indent=2))
    return 0
