"""Nine packages of others, one for each of most kinds, written against the documentation alone.

They are copied out of the repository, installed as a person would, and meet in one experiment.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from conftest import Command
from support import ROOT, assert_same_training, saved_state

for _module in ("h5netcdf", "neuralop", "xarray"):
    if find_spec(_module) is None:
        pytest.skip(f"{_module} is not installed; it comes with the extra 'test'", allow_module_level=True)

OFFERED = {
    "opframe-acc": ("metric", "anomaly_correlation"),
    "opframe-csv": ("logger", "csv"),
    "opframe-curriculum": ("sampler", "curriculum"),
    "opframe-gradient-noise": ("callback", "gradient_noise"),
    "opframe-h1": ("objective", "relative_h1"),
    "opframe-lion": ("optimizer", "lion"),
    "opframe-netcdf": ("dataset", "netcdf"),
    "opframe-neuralop": ("backbone", "neuralop_fno"),
    "opframe-quantile": ("normalizer", "quantile"),
}

MEASURED = {"samples_per_second", "data_wait", "memory_gb", "save_stall", "save_seconds"}
OFFER = re.compile(r" +(?P<name>\S+) .*\((?P<package>[^()]+)\)")


def module(package: str) -> str:
    return package.replace("-", "_")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that knows nothing of this repository: the packages, and `site`, where they are installed."""
    folder = tmp_path_factory.mktemp("third_party") / "packages"
    shutil.copytree(ROOT / "tests" / "third_party", folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target"]
    sources = [str(folder / package) for package in OFFERED]
    subprocess.run([*command, str(folder / "site"), *sources], check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def environment(packages: Path) -> dict[str, str]:
    """What a process needs to find the installed packages."""
    return {"PYTHONPATH": str(packages / "site")}


@pytest.fixture(scope="module")
def basin(packages: Path, environment: dict[str, str]) -> Path:
    """The experiment, beside its data."""
    command = [sys.executable, "-m", "opframe_netcdf.basin", str(packages / "basin")]
    subprocess.run(command, check=True, env={**os.environ, **environment}, timeout=120)
    return packages / "nine.toml"


def checked(packages: Path, environment: dict[str, str], *command: str) -> str:
    """What a module of Python says in the folder of the packages, where it must succeed."""
    own = {**os.environ, **environment, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, cwd=packages, env=own, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_package_is_listed_with_what_it_offers(
    packages: Path, environment: dict[str, str], opframe: Command
) -> None:
    assert {path.name for path in packages.glob("opframe-*")} == set(OFFERED)
    listed = opframe("list", env=environment)
    assert listed.returncode == 0, listed.stderr
    found, kind = set(), ""
    for line in listed.stdout.splitlines():
        if not line.startswith(" "):
            kind = line
        elif match := OFFER.fullmatch(line):
            found.add((match["package"], kind, match["name"]))
    assert {(package, *offered) for package, offered in OFFERED.items()} <= found


def test_the_installed_packages_pass_their_own_tests(packages: Path, environment: dict[str, str]) -> None:
    options = ("-q", "--import-mode=importlib", "-p", "no:cacheprovider", f"--rootdir={packages}")
    said = checked(packages, environment, "pytest", *options, *OFFERED)
    assert "passed" in said
    assert "skipped" not in said


def test_the_packages_are_typed(packages: Path, environment: dict[str, str]) -> None:
    sources = {package: packages / package / module(package) for package in OFFERED}
    search = {"MYPYPATH": os.pathsep.join(str(source.parent) for source in sources.values())}
    checked(packages, environment | search, "mypy", "--strict", *map(str, sources.values()))


@pytest.mark.parametrize("package", OFFERED)
def test_each_package_passes_the_conformance_kit(
    packages: Path, basin: Path, environment: dict[str, str], package: str
) -> None:
    settings = ("--opframe-settings", str(packages / "conformance.toml"))
    options = ("-q", "-p", "no:cacheprovider", f"--rootdir={packages / package}", *settings)
    said = checked(packages, environment, "pytest", *options, "--opframe", module(package))
    assert "passed" in said


@pytest.fixture(scope="module")
def runs(packages: Path) -> dict[str, Path]:
    """The folder of the run that went straight on, once it is done."""
    return {}


def straight(runs: dict[str, Path], basin: Path, environment: dict[str, str], opframe: Command) -> Path:
    if "straight" not in runs:
        folder = basin.parent / "straight"
        done = opframe("run", basin, "--set", f"run.folder={folder}", env=environment)
        assert done.returncode == 0, done.stderr
        runs["straight"] = folder
    return runs["straight"]


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_one_experiment_of_all_nine_trains_and_every_one_leaves_its_trace(
    runs: dict[str, Path], basin: Path, environment: dict[str, str], opframe: Command
) -> None:
    run = straight(runs, basin, environment, opframe)
    numbers = {(row["kind"], int(row["step"])): set() for row in rows(run)}
    for row in rows(run):
        numbers[row["kind"], int(row["step"])].add(row["name"])
    assert "relative_h1" in numbers["train", 20]  # the objective, in the logger's file
    noise = [float(row["value"]) for row in rows(run) if row["name"] == "gradient_noise"]
    assert len(noise) == 4  # the callback's, every fifth step
    assert noise == sorted(noise, reverse=True)
    assert ("evaluation", 10) in numbers
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert "anomaly_correlation" in json.dumps(report)
    assert "anomaly_correlation" in (run / "report.md").read_text(encoding="utf-8")
    state = saved_state(run, 20)
    assert any(name.startswith("network.fno_blocks.") for name in state["model"])
    assert set(next(iter(state["optimizer"]["state"].values()))) == {"exp_avg"}  # the optimizer's


def test_a_resumed_run_ends_the_same_to_the_bit(
    runs: dict[str, Path], basin: Path, environment: dict[str, str], opframe: Command
) -> None:
    reference = straight(runs, basin, environment, opframe)
    folder = basin.parent / "resumed"
    options = ("--set", f"run.folder={folder}", "--set", "data.workers=2")
    first = opframe("run", basin, *options, "--stop-at", 10, env=environment)
    assert first.returncode == 0, first.stderr
    with (folder / "metrics.csv").open("a", encoding="utf-8") as file:
        file.write("15,train,relative_h1,9.0\n")  # as if the run had been killed later than it was saved
    second = opframe("run", basin, *options, "--resume", env=environment)
    assert second.returncode == 0, second.stderr
    assert_same_training(folder, reference, 20)
    lasting = [
        [(row["step"], row["kind"], row["name"], row["value"]) for row in rows(run) if row["name"] not in MEASURED]
        for run in (reference, folder)
    ]
    assert lasting[0] == lasting[1]
