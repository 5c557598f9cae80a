"""Settings without effect, against models that are made with one value and with another."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from configs import SMALL, changed
from experiments.settings.identity import flatten
from gpt import GPT, ConfigError, GPTConfig
from gpt.needs import NEEDS, unmet

ROTARY: dict[str, Any] = {"position.kind": "rotary", "attention.head_dim": 16}
YARN = {
    "position.yarn.factors": [4.0],
    "position.yarn.original_length": 40,
    "position.yarn.beta_fast": 3.0,
    "position.yarn.beta_slow": 0.1,
}
MODELS: list[dict[str, Any]] = [
    {},
    ROTARY,
    {**ROTARY, **YARN, "position.bases": [100.0], "norm.qk": True},
    {**ROTARY, "position.bases": [0.0]},
    {"position.kind": "none", "norm.placement": "hybrid", "init.scheme": "gpt2"},
    {"norm.placement": "no_norm", "init.scheme": "xavier"},
    {"norm.placement": "no_norm", "norm.final": True},
    {"norm.kind": "dyt", "parallel.enabled": True},
    {"feed_forward.gated": True, "feed_forward.dim": 20, "init.scheme": "gpt2_scaled"},
    {"experts.count": 4, "experts.active": 2},
    {"n_layers": 0},
]
# Another value of every field than any of the models has.
OTHERS: dict[str, Any] = {
    "drop_rate": 0.5,
    "qkv_bias": False,
    "bias": False,
    "tie_head": True,
    "head_bias": True,
    "embedding.dim": 5,
    "embedding.factor": 3.0,
    "embedding.drop_rate": 0.5,
    "position.offset": 2,
    "position.bases": [7.0],
    "position.fraction": 0.5,
    "position.interleaved": True,
    "position.in_float32": True,
    "position.yarn.factors": [9.0],
    "position.yarn.original_length": 77,
    "position.yarn.beta_fast": 9.0,
    "position.yarn.beta_slow": 0.7,
    "position.yarn.truncate": False,
    "attention.causal": False,
    "attention.kv_heads": 1,
    "attention.head_dim": 8,
    "attention.windows": [3],
    "attention.sinks": True,
    "attention.scale": 0.3,
    "attention.out_bias": False,
    "attention.drop_rate": 0.5,
    "feed_forward.ratio": 3.0,
    "feed_forward.dim": 24,
    "feed_forward.gated": True,
    "feed_forward.clamp": 0.01,
    "feed_forward.offset": 1.0,
    "experts.count": 5,
    "experts.active": 3,
    "experts.softmax": "all",
    "experts.balance_loss": 0.1,
    "parallel.enabled": True,
    "parallel.shared": True,
    "shortcut": False,
    "activation": "relu",
    "norm.kind": "rms_norm",
    "norm.eps": 0.3,
    "norm.qk": "projection",
    "init.std": 0.5,
    "init.embedding_std": 0.3,
}
# What is no part of a model, or can be anything under any other setting.
SIZES = {"vocab_size", "context_length", "emb_dim", "n_heads", "n_layers"}
OPEN = {"norm.placement", "norm.final", "position.kind", "init.scheme"}


def described(changes: Mapping[str, Any]) -> GPTConfig:
    return changed(SMALL, {"n_layers": 1, **changes})


def all_of(config: GPTConfig, dtype: torch.dtype) -> list[Tensor]:
    """Parameters, logits and what evens experts, in training."""
    torch.manual_seed(0)
    model = GPT(config).to(dtype)
    logits, balance = model(torch.arange(8)[None]), model.balance_loss()
    return [*model.state_dict().values(), logits, *([] if balance is None else [balance])]


def differ(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) != len(other) or not all(map(torch.equal, one, other))


def of_the_control_arm(changes: dict[str, Any]) -> set[str]:
    """What a model without norms takes all the same, as those do that it is compared with."""
    control = changes.get("norm.placement") == "no_norm" and "norm.final" not in changes
    return {"norm.kind", "norm.eps"} if control else set()


def check(changes: dict[str, Any], names: Iterable[str]) -> None:
    """Another value of a setting makes another model, unless it has no effect there."""
    config = described(changes)
    without, made = set(unmet(config)), all_of(config, torch.float64)
    for name in names:
        try:
            other = described({**changes, name: OTHERS[name]})
        except ConfigError:  # beside what the model has
            continue
        if name == "position.in_float32":  # of numbers of fewer bits
            has_effect = differ(*(all_of(each, torch.bfloat16) for each in (other, config)))
        else:
            has_effect = differ(all_of(other, torch.float64), made)
        assert has_effect == (name not in without), name


@pytest.mark.parametrize("changes", MODELS, ids=str)
def test_settings_without_effect_are_those_that_change_nothing(changes: dict[str, Any]) -> None:
    needs = NEEDS if "n_layers" in changes else NEEDS[1:]  # the first is that of all in blocks
    needy = {name for each in needs for name in each.settings} & OTHERS.keys()
    check(changes, needy - changes.keys() - of_the_control_arm(changes))


def test_every_other_setting_has_an_effect() -> None:
    check({}, OTHERS)


@pytest.mark.long
@pytest.mark.parametrize("changes", MODELS, ids=str)
def test_every_setting_beside_every_part(changes: dict[str, Any]) -> None:
    check(changes, OTHERS.keys() - changes.keys() - of_the_control_arm(changes))


def test_every_field_has_another_value_here() -> None:
    assert {name for name, _ in flatten(dataclasses.asdict(SMALL))} == set(OTHERS) | SIZES | OPEN


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({"attention.windows": [0, 0]}, "attention.windows other than 0 for all layers"),
        (
            {**ROTARY, "position.bases": [10000.0, 10000.0]},
            "position.bases other than 10000 for all layers",
        ),
        (
            {**ROTARY, "position.yarn.factors": [1.0, 1.0]},
            "position.yarn.factors other than 1 for all layers",
        ),
    ],
)
def test_a_list_that_says_the_usual_value_again_has_no_effect(
    changes: dict[str, Any], needed: str
) -> None:
    name, values = [*changes.items()][-1]
    assert unmet(described({"n_layers": 2, **changes}))[name] == needed
    assert name not in unmet(described({"n_layers": 2, **changes, name: values[:1]}))
    assert name not in unmet(described({"n_layers": 2, **changes, name: [values[0], 3]}))


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({"attention.windows": [3, 0, 3]}, "n_layers of at least as many"),
        ({"attention.windows": [8, 3]}, "context_length above each"),
        ({**ROTARY, "position.bases": [3.0, 4.0, 5.0]}, "n_layers of at least as many"),
        ({**ROTARY, "position.yarn.factors": [3.0] * 3}, "n_layers of at least as many"),
    ],
)
def test_a_part_of_a_list_may_have_no_effect(changes: dict[str, Any], needed: str) -> None:
    name = [*changes][-1]
    assert unmet(described({"n_layers": 2, **changes}))[name] == needed
    assert name not in unmet(described({**changes, "n_layers": 3, "context_length": 9}))
