"""Text from a checkpoint and a prompt."""

from experiments.machine.device import pick_device
from experiments.records.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings.schema import Settings
from experiments.training.checkpoint import load_model
from experiments.training.text import prompt_tokens, write_sample
from gpt import ConfigError


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """Continue `generate.prompt` with the model of `generate.checkpoint`; leaves sample.txt."""
    model, tokenizer = load_model(settings.generate.checkpoint, pick_device(settings.device))
    if settings.generate.prompt is None:
        raise ConfigError("generate.prompt", None, "must be the text to continue")
    prompt = prompt_tokens(settings.generate, tokenizer)
    outcome = Outcome()
    write_sample(model, tokenizer, prompt, settings, recorder, outcome)
    return outcome
