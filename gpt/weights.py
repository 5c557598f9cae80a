"""How many parameters there are, in closed form."""

from gpt.config import GPTConfig
from gpt.norm import norm_count
from gpt.registry import PLACEMENTS


def closed_form(config: GPTConfig) -> int:
    """The number of parameters from the sizes alone, without building anything.

    V d + T d for the embeddings; for each block what its branches and norms `count`; the final
    norm; V d for a head that is not tied. V vocab_size, T context_length, d emb_dim.
    """
    d = config.emb_dim
    placement = PLACEMENTS[config.norm.placement]
    embeddings = (config.vocab_size + config.context_length) * d + placement.entry_count(config)
    blocks = config.n_layers * placement.count(config)
    final = placement.has_final_norm(config) * norm_count(config.norm.kind, d)
    return embeddings + blocks + final + (0 if config.tie_head else config.vocab_size * d)
