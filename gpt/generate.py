"""Writing text, one token at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt.cache import LayerCache, Reading
from gpt.checks import Valid, check_value
from gpt.model import GPT
from gpt.registry import ConfigError

Rows = list[list[int]]
Prompts = TypeVar("Prompts", Tensor, Rows)
OnToken = Callable[[int, int], object]
Kept = tuple[Reading, list[LayerCache]]


@torch.no_grad()
def generate(
    model: GPT,
    tokens: Prompts,
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    end: int | None = None,
    on_token: OnToken | None = None,
    cache: bool = True,
) -> Prompts:
    """Continue each row by at most max_new_tokens.

    tokens       (B, T), which gives (B, T + max_new_tokens); or a list of rows of any lengths,
                 which gives such a list. A row gives what it gives alone.
    temperature  0 takes the most likely token (greedy); otherwise logits are divided by it and
                 the next token is drawn from their softmax
    top_k        draw among the k most likely tokens only
    top_p        draw among the fewest of the most likely tokens that have this probability
                 together, at the temperature and among the k. Holtzman et al. 2019 (nucleus
                 sampling), arXiv 1904.09751
    seed         of each row's draws; the global random state is neither read nor changed when given
    end          the token after which a row stops; in (B, T + max_new_tokens) it fills the rest
    on_token     called with a row's number and its next token, as soon as that is known
    cache        whether keys and values are kept; without, each step reads the whole text again

    The model sees the last context_length tokens: of a text that outgrows them all places change
    at each step, so that nothing can be kept. Nor can it without a causal mask. The model runs in
    eval mode and is left as it was. Raises ConfigError for an empty prompt, an option out of range,
    or weights that give NaN or infinity.
    """
    check_value("max_new_tokens", max_new_tokens, int, Valid(at_least=0))
    check_value("temperature", temperature, float, Valid(at_least=0))
    check_value("top_k", top_k, int | None, Valid(at_least=1))
    check_value("top_p", top_p, float | None, Valid(above=0, at_most=1))
    check_value("end", end, int | None, Valid(at_least=0, at_most=model.config.vocab_size - 1))
    rows = prompt_rows(tokens)
    device = model.head.weight.device
    randoms = None
    if seed is not None:
        randoms = [torch.Generator(device=device).manual_seed(seed) for _ in rows]
    with eval_mode(model):
        reader = Reader(model, rows, max_new_tokens, device, cache)
        writing = set(range(len(rows)))
        for _ in range(max_new_tokens):
            logits = reader.logits()
            if not logits.isfinite().all():
                valid = "must be finite, which the weights of this model do not let them be"
                raise ConfigError("logits", logits.sum().item(), valid)
            chosen = choose(logits, temperature, top_k, top_p, randoms)
            reader.append(chosen)
            for row, token in enumerate(chosen.flatten().tolist()):
                if row in writing:
                    rows[row].append(token)
                    if token == end:
                        writing.remove(row)
                    if on_token is not None:
                        on_token(row, token)
            if not writing:
                break
    if not isinstance(tokens, Tensor):
        return rows
    length = tokens.shape[1] + max_new_tokens
    # A row is shorter only where an `end` was given.
    filled = [row + [end or 0] * (length - len(row)) for row in rows]
    return torch.tensor(filled, dtype=tokens.dtype, device=device)


def prompt_rows(tokens: Tensor | Rows) -> Rows:
    """A copy of the prompts as lists; ConfigError where one is empty."""
    if isinstance(tokens, Tensor):
        if tokens.ndim != 2 or 0 in tokens.shape:
            valid = "must be (B, T) with B and T of at least 1"
            raise ConfigError("tokens", list(tokens.shape), valid)
        return tokens.tolist()
    rows = [list(row) for row in tokens]
    if not rows or not all(rows):
        raise ConfigError("tokens", rows, "must be rows of at least 1 token each")
    return rows


@contextmanager
def eval_mode(model: GPT) -> Iterator[None]:
    """Within: the model computes as in use; then each of its modules is in its mode as before."""
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        yield
    finally:
        for module in training:
            module.training = True


class Reader:
    """What a model expects after texts that grow, of which it sees the last context_length tokens.

    Texts of unequal length begin after padding, which none of them sees.

    window   the tokens that the model sees, (B, S)
    padding  how many of them come before each text
    kept     what the model knows of those that it has read; None: it reads them all at each step
    """

    def __init__(
        self, model: GPT, rows: Rows, growth: int, device: torch.device, cache: bool = True
    ) -> None:
        """At the end of the prompts `rows`, which grow by at most `growth` tokens."""
        self.model = model
        longest, most = max(map(len, rows)), model.config.context_length
        self.padding = [longest - len(row) for row in rows]
        padded = [[0] * before + list(row) for before, row in zip(self.padding, rows, strict=True)]
        self.window = torch.tensor(padded, device=device)
        self.kept: Kept | None = None
        if cache and longest <= most and model.config.attention.causal:
            self.kept = self.nothing_read(min(longest + growth, most))
        self.crop()

    def nothing_read(self, capacity: int) -> Kept:
        """What the model knows at the start, with memory for `capacity` tokens of each row."""
        reading = Reading(self.padding, capacity, self.window.device)
        return reading, [LayerCache(reading) for _ in self.model.blocks]

    def append(self, tokens: Tensor) -> None:
        """Add one token, (B, 1), to each text."""
        self.window = torch.cat((self.window, tokens), dim=1)
        self.crop()

    def crop(self) -> None:
        """Leave out what lies before the last context_length tokens; then all places are others."""
        excess = self.window.shape[1] - self.model.config.context_length
        if excess > 0:
            self.window = self.window[:, excess:]
            self.padding = [max(0, before - excess) for before in self.padding]
            self.kept = None

    def logits(self) -> Tensor:
        """Of the token that follows each text, (B, vocab_size)."""
        kept = self.kept
        if kept is None and any(self.padding):
            kept = self.nothing_read(self.window.shape[1])
        unread = self.window
        if kept is not None:
            reading, _ = kept
            unread = unread[:, reading.stop :]
            reading.advance(unread.shape[1])
        with attached(self.model, kept):
            logits: Tensor = self.model.head(self.model.features(unread)[:, -1])
        return logits


@contextmanager
def attached(model: GPT, kept: Kept | None) -> Iterator[None]:
    """Within: the model goes on where it has stopped reading; None: it knows nothing."""
    if kept is None:
        yield
        return
    model.reading, caches = kept
    try:
        for block, cache in zip(model.blocks, caches, strict=True):
            block.attention.cache = cache
        yield
    finally:
        model.reading = None
        for block in model.blocks:
            block.attention.cache = None


def choose(
    logits: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    randoms: Sequence[torch.Generator] | None,
) -> Tensor:
    """The next token of each row, (B, 1), from logits (B, vocab_size)."""
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    if top_k is not None and top_k < logits.shape[-1]:
        kept = logits.topk(top_k, dim=-1)
        logits = torch.full_like(logits, float("-inf")).scatter(-1, kept.indices, kept.values)
    # A temperature that the logits' type does not have would divide by zero or infinity.
    limits = torch.finfo(logits.dtype)
    temperature = min(max(temperature, limits.tiny), limits.max)
    # The largest logit as zero, so that no temperature makes it infinite.
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    shares = scaled.softmax(dim=-1)
    if top_p is not None and top_p < 1:
        shares = nucleus(shares, top_p)
    if randoms is None:
        return torch.multinomial(shares, 1)
    each = zip(shares.split(1), randoms, strict=True)
    return torch.cat([torch.multinomial(row, 1, generator=random) for row, random in each])


def nucleus(shares: Tensor, top_p: float) -> Tensor:
    """Probabilities (B, V), 0 but for the most likely, the fewest with top_p together."""
    ordered, tokens = shares.sort(dim=-1, descending=True, stable=True)
    before = F.pad(ordered.cumsum(dim=-1)[..., :-1], (1, 0))  # together, of those before each
    return torch.zeros_like(shares).scatter(
        -1, tokens, ordered.where((before < top_p) | (before == 0), 0.0)
    )
