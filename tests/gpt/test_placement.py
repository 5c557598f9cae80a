"""Every placement against its equation, PyTorch's own layer, and what must hold for each."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from configs import SMALL, changed, small_model
from equations import PAPERS, PARALLEL_EQUATIONS, Written, closed_form, pre
from gpt import (
    ACTIVATIONS,
    GPT,
    NORMS,
    PARALLEL,
    PLACEMENTS,
    POSITIONS,
    ConfigError,
    GPTConfig,
    InitConfig,
    parameter_count,
)
from gpt.block import Block
from gpt.checks import valid_of
from gpt.init import init_gain
from gpt.norm import make_norm
from normscope import anatomy_of, parameter_table

ROOT = Path(__file__).parents[2]

WITHOUT_SHORTCUT = [name for name, placement in PLACEMENTS.items() if not placement.only_shortcut]
CHOICES: list[dict[str, Any]] = [
    *({"norm.placement": name} for name in PLACEMENTS),
    *({"norm.placement": name, "shortcut": False} for name in WITHOUT_SHORTCUT),
    *({"norm.kind": kind} for kind in NORMS),
    *({"activation": activation} for activation in ACTIVATIONS),
    *({"position.kind": kind} for kind in POSITIONS),
]


CASES = [
    (name, layer, equation)
    for name, paper in PAPERS.items()
    for layer, equation in enumerate(paper.layers)
]


def flat(state: Tensor | tuple[Tensor, ...]) -> Tensor:
    """A placement's streams side by side."""
    return state if isinstance(state, Tensor) else torch.cat(state, dim=-1)


def draw_vectors(module: nn.Module) -> None:
    """Draw norms, scales and biases, so that no two are alike and none is 0."""
    for parameter in module.parameters():
        if parameter.ndim < 2:
            nn.init.normal_(parameter)


def test_every_placement_has_its_equation_and_its_yaml() -> None:
    """Registry, conf/norm and the equations agree, values included."""
    assert set(PAPERS) == set(PLACEMENTS)
    assert {path.stem for path in (ROOT / "conf/norm").glob("*.yaml")} == set(PLACEMENTS)
    for name, placement in PLACEMENTS.items():
        text = yaml.safe_load((ROOT / f"conf/norm/{name}.yaml").read_text())
        chosen = text.get("norm", text)
        usual, fields = placement.Options(), dataclasses.fields(placement.Options)
        options = {f.name: getattr(usual, f.name) for f in fields if not valid_of(f).newer}
        assert chosen == {"placement": name, **({"options": options} if options else {})}
        inits = [d["override /init"] for d in text.get("defaults", [])]
        assert inits == ([placement.init] if placement.init else [])


@pytest.mark.parametrize(("placement", "layer", "equation"), CASES)
@pytest.mark.parametrize("shortcut", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_block_is_its_equation(
    placement: str, layer: int, equation: Callable[..., Any], shortcut: bool, norm: str
) -> None:
    """Outputs and all gradients in float64; under layer_norm without a mask, too.

    The other kinds with QK-norm alone.
    """
    if not shortcut and PLACEMENTS[placement].only_shortcut:
        with pytest.raises(ConfigError, match="about the shortcut itself"):
            changed(SMALL, {"norm.placement": placement, "shortcut": False})
        return
    variants = [(None, True), (True, True), (False, False)]
    for qk_norm, causal in variants if norm == "layer_norm" else variants[1:2]:
        torch.manual_seed(0)
        config = changed(
            SMALL,
            {
                "norm.placement": placement,
                "shortcut": shortcut,
                "norm.kind": norm,
                "norm.qk": qk_norm,
                "attention.causal": causal,
            },
        )
        block = PLACEMENTS[placement].build(config, layer).double()
        draw_vectors(block)
        x = torch.randn(2, 8, 12, dtype=torch.float64, requires_grad=True)
        state = (x, 2 * x) if PAPERS[placement].streams == 2 else x
        written = flat(equation(Written(block, config), state, float(shortcut)))
        assert_same(flat(block(state)), written, [x, *block.parameters()])


def assert_same(out: Tensor, written: Tensor, weights: list[Tensor]) -> None:
    """Equal, and with equal gradients of the weights."""
    torch.testing.assert_close(out, written, atol=1e-12, rtol=1e-12)
    direction = torch.randn_like(out)
    for ours, theirs in zip(
        torch.autograd.grad(out, weights, direction, retain_graph=True),
        torch.autograd.grad(written, weights, direction),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


OPTIONS = [
    *(
        ({"norm.placement": name, "norm.options.gpas": True}, PAPERS[name].layers[-1])
        for name in ("pre_ln", "sandwich", "peri_ln", "ln_scaling")
    ),
    *(
        (
            {"norm.placement": name, "norm.options.gpas": True, "parallel.enabled": True},
            PARALLEL_EQUATIONS[name][-1],
        )
        for name in ("pre_ln", "sandwich", "peri_ln", "ln_scaling")
    ),
    (
        {"norm.placement": "keel", "norm.options.first_out_norm": True, "n_layers": 1},
        lambda w, x, s: w.norm(pre(w, x, s), "out_norm_2"),
    ),
]


@pytest.mark.parametrize(("changes", "equation"), OPTIONS, ids=[str(c) for c, _ in OPTIONS])
def test_options_are_in_the_equation(changes: dict[str, Any], equation: Callable[..., Any]) -> None:
    """Of the last block; GPAS with its gradient, which the stop-gradient leaves as it was."""
    for shortcut in (True, False):
        config = changed(
            SMALL, {**changes, "shortcut": shortcut or changes["norm.placement"] == "keel"}
        )
        torch.manual_seed(0)
        block = config.placement.build(config, config.n_layers - 1).double()
        draw_vectors(block)
        x = torch.randn(2, 8, 12, dtype=torch.float64, requires_grad=True)
        written = equation(Written(block, config), x, float(config.shortcut))
        assert_same(block(x), written, [x, *block.parameters()])


PARALLEL_CASES = [
    (name, layer, equation)
    for name, equations in PARALLEL_EQUATIONS.items()
    for layer, equation in enumerate(equations)
]
INPUT_NORMS = {"pre_ln", "sandwich", "peri_ln", "sub_ln", "normformer", "ln_scaling"}


def test_every_parallel_form_has_its_equation() -> None:
    assert set(PARALLEL_EQUATIONS) == set(PARALLEL)


@pytest.mark.parametrize(("placement", "layer", "equation"), PARALLEL_CASES)
@pytest.mark.parametrize("shared", [False, True])
def test_parallel_block_is_its_equation(
    placement: str, layer: int, equation: Callable[..., Any], shared: bool
) -> None:
    """With shortcuts and without, where both branches are still summed; one norm or two."""
    parallel = {"norm.placement": placement, "parallel.enabled": True, "parallel.shared": shared}
    if shared and placement not in INPUT_NORMS:
        with pytest.raises(ConfigError, match="no norms before its branches to share"):
            changed(SMALL, parallel)
        return
    for shortcut, qk, kind in ((True, True, "rms_norm"), (False, None, "layer_norm")):
        torch.manual_seed(0)
        choice = {"shortcut": shortcut, "norm.qk": qk, "norm.kind": kind}
        config = changed(SMALL, parallel | choice)
        block = PARALLEL[placement].build(config, layer).double()
        draw_vectors(block)
        x = torch.randn(2, 8, 12, dtype=torch.float64, requires_grad=True)
        written = equation(Written(block, config), x, float(shortcut))
        assert_same(block(x), written, [x, *block.parameters()])


@pytest.mark.parametrize("placement", PARALLEL)
def test_parallel_models_are_counted_and_end_as_the_others_do(placement: str) -> None:
    """A norm fewer in each block where there is one for both branches, or for their sum."""
    serial = small_model({"norm.placement": placement})
    for shared in (False, True) if placement in INPUT_NORMS else (False,):
        choice = {"norm.placement": placement, "parallel.enabled": True, "parallel.shared": shared}
        model = small_model(choice)
        fewer = (4 if shared else {"post_ln": 4, "mix_ln": 1}.get(placement, 0)) * 2 * 12
        assert parameter_count(model.config) == closed_form(serial.config) - fewer
        assert type(model.final_norm) is type(serial.final_norm)
        assert type(model.entry) is type(serial.entry)


def test_what_stands_before_and_after_the_blocks() -> None:
    """Entry and final norm of the placements that have their own, written out."""
    tokens = torch.randint(0, 11, (3, 8))
    norm = partial(nn.functional.layer_norm, normalized_shape=(12,))
    options: dict[str, dict[str, Any]] = {
        "peri_ln": {"embedding_norm": True},
        "residual_dual": {},
        "siamese": {},
    }
    for placement, final_norm in itertools.product(options, (True, False)):
        chosen = {"norm.placement": placement, "norm.options": options[placement]}
        model = small_model({**chosen, "norm.final": final_norm})
        x = model.token_embedding(tokens) + model.position_embedding.weight
        state: Any = norm(x) if placement == "peri_ln" else (x, x)
        for block in model.blocks:
            state = block(state)
        if placement == "peri_ln":
            last = norm(state) if final_norm else state
        elif placement == "siamese":
            both = sum(map(norm, state))
            last = norm(both) if final_norm else both
        else:
            p, d = state
            last = p + (norm(d) if final_norm else d)
        torch.testing.assert_close(model(tokens), last @ model.head.weight.T)
    plain = small_model({"norm.placement": "peri_ln"})
    sandwich = small_model({"norm.placement": "sandwich"}, seed=1)
    plain.load_state_dict(sandwich.state_dict())  # the same parameters
    assert torch.equal(plain(tokens), sandwich(tokens))


def test_parameters_of_single_placements() -> None:
    def kinds(fraction: float) -> list[str]:
        model = small_model({"norm.placement": "mix_ln", "norm.options.fraction": fraction})
        return [type(block).__name__ for block in model.blocks]

    assert kinds(0.25) == ["PostLN", "PreLN", "PreLN", "PreLN"]
    assert kinds(0.74) == ["PostLN", "PostLN", "PreLN", "PreLN"]
    assert kinds(0.0) == ["PreLN"] * 4
    assert kinds(1.0) == ["PostLN"] * 4
    swin = small_model({"norm.placement": "reordered", "norm.options.scale_start": 0.0})
    x = torch.randn(2, 8, 12, dtype=torch.float64)
    assert torch.equal(swin.blocks[0](x), x)  # as its paper has it, the identity at first
    for name, value, owners in (
        ("fraction", 0.5, ["mix_ln"]),
        ("embedding_norm", False, ["peri_ln"]),
        ("scale_start", 0.0, ["sandwich", "peri_ln", "reordered"]),
        ("gpas", True, ["pre_ln", "sandwich", "peri_ln", "ln_scaling"]),
    ):
        named = " and ".join(f"norm={owner}" for owner in owners)
        for placement in PLACEMENTS:
            if placement not in owners:
                with pytest.raises(
                    ConfigError, match=f"norm.options.{name}=.*norm={placement} .* to {named}$"
                ):
                    changed(SMALL, {"norm.placement": placement, f"norm.options.{name}": value})
    with pytest.raises(ConfigError, match=r"norm.options.fraction=1.5 .*\[0, 1\]"):
        changed(SMALL, {"norm.placement": "mix_ln", "norm.options.fraction": 1.5})


def names_of_blocks(changes: dict[str, Any]) -> list[str]:
    return [type(block).__name__ for block in small_model(changes).blocks]


def test_gpas_and_the_scales_of_outputs_start_where_their_papers_say() -> None:
    """GPAS as if it were not there; sandwich's outputs at the given scale, the inputs at 1."""
    tokens = torch.randint(0, 11, (3, 8))
    for placement in ("pre_ln", "sandwich", "peri_ln", "ln_scaling"):
        choice = {"norm.placement": placement}
        plain, scaled = (small_model({**choice, "norm.options.gpas": on}) for on in (False, True))
        assert torch.equal(plain(tokens), scaled(tokens))
        extra = scaled.state_dict().keys() - plain.state_dict().keys()
        assert extra == {f"blocks.{layer}.scale_stream.gate" for layer in range(4)}
    for placement, kind in itertools.product(("sandwich", "peri_ln"), sorted(NORMS)):
        choice = {"norm.placement": placement, "norm.kind": kind, "norm.options.scale_start": 0.5}
        if kind == "gain_free_rms_norm":
            with pytest.raises(ConfigError, match=r"scale_start=0.5 .* has no scale that could"):
                changed(SMALL, choice)
            continue
        for name, norm in small_model(choice).blocks[2].named_children():
            if "norm" in name:
                scale = norm.get_parameter("weight") + (kind == "zero_centred_rms_norm")
                assert scale.tolist() == [0.5 if name.startswith("out") else 1.0] * 12


def test_the_first_block_of_keel_may_end_in_a_norm() -> None:
    choice = {"norm.placement": "keel", "norm.options.first_out_norm": True}
    names = [{*dict(block.named_parameters())} for block in small_model(choice).blocks[:2]]
    assert names[1] - names[0] == {"out_norm_1.weight", "out_norm_1.bias"}
    config = changed(SMALL, choice)
    assert config.placement.fixes(config)["shortcut_scale"] == 8.0


ALONE = [name for name, placement in PLACEMENTS.items() if placement.is_its_blocks_alone()]


@pytest.mark.parametrize("placement", ALONE)
def test_a_list_of_one_placement_is_that_placement(placement: str) -> None:
    """The same weights drawn, the same logits, the same final norm."""
    tokens = torch.randint(0, 11, (3, 8))
    listed = {"norm.placement": "per_block", "norm.options.placements": [placement]}
    model, alone = small_model(listed), small_model({"norm.placement": placement})
    assert torch.equal(model(tokens), alone(tokens))
    assert model.state_dict().keys() == alone.state_dict().keys()
    theirs, ours = (config.placement.inside_of(config) for config in (alone.config, model.config))
    assert ours == theirs


def test_a_list_gives_each_block_its_placement() -> None:
    def listed(*names: str, **more: Any) -> dict[str, Any]:
        return {"norm.placement": "per_block", "norm.options.placements": [*names], **more}

    tokens = torch.randint(0, 11, (3, 8))
    mixed = small_model({"norm.placement": "mix_ln"})
    assert torch.equal(small_model(listed("post_ln", *["pre_ln"] * 3))(tokens), mixed(tokens))
    star = small_model({"norm.placement": "hybrid_star"})
    assert torch.equal(small_model(listed("hybrid_star", *["hybrid"] * 3))(tokens), star(tokens))
    assert names_of_blocks(listed("sandwich", "no_norm")) == ["Sandwich", "NoNorm"] * 2
    assert names_of_blocks(listed("keel", "keel", "span", "ln_scaling")) == [
        *("FirstOfKeel", "Keel", "Span", "LNScaling")
    ]
    assert small_model(listed("pre_ln", "ln_scaling")).blocks[1].scale == 2**-0.5
    for names, final_norm in ((("pre_ln", "post_ln"), False), (("post_ln", "pre_ln"), True)):
        assert isinstance(small_model(listed(*names)).final_norm, nn.LayerNorm) == final_norm
        config = changed(SMALL, listed(*names))
        assert config.placement.fixes(config)["placements"] == ",".join(names)
    config = changed(SMALL, listed("pre_ln", "hybrid", n_layers=1))
    assert config.placement.absent_kinds(config) == ["hybrid"]
    assert config.placement.inside_of(config).query
    assert not isinstance(small_model(listed("pre_ln", n_layers=0)).final_norm, nn.Identity)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"norm.options.placements": []}, r"=\[\] is not valid: must name one block's at least"),
        (
            {"norm.options.placements": "pre_ln"},
            "='pre_ln' is not valid: must be a list of names, such as",
        ),
        ({"norm.options.placements": [1]}, "=1 is not valid: Choose from: admin"),
        ({"norm.options.placements": ["preln"]}, "='preln' .* did you mean 'pre_ln'"),
        *(
            (
                {"norm.options.placements": ["pre_ln", name]},
                rf"=\['pre_ln', '{name}'\] is not valid: {name} is more than its blocks .* take of",
            )
            for name in PLACEMENTS
            if name not in ALONE
        ),
        (
            {"norm.options.placements": ["pre_ln", "b2t"], "shortcut": False},
            "shortcut=False is not valid: b2t is about the shortcut itself",
        ),
        ({"parallel.enabled": True}, "'per_block' is not valid: has no form in which attention"),
    ],
)
def test_a_list_is_refused_in_a_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        changed(SMALL, {"norm.placement": "per_block", **changes})
    assert "\n" not in str(refused.value)
    assert set(PLACEMENTS) - set(ALONE) == {
        *("residual_dual", "siamese", "peri_ln", "admin", "per_block")
    }


def test_admin_profile() -> None:
    """w_1 = 1, w_{i+1}^2 = Var(w_i x_i) + Var(f_i), sublayer after sublayer, by hand."""
    model = small_model({"norm.placement": "admin", "init.scheme": "xavier"})
    tokens = torch.randint(0, 11, (3, 8))
    plain = small_model({"norm.placement": "post_ln", "init.scheme": "xavier"})
    assert torch.equal(model(tokens), plain(tokens))
    model.profile(tokens)
    norm = partial(nn.functional.layer_norm, normalized_shape=(12,))
    x, scale = model.token_embedding(tokens) + model.position_embedding.weight, torch.ones(())
    for block in model.blocks:
        for name, branch in (("weight_1", block.attention), ("weight_2", block.feed_forward)):
            weight = block.get_parameter(name)
            torch.testing.assert_close(weight, scale.double().expand(12))
            f = branch(x)
            new = ((scale * x).var(correction=0) + f.var(correction=0)).sqrt()
            x, scale = norm(scale * x + f), new
    torch.testing.assert_close(model(tokens), x @ model.head.weight.T)
    again = [parameter.clone() for parameter in model.parameters()]
    model.profile(tokens)  # a second pass finds the same
    for before, parameter in zip(again, model.parameters(), strict=True):
        torch.testing.assert_close(before, parameter)


@pytest.mark.parametrize(
    ("scheme", "gain"), [("xavier", 1.0), ("deepnorm", 64**-0.25), ("sub_ln", math.log(16) ** 0.5)]
)
def test_gains_of_the_xavier_schemes(scheme: str, gain: float) -> None:
    """Against the standard deviation, to 2 % of 36,864 draws (its own error is 0.4 %)."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(11, 8, 192, 3, 8, init=InitConfig(scheme)))
    query, key, value = model.blocks[-1].attention.qkv.weight.chunk(3)
    square = (2 / 384) ** 0.5
    assert (init_gain(scheme, 8) or 1.0) == pytest.approx(gain)
    for weight, expected in (
        (query, square),
        (key, square),
        (value, gain * square),
        (model.blocks[0].attention.out_proj.weight, gain * square),
        (model.blocks[0].feed_forward.fc_in.weight, gain * (2 / 960) ** 0.5),
        (model.blocks[-1].feed_forward.fc_out.weight, gain * (2 / 960) ** 0.5),
    ):
        assert weight.std().item() == pytest.approx(expected, rel=0.02)


def test_the_setting_of_xiong() -> None:
    """Each sublayer as section 3.3 writes it: mean_j(x_j) W_V, and relu(x W_1) W_2."""
    model = small_model(
        {
            "n_heads": 1,
            "feed_forward.ratio": 1.0,
            "qkv_bias": False,
            "bias": False,
            "attention.causal": False,
            "activation": "relu",
            "init.scheme": "xiong",
        }
    )
    assert not model.position_embedding.weight.any()
    block = model.blocks[2]
    x = torch.randn(2, 8, 12, dtype=torch.float64)
    value = block.attention.qkv.weight[24:]
    expected = (x.mean(dim=1, keepdim=True) @ value.T).expand_as(x)
    torch.testing.assert_close(block.attention(x), expected)
    hidden = (x @ block.feed_forward.fc_in.weight.T).clamp(min=0)
    torch.testing.assert_close(block.feed_forward(x), hidden @ block.feed_forward.fc_out.weight.T)
    assert all(p.ndim > 1 for name, p in block.named_parameters() if "norm" not in name)


@pytest.mark.parametrize("placement", ["pre_ln", "post_ln"])
def test_block_equals_torch_encoder_layer(placement: str) -> None:
    """Outputs and all gradients, given the same weights, in float64 to 1e-10."""
    torch.manual_seed(0)
    config = changed(SMALL, {"norm.placement": placement, "activation": "relu"})
    block = PLACEMENTS[placement].build(config, layer=0).double()
    layer = nn.TransformerEncoderLayer(
        12, 3, 48, dropout=0.0, batch_first=True, norm_first=placement == "pre_ln"
    ).double()
    attention = layer.self_attn
    assert attention.in_proj_weight is not None
    pairs = [
        (block.attention.qkv.weight, attention.in_proj_weight),
        (block.attention.qkv.bias, attention.in_proj_bias),
        (block.attention.out_proj.weight, attention.out_proj.weight),
        (block.attention.out_proj.bias, attention.out_proj.bias),
        (block.feed_forward.fc_in.weight, layer.linear1.weight),
        (block.feed_forward.fc_in.bias, layer.linear1.bias),
        (block.feed_forward.fc_out.weight, layer.linear2.weight),
        (block.feed_forward.fc_out.bias, layer.linear2.bias),
        (block.norm_1.weight, layer.norm1.weight),
        (block.norm_1.bias, layer.norm1.bias),
        (block.norm_2.weight, layer.norm2.weight),
        (block.norm_2.bias, layer.norm2.bias),
    ]
    assert {id(p) for p in block.parameters()} == {id(ours) for ours, _ in pairs}
    assert {id(p) for p in layer.parameters()} == {id(theirs) for _, theirs in pairs}
    with torch.no_grad():
        for ours, theirs in pairs:
            nn.init.normal_(ours, std=0.3)
            theirs.copy_(ours)
    x = torch.randn(2, 8, 12, dtype=torch.float64)
    out = block(x)
    mask = nn.Transformer.generate_square_subsequent_mask(8, dtype=torch.float64)
    reference = layer(x, src_mask=mask, is_causal=True)
    torch.testing.assert_close(out, reference, atol=1e-10, rtol=1e-10)
    direction = torch.randn_like(out)
    (out * direction).sum().backward()
    (reference * direction).sum().backward()
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_invariants(choice: dict[str, Any]) -> None:
    """Whatever is chosen: causality, independence of the batch, gradients everywhere."""
    # Without shortcuts and norms, nothing of the input is left after four blocks.
    model = small_model({"n_layers": 4 if choice.get("shortcut", True) else 2, **choice})
    draw_vectors(model)
    tokens = torch.randint(0, 11, (3, 8))
    logits = model(tokens)
    assert logits.shape == (3, 8, 11)

    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 11
    later = model(changed)
    torch.testing.assert_close(later[:, :5], logits[:, :5], atol=1e-12, rtol=1e-12)
    assert (later - logits)[:, 5:].abs().amax() > 1e-9

    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(model(tokens[order]), logits[order], atol=1e-12, rtol=1e-12)

    nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name

    paper = PAPERS[model.config.norm.placement]
    assert (not isinstance(model.final_norm, nn.Identity)) == paper.final_norm


@pytest.mark.parametrize("placement", WITHOUT_SHORTCUT)
def test_shortcut_off_passes_no_input_through(placement: str) -> None:
    """With both branches dead the block's output does not depend on its input, nor its gradient."""
    for shortcut in (True, False):
        torch.manual_seed(0)
        config = changed(SMALL, {"norm.placement": placement, "shortcut": shortcut})
        block = PLACEMENTS[placement].build(config, layer=1).double()
        for branch in (block.attention.out_proj, block.feed_forward.fc_out):
            nn.init.zeros_(branch.weight)
        x = torch.randn(2, 8, 12, dtype=torch.float64, requires_grad=True)
        out = block(x)
        (gradient,) = torch.autograd.grad(out.square().sum(), x)
        other = block(torch.full_like(x, float("1e3")) + torch.randn_like(x))
        assert torch.equal(out, other) != shortcut
        assert bool(gradient.any()) == shortcut


# Settings by which the count changes, the usual value of each first.
COUNTED: dict[str, Sequence[bool | str | None]] = {
    "tie_head": (True, False),
    "qkv_bias": (True, False),
    "bias": (True, False),
    "norm.qk": (None, True, False, "projection"),
    "norm.final": (None, True, False),
}
USUAL = {name: values[0] for name, values in COUNTED.items()}
ONE_BY_ONE = [
    USUAL,
    *(USUAL | {name: other} for name, values in COUNTED.items() for other in values[1:]),
]


def check_counts(placement: str, norm: str, combinations: Iterable[Mapping[str, Any]]) -> None:
    """Of a model that allocates nothing."""
    sizes = {"n_layers": 2, "feed_forward.ratio": 2}
    chosen = {**sizes, "norm.placement": placement, "norm.kind": norm}
    for values in combinations:
        config = changed(SMALL, {**chosen, **values})
        assert parameter_count(config) == closed_form(config)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("norm", NORMS)
def test_counts_equal_the_closed_form(placement: str, norm: str) -> None:
    check_counts(placement, norm, ONE_BY_ONE)


@pytest.mark.long
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("norm", NORMS)
def test_counts_equal_the_closed_form_under_every_combination(placement: str, norm: str) -> None:
    every = itertools.product(*COUNTED.values())
    check_counts(placement, norm, (dict(zip(COUNTED, v, strict=True)) for v in every))


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("tie_head", [True, False])
def test_every_parameter_has_one_place(placement: str, tie_head: bool) -> None:
    model = small_model({"norm.placement": placement, "norm.qk": True, "tie_head": tie_head})
    named = [place.parameter for place in anatomy_of(model).places()]
    assert {id(p) for p in named} == {id(p) for p in model.parameters()}
    assert len(named) == len({id(p) for p in named})
    counted = sum(int(row["parameters"]) for row in parameter_table(model))
    assert counted == sum(p.numel() for p in model.parameters()) == closed_form(model.config)


class TwoStreams(Block):
    """p = N(p + A p), d = d + A p, then the same with F: a placement that carries two streams."""

    final_norm = True

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.weight = nn.Parameter(torch.ones(config.emb_dim))  # of its own, as Admin has

    @classmethod
    def make_entry(cls, config: GPTConfig) -> nn.Module:
        class Normed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.norm = make_norm(config, config.emb_dim)

            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                return self.norm(x), x

        return Normed()

    @staticmethod
    def stream(state: tuple[Tensor, Tensor]) -> Tensor:
        return state[0]

    @classmethod
    def make_final(cls, config: GPTConfig) -> nn.Module:
        class Sum(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.norm = make_norm(config, config.emb_dim)

            def forward(self, state: tuple[Tensor, Tensor]) -> Tensor:
                return state[0] + self.norm(state[1])

        return Sum()

    def forward(self, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        p, d = state
        for norm, branch in ((self.norm_1, self.attention), (self.norm_2, self.feed_forward)):
            f = branch(p)
            p, d = norm(self.add_1(self.weight * p, f)), self.add_2(d, f)
        return p, d


class HalfPost(Block):
    """The first half of the blocks as post_ln, the rest as pre_ln."""

    final_norm = True

    @classmethod
    def build(cls, config: GPTConfig, layer: int) -> Block:
        name = "post_ln" if layer < config.n_layers / 2 else "pre_ln"
        return PLACEMENTS[name].build(config, layer)


@pytest.mark.parametrize("placement", [TwoStreams, HalfPost])
def test_other_structures_fit(placement: type[Block], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two streams, or blocks that differ by depth, need a class and nothing else."""
    from normscope.gradients import ParameterNorms
    from normscope.streams import stream_rows

    monkeypatch.setitem(PLACEMENTS, "new", placement)
    model = small_model({"norm.placement": "new"})
    tokens = torch.randint(0, 11, (3, 8))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())

    loss(tokens, tokens).backward()
    norms = ParameterNorms(anatomy_of(model))
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    total = nn.utils.get_total_norm(grads)
    assert norms.gradients().norm().item() == pytest.approx(total.item(), rel=1e-6)
    counted = sum(int(row["parameters"]) for row in parameter_table(model))
    assert counted == sum(p.numel() for p in model.parameters())
    own = {row["component"] for row in parameter_table(model)} & {"placement", "entry"}
    assert own == ({"placement", "entry"} if placement is TwoStreams else set())
    rows = stream_rows(anatomy_of(model), lambda: loss(tokens, tokens))
    assert {row.layer for row in rows} == {0, 1, 2, 3}
    kinds = [type(block).__name__ for block in model.blocks]
    assert kinds == (
        ["TwoStreams"] * 4 if placement is TwoStreams else ["PostLN"] * 2 + ["PreLN"] * 2
    )
