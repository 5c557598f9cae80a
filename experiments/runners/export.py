"""A run's model as a directory that other libraries read."""

import torch

from experiments.machine.console import print_line
from experiments.records.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings.schema import Settings
from experiments.settings.weights import TOKENIZER
from experiments.training.checkpoint import load_model
from experiments.training.weights import fitting_family, write_weights
from gpt import ConfigError
from gpt.registry import FAMILIES

FOLDER = "model"


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """Write config.json, safetensors and, where the tokenizer was published, tokenizer.json."""
    options = settings.export
    if options.checkpoint is None:
        valid = "must name a run directory or its checkpoint.pt"
        raise ConfigError("export.checkpoint", None, valid)
    model, tokenizer = load_model(
        options.checkpoint, torch.device("cpu"), setting="export.checkpoint"
    )
    family = fitting_family(model.config, FAMILIES, options.family)
    folder = recorder.directory / FOLDER
    folder.mkdir(exist_ok=True)
    files = write_weights(model, family, folder, getattr(torch, options.dtype))
    content = tokenizer.state().get("content")
    if content is not None:
        (folder / TOKENIZER).write_text(content, encoding="utf-8")
    else:
        chosen = f"tokenizer={tokenizer.name}"
        print_line(
            f"{FOLDER}/ has no tokenizer.json, since {chosen} is not one of the Hub: "
            f"give {chosen} when it is loaded"
        )
    size = sum(path.stat().st_size for path in files)
    return Outcome(
        results={
            "family": family.model_type,
            "directory": str(folder),
            "bytes": f"{size:,}",
        },
        finding=f"the model is now in the files of {family.model_type}, which transformers reads",
    )
