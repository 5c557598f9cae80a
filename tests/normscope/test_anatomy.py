"""Where the parts of a model are: of this project's, of other people's, of none that is known."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from gpt import GPT, GPTConfig, NormConfig
from normscope import Anatomy, anatomy_of, parameter_table
from other_models import LAYERS, MODELS

BLOCKS = {
    "gpt2": "transformer.h",
    "neox": "gpt_neox.layers",
    "llama": "model.layers",
    "qwen": "model.layers",
    "opt": "model.decoder.layers",
    "bert": "bert.encoder.layer",
    "encoder": "layers",
    "encoder, norm first": "layers",
    "x-transformers": "attn_layers.layers",
}


def components(anatomy: Anatomy) -> dict[str, tuple[int, str]]:
    return {place.name: (place.layer, place.component) for place in anatomy.places()}


def test_every_parameter_of_our_model_has_its_place_in_its_order() -> None:
    model = GPT(GPTConfig(11, 8, 12, 3, 1, norm=NormConfig("admin", qk=True)))
    assert components(anatomy_of(model)) == {
        "token_embedding.weight": (-1, "token_embedding"),
        "position_embedding.weight": (-1, "position_embedding"),
        "blocks.0.weight_1": (0, "placement"),
        "blocks.0.weight_2": (0, "placement"),
        "blocks.0.attention.qkv.weight": (0, "attention"),
        "blocks.0.attention.out_proj.weight": (0, "attention"),
        "blocks.0.attention.out_proj.bias": (0, "attention"),
        "blocks.0.attention.query_norm.weight": (0, "norm"),
        "blocks.0.attention.query_norm.bias": (0, "norm"),
        "blocks.0.attention.key_norm.weight": (0, "norm"),
        "blocks.0.attention.key_norm.bias": (0, "norm"),
        "blocks.0.feed_forward.fc_in.weight": (0, "feed_forward"),
        "blocks.0.feed_forward.fc_in.bias": (0, "feed_forward"),
        "blocks.0.feed_forward.fc_out.weight": (0, "feed_forward"),
        "blocks.0.feed_forward.fc_out.bias": (0, "feed_forward"),
        "blocks.0.norm_1.weight": (0, "norm"),
        "blocks.0.norm_1.bias": (0, "norm"),
        "blocks.0.norm_2.weight": (0, "norm"),
        "blocks.0.norm_2.bias": (0, "norm"),
        "head.weight": (1, "head"),
    }
    assert list(components(anatomy_of(model))) == [
        name for name in dict(model.named_parameters()) if "." in name
    ]


def test_what_a_placement_puts_around_the_blocks_has_its_place() -> None:
    norm = NormConfig("peri_ln", options={"embedding_norm": True})
    peri = components(anatomy_of(GPT(GPTConfig(11, 8, 12, 3, 1, norm=norm))))
    assert peri["entry.weight"] == (-1, "entry")
    dual = components(anatomy_of(GPT(GPTConfig(11, 8, 12, 3, 1, norm=NormConfig("residual_dual")))))
    assert dual["final_norm.norm.weight"] == (1, "final_norm")


def test_a_tied_head_counts_with_the_embeddings() -> None:
    model = GPT(GPTConfig(11, 8, 12, 3, 2, tie_head=True))
    assert {place.component for place in anatomy_of(model).places() if place.layer == 2} == {
        "final_norm"
    }


def test_our_model_is_found_without_its_own_word_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Except for its sums, which no name gives away."""
    for placement in (
        "pre_ln",
        "post_ln",
        "peri_ln",
        "sub_ln",
        "normformer",
        "mix_ln",
        "residual_dual",
    ):
        model = GPT(GPTConfig(11, 8, 12, 3, 2, norm=NormConfig(placement, "dyt", qk=True)))
        given = components(anatomy_of(model))
        with monkeypatch.context() as patch:
            patch.setattr(GPT, "anatomy", {})
            found = anatomy_of(model)
        assert components(found) == given
        assert all(block.sums == () for block in found.blocks)


@pytest.mark.parametrize("name", MODELS)
def test_known_families_are_found_whole(name: str) -> None:
    model = MODELS[name]()
    anatomy = anatomy_of(model)
    sublayers = name == "x-transformers"  # each is a block there
    assert [block.name for block in anatomy.blocks] == [
        f"{BLOCKS[name]}.{layer}" for layer in range(LAYERS * (1 + sublayers))
    ]
    for layer, block in enumerate(anatomy.blocks):
        assert bool(block.attention) == (not sublayers or layer % 2 == 0)
        assert bool(block.feed_forward) == (not sublayers or layer % 2 == 1)
    places = list(anatomy.places())
    assert {id(place.parameter) for place in places} == {id(p) for p in model.parameters()}
    assert len(places) == len({id(place.parameter) for place in places})
    assert all(place.component != "placement" for place in places)
    assert sum(int(row["parameters"]) for row in parameter_table(model)) == sum(
        p.numel() for p in model.parameters()
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "gpt2",
            {
                "transformer.wte.weight": (-1, "token_embedding"),
                "transformer.wpe.weight": (-1, "position_embedding"),
                "transformer.h.1.ln_1.weight": (1, "norm"),
                "transformer.h.1.attn.c_attn.weight": (1, "attention"),
                "transformer.h.1.mlp.c_proj.bias": (1, "feed_forward"),
                "transformer.ln_f.bias": (LAYERS, "final_norm"),
            },
        ),
        (
            "qwen",
            {
                "model.embed_tokens.weight": (-1, "token_embedding"),
                "model.layers.2.self_attn.q_norm.weight": (2, "norm"),
                "model.layers.2.self_attn.o_proj.weight": (2, "attention"),
                "model.layers.2.mlp.gate_proj.weight": (2, "feed_forward"),
                "model.layers.2.post_attention_layernorm.weight": (2, "norm"),
                "model.norm.weight": (LAYERS, "final_norm"),
                "lm_head.weight": (LAYERS, "head"),
            },
        ),
        (
            "bert",
            {
                "bert.embeddings.position_embeddings.weight": (-1, "position_embedding"),
                "bert.embeddings.LayerNorm.weight": (-1, "entry"),
                "bert.encoder.layer.0.attention.self.query.weight": (0, "attention"),
                "bert.encoder.layer.0.attention.output.dense.weight": (0, "attention"),
                "bert.encoder.layer.0.attention.output.LayerNorm.weight": (0, "norm"),
                "bert.encoder.layer.0.intermediate.dense.weight": (0, "feed_forward"),
                "bert.encoder.layer.0.output.dense.weight": (0, "feed_forward"),
                "cls.predictions.bias": (LAYERS, "head"),
            },
        ),
        ("opt", {"model.decoder.final_layer_norm.weight": (LAYERS, "final_norm")}),
        (
            "encoder",
            {
                "layers.0.self_attn.in_proj_weight": (0, "attention"),
                "layers.0.linear1.weight": (0, "feed_forward"),
                "layers.0.linear2.weight": (0, "feed_forward"),
                "layers.0.norm2.weight": (0, "norm"),
            },
        ),
    ],
)
def test_parameters_of_known_families_have_their_places(
    name: str, expected: dict[str, tuple[int, str]]
) -> None:
    found = components(anatomy_of(MODELS[name]()))
    assert {name: found[name] for name in expected} == expected


class Mixer(nn.Module):
    """A block with a branch of no known name."""

    def __init__(self) -> None:
        super().__init__()
        self.mixer, self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 8), nn.Linear(8, 4)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.mixer(x)
        return x + self.scale * self.down(self.up(x).relu())


def test_names_may_be_given() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ModuleList([nn.Linear(4, 4)] * 5), Mixer(), Mixer())
    tower = nn.ModuleDict({"short": nn.Sequential(Mixer(), Mixer()), "long": model})
    anatomy = anatomy_of(tower, blocks="short", attention="mixer", feed_forward=("up", "down"))
    assert [block.name for block in anatomy.blocks] == ["short.0", "short.1"]
    assert components(anatomy)["short.1.up.weight"] == (1, "feed_forward")
    assert components(anatomy)["short.1.mixer.bias"] == (1, "attention")
    assert components(anatomy)["short.1.scale"] == (1, "placement")
    assert components(anatomy)["long.0.weight"] == (2, "head")


def test_without_attention_the_longest_list_of_equal_modules_holds_the_blocks() -> None:
    head = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    body = nn.ModuleList(Mixer() for _ in range(3))
    anatomy = anatomy_of(nn.ModuleDict({"head": head, "body": body}))
    assert [block.name for block in anatomy.blocks] == ["body.0", "body.1", "body.2"]
    assert anatomy.blocks[0].attention == anatomy.blocks[0].feed_forward == ()


def test_experts_are_not_taken_for_blocks() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.Linear(4, 4)
            self.moe = nn.ModuleDict({"experts": nn.ModuleList([nn.Linear(4, 4)] * 16)})

    anatomy = anatomy_of(nn.ModuleDict({"layers": nn.ModuleList([Layer(), Layer()])}))
    assert [block.name for block in anatomy.blocks] == ["layers.0", "layers.1"]
    assert anatomy.blocks[0].feed_forward == ("layers.0.moe",)


def test_the_model_itself_may_be_the_list_of_blocks() -> None:
    anatomy = anatomy_of(nn.Sequential(Mixer(), Mixer()))
    assert [block.name for block in anatomy.blocks] == ["0", "1"]
    assert Counter(place.layer for place in anatomy.places()) == {0: 7, 1: 7}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({}, "no blocks found in Bilinear: .*anatomy_of.model, blocks="),
        ({"blocks": "layers"}, "blocks: Bilinear has no part 'layers'"),
    ],
)
def test_a_model_without_blocks_is_refused(names: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        anatomy_of(nn.Bilinear(2, 2, 2), **names)


def test_a_branch_that_no_block_has_is_refused() -> None:
    with pytest.raises(ValueError, match="attention: no block of TransformerEncoder has 'mixer'"):
        anatomy_of(MODELS["encoder"](), attention="mixer")


def test_an_anatomy_shows_what_was_found() -> None:
    shown = repr(anatomy_of(MODELS["encoder"]()))
    assert "attention=('layers.0.self_attn',)" in shown
    assert "TransformerEncoder(" not in shown


class BookBlock(nn.Module):
    """A block under the names of Raschka's book, chapter 4."""

    def __init__(self) -> None:
        super().__init__()
        self.att = nn.Linear(12, 12)
        self.ff = nn.Sequential(nn.Linear(12, 48), nn.GELU(), nn.Linear(48, 12))
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.att(self.norm1(x))
        return x + self.ff(self.norm2(x))


def test_the_books_model_is_found_by_its_names() -> None:
    model = nn.ModuleDict(
        {
            "tok_emb": nn.Embedding(11, 12),
            "pos_emb": nn.Embedding(8, 12),
            "trf_blocks": nn.Sequential(*(BookBlock() for _ in range(3))),
            "final_norm": nn.LayerNorm(12),
            "out_head": nn.Linear(12, 11, bias=False),
        }
    )
    assert components(anatomy_of(model)) == {
        "tok_emb.weight": (-1, "token_embedding"),
        "pos_emb.weight": (-1, "position_embedding"),
        **{
            f"trf_blocks.{layer}.{part}.{kind}": (layer, component)
            for layer in range(3)
            for part, component in (
                ("att", "attention"),
                ("ff.0", "feed_forward"),
                ("ff.2", "feed_forward"),
                ("norm1", "norm"),
                ("norm2", "norm"),
            )
            for kind in ("weight", "bias")
        },
        "final_norm.weight": (3, "final_norm"),
        "final_norm.bias": (3, "final_norm"),
        "out_head.weight": (3, "head"),
    }
