"""A run finds test data that are trained on, by the first frames of trajectories, and says so where it is read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_support import Command, command, write_experiment
from opframe.mixture import fingerprints
from opframe.mixture.overlap import Overlap, advice
from opframe.run import assembly
from opframe.run.experiment import load_experiment
from opframe.run.overlaps import with_test, with_validation
from opframe_registry import Catalog, DataError
from servers import FileServer
from support import waves, write_prepared

__all__ = ["command"]


def found(path: Path, catalog: Catalog, *overrides: str) -> tuple[list[Overlap], list[tuple[str, int, int]]]:
    """What meets, and the progress that was reported."""
    said: list[tuple[str, int, int]] = []
    overrides = (f"data.cache={path.parent / 'cache'}", *overrides)
    given = load_experiment(path, catalog, overrides)
    sources = assembly.open_sources(given)
    return with_test(given, sources, lambda *words: said.append(words)), said


def leaking(grid: int = 16) -> NDArray[np.float32]:
    """Ten trajectories, the last two for the test, of which the second is trained on twice."""
    data = waves(10, 12, grid)
    data[9] = data[2] = data[5]
    return data


def test_test_trajectories_that_are_trained_on_are_named_and_leaving_them_out_mends_it(
    tmp_path: Path, catalog: Catalog
) -> None:
    path = write_experiment(tmp_path, leaking())
    ((one,), said) = found(path, catalog, "datasets.0.exclude=[7]")
    assert (one.evaluated, one.trajectories, one.count, one.same) == ("one", (1,), 2, True)
    assert (one.trained, one.training_trajectories, one.zero_shot) == ("one", (2, 5), False)
    assert advice([one]) == ["to train without them: [[datasets]] of one: exclude = [2, 5, 7]"]
    assert said[-1] == ("fingerprints of trajectories", 15, 15)
    assert found(path, catalog, "datasets.0.exclude=[2, 5, 7]") == ([], [])


def test_it_is_found_across_datasets_in_zero_shot_data_and_whatever_the_stride(
    tmp_path: Path, catalog: Catalog
) -> None:
    path = write_experiment(tmp_path, waves(10, 12, 16))
    write_prepared(tmp_path / "other.h5", waves(4, 9, 16)[2:])
    with path.open("a") as file:
        file.write('[[zero_shot]]\ntype = "prepared"\nlabel = "other"\nurl = "other.h5"\n')
    (one,) = found(path, catalog, "datasets.0.stride=2")[0]
    assert (one.evaluated, one.zero_shot, one.trajectories) == ("other", True, (0, 1))
    assert (one.trained, one.training_trajectories, one.same) == ("one", (2, 3), True)
    assert one.words.startswith(
        "TEST DATA ARE TRAINED ON: 2 of 2 zero-shot trajectories of other (0, 1) are the same as"
    )


def test_validation_data_are_compared_with_what_is_trained_on_and_with_what_is_tested(
    tmp_path: Path, catalog: Catalog
) -> None:
    data = waves(12, 12, 16)  # 0 to 9 for training, of which 2 and 7 are held out
    data[3], data[10] = data[2], data[7]
    path = write_experiment(tmp_path, data)
    given = load_experiment(path, catalog, [f"data.cache={tmp_path / 'cache'}", "data.validation=2"])
    sources = assembly.open_sources(given)
    said: list[tuple[str, int, int]] = []
    (one,) = with_validation(given, sources, lambda *words: said.append(words))
    assert (one.split, one.trajectories, one.training_trajectories) == ("validation", (2,), (3,))
    assert one.words.startswith("VALIDATION DATA ARE TRAINED ON: 1 of 2 validation trajectories of one (2) are the")
    assert advice([one])[0].startswith("[[datasets]] of one: `opframe data check` names")
    assert len(said) == 14
    (two,) = with_test(given, sources, lambda *words: said.append(words))
    assert (two.split, two.used, two.trajectories, two.training_trajectories) == ("test", "validation", (0,), (7,))
    assert two.words.startswith("TEST DATA ARE VALIDATED BY: 1 of 2 test trajectories of one (0) are the same as")
    assert advice([two]) == ["to train without them: [[datasets]] of one: exclude = [7]"]
    assert len(said) == 18  # those of training are known by now


def test_a_common_beginning_alone_is_said_otherwise(tmp_path: Path, catalog: Catalog) -> None:
    data = waves(10, 12, 16)
    data[8, :, :, 0] = data[3, :, :, 0]
    data[9] = data[4] * np.linspace(1, 1.005, 12, dtype="f4")[:, None]  # another solver, as it were
    other, same = sorted(found(write_experiment(tmp_path, data), catalog)[0], key=lambda one: one.same)
    assert (other.trajectories, other.training_trajectories, other.same) == ((0,), (3,), False)
    assert "begin with the same frame as training trajectories of one (3) and go on otherwise" in other.words
    assert advice([other]) == []
    assert (same.trajectories, same.training_trajectories) == ((1,), (4,))


def test_frames_that_are_constant_in_space_are_no_evidence(tmp_path: Path, catalog: Catalog) -> None:
    data = waves(10, 12, 16)
    data[[1, 4, 8], :, :, 0] = 3.0
    assert found(write_experiment(tmp_path, data), catalog)[0] == []


def test_each_first_frame_is_read_once_and_again_where_the_file_has_changed(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_experiment(tmp_path, waves(10, 12, 16))
    assert len(found(path, catalog, "datasets.0.exclude=[3]")[1]) == 15
    assert [words[1:] for words in found(path, catalog, "datasets.0.label=uno", "datasets.0.stride=2")[1]] == [(1, 1)]
    write_prepared(tmp_path / "new.h5", leaking()).replace(tmp_path / "one.h5")
    (one,), said = found(path, catalog)
    assert (one.trajectories, len(said)) == ((1,), 10)
    for kept in (tmp_path / "cache" / "fingerprints").iterdir():
        kept.write_text(kept.read_text()[:50])
    assert len(found(path, catalog)[1]) == 16


def test_what_was_read_is_kept_where_a_trajectory_cannot_be_read(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_experiment(tmp_path, waves(10, 12, 16))
    look = fingerprints._fingerprint

    def failing(trajectories: object, number: int) -> str | None:
        if number == 5:
            raise DataError("trajectory 5 cannot be read")
        return look(trajectories, number)

    monkeypatch.setattr(fingerprints, "_fingerprint", failing)
    with pytest.raises(DataError, match="trajectory 5"):
        found(path, catalog)
    monkeypatch.undo()
    assert len(found(path, catalog)[1]) == 11


def test_remote_trajectories_are_compared_several_at_a_time(
    tmp_path: Path, catalog: Catalog, server: FileServer
) -> None:
    path = write_experiment(tmp_path, leaking(64))  # 2 MB, of which each request brings a part
    url = server.serve("one.h5", (tmp_path / "one.h5").read_bytes())
    server.delay = 0.05
    (one,), said = found(path, catalog, f"datasets.0.url={url}")
    assert (one.trajectories, one.training_trajectories) == ((1,), (2, 5))
    assert len(said) == 16
    assert server.busiest > 1
    server.requests.clear()
    assert found(path, catalog, f"datasets.0.url={url}")[1] == []


def test_a_run_and_an_evaluation_say_it_on_the_console_and_in_the_report(tmp_path: Path, command: Command) -> None:
    path = write_experiment(tmp_path, leaking())
    words = "TEST DATA ARE TRAINED ON: 1 of 2 test trajectories of one (1) are the same as training trajectories of one"
    options = ["--set", f"data.cache={tmp_path / 'cache'}", "--set", "trainer.steps=1"]
    done = command("run", path, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(words) == 1  # beside the results: before, no test frame is read
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [one["training_trajectories"] for one in report["overlaps"]] == [[2, 5]]
    assert f"- **{words} (2, 5)." in (tmp_path / "run" / "report.md").read_text()
    evaluated = command(
        "evaluate", path, *options, "--set", f"init.from={tmp_path / 'run'}", "--set", f"run.folder={tmp_path / 'two'}"
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert "exclude = [2, 5]" in (tmp_path / "two" / "report.md").read_text()
    clean = command(
        "run", path, *options, "--set", "datasets.0.exclude=[2, 5]", "--set", f"run.folder={tmp_path / 'c'}"
    )
    assert (clean.returncode, "TRAINED ON" in clean.stdout) == (0, False)
    assert json.loads((tmp_path / "c" / "report.json").read_text())["overlaps"] == []
    off = command("run", path, *options, "--set", "evaluation.overlap=false", "--set", f"run.folder={tmp_path / 'off'}")
    assert (off.returncode, "TRAINED ON" in off.stdout) == (0, False)
    assert "training and test data not compared" in (tmp_path / "off" / "report.md").read_text()


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path: Path, catalog: Catalog) -> None:
    path = write_experiment(tmp_path, leaking())
    (tmp_path / "cache").write_text("a file in the place of the folder")
    with pytest.warns(UserWarning, match="fingerprints of the data are not kept"):
        assert len(found(path, catalog)[0]) == 1
