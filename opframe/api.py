"""What a script or a notebook uses: the public functions, which the command line is written on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, Literal, get_args, overload

import numpy as np
import torch
from attrs import evolve, field, frozen
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from opframe.config.settings import Experiment, Init
from opframe.evaluation import comparison
from opframe.evaluation.report import read_report
from opframe.evaluation.scores import Report
from opframe.files.atomic import write_atomically
from opframe.mixture.source import Source
from opframe.run import assembly, job
from opframe.run import experiment as experiments
from opframe.run.experiment import placed, to_toml
from opframe.run.folder import RunFolder
from opframe.run.job import Resume
from opframe.run.launching import launch_training
from opframe.run.lock import locked
from opframe.signals import SIGNALS, exit_code
from opframe.weights.checkpoints import latest_record
from opframe.weights.model import Pretrained
from opframe.weights.pretrained import read_pretrained
from opframe_registry import (
    Catalog,
    Conditions,
    ConfigError,
    Location,
    Metadata,
    RunError,
    Split,
    did_you_mean,
    discover,
)

__all__ = [
    "Comparison",
    "Data",
    "Pretrained",
    "Report",
    "Run",
    "compare",
    "evaluate",
    "forecast",
    "load_experiment",
    "load_pretrained",
    "open_data",
    "train",
]

Weights = str | Path
"""A weights folder, its URL, `org/name` of a Hugging Face repository, or a run folder."""

_KINDS = ("train", "evaluation", "test")


@frozen(kw_only=True)
class Run:
    """What became of training. `report` is there in the leading process, once the last step is done."""

    folder: Path
    step: int
    interrupted: bool
    report: Report | None = field(default=None, repr=False)
    signal: int | None = None
    interruption: str = ""

    def pretrained(self, dataset: str | None = None) -> Pretrained:
        """The network as the latest checkpoint has it. Raises OpframeError."""
        return load_pretrained(self.folder, dataset=dataset)

    def numbers(self, kind: str = "train") -> list[dict[str, Any]]:
        """What was logged of the steps, each with its `step`: of `train`, `evaluation` or `test`.

        A number that was not finite is None. Raises ConfigError for another kind, RunError where there is no record.
        """
        if kind not in _KINDS:
            raise ConfigError(f"kind = {kind!r}{did_you_mean(str(kind), _KINDS)}; there are {', '.join(_KINDS)}")
        path = self.folder / "metrics.jsonl"
        try:
            records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            return [record for record in records if record["kind"] == kind]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: cannot be read ({error})") from error


@frozen(kw_only=True, eq=False)
class Data(Sequence["NDArray[np.float32]"]):
    """One split of a dataset as an experiment uses it: thinned, and without the trajectories that it leaves out.

    An item is a whole trajectory (T, C, *grid), in the data's own units, on their own grid.
    """

    title: str
    _source: Source = field(repr=False)

    @property
    def metadata(self) -> Metadata:
        """What is known of it."""
        return self._source.metadata

    def __len__(self) -> int:
        return self.metadata.trajectories

    @overload
    def __getitem__(self, index: int) -> NDArray[np.float32]: ...

    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.float32]]: ...

    def __getitem__(self, index: int | slice) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        chosen = range(len(self))[index]
        return self.read(chosen) if isinstance(chosen, int) else [self.read(number) for number in chosen]

    def read(self, trajectory: int, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Frames [start, stop) of a trajectory, by default to its end: (T, C, *grid).

        Raises IndexError where there is no such trajectory or frame, DataError where they cannot be read.
        """
        number = range(len(self))[trajectory]
        length = self.metadata.length(number)
        end = length if stop is None else stop
        if not 0 <= start < end <= length:
            raise IndexError(f"{self.title}: frames [{start}, {end}) of trajectory {number}, which has {length}")
        return np.array(self._source.read(number, start, end), dtype=np.float32)


@frozen(kw_only=True)
class Comparison:
    """Finished runs beside each other."""

    by: str | None = None
    _runs: tuple[comparison.Finished, ...]

    def rows(self, measure: str = "full") -> list[list[str]]:
        """A head and a row for each run: L2RE of the whole roll-out (`full`), of one frame (`step`), or what else
        they have measured, by its name. Raises ConfigError for what none of them has.
        """
        known = comparison.measures(self._runs)
        if measure not in known:
            near = did_you_mean(measure, known)
            raise ConfigError(f"measure = {measure!r}{near}; these runs have {', '.join(known) or 'none'}")
        return comparison.rows(self._runs, measure, self.by)

    def markdown(self) -> str:
        """A table for each measure."""
        return comparison.markdown(self._runs, self.by)

    def write(self, folder: Path | str) -> None:
        """`comparison.md`, and where runs are set against a key also the figure `comparison.png`."""
        comparison.write_comparison(self._runs, self.by, Path(folder))

    def show(self, console: Console) -> None:
        """The tables, as wide as the console."""
        for table in comparison.make_tables(self._runs, self.by, console):
            console.print(table)

    def _repr_markdown_(self) -> str:
        return self.markdown()


def load_experiment(
    source: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    catalog: Catalog | None = None,
) -> Experiment:
    """Read an experiment: a TOML file, or the same tables as a mapping.

    `overrides` change single keys: `{"trainer.steps": 200}`, or `["trainer.steps=200"]` as on the command line.
    Relative paths in a file belong to its folder, all others to the working directory. Raises ConfigError listing every
    mistake.
    """
    file = source if isinstance(source, Mapping) else Path(source)
    changes = [overrides] if isinstance(overrides, str) else overrides
    return experiments.load_experiment(file, _known(catalog), changes)


def open_data(experiment: Experiment, split: Split = "train", *, quiet: bool = False) -> dict[str, Data]:
    """The data of an experiment by their titles, solved or computed first where that is needed.

    `test` has those that are only evaluated, too, and `validation` those that have such data, or of which some are held
    out. Raises ConfigError for another split, DataError.
    """
    if split not in get_args(Split):
        near = did_you_mean(str(split), get_args(Split))
        raise ConfigError(f"split = {split!r}{near}; there are {', '.join(get_args(Split))}")
    job.prepare(experiment, _console(quiet))
    opened = assembly.open_sources(experiment, normalise=False)
    sources = {
        "train": opened.train,
        "validation": opened.validation,
        "test": (*opened.test, *opened.zero_shot),
    }
    return {source.title: Data(title=source.title, source=source) for source in sources[split]}


def train(
    experiment: Experiment,
    *,
    resume: bool | Literal["auto"] = False,
    stop_at: int | None = None,
    processes: int = 1,
    quiet: bool = False,
    how_to_continue: str = "train(experiment, resume=True)",
    catalog: Catalog | None = None,
) -> Run:
    """Train, evaluate and report, into `experiment.run.folder`; in this process, or in several of this machine.

    `resume` goes on from the latest checkpoint, if there is one; "auto" sets damaged ones aside before.
    `stop_at` ends after a step, saved. Ctrl-C saves. Several processes read the experiment and find plugins by
    themselves, and write on this one's stdout unless it is `quiet`.
    Raises OpframeError for what a person can mend.
    """
    for name, number in (("processes", processes), ("stop_at", stop_at)):
        if number is not None and number < 1:
            raise ConfigError(f"{name} = {number}, expected at least 1")
    if current_thread() is not main_thread():
        raise RunError("training has to be called from the main thread, which alone hears of Ctrl-C")
    experiment = placed(experiment)
    if processes > 1:
        return _train_in_several(experiment, resume, stop_at, processes, how_to_continue, _console(quiet))
    request = job.Request(
        experiment=experiment,
        catalog=_known(catalog),
        resume=resume,
        stop_at=stop_at,
        how_to_continue=how_to_continue,
    )
    outcome = job.run(request, _console(quiet))
    return Run(
        folder=Path(experiment.run.folder),
        step=outcome.step,
        interrupted=outcome.interrupted,
        report=outcome.report,
        signal=outcome.signal,
        interruption=outcome.interruption,
    )


def _train_in_several(
    experiment: Experiment, resume: Resume, stop_at: int | None, processes: int, how: str, console: Console
) -> Run:
    """They read the experiment from the run folder, where it is written for them. Raises RunError where one fails."""
    folder = Path(experiment.run.folder)
    words = [
        "run",
        str(folder / "config.toml"),
        *(["--resume", *(["auto"] if resume == "auto" else [])] if resume else []),
    ]
    words += ["--stop-at", str(stop_at)] if stop_at is not None else []
    with locked(folder):
        RunFolder(path=folder).claim(experiment, bool(resume), how)
        write_atomically(folder / "config.toml", to_toml(experiment))
    code = launch_training(experiment, words, processes, resume, how, console)
    signals = {exit_code(number): int(number) for number in SIGNALS}
    if code != 0 and code not in signals:
        raise RunError(f"{folder}: the processes that trained ended with exit code {code}; see what they have said")
    latest = latest_record(folder / "checkpoints")
    step, stopped = (latest.step, latest.stopped) if latest else (0, None)
    interrupted = code != 0 or (step < experiment.trainer.steps and stopped is None)
    report = None if interrupted else read_report(folder)
    return Run(folder=folder, step=step, interrupted=interrupted, report=report, signal=signals.get(code))


def evaluate(
    weights: Weights | Run,
    experiment: Experiment | None = None,
    *,
    folder: str | Path | None = None,
    quiet: bool = False,
    how_to_continue: str = "train(experiment, resume=True)",
    catalog: Catalog | None = None,
) -> Report:
    """Evaluate trained weights on the test data of an experiment, by default that of the run they are of.

    The report is written into `folder`, by default `evaluation` in the run's own folder, or what the experiment says.
    Raises OpframeError.
    """
    catalog, where = _known(catalog), str(weights.folder if isinstance(weights, Run) else weights)
    if experiment is None:
        experiment, folder = _own_experiment(Path(where), catalog), folder or Path(where) / "evaluation"
    init = experiment.init
    if init is None or init.from_ != where:  # what it says of other weights is not meant for these
        init = Init(from_=Location(where))
    into = Location(str(experiment.run.folder if folder is None else folder))
    changed = placed(evolve(experiment, init=init, run=evolve(experiment.run, folder=into)))
    request = job.Request(
        experiment=changed, catalog=catalog, resume=False, stop_at=None, how_to_continue=how_to_continue
    )
    return job.evaluate(request, _console(quiet))


def _own_experiment(run: Path, catalog: Catalog) -> Experiment:
    """The experiment of a run folder. Raises ConfigError where it is none."""
    if not run.exists():
        raise ConfigError(f"{run}: there is no such run folder; for other weights, also give an experiment")
    if not (run / "model.toml").exists():
        raise ConfigError(f"{run}: weights alone do not say what to evaluate them on; give an experiment")
    return load_experiment(run / "config.toml", catalog=catalog)


def load_pretrained(source: Weights, *, dataset: str | None = None, statistics_of: Tensor | None = None) -> Pretrained:
    """A trained network that forecasts in the data's own units, in evaluation mode, on the CPU.

    `source` is a weights folder or a run folder (its latest checkpoint), a URL of the former for fsspec (`https://`,
    `s3://`, `hf://`), or `org/name` of a Hugging Face repository. Nothing but numbers and settings is read, no code.

    `dataset` is the title of the one, among those of training, that frames are of. Where these were normalised it has
    to be known, here or when it is used, unless there is only one. For other data, `statistics_of` has frames of theirs
    (N, T, channels, *grid), of which is learnt what they are normalised by, as of zero-shot data. Raises OpframeError.
    """
    return Pretrained(read_pretrained(source, discover()), dataset, statistics_of)


def forecast(
    weights: Weights | Run | Pretrained,
    frames: NDArray[np.float32] | Tensor,
    steps: int,
    *,
    dataset: str | None = None,
    conditions: Conditions | Mapping[str, float | Tensor] | None = None,
    device: str | torch.device | None = None,
) -> NDArray[np.float32]:
    """The next `steps` frames (T, C, *grid), or (B, T, C, *grid), in the units of the frames that are given.

    It is computed where a network that is given lies, others on the CPU, or on a `device`, to which a given network
    moves. See `Pretrained.forecast`, which takes and gives tensors. Raises OpframeError.
    """
    if isinstance(weights, Run):
        weights = weights.folder
    network = weights if isinstance(weights, Pretrained) else load_pretrained(weights)
    try:  # a copy: torch takes no array that is read-only or runs backwards
        given = frames if isinstance(frames, Tensor) else torch.from_numpy(np.array(frames, np.float32, order="C"))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"frames: expected an array of numbers ({error})") from None
    if device is not None:
        _move(network, device)
    predicted = network.forecast(given.float(), steps, conditions=conditions, dataset=dataset)
    result: NDArray[np.float32] = predicted.cpu().numpy()
    return result


def _move(network: Pretrained, device: str | torch.device) -> None:
    """Raises ConfigError where there is no such device."""
    try:
        network.to(device)
    except (RuntimeError, AssertionError, TypeError) as error:  # an AssertionError of a torch without CUDA
        raise ConfigError(f"device = {str(device)!r}: {str(error).splitlines()[0]}") from None


def compare(runs: Sequence[str | Path | Run], *, by: str | None = None) -> Comparison:
    """Finished runs beside each other; `by` is a key of their configs to set errors against. Raises OpframeError."""
    if not runs:
        raise ConfigError("runs: there is nothing to compare; expected at least one run folder")
    folders = [run.folder if isinstance(run, Run) else Path(run) for run in runs]
    return Comparison(runs=tuple(comparison.read_finished(folder) for folder in folders), by=by)


def _known(catalog: Catalog | None) -> Catalog:
    return discover() if catalog is None else catalog


def _console(quiet: bool) -> Console:
    return Console(quiet=quiet)
