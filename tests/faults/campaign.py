"""Faults that are done to real runs, and what became of them."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from attrs import define, field, frozen

from faults.forked import Forked, Forks
from opframe.weights.runs import read_checkpoint
from servers import FileServer
from slow_support import Phase, start, wait_until_reached
from support import write_experiment

STEPS, EVERY = 60, 10
LAST = f"step-{STEPS:08d}"
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP", "SIGQUIT", "SIGXCPU")


@frozen(kw_only=True)
class Outcome:
    """What became of one fault: whether the run came to its end, or was refused in words where that is right."""

    survived: bool
    equal: bool
    lost: int = 0
    repeated: int = 0
    seconds: float = 0.0
    wrong: str = ""


@define
class Bench:
    """An experiment, its undisturbed run, and a place for the ones that something happens to."""

    folder: Path
    forks: Forks
    random: random.Random
    count: int = field(default=0, init=False)
    experiment: Path = field(init=False)
    reference: Path = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.experiment = write_experiment(self.folder)
        self.reference = self.folder / "undisturbed"
        whole = self.begin(self.reference)
        assert whole.wait() == 0, whole.said

    def words(self, run: Path, *more: object) -> list[object]:
        keys = (f"trainer.steps={STEPS}", f"trainer.checkpoint_every={EVERY}", "trainer.log_every=1", "trainer.keep=3")
        keys = (*keys, "data.validation=1", "trainer.evaluate_every=15", "evaluation.overlap=false")
        settings = [word for key in (*keys, f"run.folder={run}") for word in ("--set", key)]
        return ["run", self.experiment, *settings, *more]

    def begin(self, run: Path, *more: object, largest_file: int = 0) -> Forked:
        return self.forks.begin(self.words(run, *more), largest_file)

    def fresh(self) -> Path:
        self.count += 1
        return self.folder / f"run-{self.count}"

    def recovered(self, run: Path, journal: bool = True, *more: object) -> Outcome:
        """Go on to the end, and compare with the undisturbed run."""
        begun = time.monotonic()
        last = self.begin(run, "--resume", "auto", *more)
        code = last.wait()
        seconds = time.monotonic() - begun
        if code != 0:
            return Outcome(survived=False, equal=False, seconds=seconds, wrong=f"exit {code}: {last.said[-400:]}")
        return self.compared(run, journal, seconds)

    def compared(self, run: Path, journal: bool = True, seconds: float = 0.0) -> Outcome:
        one, two = (read_checkpoint(folder / "checkpoints" / LAST) for folder in (run, self.reference))
        equal = one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
        lost, repeated, other = windows(run, self.reference) if journal else (0, 0, 0)
        wrong = "" if equal and not (lost or repeated or other) else f"{other} losses differ"
        return Outcome(survived=True, equal=equal, lost=lost, repeated=repeated, seconds=seconds, wrong=wrong)


def windows(run: Path, reference: Path) -> tuple[int, int, int]:
    """Steps of which the journal has no line, those of which it has several, and those with another loss."""
    found, expected = steps(run), steps(reference)
    lost = sum(step not in found for step in expected)
    repeated = sum(len(losses) - 1 for losses in found.values())
    return lost, repeated, sum(step in found and found[step][-1] != expected[step][-1] for step in expected)


def steps(run: Path) -> dict[int, list[float]]:
    losses: dict[int, list[float]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "train":
            losses.setdefault(record["step"], []).append(record["relative_l2"])
    return losses


def wait_for_step(run: Path, step: int, process: Forked) -> None:
    """Wait until the journal has a step, or the run is over."""
    journal = run / "metrics.jsonl"
    while not process.over:
        if journal.exists() and journal.read_bytes().count(b'"train"') >= step:
            return
        time.sleep(0.001)


def signals(bench: Bench, number: int) -> Outcome:
    """A signal at a random moment of a run, from its first instant to its last."""
    name = SIGNALS[number % len(SIGNALS)]
    run = bench.fresh()
    process = bench.begin(run)
    if bench.random.random() < 0.7:
        wait_for_step(run, bench.random.randint(1, STEPS), process)
    time.sleep(bench.random.uniform(0.0, 0.05) if bench.random.random() < 0.8 else bench.random.uniform(0, 1))
    if not process.over:
        os.kill(process.process, getattr(signal, name))
    code = process.wait()
    begun = (run / "metrics.jsonl").exists()  # before, there is nothing to save, and a signal may simply end it
    expected = {0, 128 + getattr(signal, name)}
    if name == "SIGKILL" or not begun:
        expected.add(-getattr(signal, name))
    if code not in expected or "Traceback" in process.said:
        return Outcome(survived=False, equal=False, wrong=f"{name}: exit {code}: {process.said[-3000:]}")
    return bench.recovered(run)


def stopped_run(bench: Bench) -> Path:
    """A copy of a run that was stopped at step 35."""
    kept = bench.folder / "stopped"
    if not kept.exists():
        process = bench.begin(kept, "--stop-at", 35)
        assert process.wait() == 0, process.said
    run = bench.fresh()
    shutil.copytree(kept, run)
    return run


def _ways(random: random.Random) -> dict[str, Callable[[bytes], bytes]]:
    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
        return bytes(changed)

    def zeros(content: bytes) -> bytes:
        at = random.randrange(len(content))
        return content[:at] + b"\0" * min(512, len(content) - at) + content[at + 512 :]

    return {
        "a bit": flip,
        "zeros": zeros,
        "cut": lambda content: content[: random.randrange(len(content))],
        "empty": lambda content: b"",
        "longer": lambda content: content + b"more",
        "a list": lambda content: b"[]",
    }


def damaged_checkpoints(bench: Bench, number: int) -> Outcome:
    """Damage of one of the files of the newest checkpoint, or the loss of it."""
    run = stopped_run(bench)
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    files = sorted(path for path in newest.iterdir() if path.is_file())
    file = files[number % len(files)]
    ways = _ways(bench.random)
    way = [*ways, "missing"][number // len(files) % (len(ways) + 1)]
    if way == "missing":
        file.unlink()
    else:
        content = file.read_bytes()
        damage = ways[way](content)
        if damage == content:  # zeros where there were zeros
            damage = content[:-1] + bytes([content[-1] ^ 1])
        file.write_bytes(damage)
    return bench.recovered(run)


def damaged_small_files(bench: Bench, number: int) -> Outcome:
    """Damage of what lies beside the checkpoints: the journal, best.json, data.json, ended.json, environment.json."""
    run = stopped_run(bench)
    names = ("metrics.jsonl", "checkpoints/best.json", "data.json", "environment.json", "ended.json", "model.toml")
    file = run / names[number % len(names)]
    ways = _ways(bench.random)
    way = list(ways)[number // len(names) % len(ways)]
    file.write_bytes(ways[way](file.read_bytes() if file.exists() else b"x" * 99))
    if file.name == "model.toml":  # which is refused with the way out
        refused = bench.begin(run, "--resume", "auto")
        if refused.wait() == 2 and f"remove {file} to go on" in refused.said:
            file.unlink()
    return bench.recovered(run, file.name != "metrics.jsonl")


def changed_data(bench: Bench, number: int) -> Outcome:
    """A data file that is cut off, replaced by another, or spoilt while a run reads it, and is put back."""
    run, file = bench.fresh(), bench.folder / "two.h5"
    content = file.read_bytes()
    process = bench.begin(run)
    wait_for_step(run, bench.random.randint(1, STEPS // 2), process)
    try:
        if number % 3 == 0:
            with file.open("r+b") as opened:
                opened.truncate(bench.random.randrange(len(content)))
        elif number % 3 == 1:
            other = file.with_name("other.h5")
            shutil.copy(file, other)
            with h5py.File(other, "r+") as opened:
                opened["data"][:] = np.random.default_rng(number).standard_normal(opened["data"].shape)
            other.replace(file)
        else:
            with h5py.File(file, "r+", locking=False) as opened:
                opened["data"][bench.random.randrange(4), :, :, 4:8] = np.nan
        code = process.wait()
    finally:
        file.unlink()
        file.write_bytes(content)
    if code not in (0, 2) or "Traceback" in process.said:
        return Outcome(survived=False, equal=False, wrong=f"exit {code}: {process.said[-3000:]}")
    return bench.recovered(run)


def full_disks(bench: Bench, number: int) -> Outcome:
    """Files that cannot grow beyond a size, as on a disk that is full; later there is room again."""
    run = bench.fresh()
    process = bench.begin(run, "--set", "evaluation.figures=true", largest_file=1024 * 2 ** (1 + number % 9))
    code = process.wait()
    if code not in (0, 2) or "Traceback" in process.said:
        return Outcome(survived=False, equal=False, wrong=f"exit {code}: {process.said[-3000:]}")
    journal_whole = "left out from here on" not in process.said
    if code == 0:
        return bench.compared(run, journal_whole)
    return bench.recovered(run, journal_whole)


def removed_folders(bench: Bench, number: int) -> Outcome:
    """The run folder is removed, or moved away, in the midst of training."""
    run = bench.fresh()
    process = bench.begin(run)
    wait_for_step(run, bench.random.randint(1, STEPS // 2), process)
    if number % 2:
        shutil.rmtree(run, ignore_errors=True)
    else:
        run.rename(run.with_name(f"{run.name}-away"))
    code = process.wait()
    if code not in (0, 2) or "Traceback" in process.said:
        return Outcome(survived=False, equal=False, wrong=f"exit {code}: {process.said[-3000:]}")
    if run.exists():
        shutil.rmtree(run)
    if number % 2 == 0:
        run.with_name(f"{run.name}-away").rename(run)
    return bench.recovered(run)


def two_runs(bench: Bench, number: int) -> Outcome:
    """A second run in the folder of one that lives, at the same moment or later."""
    run = bench.fresh()
    first = bench.begin(run)
    if number % 2:
        wait_for_step(run, bench.random.randint(1, 20), first)
    second = bench.begin(run, *(("--resume",) if number % 3 else ()))
    codes = sorted((first.wait(), second.wait()))
    refused = first.said + second.said
    if codes != [0, 2] or "Traceback" in refused or "is in use by another run" not in refused:
        return Outcome(survived=False, equal=False, wrong=f"exits {codes}: {refused[-300:]}")
    return bench.compared(run)


def resumed_again_and_again(bench: Bench, number: int) -> Outcome:
    """Stopped and continued three times in a row, with other numbers of loader threads."""
    run = bench.fresh()
    for stop in sorted(bench.random.sample(range(1, STEPS), 3)):
        workers = bench.random.randrange(3)
        process = bench.begin(run, "--resume", "--stop-at", stop, "--set", f"data.workers={workers}")
        if (code := process.wait()) != 0:
            return Outcome(survived=False, equal=False, wrong=f"exit {code}: {process.said[-3000:]}")
    return bench.recovered(run)


def killed_twice(bench: Bench, number: int) -> Outcome:
    """Killed, continued, and killed again, while checkpoints are written in the background."""
    run = bench.fresh()
    background = ("--set", 'trainer.save="background"', "--set", f"trainer.checkpoint_every={3 + number % 5}")
    for _ in range(2):
        process = bench.begin(run, "--resume", "auto", *background)
        wait_for_step(run, bench.random.randint(1, STEPS), process)
        time.sleep(bench.random.uniform(0, 0.03))
        if not process.over:
            os.kill(process.process, signal.SIGKILL)
        process.wait()
    return bench.recovered(run)


def _ranks(process: Any) -> list[int]:
    folders = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(number) for children in folders for number in children.read_text().split()]


def several_processes(bench: Bench, number: int) -> Outcome:
    """One of two processes is killed or stopped, or their launcher is; by us, by torchrun or by hand they go on."""
    options = ("trainer.checkpoint_every=2", "trainer.timeout=10s", "trainer.log_every=1")
    reference = bench.folder / "two-processes"
    away = Phase(slow="opframe.run.job:write_report", after=9, options=(*options, f"run.folder={reference}"))
    if not reference.exists():
        assert start(bench.experiment, away, "run", "--nproc", "2").wait(timeout=120) == 0
    run = bench.fresh()
    mine = (*options, f"run.folder={run}")
    for reached in bench.experiment.parent.glob("reached.*"):
        reached.unlink()
    phase = Phase(slow="opframe.mixture.loading:Windows.batch", how="briefly", after=3 + number % 4, options=mine)
    if number % 6 >= 4:
        torchrun = ("--nproc-per-node", "2", "--max-restarts", "1")
        process = start(bench.experiment, phase, "run", "--resume", "auto", torchrun=torchrun)
    else:
        process = start(bench.experiment, phase, "run", "--nproc", "2", "--restarts", "1")
    wait_until_reached(bench.experiment, process, ranks=2)
    victims = _ranks(process)
    begun = time.monotonic()
    if number % 6 == 3:
        process.kill()
        process.communicate()
        while any(Path(f"/proc/{victim}").exists() for victim in victims):
            time.sleep(0.1)
        again = Phase(slow="opframe.run.job:write_report", after=9, options=mine)
        process = start(bench.experiment, again, "run", "--nproc", "2", "--resume", "auto")
    else:
        how = {1: signal.SIGSTOP, 2: signal.SIGTERM, 5: signal.SIGSTOP}.get(number % 6, signal.SIGKILL)
        os.kill(victims[number // 6 % 2], how)
        if how == signal.SIGTERM:  # all are asked to end, and save
            process.communicate(timeout=180)
            again = Phase(slow="opframe.run.job:write_report", after=9, options=mine)
            process = start(bench.experiment, again, "run", "--nproc", "2", "--resume", "auto")
    _, errors = process.communicate(timeout=180)
    seconds = time.monotonic() - begun
    if process.returncode != 0 or "Traceback" in errors:
        return Outcome(survived=False, equal=False, wrong=f"exit {process.returncode}: {errors[:3000]}")
    last = "step-00000008"
    one, two = (read_checkpoint(folder / "checkpoints" / last) for folder in (run, reference))
    equal = all(torch.equal(one[name], two[name]) for name in one)
    lost, repeated, other = windows(run, reference)
    wrong = "" if equal and not other else f"{other} losses differ"
    return Outcome(survived=True, equal=equal, lost=lost, repeated=repeated, seconds=seconds, wrong=wrong)


def failing_servers(bench: Bench, number: int) -> Outcome:
    """A server that is overloaded, drops connections, or sends too little, while a run reads from it."""
    with FileServer() as server:
        content = (bench.folder / "two.h5").read_bytes()
        url = server.serve(f"far-{number}.h5", content)
        text = bench.experiment.read_text().replace('url = "two.h5"', f'url = "{url}"')
        config = bench.folder / f"far-{number}.toml"
        config.write_text(text)
        run = bench.fresh()
        words = bench.words(run)
        words[1] = config
        kinds: Sequence[Any] = (503, 429, 500, "drop", "truncate", "short", "shifted")
        server.faults = [bench.random.choice(kinds) for _ in range(1 + number % 5)]
        begun = time.monotonic()
        process = bench.forks.begin([*words, "--set", "data.patience=60s"])
        code = process.wait()
        if code != 0 or "Traceback" in process.said:
            return Outcome(survived=False, equal=False, wrong=f"exit {code}: {process.said[-3000:]}")
        return bench.compared(run, seconds=time.monotonic() - begun)


Kind = Callable[[Bench, int], Outcome]
KINDS: dict[str, tuple[Kind, int, int]] = {
    "a signal": (signals, 84, 2),
    "a checkpoint is damaged": (damaged_checkpoints, 35, 2),
    "another file is damaged": (damaged_small_files, 24, 1),
    "data change": (changed_data, 15, 1),
    "the disk is full": (full_disks, 9, 1),
    "the folder is gone": (removed_folders, 6, 1),
    "two runs in a folder": (two_runs, 8, 1),
    "stopped three times": (resumed_again_and_again, 8, 0),
    "killed twice, saving in the background": (killed_twice, 12, 1),
    "a server fails": (failing_servers, 12, 1),
    "one of several processes": (several_processes, 18, 0),
}
"""What is done, how often in the whole campaign, and how often in its short form."""


def outcomes(bench: Bench, kind: str, count: int) -> Iterator[Outcome]:
    """Do one kind of fault so often."""
    inject = KINDS[kind][0]
    for number in range(count):
        bench.random.seed(f"{kind} {number}")
        yield inject(bench, number)
