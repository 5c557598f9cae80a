"""Several training runs in one picture, drawn from their CSV files and summaries alone."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from experiments.analysis.arms import WARMUP, label_value
from experiments.analysis.histories import NATS, History, by_layer, in_common_unit, read_csv
from experiments.analysis.runs import PLACEMENT, Run, Value, sort_key, varying_settings
from experiments.analysis.words import placement_words
from experiments.machine.console import one_line
from experiments.machine.plotting import plain_matplotlib
from experiments.report.drawing import INCOMPARABLE
from experiments.report.lettering import fold, warnings_of_ours
from experiments.report.palette import DASHES, Look, categories, look_of
from experiments.report.style import (
    LEGEND,
    loss_limits,
    mark_height,
    on_scale,
    panels,
    save,
    whole_numbers,
)
from gpt import ConfigError

PANEL = (7.2, 2.3)  # inches
LEGEND_WIDTH = 75  # characters of all labels in a row
ROW, FEW_ROWS = 0.2, 3  # inches of a row of the legend, and for how many there is room
MOST_DASHES = 3  # of one colour, where no placement needs the others
HEIGHTS = (3, 2)  # of the ratio's panel to the loss's


@warnings_of_ours("comparison")
def compare(directories: Sequence[Path], path: Path) -> Path:
    """Draw the ratio of the last block's gradient norm to the first's, and the loss, by step.

    One line a run; the legend has the settings in which the runs differ.

    Raises ConfigError for a directory that is not of a training run.
    """
    runs = [Run.read(directory) for directory in directories]
    ratios = [gradient_ratio(read_table(directory, "gradients")) for directory in directories]
    for directory, ratio in zip(directories, ratios, strict=True):
        if len(ratio) < 2:
            valid = (
                "must be a training run whose gradients.csv has gradient norms of blocks; "
                "python -m experiments.report compares others"
            )
            raise ConfigError("DIR", str(directory), valid)
    with plain_matplotlib():
        return save(draw_comparison(runs, ratios), path)


def draw_comparison(runs: Sequence[Run], ratios: Sequence[pd.Series]) -> Figure:
    """The ratios above the losses."""
    figure, (above, below) = panels(2, 1, PANEL)
    above.get_gridspec().set_height_ratios(HEIGHTS)  # type: ignore[union-attr]
    above.sharex(below)
    names = [fold(label, LEGEND_WIDTH) for label in labels(runs)]
    looks = looks_of_runs(runs)
    draw_ratios(above, [on_scale(ratio) for ratio in ratios], names, looks)
    columns = max(1, LEGEND_WIDTH // max(len(line) for name in names for line in name.split("\n")))
    rows = math.ceil(len(names) / columns) * (1 + max(name.count("\n") for name in names))
    figure.set_figheight(figure.get_figheight() + ROW * max(0, rows - FEW_ROWS))
    figure.legend(
        *above.get_legend_handles_labels(), loc="outside upper left", ncols=columns, **LEGEND
    )
    histories = [History(run, read_table(run.directory, "metrics")) for run in runs]
    draw_losses(below, in_common_unit(histories), looks)
    draw_frequencies(below, {run.summary.corpus.unigram_validation_loss for run in runs})
    return figure


def read_table(directory: Path, name: str) -> pd.DataFrame:
    """NAME.csv of a run; empty where there is none. ConfigError where it cannot be read."""
    try:
        return read_csv(directory / f"{name}.csv")
    except (ValueError, pd.errors.ParserWarning) as error:
        raise ConfigError(f"{name}.csv of", str(directory), one_line(error)) from None


def gradient_ratio(gradients: pd.DataFrame) -> pd.Series:
    """The last block's gradient norm over the first's, by step, where it is positive and finite."""
    if gradients.empty:
        return pd.Series(dtype=float)
    blocks = by_layer(gradients, "grad_norm", "block")
    if blocks.empty:
        return pd.Series(dtype=float)
    with np.errstate(all="ignore"):
        ratio = blocks.iloc[:, -1] / blocks.iloc[:, 0]
    return ratio[np.isfinite(ratio) & (ratio > 0)]


def looks_of_runs(runs: Sequence[Run]) -> list[Look]:
    """Each run in the look of its placement; the dash says the other settings, and the seed.

    The lowest is solid, as on a report's page: of two runs the one without warm-up. Where that
    takes too many dashes, each run has its own colour.
    """
    names = [name for name in varying_settings(runs) if name != PLACEMENT]
    others = [(run.seed, *(run.setting(name) for name in names)) for run in runs]
    levels = sorted(set(others), key=lambda other: [sort_key(value) for value in other])
    placements = [str(run.setting(PLACEMENT)) for run in runs]
    if len(levels) > (MOST_DASHES if len(set(placements)) == 1 else len(DASHES)):
        return categories(len(runs))
    return [
        look_of(placement).varied(levels.index(other))
        for placement, other in zip(placements, others, strict=True)
    ]


def draw_ratios(
    axis: Axes, ratios: Sequence[pd.Series], labels: Sequence[str], looks: Sequence[Look]
) -> None:
    """One line a run, on a log scale, and the height at which both blocks receive the same."""
    for look, ratio, label in zip(looks, ratios, labels, strict=True):
        axis.plot(ratio, color=look.light, linestyle=look.linestyle, label=label)
    axis.axhline(1, color="0.35", linewidth=1, linestyle="--")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.tick_params(labelbottom=False)
    axis.set_ylabel("gradient norm,\nlast block / first block")


def draw_losses(axis: Axes, histories: Sequence[History], looks: Sequence[Look]) -> None:
    """Training loss as a line, validation loss as marks, up to the first losses.

    A spike far above those would leave no height for what is learnt. In bits per byte there is no
    training loss.
    """
    unit = histories[0].unit
    curves = []
    for look, history in zip(looks, histories, strict=True):
        training = history.losses("train_loss" if unit.column == NATS.column else "")
        validation = history.losses(unit.column)
        line = {"linestyle": look.linestyle, "linewidth": 0.8, "alpha": 0.7}
        axis.plot(training, color=look.light, **line)
        fill = "white" if look.dash else look.light  # or runs of one placement had the same marks
        axis.plot(validation, look.mark, color=look.light, markersize=4, markerfacecolor=fill)
        curves.append((look.light, training, validation))
    axis.set_ylim(*loss_limits(curve.tolist() for _, *both in curves for curve in both))
    for colour, *both in curves:
        mark_height(axis, pd.concat(both).sort_index(), colour)
    whole_numbers(axis)
    axis.set(xlabel="step (updates made)", ylabel=f"loss ({unit.name}),\nmarks: validation")
    if not unit.comparable:
        axis.set_title(INCOMPARABLE, fontsize=8)


def draw_frequencies(axis: Axes, levels: set[float | None]) -> None:
    """The loss of a model that knows token frequencies alone, where it is the same for all runs."""
    known = [level for level in levels if level is not None]
    if len(levels) == len(known) == 1:
        label = "token frequencies alone"
        axis.axhline(known[0], color="0.35", linewidth=1, linestyle=":", label=label)
        axis.legend(**LEGEND)


def labels(runs: Sequence[Run]) -> list[str]:
    """What distinguishes each run, its seed included; its directory where nothing does."""
    names = varying_settings(runs)
    words = [[in_words(name, run.setting(name)) for name in names] for run in runs]
    if len({run.seed for run in runs}) > 1:
        words = [[*settings, f"seed {run.seed}"] for settings, run in zip(words, runs, strict=True)]
    named = zip(words, runs, strict=True)
    return [", ".join(settings) or run.directory.name for settings, run in named]


def in_words(name: str, value: Value) -> str:
    """A setting as a legend has it: Post-LN, no warm-up, lr 0.003."""
    if name == PLACEMENT:
        return placement_words(str(value))
    if name == WARMUP:
        return f"warm-up {value}" if value else "no warm-up"
    return label_value(name, value)
