"""Activation checkpointing: the same numbers, computed again from each block's input."""

from typing import Any

import pytest
import torch

from configs import settings_of
from experiments.training.memory import predict, saved_activations
from gpt import GPT
from same_run import assert_equal
from training_steps import engine_of, step_of

RECOMPUTED = "trainer.activation_checkpointing=true"
DROPOUT = ("model.drop_rate=0.2",)
EXPERTS = ("model.experts.count=4", "model.experts.active=2", "model.experts.balance_loss=0.5")
TWO_STREAMS = ("norm=residual_dual", "model.n_layers=3")
PLACED = [("norm=post_ln",), ("norm=mix_ln",), ("norm=peri_ln", "norm.qk=true")]
PLACED += [("norm=siamese",), ("norm=per_block", "norm.options.placements=[keel,span]")]
PLACED += [("norm=pre_ln", "norm.options.gpas=true")]
VARIANTS: list[Any] = [EXPERTS, (*TWO_STREAMS, *DROPOUT)]
VARIANTS += [pytest.param(options, marks=pytest.mark.long) for options in PLACED]
# Its logits are few beside the activations, as in a model of some size.
SIZE = ("model.n_layers=4", "trainer.batch_size=16")


@pytest.mark.parametrize("options", VARIANTS)
def test_what_is_computed_again_is_the_same_bit_for_bit(
    toy: tuple[str, ...], options: tuple[str, ...]
) -> None:
    common = (*toy, *options, "trainer.accumulate=2")
    usual, engine = engine_of(*common), engine_of(*common, RECOMPUTED)
    for step in (0, 1):
        assert_equal(step_of(engine, step), step_of(usual, step), "loss, gradients")
        for each in (engine, usual):
            each.update(step)
    assert not engine.model.recomputes  # nothing else is computed so


@pytest.mark.parametrize("options", VARIANTS[:2])
def test_less_is_kept_as_predicted(toy: tuple[str, ...], options: tuple[str, ...]) -> None:
    predictions: list[dict[str, int]] = []
    for more in ((), (RECOMPUTED,)):
        engine = engine_of(*toy, *SIZE, *options, *more)
        engine.gradients(0)
        predictions.append(predict(engine.settings, engine.model.config))
        assert predictions[-1]["activations"] == engine.memory.measured["activations"]
    usual, less = predictions
    assert less["activations"] < usual["activations"] / 2
    # Backward has all of one block there at once, beside the inputs of the others.
    of_block = (usual["activations"] - less["activations"]) / (engine.model.config.n_layers)
    lasting = less["parameters"] + less["optimizer"]
    assert lasting + less["activations"] + of_block <= less["peak"] < usual["peak"]


@pytest.mark.parametrize(
    ("placement", "streams"),
    [pytest.param("pre_ln", 1, marks=pytest.mark.long), ("residual_dual", 2)],
)
def test_each_block_keeps_its_own_input_alone(
    toy: tuple[str, ...], placement: str, streams: int
) -> None:
    """A block more keeps, for each of its streams, 4 bytes for each number of (B, T, emb_dim)."""

    def bytes_of(layers: int) -> int:
        chosen = settings_of(*toy, f"norm={placement}", f"model.n_layers={layers}", RECOMPUTED)
        return predict(chosen, chosen.model_config(28))["activations"]

    assert bytes_of(5) - bytes_of(4) == streams * 4 * 2 * 16 * 16


def test_without_gradients_the_same_is_computed_and_nothing_kept() -> None:
    chosen = settings_of("model=micro", "tokenizer=char", "norm=residual_dual")
    torch.manual_seed(0)
    model = GPT(chosen.model_config(28))
    tokens = torch.randint(28, (2, 8))
    expected = model(tokens)
    model.recomputes = True
    with saved_activations(model) as kept:
        assert torch.equal(model(tokens), expected)
    assert kept() > 0
    with torch.no_grad(), saved_activations(model) as kept:
        assert torch.equal(model(tokens), expected)
    assert kept() == 0
