"""Text from a checkpoint and a prompt."""

import torch
from torch import Tensor

from experiments.checkpoint import load_model
from experiments.data import Corpus
from experiments.device import pick_device
from experiments.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings import GenerateSettings, Settings
from experiments.tokenizer import Tokenizer
from gpt import GPT, ConfigError
from gpt import generate as continue_tokens

PROMPT_TOKENS = 16  # of the validation text, where no prompt is given


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """Continue `generate.prompt` with the model of `generate.checkpoint`; leaves sample.txt."""
    if settings.generate.prompt is None:
        raise ConfigError("generate.prompt", None, "must be the text to continue")
    model, tokenizer = load_model(settings.generate.checkpoint, pick_device(settings.device))
    recorder.open_wandb()
    prompt = prompt_tokens(settings.generate, tokenizer)
    outcome = Outcome()
    write_text(model, tokenizer, prompt, settings, recorder, outcome)
    return outcome


def prompt_tokens(
    settings: GenerateSettings, tokenizer: Tokenizer, corpus: Corpus | None = None
) -> list[int]:
    """The prompt as ids; without one, the first words of the validation text."""
    if settings.prompt is None and corpus is not None:
        return corpus.validation[:PROMPT_TOKENS].tolist()
    ids = tokenizer.encode(settings.prompt or "")
    if not ids:
        raise ConfigError("generate.prompt", settings.prompt, "must hold at least one token")
    return ids


def write_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: list[int],
    settings: Settings,
    recorder: Recorder,
    outcome: Outcome,
) -> None:
    """Continue the prompt; the outcome takes both parts, sample.txt the whole."""
    options = settings.generate
    device = next(model.parameters()).device
    tokens: Tensor = continue_tokens(
        model,
        torch.tensor([prompt], device=device),
        options.tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        seed=settings.seed,
    )
    ids = tokens[0].tolist()
    outcome.prompt = tokenizer.decode(ids[: len(prompt)])
    outcome.sample = tokenizer.decode(ids[len(prompt) :])
    recorder.text("sample.txt", tokenizer.decode(ids) + "\n")
