"""The versions that a run records: of packages and Python; the machine, its threads, its GPU."""

import functools
import importlib.metadata
import platform
import tomllib
from contextlib import suppress
from pathlib import Path

import torch

PROJECT = Path(__file__).parents[2] / "pyproject.toml"  # of a checkout
PACKAGES = (
    "torch",
    "hydra-core",
    "wandb",
    "tiktoken",
    "numpy",
    "pandas",
    "matplotlib",
)


def versions(device: str | None = None) -> dict[str, str]:
    """Each version by name, as summary.json has them; without packages that tell none.

    device  on which the run computes; of cuda the GPU's model is told
    """
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device and "cuda" in device else {}
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        **gpu,
        **_own_version(),
        **_installed(PACKAGES),
        "torch": str(torch.__version__),  # the installed build, such as 2.13.0+cpu
    }


def _own_version() -> dict[str, str]:
    """The version of the code that runs.

    In a checkout pyproject.toml has it: pip knows the version that it once installed from there, or
    none where it installed only the other packages.
    """
    if not PROJECT.is_file():
        return _installed(("normscope",))
    return {"normscope": tomllib.loads(PROJECT.read_text())["project"]["version"]}


@functools.cache
def _installed(packages: tuple[str, ...]) -> dict[str, str]:
    """The versions that pip knows, read from its files once."""
    found = {}
    for package in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
