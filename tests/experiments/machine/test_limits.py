"""Cores and memory that a container leaves, by the files of Linux's control groups."""

import json
import re
from pathlib import Path

import pytest
import torch

from conftest import Cli
from experiments.machine import device, limits, memory

MB = 2**20
MACHINE = 64  # cores of the machine that the process is allowed by its affinity


class Groups:
    """A machine of MACHINE cores whose control groups are files below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mounts = folder, 0

    def mount(self, kind: str, root: str = "/", options: str = "rw") -> Path:
        """Let the groups from `root` down appear in a new folder."""
        self.mounts += 1
        point = self.folder / f"mount{self.mounts}"
        with (self.folder / "mountinfo").open("a") as file:
            file.write(f"{self.mounts} 1 0:2 {root} {point} rw,nosuid - {kind} none {options}\n")
        return point

    def join(self, *lines: str) -> None:
        """Let the process be in these groups, `id:controllers:path`."""
        (self.folder / "cgroup").write_text("\n".join(lines) + "\n")

    def limit(self, group: Path, **files: str) -> None:
        """Write a group's files; in their names a dot is two underscores."""
        group.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (group / name.replace("__", ".")).write_text(text + "\n")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    monkeypatch.setattr(limits, "PROC", tmp_path)
    affinity = set(range(MACHINE))
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda pid: affinity, raising=False)
    return Groups(tmp_path)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1), ("max 100000", MACHINE)],
)
def test_the_quota_of_a_container_is_rounded_up(groups: Groups, quota: str, cores: int) -> None:
    container = groups.mount("cgroup2")
    groups.join("0::/")
    groups.limit(container, cpu__max=quota)
    assert limits.usable_cores() == cores


def test_the_narrowest_of_nested_groups_counts(groups: Groups) -> None:
    """A service with a limit of its own in a slice with less; a neighbour's limit is not ours."""
    top = groups.mount("cgroup2")
    groups.join("0::/user.slice/run.service")
    own, neighbour = top / "user.slice" / "run.service", top / "user.slice" / "run.service2"
    groups.limit(own, cpu__max="800000 100000", memory__max=str(900 * MB))
    groups.limit(own, memory__current=str(100 * MB))
    groups.limit(own.parent, cpu__max="300000 100000", memory__max=str(500 * MB))
    groups.limit(own.parent, memory__current=str(300 * MB), memory__stat="anon 1\nfile 2")
    groups.limit(neighbour, cpu__max="100000 100000", memory__max="1", memory__current="1")
    assert limits.usable_cores() == 3
    assert limits.memory_left() == 200 * MB


def test_file_pages_that_can_be_given_back_are_free(groups: Groups) -> None:
    container = groups.mount("cgroup2")
    groups.join("0::/")
    groups.limit(container, memory__max=str(1000 * MB), memory__current=str(700 * MB))
    groups.limit(container, memory__stat=f"anon {300 * MB}\ninactive_file {250 * MB}")
    assert limits.memory_left() == 550 * MB
    assert memory.free_memory(torch.device("cpu")) <= 550 * MB
    groups.limit(container, memory__current=str(1300 * MB))  # as where the limit was lowered
    assert limits.memory_left() == 0


def test_groups_of_version_1_inside_a_container(groups: Groups) -> None:
    """Docker shows the container's own groups as the whole tree."""
    cpu = groups.mount("cgroup", "/docker/a1", "rw,cpu,cpuacct")
    own = groups.mount("cgroup", "/docker/a1", "rw,memory")
    groups.mount("cgroup2")
    groups.join("4:memory:/docker/a1", "3:cpu,cpuacct:/docker/a1", "0::/")
    groups.limit(cpu, cpu__cfs_quota_us="250000", cpu__cfs_period_us="50000")
    groups.limit(own, memory__limit_in_bytes="1000", memory__usage_in_bytes="800")
    groups.limit(own, memory__stat="inactive_file 1\ntotal_inactive_file 30")
    assert limits.usable_cores() == 5
    assert limits.memory_left() == 230


def test_groups_of_version_1_without_limits(groups: Groups) -> None:
    cpu = groups.mount("cgroup", "/", "rw,cpu")
    groups.join("3:cpu:/batch/job7")
    groups.limit(cpu / "batch" / "job7", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert limits.usable_cores() == MACHINE
    assert limits.memory_left() is None


def test_without_control_groups_the_affinity_counts(
    groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limits.usable_cores() == MACHINE
    assert limits.memory_left() is None
    monkeypatch.delattr(limits.os, "sched_getaffinity")  # as on macOS and Windows
    monkeypatch.setattr(limits.os, "cpu_count", lambda: None)
    assert limits.usable_cores() == 1


def test_a_run_starts_no_more_threads_than_its_container_has_cores(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three threads, as PyTorch would take on three cores, with a quota of two; then as set."""
    monkeypatch.setattr(device, "usable_cores", lambda: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        _, as_set = cli(*toy)  # conftest.py sets OMP_NUM_THREADS
        for name in device.THREAD_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        _, within = cli(*toy)
    finally:
        torch.set_num_threads(before)
    threads = [
        json.loads((run / "summary.json").read_text())["versions"]["threads"]
        for run in (as_set, within)
    ]
    assert threads == ["3", "2"]


def test_more_threads_than_cores_are_warned_of(
    cli: Cli,
    toy: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(device, "usable_cores", lambda: 2)
    code, _ = cli(*toy, "threads=2")
    assert (code, "wait for each other" in caplog.text) == (0, False)
    code, _ = cli(*toy, "threads=3")
    assert code == 0
    assert "3 threads compute on 2 cores" in caplog.text


@pytest.mark.parametrize("value", ["0", "-1", "1025", "2147483648", "1.5"])
def test_numbers_of_threads_at_the_edge(
    cli: Cli, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    """OpenMP would crash the process where it cannot start as many."""
    code, directory = cli(f"threads={value}")
    assert code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"threads='?{value}", line)
    assert not directory.exists()
