"""What placements, settings and counts are called where a person reads."""

from collections.abc import Sequence

from experiments.analysis.arms import RATE, WARMUP, format_value, short_name
from experiments.analysis.runs import CHANGE, MODEL, PLACEMENT, Value

# Of placements those whose papers write them in another way than `post_ln`, Post-LN.
PLACEMENT_WORDS = {
    "deepnorm": "DeepNorm",
    "residual_dual": "ResiDual",
    "siamese": "SiameseNorm",
    "span": "SpanNorm",
    "b2t": "B2T",
    "ln_scaling": "LN scaling",
    "hybrid": "HybridNorm",
    "hybrid_star": "HybridNorm*",
    "normformer": "NormFormer",
}
OPTIMIZER_WORDS = {"adamw": "AdamW", "sgd": "SGD", "muon": "Muon"}
NORM_WORDS = {"layer_norm": "LayerNorm", "rms_norm": "RMSNorm", "dyt": "DyT", "derf": "Derf"}
NUMBERS = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    *("nineteen", "twenty", "twenty-one"),
)


def placement_words(name: str) -> str:
    """A placement as papers write it: Post-LN, DeepNorm, No norm."""
    if name in PLACEMENT_WORDS:
        return PLACEMENT_WORDS[name]
    words = name.replace("_", " ").capitalize()
    return f"{words.removesuffix(' ln')}-LN" if words.endswith(" ln") else words


def setting_words(name: str, value: Value) -> str:
    """A setting as it follows the name of a placement: `without warm-up`, `at lr 0.003`."""
    if name == WARMUP and isinstance(value, int | float) and float(value).is_integer():
        return f"with {count_words(int(value), 'step')} of warm-up" if value else "without warm-up"
    if name == RATE:
        return f"at lr {format_value(value)}"
    if name == "trainer.clip":
        return "without clipping" if value is None else f"with {value_words(name, value)}"
    if name == "shortcut":
        return f"{'with' if value else 'without'} shortcuts"
    return f"with {value_words(name, value)}"


def value_words(name: str, value: Value) -> str:
    """A setting's value with its name, where it needs one: SGD, GELU, batch size 8, init gpt2."""
    if name == PLACEMENT:
        return placement_words(str(value))
    named = {"optimizer.name": OPTIMIZER_WORDS, "norm.kind": NORM_WORDS}.get(name)
    if named is not None:
        return named.get(str(value), str(value))
    if name in ("activation", CHANGE, MODEL, "runner"):
        return str(value)
    if name == "model.n_layers" and isinstance(value, int):
        return count_words(value, "block")
    if name == "trainer.clip":
        return "no clipping" if value is None else f"clipping at {format_value(value)}"
    return f"{noun_of(name)} {format_value(value)}"


def noun_of(name: str) -> str:
    """A setting's name in words: batch size, init, placements."""
    nouns = {
        "model.emb_dim": "width",
        "model.n_layers": "number of blocks",
        WARMUP: "warm-up",
        RATE: "learning rate",
        "trainer.clip": "clipping",
    }
    return nouns.get(name) or short_name(name).replace("_", " ")


def capital(text: str) -> str:
    """Text with a capital, unless it begins with a name such as gpt2_124m."""
    return text[:1].upper() + text[1:] if text.partition(" ")[0].isalpha() else text


def join_words(words: Sequence[str]) -> str:
    """A list in English: commas, and an `and` before the last."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def count_words(count: int, noun: str) -> str:
    """A count with its noun, in digits: 1 run, 8 runs."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def number_words(count: int) -> str:
    """A number, in letters where that is short."""
    return NUMBERS[count] if count < len(NUMBERS) else f"{count:,}"


def times_text(ratio: float) -> str:
    """A ratio in three digits: 1.1 times, 12.5 times, 1,100 times."""
    return f"{three_digits(ratio)} times"


def three_digits(value: float) -> str:
    """A number with three digits that count, without an exponent where it is large."""
    digits = float(f"{value:.3g}")
    return f"{digits:,.0f}" if digits >= 100 else f"{digits:g}"
