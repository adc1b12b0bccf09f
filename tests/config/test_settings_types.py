"""One walk over the annotations of settings: what a third party's fields may be, read, described and refused alike."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from opframe.cli.main import main
from opframe.config.schema import json_schema
from opframe.config.structure import make_converter, to_tables
from opframe.run.experiment import load_experiment, to_toml
from opframe_registry import Catalog, ConfigError, discover
from opframe_registry.keys import SUPPORTED, holds, key_type
from plugin_support import install
from support import EXPERIMENT

REACTION = '''
from collections.abc import Mapping
from typing import ClassVar, Literal, NewType
from attrs import field, frozen
from attrs.validators import gt
from opframe_registry import Dataset, Location, hookimpl

Rate = NewType("Rate", float)

@frozen(kw_only=True)
class Region:
    """Part of the domain."""
    corner: tuple[float, float] = (0.0, 0.0)
    size: float = field(validator=gt(0.0))

@frozen(kw_only=True)
class Reaction(Dataset):
    """Reacts."""
    name: ClassVar[str] = "reaction"
    coefficients: dict[str, float] = field(factory=dict, metadata={"help": "by species"})
    orders: Mapping[str, tuple[int, ...]] | None = None
    regions: Mapping[str, Region] = field(factory=dict)
    region: Region | None = None
    species: tuple[str, ...] | Literal["all"] = "all"
    size: int | Literal["native"] = "native"
    rate: Rate = Rate(1.0)
    tables: tuple[Location, ...] = ()
    def build(self, split, cache):
        raise NotImplementedError

@hookimpl
def opframe_components():
    return [Reaction]
'''
TABLE = """
[[datasets]]
type = "reaction"
coefficients = { alpha = 1, beta = 2.5, type = 3 }
orders.alpha = [1, 2]
regions.left = { corner = [0, 1], size = 2 }
region.size = 3
species = ["a", "b"]
size = 64
tables = ["rates.csv"]
"""
FIRST = EXPERIMENT.index("[[datasets]]")


@pytest.fixture
def reaction(site: Path) -> Path:
    """A config that uses a plugin with every type of field beside those of the built-in ones."""
    install(site, "reaction-data", REACTION)
    path = site / "reaction.toml"
    path.write_text(EXPERIMENT[:FIRST] + TABLE + EXPERIMENT[EXPERIMENT.index("[sampler]") :])
    return path


def test_fields_of_every_supported_type_are_read_kept_and_read_again(reaction: Path) -> None:
    catalog = discover()
    loaded = load_experiment(reaction, catalog, ["datasets.0.coefficients.beta=7", "data.cache=cache"])
    dataset: Any = loaded.datasets[0]
    assert dataset.coefficients == {"alpha": 1.0, "beta": 7.0, "type": 3.0}
    assert type(dataset.coefficients["alpha"]) is float
    assert dataset.orders == {"alpha": (1, 2)}
    assert (dataset.regions["left"].corner, dataset.region.size) == ((0.0, 1.0), 3.0)
    assert (dataset.species, dataset.size, dataset.tables) == (("a", "b"), 64, (str(reaction.parent / "rates.csv"),))
    (reaction.parent / "again.toml").write_text(to_toml(loaded))
    assert load_experiment(reaction.parent / "again.toml", catalog) == loaded


def test_a_mapping_of_an_included_file_is_laid_over_key_by_key(reaction: Path) -> None:
    above = reaction.with_name("above.toml")
    above.write_text('include = "reaction.toml"\n[datasets.reaction.coefficients]\nbeta = 9\ntype = 4\n')
    dataset: Any = load_experiment(above, discover()).datasets[0]
    assert dataset.coefficients == {"alpha": 1.0, "beta": 9.0, "type": 4.0}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ('coefficients.alpha="x"', "datasets[0].coefficients.alpha: expected float, got 'x'"),
        ("coefficients=3", "datasets[0].coefficients: expected a table, got 3"),
        ("orders.alpha=[1, 2.5]", "datasets[0].orders.alpha[1]: expected int, got 2.5"),
        ("regions.left.size=-1", "datasets[0].regions.left: 'size' must be > 0.0: -1.0"),
        ("regions.left.sise=1", "datasets[0].regions.left: unknown key 'sise'; did you mean 'size'?"),
        ("region.corner=[1]", "datasets[0].region.corner: expected 2 values, got 1"),
        ("species=3", 'datasets[0].species: expected list of string or "all", got 3'),
        ("species=some", "datasets[0].species: expected one of 'all', got 'some'"),
        ("size=true", 'datasets[0].size: expected integer or "native", got True'),
        ("rate=fast", "datasets[0].rate: expected float, got 'fast'"),
    ],
)
def test_a_wrong_value_inside_is_reported_with_its_place(reaction: Path, override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_experiment(reaction, discover(), [f"datasets.0.{override}"])
    assert f"  {expected}" in [line[: len(expected) + 2] for line in str(error.value).splitlines()]


def test_schema_and_words_say_the_same_types(reaction: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads(json.dumps(json_schema(discover())))
    offered = schema["$defs"]["dataset"]["oneOf"]
    keys = next(item for item in offered if item["properties"]["type"]["const"] == "reaction")["properties"]
    assert keys["coefficients"]["additionalProperties"] == {"type": "number"}
    assert keys["orders"]["additionalProperties"] == {"type": "array", "items": {"type": "integer"}}
    assert keys["regions"]["additionalProperties"]["required"] == ["size"]
    assert keys["region"]["properties"]["corner"]["prefixItems"] == [{"type": "number"}] * 2
    assert keys["size"]["anyOf"] == [{"type": "integer"}, {"enum": ["native"]}]
    assert keys["tables"]["items"] == {"type": "string"}
    with pytest.raises(SystemExit) as ended:
        main(["schema", "--markdown"])
    assert ended.value.code == 0
    page = capsys.readouterr().out
    assert "| `coefficients` | table of number | a table of defaults | by species |" in page
    assert "| `orders` | table of list of integer | not set |" in page
    assert '| `species` | list of string or "all" | "all" |' in page


NOT_IN_TOML = {
    "Path": ("where: Path", "Odd.where: the type Path is not supported; write Location"),
    "list": ("sizes: list[int]", "Odd.sizes: the type list[int] is not supported; write tuple[X, ...]"),
    "set": ("sizes: frozenset[int]", "Odd.sizes: the type frozenset[int] is not supported; write tuple[X, ...]"),
    "complex": ("shift: complex", f"Odd.shift: the type complex is not supported; supported are {SUPPORTED}"),
    "Any": ("extra: Any", "Any is not supported; supported are int, float, bool"),
    "enum": ("colour: Colour", "Odd.colour: the type Colour is not supported; write Literal[...]"),
    "int-keys": ("table: dict[int, float]", "Odd.table: the type dict[int, float] is not supported"),
    "inside": ("table: dict[str, tuple[bytes, ...]]", "Odd.table: the type bytes is not supported"),
    "nested": ("inner: Inner", "Inner.where: the type Path is not supported"),
    "two-tables": ("table: dict[str, int] | dict[str, str]", "Odd.table: TOML cannot tell apart the types of"),
    "recursive": ("node: Node", "Node holds itself, by way of Node"),
    "not-imported": ("lost: Missing", "its annotations cannot be read (NameError: name 'Missing' is not defined)"),
    "default": ("rate: float = field(default=b'x')", "Odd.rate: the default b'x' is not of the field's type"),
    "type-key": ("type: str = 'x'", "Odd has a field 'type', the key that names the component"),
}
ODD = '''
from __future__ import annotations
import enum
from pathlib import Path
from typing import Any, ClassVar
from attrs import field, frozen
from opframe_registry import Sampler, hookimpl

class Colour(enum.Enum):
    RED = "red"

@frozen(kw_only=True)
class Inner:
    where: Path

@frozen(kw_only=True)
class Node:
    children: tuple[Node, ...] = ()

@frozen(kw_only=True)
class Odd(Sampler):
    """Draws oddly."""
    name: ClassVar[str] = "odd"
    FIELD
    def build(self, populations):
        raise NotImplementedError

@hookimpl
def opframe_components():
    return [Odd]
'''


@pytest.mark.parametrize("fault", NOT_IN_TOML)
def test_a_field_that_toml_cannot_hold_takes_its_plugin_out_and_nobody_else(
    site: Path, experiment: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    field, expected = NOT_IN_TOML[fault]
    install(site, f"odd-{fault}", ODD.replace("FIELD", field))
    catalog = discover()
    assert expected in str(next(plugin for plugin in catalog.plugins if plugin.error).error)
    assert load_experiment(experiment, catalog).sampler.name == "balanced"
    for words in (["list"], ["show", "balanced"], ["schema"], ["schema", "--markdown"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
    offered = json_schema(catalog)["$defs"]["sampler"]["oneOf"]
    assert "odd" not in {item["properties"]["type"]["const"] for item in offered}
    with pytest.raises(SystemExit) as ended:
        main(["check", str(experiment), "--set", "sampler.type=odd"])
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


NUMBERS = st.floats(allow_nan=False) | st.integers(-(2**60), 2**60)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=5), NUMBERS))
def test_any_mapping_of_numbers_survives_toml(values: dict[str, float]) -> None:
    table = tomllib.loads(tomli_w.dumps({"values": to_tables(values)}))["values"]
    read = make_converter(Catalog(())).structure(table, dict[str, float])
    assert read == {key: float(value) for key, value in values.items()}
    assert holds(key_type(dict[str, float]), read)
