"""What computes the numbers: packages, Python, machine, threads."""

import importlib.metadata
import platform

import torch

PACKAGES = (
    "normscope",
    "torch",
    "hydra-core",
    "wandb",
    "tiktoken",
    "numpy",
    "pandas",
    "matplotlib",
)


def versions() -> dict[str, str]:
    """What computed the numbers."""
    packages = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        **packages,
        "torch": str(torch.__version__),  # with the kind of build
    }
