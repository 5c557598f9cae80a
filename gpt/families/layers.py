"""What a config.json says of single layers: windows, and rotary positions as they are spelled."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from gpt.checks import ANYTHING, Valid, check_value
from gpt.config import GPTConfig
from gpt.families.values import (
    NEEDED,
    Values,
    check_as,
    flag_of,
    refused,
    table_of,
    value_of,
    whole_of,
)
from gpt.registry import ConfigError

SLIDING, FULL = "sliding_attention", "full_attention"
ROPE_NAMES = frozenset(
    (
        "rope_type",
        "type",
        "rope_theta",
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "truncate",
        "attention_factor",
        "partial_rotary_factor",
    )
)


# Those of YaRN in our names, but the factor.
OURS = {
    "original_max_position_embeddings": "original_length",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "truncate": "truncate",
}


@dataclass(frozen=True)
class Rope:
    """The rotary positions of a kind of layers.

    parts  values by name, as in rope_parameters
    names  where each stands in the file
    """

    parts: Values
    names: Mapping[str, str]

    def refused(self, part: str, valid: str) -> ConfigError:
        """The error of a part."""
        return refused(self.names[part], self.parts[part], valid)

    def check(self, part: str, valid: Valid) -> None:
        """Raise ConfigError unless a part is a number that is valid."""
        name = self.names.get(part, part)
        check_value(f"config.json: {name}", self.parts[part], float, valid)


@dataclass(frozen=True)
class Layers:
    """Windows and rotary positions, which may differ by layer. See values.Entry.

    theta     base of the frequencies where the file says nothing
    windowed  whether there are layers with a window in it at all
    sliding   which layers have a window, where the file does not list it
    switch    the name in the file without which there are no windows; None: no such name
    local     name and default of another base for the layers with a window
    by_kind   whether layers with a window and without have rope_parameters of their own; the older
              rope_scaling is then of those without
    fraction  of each head's features that turn, where the file says nothing; None: all of them
    skips     whether the file may list layers without positions, 0 in its no_rope_layers
    scaling   rope_parameters where the file says nothing
    outside   what parts of rope_parameters were called outside it
    also      further names that `sliding` reads
    """

    theta: float
    windowed: bool = True
    sliding: Callable[[Values, int], bool] = lambda values, layer: False
    switch: str | None = None
    local: tuple[str, float] | None = None
    by_kind: bool = False
    fraction: float | None = None
    skips: bool = False
    scaling: Values = field(default_factory=dict)
    outside: Values = field(
        default_factory=lambda: {
            "rope_theta": "rope_theta",
            "partial_rotary_factor": "partial_rotary_factor",
        }
    )
    also: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """See Entry."""
        windows = ("layer_types", "sliding_window") if self.windowed else ()
        own = (*windows, "rope_parameters", "rope_scaling", *self.also)
        skips = ("no_rope_layers", "no_rope_layer_interval") if self.skips else ()
        local = self.local[:1] if self.local else ()
        switch = (self.switch,) if self.switch else ()
        return (*own, *self.outside.values(), *skips, *local, *switch)

    @property
    def theirs_of(self) -> Mapping[str, str]:
        """See Entry."""
        return {
            "attention.windows": "sliding_window",
            "position.bases": self.outside["rope_theta"],
            "position.yarn.beta_fast": "rope_parameters.beta_fast",
            "position.yarn.beta_slow": "rope_parameters.beta_slow",
        }

    def read(self, values: Values) -> dict[str, Any]:
        """See Entry."""
        kinds = self.kinds(values)
        ropes = {kind: self.rope(values, kind) for kind in dict.fromkeys(kinds)}
        yarn = [found for rope in ropes.values() if (found := yarn_of(rope, values))]
        if any(other != yarn[0] for other in yarn):
            valid = "must stretch both kinds of layers from one length by one ramp"
            raise refused("rope_parameters", values.get("rope_parameters"), valid)
        window = whole_of(values, "sliding_window", NEEDED) if SLIDING in kinds else 0
        turning = self.turning(values)
        return {
            "attention.windows": [window * (kind == SLIDING) for kind in kinds],
            "position.bases": [
                float(ropes[kind].parts["rope_theta"]) * turns
                for kind, turns in zip(kinds, turning, strict=True)
            ],
            "position.fraction": next(iter(ropes.values())).parts["partial_rotary_factor"],
            "position.yarn.factors": [float(ropes[kind].parts["factor"]) for kind in kinds],
            **(yarn[0] if yarn else {}),
        }

    def turning(self, values: Values) -> list[bool]:
        """Which layers have positions."""
        depth = values["num_hidden_layers"]
        return [not self.skips or turns(values, layer) for layer in range(depth)]

    def kinds(self, values: Values) -> list[str]:
        """With a window or without, of each layer."""
        depth = values["num_hidden_layers"]
        if depth == 0:
            raise refused("num_hidden_layers", depth, "must be at least 1")
        if not self.windowed or (self.switch and not flag_of(values, self.switch)):
            return [FULL] * depth
        listed = [SLIDING if self.sliding(values, layer) else FULL for layer in range(depth)]
        kinds = value_of(values, "layer_types", listed)
        if not is_list_of((SLIDING, FULL), depth, kinds):
            valid = f"must be {SLIDING} or {FULL} for each of {depth} layers"
            raise refused("layer_types", kinds, valid)
        return list(kinds)

    def rope(self, values: Values, kind: str) -> Rope:
        """Of a kind of layers, checked, in the newer spelling."""
        place, given = "rope_parameters", table_of(values, "rope_parameters", {})
        older = table_of(values, "rope_scaling", {})
        if given and older:
            valid = "cannot stand beside rope_parameters, which says the same in a newer spelling"
            raise refused("rope_scaling", older, valid)
        if self.by_kind and given:
            if not {SLIDING, FULL} & set(given):
                raise refused("rope_parameters", given, f"must name {SLIDING} and {FULL}")
            place, given = f"rope_parameters.{kind}", table_of(given, kind, {})
        if not given and not (self.by_kind and kind == SLIDING):
            place, given = "rope_scaling", older or self.scaling
        theta, default = self.outside["rope_theta"], self.theta
        if self.local and kind == SLIDING:
            theta, default = self.local
        share = self.outside["partial_rotary_factor"]
        alone = {
            "rope_theta": value_of(values, theta, default),
            "partial_rotary_factor": value_of(values, share, self.fraction or 1.0),
            "factor": 1.0,
        }
        own = {part: value for part, value in given.items() if value is not None}
        names = {"rope_theta": theta, "partial_rotary_factor": share}
        rope = Rope(alone | own, names | {part: f"{place}.{part}" for part in own})
        check_rope(rope, self.fraction is not None)
        self.check_pairs(values, rope)
        return rope

    def check_pairs(self, values: Values, rope: Rope) -> None:
        """Raise ConfigError where the features of a head that turn are no pairs."""
        whole = values["hidden_size"] // values["num_attention_heads"]
        width = value_of(values, "head_dim", whole)
        turned = int(width * rope.parts["partial_rotary_factor"])
        if turned < 2 or turned % 2:
            if self.fraction is None:
                raise refused("head_dim", width, "must be even: pairs of features turn")
            valid = f"times the {width} features of a head must be an even number of at least 2"
            raise rope.refused("partial_rotary_factor", valid)

    def write(self, config: GPTConfig) -> dict[str, Any]:
        """See Entry."""
        if config.position.kind != "rotary":
            raise ConfigError("position.kind", config.position.kind, "must be rotary")
        windows, bases = config.attention.windows, config.position.bases
        if any(windows) and not self.windowed:
            raise ConfigError("attention.windows", windows, "the family has none")
        if not all(bases) and not (self.skips and any(bases)):
            raise ConfigError("position.bases", bases, "the family has positions in each layer")
        kinds = [SLIDING if window else FULL for window in windows]
        partial = self.fraction is not None
        ropes = {kind: written(config, kinds.index(kind), partial) for kind in dict.fromkeys(kinds)}
        if not self.by_kind:
            turning = next(layer for layer, base in enumerate(bases) if base)
            ropes = written(config, turning, partial)
        switch = {self.switch: any(windows)} if self.switch else {}
        skips = {"no_rope_layers": [int(base > 0) for base in bases]} if self.skips else {}
        # A number where no layer has a window, too: some of the library's models ask for one.
        own = {"layer_types": kinds, "sliding_window": max(windows) or config.context_length}
        return {
            **(own if self.windowed else {}),
            "rope_parameters": ropes,
            **switch,
            **skips,
        }


def is_list_of(kinds: Collection[Any], length: int, value: object) -> bool:
    """Whether the value is a list of that length with nothing else in it."""
    return isinstance(value, list) and len(value) == length and all(v in kinds for v in value)


def turns(values: Values, layer: int) -> bool:
    """Whether the layer has positions: 1 in the list means that it has."""
    listed, depth = values.get("no_rope_layers"), values["num_hidden_layers"]
    if listed is None:
        return (layer + 1) % whole_of(values, "no_rope_layer_interval", 4) != 0
    if not is_list_of((0, 1), depth, listed):
        raise refused("no_rope_layers", listed, f"must be 0 or 1 for each of {depth} layers")
    return bool(listed[layer])


def check_rope(rope: Rope, partial: bool) -> None:
    """Raise ConfigError for another kind of rotary positions than the plain one and YaRN's."""
    parts = rope.parts
    kind = parts.get("rope_type", parts.get("type", "default"))
    rope.check("rope_theta", Valid(above=1))
    if kind not in ("default", "yarn"):
        name = "rope_type" if "rope_type" in parts else "type"
        raise rope.refused(name, "must be default or yarn: no other is implemented")
    for name in sorted(parts.keys() - ROPE_NAMES):
        raise rope.refused(name, "is not implemented")
    rope.check("partial_rotary_factor", Valid(above=0, at_most=1))
    if not partial and parts["partial_rotary_factor"] != 1:
        raise rope.refused("partial_rotary_factor", "must be 1 here")
    rope.check("factor", Valid(at_least=1))
    factor = parts["factor"]
    if kind == "default" and factor != 1:
        raise rope.refused("factor", "needs rope_type=yarn")
    usual = 1 + 0.1 * math.log(factor)
    if "attention_factor" in parts:
        rope.check("attention_factor", ANYTHING)
        if not math.isclose(parts["attention_factor"], usual, rel_tol=1e-9):
            valid = f"must be 1 + 0.1 ln(factor) = {usual}, as where it is absent"
            raise rope.refused("attention_factor", valid)


def yarn_of(rope: Rope, values: Values) -> dict[str, Any]:
    """Our values for those of YaRN, but the factor; none where the positions are plain."""
    if rope.parts["factor"] == 1:
        return {}
    usual = {
        "original_max_position_embeddings": value_of(values, "max_position_embeddings"),
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": True,
    }
    found = {}
    for part, ours in OURS.items():
        name = f"position.yarn.{ours}"
        found[name] = rope.parts.get(part, usual[part])
        check_as(name, rope.names.get(part, part), found[name])
    return found


def written(config: GPTConfig, layer: int, partial: bool) -> dict[str, Any]:
    """The rope_parameters of a layer; `partial`: of a family in which a part of a head may turn."""
    position, factor = config.position, config.yarn_factor(layer)
    plain = {"rope_type": "default", "rope_theta": config.base(layer)}
    if partial:
        plain["partial_rotary_factor"] = position.fraction
    if factor == 1:
        return plain
    return plain | {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": position.yarn.original_length,
        "beta_fast": position.yarn.beta_fast,
        "beta_slow": position.yarn.beta_slow,
        "truncate": position.yarn.truncate,
    }
