"""What is measured inside a model: gradients, weights, updates, activations.

Each measurement is a row (layer, component, stat, value), with layer and component as in
`gpt.parameters.Place`. The probes know models; they know nothing of files.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from experiments.records import Row
from gpt import GPT
from gpt.attention import SelfAttention
from gpt.parameters import Place, places


class ParameterNorms:
    """Frobenius norms of tensors that stand for the parameters, per component and block.

    One fused call takes the norms of all tensors; they stay on the device until their copy on the
    host is asked for. `rows` takes that copy.
    """

    def __init__(self, model: GPT) -> None:
        self.places: list[Place] = list(places(model))
        self.parameters: list[nn.Parameter] = [place.parameter for place in self.places]
        keys: dict[tuple[int, str], list[int]] = {}
        for index, place in enumerate(self.places):
            keys.setdefault((place.layer, place.component), []).append(index)
            if 0 <= place.layer < len(model.blocks):
                keys.setdefault((place.layer, "block"), []).append(index)
        self.groups = keys
        sizes = np.array([parameter.numel() for parameter in self.parameters])
        self.counts = {key: int(sizes[members].sum()) for key, members in keys.items()}

    @torch.no_grad()
    def measure(self, tensors: list[Tensor]) -> Tensor:
        """Norm of each tensor, (number of tensors,), on their device; float32 or wider."""
        dtype = torch.promote_types(tensors[0].dtype, torch.float32)
        return torch.stack(torch._foreach_norm(tensors, 2, dtype=dtype))

    def gradients(self) -> Tensor:
        """Norm of each parameter's gradient, after accumulation and before clipping."""
        return self.measure(self._gradients())

    def gradients_on_host(self, norms: Tensor) -> Tensor:
        """Copy `norms`, as `gradients` gave them, to the host in float64.

        The gradients must still be there: where squares in float32 fell to zero or rose to
        infinity, the norm is taken again in float64.
        """
        return self._exact(norms.cpu().double(), self._gradients())

    def on_host(self, tensors: list[Tensor]) -> Tensor:
        """Norm of each tensor in float64 on the host."""
        return self._exact(self.measure(tensors).cpu().double(), tensors)

    def _gradients(self) -> list[Tensor]:
        # A parameter that had no part in the loss has a gradient of zero.
        return [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for parameter in self.parameters
        ]

    @staticmethod
    def _exact(norms: Tensor, tensors: list[Tensor]) -> Tensor:
        for index in torch.nonzero((norms == 0) | ~norms.isfinite()).flatten().tolist():
            norms[index] = tensors[index].detach().cpu().double().norm()
        return norms

    def rows(self, norms: Tensor, stat: str) -> list[Row]:
        """The norm of each component and block: the root of its tensors' summed squares."""
        squares = norms.numpy() ** 2
        return [
            Row(layer, component, stat, math.sqrt(squares[members].sum()))
            for (layer, component), members in self.groups.items()
        ]

    def gradient_rows(self, norms: Tensor) -> list[Row]:
        """Per component and block: `grad_norm`, and `grad_rms` = grad_norm / sqrt(count).

        The norm grows with the number of parameters; the root mean square does not.
        """
        rows = self.rows(norms, "grad_norm")
        rms = [
            Row(layer, component, "grad_rms", norm / math.sqrt(self.counts[layer, component]))
            for layer, component, _, norm in rows
        ]
        return rows + rms


class UpdateProbe:
    """Weight norms, and norm(W after - W before) / norm(W before) over one optimizer step.

    Holds a copy of the parameters between `before` and `after`.
    """

    def __init__(self, norms: ParameterNorms) -> None:
        self.norms = norms
        self.old: list[Tensor] = []

    def before(self) -> None:
        self.old = [parameter.detach().clone() for parameter in self.norms.parameters]

    def after(self) -> list[Row]:
        new = [parameter.detach() for parameter in self.norms.parameters]
        weight_norms = self.norms.on_host(self.old)
        changes = self.norms.on_host(list(torch._foreach_sub(new, self.old)))
        self.old = []
        weights = self.norms.rows(weight_norms, "weight_norm")
        ratios = [
            Row(layer, component, "update_ratio", change / weight)
            for (layer, component, _, weight), (_, _, _, change) in zip(
                weights, self.norms.rows(changes, "change"), strict=True
            )
            if weight > 0  # a weight of zero has no ratio
        ]
        return weights + ratios


def stream_rows(
    model: GPT, loss_of: Callable[[Tensor, Tensor], Tensor], tokens: Tensor, targets: Tensor
) -> list[Row]:
    """Activations and stream gradients of one batch, (B, T) tokens and targets, in eval mode.

    For each block's `input`, `attention` and `feed_forward` (the branches' outputs) and `output`:
    `activation_rms`, the root mean square, and `activation_max`, the largest magnitude. For
    input and output: `stream_grad_norm`, the Frobenius norm of the mean loss's gradient with
    respect to the stream there. For attention: `attention_max_logit`, the largest logit before
    the softmax, and `attention_entropy`, the mean over heads and rows of
    -sum p ln p / ln(number of visible tokens), from 0 (one token) to 1 (uniform); the first row,
    which sees one token, is left out.

    Parameters' gradients, the random state and the model's mode are left as they were.
    """
    if not model.blocks:
        return []
    stream: dict[tuple[int, str], Tensor] = {}
    values: dict[tuple[int, str, str], Tensor] = {}
    handles: list[RemovableHandle] = []

    def keep(layer: int, part: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            state = inputs[0] if part == "input" else output
            tensor = model.blocks[layer].stream(state) if part in ("input", "output") else state
            if part in ("input", "output"):
                stream[layer, part] = tensor
            with torch.no_grad():
                values[layer, part, "activation_rms"] = norm(tensor) / tensor.numel() ** 0.5
                values[layer, part, "activation_max"] = tensor.float().abs().max()

        return hook

    def watch_attention(layer: int) -> Callable[..., None]:
        @torch.no_grad()
        def hook(module: SelfAttention, inputs: tuple[Tensor], output: Tensor) -> None:
            logits, weights = module.scores(inputs[0])
            values[layer, "attention", "attention_max_logit"] = logits.float().max()
            values[layer, "attention", "attention_entropy"] = relative_entropy(weights.float())

        return hook

    for layer, block in enumerate(model.blocks):
        handles += [
            block.register_forward_hook(keep(layer, "input")),
            block.attention.register_forward_hook(keep(layer, "attention")),
            block.attention.register_forward_hook(watch_attention(layer)),
            block.feed_forward.register_forward_hook(keep(layer, "feed_forward")),
            block.register_forward_hook(keep(layer, "output")),
        ]
    was_training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            loss = loss_of(tokens, targets)
        # With shortcuts off and a dead branch, a stream may have no path to the loss.
        grads = torch.autograd.grad(loss, list(stream.values()), allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    for (layer, part), grad in zip(stream, grads, strict=True):
        if grad is not None:
            values[layer, part, "stream_grad_norm"] = norm(grad)
    numbers = torch.stack(list(values.values())).tolist()
    return [Row(*key, value) for key, value in zip(values, numbers, strict=True)]


def norm(x: Tensor) -> Tensor:
    """Frobenius norm in float32, scaled by the largest magnitude so that no square leaves it."""
    largest = x.float().abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return largest * (x.float() / largest).norm()


def relative_entropy(weights: Tensor) -> Tensor:
    """Mean over all rows but the first of -sum p ln p / ln(visible), of weights (..., T, T).

    Causal: row t sees t + 1 tokens. nan when T is 1.
    """
    visible = torch.arange(1, weights.shape[-1] + 1, device=weights.device)
    entropy = torch.special.entr(weights).sum(dim=-1)
    return (entropy / visible.log())[..., 1:].mean()
