"""What a config.json says of single layers: windows, and rotary positions as they are spelled."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gpt.config import MOST_LAYERS, GPTConfig
from gpt.families.values import NEEDED, Values, refused, value_of
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

    def read(self, values: Values) -> dict[str, Any]:
        """See Entry."""
        kinds = self.kinds(values)
        ropes = {kind: self.rope(values, kind) for kind in dict.fromkeys(kinds)}
        yarn = [found for rope in ropes.values() if (found := yarn_of(rope, values))]
        if any(other != yarn[0] for other in yarn):
            valid = "must stretch both kinds of layers from one length by one ramp"
            raise refused("rope_parameters", values.get("rope_parameters"), valid)
        window = value_of(values, "sliding_window", NEEDED if SLIDING in kinds else 0)
        return {
            "attention.windows": [window * (kind == SLIDING) for kind in kinds],
            "position.bases": [
                float(ropes[kind]["rope_theta"]) * turns(values, layer, self.skips)
                for layer, kind in enumerate(kinds)
            ],
            "position.fraction": next(iter(ropes.values()))["partial_rotary_factor"],
            "position.yarn.factors": [float(ropes[kind].get("factor", 1)) for kind in kinds],
            **(yarn[0] if yarn else {}),
        }

    def kinds(self, values: Values) -> list[str]:
        """With a window or without, of each layer."""
        depth = value_of(values, "num_hidden_layers")
        if not isinstance(depth, int) or not 1 <= depth <= MOST_LAYERS:
            valid = f"must be a whole number in [1, {MOST_LAYERS:,}]"
            raise refused("num_hidden_layers", depth, valid)
        if not self.windowed:
            return [FULL] * depth
        if self.switch and not values.get(self.switch):
            return [FULL] * depth
        listed = [SLIDING if self.sliding(values, layer) else FULL for layer in range(depth)]
        kinds = value_of(values, "layer_types", listed)
        if len(kinds) != depth or not set(kinds) <= {SLIDING, FULL}:
            valid = f"must be {SLIDING} or {FULL} for each of {depth} layers"
            raise refused("layer_types", kinds, valid)
        return kinds

    def rope(self, values: Values, kind: str) -> dict[str, Any]:
        """The rope_parameters of a kind of layers, checked, in the newer spelling."""
        given = value_of(values, "rope_parameters", {})
        if given and values.get("rope_scaling"):
            valid = "cannot stand beside rope_parameters, which says the same in a newer spelling"
            raise refused("rope_scaling", values["rope_scaling"], valid)
        if self.by_kind:
            if given and not {SLIDING, FULL} & set(given):
                raise refused("rope_parameters", given, f"must name {SLIDING} and {FULL}")
            scaling = {} if kind == SLIDING else value_of(values, "rope_scaling", {})
            given = given.get(kind) or scaling
        else:
            given = given or value_of(values, "rope_scaling", self.scaling)
        name, theta = self.outside["rope_theta"], self.theta
        if self.local and kind == SLIDING:
            name, theta = self.local
        share = value_of(values, self.outside["partial_rotary_factor"], self.fraction or 1.0)
        found = {
            "rope_theta": value_of(values, name, theta),
            "partial_rotary_factor": share,
            **{part: value for part, value in given.items() if value is not None},
        }
        check_rope(found, self.fraction is not None)
        return found

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


def turns(values: Values, layer: int, skips: bool) -> bool:
    """Whether the layer has positions: 1 in the list means that it has."""
    if not skips:
        return True
    listed = values.get("no_rope_layers")
    if listed is None:
        return (layer + 1) % value_of(values, "no_rope_layer_interval", 4) != 0
    return bool(listed[layer])


def check_rope(rope: Values, partial: bool) -> None:
    """Raise ConfigError for another kind of rotary positions than the plain one and YaRN's."""
    kind, theta = rope.get("rope_type", rope.get("type", "default")), rope["rope_theta"]
    if not isinstance(theta, int | float) or not theta > 1:
        raise refused("rope_theta", theta, "must be a number above 1")
    if kind not in ("default", "yarn"):
        raise refused("rope_type", kind, "must be default or yarn: no other is implemented")
    for name in sorted(rope.keys() - ROPE_NAMES):
        raise refused(f"rope_parameters.{name}", rope[name], "is not implemented")
    if not partial and rope["partial_rotary_factor"] != 1:
        raise refused("partial_rotary_factor", rope["partial_rotary_factor"], "must be 1 here")
    factor = rope.get("factor", 1.0)
    if kind == "default" and factor != 1:
        raise refused("rope_parameters.factor", factor, "needs rope_type=yarn")
    usual = 1 + 0.1 * math.log(max(factor, 1))
    if not math.isclose(rope.get("attention_factor", usual), usual, rel_tol=1e-9):
        valid = f"must be 1 + 0.1 ln(factor) = {usual}, as where it is absent"
        raise refused("rope_parameters.attention_factor", rope["attention_factor"], valid)


def yarn_of(rope: Values, values: Values) -> dict[str, Any]:
    """Our values for those of YaRN, but the factor; none where the positions are plain."""
    if rope.get("factor", 1) == 1:
        return {}
    length = value_of(values, "max_position_embeddings")
    return {
        "position.yarn.original_length": rope.get("original_max_position_embeddings", length),
        "position.yarn.beta_fast": rope.get("beta_fast", 32.0),
        "position.yarn.beta_slow": rope.get("beta_slow", 1.0),
        "position.yarn.truncate": rope.get("truncate", True),
    }


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
