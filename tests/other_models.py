"""Other people's models, small and random, each with a loss."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from x_transformers import Decoder, TransformerWrapper

LAYERS = 3
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "vocab_size": 11,
    "max_position_embeddings": 16,
}
TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def gpt2(**options: object) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=11, n_positions=16, n_embd=16, n_layer=LAYERS, n_head=2, **TOKENS, **options
    )
    return GPT2LMHeadModel(config)


def llama(**options: object) -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**SIZES, **TOKENS, **options))


def encoder(norm_first: bool = False) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
    return nn.TransformerEncoder(
        layer, LAYERS, nn.LayerNorm(16) if norm_first else None, enable_nested_tensor=False
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "gpt2": gpt2,
    "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, **TOKENS)),
    "llama": llama,
    "qwen": lambda: Qwen3ForCausalLM(
        Qwen3Config(**SIZES, **TOKENS, num_key_value_heads=1, head_dim=8)
    ),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(**SIZES | {"ffn_dim": 32, "word_embed_proj_dim": 16} | TOKENS)
    ),
    "bert": lambda: BertForMaskedLM(BertConfig(**SIZES, **TOKENS)),
    "encoder": encoder,
    "encoder, norm first": lambda: encoder(norm_first=True),
    "x-transformers": lambda: TransformerWrapper(
        num_tokens=11, max_seq_len=8, attn_layers=Decoder(dim=16, depth=LAYERS, heads=2)
    ),
}
CALLED = [name for name in MODELS if name != "x-transformers"]  # whose blocks have a `forward`


def batch_for(model: nn.Module) -> Tensor:
    """Tokens (2, 8), or vectors (2, 8, 16) for an encoder without embeddings."""
    random = torch.Generator().manual_seed(1)
    if isinstance(model, nn.TransformerEncoder):
        return torch.randn(2, 8, 16, generator=random)
    return torch.randint(0, 11, (2, 8), generator=random)


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    out = model(x)
    if isinstance(model, nn.TransformerEncoder):
        return (out - 1).pow(2)[..., 0].mean()  # not constant behind a norm
    logits = out if isinstance(out, Tensor) else out.logits
    return nn.functional.cross_entropy(logits.flatten(0, 1), x.flatten())
