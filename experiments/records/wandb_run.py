"""The same records as a W&B run, whose failure never ends ours."""

import contextlib
import dataclasses
import functools
import html
import logging
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from experiments.machine.console import one_line, printable
from experiments.machine.environment import environment
from experiments.machine.files import hide_home
from experiments.records.sink import Metrics, Table, shown_cell
from experiments.records.summary import Summary
from experiments.settings.schema import Settings
from normscope.mixing import MixingRow
from normscope.stats import Row, described

log = logging.getLogger(__name__)
P = ParamSpec("P")

# Variables that say who the user is, where the server is and how it is reached.
OF_THE_USER = {
    "WANDB_API_KEY",
    "WANDB_APP_URL",
    "WANDB_BASE_URL",
    "WANDB_CONFIG_DIR",
    "WANDB_CREDENTIALS_FILE",
    "WANDB_DATA_DIR",
    "WANDB_ENTITY",
    "WANDB_HTTP_PROXY",
    "WANDB_HTTP_TIMEOUT",
    "WANDB_HTTPS_PROXY",
    "WANDB_IDENTITY_TOKEN_FILE",
    "WANDB_INSECURE_DISABLE_SSL",
}
TIMEOUT = 60.0  # seconds for W&B to start or to end
TIMEOUT_ONCE_FAILED = 5.0
GRADIENTS = "gradients_by_block/"
LOSSES = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    "val_bits_per_byte": "loss/validation_bits_per_byte",
    "balance_loss": "loss/balance",
}


def never_fatal(
    method: Callable[Concatenate["WandbSink", P], None],
) -> Callable[Concatenate["WandbSink", P], None]:
    """A failure inside W&B costs one warning and the rest of its record, never the run."""

    def guarded(self: "WandbSink", *args: P.args, **kwargs: P.kwargs) -> None:
        if self.run is None:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self.give_up(error)

    return guarded


def html_table(table: Table) -> str:
    """The rows as an HTML table."""
    rows = ["".join(f"<th>{html.escape(name)}</th>" for name in table[0])]
    for row in table:
        rows.append(
            "".join(f"<td>{html.escape(printable(shown_cell(v)))}</td>" for v in row.values())
        )
    return "<table>" + "".join(f"<tr>{cells}</tr>" for cells in rows) + "</table>"


def without_other_runs(directory: Path) -> contextlib.AbstractContextManager[None]:
    """Within: no variable by which W&B would make another run of this one, in `directory`.

    Such as WANDB_RUN_ID, under which all jobs of a sweep would be one run, or the WANDB_SERVICE
    that a process leaves to its children: where to find W&B's own process, which may have ended.
    """
    names = {name for name in os.environ if name.startswith("WANDB_")} - OF_THE_USER
    own = {
        # Where W&B's own process cannot write its log, as in a read-only home, it prints it.
        "WANDB_CACHE_DIR": str(directory / "wandb"),
        # Or an offline run, too, tells the server how W&B fares, and prints where it cannot.
        "WANDB_ERROR_REPORTING": "false",
    }
    return environment({**dict.fromkeys(names | {"WANDB_SERVICE"}), **own})


class HideHome(logging.Filter):
    """Puts ~ for the home directory in what is logged."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes the record, and keeps it."""
        record.msg, record.args = hide_home(record.getMessage()), ()
        return True


def hide_home_in_wandb_log() -> None:
    """W&B writes a log into the run's directory, which may be shown to others."""
    logger = logging.getLogger("wandb")
    if not any(isinstance(kept, HideHome) for kept in logger.filters):
        logger.addFilter(HideHome())


def call_with_timeout(seconds: float, act: Callable[[], object]) -> None:
    """Call `act`, which is left behind after `seconds`.

    Raises RuntimeError for whatever it raised, TimeoutError where it has not ended.
    """
    raised: list[BaseException] = []

    def attempt() -> None:
        try:
            act()
        except BaseException as error:  # a cancelled task, say
            raised.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer for {seconds:g} s")
    if raised:
        raise RuntimeError(one_line(raised[0])) from raised[0]


def full_values(metrics: Metrics, rows: Sequence[Row]) -> dict[str, float]:
    """What wandb.detail=full logs: metrics under their CSV names, and every row that is live.

    A value of the fourth block's attention is `grad_norm/layer_3/attention`, as in the CSV file.
    """
    values = {name: value for name, value in metrics.items() if value is not None}
    layers = {
        f"{row.stat}/layer_{row.layer}/{row.component}": row.value
        for row in rows
        if is_live(row.stat)
    }
    return values | layers


@functools.cache
def is_live(stat: str) -> bool:
    """Whether the catalogue has it followed while a run goes on."""
    return described(stat).live


def summary_values(metrics: Metrics, rows: Sequence[Row], blocks: int) -> dict[str, float]:
    """What wandb.detail=summary logs: what comes before a / is a section of the workspace.

    Of the rows the gradient norms of some blocks, and what the catalogue has drawn over the blocks.
    """
    values = {
        LOSSES.get(name, f"training/{name}"): value
        for name, value in metrics.items()
        if value is not None
    }
    shown, norms = blocks_shown(blocks), {}
    for row in rows:
        panel = panel_of(row.stat, row.component)
        if panel == GRADIENTS:
            norms[row.layer + 1] = row.value
        if panel is not None and row.layer + 1 in shown:
            values[f"{panel}block_{row.layer + 1:0{len(str(blocks))}}"] = row.value
    if norms.get(1):
        ratio = norms.get(blocks, math.nan) / norms[1]
        if math.isfinite(ratio):
            values[f"{GRADIENTS}last_over_first"] = ratio
    return values


def blocks_shown(blocks: int) -> list[int]:
    """The first, the last and the three at the quarters between, counted from 1."""
    return sorted({1 + round(part * (blocks - 1) / 4) for part in range(5)})


@functools.cache
def panel_of(stat: str, component: str) -> str | None:
    """How the names of a statistic's panels by block begin; None where it has none."""
    if (stat, component) == ("grad_norm", "block"):
        return GRADIENTS
    entry = described(stat)
    has_curve = entry.live and entry.moment != "end" and entry.name == stat
    return f"probes_by_block/{stat}_" if has_curve and entry.drawn == component else None


class WandbSink:
    """The same records as a W&B run: offline by default, to be synced when the user likes.

    Each name is a panel of the workspace: with wandb.detail=summary at most 60, whatever the depth;
    with `full` 1,000 to 1,200 of a run of 8 blocks, of which all placements have below 4,000
    together: W&B asks for fewer than 10,000 in a project. Statistics that are not `live` in the
    catalogue are in the files alone.
    """

    def __init__(self, directory: Path, settings: Settings, records: Mapping[str, Any]) -> None:
        self.id: str | None = records.get("wandb_id")
        is_older = self.id is not None and "wandb_detail" not in records
        self.detail = "full" if is_older else settings.wandb.detail  # a run goes on as it began
        self.blocks = settings.model.n_layers
        self.run: Any = None
        try:
            with without_other_runs(directory):
                self._start(directory, settings)
            for link in directory.glob("wandb/*/logs/debug-core.log"):
                link.unlink()  # leads into the home directory
        except Exception as error:
            self.give_up(error)

    def _start(self, directory: Path, settings: Settings) -> None:
        """Open the W&B run."""
        import wandb  # takes a second, which runs with wandb.mode=disabled need not wait for

        self.wandb = wandb
        hide_home_in_wandb_log()
        self.run = wandb.init(
            mode="online" if settings.wandb.mode == "online" else "offline",
            project=settings.wandb.project,
            entity=settings.wandb.entity,
            group=settings.wandb.group,
            job_type=settings.runner,
            tags=settings.wandb.tags,
            name=settings.wandb.name or directory.name,
            dir=directory,
            config=dataclasses.asdict(settings),
            id=self.id,
            resume=None if self.id is None else "allow",
            reinit="finish_previous",
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=TIMEOUT,
                finish_timeout=TIMEOUT,
                disable_git=True,
                disable_code=True,
                disable_job_creation=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
            ),
        )
        self.id = getattr(self.run, "id", None)
        self.run.define_metric("step", hidden=True)
        self.run.define_metric("*", step_metric="step")

    @staticmethod
    def is_wanted(settings: Settings) -> bool:
        """Unless wandb.mode=disabled."""
        return settings.wandb.mode != "disabled"

    def state(self) -> dict[str, Any]:
        """The run's id, under which it is resumed, and what it logs."""
        return {"wandb_id": self.id, "wandb_detail": self.detail}

    def give_up(self, error: Exception) -> None:
        text = "W&B failed and records no more of this run; the CSV files are not affected: %s"
        log.warning(text, one_line(error))
        run, self.run = self.run, None
        with contextlib.suppress(Exception):
            if run is not None:
                call_with_timeout(TIMEOUT_ONCE_FAILED, lambda: run.finish(exit_code=1))
        with contextlib.suppress(Exception):  # or it would print, or wait, when Python ends
            call_with_timeout(TIMEOUT_ONCE_FAILED, lambda: self.wandb.teardown(exit_code=1))

    @never_fatal
    def step(self, step: int, metrics: Metrics, rows: Sequence[Row]) -> None:
        if self.detail == "full":
            values = full_values(metrics, rows)
        else:
            values = summary_values(metrics, rows, self.blocks)
        self.run.log({"step": step, **values})

    def mixing(self, step: int, rows: Sequence[MixingRow]) -> None:
        """Stands in mixing.csv alone, each pair of layers would be a panel."""

    @never_fatal
    def table(self, name: str, table: Table) -> None:
        # Not wandb.Table, whose record holds the path of its file on this machine.
        self.run.log({f"tables/{name}": self.wandb.Html(html_table(table), inject=False)})

    @never_fatal
    def finish(self, summary: Summary, pictures: Sequence[Path]) -> None:
        def end() -> None:
            for picture in pictures:
                if picture.suffix == ".png":  # an SVG is the same again
                    self.run.log({f"plots/{picture.stem}": self.wandb.Image(str(picture))})
            self.run.summary.update(summary.values())
            failed = summary.status in ("failed", "interrupted")
            self.run.finish(exit_code=1 if failed else 0)

        call_with_timeout(TIMEOUT, end)  # its own limit does not hold where its process hangs
