"""What is kept of a dataset is known by what its numbers depend on: settings, revision, and versions of files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, final

import attrs
import fsspec
import pytest
from attrs import frozen

from opframe.files.cache import RemoteCache
from opframe.files.stamps import stamps
from opframe.mixture.source import Source
from opframe.mixture.statistics import Statistics
from opframe.readers.solved import solved_path
from opframe.tools.packing_plan import Packing
from opframe.tools.selection import Part
from opframe_normalizers import MeanAndDeviation
from opframe_registry import Catalog, DataError, Dataset, Location, Metadata, Split, Trajectories
from remote_support import one
from servers import FileServer


class Described:
    """Trajectories that are only described."""

    metadata = Metadata(
        trajectories=4,
        frames=12,
        grid=(16, 16),
        channels=("u", "v"),
        predicted=("u",),
        time_step=0.5,
        split="the first 4",
    )


SOLVED = [
    ("navier_stokes", {}, "navier_stokes-3b73af90cc/train-64.h5"),
    (
        "navier_stokes",
        {
            "label": "a",
            "viscosity": 1e-4,
            "train": 192,
            "test": 16,
            "exclude": (3,),
            "stride": 2,
            "rollout": 4,
            "weight": 3.0,
        },
        "navier_stokes-6784736a82/train-192.h5",
    ),
    ("diffusion_reaction", {}, "diffusion_reaction-88267094d5/train-32.h5"),
    ("radial_dam_break", {}, "radial_dam_break-430ae9d158/train-32.h5"),
    ("radial_dam_break", {"resolution": 64, "frames": 21, "train": 5}, "radial_dam_break-adccc0a695/train-5.h5"),
]
"""Where the first version kept what it solved."""


@pytest.mark.parametrize(("name", "settings", "path"), SOLVED)
def test_data_that_were_solved_before_are_found(
    catalog: Catalog, name: str, settings: Mapping[str, object], path: str
) -> None:
    component = catalog.get(Dataset, name)(**settings)
    assert str(solved_path(component, "train", component.train, Path())) == path


def test_statistics_and_packed_files_that_were_made_before_are_found(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.h5").write_bytes(b"0123456789")
    os.utime("one.h5", ns=(10**18, 10**18))
    component = catalog.get(Dataset, "prepared")(url="one.h5", label="a", test=2, exclude=(1,))
    part = Part(component=component, split="train", trajectories=Described())
    assert Packing(part=part, path=Path("p")).fingerprint == "df4d565a56e9b95ca31b11f62b9883b6"
    kept = Path("cache/statistics/prepared-4944be368290f28e.json")
    kept.parent.mkdir(parents=True)
    kept.write_text('{"mean": [1.0, 2.0], "deviation": [3.0, 4.0]}')
    source = attrs.evolve(part.source, excluded=(1,))
    statistics = Statistics(
        component=component, source=source, frames=12, cache=Path("cache"), normalizer=MeanAndDeviation()
    )
    assert statistics.read().state_dict()["mean"].tolist() == [1.0, 2.0]


PLACE = Location("a/{split}.h5")


@final
@frozen(kw_only=True)
class Anew(Dataset):
    """Declares fields of its base again, as solved data do, and has locations of every kind."""

    name: ClassVar[str] = "anew"
    revision: ClassVar[int] = 3
    train: int = 5
    stride: int = attrs.field(default=2, metadata={"help": "with a help of its own"})
    rollout: int | None = 4
    place: Location = PLACE
    other: Location | None = None
    several: tuple[Location, ...] = ()
    path: str = "no/location"

    def build(self, split: Split, cache: Path) -> Trajectories:
        raise DataError("is not built")


def test_a_field_changes_numbers_or_selects_or_does_neither_also_where_it_is_declared_anew() -> None:
    known = Anew(label="x", weight=2.0, exclude=(1,)).identity()
    assert known.selection == {"train": 5, "test": None, "exclude": (1,), "stride": 2}
    assert set(known.numbers) == {"place", "other", "several", "path"}
    assert (known.type, known.revision, known.files) == ("anew", 3, {})
    assert known == Anew(label="y", rollout=1, exclude=(1,)).identity()


def test_every_file_that_a_setting_names_has_its_stamp() -> None:
    component = Anew(other=Location("b.h5"), several=(Location("c/*.h5"), Location("b.h5")))
    asked: list[str] = []

    def stamped(url: str) -> Mapping[str, tuple[int | str, ...]]:
        asked.append(url)
        return {url: (1, 2)}

    assert component.identity(stamped).files == dict.fromkeys(("a/train.h5", "a/test.h5", "b.h5", "c/*.h5"), (1, 2))
    assert len(asked) == 4
    assert set(component.identity(stamped, ("test",)).files) == {"a/test.h5", "b.h5", "c/*.h5"}


def test_stamps_are_of_all_files_of_a_path_a_folder_or_a_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "set.zarr"
    for name in ("c/0/0", "c/0/1", "zarr.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far").write_text("far")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    inside = {str(folder / name) for name in ("c/0/0", "c/0/1", "zarr.json", "linked/far")}
    assert set(stamps(str(folder))) == inside
    assert set(stamps(f"file://{tmp_path}/s?t.zarr")) == inside
    single = folder / "zarr.json"
    assert stamps(str(single)) == {str(single): (9, single.stat().st_mtime_ns)}
    assert stamps(str(tmp_path / "nothing*")) == stamps(str(tmp_path / "nothing")) == {}
    (tmp_path / "[1].h5").write_text("a name, no pattern")
    assert set(stamps(str(tmp_path / "[1].h5"))) == {str(tmp_path / "[1].h5")}


def test_a_remote_file_is_known_by_what_its_server_calls_the_version(server: FileServer) -> None:
    url = server.serve("a.h5", b"1234")
    first = stamps(url)
    assert [stamp[0] for stamp in first.values()] == [4]
    assert stamps(url) == first
    server.serve("a.h5", b"5678")
    assert stamps(url).keys() == first.keys()
    assert stamps(url) != first
    server.etags = server.times = False
    assert stamps(url) == stamps(server.url("nothing.h5")) == {}
    memory = fsspec.filesystem("memory")
    memory.pipe({"/stamped/b/0.h5": b"1", "/stamped/c.h5": b"12"})
    assert [stamp[0] for stamp in stamps("memory://stamped").values()] == [1, 2]
    assert [stamp[0] for stamp in stamps("memory://stamped/*.h5").values()] == [2]


def test_a_server_that_does_not_answer_is_an_error(
    server: FileServer, cache: RemoteCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opframe.files.location.remote_cache", lambda: cache)  # which waits shortly
    url = server.serve("a.h5", b"1234")
    server.busy_until = float("inf")
    with pytest.raises(DataError, match=r"a\.h5"):
        stamps(url)


def described(component: Dataset, cache: Path) -> Statistics:
    source = Source(title="it", weight=1.0, rollout=1, trajectories=Described())
    return Statistics(component=component, source=source, frames=12, cache=cache, normalizer=MeanAndDeviation())


@pytest.mark.parametrize("where", ["pattern", "remote"])
def test_statistics_are_not_those_of_a_file_that_was_replaced(
    catalog: Catalog, tmp_path: Path, server: FileServer, where: str
) -> None:
    def put(content: bytes) -> str:
        (tmp_path / "0.npy").write_bytes(content)
        return server.serve("0.npy", content) if where == "remote" else str(tmp_path / "*.npy")

    component = catalog.get(Dataset, "array")(url=put(b"before"), axes="n t x y")
    statistics = described(component, tmp_path / "cache")
    kept = statistics._path(statistics._identity())
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    assert statistics.known
    put(b"after it")
    assert not statistics.known


def test_statistics_that_were_kept_without_stamps_become_those_of_the_files_that_are_there(
    catalog: Catalog, tmp_path: Path
) -> None:
    file = tmp_path / "0.npy"
    file.write_bytes(one())
    statistics = described(catalog.get(Dataset, "array")(url=str(tmp_path / "*.npy"), axes="n t x y"), tmp_path)
    earlier = statistics._path({**statistics._identity(), "files": {}})
    earlier.parent.mkdir()
    earlier.write_text('{"mean": [1.0, 2.0], "deviation": [3.0, 4.0]}')
    os.utime(earlier, ns=(1, file.stat().st_mtime_ns - 1))
    assert not statistics.known
    os.utime(earlier, ns=(1, file.stat().st_mtime_ns + 1))
    statistics.prepare(lambda *_: None)
    assert statistics.read().state_dict()["mean"].tolist() == [1.0, 2.0]
    os.utime(file, ns=(1, 1))
    assert not statistics.known
