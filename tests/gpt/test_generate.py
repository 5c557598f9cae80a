"""Text that a model writes, with what it keeps of its tokens and without, against plain passes."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_placement import CHOICES, draw_vectors
from torch import Tensor, nn

from configs import SMALL, small_model
from gpt import GPT, PLACEMENTS, ConfigError, generate
from gpt.cache import LayerCache, Reading
from gpt.generate import Reader, choose, nucleus
from gpt.registry import PARALLEL

CPU = torch.device("cpu")
CONTEXT = SMALL.context_length
ROTARY = {"position.kind": "rotary"}
YARN = {"position.yarn.factors": [4.0], "position.yarn.original_length": 4}
# What attention, positions and the other parts can be, alone and together.
VARIANTS: list[dict[str, Any]] = [
    {"attention.kv_heads": 1},
    {"attention.windows": [3, 0]},
    {"attention.windows": [1]},
    {"attention.sinks": True},
    {"attention.head_dim": 6, "attention.scale": 0.3},
    {"attention.causal": False},
    {"position.offset": 2},
    ROTARY,
    {**ROTARY, "position.fraction": 0.5, "position.interleaved": True},
    {**ROTARY, "position.bases": [100.0, 0.0]},
    {**ROTARY, **YARN},
    {"embedding.dim": 5, "embedding.factor": 3.0},
    {"norm.qk": "projection"},
    {"experts.count": 4, "experts.active": 2},
    {"parallel.enabled": True, "parallel.shared": True},
    *({"norm.placement": name, "parallel.enabled": True} for name in PARALLEL),
]
TODAY: dict[str, Any] = {
    **ROTARY,
    **YARN,
    "attention.kv_heads": 1,
    "attention.windows": [3, 0],
    "attention.sinks": True,
    "norm.qk": True,
    "norm.kind": "rms_norm",
    "experts.count": 3,
    "experts.active": 2,
    "feed_forward.gated": True,
    "drop_rate": 0.5,  # which a model in use leaves out
}


def drawn_model(changes: dict[str, Any]) -> GPT:
    """A small model in float64, no vector of which is 0, in use."""
    model = small_model(changes)
    draw_vectors(model)
    return model.eval()


def expected_logits(model: GPT, text: list[int]) -> Tensor:
    """What the model says after a text, read whole and alone."""
    return model(torch.tensor([text[-CONTEXT:]]))[0, -1]


def plainly(model: GPT, text: list[int], count: int, pick: Callable[[Tensor], int]) -> list[int]:
    """The text continued by what `pick` takes from the logits, each time read whole and alone."""
    for _ in range(count):
        text = [*text, pick(expected_logits(model, text))]
    return text


def greedy(logits: Tensor) -> int:
    return int(logits.argmax())


def by_seed(seed: int) -> Callable[[Tensor], int]:
    random = torch.Generator().manual_seed(seed)
    return lambda logits: int(torch.multinomial((logits / 2).softmax(-1), 1, generator=random))


@torch.no_grad()
def check_logits(changes: dict[str, Any], lengths: list[int], cache: bool) -> None:
    """Texts that grow past the context in one batch are read as each is read alone."""
    model = drawn_model(changes)
    texts = torch.randint(0, 11, (len(lengths), 20)).tolist()
    prompts = [text[:length] for text, length in zip(texts, lengths, strict=True)]
    reader = Reader(model, prompts, 8, CPU, cache)
    assert (reader.kept is not None) == (
        cache and model.config.attention.causal and max(lengths) <= CONTEXT
    )
    for step in range(8):
        logits = reader.logits()
        for row, length in enumerate(lengths):
            expected = expected_logits(model, texts[row][: length + step])
            torch.testing.assert_close(logits[row], expected, atol=1e-11, rtol=1e-11)
        following = [text[length + step] for text, length in zip(texts, lengths, strict=True)]
        reader.append(torch.tensor(following)[:, None])


@pytest.mark.parametrize("choice", [*CHOICES, *VARIANTS, TODAY], ids=str)
def test_every_text_of_a_batch_is_read_as_alone_and_whole(choice: dict[str, Any]) -> None:
    check_logits(choice, [1, 5, 3], cache=True)


@pytest.mark.parametrize("lengths", [[4], [8], [2, 11], [1, 1], [8, 1]], ids=str)
@pytest.mark.parametrize("cache", [True, False])
def test_texts_of_any_length_are_read_as_alone_and_whole(lengths: list[int], cache: bool) -> None:
    check_logits(TODAY, lengths, cache)


@pytest.mark.long
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("variant", [*VARIANTS, TODAY], ids=str)
def test_every_placement_with_every_part(placement: str, variant: dict[str, Any]) -> None:
    if variant.get("parallel.enabled"):
        pytest.skip("a parallel block has a placement of its own")
    for cache in (True, False):
        check_logits({**variant, "norm.placement": placement}, [1, 5, 3], cache)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("choice", [{}, {"norm.placement": "residual_dual"}, TODAY], ids=str)
def test_tokens_in_float32_are_those_of_plain_passes(choice: dict[str, Any], cache: bool) -> None:
    """Greedy and drawn; each row of a batch as alone, past the context."""
    model = drawn_model(choice).float()
    prompts = [[1, 2, 3], [7], [4, 5, 6, 0, 9]]
    found = generate(model, prompts, 12, cache=cache)
    assert found == [plainly(model, prompt, 12, greedy) for prompt in prompts]
    found = generate(model, prompts, 12, temperature=2.0, seed=5, cache=cache)
    assert found == [plainly(model, prompt, 12, by_seed(5)) for prompt in prompts]


def test_what_was_read_is_not_read_again() -> None:
    """Until the text outgrows the context; without a cache it always is."""
    model = drawn_model(TODAY)
    read: list[int] = []
    model.token_embedding.register_forward_hook(lambda m, inputs, out: read.append(out.shape[1]))
    generate(model, [[1, 2, 3]], 8)
    assert read == [3, 1, 1, 1, 1, 1, 8, 8]
    read.clear()
    generate(model, [[1, 2, 3]], 8, cache=False)
    assert read == [3, 4, 5, 6, 7, 8, 8, 8]


def test_a_layer_reads_no_more_keys_than_its_window_holds() -> None:
    reading = Reading([0], 6, CPU)
    cache, rows = LayerCache(reading), torch.arange(6.0).view(1, 1, 6, 1)
    seen = []
    for columns in rows.split([3, 1, 2], dim=2):
        reading.advance(columns.shape[2])
        keys, values, places = cache.extend(columns, -columns, window=2)
        assert torch.equal(keys, -values)
        assert places.tolist() == [keys.flatten().tolist()]
        seen.append(places[0].tolist())
    assert seen == [[0, 1, 2], [2, 3], [3, 4, 5]]


def test_a_layer_keeps_no_more_keys_than_its_window_holds() -> None:
    """In memory of their own, however long the text was; another layer keeps all."""
    model = drawn_model({**TODAY, "context_length": 40})
    reader = Reader(model, [[1, 2, 3] * 5, [4]], 10, CPU)
    for _ in range(3):
        reader.append(reader.logits().argmax(-1, keepdim=True))
        assert reader.kept is not None
        held = [
            pair[0].untyped_storage().nbytes() for cache in reader.kept[1] if (pair := cache.pair)
        ]
        column = 2 * model.config.kv_heads * model.config.head_dim * 8
        assert held == [2 * column, 25 * column] * 2


@pytest.mark.parametrize("window", [1, 2, 5])
def test_texts_far_longer_than_a_window_are_those_of_plain_passes(window: int) -> None:
    model = drawn_model({**TODAY, "context_length": 40, "attention.windows": [window, 0]})
    prompts = [[1, 2, 3] * 5, [7], [4, 5, 6, 0, 9]]
    found = generate(model, prompts, 20)
    assert found == generate(model, prompts, 20, cache=False)
    for prompt, text in zip(prompts, found, strict=True):
        whole = model(torch.tensor([text[:-1]]))[0, len(prompt) - 1 :]
        assert text[len(prompt) :] == whole.argmax(-1).tolist()


# ---- What the model is afterwards


@pytest.fixture
def writer() -> GPT:
    torch.manual_seed(1)
    return GPT(dataclasses.replace(SMALL, n_layers=2, drop_rate=0.5))


def state_of(model: GPT) -> list[object]:
    caches = [block.attention.cache for block in model.blocks]
    modes = [(name, module.training) for name, module in model.named_modules()]
    return [model.reading, caches, modes]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("place", ["in a block", "in on_token"])
def test_a_model_that_is_trained_is_left_as_it_was(
    writer: GPT, error: type[BaseException], place: str
) -> None:
    writer.train()
    writer.blocks[0].dropout = nn.Dropout()  # type: ignore[attr-defined]
    writer.blocks[1].eval()  # such as one that is frozen
    before = state_of(writer)
    assert before[:2] == [None, [None, None]]
    calls = itertools.count()

    def fail(*arguments: object) -> None:
        if next(calls) == 2:
            raise error

    options: dict[str, Any] = {"on_token": fail}
    if place == "in a block":
        options = {}
        writer.blocks[1].register_forward_hook(fail)
    with pytest.raises(error):
        generate(writer, [[1, 2], [3]], 5, **options)
    assert state_of(writer) == before
    generate(writer, [[1, 2], [3]], 5)
    assert state_of(writer) == before
    assert writer(torch.tensor([[1, 2]])).requires_grad


def test_the_model_can_be_used_between_two_tokens(writer: GPT) -> None:
    """By who is told of each token: what it keeps belongs to one text."""
    expected = generate(writer, [[1, 2]], 5)

    def use(row: int, token: int) -> None:
        writer(torch.tensor([[3, 4, 5]]))
        generate(writer, [[6]], 3)

    assert generate(writer, [[1, 2]], 5, on_token=use) == expected


# ---- Prompts and their ends


def test_rows_of_a_tensor_give_a_tensor(writer: GPT) -> None:
    prompts = torch.tensor([[1, 2, 3], [4, 5, 6]])
    together = generate(writer, prompts, 12)  # runs past the context
    assert together.shape == (2, 15)
    assert together.tolist() == generate(writer, prompts.tolist(), 12)
    for row in range(2):
        assert torch.equal(generate(writer, prompts[row : row + 1], 12)[0], together[row])
    assert torch.equal(generate(writer, prompts, 0), prompts)


def place(row: list[int], token: int) -> int:
    return [*row, token].index(token)


def test_a_row_stops_after_its_end_and_the_others_go_on(writer: GPT) -> None:
    prompts = [[1, 2, 3], [4], [5, 6]]
    options: dict[str, Any] = {"temperature": 3.0, "seed": 2}
    whole = generate(writer, prompts, 12, **options)
    news = [row[len(prompt) :] for row, prompt in zip(whole, prompts, strict=True)]
    # One that the rows have at different places, as rows that differ must have one.
    end = next(token for token in range(11) if len({place(new, token) for new in news}) > 1)
    cut = [new[: place(new, end) + 1] for new in news]
    told: list[tuple[int, int]] = []
    found = generate(
        writer,
        prompts,
        12,
        end=end,
        on_token=lambda row, token: told.append((row, token)),
        **options,
    )
    assert found == [prompt + new for prompt, new in zip(prompts, cut, strict=True)]
    for row, new in enumerate(cut):
        assert [token for of, token in told if of == row] == new
    steps = [(step, row) for row, new in enumerate(cut) for step in range(len(new))]
    assert [row for row, _ in told] == [row for _, row in sorted(steps)]

    filled = generate(writer, torch.tensor(prompts[:1]), 12, end=end, **options)
    assert filled.tolist() == [found[0] + [end] * (15 - len(found[0]))]


def test_nothing_is_read_once_all_rows_have_stopped(writer: GPT) -> None:
    first = generate(writer, [[1, 2]], 1)[0][-1]
    passes: list[object] = []
    writer.head.register_forward_hook(lambda *call: passes.append(call))
    assert generate(writer, [[1, 2], [1, 2]], 9, end=first) == [[1, 2, first]] * 2
    assert len(passes) == 1


# ---- Draws


def test_the_global_state_is_neither_read_nor_changed_by_draws_with_a_seed(writer: GPT) -> None:
    prompt = torch.tensor([[1, 2]])
    state = torch.get_rng_state()
    draws = [
        generate(writer, prompt, 20, temperature=2.0, seed=seed)[0].tolist() for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert torch.equal(state, torch.get_rng_state())


def test_rows_without_a_seed_are_drawn_one_by_one(writer: GPT) -> None:
    torch.manual_seed(0)
    rows = generate(writer, [[1, 2]] * 8, 20, temperature=5.0)
    assert len({tuple(row) for row in rows}) > 1


def test_top_k_draws_among_the_k_most_likely(writer: GPT) -> None:
    prompt = torch.tensor([[1, 2]])
    writer.eval()
    best = writer(prompt)[0, -1].topk(3).indices.tolist()
    drawn = {
        int(generate(writer, prompt, 1, temperature=50.0, top_k=3, seed=seed)[0, -1])
        for seed in range(60)  # misses one of three with probability 3 (2/3)^60 < 1e-10
    }
    assert drawn == set(best)
    assert generate(writer, prompt, 5, temperature=1.0, top_k=1, seed=0).tolist() == (
        generate(writer, prompt, 5).tolist()
    )


SHARES = torch.tensor([[0.125, 0.5, 0.25, 0.125]])


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (1e-9, [1]),
        (0.5, [1]),
        (0.51, [1, 2]),
        (0.75, [1, 2]),
        (0.76, [0, 1, 2]),
        (0.9, [0, 1, 2, 3]),
    ],
)
def test_a_nucleus_is_the_fewest_tokens_that_have_its_probability(
    top_p: float, kept: list[int]
) -> None:
    """Holtzman et al. 2019, equation 2; of equal ones the first."""
    found = nucleus(SHARES, top_p)
    assert found[0].nonzero().flatten().tolist() == kept
    assert torch.equal(found[0, kept], SHARES[0, kept])


@pytest.mark.parametrize(
    ("options", "drawn"),
    [
        ({}, {0, 1, 2, 3}),
        ({"top_p": 1.0}, {0, 1, 2, 3}),
        ({"top_p": 0.6}, {1, 2}),
        ({"top_p": 0.6, "top_k": 2}, {1}),  # among the two it has 2/3
        ({"top_p": 0.6, "temperature": 0.5}, {1}),  # squared it has 8/11
        ({"top_p": 0.6, "temperature": 2.0, "top_k": 2}, {1, 2}),  # of the roots it has 0.586
    ],
)
def test_the_filters_follow_each_other_in_their_order(
    options: dict[str, Any], drawn: set[int]
) -> None:
    """k, temperature, p. Each token is missed with a probability below (7/8)^200 < 1e-11."""
    options = {"temperature": 1.0, "top_k": None, "top_p": None} | options
    randoms = [torch.Generator().manual_seed(seed) for seed in range(200)]
    tokens = choose(SHARES.log().expand(200, -1), **options, randoms=randoms)
    assert set(tokens.flatten().tolist()) == drawn


def test_top_p_is_taken_by_generate(writer: GPT) -> None:
    prompt = torch.tensor([[1, 2]])
    coldest = generate(writer, prompt, 5, temperature=2.0, top_p=1e-9, seed=0)
    assert torch.equal(coldest, generate(writer, prompt, 5))


def test_no_temperature_divides_by_zero_or_infinity(writer: GPT) -> None:
    prompt = torch.tensor([[1, 2]])
    coldest = generate(writer, prompt, 5, temperature=5e-324, top_k=3, seed=0)
    assert torch.equal(coldest, generate(writer, prompt, 5))
    hottest = [
        int(generate(writer, prompt, 1, temperature=1e300, top_k=2, seed=seed)[0, -1])
        for seed in range(60)  # misses one of two with probability 2^-59
    ]
    writer.eval()
    assert set(hottest) == set(writer(prompt)[0, -1].topk(2).indices.tolist())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"end": 11}, r"end=11 is not valid: must be a whole number in \[0, 10\]"),
        ({"max_new_tokens": -1}, "max_new_tokens=-1"),
        ({"tokens": torch.empty(1, 0)}, r"tokens=\[1, 0\]"),
        ({"tokens": torch.tensor([1])}, r"tokens=\[1\]"),
        ({"tokens": []}, r"tokens=\[\]"),
        ({"tokens": [[1], []]}, r"tokens=\[\[1\], \[\]\] .* at least 1 token"),
    ],
)
def test_generate_refuses(writer: GPT, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        generate(writer, **{"tokens": [[1]], "max_new_tokens": 1, **options})


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_weights_that_are_not_finite_write_nothing(writer: GPT, temperature: float) -> None:
    with torch.no_grad():
        writer.head.weight[3] = float("nan")
    with pytest.raises(ConfigError, match="logits=nan is not valid: must be finite"):
        generate(writer, [[1, 2]], 3, temperature=temperature)
