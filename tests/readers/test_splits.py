"""Training and test data are told apart by one rule, whatever the files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layout_support import LAYOUTS
from opframe.files.stamps import stamps
from opframe.readers.arrays import Part
from opframe.readers.splits import Share, chosen, share
from opframe_registry import Catalog, DataError, Dataset, Split
from servers import FileServer
from support import waves, write_prepared
from tests.plugins.test_pdearena import write_smoke


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=6), st.data())
def test_a_share_is_the_same_trajectories_however_they_lie_in_files(
    sizes: list[tuple[int, int]], data: st.DataObject
) -> None:
    parts = [Part(url=str(index), count=count, first=first) for index, (count, first) in enumerate(sizes)]
    everything = [(part.url, part.first + number) for part in parts for number in range(part.count)]
    first = data.draw(st.integers(0, len(everything) - 1))
    count = data.draw(st.integers(1, len(everything) - first))
    kept = chosen(parts, Share(first=first, count=count, words=""))
    assert [(part.url, part.first + number) for part in kept for number in range(part.count)] == everything[first:][
        :count
    ]


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [(None, 3, (0, 7, 7, 3)), (6, None, (0, 6, 6, 4)), (5, 2, (0, 5, 8, 2)), (7, 3, (0, 7, 7, 3))],
)
def test_what_is_not_set_is_the_rest(
    catalog: Catalog, train: int | None, test: int | None, expected: tuple[int, ...]
) -> None:
    component = catalog.get(Dataset, "prepared")(url="data.h5", train=train, test=test)
    one, other = (share(component, split, "data.h5", 10, separate=False) for split in ("train", "test"))
    assert (one.first, one.count, other.first, other.count) == expected


def test_a_folder_of_trajectories_is_not_trained_and_evaluated_on_the_same_ones(
    catalog: Catalog, tmp_path: Path
) -> None:
    data = waves(5, 3, 4)
    for index in range(5):
        write_prepared(tmp_path / f"data_{index}.hdf5", data[index])
    component = catalog.get(Dataset, "prepared")(url=str(tmp_path), test=2)
    train, test = component.build("train", Path()), component.build("test", Path())
    assert [train.metadata.split, test.metadata.split] == [
        "the first 3 of 5 trajectories",
        "the last 2 of 5 trajectories",
    ]
    assert (test.read(0, 0, 3)[:, 0] == data[3, ..., 0].transpose(2, 0, 1)).all()
    with pytest.raises(DataError, match="holds training and test data; set 'test'"):
        catalog.get(Dataset, "prepared")(url=str(tmp_path)).build("train", Path())


@pytest.mark.parametrize(
    ("split", "train", "test", "have", "expected"),
    [
        ("train", None, 6, 6, "test = 6 leaves nothing for training; d.h5 holds 6 trajectories"),
        ("test", 6, None, 6, "train = 6 leaves nothing for evaluation; d.h5 holds 6 trajectories"),
        ("train", None, 9, 6, "test = 9, but d.h5 holds 6 trajectories"),
        ("train", 9, 2, 6, "train = 9, but d.h5 holds 6 trajectories"),
        ("train", 4, 3, 6, "train = 4 and test = 3 overlap; d.h5 holds 6 trajectories"),
        ("train", 4, 2, 0, "d.h5 holds no trajectories"),
        ("test", None, None, 0, "d.h5 holds no trajectories"),
        ("test", None, 2, 1, "test = 2, but d.h5 holds 1 trajectory"),
    ],
)
def test_what_is_complained_of_is_what_was_set(
    catalog: Catalog, split: Split, train: int | None, test: int | None, have: int, expected: str
) -> None:
    component = catalog.get(Dataset, "prepared")(url="d.h5", train=train, test=test)
    with pytest.raises(DataError) as error:
        share(component, split, "d.h5", have, separate=False)
    assert str(error.value) == f"prepared: {expected}"


@pytest.mark.parametrize("word", ["validation", "valid"])
@pytest.mark.parametrize("type_", ["prepared", "array"])
def test_a_file_for_validation_beside_the_others_is_the_validation_split(
    catalog: Catalog, tmp_path: Path, type_: str, word: str
) -> None:
    data = waves(9, 3, 4)
    keys = {"axes": "n x y t c", "path": "data"} if type_ == "array" else {}
    component = catalog.get(Dataset, type_)(url=str(tmp_path / "{split}.h5"), **keys)
    for first, name in enumerate(("train", "test")):
        write_prepared(tmp_path / f"{name}.h5", data[3 * first : 3 * first + 3])
    assert component.splits() == ("train", "test")
    write_prepared(tmp_path / f"{word}.h5", data[6:])
    assert component.splits() == ("train", "validation", "test")
    found = component.build("validation", Path())
    assert (found.read(2, 0, 3)[:, 0] == data[8, ..., 0].transpose(2, 0, 1)).all()
    assert found.metadata.split == "all 3 trajectories of the files for validation"
    fewer = catalog.get(Dataset, type_)(url=str(tmp_path / "{split}.h5"), validation=2, **keys)
    assert fewer.build("validation", Path()).metadata.trajectories == 2
    assert str(tmp_path / f"{word}.h5") in component.identity(stamps).files


def test_what_is_trained_on_or_tested_is_not_the_validation_split(catalog: Catalog, tmp_path: Path) -> None:
    three, two = ("train", "validation", "test"), ("train", "test")
    for number, split in enumerate(("train", "valid", "test")):
        write_smoke(tmp_path, split, str(number), 1)
    well = LAYOUTS / "the_well" / "ns_kolmogorov_uv"
    for name, url, keys, expected in (
        ("the_well", well, {}, three),
        ("the_well", well, {"test_split": "valid"}, two),
        ("pdearena", tmp_path, {}, three),
        ("pdearena", tmp_path, {"test_split": "valid"}, two),
        ("pdearena", tmp_path, {"train_split": "train+valid"}, two),
    ):
        component = catalog.get(Dataset, name)(url=str(url), **keys)
        assert component.splits() == expected
        frames = {split: component.build(split, Path()).read(0, 0, 1).tobytes() for split in expected}
        assert len({*frames.values()}) == len(expected)


def test_a_server_is_asked_for_a_file_for_validation(catalog: Catalog, server: FileServer) -> None:
    component = catalog.get(Dataset, "prepared")(url=server.serve("train.h5", b"").replace("train", "{split}"))
    assert component.splits() == ("train", "test")
    server.serve("valid.h5", b"something")
    assert component.splits() == ("train", "validation", "test")
