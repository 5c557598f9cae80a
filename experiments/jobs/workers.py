"""Worker processes for the jobs of an experiment that is no sweep by itself."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager

from experiments.jobs.launch import launch_job
from experiments.jobs.sweep import Job, Launch
from experiments.machine.device import pick_device
from experiments.machine.limits import usable_cores
from experiments.machine.signals import SIGNAL_EXIT_BASE, Interrupted
from experiments.settings.typed import as_typed


def workers_for(device: str, threads: int) -> int:
    """How many processes of `threads` there are cores for; on a GPU one, since its memory is one"""
    return max(1, usable_cores() // threads) if pick_device(device).type == "cpu" else 1


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Within: a pool of processes, which are killed where a second signal interrupts the block.

    Without that the pool would wait for their work at its end.
    """
    # Not by fork: a forked copy of PyTorch's threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.kill()
            raise


def launcher(pool: ProcessPoolExecutor | None) -> Launch:
    """What runs jobs in the worker processes, or in this one."""

    def launch(jobs: Sequence[Job]) -> None:
        calls = [(job.values, [*map(as_typed, job.overrides)], job.directory) for job in jobs]
        if pool is None:
            for call in calls:
                code = launch_job(*call)
                if code > SIGNAL_EXIT_BASE:
                    raise Interrupted(code - SIGNAL_EXIT_BASE)
            return
        for future in as_completed([pool.submit(launch_job, *call, False) for call in calls]):
            future.result()

    return launch
