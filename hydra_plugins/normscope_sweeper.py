"""The sweeper of `python run.py -m`. Hydra looks for its plugins in this folder.

This module translates between Hydra and experiments/jobs/sweep.py, which has the sweep itself.
Hydra imports its plugins whenever any program of this environment uses Hydra. The project's modules
are therefore imported inside functions: other programs do not wait for PyTorch to load.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncherConf
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class GridSweeper(Sweeper):
    """Runs every combination of the swept values that has not finished or diverged before.

    params  of an experiment that is a grid: names with their values, as typed on the command line.
            The command line can replace them.
    """

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self.params = dict(params or {})

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.context, self.task, self.master = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Run the grid; raises SystemExit with the code where a job failed."""
        from experiments.jobs.launch import THREADS_IN_A_SWEEP
        from experiments.jobs.sweep import Sweep, check_sweep, name_sweep, plan_jobs
        from experiments.settings.typed import as_typed, for_hydra

        def plain_value(key: str, text: str) -> str:
            return as_typed(f"{key}={text}").partition("=")[2]

        params = [for_hydra(f"{name}={values}", sweep=True) for name, values in self.params.items()]
        lines = params + arguments
        loader = self.context.config_loader
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(lines)
        (grid,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
        final = {override.get_key_element(): override for override in overrides}
        swept = {
            key: ",".join(plain_value(key, text) for text in override.sweep_string_iterator())
            for key, override in final.items()
            if override.is_sweep_override()
        }
        fixed = [item for item in grid[0] if item.split("=", 1)[0] not in swept]
        base = self._compose(fixed)
        check_sweep(base, swept)
        threads = base["threads"] or THREADS_IN_A_SWEEP
        name = name_sweep(self._experiment(), self._swept_by_command(swept), base)
        folder = self._set_folder(name)
        jobs = plan_jobs(grid, list(swept), folder, self._compose)
        self._set_workers(threads, len(jobs))
        parallel = self._is_parallel()
        folder.mkdir(parents=True, exist_ok=True)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task, config=self.master
        )

        def launch(to_run: Sequence[Any]) -> object:
            return launcher.launch([self._overrides(job) for job in to_run], initial_job_idx=0)

        code = Sweep(folder, jobs, base["sweep"]["rerun"], parallel, threads).run(launch)
        if code:
            raise SystemExit(code)

    def _compose(self, overrides: Sequence[str]) -> dict[str, Any]:
        """A job's config as plain values, without Hydra's part."""
        from experiments.settings.compose import to_values
        from experiments.settings.weights import with_weights

        loader = self.context.config_loader
        config = loader.load_sweep_config(self.master, list(overrides))
        with open_dict(config):
            del config["hydra"]
        return with_weights(to_values(config), overrides)

    def _experiment(self) -> str:
        return str(self.master.hydra.runtime.choices.experiment)

    def _swept_by_command(self, swept: Iterable[str]) -> list[str]:
        """Names that the command sweeps in addition to the experiment."""
        return [key for key in swept if key not in self.params]

    def _set_folder(self, name: str) -> Path:
        """Put the sweep's name into hydra.sweep.dir; returns the directory."""
        with open_dict(self.master):
            folder = str(self.master.hydra.sweep.dir).replace("{name}", name)
            self.master.hydra.sweep.dir = str(Path(folder).absolute())
        return Path(self.master.hydra.sweep.dir)

    def _is_parallel(self) -> bool:
        """Whether jobs run in processes of their own."""
        return not str(self.master.hydra.launcher["_target_"]).endswith("BasicLauncher")

    def _set_workers(self, threads: int, jobs: int) -> None:
        """Let joblib start as many processes as there are cores for jobs of `threads` threads.

        Its own default, one for each core, would start more threads than there are cores; and it
        starts as many as it is told, whether there are jobs for them or not. A single process is
        this one, in which Hydra's own launcher runs one job after the other and heeds Ctrl-C.
        """
        from experiments.machine.limits import usable_cores
        from gpt import ConfigError

        launcher = self.master.hydra.launcher
        if "n_jobs" not in launcher:
            return
        if launcher.n_jobs == 0:
            valid = "must be a number of processes, or -1 for as many as there are cores"
            raise ConfigError("hydra.launcher.n_jobs", 0, valid)
        if launcher.n_jobs == -1:
            launcher.n_jobs = max(1, usable_cores() // threads)
        launcher.n_jobs = min(launcher.n_jobs, max(1, jobs))
        if launcher.n_jobs == 1:
            with open_dict(self.master):
                self.master.hydra.launcher = BasicLauncherConf()

    def _overrides(self, job: Any) -> list[str]:
        """A job's overrides, with its directory among them."""
        from experiments.settings.typed import quoted

        folder, name = quoted(str(job.directory.parent)), quoted(job.name)
        return [*job.overrides, f"hydra.sweep.dir={folder}", f"hydra.sweep.subdir={name}"]
