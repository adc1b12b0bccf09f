"""Settings of the kit are read as an experiment's are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from attrs import field, frozen
from attrs.validators import gt

from opframe.config.structure import make_converter, structure_table
from opframe.config.toml import load_tables
from opframe_registry import Location, PluginError, Sampler, Schedule, discover
from opframe_registry.testing.cases import made, read_settings


@frozen(kw_only=True)
class Part:
    """A table inside."""

    where: Location
    share: float = 0.5


@frozen(kw_only=True)
class Many(Sampler):
    """Has a key of every type."""

    name: ClassVar[str] = "many"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mini": {"count": 3},
        "huge": {"count": 10**9, "row": (1, "a")},
    }
    size: str | None = None
    count: int = field(default=1, validator=gt(0))
    rate: float = 1.0
    row: tuple[int, str] = (0, "")
    parts: tuple[Part, ...] = ()
    places: Mapping[str, Location] = field(factory=dict)
    either: Location | Literal["none"] | int = "none"
    inner: Schedule | None = None

    def build(self, populations: Any) -> Any:
        raise NotImplementedError


TABLE = """
size = "huge"
rate = 2
places = {a = "a.h5", b = "s3://bucket/b.h5"}
either = "none"
inner = {type = "step", drops = 3}
[[sampler.many.parts]]
where = "../x/{split}"
[[sampler.many.parts]]
where = "/y"
share = 1
"""


def test_they_are_what_an_experiment_makes_of_the_same_table(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[sampler.many]" + TABLE)
    found = made(Many, read_settings(path))
    table = load_tables(path)["sampler"]["many"]
    preset = Many.presets["huge"]
    assert found == structure_table(
        make_converter(discover()), Many, {"count": preset["count"], "row": [1, "a"], **table}
    )
    assert found.parts[0].where == str(tmp_path.parent / "x" / "{split}")  # type: ignore[attr-defined]


def test_without_a_table_it_is_the_small_preset() -> None:
    assert made(Many, {}) == Many(size="mini", count=3)
    assert made(Many, {"sampler": {"many": {}}}) == Many()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"cuont": 1}, "unknown key 'cuont'; did you mean 'count'?"),
        ({"count": "1"}, "count = '1' is not of the type of this key"),
        ({"count": 0}, "'count' must be > 0"),
        ({"row": [1]}, "row = [1] is not of the type"),
        ({"parts": [{"share": 0.1}]}, "'where'"),
        ({"either": 0.5}, "either = 0.5 is not of the type"),
    ],
)
def test_what_is_wrong_is_named(keys: Mapping[str, Any], said: str) -> None:
    with pytest.raises(PluginError) as refused:
        made(Many, {"sampler": {"many": keys}})
    assert said in str(refused.value)
    assert "[tool.opframe.conformance.sampler.many]" in str(refused.value)
