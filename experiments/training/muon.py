"""Muon for the matrices of the blocks, and AdamW for all else, as one optimizer."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

Group = dict[str, Any]


class MuonAndAdamW(torch.optim.Optimizer):
    """W <- W - lr (decay W + 0.2 sqrt(max(n_out, n_in)) O) for each matrix W (n_out, n_in), with
    M <- momentum M + (1 - momentum) G and O = U V^T of (1 - momentum) G + momentum M = U S V^T.

    O is approximate, taken in bf16 by five steps of Newton and Schulz, as `torch.optim.Muon` does.
    Its factor makes the root mean square of an update 0.2 lr, about that of AdamW, so that learning
    rates and decay carry over. Jordan et al. 2024, kellerjordan.github.io/posts/muon, which leaves
    embeddings, head and vectors to AdamW and takes query, key and value apart; the factor: Liu et
    al. 2025 (Moonlight), arXiv 2502.16982.

    A parameter may hold several matrices, such as query, key and value, or the experts'. State and
    groups are by parameter, as those of any optimizer; the two inside work on them.

    matrices  views that fill the parameters of the first group, each contiguous
    hidden    the group of those parameters, with its weight_decay
    others    groups of AdamW
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        hidden: Group,
        others: list[Group],
        lr: float,
        betas: tuple[float, float],
        momentum: float,
    ) -> None:
        owners = {p.untyped_storage()._cdata: p for p in hidden["params"]}
        self.parts = [
            (owners[matrix.untyped_storage()._cdata], nn.Parameter(matrix.detach()))
            for matrix in matrices
        ]
        self.muon = torch.optim.Muon(
            [{"params": [part for _, part in self.parts]}],
            weight_decay=hidden["weight_decay"],
            momentum=momentum,
            adjust_lr_fn="match_rms_adamw",
        )
        self.adamw = torch.optim.AdamW(others, lr=lr, betas=betas, fused=True)
        super().__init__([hidden, *self.adamw.param_groups], {"lr": lr})
        self.share()

    def share(self) -> None:
        """Let AdamW work on this optimizer's state and groups."""
        self.adamw.__setstate__({"state": self.state, "param_groups": self.param_groups[1:]})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As of any optimizer, which replaces state and groups."""
        super().load_state_dict(state_dict)
        self.share()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update each parameter by its gradient."""
        for parameter, part in self.parts:
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            assert parameter.grad is not None
            part.grad = within(parameter.grad, part)
            self.muon.state[part]["momentum_buffer"] = within(state["momentum_buffer"], part)
        self.muon.param_groups[0]["lr"] = self.param_groups[0]["lr"]
        self.muon.step()
        self.muon.zero_grad()  # or its views would keep the gradients' memory
        self.adamw.step()


def within(whole: Tensor, part: Tensor) -> Tensor:
    """Where `part` lies in its parameter, of a tensor of that parameter's shape, as a view."""
    return whole.view(-1).narrow(0, part.storage_offset(), part.numel()).view(part.shape)
