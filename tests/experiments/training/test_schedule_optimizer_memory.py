"""Learning rates by hand, who is decayed, and predicted against counted memory."""

import gc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from configs import changed, settings_of
from conftest import ROOT
from experiments.machine import memory
from experiments.settings.schema import (
    OptimizerSettings,
    ScheduleSettings,
    Settings,
)
from experiments.training.loss import language_model_loss
from experiments.training.memory import optimizer_bytes, predict, saved_activations, tensor_bytes
from experiments.training.optimizer import make_optimizer
from experiments.training.schedule import SCHEDULES, learning_rate
from gpt import GPT, GPTConfig, NormConfig

CONFIG = GPTConfig(50, 16, 24, 3, 2)
ADAMW = OptimizerSettings("adamw", 1e-3, 0.5, [0.9, 0.95], None)
MUON = OptimizerSettings("muon", 1e-3, 0.5, [0.9, 0.95], 0.95)
PARTS = {  # every parameter that holds several matrices
    "attention.kv_heads": 1,
    "feed_forward.gated": True,
    "experts.count": 3,
    "experts.active": 2,
}


@pytest.mark.parametrize(
    ("name", "middle", "last"),
    [("constant", 1.0, 1.0), ("linear", 0.55, 0.19), ("cosine", 0.55, 0.1220246)],
)
def test_schedules_by_hand(name: str, middle: float, last: float) -> None:
    """Ten steps of warm-up, ten of decay to a tenth: the ends and the middle of each curve."""
    schedule = ScheduleSettings(name, 10, 0.1)
    rates = [learning_rate(schedule, 2.0, step, 20) for step in range(20)]
    assert rates[:10] == pytest.approx([2.0 * (step + 1) / 10 for step in range(10)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[15] == pytest.approx(2.0 * middle)
    assert rates[19] == pytest.approx(2.0 * last)
    assert set(SCHEDULES) == {"constant", "linear", "cosine"}


def test_no_warmup_starts_at_the_peak() -> None:
    assert learning_rate(ScheduleSettings("cosine", 0, 0.1), 3.0, 0, 5) == 3.0


def test_only_matrices_are_decayed() -> None:
    """With zero gradients all optimizers move what they decay, by lr x decay, and nothing else."""
    for settings in (ADAMW, MUON, OptimizerSettings("sgd", 1e-3, 0.5, None, 0.9)):
        model = GPT(CONFIG)
        for parameter in model.parameters():
            torch.nn.init.ones_(parameter)
            parameter.grad = torch.zeros_like(parameter)
        make_optimizer(model, settings).step()
        for name, parameter in model.named_parameters():
            expected = 1 - 1e-3 * 0.5 if parameter.ndim >= 2 else 1.0
            torch.testing.assert_close(
                parameter.detach(), torch.full_like(parameter, expected), msg=name
            )


def matrices_in(name: str, tensor: Tensor) -> list[Tensor]:
    """Of a parameter of a model with PARTS in three heads of width 8: views, one for each."""
    if name.endswith("qkv.weight"):
        return [*tensor.split([24, 8, 8])]
    if name.endswith("fc_in.weight"):
        return [half for expert in tensor for half in expert.chunk(2)]
    return [*tensor] if name.endswith("fc_out.weight") else [tensor]


def test_muon_updates_each_matrix_of_the_blocks_apart_and_adamw_all_else() -> None:
    """Bit for bit what PyTorch's own two do, the matrices and their gradients cut out by hand."""
    torch.manual_seed(0)
    model = GPT(changed(CONFIG, PARTS))
    hidden = {
        name
        for name, p in model.named_parameters()
        if p.ndim > 1 and name.startswith("blocks.") and name.endswith("weight")
    }
    assert len(hidden) == CONFIG.n_layers * len(["qkv", "out_proj", "router", "fc_in", "fc_out"])
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    parts = {name: [nn.Parameter(m) for m in matrices_in(name, own[name])] for name in hidden}
    rest = {name: nn.Parameter(tensor) for name, tensor in own.items() if name not in hidden}
    both = (
        torch.optim.Muon(
            [part for each in parts.values() for part in each],
            weight_decay=0.5,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            [
                {"params": [p for p in rest.values() if p.ndim > 1], "weight_decay": 0.5},
                {"params": [p for p in rest.values() if p.ndim < 2], "weight_decay": 0.0},
            ],
            betas=(0.9, 0.95),
            fused=True,
        ),
    )
    optimizer = make_optimizer(model, MUON)
    for rate in (1e-3, 3e-3, 2e-3):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.randn_like(parameter)
            for part, gradient in zip(
                parts.get(name, [rest.get(name)]),
                matrices_in(name, parameter.grad) if name in hidden else [parameter.grad],
                strict=True,
            ):
                assert part is not None
                part.grad = gradient.clone()
        for each in (*both, optimizer):
            for group in each.param_groups:
                group["lr"] = rate
            each.step()
        if rate == 3e-3:  # as a run that is resumed
            state = optimizer.state_dict()
            optimizer = make_optimizer(model, MUON)
            optimizer.load_state_dict(state)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, own[name]), name


def test_updates_of_muon_are_as_large_as_those_of_adamw() -> None:
    """0.2 lr, of matrices of any shape, where the gradient has full rank."""
    torch.manual_seed(0)
    model = GPT(CONFIG)
    optimizer = make_optimizer(model, replace(MUON, weight_decay=0.0))
    old = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = 1e-6 * torch.randn_like(parameter)
    optimizer.step()
    for block, layer in enumerate(model.blocks):
        for name in ("attention.out_proj.weight", "feed_forward.fc_in.weight"):
            change = layer.get_parameter(name) - old[f"blocks.{block}.{name}"]
            # The iteration leaves singular values between 0.7 and 1.2, where U V^T has 1.
            assert change.square().mean().sqrt().item() == pytest.approx(0.2e-3, rel=0.3)


def test_the_memory_of_muon_is_predicted() -> None:
    """A copy of the blocks' matrices, two of all else with a step each."""
    config = changed(CONFIG, PARTS)
    model = GPT(config)
    hidden = sum(w.matrix.numel() for block in model.blocks for w in block.weights())
    count = sum(p.numel() for p in model.parameters())
    others = len(list(model.parameters())) - 5 * CONFIG.n_layers
    predicted = predict(settings(MUON), config)["optimizer"]
    assert predicted == 4 * (hidden + 2 * (count - hidden) + others)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made = make_optimizer(model, MUON)
    made.step()
    assert optimizer_bytes(made) == predicted


def settings(optimizer: OptimizerSettings, precision: str = "float32") -> Settings:
    shape = ("trainer.batch_size=3", "trainer.sequence_length=8")
    return replace(settings_of(*shape, f"trainer.precision={precision}"), optimizer=optimizer)


@pytest.mark.parametrize(
    ("optimizer", "copies"),
    [
        (ADAMW, 2),
        (OptimizerSettings("sgd", 0.1, 0.0, None, 0.9), 1),
        (OptimizerSettings("sgd", 0.1, 0.0, None, None), 0),
    ],
)
@pytest.mark.parametrize("placement", ["pre_ln", "post_ln", "no_norm"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("drop_rate", [0.0, 0.1])
def test_prediction_equals_what_a_step_leaves(
    optimizer: OptimizerSettings, copies: int, placement: str, precision: str, drop_rate: float
) -> None:
    config = GPTConfig(50, 16, 24, 3, 2, drop_rate, norm=NormConfig(placement))
    chosen = settings(optimizer, precision)
    predicted = predict(chosen, config)
    model = GPT(config)
    count = sum(p.numel() for p in model.parameters())
    tokens = torch.randint(0, 50, (3, 8))
    with saved_activations(model) as activation_bytes:
        loss = language_model_loss(model, tokens, tokens, precision)
        assert predicted["activations"] == activation_bytes()
    loss.backward()
    made = make_optimizer(model, optimizer)
    made.step()
    assert predicted["parameters"] == tensor_bytes(iter(model.parameters())) == 4 * count
    assert predicted["gradients"] == tensor_bytes(p.grad for p in model.parameters())  # type: ignore
    assert predicted["optimizer"] == optimizer_bytes(made)
    steps = 4 * len(list(model.parameters())) if optimizer.name == "adamw" else 0
    assert predicted["optimizer"] == copies * 4 * count + steps
    assert predicted["peak"] > predicted["parameters"] + predicted["activations"]


def test_activations_by_hand() -> None:
    """Pre-LN in float32 without dropout: what the equation must keep for its gradient.

    Per block, in numbers kept for each token: both norms' inputs x and h (2 d), their means and
    deviations (4), their outputs (2 d), query, key and value (3 d), the attention's output (d) and
    its log-normaliser (one for each head), the feed-forward layer before and after its activation
    (2 x 4 d). Outside: the last norm's input, mean and deviation, and of the loss its gradients by
    what the head reads (d) and by the head, one number for each of that.
    """
    d, heads, layers, vocabulary, tokens = 24, 3, 2, 50, 24
    block = 2 * d + 4 + 2 * d + 3 * d + d + heads + 8 * d
    outside = 2 * d + 2
    expected = 4 * (tokens * (layers * block + outside) + vocabulary * d)
    assert predict(settings(ADAMW), CONFIG)["activations"] == expected


def test_shared_storage_counts_once() -> None:
    x = torch.zeros(10)
    assert tensor_bytes(iter([x, x.view(2, 5), x[3:]])) == 40


def test_a_prediction_leaves_nothing_behind() -> None:
    """Its graph is never run backward, and must not be kept alive by what it saved."""

    def fakes() -> int:
        gc.collect()
        return sum(type(found) is FakeTensor for found in gc.get_objects())

    before = fakes()
    predict(settings(ADAMW), CONFIG)
    assert fakes() == before


def test_collections_leave_out_what_the_first_run_found() -> None:
    """That is libraries, whose many objects never become garbage."""
    memory.spare_libraries.cache_clear()
    before = [object()]
    memory.PeakMeter(torch.device("cpu"))
    after = [object()]
    memory.PeakMeter(torch.device("cpu"))
    watched = {id(found) for found in gc.get_objects()}
    assert id(after) in watched
    assert id(before) not in watched


LEFT_OPEN = """
import sys
import torch
from experiments.machine.memory import PeakMeter
found = [open(sys.argv[1], "w")]
found.append(found)
found[0].write("all of it")
PeakMeter(torch.device("cpu"))
"""


@pytest.mark.long
def test_a_file_that_nobody_closed_is_whole_after_the_process(tmp_path: Path) -> None:
    """Its last lines are written when Python's last collection closes it."""
    path = tmp_path / "left_open.txt"
    subprocess.run([sys.executable, "-c", LEFT_OPEN, str(path)], check=True, cwd=ROOT)
    assert path.read_text() == "all of it"
