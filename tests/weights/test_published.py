"""Published checkpoints become weights folders: complete, and without anything in them being run."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import fsspec
import pytest
import torch
from attrs import evolve, frozen
from safetensors.torch import load_file
from torch import Tensor, nn

from opframe import load_pretrained
from opframe.weights.convert import ImportOptions, import_file
from opframe.weights.location import WeightsError
from opframe.weights.pretrained import read_header
from opframe_registry import Backbone, Catalog, ConfigError, Fields, Plugin, Published
from support import GOLDEN
from weights_support import FIELDS, FILES, Call, command_line

CASES = {"dpot": ("dpot_all_modes", ()), "moepot": ("moepot", ("*.temperature=2.0",))}


@pytest.fixture
def opframe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line."""
    return command_line(monkeypatch, capsys)


class Creates:
    """Unpickled as usual, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def relative(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", FILES)
def test_an_imported_file_computes_what_the_published_network_computes(
    name: str, opframe: Call, tmp_path: Path
) -> None:
    case, fills = CASES[name]
    words = [word for option in fills for word in ("--fill", option)]
    done = opframe("weights", "import", FILES[name], tmp_path / "out", "--channels", "u,v,p", *words)
    assert done.code == 0, done.errors
    golden = load_file(GOLDEN / f"{case}.safetensors")
    network = load_pretrained(tmp_path / "out")
    with torch.no_grad():
        result = network(golden["input"].permute(0, 3, 4, 1, 2))
    assert relative(result.field, golden["output"].permute(0, 3, 4, 1, 2)) <= 1e-5
    assert relative(result.class_logits, golden["class_logits"]) <= 1e-5


def test_the_report_says_what_was_mapped_assumed_and_left_out(opframe: Call, tmp_path: Path) -> None:
    done = opframe("weights", "import", FILES["moepot"], tmp_path / "out")
    assert done.code == 0, done.errors
    shown = opframe("weights", "show", tmp_path / "out")
    for text in (done.output, shown.output):
        assert "moepot" in text
        assert "assumed: blocks.0.MoE.gating.temperature: " in text
        assert "left out: optimizer" in text
        assert hashlib.sha256(FILES["moepot"].read_bytes()).hexdigest() in text
    tensors = len(torch.load(FILES["moepot"], weights_only=False)["model"])
    assert f"the file's {tensors} tensors" in done.output


@pytest.mark.parametrize("form", ["bare", "wrapped", "bare and wrapped", "legacy"])
def test_every_form_of_a_published_file_gives_the_same_weights(form: str, catalog: Catalog, tmp_path: Path) -> None:
    content = torch.load(FILES["dpot"], weights_only=False)
    model = {name.removeprefix("module."): weight for name, weight in content["model"].items()}
    if "wrapped" in form:
        model = {f"module.{name}": weight for name, weight in model.items()}
    kept = model if "bare" in form else {"args": vars(content["args"]), "model": model}
    torch.save(kept, tmp_path / "file.pth", _use_new_zipfile_serialization=form != "legacy")
    import_file(str(FILES["dpot"]), tmp_path / "reference", ImportOptions(), catalog)
    import_file(str(tmp_path / "file.pth"), tmp_path / "out", ImportOptions(), catalog)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("reference", "out"))
    assert one.keys() == two.keys()
    assert all(torch.equal(weight, two[name]) for name, weight in one.items())


def test_a_published_file_can_be_anywhere_fsspec_reads(catalog: Catalog, tmp_path: Path) -> None:
    with fsspec.open("memory://zoo/dpot.pth", "wb") as file:
        file.write(FILES["dpot"].read_bytes())
    import_file("memory://zoo/dpot.pth", tmp_path / "out", ImportOptions(), catalog)
    assert read_header(tmp_path / "out", catalog).origin.source == "memory://zoo/dpot.pth"
    with pytest.raises(WeightsError, match=r"memory://zoo/other.pth: no such file"):
        import_file("memory://zoo/other.pth", tmp_path / "other", ImportOptions(), catalog)


def test_a_missing_file_is_not_looked_for_on_the_hub(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"^models/dpot.pth: no such file"):
        import_file("models/dpot.pth", tmp_path / "out", ImportOptions(), catalog)


@pytest.mark.parametrize("place", ["model", "args", "optimizer", "model.weight"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_wants_to_run_something_is_refused_by_name(
    place: str, legacy: bool, catalog: Catalog, tmp_path: Path
) -> None:
    content = torch.load(FILES["dpot"], weights_only=False)
    evil = Creates(tmp_path / "harm")
    if place == "model.weight":
        content["model"]["weight"] = evil
    else:
        content[place] = evil
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"evil.pth: refused, .* asks for \w+\.system"):
        import_file(str(tmp_path / "evil.pth"), tmp_path / "out", ImportOptions(), catalog)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.pth"]
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "harm").exists()  # the file is what it is feared to be


def test_no_class_but_the_arguments_own_is_read(catalog: Catalog, tmp_path: Path) -> None:
    torch.save({"model": {"weight": torch.zeros(2)}, "args": Path("somewhere")}, tmp_path / "file.pth")
    with pytest.raises(WeightsError, match=r"refused, .* asks for pathlib\.\w+"):
        import_file(str(tmp_path / "file.pth"), tmp_path / "out", ImportOptions(), catalog)


DAMAGED = {
    "half": (FILES["dpot"].read_bytes()[:70_000], "truncated"),
    "empty": (b"", "not a file that torch.save wrote"),
    "text": (b"<html>404</html>", "not a file that torch.save wrote"),
    "pickle": (pickle.dumps({"a": 1}, protocol=2), "truncated"),
    "zip": (b"PK\x03\x04 and nothing else", "truncated"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_file_that_is_damaged_or_of_another_kind_is_named(kind: str, catalog: Catalog, tmp_path: Path) -> None:
    content, words = DAMAGED[kind]
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=rf"file.pth: .*{words}"):
        import_file(str(tmp_path / "file.pth"), tmp_path / "out", ImportOptions(), catalog)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "no dictionary"),
        ({"epoch": 3, "net": {}}, "it holds epoch, net"),
        ({"model": {"a": torch.zeros(1), "b": 2}}, "it holds model"),
        ({"weight": torch.zeros(2), "bias": torch.zeros(2)}, r"asked: .*dpot.*; its tensors: weight, bias"),
    ],
)
def test_a_file_without_a_known_network_is_refused_with_what_it_holds(
    content: Any, words: str, catalog: Catalog, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(WeightsError, match=words):
        import_file(str(tmp_path / "file.pth"), tmp_path / "out", ImportOptions(), catalog)


def test_what_was_assumed_can_be_set_and_nothing_else(catalog: Catalog, tmp_path: Path) -> None:
    import_file(str(FILES["moepot"]), tmp_path / "plain", ImportOptions(), catalog)
    import_file(str(FILES["moepot"]), tmp_path / "filled", ImportOptions(fills=("*.temperature=2.0",)), catalog)
    plain, filled = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "filled"))
    changed = {name: (float(plain[name]), float(filled[name])) for name in plain if not plain[name].equal(filled[name])}
    assert changed == {"blocks.0.MoE.gating.temperature": (0.5, 2.0)}
    assert any("2, as asked" in note for note in read_header(tmp_path / "filled", catalog).origin.notes)
    for option, words in (
        ("*.temprature=2", r"matches no tensor that was assumed.*those are: .*blocks\.0\.MoE\.gating\.temperature"),
        ("pos_embed=0", "matches no tensor"),
        ("modes=16", "matches no tensor"),
        ("*.temperature=warm", r"expected PATTERN=NUMBER"),
        ("2.0", r"expected PATTERN=NUMBER"),
    ):
        with pytest.raises(ConfigError, match=words):
            import_file(str(FILES["moepot"]), tmp_path / "out", ImportOptions(fills=(option,)), catalog)
    assert not (tmp_path / "out").exists()


def test_channels_are_named_one_by_one(catalog: Catalog, tmp_path: Path) -> None:
    import_file(str(FILES["dpot"]), tmp_path / "out", ImportOptions(channels=("u", "v", "p")), catalog)
    assert read_header(tmp_path / "out", catalog).fields.channels == ("u", "v", "p")
    with pytest.raises(ConfigError, match="2 names for 3 channels"):
        import_file(str(FILES["dpot"]), tmp_path / "other", ImportOptions(channels=("u", "v")), catalog)


# Plugins that answer wrongly


def claimed(**changes: Any) -> type[Backbone]:
    """A backbone that takes every file for its own, and answers with a network of one layer, changed as asked."""

    @final
    @frozen(kw_only=True)
    class Claims(Backbone):
        """Claims every file."""

        name: ClassVar[str] = "claims"

        def build(self, fields: Fields) -> nn.Module:
            return nn.Linear(2, 2)

        @classmethod
        def from_published(cls, arguments: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Published:
            layer = nn.Linear(2, 2, dtype=torch.float64).state_dict()
            answer = Published(backbone=cls(), fields=FIELDS, weights=layer, mapped=dict.fromkeys(weights, "taken"))
            return evolve(answer, **changes)

    return Claims


def offered(*items: type[Backbone]) -> Catalog:
    return Catalog((Plugin(name="claims", distribution="tests", components=items),))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mapped": {}}, "does not say what becomes of blocks.0"),
        ({"weights": {"weight": torch.zeros(2, 2)}}, "missing: bias"),
        ({"weights": {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}}, r"weight has the shape \(2, 3\)"),
        (
            {"weights": {"weight": torch.zeros(2, 2), "bias": torch.zeros(2), "more": torch.zeros(1)}},
            "not part of the network: more",
        ),
    ],
)
def test_an_import_that_is_not_complete_is_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=words):
        import_file(str(FILES["dpot"]), tmp_path / "out", ImportOptions(), offered(claimed(**changes)))
    assert not (tmp_path / "out").exists()


def test_imported_weights_have_the_precision_of_the_network(tmp_path: Path) -> None:
    import_file(str(FILES["dpot"]), tmp_path / "out", ImportOptions(), offered(claimed()))
    assert {weight.dtype for weight in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float32}


def test_a_file_that_two_backbones_take_for_their_own_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    both = Catalog((*catalog.plugins, *offered(claimed()).plugins))
    with pytest.raises(WeightsError, match=r"dpot and claims|claims and dpot"):
        import_file(str(FILES["dpot"]), tmp_path / "out", ImportOptions(), both)
