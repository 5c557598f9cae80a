"""Activations of the feed-forward layer, elementwise on any shape."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt.registry import ACTIVATIONS


@ACTIVATIONS("gelu")
def gelu(x: Tensor) -> Tensor:
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), the form that GPT-2 uses.

    Hendrycks and Gimpel 2016, arXiv 1606.08415.
    """
    return F.gelu(x, approximate="tanh")


@ACTIVATIONS("gelu_exact")
def gelu_exact(x: Tensor) -> Tensor:
    """x Phi(x), with Phi the standard normal distribution function. arXiv 1606.08415."""
    return F.gelu(x)


@ACTIVATIONS("relu")
def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return F.relu(x)


@ACTIVATIONS("silu")
def silu(x: Tensor) -> Tensor:
    """x / (1 + exp(-x)). Elfwing et al. 2017, arXiv 1702.03118."""
    return F.silu(x)


@ACTIVATIONS("squared_relu")
def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2. So et al. 2021 (Primer), arXiv 2109.08668."""
    return F.relu(x).square()


@ACTIVATIONS("quick_gelu")
def quick_gelu(x: Tensor) -> Tensor:
    """x / (1 + exp(-1.702 x)), an approximation of x Phi(x). arXiv 1606.08415, section 2."""
    return x * torch.sigmoid(1.702 * x)
