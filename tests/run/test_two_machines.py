"""Two machines train together as two processes of one do: here two network namespaces, joined by a virtual cable."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Command
from support import assert_same_training

NAMES = ("opframe-a", "opframe-b")
HOSTS = "127.0.0.1 localhost\n10.77.0.1 machine1\n10.77.0.2 machine2\n"


def ip(*words: str, check: bool = True) -> bool:
    return subprocess.run(["ip", *words], capture_output=True, check=check).returncode == 0


@pytest.fixture
def machines() -> Iterator[None]:
    """Two namespaces with a cable between them. Skips where they cannot be made."""
    if sys.platform != "linux" or not (shutil.which("ip") and shutil.which("unshare")) or os.geteuid() != 0:
        pytest.skip("making network namespaces takes Linux, ip, unshare, and the right to")
    for name in NAMES:
        ip("netns", "del", name, check=False)
    made = all(ip("netns", "add", name, check=False) for name in NAMES)
    cable = ("link", "add", "cable1", "netns", NAMES[0], "type", "veth", "peer", "name", "cable2", "netns", NAMES[1])
    if not (made and ip(*cable, check=False)):
        for name in NAMES:
            ip("netns", "del", name, check=False)
        pytest.skip("network namespaces cannot be made here")
    try:
        for number, name in enumerate(NAMES, 1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", f"cable{number}")
            ip("-n", name, "link", "set", f"cable{number}", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in NAMES:
            ip("netns", "del", name, check=False)


def begin(number: int, hosts: Path, words: str, restarts: int = 0) -> subprocess.Popen[str]:
    """torchrun on one of the machines, which has a name of its own and knows that of the other."""
    meeting = "--rdzv-backend c10d --rdzv-endpoint 10.77.0.1:29400 --rdzv-id 7"
    torchrun = (
        f"{sys.executable} -m torch.distributed.run --nnodes 2 --nproc-per-node 1 --max-restarts {restarts} {meeting}"
    )
    prepared = f"mount --bind {hosts} /etc/hosts && hostname machine{number} && exec {torchrun}"
    command = f"{prepared} --local-addr 10.77.0.{number} -m opframe {words}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": f"cable{number}"}
    return subprocess.Popen(
        ["ip", "netns", "exec", NAMES[number - 1], "unshare", "--uts", "--mount", "sh", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.mark.fault
@pytest.mark.usefixtures("machines")
def test_two_machines_train_as_two_processes_of_one_do_and_go_on_hybrid(experiment: Path, opframe: Command) -> None:
    run, hosts = experiment.parent / "run", experiment.parent / "hosts"
    hosts.write_text(HOSTS)
    assert opframe("run", experiment, "--nproc", 2, "--set", f"run.folder={run.with_name('one')}").returncode == 0
    for words in ("--stop-at 4", "--resume auto"):
        both = [begin(number, hosts, f"run {experiment} {words}") for number in (1, 2)]
        said = [each.communicate(timeout=120) for each in both]
        assert [each.returncode for each in both] == [0, 0], said
    assert_same_training(run, run.with_name("one"), 8)
    hybrid = f"run {experiment} --set parallel.strategy=hybrid --set run.folder={run.with_name('hybrid')}"
    both = [begin(number, hosts, hybrid) for number in (1, 2)]
    said = [each.communicate(timeout=120) for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert "report:" in said[0][0] + said[1][0]


def descendants(process: int) -> list[int]:
    found = [
        int(child) for path in Path(f"/proc/{process}/task").glob("*/children") for child in path.read_text().split()
    ]
    return [*found, *(each for child in found for each in descendants(child))]


def steps_done(run: Path) -> int:
    journal = run / "metrics.jsonl"
    return journal.read_bytes().count(b'"train"') if journal.exists() else 0


@pytest.mark.fault
@pytest.mark.usefixtures("machines")
def test_a_process_that_hangs_on_another_machine_is_named_and_all_begin_again(
    experiment: Path, opframe: Command
) -> None:
    run, hosts = experiment.parent / "run", experiment.parent / "hosts"
    hosts.write_text(HOSTS)
    settings = ("trainer.steps=800", "trainer.log_every=1", "trainer.checkpoint_every=20", "trainer.timeout=8s")
    words = " ".join(f"--set {each}" for each in settings)
    both = [begin(number, hosts, f"run {experiment} {words} --resume auto", restarts=1) for number in (1, 2)]
    deadline = time.monotonic() + 90
    while steps_done(run) < 100 and time.monotonic() < deadline:
        time.sleep(0.05)
    (hung,) = [
        each
        for each in descendants(both[1].pid)
        if b"opframe" in Path(f"/proc/{each}/cmdline").read_bytes().split(b"\0")
        and b"torch.distributed.run" not in Path(f"/proc/{each}/cmdline").read_bytes()
    ]
    os.kill(hung, signal.SIGSTOP)
    said = [each.communicate(timeout=300) for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    rank = 0 if "process 0 (" in said[0][1] + said[1][1] else 1
    assert f"process {rank} (number {hung} on machine2) does not answer in step " in said[0][1] + said[1][1]
    straight = [word for each in settings for word in ("--set", each)]
    done = opframe("run", experiment, "--nproc", 2, *straight, "--set", f"run.folder={run.with_name('one')}")
    assert done.returncode == 0, done.stderr
    assert_same_training(run, run.with_name("one"), 800)
