"""Published blocks that are a placement of ours under another name.

Each is the library's own block with our branches and norms put into it, so that what is compared is
the order in which it uses them; outputs and the gradients of all parameters agree to 1e-12. The
library's norms are replaced since they compute in float32.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from configs import changed
from gpt import GPT, GPTConfig, InitConfig

TOLERANCE = 1e-12
SIZES = {  # of the library's blocks, whose own branches and norms are not used
    "hidden_size": 12,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 4,
}
SMALL = GPTConfig(11, 9, 12, 3, 4, qkv_bias=True, init=InitConfig("xavier"))


def made(placement: str, changes: Mapping[str, Any] | None = None) -> GPT:
    """A model in float64, no two of its norms, scales and biases alike."""
    torch.manual_seed(0)
    model = GPT(changed(SMALL, {"norm.placement": placement, **(changes or {})})).double()
    for parameter in model.parameters():
        if parameter.ndim < 2:
            nn.init.normal_(parameter, 1.0, 0.3)
    return model


def with_norm_on_embeddings(model: GPT) -> GPT:
    """`model` with a norm of its kind between its embeddings and its first block."""
    model.entry = nn.LayerNorm(12).double()
    nn.init.normal_(model.entry.weight, 1.0, 0.3)
    return model


def assert_same_function(
    model: GPT, other: Callable[[Tensor], Tensor], own: tuple[str, ...] = ()
) -> None:
    """Equal logits of model(tokens) and other(tokens), and equal gradients of all parameters.

    own  endings of the names of parameters that `other` does not have
    """
    tokens = torch.randint(0, 11, (3, 9))
    named = {k: p for k, p in model.named_parameters() if not (own and k.endswith(own))}
    logits, expected = model(tokens), other(tokens)
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=TOLERANCE)
    direction = torch.randn_like(logits)
    ours = torch.autograd.grad(logits, list(named.values()), direction)
    theirs = torch.autograd.grad(expected, list(named.values()), direction)
    for name, a, b in zip(named, ours, theirs, strict=True):
        torch.testing.assert_close(
            a, b, atol=TOLERANCE * a.abs().max().item(), rtol=TOLERANCE, msg=name
        )


def with_parameters_of(model: GPT, other: GPT) -> Callable[[Tensor], Tensor]:
    """`other` as a function of tokens, computing with the parameters of `model`."""
    names = {name for name, _ in other.named_parameters()}
    shared = {name: p for name, p in model.named_parameters() if name in names}
    assert set(shared) == names
    return lambda tokens: functional_call(other, shared, (tokens,))


def embedded(model: GPT, tokens: Tensor) -> Tensor:
    """The embeddings, (B, T, emb_dim)."""
    positions = torch.arange(tokens.shape[-1])
    return model.token_embedding(tokens) + model.position_embedding(positions)


def through(x: Tensor, layers: Iterable[Callable[..., Any]], **arguments: Any) -> Tensor:
    """`x` through all layers, each of which gives a tensor, or one with attention weights."""
    for layer in layers:
        out = layer(x, **arguments)
        x = out if isinstance(out, Tensor) else out[0]
    return x


class WithWeights(nn.Module):
    """(A x, None): an attention as the library's blocks expect it."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor, None]:
        return self.attention(hidden_states), None


def test_beam_is_sandwich_with_a_scaled_stream() -> None:
    """x_k = sqrt((k - 1) / k) x_{k-1} + N(f(N x_{k-1})) / sqrt(k), x_1 the embeddings.

    Its stream is ours over sqrt(k). All readers normalise, so nothing else changes but by eps.
    """
    from transformers.models.beam.modeling_beam import BeamConfig, BeamDecoderLayer

    model = made("sandwich", {"norm.eps": 0.0})
    config = BeamConfig(**SIZES)
    layers: list[nn.Module] = []
    for index, block in enumerate(model.blocks):
        with torch.device("meta"):
            layer = BeamDecoderLayer(config, index)
        layer.self_attn = WithWeights(block.attention)
        layer.mlp = block.feed_forward
        layer.input_layernorm, layer.post_attention_layernorm = block.norm_1, block.out_norm_1
        layer.pre_feedforward_layernorm = block.norm_2
        layer.post_feedforward_layernorm = block.out_norm_2
        layers.append(layer)

    def beam(tokens: Tensor, blocks: int = 4) -> Tensor:
        return through(embedded(model, tokens), layers[:blocks], position_embeddings=None)

    assert_same_function(model, lambda tokens: model.head(model.final_norm(beam(tokens))))
    tokens = torch.randint(0, 11, (3, 9))
    for count in range(1, 5):
        ours = through(embedded(model, tokens), model.blocks[:count])
        theirs = beam(tokens, count) * (2 * count + 1) ** 0.5
        torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=TOLERANCE)


def shifted_norms(model: GPT) -> list[nn.Module]:
    """The norm before each block and the one after the last, where a block begins with its norm.

    Half a step earlier the same norms end the block before.
    """
    return [model.entry, *(block.norm_2 for block in model.blocks)]


@pytest.mark.parametrize("placement", ["deepnorm", "post_ln"])
def test_minimax_is_deepnorm_with_a_norm_on_the_embeddings(placement: str) -> None:
    """x = N x; h = a x + A x; h = N h; out = a h + F h; a final norm. With a = 1: post_ln."""
    from transformers.models.minimax.modeling_minimax import MiniMaxConfig, MiniMaxDecoderLayer

    model = with_norm_on_embeddings(made(placement))
    alpha = {"deepnorm": 8**0.25, "post_ln": 1.0}[placement]  # of 4 blocks: (2 x 4)^(1/4)
    config = MiniMaxConfig(
        **SIZES,
        layer_types=["full_attention"] * 4,
        full_attn_alpha_factor=alpha,
        mlp_alpha_factor=alpha,
    )
    *before, last = shifted_norms(model)
    layers: list[nn.Module] = []
    for index, (block, norm) in enumerate(zip(model.blocks, before, strict=True)):
        with torch.device("meta"):
            layer = MiniMaxDecoderLayer(config, index)
        layer.self_attn = WithWeights(block.attention)
        layer.mlp = block.feed_forward
        layer.input_layernorm, layer.post_attention_layernorm = norm, block.norm_1
        layers.append(layer)
    assert_same_function(
        model, lambda tokens: model.head(last(through(embedded(model, tokens), layers)))
    )


class Added(nn.Module):
    """residual + f(x): a branch as BLOOM's blocks expect it; attention comes with its weights."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor, residual: Tensor, **arguments: Any) -> Any:
        out = residual + self.branch(x)
        return (out, None) if arguments else out


def test_blooms_residual_after_the_norm_is_post_ln_with_a_norm_on_the_embeddings() -> None:
    """apply_residual_connection_post_layernorm, as in Megatron: n = N x; h = n + A n; ...

    BLOOM norms its embeddings once more before; a final norm, which is the last block's here.
    """
    from transformers.models.bloom.modeling_bloom import BloomBlock, BloomConfig

    model = with_norm_on_embeddings(made("post_ln"))
    config = BloomConfig(
        hidden_size=12, n_layer=4, n_head=3, apply_residual_connection_post_layernorm=True
    )
    *before, last = shifted_norms(model)
    layers: list[nn.Module] = []
    for block, norm in zip(model.blocks, before, strict=True):
        with torch.device("meta"):
            layer = BloomBlock(config, len(layers))
        layer.self_attention, layer.mlp = Added(block.attention), Added(block.feed_forward)
        layer.input_layernorm, layer.post_attention_layernorm = norm, block.norm_1
        layers.append(layer)
    arguments = {"alibi": None, "attention_mask": None}
    assert_same_function(
        model,
        lambda tokens: model.head(last(through(embedded(model, tokens), layers, **arguments))),
    )


def test_peri_ln_without_the_norm_on_the_embeddings_is_sandwich() -> None:
    model = made("peri_ln")
    assert_same_function(model, with_parameters_of(model, made("sandwich")))


def test_admin_is_post_ln_until_it_has_seen_data() -> None:
    model = made("admin")
    own = ("weight_1", "weight_2")
    start = GPT(model.config)
    for name, parameter in model.named_parameters():
        if name.endswith(own):
            nn.init.ones_(parameter)
            assert torch.equal(parameter.float(), start.get_parameter(name))
    assert_same_function(model, with_parameters_of(model, made("post_ln")), own)


@pytest.mark.parametrize(("fraction", "other"), [(0.0, "pre_ln"), (1.0, "post_ln")])
def test_mix_ln_at_its_ends(fraction: float, other: str) -> None:
    """At 0 pre_ln; at 1 post_ln with a final norm."""
    model = made("mix_ln", {"norm.options.fraction": fraction})
    assert_same_function(model, with_parameters_of(model, made(other, {"norm.final": True})))
