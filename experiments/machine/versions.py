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


def version_of(package: str) -> str | None:
    """A package's version; None where its files are there and it was never installed by a tool."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Each version by name, as summary.json has them."""
    installed = {package: version_of(package) for package in PACKAGES}
    packages = {package: version for package, version in installed.items() if version is not None}
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        **packages,
        "torch": str(torch.__version__),  # the installed build, such as 2.13.0+cpu
    }
