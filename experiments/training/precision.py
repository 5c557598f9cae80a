"""In which types a run computes, and what that asks of the device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from experiments.settings.schema import Settings
from gpt import ConfigError, GPTConfig
from gpt.attention import MULTIPLIES_BF16

# Of the matrix products under autocast; parameters, norms and the softmax stay in float32.
PRODUCTS = {"bf16": torch.bfloat16, "fp16": torch.float16}
AMPERE = (8, 0)  # the first NVIDIA GPUs that multiply tf32 and bf16
WIDE_ENOUGH = 256  # emb_dim from which bf16 on a processor that multiplies it saves more than casts


@contextmanager
def parameter_precision(settings: Settings) -> Iterator[None]:
    """Within: new parameters are float64 where that is the run's precision, else float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if settings.trainer.precision == "float64" else before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def float32_products(settings: Settings) -> Iterator[None]:
    """Within: float32 matrices are multiplied as such, or under tf32 with 10 bits of mantissa."""
    before = torch.get_float32_matmul_precision()
    is_tf32 = settings.trainer.precision == "tf32"
    torch.set_float32_matmul_precision("high" if is_tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ConfigError for a precision that the device does not have."""
    reason = ""
    if precision == "float64" and device.type == "mps":
        reason = "an Apple GPU has none; device=cpu does"
    if precision == "tf32" and not (device.type == "cuda" and is_ampere()):
        reason = "is of NVIDIA GPUs since Ampere alone; take float32 or bf16"
    if reason:
        raise ConfigError("trainer.precision", precision, reason)


def is_ampere() -> bool:
    """Whether the NVIDIA GPU is of that generation or a later one."""
    return torch.cuda.get_device_capability() >= AMPERE


def faster_precision(precision: str, config: GPTConfig, device: torch.device) -> str | None:
    """What to suggest, in a line, to a run in float32; None where nothing is known to be faster.

    Where docs/performance.md has measured it: on processors with units for bf16 matrices, and on
    NVIDIA GPUs since Ampere, for models that are wide enough.
    """
    if precision != "float32" or config.emb_dim < WIDE_ENOUGH:
        return None
    if device.type == "cuda" and is_ampere():
        return "this GPU multiplies bf16 matrices several times as fast: trainer.precision=bf16"
    if device.type == "cpu" and MULTIPLIES_BF16:
        return "this processor multiplies bf16 matrices faster: trainer.precision=bf16"
    return None
