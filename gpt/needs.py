"""Which settings of a model count only where another one has a certain value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from gpt.config import (
    AttentionConfig,
    ExpertsConfig,
    FeedForwardConfig,
    GPTConfig,
    ParallelConfig,
    PositionConfig,
    YarnConfig,
)
from gpt.registry import NORMS


@dataclass(frozen=True)
class Need:
    """Settings that have no effect, or not all of it, unless `met`.

    settings  by name such as `position.bases`
    needed    what they need, in words that begin with the name of the setting that decides
    met       whether a config has that
    """

    settings: tuple[str, ...]
    needed: str
    met: Callable[[GPTConfig], Any]


def need(settings: str, needed: str, met: Callable[[GPTConfig], Any]) -> Need:
    """See Need; `settings` with spaces between."""
    return Need(tuple(settings.split()), needed, met)


def names(section: str, kind: type) -> str:
    """All settings of a section."""
    return " ".join(f"{section}.{field.name}" for field in fields(kind))


def says_more(values: Sequence[float], usual: Sequence[float]) -> bool:
    """Whether a list by layer says more than the usual one would, said once."""
    return len(values) == 1 or {*values} != {*usual}


RAMP = "position.yarn.original_length position.yarn.beta_fast position.yarn.beta_slow"
ROTARY = "position.fraction position.interleaved position.in_float32 position.yarn.factors"
IN_BLOCKS = " ".join(
    (
        "shortcut activation qkv_bias bias norm.qk",
        names("attention", AttentionConfig),
        names("feed_forward", FeedForwardConfig),
        names("experts", ExpertsConfig),
        names("parallel", ParallelConfig),
        f"position.bases {ROTARY} {RAMP} position.yarn.truncate",
    )
)
# By what is known to leave a setting out, so that a kind that is added later may read it. no_norm,
# the control arm, takes the settings of those it is compared with.
NEEDS = (
    need(IN_BLOCKS, "n_layers above 0", lambda c: c.n_layers),
    need(
        "norm.eps",
        "norm.kind other than dyt and derf",
        lambda c: getattr(NORMS[c.norm.kind], "reads_eps", True),
    ),
    need(
        "init.std",
        "init.scheme=gpt2 or gpt2_scaled",
        lambda c: c.init.scheme not in ("torch", "xavier", "deepnorm", "sub_ln", "xiong"),
    ),
    need(
        "position.offset",
        "position.kind=learned",
        lambda c: c.position.kind not in ("rotary", "none"),
    ),
    need(
        f"position.bases {ROTARY} {RAMP} position.yarn.truncate",
        "position.kind=rotary",
        lambda c: c.position.kind not in ("learned", "none"),
    ),
    need(
        f"{ROTARY} {RAMP} position.yarn.truncate",
        "position.bases above 0",
        lambda c: any(map(c.base, layers(c))),
    ),
    need(
        f"{RAMP} position.yarn.truncate",
        "position.yarn.factors above 1",
        lambda c: any(c.yarn_factor(layer) > 1 for layer in layers(c)),
    ),
    need(
        "attention.windows",
        "n_layers of at least as many",
        lambda c: len(c.attention.windows) <= len(layers(c)),
    ),
    need(
        "position.bases",
        "n_layers of at least as many",
        lambda c: len(c.position.bases) <= len(layers(c)),
    ),
    need(
        "position.yarn.factors",
        "n_layers of at least as many",
        lambda c: len(c.position.yarn.factors) <= len(layers(c)),
    ),
    need(
        "attention.windows",
        "context_length above each",
        lambda c: max(c.attention.windows) < c.context_length,
    ),
    need(
        "attention.windows",
        "attention.windows other than 0 for all layers",
        lambda c: says_more(c.attention.windows, AttentionConfig().windows),
    ),
    need(
        "position.bases",
        "position.bases other than 10000 for all layers",
        lambda c: says_more(c.position.bases, PositionConfig().bases),
    ),
    need(
        "position.yarn.factors",
        "position.yarn.factors other than 1 for all layers",
        lambda c: says_more(c.position.yarn.factors, YarnConfig().factors),
    ),
    need("feed_forward.ratio", "feed_forward.dim=null", lambda c: c.feed_forward.dim is None),
    need(
        "feed_forward.clamp feed_forward.offset",
        "feed_forward.gated=true",
        lambda c: c.feed_forward.gated,
    ),
    need(
        "experts.active experts.softmax experts.balance_loss",
        "experts.count above 0",
        lambda c: c.experts.count,
    ),
    need("parallel.shared", "parallel.enabled=true", lambda c: c.parallel.enabled),
)


def layers(config: GPTConfig) -> range:
    """Of which a list can say something; one where there is none."""
    return range(max(config.n_layers, 1))


def unmet(config: GPTConfig) -> dict[str, str]:
    """The settings whose need is not met, each with the first that is not."""
    found: dict[str, str] = {}
    for each in NEEDS:
        if not each.met(config):
            found = {**dict.fromkeys(each.settings, each.needed), **found}
    return found
