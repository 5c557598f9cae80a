"""What a placement puts inside the branches."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Inside:
    """The slots of attention and feed-forward, each filled or empty.

    query, key, value  a norm on each head's, of width head_dim, shared by the heads; on query and
                       key over all heads together where the config says norm.qk=projection
    head_scale         a learned scalar on what each head reads, at first 1
    heads              a norm on all heads together before the output weights, of width emb_dim
    hidden             a norm on the feed-forward's hidden side, of width ff_dim
    """

    query: bool = False
    key: bool = False
    value: bool = False
    head_scale: bool = False
    heads: bool = False
    hidden: bool = False


NOTHING = Inside()
