"""The models that are timed, and what a step of each computes."""

import functools
from dataclasses import dataclass, replace

from experiments.settings.schema import Settings
from experiments.settings.sizes import settings_of_size
from gpt import GPTConfig, InitConfig

CHARACTERS = 65  # of the small shapes' vocabulary, as a text of plain English has
COMPACT = 9835  # tokens that tokenizer=gpt2_compact keeps of the embedded corpus
GPT2 = 50257
GPT2_PADDED = 50304  # the next multiple of 64, which the matrix units of a GPU take without a rest
CLIP = 1.0  # largest norm of the whole gradient


@dataclass(frozen=True)
class Shape:
    """Sizes of a model and its batch; L blocks of width d, T tokens in each of B windows.

    tied      whether the head shares the token embedding's weight
    qkv_bias  whether query, key and value have one
    init      see gpt/init.py; no step's time depends on it
    """

    name: str
    layers: int
    width: int
    heads: int
    length: int
    batch: int
    vocabulary: int
    tied: bool = True
    qkv_bias: bool = True
    init: str = "gpt2"

    @property
    def tokens(self) -> int:
        """Tokens of one step."""
        return self.batch * self.length

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def linear(self) -> list[tuple[int, int, int]]:
        """Its matrices, the head last: rows and columns of each, and how many there are."""
        d, of = self.width, self.layers
        return [(3 * d, d, of), (d, d, of), (4 * d, d, of), (d, 4 * d, of), (self.vocabulary, d, 1)]

    @property
    def flops(self) -> int:
        """Operations of one step that the model asks for, forward and backward.

            B T (6 M + 6 L T d)

        M counts the elements of the matrices, the head's among them and the embeddings' not: a
        multiplication and an addition forward, two of each backward. Attention is causal: half of
        12 L T d.
        """
        matrices = sum(out * into * times for out, into, times in self.linear)
        return self.tokens * (6 * matrices + 6 * self.layers * self.length * self.width)


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("4x128", 4, 128, 4, 64, 16, CHARACTERS),
        Shape("nano", 8, 128, 4, 64, 16, COMPACT, tied=False, qkv_bias=False, init="xavier"),
        Shape("12x128", 12, 128, 4, 64, 16, CHARACTERS),
        Shape("6x384", 6, 384, 6, 256, 4, CHARACTERS),
        Shape("6x256", 6, 256, 4, 64, 16, GPT2),
        Shape("12x768", 12, 768, 12, 256, 1, GPT2),
        Shape("gpt2_b16", 12, 768, 12, 1024, 16, GPT2_PADDED),
        Shape("gpt2_b32", 12, 768, 12, 1024, 32, GPT2_PADDED),
    )
}
USUAL_SHAPES = {
    "cpu": ["4x128", "nano", "12x128", "6x384", "6x256", "12x768"],
    "cuda": ["nano", "gpt2_b16", "gpt2_b32"],
}


@functools.cache
def defaults() -> Settings:
    """What `python run.py` trains, and how."""
    return settings_of_size("nano")


def settings_of(
    shape: Shape, precision: str = "float32", device: str = "cpu", compiled: bool = False
) -> Settings:
    """The default run at another shape, its gradients clipped.

    What is no part of a step is off: evaluation, but of one window before the first step, and
    checkpoints. Probes are off, too, until someone asks for them.
    """
    usual = defaults()
    return replace(
        usual,
        device=device,
        init=InitConfig(shape.init),
        model=replace(
            usual.model,
            vocab_size=shape.vocabulary,
            context_length=shape.length,
            emb_dim=shape.width,
            n_heads=shape.heads,
            n_layers=shape.layers,
            tie_head=shape.tied,
            qkv_bias=shape.qkv_bias,
        ),
        trainer=replace(
            usual.trainer,
            batch_size=shape.batch,
            clip=CLIP,
            precision=precision,
            compile=compiled,
            eval_every=usual.trainer.steps,
            eval_tokens=shape.length,
            probe_every=None,
            checkpoint_every=None,
        ),
    )


def config_of(shape: Shape) -> GPTConfig:
    """The shape as this project's GPT."""
    return settings_of(shape).model_config(shape.vocabulary)
