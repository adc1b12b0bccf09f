"""PDEBench's files are read as they are published: every layout, against the arrays as h5py gives them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from layout_support import assert_windows
from opframe.files.location import dataset_names
from opframe.mixture.source import evaluation_mask, open_source, read_frames
from opframe_registry import Catalog, DataError, Dataset, Fields, Trajectories
from opframe_registry.metadata import boundary_in_words

FILES = Path(__file__).parents[1] / "layouts" / "pdebench"
CFD = FILES / "2D_CFD_Rand_M0.1_Eta0.01_Zeta0.01_periodic_16_Train.hdf5"
DIFFUSION_REACTION = FILES / "pdebench_2D_diff-react_16.h5"
DAM_BREAK = FILES / "pdebench_2D_rdb_16.h5"


def opened(catalog: Catalog, url: Path | str, split: str = "test", **keys: object) -> Trajectories:
    return catalog.get(Dataset, "pdebench")(url=str(url), **keys).build(split, Path())


def numbers(*shape: int) -> NDArray[np.float32]:
    """Values that are all different, so that no axis can be taken for another."""
    return np.arange(np.prod(shape), dtype="f4").reshape(shape)


def write(path: Path, arrays: Mapping[str, Any], attributes: Mapping[str, Any] | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, **(options if np.ndim(values) > 1 else {}))
        file.attrs.update(attributes or {})
    return path


def test_compressible_flow_is_read_in_the_order_of_channels_that_models_were_trained_with(catalog: Catalog) -> None:
    with h5py.File(CFD) as file:
        expected = np.stack([file[name][...] for name in ("Vx", "Vy", "density", "pressure")], axis=2)
    trajectories = opened(catalog, CFD)
    assert_windows(trajectories, expected)
    metadata = trajectories.metadata
    assert metadata.channels == metadata.predicted == ("velocity_x", "velocity_y", "density", "pressure")
    assert metadata.parameters == {"Mach": (0.1,), "eta": (0.01,), "zeta": (0.01,)}
    assert (metadata.time_step, metadata.spacing) == (0.05, (0.0625, 0.0625))
    assert boundary_in_words(metadata.boundary) == "periodic"
    assert metadata.vectors == (("velocity_x", "velocity_y"),)
    momenta = {f"momentum_{axis}": ("density", f"velocity_{axis}") for axis in "xy"}
    assert metadata.conserved == {"mass": ("density",), **momenta}
    assert metadata.license == "CC BY 4.0"
    assert "compressible" in metadata.source


@pytest.mark.parametrize(
    ("grid", "arrays", "channels"),
    [
        ((5,), ("Vx", "density", "pressure"), ("velocity_x", "density", "pressure")),
        (
            (3, 4, 5),
            ("Vx", "Vy", "Vz", "pressure", "density"),
            ("velocity_x", "velocity_y", "velocity_z", "pressure", "density"),
        ),
    ],
)
def test_compressible_flow_in_one_and_three_dimensions(
    catalog: Catalog, tmp_path: Path, grid: tuple[int, ...], arrays: tuple[str, ...], channels: tuple[str, ...]
) -> None:
    data = {name: numbers(2, 3, *grid) + 1000 * index for index, name in enumerate(sorted(arrays))}
    axes = {f"{axis}-coordinate": np.linspace(0, 1, size) for axis, size in zip("xyz", grid, strict=False)}
    url = write(tmp_path / "CFD_Shock_Eta1.e-8_Zeta1.e-8_trans_Train.hdf5", data | axes | {"t-coordinate": [0, 2, 4]})
    trajectories = opened(catalog, url)
    assert_windows(trajectories, np.stack([data[name] for name in arrays], axis=2))
    metadata = trajectories.metadata
    assert metadata.channels == channels
    assert metadata.spacing == pytest.approx(tuple(1 / (size - 1) for size in grid), rel=1e-5)
    assert (metadata.time_step, boundary_in_words(metadata.boundary)) == (2.0, "open")
    assert metadata.vectors == (tuple(name for name in metadata.channels if name.startswith("velocity")),)
    assert metadata.conserved == {}
    assert metadata.parameters == {"eta": (1e-8,), "zeta": (1e-8,)}


def test_compressed_groups_are_read_one_trajectory_each(catalog: Catalog) -> None:
    with h5py.File(DIFFUSION_REACTION) as file:
        assert file["0000/data"].compression == "lzf"
        expected = np.stack([np.moveaxis(file[f"{index:04d}/data"][...], -1, 1) for index in range(3)])
    trajectories = opened(catalog, DIFFUSION_REACTION)
    assert_windows(trajectories, expected)
    metadata = trajectories.metadata
    assert metadata.channels == ("activator", "inhibitor")
    assert metadata.parameters == {"Du": (0.001,), "Dv": (0.005,), "k": (0.005,)}
    assert (metadata.time_step, metadata.spacing) == (0.05, (0.125, 0.125))
    assert boundary_in_words(metadata.boundary) == "neumann"
    assert (metadata.vectors, metadata.conserved) == ((), {})


def test_each_dam_has_its_radius_in_the_parameters_of_its_split(catalog: Catalog) -> None:
    with h5py.File(DAM_BREAK) as file:
        expected = np.stack([np.moveaxis(file[f"{index:04d}/data"][...], -1, 1) for index in range(3)])
    assert_windows(opened(catalog, DAM_BREAK), expected)
    radii = {split: opened(catalog, DAM_BREAK, split, test=1).metadata.parameters for split in ("train", "test")}
    assert radii["train"]["dam_radius"] == pytest.approx((0.5547847, 0.5047286), rel=1e-6)
    assert radii["test"]["dam_radius"] == pytest.approx((0.4046449,), rel=1e-6)
    assert radii["train"]["gravity"] == (1.0,)
    assert boundary_in_words(opened(catalog, DAM_BREAK).metadata.boundary) == "open"


def test_of_a_remote_file_only_what_all_dams_share_is_read(catalog: Catalog) -> None:
    with fsspec.open("memory://dams/2D_rdb_NA_NA.h5", "wb") as file:
        file.write(DAM_BREAK.read_bytes())
    trajectories = opened(catalog, "memory://dams/2D_rdb_NA_NA.h5")
    assert trajectories.metadata.parameters == {"gravity": (1.0,), "inner_height": (2.0,)}
    assert np.array_equal(trajectories.read(1, 1, 3), opened(catalog, DAM_BREAK).read(1, 1, 3))


def test_a_file_may_hold_some_of_the_groups_from_any_number_on(catalog: Catalog, tmp_path: Path) -> None:
    arrays = {f"{number:04d}/data": numbers(3, 4, 4, 3) + number for number in (8, 9, 10)}
    trajectories = opened(catalog, write(tmp_path / "some.h5", arrays | {"0008/grid/x": range(4)}))
    expected = np.stack([np.moveaxis(values, -1, 1) for values in arrays.values()])
    assert_windows(trajectories, expected)
    assert trajectories.metadata.channels == ("c0", "c1", "c2")
    assert trajectories.metadata.parameters == {}
    assert boundary_in_words(trajectories.metadata.boundary) == "unknown"


def test_configurations_in_yaml_are_read_too(catalog: Catalog, tmp_path: Path) -> None:
    url = write(tmp_path / "renamed.h5", {"0000/data": numbers(3, 8, 1), "0000/grid/x": range(8)})
    config = "name: 1d\nsim:\n  D: 5E-4  # diffusion\n  por: 0.29\n  rho_s: 2880\n  k_f: 3.5e-4\n  n_f: 0.874\n"
    with h5py.File(url, "a") as file:
        file["0000"].attrs["config"] = config
    trajectories = opened(catalog, url)
    assert_windows(trajectories, np.moveaxis(numbers(1, 3, 8, 1), -1, 2))
    metadata = trajectories.metadata
    assert metadata.channels == ("concentration",)
    assert metadata.parameters == {"D": (5e-4,), "por": (0.29,), "rho_s": (2880.0,), "k_f": (3.5e-4,), "n_f": (0.874,)}


@pytest.mark.parametrize(
    ("name", "parameters", "equation"),
    [
        ("1D_Advection_Sols_beta0.4.hdf5", {"beta": (0.4,)}, "advection"),
        ("1D_Burgers_Sols_Nu0.001.hdf5", {"Nu": (0.001,)}, "Burgers"),
        ("ReacDiff_react_Nu0.5_Rho10.0.hdf5", {"Nu": (0.5,), "Rho": (10.0,)}, "reaction–diffusion"),
    ],
)
def test_one_dimensional_problems_are_told_by_their_parameters(
    catalog: Catalog, tmp_path: Path, name: str, parameters: dict[str, tuple[float, ...]], equation: str
) -> None:
    arrays = {"tensor": numbers(4, 3, 6), "x-coordinate": np.arange(6) / 6, "t-coordinate": np.arange(4) / 100}
    trajectories = opened(catalog, write(tmp_path / name, arrays))
    assert_windows(trajectories, numbers(4, 3, 1, 6))
    metadata = trajectories.metadata
    assert metadata.parameters == parameters
    assert equation in metadata.source
    conserved = {"advection": {"mass": ("u",)}, "Burgers": {"momentum": ("u",)}}
    assert metadata.conserved == conserved.get(equation, {})
    assert (metadata.channels, boundary_in_words(metadata.boundary), metadata.time_step) == (("u",), "periodic", 0.01)
    renamed = opened(catalog, write(tmp_path / "mine.hdf5", arrays, {"beta": 2.0})).metadata
    assert renamed.parameters == {"beta": (2.0,)}
    assert "advection" in renamed.source


def darcy(path: Path) -> Path:
    arrays = {"tensor": numbers(3, 1, 4, 5) + 1, "nu": -numbers(3, 4, 5) - 1, "x-coordinate": np.arange(4) / 4}
    return write(path, arrays | {"y-coordinate": np.arange(5) / 4}, {"beta": 0.1})


def test_a_steady_problem_is_two_frames_and_the_solution_is_only_in_the_second(
    catalog: Catalog, tmp_path: Path
) -> None:
    trajectories = opened(catalog, darcy(tmp_path / "2D_DarcyFlow_beta0.1_Train.hdf5"))
    coefficient, solution = -numbers(3, 4, 5) - 1, numbers(3, 4, 5) + 1
    problem = np.stack([coefficient, np.zeros_like(solution)], axis=1)
    solved = np.stack([coefficient, solution], axis=1)
    assert_windows(trajectories, np.stack([problem, solved], axis=1))
    metadata = trajectories.metadata
    assert (metadata.channels, metadata.predicted) == (("nu", "u"), ("u",))
    assert (metadata.time_step, metadata.spacing, metadata.parameters) == (None, (0.25, 0.25), {"beta": (0.1,)})
    for start, stop in ((0, 3), (-1, 1), (1, 1)):
        with pytest.raises(DataError, match=r"Darcy.*2 frames"):
            trajectories.read(0, start, stop)


def test_a_steady_problem_is_learnt_with_one_frame_of_history(catalog: Catalog, tmp_path: Path) -> None:
    component = catalog.get(Dataset, "pdebench")(url=str(darcy(tmp_path / "darcy.hdf5")), test=1)
    source = open_source(component, component.build("train", Path()), history=1, frames=1)
    fields = Fields(channels=("nu", "u", "unused"), grid=(4, 5), history=1)
    window = read_frames(source, 1, 0, 2, fields)
    assert torch.equal(window[0, 1], torch.zeros(4, 5))
    assert torch.equal(window[1, 1], torch.from_numpy(numbers(3, 4, 5)[1] + 1))
    assert evaluation_mask(source.metadata, fields).sum(dim=(1, 2)).tolist() == [0, 20, 0]
    with pytest.raises(DataError, match=r"2 frames, but a window takes 3"):
        open_source(component, component.build("train", Path()), history=2, frames=1)


def incompressible(path: Path, count: int = 2, offset: float = 0.0) -> Path:
    arrays = {
        "velocity": numbers(count, 3, 4, 5, 2) + offset,
        "particles": -numbers(count, 3, 4, 5, 1) - 1 - offset,
        "force": numbers(count, 4, 5, 2) / 7 + offset,
        "t": np.tile(np.arange(3) * 0.005, (count, 1)),
    }
    return write(path, arrays, {"config": "NU: 0.01\nDT: 0.00005\n", "latestIndex": 2}, compression="lzf", shuffle=True)


def incompressible_expected(count: int = 2, offset: float = 0.0) -> NDArray[np.float32]:
    force = np.broadcast_to((numbers(count, 4, 5, 2) / 7 + offset)[:, None], (count, 3, 4, 5, 2))
    blocks = [numbers(count, 3, 4, 5, 2) + offset, -numbers(count, 3, 4, 5, 1) - 1 - offset, force]
    return np.moveaxis(np.concatenate(blocks, axis=-1).astype("f4"), -1, 2)


def test_the_force_on_incompressible_flow_is_input_only_and_constant(catalog: Catalog, tmp_path: Path) -> None:
    trajectories = opened(catalog, incompressible(tmp_path / "ns_incom_inhom_2d_512-0.h5"))
    assert_windows(trajectories, incompressible_expected())
    metadata = trajectories.metadata
    assert metadata.channels == ("velocity_x", "velocity_y", "particles", "force_x", "force_y")
    assert metadata.predicted == ("velocity_x", "velocity_y", "particles")
    assert (metadata.time_step, metadata.parameters) == (0.005, {"viscosity": (0.01,)})


@pytest.mark.parametrize("place", ["set", "set/ns_incom_*.h5", "memory://pdebench"])
def test_files_of_a_folder_follow_each_other_by_their_numbers(catalog: Catalog, tmp_path: Path, place: str) -> None:
    paths = [
        incompressible(tmp_path / "set" / f"ns_incom_inhom_2d_512-{index}.h5", 2, 1000 * index) for index in (2, 10)
    ]
    if place.startswith("memory"):
        for path in paths:
            with fsspec.open(f"{place}/{path.name}", "wb") as file:
                file.write(path.read_bytes())
    url = place if place.startswith("memory") else str(tmp_path / place)
    both = np.concatenate([incompressible_expected(2, 2000), incompressible_expected(2, 10000)])
    assert_windows(opened(catalog, url), both)
    assert_windows(opened(catalog, url, "train", test=1), both[:3])
    assert_windows(opened(catalog, url, "test", test=1), both[3:])


def test_parameters_that_differ_from_file_to_file_are_given_for_each_trajectory(
    catalog: Catalog, tmp_path: Path
) -> None:
    for beta in (0.1, 0.4):
        write(tmp_path / "all" / f"1D_Advection_Sols_beta{beta}.hdf5", {"tensor": numbers(2, 3, 6)})
    assert opened(catalog, tmp_path / "all", "train", test=1).metadata.parameters == {"beta": (0.1, 0.1, 0.4)}
    assert opened(catalog, tmp_path / "all", "test", test=1).metadata.parameters == {"beta": (0.4,)}


def test_training_takes_the_first_trajectories_and_evaluation_the_last(catalog: Catalog) -> None:
    whole = opened(catalog, CFD)
    train, test = opened(catalog, CFD, "train", train=1, test=1), opened(catalog, CFD, "test", train=1, test=1)
    assert np.array_equal(train.read(0, 0, 5), whole.read(0, 0, 5))
    assert np.array_equal(test.read(0, 0, 5), whole.read(2, 0, 5))
    assert train.metadata.split == "the first 1 of 3 trajectories"
    assert test.metadata.split == "the last 1 of 3 trajectories"
    with pytest.raises(DataError, match=r"holds training and test data; set 'test'"):
        opened(catalog, CFD, "train")
    with pytest.raises(DataError, match=r"train = 3 and test = 1 overlap"):
        opened(catalog, CFD, "train", train=3, test=1)
    with pytest.raises(DataError, match=r"test = 4, but .*Train\.hdf5 holds 3 trajectories"):
        opened(catalog, CFD, "test", test=4)


def test_splits_in_files_of_their_own_are_taken_whole(catalog: Catalog, tmp_path: Path) -> None:
    for split, value in (("train", 1.0), ("test", 2.0)):
        write(tmp_path / f"burgers_{split}.hdf5", {"tensor": np.full((4, 3, 6), value, "f4")})
    for split, value in (("train", 1.0), ("test", 2.0)):
        trajectories = opened(catalog, tmp_path / "burgers_{split}.hdf5", split, train=3)
        assert trajectories.read(0, 0, 1).max() == value
        assert trajectories.metadata.trajectories == (3 if split == "train" else 4)
    assert (
        opened(catalog, tmp_path / "burgers_{split}.hdf5").metadata.split == "all 4 trajectories of the files for test"
    )


def test_channels_are_chosen_and_ordered(catalog: Catalog, tmp_path: Path) -> None:
    chosen = opened(catalog, CFD, channels=("pressure", "velocity_x"))
    assert chosen.metadata.channels == ("pressure", "velocity_x")
    assert np.array_equal(chosen.read(1, 0, 5), opened(catalog, CFD).read(1, 0, 5)[:, [3, 0]])
    with pytest.raises(DataError, match=r"'presure' is not among .*did you mean 'pressure'"):
        opened(catalog, CFD, channels=("presure",))
    with pytest.raises(DataError, match=r"stay together.*possible is activator, inhibitor"):
        opened(catalog, DIFFUSION_REACTION, channels=("inhibitor",))
    with pytest.raises(DataError, match="input only"):
        opened(catalog, darcy(tmp_path / "darcy.hdf5"), channels=("nu",))
    without = opened(catalog, darcy(tmp_path / "darcy.hdf5"), channels=("u",))
    assert_windows(without, np.stack([0 * numbers(3, 1, 4, 5), numbers(3, 1, 4, 5) + 1], axis=1))


@pytest.mark.parametrize("path", [CFD, DIFFUSION_REACTION, DAM_BREAK])
def test_opened_trajectories_travel_to_another_process(catalog: Catalog, path: Path) -> None:
    trajectories = opened(catalog, path)
    before = trajectories.read(2, 1, 4)
    assert np.array_equal(pickle.loads(pickle.dumps(trajectories)).read(2, 1, 4), before)


def test_the_mixture_reads_them_on_its_own_grid_and_stride(catalog: Catalog) -> None:
    component = catalog.get(Dataset, "pdebench")(url=str(DAM_BREAK), test=1, stride=2)
    source = open_source(component, component.build("train", Path()), history=1, frames=1)
    assert (source.metadata.frames, source.metadata.time_step) == (3, 0.02)
    frames = read_frames(source, 1, 1, 3, Fields(channels=("a", "b"), grid=(16, 16), history=1))
    with h5py.File(DAM_BREAK) as file:
        assert np.array_equal(frames[:, 0], file["0001/data"][2:5:2, ..., 0])
    assert (frames[:, 1] == 1).all()


def contents(path: Path, prefix: str = "") -> dict[str, tuple[int, ...]]:
    with h5py.File(path) as file:
        return {prefix + name: file[name].shape for name in dataset_names(file)}


def test_its_layouts_are_recognised_and_others_are_not(catalog: Catalog, tmp_path: Path) -> None:
    recognise = catalog.get(Dataset, "pdebench").recognise
    steady, flow = darcy(tmp_path / "a.h5"), incompressible(tmp_path / "b.h5")
    line = write(tmp_path / "c.h5", {"tensor": numbers(2, 3, 4)})
    for path in (CFD, DIFFUSION_REACTION, DAM_BREAK, steady, flow, line):
        assert recognise(str(path), contents(path)) == {"url": str(path)}
    folder = contents(flow, "b.h5:") | contents(steady, "c.h5:")
    assert recognise("somewhere", folder) == {"url": "somewhere"}
    for other in ({}, {"data": (2, 3, 4)}, {"tensor": (2, 3)}, {"0000/data": (3, 4, 4, 1)}, {"train/u": (2, 3, 4, 4)}):
        assert recognise("other", other) is None


def test_other_layouts_are_named_with_what_was_expected(catalog: Catalog, tmp_path: Path) -> None:
    def message(arrays: Mapping[str, Any]) -> str:
        url = write(tmp_path / "wrong.h5", arrays)
        with pytest.raises(DataError, match=r"wrong\.h5: ") as caught:
            opened(catalog, url)
        return str(caught.value)

    flow = {name: numbers(2, 3, 4, 4) for name in ("Vx", "Vy", "density", "pressure")}
    assert "found: data; expected Vx, density and pressure" in message({"data": numbers(2, 3)})
    assert "'Vx' has shape (2, 3)" in message(flow | {"Vx": numbers(2, 3)})
    assert "'density' has shape (2, 3, 4, 5), expected (2, 3, 4, 4)" in message(flow | {"density": numbers(2, 3, 4, 5)})
    assert "has no 'Vy'" in message({name: flow[name] for name in ("Vx", "density", "pressure")})
    assert "expected (N, T, X), or (N, 1, X, Y) with 'nu'" in message({"tensor": numbers(2, 1, 4, 4)})
    assert "expected (N, 1, X, Y) and (N, X, Y)" in message({"tensor": numbers(2, 1, 4, 4), "nu": numbers(2, 4, 5)})
    grid = {"0000/grid/x": range(4)}
    gap = grid | {f"{number}/data": numbers(3, 4, 4, 1) for number in ("0000", "0002")}
    assert "group 0001 is missing; expected all from 0000 to 0002" in message(gap)
    assert "'0000/data' has shape (3, 4); expected (T, X, C)" in message(grid | {"0000/data": numbers(3, 4)})
    force = {"velocity": numbers(1, 3, 4, 4, 2), "particles": numbers(1, 3, 4, 4, 1), "force": numbers(1, 4, 4, 1)}
    assert "expected (N, T, X, Y, 2)" in message(force)


def test_files_of_different_kinds_in_one_folder_are_told_apart(catalog: Catalog, tmp_path: Path) -> None:
    write(tmp_path / "set" / "a.h5", {"tensor": numbers(2, 3, 6)})
    write(tmp_path / "set" / "b.h5", {"tensor": numbers(2, 4, 6)})
    with pytest.raises(DataError, match=r"a\.h5 holds .*\(u\) on 6, 3 frames, but .*b\.h5 holds .* 4 frames"):
        opened(catalog, tmp_path / "set")
    with pytest.raises(DataError, match=r"empty holds no files \*\.h5"):
        opened(catalog, tmp_path / "empty")


def test_a_group_that_differs_is_named_when_it_is_read(catalog: Catalog, tmp_path: Path) -> None:
    arrays = {"0000/data": numbers(3, 4, 4, 1), "0001/data": numbers(2, 4, 4, 1), "0000/grid/x": range(4)}
    trajectories = opened(catalog, write(tmp_path / "uneven.h5", arrays))
    with pytest.raises(DataError, match=r"'0001/data' has shape \(2, 4, 4, 1\), expected \(3, 4, 4, 1\)"):
        trajectories.read(1, 0, 1)


@pytest.mark.parametrize("path", [CFD, DIFFUSION_REACTION])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.98])
def test_a_truncated_file_gives_a_message_and_no_data(
    catalog: Catalog, tmp_path: Path, path: Path, part: float
) -> None:
    whole = path.read_bytes()
    short = tmp_path / path.name
    short.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(DataError, match=rf"{path.name}: .*truncated"):
        opened(catalog, short).read(2, 0, 5)


def test_times_that_are_too_few_or_not_equidistant_give_no_time_step(catalog: Catalog, tmp_path: Path) -> None:
    uneven = np.append(np.arange(200), 205)
    for name, times in (("uneven", uneven), ("short", np.arange(200)), ("backwards", -np.arange(201)), ("none", [])):
        url = write(tmp_path / f"{name}.h5", {"tensor": numbers(1, 201, 3), "t-coordinate": np.array(times, "f4")})
        assert opened(catalog, url).metadata.time_step is None
