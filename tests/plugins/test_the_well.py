"""Files of The Well are read as they are published, against the arrays as h5py gives them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from attrs import frozen
from numpy.typing import NDArray

from layout_support import LAYOUTS, assert_reads, numbers, opened, shapes
from opframe_registry import Catalog, DataError, Dataset
from opframe_registry.metadata import boundary_in_words

PUBLISHED = LAYOUTS / "the_well" / "ns_kolmogorov_uv"
N, T, X, Y = 2, 3, 4, 5
AXES = ("x", "y")


@frozen(kw_only=True)
class Stored:
    """A field as the specification stores it, with the axes that it has."""

    values: NDArray[np.float32]
    sample: bool = True
    time: bool = True
    space: tuple[bool, ...] = (True, True)


FIELDS: Mapping[str, Mapping[str, Stored]] = {
    "t0_fields": {
        "permeability": Stored(values=numbers(X, Y), sample=False, time=False),
        "density": Stored(values=numbers(N, T, X, Y)),
        "profile": Stored(values=numbers(N, Y), time=False, space=(False, True)),
        "inflow": Stored(values=numbers(N, T, X), space=(True, False)),
        "clock": Stored(values=numbers(T), sample=False, space=(False, False)),
    },
    "t1_fields": {
        "velocity": Stored(values=numbers(N, T, X, Y, 2)),
        "gravity": Stored(values=numbers(2), sample=False, time=False, space=(False, False)),
    },
    "t2_fields": {"stress": Stored(values=numbers(N, T, X, Y, 2, 2))},
}


def write(
    path: Path,
    fields: Mapping[str, Mapping[str, Stored]] = FIELDS,
    walls: Mapping[str, str] | None = None,
    **parameters: float,
) -> Path:
    """A file of the specification."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update({"dataset_name": "made_up", "grid_type": "cartesian", "n_spatial_dims": 2, **parameters})
        file.attrs["simulation_parameters"] = list(parameters)
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = list(AXES)
        dimensions["time"] = np.arange(T, dtype="f4") * 0.25
        dimensions["x"], dimensions["y"] = np.arange(X, dtype="f4") * 0.1, np.arange(Y, dtype="f4") * 0.2
        for group, members in fields.items():
            _write_fields(file.create_group(group), members)
        scalars = file.create_group("scalars")
        scalars.attrs["field_names"] = ["mass", "force"]
        scalars["mass"], scalars["force"] = np.arange(N, dtype="f4") + 7, np.zeros(T, "f4")
        scalars["mass"].attrs.update({"sample_varying": True, "time_varying": False})
        scalars["force"].attrs.update({"sample_varying": False, "time_varying": True})
        for axis, kind in (walls or {"x": "WALL", "y": "PERIODIC"}).items():
            boundary = file.create_group(f"boundary_conditions/{axis}_side")
            boundary.attrs.update({"associated_dims": [axis], "bc_type": kind})
    return path


def _write_fields(group: h5py.Group, members: Mapping[str, Stored]) -> None:
    group.attrs["field_names"] = list(members)
    for name, item in members.items():
        group[name] = item.values
        group[name].attrs.update(
            {"sample_varying": item.sample, "time_varying": item.time, "dim_varying": list(item.space)}
        )


def velocity(path: Path) -> NDArray[np.float32]:
    with h5py.File(path) as file:
        return np.moveaxis(file["t1_fields/velocity"][...], -1, 2)


@pytest.mark.parametrize("place", ["", "data"])
def test_the_published_folder_is_read_split_by_split(catalog: Catalog, place: str) -> None:
    for split, part in (("train", "train"), ("test", "test")):
        trajectories = opened(catalog, "the_well", PUBLISHED / place, split)
        assert_reads(trajectories, velocity(PUBLISHED / "data" / part / "ns_kolmogorov_uv.hdf5"))
    valid = opened(catalog, "the_well", PUBLISHED / place, test_split="valid")
    assert np.array_equal(valid.read(0, 0, 20), velocity(PUBLISHED / "data" / "valid" / "ns_kolmogorov_uv.hdf5")[0])


def test_the_published_file_says_what_it_is(catalog: Catalog) -> None:
    metadata = opened(catalog, "the_well", PUBLISHED, "train").metadata
    assert metadata.channels == metadata.predicted == ("velocity_x", "velocity_y")
    assert boundary_in_words(metadata.boundary) == "periodic"
    assert metadata.vectors == (("velocity_x", "velocity_y"),)
    assert metadata.time_step == pytest.approx(0.1)
    assert metadata.spacing == pytest.approx((2 * np.pi / 64,) * 2, rel=1e-4)
    assert metadata.parameters == {"dt": (pytest.approx(0.1),)}
    assert "ns_kolmogorov_uv" in metadata.source
    assert metadata.split == "all 2 trajectories of the files for train"


def test_scalars_vectors_tensors_and_constant_fields_become_channels(catalog: Catalog, tmp_path: Path) -> None:
    trajectories = opened(catalog, "the_well", write(tmp_path / "all.hdf5"))
    t0, t1, t2 = FIELDS["t0_fields"], FIELDS["t1_fields"], FIELDS["t2_fields"]
    expected = np.zeros((N, T, 13, X, Y), "f4")
    expected[:, :, 0] = t0["density"].values
    expected[:, :, 1] = t0["inflow"].values[..., None]
    expected[:, :, 2:4] = np.moveaxis(t1["velocity"].values, -1, 2)
    expected[:, :, 4:8] = np.moveaxis(t2["stress"].values.reshape(N, T, X, Y, 4), -1, 2)
    expected[:, :, 8] = t0["permeability"].values
    expected[:, :, 9] = t0["profile"].values[:, None, None, :]
    expected[:, :, 10] = t0["clock"].values[:, None, None]
    expected[:, :, 11], expected[:, :, 12] = t1["gravity"].values
    assert_reads(trajectories, expected)
    assert trajectories.metadata.channels == (
        *("density", "inflow", "velocity_x", "velocity_y", "stress_xx", "stress_xy", "stress_yx", "stress_yy"),
        *("permeability", "profile", "clock", "gravity_x", "gravity_y"),
    )
    assert trajectories.metadata.predicted == trajectories.metadata.channels[:8]


def test_a_tensor_whose_components_lie_on_one_axis_is_read_alike(catalog: Catalog, tmp_path: Path) -> None:
    flat = {"t2_fields": {"stress": Stored(values=numbers(N, T, X, Y, 4))}}
    trajectories = opened(catalog, "the_well", write(tmp_path / "flat.hdf5", flat))
    assert_reads(trajectories, np.moveaxis(numbers(N, T, X, Y, 4), -1, 2))
    assert trajectories.metadata.channels == ("stress_xx", "stress_xy", "stress_yx", "stress_yy")


def test_files_with_other_parameters_follow_each_other(catalog: Catalog, tmp_path: Path) -> None:
    only = {"t0_fields": {"density": FIELDS["t0_fields"]["density"]}}
    more = {"t0_fields": {"density": Stored(values=-FIELDS["t0_fields"]["density"].values)}}
    write(tmp_path / "train" / "a.hdf5", only, viscosity=0.1, angle=3.0)
    write(tmp_path / "train" / "b.hdf5", more, viscosity=0.2, angle=3.0)
    trajectories = opened(catalog, "the_well", tmp_path, "train", train=3)
    both = np.concatenate([only["t0_fields"]["density"].values, more["t0_fields"]["density"].values])
    assert_reads(trajectories, both[:3, :, None])
    assert trajectories.metadata.parameters == {"viscosity": (0.1, 0.1, 0.2), "angle": (3.0,), "mass": (7.0, 8.0, 7.0)}


def test_scalars_that_change_in_time_are_not_parameters(catalog: Catalog, tmp_path: Path) -> None:
    path = write(tmp_path / "one.hdf5", {"t0_fields": {"density": Stored(values=numbers(T, T, X, Y))}})
    assert opened(catalog, "the_well", path).metadata.parameters.keys().isdisjoint({"force"})


def test_boundaries_that_differ_are_said_axis_by_axis(catalog: Catalog, tmp_path: Path) -> None:
    metadata = opened(catalog, "the_well", write(tmp_path / "one.hdf5")).metadata
    assert boundary_in_words(metadata.boundary) == "x wall, y periodic"
    assert metadata.vectors == (("velocity_x", "velocity_y"), ("gravity_x", "gravity_y"))
    assert (metadata.time_step, metadata.spacing) == (0.25, (pytest.approx(0.1), pytest.approx(0.2)))
    path = write(tmp_path / "two.hdf5", walls={"x": "OPEN", "y": "OPEN"})
    assert boundary_in_words(opened(catalog, "the_well", path).metadata.boundary) == "open"


def test_boundaries_that_differ_are_said_side_by_side(catalog: Catalog, tmp_path: Path) -> None:
    """As their masks say where they are; of two kinds on one side, or of none that is known, nothing is said."""
    path = write(tmp_path / "one.hdf5", walls={"x": "OPEN", "y": "SPONGE"})
    with h5py.File(path, "a") as file:
        file["boundary_conditions/x_side/mask"] = np.arange(X) == X - 1
        wall = file.create_group("boundary_conditions/x_wall")
        wall.attrs.update({"associated_dims": ["x"], "bc_type": "WALL"})
        wall["mask"] = np.arange(X) == 0
    assert boundary_in_words(opened(catalog, "the_well", path).metadata.boundary) == "x wall to open, y unknown"
    with h5py.File(path, "a") as file:
        file["boundary_conditions/x_wall/mask"][-1] = True
    assert boundary_in_words(opened(catalog, "the_well", path).metadata.boundary) == "x wall to unknown, y unknown"


def test_uneven_coordinates_have_no_spacing(catalog: Catalog, tmp_path: Path) -> None:
    path = write(tmp_path / "one.hdf5")
    with h5py.File(path, "a") as file:
        file["dimensions/x"][...] = np.arange(X) ** 2
        file["dimensions/time"][...] = np.arange(T) ** 2
    metadata = opened(catalog, "the_well", path).metadata
    assert (metadata.spacing, metadata.time_step) == (None, None)


def test_a_single_file_is_cut_by_position_or_named_by_its_split(catalog: Catalog, tmp_path: Path) -> None:
    path = write(tmp_path / "train.hdf5", {"t0_fields": {"density": FIELDS["t0_fields"]["density"]}})
    whole = FIELDS["t0_fields"]["density"].values[:, :, None]
    assert_reads(opened(catalog, "the_well", path, "train", test=1), whole[:1])
    assert_reads(opened(catalog, "the_well", path, "test", test=1), whole[1:])
    assert_reads(opened(catalog, "the_well", tmp_path / "{split}.hdf5", "train"), whole)


def test_folders_and_files_of_another_layout_are_named_with_what_they_hold(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds neither data/train/\*\.hdf5 nor train/\*\.hdf5"):
        opened(catalog, "the_well", tmp_path, "train")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros((2, 4, 4, 3, 1))
    with pytest.raises(DataError, match=r"other\.h5: not a file of The Well; expected the groups .* found: data"):
        opened(catalog, "the_well", tmp_path / "other.h5")


def _rename(file: h5py.File) -> None:
    file.move("t0_fields/density", "t0_fields/rho")


def _drop_axis(file: h5py.File) -> None:
    file["t0_fields/density"].attrs["dim_varying"] = [True, False]


def _shorten(file: h5py.File) -> None:
    attributes = dict(file["t0_fields/density"].attrs)
    del file["t0_fields/density"]
    file["t0_fields/density"] = np.zeros((N, T + 1, X, Y), "f4")
    file["t0_fields/density"].attrs.update(attributes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_rename, r"'t0_fields' names the field 'density', but there is no 't0_fields/density'"),
        (_drop_axis, r"'t0_fields/density' has shape \(2, 3, 4, 5\), expected the axes n t x with D = 2"),
        (_shorten, r"'t1_fields/velocity' has shape \(2, 3, .*but other fields have 4 along the axis t"),
    ],
)
def test_files_against_the_specification_are_named(catalog: Catalog, tmp_path: Path, damage: Any, message: str) -> None:
    fields = {
        "t0_fields": {"density": FIELDS["t0_fields"]["density"]},
        "t1_fields": {"velocity": FIELDS["t1_fields"]["velocity"]},
    }
    path = write(tmp_path / "bad.hdf5", fields)
    with h5py.File(path, "a") as file:
        damage(file)
    with pytest.raises(DataError, match=rf"bad\.hdf5: {message}"):
        opened(catalog, "the_well", path)


def test_files_with_other_fields_than_the_first_are_named(catalog: Catalog, tmp_path: Path) -> None:
    write(tmp_path / "train" / "a.hdf5", {"t0_fields": {"density": FIELDS["t0_fields"]["density"]}})
    write(tmp_path / "train" / "b.hdf5", {"t1_fields": {"velocity": FIELDS["t1_fields"]["velocity"]}})
    with pytest.raises(DataError, match=r"b\.hdf5: its fields are .*velocity.*a\.hdf5 are .*density"):
        opened(catalog, "the_well", tmp_path, "train")


def test_the_layout_is_recognised(catalog: Catalog) -> None:
    recognise = catalog.get(Dataset, "the_well").recognise
    path = PUBLISHED / "data" / "train" / "ns_kolmogorov_uv.hdf5"
    assert recognise(str(path), shapes(path)) == {"url": str(PUBLISHED)}
    assert recognise("mine.hdf5", shapes(path)) == {"url": "mine.hdf5"}
    assert recognise("https://host/train/a.hdf5", shapes(path)) == {"url": "https://host/train/a.hdf5"}
    folder = {f"data/train/{path.name}:{inside}": shape for inside, shape in shapes(path).items()}
    assert recognise(str(PUBLISHED), folder) == {"url": str(PUBLISHED)}
    assert recognise("other.h5", {"data": (4, 8, 8, 5, 1)}) is None
