"""Figures of Raschka, Build a Large Language Model (From Scratch), chapter 4.

Printed there with an earlier PyTorch; the tolerances are those within which PyTorch versions agree.
"""

import dataclasses
from itertools import pairwise

import pytest
import torch

from configs import changed
from experiments.data.tokenizer import GPT2Tokenizer
from gpt import GPT, GPT_CONFIG_124M, ConfigError, DeepShortcutNet, GPTConfig, generate
from gpt.attention import SelfAttention
from gpt.feedforward import FeedForward
from gpt.norm import LayerNorm
from gpt.placement import PreLN
from gpt.shortcut import mean_abs_gradients

BOOK = GPTConfig(**GPT_CONFIG_124M)
SENTENCES = torch.tensor([[6109, 3626, 6100, 345], [6109, 1110, 6622, 257]])
ENDS = [0, 1, 2, -3, -2, -1]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Every effort moves you", [6109, 3626, 6100, 345]),
        ("Every day holds a", [6109, 1110, 6622, 257]),
        ("Hello, I am", [15496, 11, 314, 716]),
    ],
)
def test_gpt2_tokens(text: str, ids: list[int]) -> None:
    assert GPT2Tokenizer().encode(text) == ids
    assert GPT2Tokenizer().decode(ids) == text


def test_layer_norm() -> None:
    torch.manual_seed(123)
    out = LayerNorm(5, 1e-5)(torch.randn(2, 5))
    expected = [
        [0.5528, 1.0693, -0.0223, 0.2656, -1.8654],
        [0.9087, -1.3767, -0.9564, 1.1304, 0.2940],
    ]
    torch.testing.assert_close(out, torch.tensor(expected), atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def book_model() -> GPT:
    torch.manual_seed(123)
    return GPT(BOOK)


def test_parameters_of_the_book_model(book_model: GPT) -> None:
    assert sum(p.numel() for p in book_model.parameters()) == 163_009_536
    size = sum(p.numel() * p.element_size() for p in book_model.parameters())
    assert size / 2**20 == pytest.approx(621.83, abs=0.01)
    assert book_model.token_embedding.weight.shape == (50257, 768)
    assert book_model.head.weight.shape == (50257, 768)
    with torch.device("meta"):
        tied = GPT(dataclasses.replace(BOOK, tie_head=True))
    assert sum(p.numel() for p in tied.parameters()) == 124_412_160


def test_six_greedy_tokens(book_model: GPT) -> None:
    prompt = torch.tensor([[15496, 11, 314, 716]])
    tokens = generate(book_model, prompt, 6)[0].tolist()
    assert tokens[4:] == [27018, 24086, 47843, 30961, 42348, 7267]
    text = GPT2Tokenizer().decode(tokens)
    assert text == "Hello, I am Featureiman Byeswickattribute argue"
    assert book_model.training


def test_logits_in_train_mode() -> None:
    torch.manual_seed(123)
    logits = GPT(BOOK)(SENTENCES)  # dropout draws on from the same seed
    first = torch.tensor([0.3613, 0.4222, -0.0711, 0.3483, 0.4661, -0.2838])
    last = torch.tensor([-0.1565, 0.3926, 0.3288, 1.2630, -0.1858, 0.0388])
    torch.testing.assert_close(logits[0, 0, ENDS], first, atol=1e-3, rtol=0)
    torch.testing.assert_close(logits[1, -1, ENDS], last, atol=1e-3, rtol=0)


def test_skeleton_without_blocks_and_norms() -> None:
    torch.manual_seed(123)
    skeleton = GPT(changed(BOOK, {"n_layers": 0, "norm.placement": "no_norm"}))
    expected = torch.tensor([-1.2034, 0.3201, -0.7130, -1.5548, -0.2390, -0.4667])
    torch.testing.assert_close(skeleton(SENTENCES)[0, 0, ENDS], expected, atol=1e-3, rtol=0)


def test_shapes() -> None:
    block = PreLN(BOOK, layer=0)
    x = torch.randn(2, 4, 768)
    assert block(x).shape == x.shape
    assert SelfAttention(BOOK)(x).shape == x.shape
    feed_forward = FeedForward(BOOK)
    assert feed_forward(x[:, :3]).shape == (2, 3, 768)
    assert feed_forward.fc_in.out_features == 3072


SHORTCUT_GRADIENTS = {
    False: [
        0.00020173587836325169,
        0.0001201116101583466,
        0.0007152041071094573,
        0.0013988735154271126,
        0.005049645435065031,
    ],
    True: [
        0.22169791162014008,
        0.20694106817245483,
        0.32896995544433594,
        0.2665732204914093,
        1.3258540630340576,
    ],
}


@pytest.mark.parametrize("shortcut", [False, True])
def test_shortcut_network(shortcut: bool) -> None:
    torch.manual_seed(123)
    net = DeepShortcutNet(shortcut=shortcut)
    gradients = mean_abs_gradients(net, torch.tensor([[1.0, 0.0, -1.0]]))
    assert gradients == pytest.approx(SHORTCUT_GRADIENTS[shortcut], rel=1e-5)
    sizes = [layer.in_features for layer in net.layers] + [net.layers[-1].out_features]
    assert list(pairwise(sizes)) == [(3, 3), (3, 3), (3, 3), (3, 3), (3, 1)]


# Biderman et al. 2023 (Pythia), arXiv 2304.01373, Table 1: parameters outside the embeddings.
PYTHIA = {
    "70m": (18_915_328, 6, 512, 8),
    "160m": (85_056_000, 12, 768, 12),
    "410m": (302_311_424, 24, 1024, 16),
    "1b": (805_736_448, 16, 2048, 8),
    "1.4b": (1_208_602_624, 24, 2048, 16),
    "2.8b": (2_517_652_480, 32, 2560, 32),
    "6.9b": (6_444_163_072, 32, 4096, 32),
    "12b": (11_327_027_200, 36, 5120, 40),
}


@pytest.mark.parametrize("name", PYTHIA)
def test_pythia_counts(name: str) -> None:
    count, layers, width, heads = PYTHIA[name]
    with torch.device("meta"):
        model = GPT(GPTConfig(8, 8, width, heads, layers, qkv_bias=True))
    outside = (model.token_embedding, model.position_embedding, model.head)
    total = sum(p.numel() for p in model.parameters())
    assert total - sum(p.numel() for part in outside for p in part.parameters()) == count


def test_the_book_names_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"n_heads=11 .* must divide emb_dim=768"):
        GPTConfig(**GPT_CONFIG_124M | {"n_heads": 11})
