"""The steps of the lecture, computed with the parts of the model itself."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import gpt
from experiments.analysis.lecture import Check
from experiments.data.tokenizer import GPT2Tokenizer
from experiments.lecture import notes
from experiments.lecture.notes import BOOK_SEED, PROMPT, SENTENCES
from experiments.lecture.parts import activation_table, norm_table, shortcut_table
from experiments.records.sink import Table
from experiments.settings.sizes import published_model
from gpt import ACTIVATIONS, GPT, PLACEMENTS, GPTConfig, NormConfig, generate, parameter_count
from gpt.count import meta_model
from gpt.feedforward import FeedForward
from gpt.norm import LayerNorm

FLOAT32_BYTES = 4
# A step gives its numbers, and its tables by name.
Tables = dict[str, Table]
Compute = Callable[[Tables], Iterator[Check]]


def book_config() -> GPTConfig:
    """The book's GPT_CONFIG_124M, with PyTorch's own initialisation."""
    return GPTConfig(**gpt.GPT_CONFIG_124M)


@functools.cache
def book_model() -> GPT:
    """The book's model from the book's seed, made once: 622 MB.

    Dropout draws on from the same seed, so that `logits` must be the first to ask for it.
    """
    torch.manual_seed(BOOK_SEED)
    return GPT(book_config())


def sentences() -> Tensor:
    """The book's two sentences, (2, 4)."""
    return torch.tensor([GPT2Tokenizer().encode(text) for text in SENTENCES])


def ends(logits: Tensor) -> list[float]:
    """The first and the last three numbers."""
    return [*logits[:3].tolist(), *logits[-3:].tolist()]


def tokens(tables: Tables) -> Iterator[Check]:
    """Ids of the texts that the chapter uses."""
    tokenizer = GPT2Tokenizer()
    for text, noted in notes.TOKENS.items():
        yield noted.check("tokens", f'tokens of "{text}"', tokenizer.encode(text))


@torch.no_grad()
def skeleton(tables: Tables) -> Iterator[Check]:
    """Embeddings and head alone, in training mode: the logits of the first token."""
    config = dataclasses.replace(book_config(), n_layers=0, norm=NormConfig("no_norm"))
    torch.manual_seed(BOOK_SEED)
    logits = GPT(config)(sentences())
    yield notes.SKELETON_LOGITS.check("skeleton", "logits of the first token", ends(logits[0, 0]))
    yield Check.alone("skeleton", "logits of a token", f"{logits.shape[-1]:,}")


@torch.no_grad()
def layer_norm(tables: Tables) -> Iterator[Check]:
    """Two rows before and after a norm, with their means and biased variances."""
    torch.manual_seed(BOOK_SEED)
    before = torch.randn(2, 5)
    after = LayerNorm(5, 1e-5)(before)
    tables["layer_norm"] = norm_table(before, after)
    for row, noted in enumerate(notes.LAYER_NORM):
        yield noted.check("layer_norm", f"row {row + 1} after the norm", after[row].tolist())
    for row in range(len(before)):
        for when, x in (("before", before[row]), ("after", after[row])):
            variance = x.var(correction=0)
            what = f"mean and variance of row {row + 1} {when} the norm"
            yield Check.alone("layer_norm", what, f"{x.mean():z.4f} and {variance:.4f}")


def gelu(tables: Tables) -> Iterator[Check]:
    """The activation against the equation of the notes, from -4 to 4."""
    tables["activations"] = activation_table()
    x = torch.linspace(-4, 4, 401)
    difference = (ACTIVATIONS["gelu"](x) - notes.gelu_of_the_notes(x)).abs().max().item()
    formula = "0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))"
    what = f"largest difference between GELU and the notes' formula, {formula}"
    yield Check.alone("gelu", what, f"{difference:.1g}" if difference else "exactly 0")


@torch.no_grad()
def feed_forward(tables: Tables) -> Iterator[Check]:
    """Shapes of the layer, and its size."""
    config = book_config()
    layer = FeedForward(config)
    out = layer(torch.randn(2, 3, config.emb_dim))
    yield notes.FEED_FORWARD_SHAPE.check("feed_forward", "shape in and out", tuple(out.shape))
    yield notes.HIDDEN_WIDTH.check("feed_forward", "width inside", layer.fc_in.out_features)
    yield Check.alone("feed_forward", "parameters of the layer", f"{count(layer):,}")


def shortcut(tables: Tables) -> Iterator[Check]:
    """The network of five layers, without and with shortcuts."""
    table = tables["shortcut"] = shortcut_table(BOOK_SEED)
    for arm, noted in notes.SHORTCUT.items():
        what = f"mean absolute gradient, layers 1 to {len(table)}, {arm.replace('_', ' ')}"
        yield noted.check("shortcut", what, [row[arm] for row in table])


@torch.no_grad()
def block(tables: Tables) -> Iterator[Check]:
    """Shapes of a Pre-LN block, and its size."""
    config = book_config()
    layer = PLACEMENTS["pre_ln"](config, layer=0)
    out = layer(torch.randn(2, 4, config.emb_dim))
    yield notes.BLOCK_SHAPE.check("block", "shape in and out", tuple(out.shape))
    yield Check.alone("block", "parameters of a block", f"{count(layer):,}")


def count(part: torch.nn.Module) -> int:
    """Parameters of a part."""
    return sum(parameter.numel() for parameter in part.parameters())


def parameters(tables: Tables) -> Iterator[Check]:
    """The whole model, counted without allocating it."""
    config = book_config()
    model = meta_model(config)
    untied, tied = count(model), parameter_count(dataclasses.replace(config, tie_head=True))
    yield notes.PARAMETERS.check("parameters", "parameters", untied)
    yield notes.TIED_PARAMETERS.check("parameters", "the same, head tied to the embedding", tied)
    size = untied * FLOAT32_BYTES / 2**20
    yield notes.MEBIBYTES.check("parameters", "MiB in float32 (the notes: MB)", size)
    for what, part in (("token embedding", model.token_embedding), ("output head", model.head)):
        shape = tuple(part.weight.shape)
        yield notes.EMBEDDING_SHAPE.check("parameters", f"shape of the {what}", shape)


@torch.no_grad()
def logits(tables: Tables) -> Iterator[Check]:
    """The whole model in training mode, on both sentences."""
    out = book_model()(sentences())
    first = "logits of the first token"
    yield notes.FIRST_LOGITS.check("logits", first, ends(out[0, 0]))
    last = "logits of the last token of the second sentence"
    yield notes.LAST_LOGITS.check("logits", last, ends(out[1, -1]))
    log_p = out.log_softmax(dim=-1)
    highest, size = float(log_p.max().exp()), out.shape[-1]
    yield Check.alone("logits", "highest probability of a next token", f"{highest:.4%}")
    uniform = "probability of each token if all were equally likely"
    yield Check.alone("logits", uniform, f"{1 / size:.4%}")
    loss = "loss (nats), mean over every token as the next one"
    yield Check.alone("logits", loss, f"{-log_p.mean():.2f}")
    uniform = f"loss (nats) if all were equally likely, ln {size:,}"
    yield Check.alone("logits", uniform, f"{math.log(size):.2f}")


def sizes(tables: Tables) -> Iterator[Check]:
    """The four sizes of GPT-2 with their published shapes, counted without allocating them."""
    table = []
    for name, noted in notes.SIZES.items():
        config = published_model(name)
        total = parameter_count(config)
        shape = {field: getattr(config, field) for field in ("n_layers", "emb_dim", "n_heads")}
        table.append({"model": name, **shape, "parameters": total})
        yield noted.check("sizes", f"million parameters of {name}", total / 1e6)
    tables["gpt2_sizes"] = table


def text(tables: Tables) -> Iterator[Check]:
    """Six greedy tokens of the untrained model."""
    tokenizer = GPT2Tokenizer()
    prompt = torch.tensor([tokenizer.encode(PROMPT)])
    ids = generate(book_model(), prompt, 6)[0].tolist()
    greedy = notes.GREEDY_TOKENS
    yield greedy.check("text", f'tokens after "{PROMPT}"', ids[prompt.shape[1] :])
    yield notes.GREEDY_TEXT.check("text", "as text", tokenizer.decode(ids))


COMPUTED: dict[str, Compute] = {
    step.__name__: step
    for step in (
        tokens,
        skeleton,
        layer_norm,
        gelu,
        feed_forward,
        shortcut,
        block,
        parameters,
        logits,
        sizes,
        text,
    )
}
