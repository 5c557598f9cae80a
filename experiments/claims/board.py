"""The board: measures the selected claims, look by look, and records their verdicts."""

import contextlib
import functools
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from experiments.analysis.runs import Run
from experiments.analysis.verdicts import ALPHA, LOOKS, NO_SOURCE, OPEN
from experiments.analysis.words import count_words, join_words
from experiments.claims import CLAIMS
from experiments.claims.claim import UNREAD, Claim, Prediction, guide_points
from experiments.claims.lab import Lab, Untrained
from experiments.claims.looks import Looks, Seed, finite_or_none
from experiments.claims.registered import commit_of, earlier, registrations
from experiments.claims.rule import Result
from experiments.data.corpus import KJV_SHA256
from experiments.jobs.launch import THREADS_IN_A_SWEEP, set_threads
from experiments.jobs.sweep import HASH_DIGITS, Sweep, duration, plan_jobs, threads_in_children
from experiments.jobs.workers import launcher, worker_pool, workers_for
from experiments.machine.console import one_line, print_line, print_table, progress
from experiments.machine.device import pick_device
from experiments.machine.files import typed_path
from experiments.machine.signals import (
    Interrupted,
    forward_signals,
    handle_signals,
    stop_signal,
)
from experiments.machine.versions import versions
from experiments.records.recorder import Recorder
from experiments.records.sink import Table, Value
from experiments.records.summary import CorpusSummary, read_summary
from experiments.runner import Outcome
from experiments.settings.compose import to_values
from experiments.settings.identity import digest
from experiments.settings.schema import Settings
from experiments.settings.typed import for_hydra
from gpt import ConfigError
from gpt.checks import check_choice
from gpt.registry import choice_hint

log = logging.getLogger(__name__)

# Overrides that a command may have: those about the claims themselves, and those that hold for
# every training run. Any other setting belongs to the claims, and changing it would change them.
ABOUT_CLAIMS = ("experiment=", "claims.", "hydra.", "resume=", "pictures=", "wandb.name=")
FOR_RUNS = ("device=", "threads=", "data.cache_dir=", "wandb.", "sweep.")
# Settings in the directory names of the training runs that set them.
NAMED = ("init", "model.n_layers", "optimizer.lr", "schedule.warmup_steps", "norm.qk")


@dataclass(frozen=True)
class Budget:
    """How often claims are looked at; never in another setting, so that budgets nest.

    trains   whether claims about training are measured
    looks    the last look, in seeds
    minutes  after which no look begins, the first aside; looks come first that may decide
    """

    trains: bool
    looks: int
    minutes: float = math.inf


BUDGETS = {
    "quick": Budget(trains=False, looks=LOOKS[1]),
    "standard": Budget(trains=True, looks=LOOKS[-1], minutes=25),
    "full": Budget(trains=True, looks=LOOKS[-1]),
}


def run_board(settings: Settings, recorder: Recorder) -> Outcome:
    """Measure the selected claims and record the files of `experiments.runners.claims`."""
    check_choice("claims.budget", settings.claims.budget, BUDGETS)
    claims = select_claims(settings)
    folder = typed_path(settings.claims.runs).absolute()
    fresh = settings.sweep.rerun == "all"
    looks = [Looks(claim, folder, settings.claims.first_seed, fresh) for claim in claims]
    threads = settings.threads or THREADS_IN_A_SWEEP
    workers = workers_for(settings.device, threads)
    overrides = overrides_for_runs(recorder.summary.overrides or [])
    with Board(looks, settings, overrides, folder, workers, threads) as board:
        board.measure(BUDGETS[settings.claims.budget])
    return record_board(looks, settings, recorder)


def select_claims(settings: Settings) -> list[Claim]:
    """The claims to measure. Raises ConfigError for an unknown name or too small a budget."""
    budget, only = settings.claims.budget, settings.claims.only
    trains = BUDGETS[budget].trains
    if only is None:
        return [claim for claim in CLAIMS.values() if trains or not claim.trains]
    claims = []
    for name in dict.fromkeys(only.split(",")):
        if name not in CLAIMS:
            raise ConfigError("claims.only", name, choice_hint(name, CLAIMS))
        if CLAIMS[name].trains and not trains:
            valid = f"{name} needs training: claims.budget=standard or full"
            raise ConfigError("claims.budget", budget, valid)
        claims.append(CLAIMS[name])
    return claims


def overrides_for_runs(overrides: Sequence[str]) -> list[str]:
    """The overrides for every model and run, as Hydra must be given them.

    Raises ConfigError for those that claims fix.
    """
    for_runs = [override for override in overrides if not override.startswith(ABOUT_CLAIMS)]
    for override in for_runs:
        if not override.startswith(FOR_RUNS):
            name, _, value = override.partition("=")
            valid = "each claim fixes its own settings; leave it out"
            if name == "seed":
                valid = "each claim has its own seeds; others: claims.first_seed=0"
            raise ConfigError(name, value, valid)
    return [*map(for_hydra, for_runs)]


class Board:
    """Measures claims look by look, in worker processes if there are several."""

    def __init__(
        self,
        looks: Sequence[Looks],
        settings: Settings,
        overrides: Sequence[str],
        folder: Path,
        workers: int,
        threads: int,
    ) -> None:
        self.looks, self.settings, self.folder = looks, settings, folder
        self.workers, self.threads = workers, threads
        self.lab = Lab(overrides)
        self.started = time.monotonic()
        self.pool: ProcessPoolExecutor | None = None
        self.within = contextlib.ExitStack()

    def __enter__(self) -> "Board":
        if self.workers > 1:
            self.within.enter_context(threads_in_children(self.threads))
            self.within.enter_context(forward_signals())
            self.pool = self.within.enter_context(worker_pool(self.workers))
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self.within.__exit__(*error)

    def measure(self, budget: Budget) -> None:
        """Look at claims until all are decided or the budget is spent."""
        while chosen := self.choose(budget):
            self.look({looks: look for looks in chosen if (look := looks.next_look)})
            verdicts = Counter(looks.verdict for looks in self.looks)
            print_line(", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common()))
        if left := [looks for looks in self.looks if self.wants(looks, budget)]:
            minutes = f"{budget.minutes:g} minutes"
            print_line(
                f"{len(left)} claims are open after {minutes}; the same command looks on from here"
            )

    @staticmethod
    def wants(looks: Looks, budget: Budget) -> bool:
        """Whether a claim is to be looked at again."""
        look = looks.next_look
        if looks.claim.source.read == UNREAD and len(looks) >= LOOKS[0]:
            return False  # it gets no verdict, so one look shows enough
        return look is not None and look <= budget.looks

    def choose(self, budget: Budget) -> list[Looks]:
        """The claims to look at next: all for a first time, then those that the time allows.

        Those come first that may be decided, and of these the cheapest.
        """
        open_claims = [looks for looks in self.looks if self.wants(looks, budget)]
        if first := [looks for looks in open_claims if len(looks) < LOOKS[0]]:
            return first
        left = 60 * budget.minutes - (time.monotonic() - self.started)
        chosen = []
        for looks in sorted(open_claims, key=lambda looks: (not looks.may_close, cost(looks))):
            if (seconds := cost(looks) / self.workers) <= left:
                left -= seconds
                chosen.append(looks)
        return chosen

    def look(self, chosen: Mapping[Looks, int]) -> None:
        """Measure the seeds that each claim lacks for a look."""
        self.look_at_models({looks: n for looks, n in chosen.items() if not looks.claim.trains})
        self.look_at_runs({looks: n for looks, n in chosen.items() if looks.claim.trains})

    def look_at_models(self, chosen: Mapping[Looks, int]) -> None:
        """Measure claims about models at initialisation."""
        tasks = [(looks, seed) for looks, n in chosen.items() for seed in looks.missing(n)]
        with progress("seeds of claims", max(1, len(tasks))) as report_progress:

            def keep(looks: Looks, measure: Callable[[], Seed], done: int) -> None:
                try:
                    looks.add(measure())
                except Exception as error:  # an error costs its own claim only; also a lost process
                    self.give_up(looks, error)
                report_progress(done, looks.claim.name)

            if self.pool is None:
                for done, (looks, seed) in enumerate(tasks, start=1):
                    if not looks.failed:
                        with set_threads(self.threads):
                            keep(
                                looks,
                                functools.partial(measure_seed, looks.claim, seed, self.lab),
                                done,
                            )
                return
            conf = config_folder()
            futures: dict[Future[Seed], Looks] = {
                self.pool.submit(
                    measure_in_process,
                    conf,
                    looks.claim.name,
                    seed,
                    self.lab.overrides,
                    self.threads,
                ): looks
                for looks, seed in tasks
            }
            for done, future in enumerate(as_completed(futures), start=1):
                keep(futures[future], future.result, done)
                if signal := stop_signal():
                    raise Interrupted(signal)

    def look_at_runs(self, chosen: Mapping[Looks, int]) -> None:
        """Measure claims about training. What runs they ask for are trained, until none asks."""
        tasks = [(looks, seed) for looks, n in chosen.items() for seed in looks.missing(n)]
        while tasks:
            waiting, wanted = [], dict[tuple[tuple[str, ...], int], None]()
            for looks, seed in tasks:
                if looks.failed:
                    continue
                try:
                    looks.add(measure_seed(looks.claim, seed, self.lab))
                except Untrained as request:
                    wanted |= dict.fromkeys(request.runs)
                    waiting.append((looks, seed))
                except Exception as error:  # such as of files that somebody has changed
                    self.give_up(looks, error)
            self.train(list(wanted))
            tasks = waiting

    def give_up(self, looks: Looks, error: Exception) -> None:
        """A claim whose measurement raised an error is left open."""
        if not looks.failed:
            log.warning("%s was not measured: %s", looks.claim.name, one_line(error))
        looks.failed = True

    def train(self, wanted: Sequence[tuple[tuple[str, ...], int]]) -> None:
        """Train the runs that are not there yet, and give them all to the lab."""
        if not wanted:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        grid = {run: self.overrides_of(*run) for run in wanted}
        jobs = plan_jobs(list(grid.values()), NAMED, self.folder, self.values_of)
        rerun = self.settings.sweep.rerun
        parallel = self.pool is not None
        sweep = Sweep(self.folder, jobs, rerun, parallel, self.threads, standalone=False)
        sweep.run(launcher(self.pool))
        by_hash = {job.name.rpartition("-")[2]: job.directory for job in jobs}
        for run, overrides in grid.items():
            directory = by_hash[digest(self.values_of(overrides))[:HASH_DIGITS]]
            summary = read_summary(directory)
            if summary.seed is None:  # of a run that left nothing
                summary.seed = run[1]
            self.lab.trained[run] = Run(directory, summary)

    def overrides_of(self, arm: Sequence[str], seed: int) -> list[str]:
        return [*self.lab.overrides, *arm, f"seed={seed}"]

    def values_of(self, overrides: Sequence[str]) -> dict[str, Any]:
        """The config of a run. All seeds share one composition, which takes 0.1 s."""
        *rest, seed = overrides
        return values_of_arm(tuple(rest)) | {"seed": int(seed.removeprefix("seed="))}


def cost(looks: Looks) -> float:
    """Seconds of one core that a claim's next look should take."""
    return looks.seconds_a_seed * ((looks.next_look or 0) - len(looks))


@functools.cache
def values_of_arm(overrides: tuple[str, ...]) -> dict[str, Any]:
    """The config of a training run, without its seed."""
    return to_values(compose("config", list(overrides)))


def measure_seed(claim: Claim, seed: int, lab: Lab) -> Seed:
    """Measure a claim under one seed, in this process."""
    started = time.monotonic()
    lab.run_seconds, lab.oldest_run = 0.0, math.inf
    evidence = claim.measure(lab, seed)
    seconds = time.monotonic() - started + lab.run_seconds
    return Seed.made_now(seed, evidence, seconds, lab.oldest_run)


@functools.cache
def lab_of_process(overrides: tuple[str, ...]) -> Lab:
    """A worker process composes configs and loads texts once."""
    return Lab(overrides)


def measure_in_process(
    conf: str, name: str, seed: int, overrides: Sequence[str], threads: int
) -> Seed:
    """As `measure_seed`, in a worker process, which composes configs from the folder `conf`."""
    with (
        handle_signals(),
        set_threads(threads),
        initialize_config_dir(conf, version_base="1.3"),
    ):
        return measure_seed(CLAIMS[name], seed, lab_of_process(tuple(overrides)))


def config_folder() -> str:
    """The folder of the configs that this command was composed from."""
    (main,) = (s for s in HydraConfig.get().runtime.config_sources if s.provider == "main")
    return str(main.path)


def record_board(looks: Sequence[Looks], settings: Settings, recorder: Recorder) -> Outcome:
    """Write the tables and the page, and print the board."""
    recorder.table("claims", [row for of_claim in looks for row in rows_of(of_claim, settings)])
    points = [row for of_claim in looks for row in point_rows(of_claim)]
    if points:
        recorder.table("measurements", points)
    verdicts = {of_claim.claim.name: word(of_claim) for of_claim in looks}
    recorder.summary.budget, recorder.summary.claims = settings.claims.budget, verdicts
    recorder.summary.device = str(pick_device(settings.device))
    recorder.summary.corpus = CorpusSummary("kjv", KJV_SHA256)  # of every claim that reads a text
    recorder.summary.versions = versions()
    recorder.write_summary()  # the page reads it
    page = write_page(recorder.directory)
    print_table(
        "Claims",
        [
            {
                "claim": of_claim.claim.name,
                "source": of_claim.claim.source.arxiv or ("own" if of_claim.claim.own else "book"),
                "verdict": verdicts[of_claim.claim.name],
                "seeds": len(of_claim),
                "time": duration(of_claim.seconds),
            }
            for of_claim in looks
        ],
    )
    decided = sum(of_claim.verdict != OPEN for of_claim in looks)
    print_line(f"at most {ALPHA * decided:.2g} of {decided} verdicts are expected to be wrong")
    if page is not None:
        print_line(f"\nReport: {page}")
    counts = Counter(verdicts.values())
    results = {verdict: str(count) for verdict, count in sorted(counts.items())}
    words = join_words([f"{verdict}: {count}" for verdict, count in results.items()])
    return Outcome(results=results, finding=f"of {count_words(len(looks), 'claim')}, {words}")


def word(looks: Looks) -> str:
    """The verdict of a claim; of one whose source nobody read, that."""
    return NO_SOURCE if looks.claim.source.read == UNREAD else looks.verdict


def write_page(directory: Path) -> Path | None:
    """Write the page about the claims; None, with a warning, where that fails.

    The tables, from which it can be made again, are there already.
    """
    try:
        from experiments.report.claims_page import write_claims_page  # loads matplotlib

        return write_claims_page(directory)
    except Exception as error:
        log.warning("the page was not written: %s: %s", type(error).__name__, one_line(error))
        return None


def rows_of(looks: Looks, settings: Settings) -> Table:
    """The rows of claims.csv: one for each prediction of a claim."""
    claim, source = looks.claim, looks.claim.source
    entries = registrations().get(claim.name)
    of_claim: dict[str, Value] = {
        "claim": claim.name,
        "block": claim.block,
        "title": claim.title,
        "finding": "own" if claim.own else "published",
        "paper": source.paper,
        "arxiv": f"arXiv {source.arxiv}" if source.arxiv else None,
        "where": source.where or None,
        "read": None if claim.own else source.read,
        "statement": claim.statement,
        "setting": claim.setting,
        "distance": claim.distance,
        "meaning": claim.meaning or None,
        "remark": claim.remark or None,
        "claim_verdict": word(looks),
        "evidence": looks.stamp,
        "first_seed": looks.seeds[0],
        "seeds": len(looks),
        "seconds": round(looks.seconds, 1),
        "hash": claim.hash,
        "registered": entries[-1].time if entries else None,
        "registered_commit": entries[-1].commit if entries else None,
        "commit": commit_of(Path(__file__).parent) or None,
        "earlier": "; ".join(f"{e.time[:10]}: {e.result}" for e in earlier(claim)) or None,
        "figure": f"figures/{claim.name}.png",
        "command": command_of(claim, settings),
    }
    return [of_claim | row_of(result) for result in looks.results]


def row_of(result: Result) -> dict[str, Value]:
    """The columns of claims.csv about one prediction."""
    prediction = result.prediction
    return {
        "number": prediction.name,
        "prediction": prediction.text or None,
        "kind": prediction.kind or None,
        "role": role_of(prediction),
        "predicted_low": finite_or_none(prediction.low),
        "predicted_high": finite_or_none(prediction.high),
        "margin": prediction.margin if prediction.is_directed else None,
        "paired": prediction.is_paired,
        "measured": finite_or_none(result.mean),
        "sd": finite_or_none(result.sd),
        "ci_low": finite_or_none(result.low),
        "ci_high": finite_or_none(result.high),
        "verdict": result.verdict or None,
        "look": result.look or None,
        "closes_at": closing_text(result) if result.verdict == OPEN else None,
    }


def role_of(prediction: Prediction) -> str:
    """What a prediction's row in claims.csv is."""
    if not prediction.kind:
        return "shown"
    return "control" if prediction.is_control else "prediction"


def closing_text(result: Result) -> str:
    """At how many seeds an open prediction should be decided."""
    return str(result.closes_at) if result.closes_at else f"not below {LOOKS[-1]}"


def command_of(claim: Claim, settings: Settings) -> str:
    """The command that measures a claim alone, to its last look."""
    command = f"python run.py experiment=claims claims.only={claim.name} claims.budget=full"
    first = settings.claims.first_seed
    return command if first is None else f"{command} claims.first_seed={first}"


def point_rows(looks: Looks) -> Table:
    """The rows of measurements.csv: what a claim's figure and its row of the forest plot draw.

    kind   point: a value of an arm; guide: what is predicted there, to `upper` where it is a band;
           number: the number of a prediction under one seed, whose name stands as the arm
    """
    axes = looks.claim.axes
    labels: dict[str, Value] = {
        "claim": looks.claim.name,
        "x_name": axes.x,
        "y_name": axes.y,
        "log_x": axes.log_x,
        "log_y": axes.log_y,
    }

    def row(kind: str, arm: str, x: float, seed: int | None, value: float, upper: float) -> Any:
        return labels | {
            "kind": kind,
            "arm": arm,
            "x": finite_or_none(x),
            "seed": seed,
            "value": finite_or_none(value),
            "upper": finite_or_none(upper),
        }

    nan = math.nan
    points = [
        row("point", p.arm, p.x, s.seed, p.value, nan) for s in looks for p in s.evidence.points
    ]
    numbers = [
        row("number", name, nan, seed, value, nan)
        for name, values in looks.values.items()
        for seed, value in zip(looks.seeds, values, strict=False)
    ]
    means = mean_points(looks)
    guides = [
        row("guide", guide.label, x, None, low, high)
        for guide in looks.claim.guides
        for x, low, high in (guide_points(guide, means) if means else [])
    ]
    return [*points, *guides, *numbers]


def mean_points(looks: Looks) -> dict[str, dict[float, float]]:
    """The mean over seeds of each arm's values, by x."""
    collected: dict[str, dict[float, list[float]]] = {}
    for seed in looks:
        for point in seed.evidence.points:
            collected.setdefault(point.arm, {}).setdefault(point.x, []).append(point.value)
    return {
        arm: {x: sum(values) / len(values) for x, values in by_x.items()}
        for arm, by_x in collected.items()
    }
