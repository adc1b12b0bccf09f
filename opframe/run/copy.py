"""A copy of a run elsewhere, at any path or URL that fsspec can write to, from which an empty run folder goes on."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from attrs import define, field

from opframe.config.settings import Experiment
from opframe.files.retries import redacted
from opframe.run.folder import RunFolder
from opframe.run.place import MARK, Place
from opframe.weights.checkpoint_list import Summary, summary_of
from opframe.weights.checkpoints import (
    checkpoint_path,
    damage,
    read_best,
    steps_in,
    superfluous,
)
from opframe_registry import RunError

_BESIDE = ("config.toml", "model.toml", "environment.json", "data.json", "metrics.jsonl", "left_out.jsonl")
_GROWING = ("metrics.jsonl", "left_out.jsonl")
_BEST = "checkpoints/best.json"
_REPORT = ("report.md", "report.json")


@define(kw_only=True)
class Copy:
    """Keeps a copy of a run folder up to date while training goes on, in a thread; an error is only said.

    Kept there are as many checkpoints as here, by the same rule.
    """

    place: Place
    folder: Path
    keep: int
    keep_every: int | None
    say: Callable[[str], None]
    _pool: ThreadPoolExecutor = field(factory=lambda: ThreadPoolExecutor(1, "copy"), init=False)
    _running: Future[None] | None = field(default=None, init=False)
    _again: bool = field(default=False, init=False)
    _copied: set[int] = field(factory=set, init=False)

    def begin(self) -> None:
        """Copy what is new. What is being copied is finished first; only the newest checkpoint follows it."""
        if self._running is not None and not self._running.done():
            self._again = True
            return
        self._running = self._pool.submit(self._all)

    def close(self) -> None:
        """Wait until all is copied."""
        self._pool.shutdown(wait=True)

    def _all(self) -> None:
        try:
            self._once()
            while self._again:
                self._again = False
                self._once()
        except (RunError, OSError) as error:
            self.say(f"{error}; training goes on, and the next checkpoint is copied again")

    def _once(self) -> None:
        checkpoints, place = self.folder / "checkpoints", self.place
        there = place.steps()
        best = read_best(checkpoints)
        found = steps_in(checkpoints)
        for_good = [step for step in found if self.keep_every is not None and step % self.keep_every == 0]
        wanted = {*([best.step] if best else []), *for_good, *found[-1:]}
        for step in sorted(wanted - self._copied):
            if step in there and step == found[-1]:
                place.remove(step)  # of a life before, and perhaps damaged: this one has trained it again
            if step not in there or step == found[-1]:
                self._put(checkpoint_path(checkpoints, step))
        self._copied |= wanted
        place.put(_those_there(self.folder, _BESIDE))
        place.put(_those_there(checkpoints, (Path(_BEST).name,)), "checkpoints/")
        now = place.steps()
        old = superfluous(now, self.keep, self.keep_every, best.step if best else None)
        for step in sorted({*old, *place.begun()} - (set(now) - set(old))):
            place.remove(step)

    def _put(self, path: Path) -> None:
        try:
            self.place.put_checkpoint(path)
        except RunError:
            if path.exists():
                raise  # otherwise it was deleted meanwhile, as there is a newer one


def _those_there(folder: Path, names: Sequence[str]) -> list[Path]:
    return [path for name in names if (path := folder / name).exists()]


def check_place(url: str, folder: Path) -> None:
    """Raises RunError where nothing can be written there, or where there is another run."""
    place = Place(url)
    if place.steps() and not _same_run(place, folder):
        raise RunError(
            f"run.copy: {redacted(url)} holds another run; go on with it in an empty run.folder by --resume, or choose "
            "another place"
        )
    place.put(_those_there(folder, _BESIDE))


def copied(url: str) -> list[Summary]:
    """The checkpoints of a copy, oldest first, by their marks and sizes; bytes are read where one is fetched."""
    place = Place(url)
    complete = place.steps()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = {step: f"checkpoints/{checkpoint_path(Path(), step).name}" for step in place.begun()}
        place.get([*(f"{names[step]}/{MARK}" for step in complete), _BEST], folder)
        best = _number(folder / _BEST, "step")
        return [
            summary_of(folder / name, place.sizes(name), {"latest": complete[-1:] == [step], "best": step == best})
            for step, name in names.items()
        ]


def end_copy(url: str, folder: Path, say: Callable[[str], None]) -> None:
    """Copy what a run has at its end; an error is only said."""
    try:
        Place(url).put(_those_there(folder, (*_BESIDE, *_REPORT)))
    except RunError as error:
        say(f"{error}; the report is in {folder} alone")


def fetch(url: str, folder: Path, experiment: Experiment | None = None) -> list[str]:
    """Bring the newest sound checkpoint of a copy, and the best one, into a run folder that has none as new.

    What is brought is said, and which checkpoints are damaged there. Raises RunError, also where the copy is of another
    run than the folder, or of another experiment.
    """
    place, checkpoints = Place(url), folder / "checkpoints"
    here = steps_in(checkpoints)
    newer = [step for step in place.steps() if step > max(here, default=-1)]
    if not newer:
        return []
    if here and not _same_run(place, folder):
        raise RunError(f"run.copy: {redacted(url)} holds another run than {folder}; choose another place")
    if experiment is not None:
        _check_experiment(place, experiment)
    said: list[str] = []
    for step in reversed(newer):
        partial = place.get_checkpoint(step, checkpoints)
        if (wrong := damage(partial)) is None:
            break
        said.append(f"{redacted(url)}: the checkpoint of step {step} is damaged: {wrong}; the one before is tried")
        shutil.rmtree(partial)
    else:
        if here:
            return said
        raise RunError("\n".join([*said, f"run.copy: no checkpoint at {redacted(url)} is sound"]))
    _get_beside(place, folder)
    _get_best(place, checkpoints, before=step)
    path = partial.rename(checkpoint_path(checkpoints, step))  # last: from now on the run is there
    return [*said, f"{path.name} comes from {redacted(url)}"]


def _get_beside(place: Place, folder: Path) -> None:
    """The small files, each whole or not at all; of what the folder has already, those that grow with a run."""
    new = [name for name in _BESIDE if name in _GROWING or not (folder / name).exists()]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".copy-") as temporary:
        place.get([*new, _BEST], Path(temporary))
        for name in (*new, _BEST):
            if (brought := Path(temporary) / name).exists():
                os.replace(brought, folder / name)


def _get_best(place: Place, checkpoints: Path, before: int) -> None:
    step = _number(checkpoints / Path(_BEST).name, "step")
    if step not in place.steps() or step >= before or checkpoint_path(checkpoints, step).exists():
        return
    partial = place.get_checkpoint(step, checkpoints)
    if damage(partial) is None:
        partial.rename(checkpoint_path(checkpoints, step))
    else:
        shutil.rmtree(partial)


def _check_experiment(place: Place, experiment: Experiment) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        place.get(["config.toml"], Path(temporary))
        there = RunFolder(path=Path(temporary))
        lines = there.differences(experiment) if (there.path / "config.toml").exists() else []
    if lines:
        differing = "".join(f"\n  {line}" for line in lines)
        raise RunError(f"run.copy: {redacted(place.url)} holds another experiment; it differs in{differing}")


def _same_run(place: Place, folder: Path) -> bool:
    with tempfile.TemporaryDirectory() as temporary:
        place.get(["environment.json"], Path(temporary))
        there, here = (_number(each / "environment.json", "run") for each in (Path(temporary), folder))
    return there is not None and there == here


def _number(path: Path, key: str) -> Any:
    """What a small file says of something; None where it does not."""
    try:
        return json.loads(path.read_bytes()).get(key)
    except (OSError, ValueError, AttributeError):
        return None
