"""CFDBench's case folders are read as they are published."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

import fsspec
import numpy as np
import pytest
from numpy.typing import NDArray

from layout_support import assert_reads, numbers, opened
from opframe_registry import Catalog, ConfigError, DataError, Dataset
from opframe_registry.metadata import boundary_in_words

PARAMETERS: Mapping[str, Mapping[str, float]] = {
    "cavity": {"vel_top": 2.0, "density": 1.0, "viscosity": 0.01, "height": 0.1, "width": 0.1},
    "tube": {"vel_in": 3.0, "density": 10.0, "viscosity": 0.1, "height": 0.1, "width": 1.0},
    "dam": {
        "case_no": 4.0,
        "velocity": 0.5,
        "density": 100.0,
        "viscosity": 0.1,
        "height": 0.4,
        "width": 1.5,
        "barrier_height": 0.2,
        "barrier_width": 0.25,
        "dx": 0.25,
        "dy": 0.1,
    },
    "cylinder": {
        "vel_in": 1.5,
        "density": 10.0,
        "viscosity": 0.001,
        "radius": 0.011,
        "x_min": -0.02,
        "x_max": 0.04,
        "y_min": -0.02,
        "y_max": 0.02,
    },
}
H, W = 4, 6


def write_case(
    folder: Path, problem: str, number: int, frames: int = 5, subset: str = "prop", grid: tuple[int, int] = (H, W)
) -> NDArray[np.float32]:
    """A case as published, u and v (T, 2, H, W); the values and the density tell cases apart."""
    case = folder / problem / subset / f"case{number:04d}"
    case.mkdir(parents=True)
    values = numbers(2, frames, *grid) + 1000.0 * number + 1.0
    np.save(case / "u.npy", values[0])
    np.save(case / "v.npy", values[1])
    parameters = {**PARAMETERS[problem], "density": PARAMETERS[problem]["density"] + number}
    (case / "case.json").write_text(json.dumps(parameters))
    return values.swapaxes(0, 1)


def write_problem(folder: Path, problem: str, cases: int, frames: int = 5) -> Path:
    for number in range(cases):
        write_case(folder, problem, number, frames, subset="geo" if number % 2 else "prop")
    return folder / problem


def test_a_cavity_has_a_mask_and_nothing_around_it(catalog: Catalog, tmp_path: Path) -> None:
    values = write_case(tmp_path, "cavity", 0)
    trajectories = opened(catalog, "cfdbench", tmp_path / "cavity", "train", frames=5)
    assert_reads(trajectories, np.concatenate([values, np.ones((5, 1, H, W), "f4")], axis=1)[None])


def test_a_tube_has_a_column_of_inflow_and_walls_above_and_below(catalog: Catalog, tmp_path: Path) -> None:
    cases = [write_case(tmp_path, "tube", number) for number in range(2)]
    trajectories = opened(catalog, "cfdbench", tmp_path / "tube", frames=5)
    expected = np.zeros((5, 3, H + 2, W + 1), "f4")
    expected[:, :2, 1:-1, 1:] = cases[order(2)[-1]]
    expected[:, 0, 1:-1, 0] = 3.0
    expected[:, 2, 1:-1, 1:] = 1.0
    assert_reads(trajectories, expected[None])


def test_a_dam_stands_in_the_mask_and_the_flow_enters_below_its_top(catalog: Catalog, tmp_path: Path) -> None:
    cases = [write_case(tmp_path, "dam", number) for number in range(2)]
    trajectories = opened(catalog, "cfdbench", tmp_path / "dam", frames=5)
    expected = np.zeros((5, 3, H + 2, W + 1), "f4")
    expected[:, :2, 1:-1, 1:] = cases[order(2)[-1]]
    expected[:, 0, 1:3, 0] = 0.5
    expected[:, 2, 1:-1, 1:] = 1.0
    expected[:, 2, 1:3, 3] = 0.0
    assert_reads(trajectories, expected[None])


def test_a_cylinder_lies_in_the_mask_around_the_origin(catalog: Catalog, tmp_path: Path) -> None:
    for number in range(2):
        write_case(tmp_path, "cylinder", number)
    mask = opened(catalog, "cfdbench", tmp_path / "cylinder", frames=5).read(0, 0, 5)[:, 2]
    expected = np.zeros((H + 2, W + 1), "f4")
    expected[1:-1, 1:] = 1.0
    expected[2:4, 2:4] = 0.0
    assert np.array_equal(mask, np.broadcast_to(expected, (5, H + 2, W + 1)))


def test_the_flow_inside_obstacles_may_be_missing(catalog: Catalog, tmp_path: Path) -> None:
    for problem, number in (("cylinder", 0), ("cylinder", 1), ("dam", 0), ("dam", 1), ("tube", 0), ("tube", 1)):
        write_case(tmp_path, problem, number)
    for problem, inside in (("cylinder", np.s_[2:4, 2:4]), ("dam", np.s_[1:3, 3]), ("tube", np.s_[:0])):
        plain, missing = (
            opened(catalog, "cfdbench", tmp_path / problem, frames=5, obstacles=key) for key in ("zero", "missing")
        )
        expected = plain.read(0, 0, 5).copy()
        expected[:, :2][..., *(inside if isinstance(inside, tuple) else (inside,))] = np.nan
        assert np.array_equal(missing.read(0, 0, 5), expected, equal_nan=True)
        assert plain.metadata.missing is None
        assert missing.metadata.missing is not None
        assert np.isnan(missing.metadata.missing)
    resized = opened(catalog, "cfdbench", tmp_path / "cylinder", frames=5, grid=(12, 14), obstacles="missing")
    frames = resized.read(0, 0, 5)
    beside = opened(catalog, "cfdbench", tmp_path / "cylinder", frames=5, grid=(12, 14)).read(0, 0, 5)
    there = ~np.isnan(frames)
    assert np.array_equal(frames[there], beside[there])
    assert there[:, 2].all()
    assert not there[:, :2, 4:8, 4:8].any()
    assert there[:, :2].mean() > 0.7


def test_what_was_made_before_obstacles_could_be_missing_is_found(catalog: Catalog) -> None:
    make = catalog.get(Dataset, "cfdbench")
    assert "obstacles" not in make(url="tube").identity().settings
    assert make(url="tube", obstacles="missing").identity().settings["obstacles"] == "missing"


def test_distances_are_those_of_the_cases_unless_they_are_resized(catalog: Catalog, tmp_path: Path) -> None:
    folder = write_problem(tmp_path, "dam", 2)
    assert opened(catalog, "cfdbench", folder, frames=5).metadata.spacing == (0.1, 0.25)
    assert opened(catalog, "cfdbench", folder, frames=5, grid=(6, 7)).metadata.spacing == (0.1, 0.25)
    assert opened(catalog, "cfdbench", folder, frames=5, grid=(8, 8)).metadata.spacing is None


def test_the_mask_is_input_only_and_parameters_belong_to_trajectories(catalog: Catalog, tmp_path: Path) -> None:
    metadata = opened(catalog, "cfdbench", write_problem(tmp_path, "tube", 5, frames=3), "train", frames=2).metadata
    assert (metadata.channels, metadata.predicted) == (("u", "v", "mask"), ("u", "v"))
    assert (metadata.units, metadata.time_step) == (("m/s", "m/s", ""), 0.1)
    assert boundary_in_words(metadata.boundary) == "x wall, y inflow to open"  # the axes are Y X
    assert metadata.vectors == (("v", "u"),)
    published = [0, 2, 4, 1, 3]  # prop, then geo, by number
    assert metadata.parameters["density"] == tuple(10.0 + published[i] for i in order(5)[:4] for _ in range(2))
    assert metadata.parameters["viscosity"] == (0.1,)
    assert metadata.parameters["vel_in"] == (3.0,)
    assert "seed 0" in metadata.split


def test_cases_are_cut_into_pieces_and_the_last_repeats_its_final_frame(catalog: Catalog, tmp_path: Path) -> None:
    values = write_case(tmp_path, "cavity", 0, frames=7)
    trajectories = opened(catalog, "cfdbench", tmp_path / "cavity", "train", frames=3)
    whole = np.concatenate([values, np.ones((7, 1, H, W), "f4")], axis=1)
    last = np.stack([whole[6]] * 3)
    assert_reads(trajectories, np.stack([whole[:3], whole[3:6], last]))
    assert opened(catalog, "cfdbench", tmp_path / "cavity", "train").metadata.frames == 20


def order(cases: int) -> list[int]:
    """How the published loaders shuffle: the module's own generator, seeded by 0."""
    random.seed(0)
    shuffled = list(range(cases))
    random.shuffle(shuffled)
    return shuffled


@pytest.mark.parametrize(
    ("problem", "train", "valid", "test"), [("tube", 15, 1, 3), ("cavity", 15, 2, 2), ("cylinder", 15, 1, 3)]
)
def test_the_published_split_is_that_of_the_published_loaders(
    catalog: Catalog, tmp_path: Path, problem: str, train: int, valid: int, test: int
) -> None:
    folder = write_problem(tmp_path, problem, 19)
    published = [*range(0, 19, 2), *range(1, 19, 2)]
    densities = [PARAMETERS[problem]["density"] + published[index] for index in order(19)]
    parts = [
        opened(catalog, "cfdbench", folder, "train"),
        opened(catalog, "cfdbench", folder, "test", test_split="valid"),
        opened(catalog, "cfdbench", folder, "test"),
    ]
    assert [part.metadata.trajectories for part in parts] == [train, valid, test]
    found = [
        value
        for part in parts
        for value in np.broadcast_to(part.metadata.parameters["density"], part.metadata.trajectories)
    ]
    assert found == densities


@pytest.mark.parametrize("split_by", ["case", "parameters"])
def test_pieces_of_a_case_never_fall_into_two_splits(catalog: Catalog, tmp_path: Path, split_by: str) -> None:
    folder = write_problem(tmp_path, "tube", 11, frames=5)
    train, test = (
        opened(catalog, "cfdbench", folder, part, frames=2, split_by=split_by).metadata.parameters["density"]
        for part in ("train", "test")
    )
    assert not set(train) & set(test)
    assert len(train) == 3 * len(set(train))


def test_cases_with_the_same_parameters_can_be_kept_together(catalog: Catalog, tmp_path: Path) -> None:
    for subset in ("prop", "bc", "geo"):
        for number in range(10):
            write_case(tmp_path, "tube", number, subset=subset)

    def shared(split_by: str) -> set[float]:
        train, test = (
            opened(catalog, "cfdbench", tmp_path / "tube", part, split_by=split_by).metadata.parameters["density"]
            for part in ("train", "test")
        )
        return set(train) & set(test)

    assert shared("case")
    assert not shared("parameters")


def test_only_the_subsets_asked_for_are_read_in_the_order_of_case_numbers(catalog: Catalog, tmp_path: Path) -> None:
    for number in (9999, 10000, 1):
        write_case(tmp_path, "cavity", number, subset="bc")
    write_case(tmp_path, "cavity", 5, subset="geo")
    metadata = opened(catalog, "cfdbench", tmp_path / "cavity", "train", subsets=("bc",)).metadata
    assert metadata.parameters["density"] == tuple(1.0 + (1, 9999, 10000)[index] for index in order(3)[:2])


def test_several_problems_are_joined_on_one_grid(catalog: Catalog, tmp_path: Path) -> None:
    for problem in ("cavity", "tube"):
        write_problem(tmp_path, problem, 5)
    keys = {"problems": ("cavity", "tube"), "frames": 5}
    with pytest.raises(DataError, match=r"cavity/.* has the grid \[4, 6\] .*tube/.* has \[6, 7\]; set 'grid'"):
        opened(catalog, "cfdbench", tmp_path, "train", **keys)
    joined = opened(catalog, "cfdbench", tmp_path, "train", grid=(8, 8), **keys)
    alone = opened(catalog, "cfdbench", tmp_path / "tube", "train", grid=(8, 8), frames=5)
    assert (joined.metadata.trajectories, joined.metadata.grid) == (8, (8, 8))
    assert np.array_equal(joined.read(4, 1, 3), alone.read(0, 1, 3))
    assert np.array_equal(joined.metadata.parameters["vel_in"], [np.nan] * 4 + [3.0] * 4, equal_nan=True)
    assert boundary_in_words(joined.metadata.boundary) == "unknown"  # a lid, or walls; walls, or inflow


def test_case_folders_in_a_bucket_are_read(catalog: Catalog, tmp_path: Path) -> None:
    folder = write_problem(tmp_path, "tube", 2)
    fsspec.filesystem("memory").put(str(folder), "memory://cfdbench/tube", recursive=True)
    remote = opened(catalog, "cfdbench", "memory://cfdbench/tube", frames=5)
    assert_reads(remote, opened(catalog, "cfdbench", folder, frames=5).read(0, 0, 5)[None])


def test_folders_of_another_layout_are_named(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'flows' is no problem of CFDBench; expected a folder named cavity, tube"):
        opened(catalog, "cfdbench", tmp_path / "flows")
    with pytest.raises(DataError, match=r"tube holds no cases .*expected prop/case####/u\.npy"):
        opened(catalog, "cfdbench", tmp_path / "tube")
    write_case(tmp_path, "tube", 0)
    with pytest.raises(DataError, match="too few cases for a part for 'train'"):
        opened(catalog, "cfdbench", tmp_path / "tube", "train")


def test_damaged_cases_are_named(catalog: Catalog, tmp_path: Path) -> None:
    write_case(tmp_path, "cavity", 0)
    case = tmp_path / "cavity" / "prop" / "case0000"
    np.save(case / "v.npy", np.zeros((4, H, W), "f4"))
    trajectories = opened(catalog, "cfdbench", tmp_path / "cavity", "train", frames=5)
    with pytest.raises(DataError, match=r"case0000/v\.npy: has shape \(4, 4, 6\), expected \(5, 4, 6\)"):
        trajectories.read(0, 0, 1)
    (case / "case.json").write_text("{")
    with pytest.raises(DataError, match=r"case0000/case\.json: "):
        opened(catalog, "cfdbench", tmp_path / "cavity", "train")
    (case / "case.json").unlink()
    with pytest.raises(DataError, match=r"case0000/case\.json: no such file"):
        opened(catalog, "cfdbench", tmp_path / "cavity", "train")
    np.save(case / "u.npy", np.zeros((H, W), "f4"))
    with pytest.raises(DataError, match=r"case0000/u\.npy: has shape \(4, 6\), expected \(T, Y, X\)"):
        opened(catalog, "cfdbench", tmp_path / "cavity", "train")


def test_a_parameter_that_the_boundary_needs_is_asked_for(catalog: Catalog, tmp_path: Path) -> None:
    write_case(tmp_path, "tube", 0)
    (tmp_path / "tube" / "prop" / "case0000" / "case.json").write_text('{"density": 1}')
    with pytest.raises(DataError, match=r"case\.json: says nothing of vel_in, which a tube needs; found: density"):
        opened(catalog, "cfdbench", tmp_path / "tube")


def test_settings_are_checked_before_anything_is_opened(catalog: Catalog) -> None:
    component = catalog.get(Dataset, "cfdbench")
    with pytest.raises(ValueError, match="cavern"):
        component(url="x", problems=("cavern",))
    with pytest.raises(ConfigError, match=r"grid = \[0, 4\]"):
        component(url="x", grid=(0, 4))


def test_the_layout_is_recognised(catalog: Catalog) -> None:
    recognise = catalog.get(Dataset, "cfdbench").recognise
    contents = {"prop/case0000/u.npy:": (620, 64, 64), "prop/case0000/v.npy:": (620, 64, 64)}
    assert recognise("data/tube", contents) == {"url": "data/tube"}
    assert recognise("data/pipes", contents) is None
    several = {f"{problem}/{key}": shape for problem in ("tube", "cavity") for key, shape in contents.items()}
    assert recognise("data", several) == {"url": "data", "problems": ["cavity", "tube"]}
    assert recognise("data/tube", {"u.npy:": (620, 64, 64)}) is None
