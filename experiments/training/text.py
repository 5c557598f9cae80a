"""The text that a model writes, after training or from a checkpoint."""

import codecs
import time
from collections.abc import Callable
from dataclasses import dataclass

from experiments.data.corpus import Corpus
from experiments.data.tokenizer import Tokenizer
from experiments.records.recorder import Recorder
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


@dataclass(frozen=True)
class Sample:
    """A prompt as text, what the model continued, and how fast."""

    prompt: str
    continued: str
    speed: str


def write_sample(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: list[int],
    settings: Settings,
    recorder: Recorder,
    show: Callable[[str], None] = lambda piece: None,
) -> Sample:
    """Continue the prompt; sample.txt takes both.

    show  called with each piece of the text, the prompt first, as soon as its characters are whole
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def tell(ids: list[int]) -> None:
        show(decoder.decode(tokenizer.to_bytes(ids)))

    options = settings.generate
    tell(prompt)
    began = time.perf_counter()
    (ids,) = continue_tokens(
        model,
        [prompt],
        options.tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        seed=settings.seed,
        on_token=lambda row, token: tell([token]),
    )
    seconds = time.perf_counter() - began
    show(decoder.decode(b"", final=True))
    recorder.text("sample.txt", tokenizer.decode(ids) + "\n")
    new = ids[len(prompt) :]
    speed = f"{len(prompt)} prompt tokens and {len(new)} new ones in {seconds:.2f} s"
    if new:
        speed += f", {len(new) / seconds:.3g} new tokens/s"
    return Sample(tokenizer.decode(prompt), tokenizer.decode(new), speed)
