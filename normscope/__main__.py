"""The catalogue as a page: `python -m normscope > docs/measurements.md`."""

import sys

from normscope.costs import COSTS
from normscope.stats import MOMENTS, POINTS, Point, Statistic

INTRODUCTION = """\
# What is measured

Every statistic that a run can write into `gradients.csv`, and those of `mixing.csv`. This page is
made from the catalogue in `normscope/` by `python -m normscope > docs/measurements.md`. A row of
`gradients.csv` is

| column | meaning |
| --- | --- |
| `step` | updates made before the measurement: step 0 is the model as initialised |
| `layer` | 0 to L - 1 for the L blocks, -1 for the embeddings, L for the final norm and the head |
| `component` | what is measured: a part as listed below, or a tensor by its name in the layer |
| `stat` | the name of the statistic |
| `value` | its value |

Pictures, pages and equations count blocks from 1, so that `layer` 0 is block 1. A probed step is
every 50th of a default run (`trainer.probe_every`). The component `entry` is what else comes before
the blocks, `placement` what else a block owns. What was not measured has no row. Measuring changes
nothing: gradients, random state and weights are the same with it and without.

Not every number can be compared between models. The magnitude of the stream and the gradients of
the stream depend on the unit in which the stream is written. Where the branches read the stream
through a norm, as in Pre-LN, one can divide the stream, and what is added to it from there on, by
sqrt(k) after block k: losses and the gradients of all parameters stay the same (up to the norms'
eps), and only the stream's own magnitudes and gradients change. So a stream that grows with depth,
or a stream gradient that shrinks, is no finding by itself. Gradients of parameters, ratios and
losses do not depend on the unit.

Equations are in plain text: `norm(G)` is the Frobenius norm, the root of the sum of all squared
elements, `RMS(x)` the root of their mean; `sum` runs over all elements.

Costs are in processor time over that of a training step of the default run, as
`python -m tests.benchmarks.statistics > normscope/costs.py` measures them on a CPU. The column has
that of a statistic's own function, of all places of the model together; the passes through the
model, and what else comes before, are part of what a section costs in all.
"""


def page() -> str:
    """The introduction, and a section for each moment with what is measured at its points."""
    sections = [INTRODUCTION]
    for moment, title in MOMENTS.items():
        sections.append(f"## {title}\n")
        if moment in COSTS:
            sections.append(f"In all it takes {COSTS[moment]:g} times a training step.\n")
        sections += [section(point) for point in POINTS if point.moment == moment]
    return "\n".join(sections)


def section(point: Point) -> str:
    """A point: what is given, what holds for all, and the table of its statistics."""
    lines = [f"### {point.given}", ""]
    if point.remark:
        lines += [point.remark, ""]
    lines += [f"Components: {listed(point.of)}.", ""]
    lines += ["| statistic | what it is | equation | cost |", "| --- | --- | --- | --- |"]
    lines += [row(statistic, point) for statistic in point.statistics.values()]
    return "\n".join(lines) + "\n"


def row(statistic: Statistic, point: Point) -> str:
    """A line of the table."""
    name = f"`{statistic.name}`" + (f", `{statistic.name}_n`" if statistic.suffix else "")
    words = statistic.words
    if statistic.of != point.of:
        words += f"; components: {listed(statistic.of)}"
    if statistic.source:
        words += f". {statistic.source}"
    return f"| {name} | {words} | `{statistic.equation}` | {cost(statistic.name)} |"


def cost(name: str) -> str:
    """Of a statistic, in percent of a training step; empty where it is not measured by itself."""
    return f"{100 * COSTS[name]:.2g} %" if name in COSTS else ""


def listed(components: tuple[str, ...]) -> str:
    """The components; what stands in words is no name."""
    return ", ".join(part if " " in part else f"`{part}`" for part in components)


if __name__ == "__main__":
    sys.stdout.write(page())
