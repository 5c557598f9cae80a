"""The versions that a run records: of packages and Python; the machine and its threads."""

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
    """Each version by name, as summary.json has them."""
    packages = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        **packages,
        "torch": str(torch.__version__),  # the installed build, such as 2.13.0+cpu
    }
