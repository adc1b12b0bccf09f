"""What a dataset promises."""

from __future__ import annotations

import json
import os
import pickle
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast, get_args

import numpy as np
from numpy.typing import NDArray

from opframe_registry.components import Dataset
from opframe_registry.errors import DataError
from opframe_registry.metadata import Metadata, facts
from opframe_registry.testing.promise import Case, NotApplicableError, Promise, expected, require
from opframe_registry.values import Split, Trajectories

Window = tuple[int, int, int]
_FRAMES = 6  # of a trajectory that are read at most


def _settings(case: Case) -> Dataset:
    return cast("Dataset", case.component)


def _cache(case: Case) -> Path:
    """Where the dataset keeps what it makes, made once."""

    def prepared() -> Path:
        folder = case.folder / "cache"
        folder.mkdir(parents=True, exist_ok=True)
        _settings(case).prepare(folder, lambda what, done, total: None)
        return folder

    return case.once("cache", prepared)


def _opened(case: Case, split: Split = "train") -> Trajectories:
    cache = _cache(case)
    return case.once(("opened", split), lambda: _settings(case).build(split, cache))


def _windows(metadata: Metadata, count: int = 12) -> list[Window]:
    """Some windows, of the first and last trajectories and frames among them."""
    draw, found = random.Random(0), []
    for number in range(count):
        trajectory = (0, metadata.trajectories - 1)[number] if number < 2 else draw.randrange(metadata.trajectories)
        length = metadata.length(trajectory)
        if length == 0:
            continue
        start = (0, length - 1)[number] if number < 2 else draw.randrange(length)
        found.append((trajectory, start, min(start + 1 + draw.randrange(3), length)))
    return found


def _whole(case: Case, trajectory: int) -> NDArray[np.float32]:
    data = _opened(case)
    stop = min(data.metadata.length(trajectory), _FRAMES)
    return case.once(("whole", trajectory), lambda: np.array(data.read(trajectory, 0, stop)))


def _same(one: NDArray[np.float32], two: NDArray[np.float32]) -> bool:
    return one.shape == two.shape and np.array_equal(one, two, equal_nan=True)


def metadata_are_true(case: Case) -> None:
    """Frames have the type, channels and grid that the metadata say; there are as many trajectories, as long."""
    for split in _settings(case).splits():
        data = _opened(case, split)
        own = data.metadata
        require(own.trajectories > 0 and own.frames > 0, f"there are {own.trajectories} trajectories in '{split}'")
        require(set(own.predicted) <= set(own.channels), f"predicted are {own.predicted}, of {own.channels}")
        require(len(own.units) in (0, len(own.channels)), "units are neither left out nor one for each channel")
        require(own.spacing is None or len(own.spacing) == len(own.grid), "spacing is not one for each axis")
        for trajectory, start, stop in _windows(own, 4):
            frames = data.read(trajectory, start, stop)
            shape = (stop - start, len(own.channels), *own.grid)
            require(frames.shape == shape, f"frames have the shape {frames.shape}, the metadata say {shape}")
            require(frames.dtype == np.float32, f"frames are {frames.dtype}, expected float32")


def values_are_finite(case: Case) -> None:
    """Every value is finite, but for the one that the metadata declare as missing."""
    data = _opened(case)
    for trajectory, start, stop in _windows(data.metadata):
        frames = data.read(trajectory, start, stop)
        missing = data.metadata.missing
        there = np.ones(frames.shape, bool) if missing is None else ~(np.isnan(frames) | (frames == missing))
        require(bool(np.isfinite(frames[there]).all()), f"trajectory {trajectory} holds values that are not finite")


def windows_are_parts_of_trajectories(case: Case) -> None:
    """A window holds the same frames as the whole trajectory does there."""
    own = _opened(case).metadata
    for trajectory in {0, own.trajectories - 1}:
        whole = _whole(case, trajectory)
        for start in range(len(whole)):
            for stop in range(start + 1, len(whole) + 1):
                window = _opened(case).read(trajectory, start, stop)
                require(_same(window, whole[start:stop]), f"frames {start}..{stop} of trajectory {trajectory} differ")


def the_order_of_reads_does_not_matter(case: Case) -> None:
    """A window is the same whatever was read before, also when what was read is written to."""
    data = _opened(case)
    windows = _windows(data.metadata)
    first = {window: np.array(data.read(*window)) for window in windows}
    for window in reversed(windows):
        frames = data.read(*window)
        require(_same(frames, first[window]), f"{window} is another one the second time")
        if frames.flags.writeable:
            frames[...] = -1e30
    for window in windows:
        require(_same(data.read(*window), first[window]), f"{window} changes with what was done to a window before")


def beyond_the_end_is_refused(case: Case) -> None:
    """Frames or trajectories that are not there raise DataError, beyond the end of each trajectory, long or short."""
    data = _opened(case)
    own = data.metadata
    for trajectory in _some_of_each_length(own):
        length = own.length(trajectory)
        with expected(DataError, f"reading beyond the last frame of trajectory {trajectory}"):
            data.read(trajectory, max(length - 1, 0), length + 1)
    with expected(DataError, "reading beyond the last trajectory"):
        data.read(own.trajectories, 0, 1)


def every_trajectory_is_as_long_as_said(case: Case) -> None:
    """The last frame of a trajectory, long or short, can be read, in each split."""
    for split in _settings(case).splits():
        data = _opened(case, split)
        for trajectory in _some_of_each_length(data.metadata):
            length = data.metadata.length(trajectory)
            if length:
                frames = data.read(trajectory, length - 1, length)
                require(
                    len(frames) == 1, f"the last frame of trajectory {trajectory} in '{split}' is {len(frames)} frames"
                )


def _some_of_each_length(metadata: Metadata) -> list[int]:
    """The first and last trajectory, and one of each length."""
    lengths = {metadata.length(number): number for number in reversed(range(metadata.trajectories))}
    return sorted({0, metadata.trajectories - 1, *list(lengths.values())[:50]})


def splits_have_the_same_channels(case: Case) -> None:
    """Training, validation and test data have the same channels, of which the same are predicted, and as many axes."""
    metadata = {split: _opened(case, split).metadata for split in _settings(case).splits()}
    for split, own in metadata.items():
        train = metadata["train"]
        for what, one, two in (
            ("channels", train.channels, own.channels),
            ("predicted", train.predicted, own.predicted),
            ("axes of the grid", len(train.grid), len(own.grid)),
        ):
            require(one == two, f"{what} are {one} in 'train' and {two} in '{split}'")


def parameters_are_those_of_all_or_of_each(case: Case) -> None:
    """A parameter has one value for all trajectories, or one for each; channels have different names."""
    for split in _settings(case).splits():
        own = _opened(case, split).metadata
        for name, values in own.parameters.items():
            right = len(values) in (1, own.trajectories)
            require(
                right, f"parameter '{name}' has {len(values)} values for {own.trajectories} trajectories of '{split}'"
            )
        require(len(set(own.channels)) == len(own.channels), f"two channels have one name: {own.channels}")


def what_is_opened_again_is_the_same(case: Case) -> None:
    """Another object of the same settings has the same metadata and frames, without being prepared again."""
    data, other = _opened(case), _settings(case).build("train", _cache(case))
    require(facts(data.metadata) == facts(other.metadata), "what is opened again has other metadata")
    for window in _windows(data.metadata, 6):
        require(_same(data.read(*window), other.read(*window)), f"{window} is another one where it is opened again")


def its_identity_can_be_kept(case: Case) -> None:
    """The identity is of plain values that JSON holds, and the same in another process."""
    settings = _settings(case)
    _cache(case)
    here = _as_json(settings)
    there = case.helper.call(_as_json, settings)
    require(here == there, f"the identity is {here} here, and {there} in another process")


def _as_json(settings: Dataset) -> str:
    found = settings.identity()
    return json.dumps([found.settings, sorted(found.files)], sort_keys=True)


def copies_read_in_threads(case: Case) -> None:
    """Pickled copies read the same in several threads at once, each its own."""
    data = _opened(case)
    windows = _windows(data.metadata)
    plain = [np.array(data.read(*window)) for window in windows]
    content = pickle.dumps(data)

    def read(_: int) -> list[NDArray[np.float32]]:
        own = pickle.loads(content)
        return [np.array(own.read(*window)) for window in windows]

    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(read, range(3)):
            require(all(map(_same, found, plain)), "a copy in another thread reads other frames")


def another_process_reads_the_same(case: Case) -> None:
    """A copy that is sent to a spawned process reads the same there."""
    data = _opened(case)
    windows = _windows(data.metadata, 4)
    found = case.helper.call(_read_all, pickle.dumps(data), windows)
    require(all(map(_same, found, [data.read(*window) for window in windows])), "another process reads other frames")


def _read_all(content: bytes, windows: list[Window]) -> list[NDArray[np.float32]]:
    data = pickle.loads(content)
    return [np.array(data.read(*window)) for window in windows]


def open_files_are_bounded(case: Case) -> None:
    """Reading again and again leaves no more files open."""
    if not Path("/proc/self/fd").exists():
        raise NotApplicableError("this system does not say which files are open")
    data = _opened(case)
    windows = _windows(data.metadata)
    for window in windows:
        data.read(*window)
    before = len(os.listdir("/proc/self/fd"))
    for window in windows * 5:
        data.read(*window)
    after = len(os.listdir("/proc/self/fd"))
    require(after <= before + 2, f"{after - before} more files are open after reading the same windows again")


def the_cost_of_a_window_is_known(case: Case) -> None:
    """A window is read in finite time, which is said."""
    data = _opened(case)
    windows = _windows(data.metadata)
    began = time.perf_counter()
    size = sum(data.read(*window).nbytes for window in windows)
    seconds = (time.perf_counter() - began) / len(windows)
    case.facts.append(f"a window of {size / len(windows) / 1e3:.1f} kB takes {1e3 * seconds:.2f} ms")
    require(seconds < 60, f"a window takes {seconds:.0f} s")


def splits_are_those_that_can_be_built(case: Case) -> None:
    """`splits()` names training and test data, and each split that it names can be built."""
    _cache(case)
    splits = _settings(case).splits()
    known = get_args(Split)
    require(set(splits) <= set(known), f"splits() gives {splits}, known are {known}")
    require({"train", "test"} <= set(splits), f"splits() gives {splits}, without training or test data")
    for split in splits:
        _opened(case, split)


def its_identity_is_stable(case: Case) -> None:
    """Equal settings have an equal identity, and another label changes nothing of it."""
    import attrs

    settings = _settings(case)
    _cache(case)
    require(settings.identity() == settings.identity(), "the identity is another one the second time")
    other = attrs.evolve(settings, label="another name", weight=2.0)
    require(settings.identity() == other.identity(), "another label or weight changes the identity")


PROMISES: tuple[Promise, ...] = (
    metadata_are_true,
    values_are_finite,
    windows_are_parts_of_trajectories,
    the_order_of_reads_does_not_matter,
    beyond_the_end_is_refused,
    every_trajectory_is_as_long_as_said,
    splits_have_the_same_channels,
    parameters_are_those_of_all_or_of_each,
    what_is_opened_again_is_the_same,
    copies_read_in_threads,
    another_process_reads_the_same,
    open_files_are_bounded,
    the_cost_of_a_window_is_known,
    splits_are_those_that_can_be_built,
    its_identity_is_stable,
    its_identity_can_be_kept,
)
