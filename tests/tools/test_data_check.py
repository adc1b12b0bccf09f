"""`opframe data check`, and training without trajectories that are bad."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

from data_support import Command, command, damaged, write_experiment
from opframe.console import Bar
from opframe.mixture.moments import moments
from opframe.mixture.source import left_out
from opframe.run.assembly import Sources, open_sources
from opframe.run.experiment import load_experiment
from opframe.tools.audit import Audit, audit
from opframe.tools.audit_report import channel_records, verdict
from opframe.tools.health import examine
from opframe.tools.selection import load_selection, open_part, splits
from opframe.tools.work import processes
from opframe_registry import Catalog, DataError, Dataset, Metadata
from support import waves, write_prepared

__all__ = ["command"]


def checked(path: Path, catalog: Catalog, *overrides: str, jobs: int = 1) -> dict[tuple[str, str], Audit]:
    selection = load_selection(path, catalog, overrides)
    parts = [open_part(component, split, selection) for component, split in splits(selection)]
    total = sum(part.trajectories.metadata.trajectories for part in parts)
    with processes(jobs) as pool:
        audits = audit(parts, pool, Bar(Console(), "checking", total, shown=False))
    return {(found.part.title, found.part.split): found for found in audits}


def remarks(found: Audit) -> list[tuple[bool, int, str]]:
    return [(finding.bad, finding.trajectory, finding.what) for finding in found.findings]


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_fault_is_found_and_named(tmp_path: Path, catalog: Catalog, jobs: int) -> None:
    audits = checked(write_experiment(tmp_path, damaged()), catalog, jobs=jobs)
    assert remarks(audits["one", "train"]) == [
        (True, 1, "1 value is not finite; the first is nan in frame 7, channel 'c0', point (2, 5)"),
        (True, 2, "all 12 frames are the same"),
        (False, 3, "6 of 12 frames repeat the one before"),
        (False, 4, "values span 199.9, 100 times the median trajectory"),
    ]
    leak = "the same as trajectory 5 of one (train): test data that are trained on"
    assert remarks(audits["one", "test"]) == [(True, 1, leak)]
    assert not audits["two", "train"].findings
    assert not audits["two", "test"].findings
    lines = verdict(list(audits.values()))
    assert lines == ["3 of 16 trajectories are bad", "to train without them: [[datasets]] of one: exclude = [1, 2, 5]"]


@pytest.mark.parametrize("missing", [np.nan, -999.0])
def test_missing_values_are_not_bad_and_count_in_no_statistics(
    tmp_path: Path, catalog: Catalog, missing: float
) -> None:
    data = waves(6, 12, 16)
    plain = checked(write_experiment(tmp_path / "plain", data), catalog)["one", "train"]
    data[:, 3:5, 4:9], data[2, 7, 7, 6:] = missing, missing
    data[1, 8, 8, 3] = np.inf
    path = write_experiment(tmp_path, data)
    with h5py.File(tmp_path / "one.h5", "r+") as file:
        file["data"].attrs["missing"] = missing
    found = checked(path, catalog)["one", "train"]
    [(bad, number, what)] = remarks(found)
    assert (bad, number) == (True, 1)
    assert what == "1 value is not finite; the first is inf in frame 3, channel 'c0', point (8, 8)"
    assert not plain.findings
    assert found.course is not None
    there = np.delete(data[:4, ..., 0], 1, axis=0)  # trajectories, X, Y, T
    there = np.where(there == missing, np.nan, there)
    for part, frames in ((found.course.first, there[..., 0]), (found.course.last, there[..., -1])):
        assert np.allclose(part.mean, np.nanmean(frames), atol=1e-6)
        assert np.allclose(part.std, np.nanstd(frames), atol=1e-6)
    assert np.allclose(found.course.whole.mean, np.nanmean(there), atol=1e-6)
    assert np.allclose(found.course.whole.std, np.nanstd(there), atol=1e-6)


def test_what_the_check_proposes_to_exclude_leaves_nothing_bad(tmp_path: Path, catalog: Catalog) -> None:
    path = write_experiment(tmp_path, damaged())
    audits = checked(path, catalog, "datasets.0.exclude=[1, 2, 5]")
    assert not any(found.bad for found in audits.values())
    assert verdict(list(audits.values())) == ["nothing bad in 13 trajectories"]


def test_a_frame_that_begins_two_trajectories_is_a_remark_unless_it_is_blank(tmp_path: Path, catalog: Catalog) -> None:
    data = waves(6, 8, 16)
    data[2, :, :, 0] = data[4, :, :, 0]
    data[0, :, :, 0], data[5, :, :, 0] = 0, 0
    found = checked(write_experiment(tmp_path, data), catalog)
    words = "begins with the same frame as trajectory 2 of one (train)"
    assert remarks(found["one", "test"]) == [(False, 0, words), (False, 1, "1 of 8 frames are constant in space")]
    assert not any(audit.bad for audit in found.values())


def test_frames_that_a_stride_skips_are_not_looked_at(tmp_path: Path, catalog: Catalog) -> None:
    data = waves(6, 12, 16)
    data[0, :4, :, 5], data[1, :4, :, 6] = np.inf, np.inf
    found = checked(write_experiment(tmp_path, data), catalog, "datasets.0.stride=3")["one", "train"]
    assert [finding[:2] for finding in remarks(found)] == [(True, 1)]
    assert "64 values are not finite; the first is inf in frame 6" in remarks(found)[0][2]


def test_statistics_are_those_of_all_values_at_once(tmp_path: Path, catalog: Catalog) -> None:
    two = (waves(6, 10, 16, channels=2) * np.linspace(1, 2, 10)[:, None] + 1000).astype("f4")
    found = checked(write_experiment(tmp_path, waves(6, 12, 16), two), catalog)["two", "train"]
    exact = two[:4].astype("f8")
    for channel, record in enumerate(channel_records(found)):
        values = exact[..., channel]
        assert record["mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert record["std"] == pytest.approx(values.std(), rel=1e-9)
        assert (record["min"], record["max"]) == (values.min(), values.max())
        assert record["growth"] == pytest.approx(values[..., -1].std() / values[..., 0].std(), rel=1e-9)
        drift = (values[..., -1].mean() - values[..., 0].mean()) / values.std()
        assert record["drift"] == pytest.approx(drift, abs=1e-9)


def test_statistics_of_pieces_add_up(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(1e4, 1.0, (2, 3, 50)).astype("f4")
    pieces = moments(values[..., :7], 2) + moments(values[..., 7:], 2)
    assert np.allclose(pieces.over(1).std, values.astype("f8").std(axis=(1, 2)), rtol=1e-10)
    assert np.allclose(pieces.mean, values.astype("f8").mean(axis=2), rtol=1e-13)


def test_a_trajectory_of_many_blocks_is_examined_as_one(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = damaged()
    trajectories = catalog.get(Dataset, "prepared")(url=str(write_prepared(tmp_path / "one.h5", data))).build(
        "test", Path()
    )
    whole = [examine(trajectories, number) for number in range(10)]
    monkeypatch.setattr("opframe.tools.health.BLOCK", 5 * 4 * 16 * 16)
    for one, number in zip(whole, range(10), strict=True):
        blocks = examine(trajectories, number)
        assert (blocks.first, blocks.whole, blocks.stuck, blocks.place) == (one.first, one.whole, one.stuck, one.place)


def test_the_check_prints_a_table_writes_a_report_and_fails(tmp_path: Path, command: Command) -> None:
    path = write_experiment(tmp_path, damaged())
    done = command("data", "check", path, "--jobs", 1, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert "one (train): 8 trajectories, 2 bad, 2 remarks" in done.stdout
    assert "exclude = [1, 2, 5]" in done.stdout
    report = json.loads((tmp_path / "out" / "check.json").read_text())
    assert [(item["dataset"], item["split"], item["bad"]) for item in report][:2] == [
        ("one", "train", [1, 2]),
        ("one", "test", [1]),
    ]
    assert "- **bad**: trajectory 1: 1 value is not finite" in (tmp_path / "out" / "check.md").read_text()
    good = command("data", "check", path, "--jobs", 1, "--set", "datasets.0.exclude=[1, 2, 5]")
    assert (good.returncode, "nothing bad in 13 trajectories" in good.stdout) == (0, True)


def test_a_file_that_ends_early_is_named(tmp_path: Path, catalog: Catalog) -> None:
    path = write_experiment(tmp_path, waves(6, 12, 16))
    write_prepared(tmp_path / "one.h5", waves(6, 12, 16), chunks=(1, 16, 16, 12, 1))
    with h5py.File(tmp_path / "one.h5") as file:
        place = file["data"].id.get_chunk_info(2)
    with (tmp_path / "one.h5").open("r+b") as raw:
        raw.truncate(place.byte_offset + 10)
    with pytest.raises(DataError, match=r"one.h5: .*truncated"):
        checked(path, catalog)


def sources_of(path: Path, catalog: Catalog, *overrides: str) -> Sources:
    return open_sources(load_experiment(path, catalog, overrides))


def test_excluded_trajectories_are_never_read_in_training(tmp_path: Path, catalog: Catalog) -> None:
    path = write_experiment(tmp_path, waves(10, 12, 16))
    sources = sources_of(path, catalog, "datasets.0.exclude=[5, 0, 2]")
    everything = sources_of(path, catalog).train[0]
    source = sources.train[0]
    assert (source.metadata.trajectories, source.population(5).trajectories) == (5, 5)
    for used, number in enumerate([1, 3, 4, 6, 7]):
        assert source.number(used) == number
        assert np.array_equal(source.read(used, 2, 5), everything.read(number, 2, 5))
    assert sources.test[0].metadata.trajectories == 2
    assert left_out(sources.train) == ["one: training without 3 of 8 trajectories: 0, 2, 5"]


@pytest.mark.parametrize(
    ("excluded", "message"),
    [([8], "exclude names trajectory 8, but they are numbered 0 to 7"), (list(range(8)), "nothing is left to train")],
)
def test_excluding_what_is_not_there_or_everything_is_refused(
    tmp_path: Path, catalog: Catalog, excluded: list[int], message: str
) -> None:
    path = write_experiment(tmp_path, waves(10, 12, 16))
    with pytest.raises(DataError, match=message):
        sources_of(path, catalog, f"datasets.0.exclude={excluded}")


def test_parameters_of_excluded_trajectories_go_with_them(catalog: Catalog) -> None:
    from opframe.mixture.source import without

    metadata = Metadata(
        trajectories=3,
        frames=2,
        grid=(4,),
        channels=("u",),
        predicted=("u",),
        parameters={"a": (1.0, 2.0, 3.0), "b": (7.0,)},
    )
    assert without(metadata, (1,)).parameters == {"a": (1.0, 3.0), "b": (7.0,)}


def test_a_run_names_what_it_leaves_out_and_trains(tmp_path: Path, command: Command) -> None:
    path = write_experiment(tmp_path, damaged())
    done = command("run", path, "--set", "datasets.0.exclude=[1, 2, 5]", "--stop-at", 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("one: training without 3 of 8 trajectories: 1, 2, 5") == 1
