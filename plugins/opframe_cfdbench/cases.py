"""Finding CFDBench's cases, what each says of itself, and which are for training."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from opframe.files.location import each, explained, find_files, require_real
from opframe.readers.stores import Stores
from opframe_cfdbench import PROBLEMS
from opframe_cfdbench.boundary import NEEDED
from opframe_registry import DataError

if TYPE_CHECKING:
    from opframe_cfdbench import CFDBench

Published = Literal["train", "valid", "test"]

_CASE = re.compile(r"/case(\d+)/u\.npy$")


@frozen(kw_only=True)
class Case:
    """One simulation: its folder, the length and grid (Y, X) of its fields, and the numbers of its case.json."""

    url: str
    problem: str
    frames: int
    grid: tuple[int, int]
    parameters: Mapping[str, float]


def find_cases(component: CFDBench, part: Published, stores: Stores) -> list[Case]:
    """The cases of one part of the split, problem by problem. Raises DataError naming what is missing."""
    return [case for folder in _folders(component) for case in _cases(component, folder, part, stores)]


def _folders(component: CFDBench) -> list[str]:
    url = component.url.rstrip("/")
    if component.problems:
        return [f"{url}/{problem}" for problem in component.problems]
    if _problem(url) not in PROBLEMS:
        raise DataError(
            f"{component.title}: '{_problem(url)}' is no problem of CFDBench; expected a folder named "
            f"{', '.join(PROBLEMS)}; for the folder of several set 'problems'"
        )
    return [url]


def _problem(folder: str) -> str:
    return folder.rpartition("/")[2]


def _cases(component: CFDBench, folder: str, part: Published, stores: Stores) -> list[Case]:
    urls = [url for subset in component.subsets for url in _numbered(f"{folder}/{subset}")]
    if not urls:
        wanted = ", ".join(f"{subset}/case####/u.npy" for subset in component.subsets)
        raise DataError(f"{component.title}: {folder} holds no cases (or does not exist); expected {wanted}")
    problem = _problem(folder)
    if component.split_by == "case":
        chosen = [urls[index] for index in _part(problem, len(urls), part)]
        return each(lambda url: _open(url, problem, stores), chosen)
    groups: dict[tuple[tuple[str, float], ...], list[Case]] = {}
    for case in each(lambda url: _open(url, problem, stores), urls):
        groups.setdefault(tuple(sorted(case.parameters.items())), []).append(case)
    alike = list(groups.values())
    return [case for index in _part(problem, len(alike), part) for case in alike[index]]


def _numbered(folder: str) -> list[str]:
    """The folders case#### of a subset, in the order of their numbers."""
    found = {}
    for file in find_files(folder, "case*/u.npy"):
        if match := _CASE.search(file):
            found[int(match[1])] = file.removesuffix("/u.npy")
    return [found[number] for number in sorted(found)]


def _part(problem: str, count: int, part: Published) -> list[int]:
    """The numbers of one part: a tenth each for validation and testing, rounded as the loader of each problem does."""
    shuffled = list(range(count))
    random.Random(0).shuffle(shuffled)
    whole = round if problem == "cavity" else int
    train, valid = whole(0.8 * count), whole(0.1 * count)
    bounds = {"train": (0, train), "valid": (train, train + valid), "test": (train + valid, count)}
    start, stop = bounds[part]
    return shuffled[start:stop]


def _open(url: str, problem: str, stores: Stores) -> Case:
    array = stores.array(url, "u.npy")
    shape = tuple(array.shape)
    if len(shape) != 3 or 0 in shape:
        raise DataError(f"{url}/u.npy: has shape {shape}, expected (T, Y, X)")
    require_real(f"{url}/u.npy", "", array.dtype)
    parameters = _parameters(f"{url}/case.json", stores)
    if missing := [name for name in NEEDED[problem] if name not in parameters]:
        raise DataError(
            f"{url}/case.json: says nothing of {', '.join(missing)}, which a {problem} needs; "
            f"found: {', '.join(parameters) or 'nothing'}"
        )
    return Case(url=url, problem=problem, frames=shape[0], grid=(shape[1], shape[2]), parameters=parameters)


def _parameters(url: str, stores: Stores) -> dict[str, float]:
    with explained(url, "cannot be read as JSON"):
        found = json.loads(stores.content(url))
    if not isinstance(found, dict):
        raise DataError(f"{url}: expected a table of numbers, found {type(found).__name__}")
    return {name: float(value) for name, value in found.items() if type(value) in (int, float) and name != "case_no"}
