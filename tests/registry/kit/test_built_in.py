"""Every installed component keeps what its kind promises: the built-in ones, and whatever else is installed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opframe_registry import KINDS, Component, discover
from opframe_registry.testing import Case, NotApplicableError, Trial, promises_of
from opframe_registry.testing.cases import made, read_settings
from opframe_registry.testing.helper import Helper
from support import waves

SETTINGS = read_settings(Path(__file__).with_name("settings.toml"))
COMPONENTS = {f"{item.name}[{kind.kind}]": item for kind in KINDS for _, item in discover().offers(kind)}
PROMISES = [(name, promise) for name, item in COMPONENTS.items() for promise in promises_of(item.kind)]


@pytest.fixture(scope="module")
def helper() -> Iterator[Helper]:
    with Helper() as helper:
        yield helper


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory, helper: Helper) -> dict[str, Case]:
    """Each component with small settings, and data where it needs some."""
    folder = tmp_path_factory.mktemp("components")
    return {
        name: Case(component=made(item, with_files(item, folder)), folder=folder / name, helper=helper)
        for name, item in COMPONENTS.items()
    }


def with_files(component: type[Component], folder: Path) -> Mapping[str, Any]:
    """The settings, with those that name what only a test can make."""
    keys: dict[str, Any] = dict(SETTINGS.get(component.kind, {}).get(component.name, {}))
    if component.name == "array":
        np.save(folder / "array.npy", waves(4, 6, 8))
        keys |= {"url": str(folder / "array.npy"), "axes": "n x y t c", "test": 1}
    if component.name == "cfdbench":
        write_cavity(folder / "cavity")
        keys |= {"url": str(folder / "cavity"), "frames": 3}
    if component.name == "mlflow":
        keys |= {"uri": str(folder / "mlflow[logger]" / "mlruns")}
    return {component.kind: {component.name: keys}}


def write_cavity(folder: Path) -> None:
    """Ten cases of flow in a cavity, in CFDBench's layout."""
    for number in range(10):
        case = folder / "prop" / f"case{number:04d}"
        case.mkdir(parents=True)
        (case / "case.json").write_text(
            '{"vel_top": 2.0, "density": 1.0, "viscosity": 0.01, "height": 0.1, "width": 0.1}'
        )
        for channel, name in enumerate("uv"):
            np.save(case / f"{name}.npy", waves(10, 6, 8, channels=2)[number, ..., channel].transpose(2, 0, 1))


@pytest.mark.parametrize(("name", "promise"), PROMISES, ids=[f"{name}::{own.__name__}" for name, own in PROMISES])
def test_it_keeps_the_promise(name: str, promise: Any, cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    if name == "mlflow[logger]":
        pytest.importorskip("mlflow")
    if name == "wandb[logger]":
        pytest.importorskip("wandb")
    try:
        Trial(name=name, case=cases[name], promise=promise).check()
    except NotApplicableError as reason:
        pytest.skip(str(reason))
