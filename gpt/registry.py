"""Named choices: one table per kind of choice, filled where each choice is written."""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A value that cannot be used: names the field, the value, and what would be valid."""

    def __init__(self, field: str, value: object, valid: str) -> None:
        self.field, self.value, self.valid = field, value, valid
        super().__init__(f"{field}={value!r} is not valid: {valid}")


# What else the field calls a choice, after the name of the choice, or a whole setting where the
# word belongs to another one.
OTHER_WORDS = {
    "pre_ln": "prenorm prelayernorm",
    "post_ln": "postnorm postlayernorm original",
    "no_norm": "none off",
    "sandwich": "doublenorm",
    "layer_norm": "layernorm ln",
    "rms_norm": "rmsnorm rms",
    "norm.kind=layer_norm": "layernorm ln",
    "norm.kind=rms_norm": "rmsnorm rms",
    "norm.kind=dyt": "dyt",
    "norm.kind=derf": "derf dynamicerf",
    "rotary": "rope",
    "learned": "absolute wpe",
    "zero_centred_rms_norm": "zerocenteredrmsnorm gemmarmsnorm",
    "gain_free_rms_norm": "nonparametric",
    "silu": "swish",
    "squared_relu": "relu2 relusquared sqrrelu",
    "gelu": "gelunew gelutanh",
    "float32": "fp32 f32 float single 32 full",
    "bf16": "bfloat16 half fp16 float16 f16 16 mixed amp",
    "float64": "fp64 f64 double 64",
    "cuda": "gpu nvidia",
    "mps": "metal apple",
    "gpt2_124m": "gpt2 gpt2small gpt2base small",
    "gpt2_355m": "gpt2medium medium",
    "gpt2_774m": "gpt2large large",
    "gpt2_1558m": "gpt2xl xl gpt215b 15b",
    "pythia_70m": "pythia gptneox neox",
    "gpt_neo_125m": "gptneo neo",
    "opt_125m": "opt",
    "gptj_6b": "gptj",
    "llama_7b": "llama llama1",
    "gpt_oss_20b": "gptoss oss",
    "qwen3_0_6b": "qwen qwen3",
    "gemma3_270m": "gemma gemma3",
    "olmo3_7b": "olmo olmo3",
    "smollm3_3b": "smollm smollm3",
    "gpt2": "bpe tiktoken",
    "char": "character characters chars",
    "byte": "utf8 bytes",
    "xavier": "glorot",
    "torch": "pytorch default kaiming",
    "constant": "none flat",
    "kjv": "bible",
    "data=text data.path=FILE": "shakespeare tinyshakespeare openwebtext wikitext custom file",
    "tokens": "shards bin nanogpt fineweb",
}


def choice_hint(value: object, known: Iterable[str]) -> str:
    """What could have been meant by `value`: the nearest of `known`, then all of them."""
    names = sorted(known)
    parts = str(value).split(",")
    if len(parts) > 1 and set(parts) <= set(names):
        return "one value, or with -m a run for each"
    near = [*map(repr, nearest(str(value), names))]
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{meant}Choose from: {', '.join(names)}"


def nearest(value: str, names: Sequence[str]) -> list[str]:
    """What is meant by `value`, the likeliest first: by letters and digits, words, likeness."""
    word = bare(re.sub(r":\d+$", "", value))  # cuda:0
    same = [name for name in names if bare(name) == word]
    named = [name for name, words in OTHER_WORDS.items() if word in words.split()]
    of_another = [name for name in named if "=" in name]
    like = difflib.get_close_matches(value.lower(), names, n=1, cutoff=0.5)
    return [*same, *(name for name in named if name in names), *of_another, *like]


def bare(name: str) -> str:
    """The letters and digits of a name, in lower case."""
    return re.sub(r"[\W_]", "", name.lower())


class Registry(dict[str, T], Generic[T]):
    """Maps names to choices of one kind; an unknown name is a `ConfigError` with the near ones."""

    def __init__(self, field: str) -> None:
        super().__init__()
        self.field = field

    def __call__(self, name: str) -> Callable[[T], T]:
        """Decorator that enters a class or function under `name`."""

        def enter(choice: T) -> T:
            self[name] = choice
            return choice

        return enter

    def __missing__(self, name: str) -> Any:
        raise ConfigError(self.field, name, choice_hint(name, self))


# The tables stand below all that fills them, so that a description of a model can be checked
# without the parts it names; importing the package `gpt` fills them.
PLACEMENTS: Registry[Any] = Registry("norm.placement")  # subclasses of gpt.block.Block
PARALLEL: Registry[Any] = Registry("norm.placement")  # the same where the branches are parallel
NORMS: Registry[Any] = Registry("norm.kind")  # module classes, made from (width, eps)
ACTIVATIONS: Registry[Callable[[Any], Any]] = Registry("activation")  # elementwise
POSITIONS: Registry[Any] = Registry("position.kind")  # see gpt.position
FAMILIES: Registry[Any] = Registry("config.json: model_type")  # see gpt.families
INITS: Registry[Callable[[Any, Any], None]] = Registry("init.scheme")  # (weights, config): redraw
