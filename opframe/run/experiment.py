"""Reading an experiment file, and writing the resolved experiment."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from attrs import evolve
from cattrs import Converter

from opframe.config.defaults import completed, outdated
from opframe.config.settings import Experiment
from opframe.config.structure import Problem, ProblemsError, make_converter, to_tables
from opframe.config.toml import Overrides, load_tables, merge
from opframe_registry import Catalog, ConfigError, Location

_log = logging.getLogger(__name__)


def load_experiment(source: Path | Mapping[str, Any], catalog: Catalog, overrides: Overrides = ()) -> Experiment:
    """Read, check and resolve an experiment file, or its tables. Raises ConfigError listing every mistake."""
    converter = make_converter(catalog)
    written = load_tables(source, overrides)
    path = source if isinstance(source, Path) else "the experiment"
    if "RANK" not in os.environ:  # who has started several processes has read the file before
        for line in outdated(written):
            _log.warning("%s: %s", path, line)
    try:
        tables = completed(written)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    tables = _inherit_backbone(tables, catalog, converter)
    try:
        return placed(converter.structure(tables, Experiment))
    except ProblemsError as error:
        raise ConfigError(_report(path, error.problems)) from None


def placed(experiment: Experiment) -> Experiment:
    """With the run folder and the cache where they are from the working directory, by default too.

    The resolved experiment lies in the run folder, and is read there.
    """
    folder, cache = (_absolute(place) for place in (experiment.run.folder, experiment.data.cache))
    return evolve(experiment, run=evolve(experiment.run, folder=folder), data=evolve(experiment.data, cache=cache))


def _absolute(place: Location) -> Location:
    return place if "://" in place else Location(os.path.abspath(place))


def _inherit_backbone(tables: dict[str, Any], catalog: Catalog, converter: Converter) -> dict[str, Any]:
    """A backbone without a type is that of the weights to begin with, whose keys single ones may override."""
    init, backbone = tables.get("init"), tables.get("backbone", {})
    named = isinstance(init, dict) and isinstance(init.get("from"), str)
    if not named or not isinstance(backbone, dict) or "type" in backbone:
        return tables
    from opframe.weights.pretrained import read_header  # torch is needed only here

    header = read_header(converter.structure(tables["init"]["from"], Location), catalog)
    return {**tables, "backbone": merge(to_tables(header.backbone), backbone)}


def _report(path: Path | str, problems: Sequence[Problem]) -> str:
    lines = [
        f"  {problem.place}: {problem.message}" if problem.place else f"  {problem.message}" for problem in problems
    ]
    return "\n".join([f"{path} is not a valid experiment:", *lines])


def to_toml(experiment: Experiment) -> str:
    """The resolved experiment, ready to be run again."""
    return tomli_w.dumps(to_tables(experiment))
