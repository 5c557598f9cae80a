"""Where Post-LN's gradients vanish: in decoders that attend to an encoder.

Every number here is of blocks of this project's placements: of the encoder and of a decoder alone
as they are, of a decoder with cross-attention with one sublayer more.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.claims.claim import (
    THEOREM,
    AxisLabels,
    Evidence,
    Source,
    claim,
    control,
    law,
    level,
)
from experiments.claims.lab import Lab
from experiments.claims.settings import block_grad_norms
from gpt import PLACEMENTS, GPTConfig
from gpt.attention import SelfAttention
from gpt.block import Block, Shortcut
from gpt.init import draw_xavier
from gpt.norm import make_norm
from gpt.placement import B2T, PostLN, PreLN, ResidualDual
from gpt.weights import Weight, weight_of

LAYERS, PAIRS = 18, 2  # of encoder and decoder each; of sequences per seed
TRANSLATOR = (
    "model=micro",
    "model.vocab_size=1024",
    "activation=relu",
    "init=xavier",
    "trainer.precision=float64",
)
SETTING = (
    f"encoder-decoder of {LAYERS} + {LAYERS} blocks, width 64, 4 heads, ReLU, Xavier; {PAIRS} "
    "pairs per seed of 64 random tokens each, 1,024 classes, random targets; float64; gradient "
    "norm of all parameters of a block"
)
VANISHES, STAYS = "vanishes: below a tenth", "does not: above a tenth"
AXES = AxisLabels("gradient norm of the block / that of the last", "block l", log_y=True)
RATIO = "log10(first block / last block)"


class CrossAttention(SelfAttention):
    """Attention whose keys and values are read from `memory` (B, S, emb_dim), with no mask."""

    memory: Tensor

    def __init__(self, config: GPTConfig) -> None:
        attention = replace(config.attention, causal=False)
        super().__init__(replace(config, attention=attention))

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query = self.qkv(x).split(self.widths, dim=-1)[0]
        _, key, value = self.qkv(self.memory).split(self.widths, dim=-1)
        return self.split(query), self.split(key), self.split(value)


class DecoderBlock(Block):
    """A block of a placement with a sublayer C between A and F that attends to an encoder.

    A subclass gives the equation; `norm_c` and `add_c` are the norm and the sum of C.
    """

    norm_c: nn.Module

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.cross = CrossAttention(config)
        self.norm_c = make_norm(config, config.emb_dim)
        self.add_c = Shortcut(config.shortcut)

    def weights(self) -> Iterator[Weight]:
        yield from super().weights()
        yield from self.cross.weights()


class PreLNDecoder(DecoderBlock, PreLN):
    """h = x + A(N x); c = h + C(N h); out = c + F(N c)."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.add_1(x, self.attention(self.norm_1(x)))
        c = self.add_c(h, self.cross(self.norm_c(h)))
        return self.add_2(c, self.feed_forward(self.norm_2(c)))


class PostLNDecoder(DecoderBlock, PostLN):
    """h = N(x + A x); c = N(h + C h); out = N(c + F c)."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm_1(self.add_1(x, self.attention(x)))
        c = self.norm_c(self.add_c(h, self.cross(h)))
        return self.norm_2(self.add_2(c, self.feed_forward(c)))


class B2TDecoder(DecoderBlock, B2T):
    """h = N(x + A x); c = N(h + C h); out = N(x + c + F c), as the authors' code has it."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm_1(self.add_1(x, self.attention(x)))
        c = self.norm_c(self.add_c(h, self.cross(h)))
        return self.norm_2(self.add_2(x + c, self.feed_forward(c)))


class ResidualDualDecoder(DecoderBlock, ResidualDual):
    """p' = N(p + f(p)); d' = d + f(p), for A, C and F in turn."""

    def forward(self, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        p, d = state
        f = self.attention(p)
        p, d = self.norm_1(self.add_1(p, f)), d + f
        f = self.cross(p)
        p, d = self.norm_c(self.add_c(p, f)), d + f
        f = self.feed_forward(p)
        return self.norm_2(self.add_2(p, f)), d + f


DECODERS: dict[str, type[DecoderBlock]] = {
    "pre_ln": PreLNDecoder,
    "post_ln": PostLNDecoder,
    "b2t": B2TDecoder,
    "residual_dual": ResidualDualDecoder,
}


class Stack(nn.Module):
    """Embeddings and the blocks of a placement, up to what a head would read.

    Maps token ids (B, T) to (B, T, emb_dim).
    """

    def __init__(self, config: GPTConfig, block: type[Block]) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.emb_dim)
        self.places = nn.Embedding(config.context_length, config.emb_dim)
        self.entry = block.make_entry(config)
        blocks = nn.ModuleList(block(config, layer) for layer in range(config.n_layers))
        self.blocks = cast(Sequence[Block], blocks)
        self.final = block.make_final(config)

    def forward(self, tokens: Tensor) -> Tensor:
        state: Any = self.entry(self.tokens(tokens) + self.places.weight[: tokens.shape[-1]])
        for block in self.blocks:
            state = block(state)
        return self.final(state)


class EncoderDecoder(nn.Module):
    """An encoder and a decoder of one placement, Vaswani et al. 2017, arXiv 1706.03762.

    Maps token ids (B, S) and (B, T) to logits (B, T, vocab_size).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        placement = config.norm.placement
        both_ways = replace(config, attention=replace(config.attention, causal=False))
        self.encoder = Stack(both_ways, PLACEMENTS[placement])
        self.decoder = Stack(config, DECODERS[placement])
        self.head = nn.Linear(config.emb_dim, config.vocab_size, bias=False)
        with torch.no_grad():
            draw_xavier([*self.weights()])

    def weights(self) -> Iterator[Weight]:
        """Its matrices but the embeddings, in the order in which they are drawn."""
        for block in (*self.encoder.blocks, *self.decoder.blocks):
            yield from block.weights()
        yield weight_of("head", self.head)

    def forward(self, source: Tensor, tokens: Tensor) -> Tensor:
        memory = self.encoder(source)
        for block in self.decoder.blocks:
            cast(DecoderBlock, block).cross.memory = memory
        return self.head(self.decoder(tokens))


def ratios(lab: Lab, placement: str, seed: int) -> dict[str, list[float]]:
    """Gradient norm of each block over that of the last, of encoder and decoder."""
    settings = lab.settings(f"norm={placement}", *TRANSLATOR)
    config = replace(lab.config(settings), n_layers=LAYERS)
    torch.manual_seed(seed)
    model = EncoderDecoder(config).double()
    tokens, targets = lab.random_batch(settings, seed, PAIRS)
    # Encoder and decoder have embeddings of their own: the same tokens are other inputs.
    loss = F.cross_entropy(model(tokens, tokens).flatten(0, 1), targets.flatten())
    both = block_grad_norms(loss, [*model.encoder.blocks, *model.decoder.blocks])
    parts = {"encoder": both[:LAYERS], "decoder": both[LAYERS:]}
    return {part: [norm / norms[-1] for norm in norms] for part, norms in parts.items()}


def decoder_alone(lab: Lab, placement: str, seed: int) -> list[float]:
    """Gradient norm of each block over that of the last, in a GPT with as many sublayers."""
    settings = lab.settings(f"norm={placement}", *TRANSLATOR)
    model = lab.model(settings, seed, LAYERS * 3 // 2)
    tokens, targets = lab.random_batch(settings, seed, PAIRS)
    loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    norms = block_grad_norms(loss, model.blocks)
    return [norm / norms[-1] for norm in norms]


def record(evidence: Evidence, arm: str, relative: Sequence[float]) -> None:
    """Add the curve of an arm, and its number."""
    evidence.curve(arm, range(1, len(relative) + 1), relative)
    evidence.values[f"{arm}: {RATIO}"] = math.log10(relative[0])


@claim(
    "vanishing_needs_cross_attention",
    block=THEOREM,
    title="Post-LN's gradients vanish only in decoders that attend to an encoder",
    source=Source("Liu et al. 2020 (Admin)", "2004.08249", "Theorem 1; section 3"),
    statement=(
        "At initialisation Post-LN's encoders do not suffer from vanishing gradients, its decoders "
        "with cross-attention do; Pre-LN's do not."
    ),
    setting=f"{SETTING}. A decoder alone has {LAYERS * 3 // 2} blocks, as many sublayers",
    distance="scaled down",
    predictions=[
        law(f"post_ln, decoder: {RATIO}", VANISHES, high=-1.0),
        law(f"post_ln, encoder: {RATIO}", STAYS, low=-1.0),
        law(f"post_ln, decoder alone: {RATIO}", STAYS, low=-1.0),
        control(law(f"pre_ln, decoder: {RATIO}", STAYS, low=-1.0)),
    ],
    axes=AXES,
    guides=[level("a tenth", 0.1)],
    meaning="A Post-LN model that generates text, as a GPT does, has no cross-attention: if it "
    "does not train, look for another cause than vanishing gradients at initialisation.",
    remark="Before, Post-LN was asked to vanish in a decoder alone, where the theorem says that it "
    "does not: 'not reproduced', of the wrong architecture. Keys and values of cross-attention "
    "come from the encoder, so that its branch gives the decoder's gradient nothing back of what "
    "the norm takes.",
)
def vanishing_needs_cross_attention(lab: Lab, seed: int) -> Evidence:
    """Norm of the mean loss's gradient."""
    evidence = Evidence()
    for part, relative in ratios(lab, "post_ln", seed).items():
        record(evidence, f"post_ln, {part}", relative)
    record(evidence, "post_ln, decoder alone", decoder_alone(lab, "post_ln", seed))
    record(evidence, "pre_ln, decoder", ratios(lab, "pre_ln", seed)["decoder"])
    return evidence


def against_post_ln(lab: Lab, placement: str, seed: int) -> Evidence:
    """The decoder's gradients under a placement and under Post-LN."""
    evidence = Evidence()
    for arm in (placement, "post_ln"):
        record(evidence, arm, ratios(lab, arm, seed)["decoder"])
    return evidence


@claim(
    "residual_dual_keeps_gradients",
    block=THEOREM,
    title="ResiDual's second stream keeps a decoder's gradients from vanishing",
    source=Source("Xie et al. 2023 (ResiDual)", "2304.14802", "abstract", read="abstract"),
    statement=(
        "Post-LN makes gradients vanish in deep Transformers; ResiDual's gradient has a lower "
        "bound, for its second stream passes the norms by."
    ),
    setting=f"{SETTING} of the decoder",
    distance="scaled down",
    predictions=[
        law(f"residual_dual: {RATIO}", STAYS, low=-1.0),
        control(law(f"post_ln: {RATIO}", VANISHES, high=-1.0)),
    ],
    axes=AXES,
    guides=[level("a tenth", 0.1)],
    remark="Before, it was measured in a decoder alone, where Post-LN itself passes.",
)
def residual_dual_keeps_gradients(lab: Lab, seed: int) -> Evidence:
    """Norm of the mean loss's gradient."""
    return against_post_ln(lab, "residual_dual", seed)


@claim(
    "b2t_keeps_gradients",
    block=THEOREM,
    title="B2T's connection keeps a decoder's gradients from vanishing",
    source=Source("Takase et al. 2022 (B2T)", "2206.00330", "abstract", read="abstract"),
    statement=(
        "The norms of Post-LN are the main source of vanishing gradients; a connection that passes "
        "all norms of a block but the last prevents it."
    ),
    setting=f"{SETTING} of the decoder. The connection alone, without the authors' rescaling",
    distance="scaled down",
    predictions=[
        law(f"b2t: {RATIO}", STAYS, low=-1.0),
        control(law(f"post_ln: {RATIO}", VANISHES, high=-1.0)),
    ],
    axes=AXES,
    guides=[level("a tenth", 0.1)],
    remark="Before, it was measured in a decoder alone, where Post-LN itself passes.",
)
def b2t_keeps_gradients(lab: Lab, seed: int) -> Evidence:
    """Norm of the mean loss's gradient."""
    return against_post_ln(lab, "b2t", seed)
