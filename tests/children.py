"""Runs in processes of their own, which can be killed and short of room.

They are forked from one process that has imported everything, so that none waits for imports.
"""

import ctypes
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["warm"])
PATIENCE = 120  # seconds for what takes one; reached by a hang alone


@dataclass(frozen=True)
class Fault:
    """What goes wrong in a child: `kind` names one of FAULTS, before training step `step`.

    kind    calls: SIGKILL at the `step`-th function call of the run
    skip    how many runs of the child it spares first
    """

    kind: str
    step: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)
    skip: int = 0


def no_permissions(directory: Path, **more: Any) -> None:
    """The directory cannot be written, by root neither."""
    directory.chmod(0o555)
    if os.geteuid() == 0:  # give up what lets root ignore permissions
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0


def full_disk(directory: Path, size: int = 0, of: str | None = None) -> None:
    """No file grows beyond `size` bytes, or beyond what the file `of` has and five."""
    import resource

    size = size if of is None else (directory / of).stat().st_size + 5
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def little_memory(directory: Path, room: int) -> None:
    """No more address space than there is now, and `room` bytes."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGESIZE") + room
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def get_signal(directory: Path, signals: list[int]) -> None:
    """Signals arrive, one after the other."""
    for number in signals:
        signal.raise_signal(number)


FAULTS: dict[str, Callable[..., None]] = {
    "no_permissions": no_permissions,
    "removed": lambda directory: shutil.rmtree(directory),
    "full_disk": full_disk,
    "little_memory": little_memory,
    "signals": get_signal,
}


@dataclass(frozen=True)
class Surroundings:
    """What a process finds when it starts, other than that of its parent.

    variables  of the environment
    folder     the current one
    hidden     modules that this machine is to lack
    encoding   of what it prints
    closed     whether it has neither stdin, nor stdout, nor stderr
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    hidden: Sequence[str] = ()
    encoding: str = "utf-8"
    closed: bool = False

    def enter(self) -> None:
        """Import again what may read them when it is imported, PyTorch aside."""
        os.environ |= self.variables
        if self.folder is not None:
            os.chdir(self.folder)
        sys.modules |= dict.fromkeys(self.hidden)
        own = ("experiments", "gpt", "normscope", "run", "matplotlib")
        for name in [name for name in sys.modules if name.partition(".")[0] in own]:
            del sys.modules[name]
        sys.stdout.reconfigure(encoding=self.encoding, errors="strict")  # type: ignore[union-attr]
        if self.closed:
            sys.stdin = sys.stdout = sys.stderr = None  # type: ignore[assignment]
            os.closerange(0, 3)


def _arm(fault: Fault) -> None:
    """Let it happen before training step `fault.step`."""
    from experiments.training.loop import Trainer

    original = Trainer._step
    spared = 0

    def step(self: Trainer, number: int) -> None:
        nonlocal spared
        if number == fault.step:
            if spared == fault.skip:
                FAULTS[fault.kind](self.recorder.directory, **fault.more)
            spared += 1
        original(self, number)

    Trainer._step = step  # type: ignore[method-assign]


def _count_calls(limit: int, tell: Any) -> None:
    """SIGKILL at the `limit`-th call of a function in the run; tells how many there were."""
    import run

    original = run.launch
    count = 0

    def seen(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += 1
        if count == limit:
            os.kill(os.getpid(), signal.SIGKILL)

    def launch(*arguments: Any) -> int:
        sys.setprofile(seen)
        try:
            return original(*arguments)
        finally:
            sys.setprofile(None)
            tell.value = count

    run.launch = launch


def _child(
    arguments: tuple[str, ...],
    output: Path,
    fault: Fault | None,
    tell: Any,
    barrier: Any,
    pictures: bool,
    surroundings: Surroundings | None,
) -> None:
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if surroundings is not None:
        surroundings.enter()
    import torch

    import run
    from experiments.jobs import launch

    torch.set_num_threads(1)
    if not pictures:
        launch.draw_pictures = lambda directory: []
    if fault is not None and fault.kind == "calls":
        _count_calls(fault.step, tell)
    elif fault is not None:
        _arm(fault)
    if barrier is not None:
        barrier.wait(PATIENCE)
    sys.exit(run.main(arguments))


def start_server() -> None:
    """Start the process that the others are forked from, with this one's path to modules.

    Python 3.11 does not hand it on before it imports what is to be there.
    """
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


class Child:
    """`python run.py ARGUMENTS` in a process of its own, without pictures unless wanted."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        fault: Fault | None = None,
        barrier: Any = None,
        pictures: bool = False,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.output = folder / f"output{len(list(folder.glob('output*')))}.txt"
        self.output.touch()
        self.tell = CONTEXT.Value("q", 0)
        passed = (arguments, self.output, fault, self.tell, barrier, pictures, surroundings)
        start_server()
        self.process = CONTEXT.Process(target=_child, args=passed)
        self.process.start()

    def wait(self) -> tuple[int, str]:
        """The exit code, and all that it said."""
        self.process.join(PATIENCE)
        code = self.process.exitcode
        assert code is not None, f"still running after {PATIENCE} s: {self.output.read_text()}"
        return code, self.output.read_text()


def call(folder: Path, *arguments: str, fault: Fault | None = None) -> tuple[int, str]:
    """Run `python run.py ARGUMENTS` in a process of its own to its end: exit code and output."""
    return Child(folder, *arguments, fault=fault).wait()
