"""The sweeper of `python run.py -m`. Hydra looks for its plugins in this folder.

This module translates between Hydra and experiments/jobs/sweep.py, which has the sweep itself.
Hydra imports its plugins whenever any program of this environment uses Hydra. The project's modules
are therefore imported inside functions: other programs do not wait for PyTorch to load.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncherConf
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class GridSweeper(Sweeper):
    """Runs every combination of the swept values that has not finished or diverged before.

    params  of an experiment that is a grid: names with their values, as typed on the command line.
            The command line can replace them.
    beside  by a value such as `optimizer=sgd`, the same for those jobs alone that have it
    """

    def __init__(
        self,
        params: Mapping[str, str] | None = None,
        beside: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.params, self.beside = dict(params or {}), dict(beside or {})

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.context, self.task, self.master = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Run the grid; raises SystemExit with the code where a job failed."""
        from experiments.jobs.launch import THREADS_IN_A_SWEEP
        from experiments.jobs.sweep import Sweep, check_sweep, name_sweep, plan_jobs
        from experiments.settings.typed import as_typed

        def plain_value(key: str, text: str) -> str:
            return as_typed(f"{key}={text}").partition("=")[2]

        overrides = self._parsed(self.params, arguments)
        (grid,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
        final = {override.get_key_element(): override for override in overrides}
        grid = [[*job, *more] for job in grid for more in self._beside(job, final)]
        swept = {
            key: ",".join(plain_value(key, text) for text in override.sweep_string_iterator())
            for key, override in final.items()
            if override.is_sweep_override()
        } | {name: values for name, values in self._all_beside().items() if name not in final}
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

    def _parsed(self, params: Mapping[str, str], arguments: Sequence[str] = ()) -> list[Override]:
        """Names with their values, as an experiment has them, and arguments of the command line."""
        from experiments.settings.typed import for_hydra

        lines = [for_hydra(f"{name}={values}", sweep=True) for name, values in params.items()]
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        return parser.parse_overrides([*lines, *arguments])

    def _beside(self, job: Sequence[str], final: Mapping[str, Override]) -> list[list[str]]:
        """What a job of the grid becomes jobs with, of what the command line leaves open."""
        own = [params for value, params in self.beside.items() if value in job]
        left = {name: values for params in own for name, values in params.items()}
        for name in left.keys() & final.keys():
            del left[name]
        (more,) = BasicSweeper.split_arguments(self._parsed(left), max_batch_size=None)
        return more

    def _all_beside(self) -> dict[str, str]:
        """The names that stand beside some value, with values of one of them."""
        return {name: values for params in self.beside.values() for name, values in params.items()}

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
        return [key for key in swept if key not in {**self.params, **self._all_beside()}]

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
