"""A model's kernels as PyTorch's compiler makes them."""

import os
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from experiments.machine.console import one_line
from experiments.machine.files import typed_path
from experiments.settings.schema import Settings
from gpt import GPT, ConfigError


def compiled_features(model: GPT, settings: Settings) -> Callable[[Tensor], Tensor]:
    """`model.features`, compiled when it is first called; what was compiled is kept on disk.

    Raises ConfigError where nothing can be compiled, as without a C++ compiler for a CPU.
    """
    folder = typed_path(settings.data.cache_dir) / "compiled"
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    # Its advice is about its own choices, or about trainer.precision=tf32.
    warnings.filterwarnings("ignore", module=r"torch\._(inductor|dynamo)")
    device = model.head.weight.device
    torch.compiler.reset()  # of all models together few are compiled, and the others are not
    try:
        torch.compile(torch.neg)(torch.ones(8, device=device))
    except Exception as error:  # of whichever compiler it is
        reason = one_line(error).split(" Set TORCHDYNAMO_VERBOSE")[0][:300]
        valid = f"PyTorch cannot compile here, take trainer.compile=false ({reason})"
        raise ConfigError("trainer.compile", True, valid) from error
    # On a GPU small kernels take less time than the calls that start them: those are recorded once.
    mode = "reduce-overhead" if device.type == "cuda" else None
    features: Callable[[Tensor], Tensor] = torch.compile(model.features, dynamic=False, mode=mode)
    return features
