"""Who takes the step: this project, with and without its records, and its peers."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.benchmark.plain import PlainGPT
from experiments.benchmark.products import all_products
from experiments.benchmark.shapes import CLIP, Shape, config_of, settings_of
from experiments.data.corpus import Corpus
from experiments.data.tokenizer import Tokenizer, smallest_kind
from experiments.machine.console import silenced
from experiments.records.recorder import Recorder
from experiments.training.loop import Trainer
from experiments.training.loss import language_model_loss
from experiments.training.optimizer import make_optimizer
from experiments.training.setup import prepare
from gpt import GPT
from gpt.registry import Registry

Loss = Callable[[Tensor, Tensor], Tensor]  # of tokens and targets, (B, T) each

BATCHES = 16  # different ones, which are there before the first step; every contender has the same
TYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
REFERENCE = "normscope"


class AnyTokens(Tokenizer):
    """Stands for a tokenizer where the text is random: numbers, which mean nothing."""

    name = "random"

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size


@dataclass(frozen=True)
class RandomText(Corpus):
    """A text whose batches were drawn before, and are on the device."""

    batches: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def batch(self, seed: int, step: int, rows: int, length: int) -> tuple[Tensor, Tensor]:
        return self.batches[step % len(self.batches)]


def random_text(shape: Shape, device: torch.device) -> RandomText:
    """As many random tokens as all batches take."""
    random, size = np.random.default_rng(0), shape.vocabulary
    drawn = random.integers(0, size, BATCHES * (shape.tokens + 1)).astype(smallest_kind(size))
    text = RandomText(
        "random", "", drawn.nbytes, AnyTokens(size), drawn, drawn, np.ones(size, dtype=np.int64)
    )
    for step in range(BATCHES):
        tokens, targets = Corpus.batch(text, 0, step, shape.batch, shape.length)
        text.batches.append((tokens.to(device), targets.to(device)))
    return text


@dataclass(frozen=True)
class Case:
    """What all contenders of one comparison have in common.

    compiled  whether torch.compile has compiled each peer's loss, from the tokens on, and this
              project's as trainer.compile=true does
    closing   what ends with the comparison: files and W&B runs
    """

    shape: Shape
    device: torch.device
    precision: str
    compiled: bool = False
    closing: ExitStack = field(default_factory=ExitStack, compare=False)

    def fresh(self) -> "Case":
        """The same for another process, without what was made here."""
        return replace(self, closing=ExitStack())

    @cached_property
    def text(self) -> RandomText:
        """The same tokens each time."""
        return random_text(self.shape, self.device)

    @cached_property
    def trainer(self) -> Trainer:
        """What `python run.py` trains with, with every record of a default run."""
        settings = settings_of(self.shape, self.precision, self.device.type, self.compiled)
        recorder = Recorder(Path(self.folder()), settings)
        with silenced(bars=False):
            trainer = prepare(settings, recorder, self.text)
        self.closing.callback(recorder.close, "finished", [])
        return trainer

    def folder(self) -> str:
        """A new one, which ends with the comparison."""
        return self.closing.enter_context(tempfile.TemporaryDirectory())


@dataclass
class Contender:
    """One training step by its number, and how many parameters it trains; None where it has none.

    Forward, backward, the gradient's norm cut to CLIP, fused AdamW.
    """

    step: Callable[[int], None]
    parameters: int | None = None


CONTENDERS: Registry[Callable[[Case], Contender]] = Registry("--peers")
TITLES = {
    "normscope": "normscope, bare step",
    "records": "normscope, a row each step",
    "probed": "normscope, a probed step",
    "instrumented": "normscope, default records",
    "watch": "normscope, wandb.watch each step",
    "plain": "plain GPT",
    "transformers": "transformers GPT-2",
    "x-transformers": "x-transformers",
    "torch": "torch.nn.TransformerEncoder",
    "products": "matrix products alone",
}


@CONTENDERS("normscope")
def normscope(case: Case) -> Contender:
    """This project's model and loss, and nothing that is measured."""
    model = GPT(config_of(case.shape)).to(case.device)
    features = torch.compile(model.features, dynamic=False) if case.compiled else None
    return trained(
        case,
        model,
        partial(language_model_loss, model, precision=case.precision, features=features),
        compiled=False,
    )


@CONTENDERS("records")
def records(case: Case) -> Contender:
    """A step of the training loop that writes its row: loss, gradient norms by layer."""
    return stepped(case, probe_every=None)


@CONTENDERS("probed")
def probed(case: Case) -> Contender:
    """A step of the training loop on which the probes are due as well; those are not compiled."""
    return stepped(case, probe_every=1)


@CONTENDERS("watch")
def watch(case: Case) -> Contender:
    """The bare step under `wandb.watch(model, log="all")`, which looks at each step.

    Made after the training loop, with whose W&B run it would end. Never compiled, as `probed`.
    """
    import wandb

    model = GPT(config_of(case.shape)).to(case.device)
    run = wandb.init(
        mode="offline",
        dir=case.folder(),
        reinit="create_new",
        settings=wandb.Settings(silent=True, console="off"),
    )
    case.closing.callback(run.finish)
    run.watch(model, log="all", log_freq=1)
    contender = trained(
        case, model, partial(language_model_loss, model, precision=case.precision), compiled=False
    )

    def step(number: int) -> None:
        before, wandb.run = wandb.run, run  # to which its hooks write
        try:
            contender.step(number)
            run.log({"step": number})
        finally:
            wandb.run = before

    return replace(contender, step=step)


@CONTENDERS("plain")
def plain(case: Case) -> Contender:
    """The least code that does the same."""
    return peer(case, PlainGPT(case.shape))


@CONTENDERS("transformers")
def transformers(case: Case) -> Contender:
    """Hugging Face's GPT-2, with PyTorch's fused attention and fused GELU."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = case.shape
    config = GPT2Config(  # type: ignore[call-arg]
        vocab_size=shape.vocabulary,
        n_positions=shape.length,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        use_cache=False,
        tie_word_embeddings=shape.tied,
        attn_implementation="sdpa",
    )
    return peer(case, Part(GPT2LMHeadModel(config), lambda output: output.logits))


@CONTENDERS("x-transformers")
def x_transformers(case: Case) -> Contender:
    """Its decoder with learned positions, with PyTorch's fused attention."""
    from x_transformers import Decoder, TransformerWrapper  # type: ignore[import-untyped]

    shape = case.shape
    decoder = Decoder(
        dim=shape.width,
        depth=shape.layers,
        heads=shape.heads,
        attn_dim_head=shape.head_dim,
        attn_flash=True,
    )
    model = TransformerWrapper(
        num_tokens=shape.vocabulary,
        max_seq_len=shape.length,
        tie_embedding=shape.tied,
        attn_layers=decoder,
    )
    return peer(case, model)


@CONTENDERS("torch")
def encoder(case: Case) -> Contender:
    """PyTorch's own layers under a causal mask, between embeddings and a head."""
    return peer(case, EncoderGPT(case.shape))


@CONTENDERS("products")
def products(case: Case) -> Contender:
    """No model at all: see `products_of`."""
    return Contender(all_products(case.shape, case.device, TYPES[case.precision]))


class Part(nn.Module):
    """A model of which the logits are a part of the output."""

    def __init__(self, model: nn.Module, logits: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.model, self.logits = model, logits

    def forward(self, tokens: Tensor) -> Tensor:
        return self.logits(self.model(tokens))


class EncoderGPT(nn.Module):
    """Maps token ids (B, T) to logits (B, T, vocabulary) by nn.TransformerEncoder."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.tokens = nn.Embedding(shape.vocabulary, width)
        self.places = nn.Embedding(shape.length, width)
        layer = nn.TransformerEncoderLayer(
            width,
            shape.heads,
            4 * width,
            dropout=0.0,
            activation=partial(F.gelu, approximate="tanh"),
            batch_first=True,
            norm_first=True,
        )
        final = nn.LayerNorm(width)
        self.encoder = nn.TransformerEncoder(layer, shape.layers, final, enable_nested_tensor=False)
        self.head = nn.Linear(width, shape.vocabulary, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        if shape.tied:
            self.head.weight = self.tokens.weight
        mask = nn.Transformer.generate_square_subsequent_mask(shape.length)
        self.register_buffer("mask", mask)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.tokens(tokens) + self.places(places)
        return self.head(self.encoder(x, mask=self.mask, is_causal=True))


def peer(case: Case, model: nn.Module) -> Contender:
    """A model that maps tokens to logits, under the same loss."""
    model.to(case.device)
    return trained(
        case, model, partial(mean_cross_entropy, model, precision=case.precision), case.compiled
    )


def mean_cross_entropy(model: nn.Module, tokens: Tensor, targets: Tensor, precision: str) -> Tensor:
    """Of logits, in nats; in bf16 under autocast, as this project's own loss."""
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = model(tokens)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def trained(case: Case, model: nn.Module, loss: Loss, compiled: bool) -> Contender:
    """The step of a model, with the optimizer of the default run."""
    settings = settings_of(case.shape)
    optimizer = make_optimizer(model, settings.optimizer)
    parameters = list(model.parameters())
    computed = torch.compile(loss) if compiled else loss

    def step(number: int) -> None:
        computed(*case.text.batches[number % BATCHES]).backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return Contender(step, sum(parameter.numel() for parameter in parameters))


def stepped(case: Case, probe_every: int | None) -> Contender:
    """The next step of the training loop, whatever its number. Both kinds take it in turn."""
    trainer = case.trainer

    def step(number: int) -> None:
        trainer.options = replace(trainer.options, probe_every=probe_every)
        trainer.advance()

    parameters = trainer.engine.model.parameters()
    return Contender(step, sum(parameter.numel() for parameter in parameters))
