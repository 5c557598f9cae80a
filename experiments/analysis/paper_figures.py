"""Published figures that are measured again: what each shows, and on which axes."""

from dataclasses import dataclass

from gpt.registry import Registry

MEASURED, PREDICTED = "measured", "predicted"  # kinds of rows of paper_figure.csv


@dataclass(frozen=True)
class Panel:
    """One panel: its title, the labels of its axes, and whether these have log scales."""

    title: str
    x: str
    y: str
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class PaperFigure:
    """A figure of a paper.

    paper     the paper, and which of its figures
    arxiv     of the paper
    title     what is measured
    published what the paper's figure shows, after "In the paper "
    ours      in what the setting here differs from the paper's
    panels    by their names in paper_figure.csv, row by row
    columns   panels in a row
    """

    paper: str
    arxiv: str
    title: str
    published: str
    ours: str
    panels: dict[str, Panel]
    columns: int


PAPER_FIGURES: Registry[PaperFigure] = Registry("paper_figure.name")

# Of Xiong et al.'s figure: the settings in which it is measured, one in each row of panels.
TRANSLATOR, DECODER, THEORY = "encoder-decoder", "GPT", "section 3.3"
GRADIENT = "gradient norm of"


def gradient_panels(setting: str) -> dict[str, Panel]:
    """The four panels of Xiong et al.'s figure, in one setting."""
    return {
        f"{setting} (a)": Panel(f"(a) {setting}", "block", f"{GRADIENT} W_1"),
        f"{setting} (b)": Panel(f"(b) {setting}", "block", f"{GRADIENT} W_2"),
        f"{setting} (c)": Panel(f"(c) {setting}, Pre-LN", "blocks", f"{GRADIENT} the last W_2"),
        f"{setting} (d)": Panel(f"(d) {setting}, Post-LN", "blocks", f"{GRADIENT} the last W_2"),
    }


PAPER_FIGURES["xiong_figure_3"] = PaperFigure(
    paper="Xiong et al. 2020, Figure 3",
    arxiv="2002.04745",
    title="gradient norms of the feed-forward weights at initialisation",
    published="Post-LN's gradient grows with the layer and is about 1.6 in the last one at every "
    "depth; Pre-LN's is almost the same in all layers, and falls with the depth; after warm-up "
    "Post-LN's is very small",
    ours="width 64 and feed-forward 128, not 512 and 1,024; text of the corpus continued, not "
    "translated; no label smoothing, no dropout; the rows below the first are ours",
    panels={
        **gradient_panels(TRANSLATOR),
        **gradient_panels(DECODER),
        **gradient_panels(THEORY),
    },
    columns=4,
)

UPDATE, UPDATE_OF_SGD = "change of the output (RMS)", "change of the output by SGD (RMS)"
ONE_STEP, LAST_STEP, SGD_STEP = "Adam, one step", "Adam, last step", "SGD, one step"
PAPER_FIGURES["wang_figure_5"] = PaperFigure(
    paper="Wang et al. 2022 (DeepNet), Figure 5",
    arxiv="2203.00555",
    title="how far the first steps move the output, against the depth",
    published="Post-LN's update explodes with the depth, and DeepNorm's is nearly constant",
    ours="a decoder alone, not an encoder-decoder; the corpus, not IWSLT-14; log scales",
    panels={
        ONE_STEP: Panel("after one step of Adam", "blocks", UPDATE, True, True),
        LAST_STEP: Panel("after the last step of Adam", "blocks", UPDATE, True, True),
        SGD_STEP: Panel("after one step of SGD (section 4.3)", "blocks", UPDATE_OF_SGD, True, True),
    },
    columns=3,
)

BLOCK = "block "  # begins the name of a block's line
VARIANCE = "variance of the stream"
PRE_LN, SCALED, LN_SCALING = "Pre-LN", "Pre-LN, scaled initialisation", "LayerNorm Scaling"
BY_BLOCK = "by block"
PAPER_FIGURES["sun_figure_4"] = PaperFigure(
    paper="Sun et al. 2025 (The Curse of Depth), Figure 4",
    arxiv="2502.05795",
    title="variance of each block's output through training",
    published="the scale of the variance ends at 175 or 200 under Pre-LN, scaled initialisation or "
    "not, and at 25 with LayerNorm Scaling; deep blocks are far above the first",
    ours="width 64, not 768, and hundreds of steps, not 10,000; GPT-2's blocks, not LLaMA's",
    panels={
        **{name: Panel(name, "step", VARIANCE) for name in (PRE_LN, SCALED, LN_SCALING)},
        BY_BLOCK: Panel("after the last step", "block", VARIANCE, log_x=True, log_y=True),
    },
    columns=4,
)
