"""The steps of a lecture on chapter 4, in the book's order: what each is, shows and leads to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from experiments.analysis.histories import History
from experiments.analysis.lecture import Lecture
from experiments.analysis.runs import PLACEMENT
from experiments.analysis.words import count_words, join_words, placement_words, times_text
from gpt.published import PUBLISHED

LATER = 10  # a step by which placements have parted
UNTRAINED = 'experiment=generate model=book_124m init=torch seed=123 generate.prompt="Hello, I am"'


@dataclass(frozen=True)
class Step:
    """A step of the lecture.

    name     its rows in lecture.csv
    section  of the book; empty for the step beyond it
    subject  in the list of contents
    what     it is
    title    its finding, from what was computed
    notice   what to look at in the chart and the numbers
    command  that goes further
    further  what the command shows
    """

    name: str
    section: str
    subject: str
    what: str
    title: Callable[[Lecture], str]
    notice: str
    command: str
    further: str


def tokens_title(lecture: Lecture) -> str:
    """The first text and its tokens."""
    first = lecture.of("tokens")[0]
    return f"A model reads {first.what.removeprefix('tokens of ')} as {first.here}"


def skeleton_title(lecture: Lecture) -> str:
    """How many logits it gives."""
    size = lecture.here("skeleton", "logits of a token")
    return f"Without a single block the skeleton already gives {size} logits for each token"


def layer_norm_title(lecture: Lecture) -> str:
    """What the norm did to means and variances."""
    rows = lecture.tables["layer_norm"].groupby("row")
    mean, variance = rows["after"].mean(), rows["after"].var(ddof=0)
    if (mean.abs() < 1e-3).all() and ((variance - 1).abs() < 1e-2).all():
        return "Whatever a row was, LayerNorm gives it mean 0 and variance 1"
    return "LayerNorm changes the mean and the variance of each row"


def activation_title(lecture: Lecture) -> str:
    """How far below 0 the curves go."""
    lowest = lecture.tables["activations"].groupby("activation")["value"].min()
    return (
        f"GELU lets some negative values through, down to {lowest['gelu']:.2f}; "
        f"ReLU turns every one into {lowest['relu']:.0f}"
    )


def feed_forward_title(lecture: Lecture) -> str:
    """The width inside."""
    hidden = lecture.here("feed_forward", "width inside")
    return f"The feed-forward layer goes through a width of {hidden} and keeps the shape"


def shortcut_title(lecture: Lecture) -> str:
    """How many times the first layer's gradient grew."""
    first = lecture.tables["shortcut"].iloc[0]
    ratio = first["with_shortcut"] / first["without_shortcut"]
    return f"With shortcuts the first layer's gradient is {ratio:,.0f} times as large"


def block_title(lecture: Lecture) -> str:
    """Its size."""
    parameters = lecture.here("block", "parameters of a block")
    return f"A block of {parameters} parameters returns the shape it was given"


def parameters_title(lecture: Lecture) -> str:
    """Both counts."""
    untied, tied = lecture.of("parameters")[:2]
    return f"{untied.here} parameters, or {tied.here} when the head shares the embedding's matrix"


def logits_title(lecture: Lecture) -> str:
    """How likely the likeliest token is, and how many times as likely as in a uniform choice."""
    highest = lecture.here("logits", "highest probability of a next token")
    size = lecture.here("skeleton", "logits of a token")
    average = 1 / float(size.replace(",", ""))
    ratio = times_text(float(highest.removesuffix("%")) / 100 / average)
    return (
        f"Before training even the likeliest token has a probability of only {highest}, about "
        f"{ratio} that of a uniform choice"
    )


def sizes_title(lecture: Lecture) -> str:
    """How much the largest size has of the smallest."""
    sizes = lecture.tables["gpt2_sizes"]
    first, last = sizes.iloc[0], sizes.iloc[-1]
    ratios = {name: last[name] / first[name] for name in ("n_layers", "emb_dim", "parameters")}
    return (
        f"{ratios['n_layers']:.2g} times the blocks and {ratios['emb_dim']:.2g} times the width "
        f"make GPT-2 {ratios['parameters']:.3g} times as large"
    )


def text_title(lecture: Lecture) -> str:
    """What it wrote."""
    written = lecture.of("text")[-1].here
    return f"Untrained, the model writes noise: {written!r}"


def placement_title(lecture: Lecture) -> str:
    """Which of the three runs learned more than token frequencies."""
    learned = [arm_label(arm) for arm in lecture.arms if has_learned(arm)]
    others = [arm_label(arm) for arm in lecture.arms if not has_learned(arm)]
    if not others:
        return "All three runs learn: here Post-LN needs no warm-up"
    if not learned:
        return "None of the three runs learns more than how often each token occurs"
    return f"{join_words(others)} {verb(others)} not learn; {join_words(learned)} {verb(learned)}"


def verb(subjects: Sequence[str]) -> str:
    """The verb of one subject, or of several."""
    return "does" if len(subjects) == 1 else "do"


def has_learned(arm: History) -> bool:
    """Whether a run ended, and learned more than token frequencies."""
    return arm.run.status == "finished" and not arm.run.is_stuck


def arm_label(arm: History) -> str:
    """A run of the last step as a legend has it."""
    name = placement_words(str(arm.run.setting(PLACEMENT)))
    warmup = arm.run.setting("schedule.warmup_steps")
    steps = count_words(cast(int, warmup), "step")
    return f"{name} with {steps} of warm-up" if warmup else f"{name} without warm-up"


def loss_words(arm: History) -> str:
    """The validation loss at a run's end."""
    loss = arm.run.summary.val_loss
    return "diverged" if loss is None else f"{loss:.3f}"


def looked_at_steps(arm: History) -> list[int]:
    """Steps to compare gradients at: the first, the first logged one from LATER on, the last."""
    logged = [int(step) for step in arm.blocks.index]
    return [logged[0], next((step for step in logged if step >= LATER), logged[-1]), logged[-1]]


def ratio_words(arm: History, step: int) -> str:
    """The last block's gradient norm at a step over the first block's, in two digits."""
    blocks = arm.blocks.loc[step].to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):  # a first block that gets none
        return f"{float(f'{blocks[-1] / blocks[0]:.2g}'):,g}"


def start_words(arms: Sequence[History]) -> str:
    """Which runs are one model before their first step, so that their lines coincide there."""
    labels: dict[tuple[object, ...], list[str]] = {}
    for arm in arms:
        start = (arm.run.setting(PLACEMENT), *arm.blocks.iloc[0])
        labels.setdefault(start, []).append(arm_label(arm))
    return " ".join(
        f"At step {arms[0].blocks.index[0]} {join_words(same)} are still the same model, so "
        "that one line covers the other."
        for same in labels.values()
        if len(same) > 1
    )


STEPS = (
    Step(
        "tokens",
        "4.1",
        "Tokens",
        "Text becomes numbers: each piece of a text has its number in GPT-2's vocabulary.",
        tokens_title,
        "A space is part of the word after it. Texts that begin with the same word begin with the "
        "same number.",
        "python run.py tokenizer=char trainer.steps=100",
        "trains the default model on single characters instead",
    ),
    Step(
        "skeleton",
        "4.1",
        "The skeleton",
        "Token embedding, position embedding and output head, with no block and no norm between.",
        skeleton_title,
        "Nothing here looks at a neighbour: each row of logits depends on one token and its "
        "place. Blocks will mix the tokens.",
        "python run.py experiment=parameters model=book_124m model.n_layers=0 norm=no_norm",
        "counts what a GPT without blocks already holds",
    ),
    Step(
        "layer_norm",
        "4.2",
        "Layer normalisation",
        "Each row is shifted and scaled by its own mean and variance, with no look at other rows.",
        layer_norm_title,
        "The order within a row stays, and so do the ratios of the gaps. Only position and scale "
        "change.",
        "python run.py experiment=init_gradients norm.kind=rms_norm",
        "puts RMSNorm, which subtracts no mean, in its place and measures each block's gradient",
    ),
    Step(
        "gelu",
        "4.3",
        "GELU and ReLU",
        "Between its two matrices the feed-forward layer applies a curve to every number.",
        activation_title,
        "The derivative is what the gradient is multiplied by. ReLU's is 0 for every negative "
        "input and jumps at 0; GELU's is smooth, and above 1 for inputs near 1.4.",
        "python run.py experiment=activations",
        "draws six activations and their derivatives",
    ),
    Step(
        "feed_forward",
        "4.3",
        "The feed-forward layer",
        "A matrix that widens, GELU, and a matrix that narrows again, applied to each token alone.",
        feed_forward_title,
        "Texts and tokens, the first two numbers of the shape, pass through untouched. About two "
        "thirds of a block's parameters are here.",
        "python run.py experiment=parameters model=book_124m activation=silu "
        "model.feed_forward.gated=true",
        "counts the gated feed-forward layer of newer models",
    ),
    Step(
        "shortcut",
        "4.4",
        "Shortcuts",
        "Five small layers; with shortcuts each adds its input to its output.",
        shortcut_title,
        "The scale is logarithmic. Without shortcuts the gradient shrinks on its way back from "
        "the last layer to the first; with them all layers get gradients of one order.",
        "python run.py experiment=init_gradients shortcut=false",
        "does the same to a GPT of eight blocks",
    ),
    Step(
        "block",
        "4.5",
        "The transformer block",
        "Attention and feed-forward, each with a norm before it and a shortcut around it: "
        "h = x + A(N x), out = h + F(N h).",
        block_title,
        "Equal shapes in and out are what lets blocks be stacked. Where N stands is the choice "
        "that the last step is about.",
        "python run.py experiment=init_gradients norm=post_ln",
        "measures each block's gradient with the norm after the sum",
    ),
    Step(
        "parameters",
        "4.6",
        "Counting parameters",
        "The whole model of the book, counted, in 32-bit numbers.",
        parameters_title,
        "The book's MB are MiB, 2^20 bytes each. GPT-2's own 124M also shares the matrix, and "
        f"has biases on queries, keys and values: {PUBLISHED['gpt2_124m'].parameters:,}.",
        "python run.py experiment=parameters model=book_124m",
        "counts parameters, bytes and operations by component",
    ),
    Step(
        "logits",
        "4.6",
        "Logits of the model",
        "The model of 12 blocks on the two sentences, in training mode, with dropout.",
        logits_title,
        "That is still far from a prediction. A uniform choice has a loss of ln 50,257 = 10.8 "
        "nats; the untrained model's is a little above it. Training lowers it from there.",
        "python run.py init=gpt2 trainer.steps=100",
        "trains a smaller model for 100 steps from GPT-2's smaller initial weights: the loss "
        "starts near the logarithm of that model's vocabulary size",
    ),
    Step(
        "sizes",
        "4.6",
        "GPT-2's four sizes",
        "The models that OpenAI published, counted from their shapes alone: nothing is allocated.",
        sizes_title,
        "Context and vocabulary are the same in all four, and each head is 64 wide. A block grows "
        "with the square of the width, the embeddings with the width alone.",
        "python run.py experiment=model_sizes",
        "counts every size the project knows, beside what is published",
    ),
    Step(
        "text",
        "4.7",
        "Greedy text",
        "The most likely token is appended, six times.",
        text_title,
        "Pieces of real words without a meaning, since the weights are random. The same seed gives "
        "the same words.",
        f"python run.py {UNTRAINED} generate.temperature=0 generate.tokens=6",
        "writes it again, through the project's text generation",
    ),
    Step(
        "placement",
        "",
        "Pre-LN and Post-LN",
        "Three small models learn characters of the King James Bible, with one seed, "
        "one order of the data and one learning rate.",
        placement_title,
        "At step 0, before training, no gradient vanishes: in models as small as these the two "
        "placements differ little. Vanishing appears during training. Without warm-up the first "
        "steps are large, and under Post-LN the first blocks' gradient then all but vanishes: the "
        "last block gets many times the first block's. The last column shows whether that "
        "recovers.",
        "python run.py -m experiment=lesson",
        "repeats it with three seeds and compares the nine runs on one page",
    ),
)
