"""Checkpoints: everything that a run needs to go on, or to write text, in one file."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from experiments.console import one_line
from experiments.files import atomic_file
from experiments.tokenizer import TOKENIZERS, Tokenizer
from gpt import GPT, ConfigError, GPTConfig


def save_checkpoint(
    path: Path,
    model: GPT,
    tokenizer: Tokenizer,
    optimizer: torch.optim.Optimizer,
    step: int,
    settings: dict[str, Any],
) -> None:
    """Write the state after `step` updates; whoever reads sees all of it or the one before."""
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state()
    state = {
        "model": model.state_dict(),
        "model_config": dataclasses.asdict(model.config),
        "optimizer": optimizer.state_dict(),
        "random": random,
        "step": step,
        "tokenizer": {"name": tokenizer.name, "state": tokenizer.state()},
        "settings": settings,
    }
    with atomic_file(path) as file:
        torch.save(state, file)


def load_model(path: str | None, device: torch.device) -> tuple[GPT, Tokenizer]:
    """The model and tokenizer of a checkpoint file, or of the run directory that holds one.

    Raises ConfigError where there is none or it cannot be read. Nothing in the file is executed.
    """
    if path is None:
        raise ConfigError(
            "generate.checkpoint", None, "must name a run directory or its checkpoint.pt"
        )
    file = Path(path).expanduser()
    if file.is_dir():
        file = file / "checkpoint.pt"
    if not file.is_file():
        raise ConfigError(
            "generate.checkpoint", path, "must name a run directory that holds a checkpoint.pt"
        )
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        model = GPT(GPTConfig(**state["model_config"]))
        model.load_state_dict(state["model"])
        stored = state["tokenizer"]
        tokenizer = TOKENIZERS[stored["name"]].restore(stored["state"])
    except Exception as error:  # torch.load has no exception of its own for a foreign file
        raise ConfigError(
            "generate.checkpoint", path, f"is not a checkpoint of this project ({one_line(error)})"
        ) from error
    return model.to(device), tokenizer
