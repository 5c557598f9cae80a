"""The text that a model writes, after training or from a checkpoint."""

import torch
from torch import Tensor

from experiments.data.corpus import Corpus
from experiments.data.tokenizer import Tokenizer
from experiments.records.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings.schema import GenerateSettings, Settings
from gpt import GPT, ConfigError
from gpt import generate as continue_tokens

PROMPT_TOKENS = 16  # of the validation text, where no prompt is given


def prompt_tokens(
    settings: GenerateSettings, tokenizer: Tokenizer, corpus: Corpus | None = None
) -> list[int]:
    """The prompt as ids; without one, the first words of the validation text."""
    if settings.prompt is None and corpus is not None:
        return corpus.validation[:PROMPT_TOKENS].tolist()
    ids = tokenizer.encode(settings.prompt or "")
    if not ids:
        raise ConfigError("generate.prompt", settings.prompt, "must have at least one token")
    return ids


def write_sample(
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
