"""Every norm placement, one small class per equation.

Notation: x is the block's input, N a norm (each with its own parameters), A attention,
F feed-forward, h the stream between them. Inputs and outputs are (B, T, emb_dim).
`shortcut(x)` is x, or zero when shortcuts are off.
"""

from torch import Tensor

from gpt.block import Block
from gpt.registry import Registry

PLACEMENTS: Registry[type[Block]] = Registry("placement")


@PLACEMENTS("pre_ln")
class PreLN(Block):
    """h = x + A(N x); out = h + F(N h); a final norm before the head.

    Xiong et al. 2020, arXiv 2002.04745.
    """

    final_norm = True

    def forward(self, x: Tensor) -> Tensor:
        h = self.shortcut(x) + self.attention(self.norm_1(x))
        return self.shortcut(h) + self.feed_forward(self.norm_2(h))


@PLACEMENTS("post_ln")
class PostLN(Block):
    """h = N(x + A x); out = N(h + F h); no final norm.

    Vaswani et al. 2017, arXiv 1706.03762.
    """

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm_1(self.shortcut(x) + self.attention(x))
        return self.norm_2(self.shortcut(h) + self.feed_forward(h))


@PLACEMENTS("no_norm")
class NoNorm(Block):
    """h = x + A x; out = h + F h; no norm anywhere: the control arm."""

    norms = ()

    def forward(self, x: Tensor) -> Tensor:
        h = self.shortcut(x) + self.attention(x)
        return self.shortcut(h) + self.feed_forward(h)
