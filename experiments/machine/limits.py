"""How many cores and how much memory this process may use, which can be less than the machine has.

Containers and batch systems limit a process by Linux control groups, of version 1 or 2. A group
lies in others, each of which has limits of its own: see cgroups(7).
"""

import math
import os
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path, PurePosixPath

PROC = Path("/proc/self")


def usable_cores() -> int:
    """Cores that this process may use, at least 1.

    Those of its affinity, or as many as its groups' quota of processor time fills: 1.5 cores count
    as 2.
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # neither macOS nor Windows has it
        allowed = os.cpu_count() or 1
    return max(1, min([allowed, *map(math.ceil, _cpu_quotas())]))


def memory_left() -> int | None:
    """Bytes that this process's groups let it take in addition; None where nothing limits them.

    What the kernel would give back under pressure, file pages that were not used lately, is left.
    """
    rooms = []
    for folder in _groups("memory"):
        limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
        if limit is None or used is None:  # no limit, or version 1
            limit = _number(folder / "memory.limit_in_bytes")
            used = _number(folder / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            rooms.append(max(0, limit - used + _reclaimable(folder)))
    return min(rooms, default=None)


def _cpu_quotas() -> Iterator[float]:
    """Cores whose time each group of this process may use; nothing for a group without a limit."""
    for folder in _groups("cpu"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if not quota:  # version 1
            quota = _text(folder / "cpu.cfs_quota_us")
            period = _text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():  # without a limit: max, or -1
            yield int(quota) / int(period)


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the groups that this process is in, as far as they can be seen from here.

    /proc/self/cgroup has lines `id:controllers:path`, without controllers for version 2;
    /proc/self/mountinfo has where the groups from `root` down appear, see proc(5).
    """
    paths: dict[str, str] = {}
    for line in _text(PROC / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    for line in _text(PROC / "mountinfo").splitlines():
        mount, _, system = line.partition(" - ")
        root, point = mount.split()[3:5]
        kind, _, options = system.split()[:3]
        is_first = kind == "cgroup" and controller in options.split(",")
        if not is_first and kind != "cgroup2":
            continue
        own = PurePosixPath(paths.get(controller if is_first else "", "/"))
        inside = own.relative_to(root).parts if own.is_relative_to(root) else ()
        yield from accumulate(inside, Path.joinpath, initial=Path(point))


def _reclaimable(folder: Path) -> int:
    """Bytes of file pages in a group that were not used lately, of version 1 with those below."""
    found = dict(line.split() for line in _text(folder / "memory.stat").splitlines())
    return int(found.get("total_inactive_file", found.get("inactive_file", 0)))


def _number(path: Path) -> int | None:
    """The number in a file; None where it is absent or holds none."""
    text = _text(path)
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    """A file's text without the space around it; empty where it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
