"""A family of published models: how its config.json and its tensors stand to ours."""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gpt.config import (
    EmbeddingConfig,
    ExpertsConfig,
    FeedForwardConfig,
    GPTConfig,
    InitConfig,
    NormConfig,
    ParallelConfig,
    PositionConfig,
    YarnConfig,
    from_nested,
    put,
)
from gpt.families.tensors import Pair, Stored, stored_in
from gpt.families.values import Entry, Values, check_names, refused
from gpt.model import GPT
from gpt.registry import FAMILIES, ConfigError

Read = Callable[[str], Tensor]


@dataclass(frozen=True)
class Family:
    """Models that one class of the reference library, transformers, makes. Data alone.

    model_type    its name in a config.json
    architecture  that class
    holds         what all of its models have, of ours by name such as `norm.kind`
    entries       what a config.json says of each, see values.py
    pairs         whose tensor is whose, see tensors.py
    prefix        of all tensors but the head's, which files may lack
    ignored       patterns of tensors in files that hold no parameter
    older         beginnings of names in older files, each with the one that is in its place
    no_effect     names in a config.json that leave the function as it is, beside the usual ones
    """

    model_type: str
    architecture: str
    holds: Values
    entries: tuple[Entry, ...]
    pairs: tuple[Pair, ...]
    prefix: str
    ignored: tuple[str, ...] = ()
    older: tuple[tuple[str, str], ...] = ()
    no_effect: tuple[str, ...] = ()

    def config(self, values: Values) -> GPTConfig:
        """The description of the model of which a config.json has these values.

        Raises ConfigError for one that asks for what is not implemented.
        """
        known = {name for entry in self.entries for name in entry.names}
        check_names(values, known | set(self.no_effect))
        said = dict(self.holds)
        for entry in self.entries:
            try:
                said |= entry.read(values)
            except ConfigError:
                raise
            except Exception as error:  # values of another structure, or beyond any number
                given = {name: values[name] for name in entry.names if name in values}
                names, valid = ", ".join(given), f"no such model: {error}"
                raise refused(names, [*given.values()], valid) from None
        ours: dict[str, Any] = {}
        for name, value in said.items():
            put(ours, name, value)
        try:
            return from_nested(GPTConfig, ours)
        except ConfigError as error:
            raise self.in_their_words(error, values) from None

    def in_their_words(self, error: ConfigError, values: Values) -> ConfigError:
        """An error of our config under the names that a config.json has for its fields."""
        theirs_of = {o: theirs for entry in self.entries for o, theirs in entry.theirs_of.items()}
        if error.field not in theirs_of:
            return error
        name, valid = theirs_of[error.field], error.valid
        for ours, theirs in theirs_of.items():
            valid = re.sub(rf"(?<![\w.]){re.escape(ours)}(?!\.?\w)", theirs, valid)
        return refused(name, values.get(name, error.value), valid)

    def values(self, config: GPTConfig) -> dict[str, Any]:
        """The config.json of a model of this description.

        Raises ConfigError for a description with which the family has no model.
        """
        wanted = spelled_out(config)
        values: dict[str, Any] = {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            # The library's own defaults may lie outside the vocabulary.
            **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
        }
        for entry in self.entries:
            values |= entry.write(wanted)
        difference = first_difference(asdict(spelled_out(self.config(values))), asdict(wanted))
        if difference is not None:
            name, theirs, ours = difference
            valid = f"a config.json of {self.model_type} cannot say it, but {theirs!r}"
            raise ConfigError(name, ours, valid)
        return values

    def tensors(self, model: GPT) -> list[Stored]:
        """Its tensors, each in its place in the model, which may be one without values.

        Raises ConfigError for a parameter of which the family has no tensor.
        """
        return stored_in(model, self.pairs)

    def usual_name(self, name: str, names: Collection[str]) -> str:
        """What is called `name` in a file of these `names`, which may be old or lack the prefix."""
        for beginning, usual in self.older:
            if name.startswith(beginning):
                return usual + name.removeprefix(beginning)
        bare = not any(other.startswith(self.prefix) for other in names)
        return self.prefix + name if bare and not name.startswith("lm_head.") else name


def family_of(values: Values) -> Family:
    """The family of a config.json of these values; ConfigError where there is none."""
    model_type = values.get("model_type")
    if not isinstance(model_type, str):
        raise refused("model_type", model_type, f"must be one of {', '.join(sorted(FAMILIES))}")
    found: Family = FAMILIES[model_type]
    return found


def enter(family: Family) -> None:
    """Let the family be found by its model_type."""
    FAMILIES(family.model_type)(family)


@torch.no_grad()
def load(model: GPT, family: Family, names: Collection[str], read: Read) -> None:
    """Copy the family's tensors into the model's parameters, one at a time.

    names  of the tensors in the files
    read   gives one of them

    Raises ConfigError for a name that is missing or that the model has no parameter for, before
    anything is copied, and for a tensor of another shape, which it names with both shapes.
    """
    places = {place.name: place for place in family.tensors(model)}
    found = {family.usual_name(name, names): name for name in sorted(names)}
    for name, place in places.items():
        if name not in found:
            valid = f"is missing, and {place.parameter} needs it, of the shape {place.shape}"
            raise ConfigError("tensor", name, valid)
    tied = (r"^lm_head\.",) if model.config.tie_head else ()
    for name in found.keys() - places.keys():
        if not any(re.search(pattern, name) for pattern in family.ignored + tied):
            raise ConfigError("tensor", found[name], "the model has no parameter for it")
    for name, place in places.items():
        place.load(read(found[name]))
    head = found.get("lm_head.weight") if tied else None
    if head is not None and not torch.equal(read(head).to(model.head.weight), model.head.weight):
        valid = "is another matrix than the embeddings, with which config.json ties it"
        raise ConfigError("tensor", head, valid)


def stored(model: GPT, family: Family) -> Iterator[tuple[str, Tensor]]:
    """The names and values of the tensors that the family stores, one at a time."""
    return ((place.name, place.value()) for place in family.tensors(model))


def first_difference(theirs: Values, ours: Values, prefix: str = "") -> tuple[str, Any, Any] | None:
    """Name and both values of the first field in which two nested descriptions differ."""
    for name, value in ours.items():
        if isinstance(value, dict) and value.keys() == theirs[name].keys():
            inner = first_difference(theirs[name], value, f"{prefix}{name}.")
            if inner is not None:
                return inner
        elif value != theirs[name]:
            return prefix + name, theirs[name], value
    return None


def spelled_out(config: GPTConfig) -> GPTConfig:
    """The same function with nothing left open: what the config leaves to a default or to another
    field, layer by layer, and at its default what has no effect, the way to draw weights included.
    """
    layers = range(max(config.n_layers, 1))
    attention = replace(
        config.attention,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        windows=[config.window(layer) for layer in layers],
        scale=config.attention.scale or config.head_dim**-0.5,
        out_bias=config.bias if config.attention.out_bias is None else config.attention.out_bias,
        drop_rate=config.attention_drop_rate,
    )
    forward = config.feed_forward
    gate = forward if forward.gated else FeedForwardConfig()
    feed_forward = replace(gate, ratio=FeedForwardConfig.ratio, dim=config.ff_dim)
    embedding = EmbeddingConfig(
        config.embedding_dim, config.embedding.factor, config.embedding_drop_rate
    )
    experts = replace(config.experts, balance_loss=0.0) if config.experts.count else ExpertsConfig()
    return replace(
        config,
        init=InitConfig(),
        norm=norm_spelled_out(config),
        position=position_spelled_out(config),
        attention=attention,
        feed_forward=feed_forward,
        embedding=embedding,
        experts=experts,
        parallel=config.parallel if config.parallel.enabled else ParallelConfig(),
    )


def norm_spelled_out(config: GPTConfig) -> NormConfig:
    """What the placement says where the config says nothing."""
    placement, norm = config.placement, config.norm
    inside = placement.inside_of(config)
    width = "projection" if norm.qk == "projection" else "head"
    return replace(
        norm,
        final=placement.has_final_norm(config),
        qk=inside.query and inside.key and width,
        options=asdict(placement.options(config)),
    )


def position_spelled_out(config: GPTConfig) -> PositionConfig:
    """Of each layer, and of its kind alone."""
    position, layers = config.position, range(max(config.n_layers, 1))
    if position.kind != "rotary":
        return PositionConfig(position.kind, position.offset * (position.kind == "learned"))
    factors = [config.yarn_factor(layer) for layer in layers]
    plain = max(factors) == 1
    return PositionConfig(
        "rotary",
        bases=[config.base(layer) for layer in layers],
        fraction=config.turned_dim / config.head_dim,
        interleaved=position.interleaved,
        in_float32=position.in_float32,
        yarn=YarnConfig() if plain else replace(position.yarn, factors=factors),
    )
