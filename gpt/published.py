"""What is published of the models in conf/model, and the counts of two that cannot be made here."""

from dataclasses import dataclass

LIBRARY = "transformers 5.24.0"  # whose model was built without values, and its parameters counted
BOTH = f"published, {LIBRARY}"


@dataclass(frozen=True)
class Published:
    """A size's figures, as others give them.

    parameters  all of them, a tied weight once; None: published rounded alone, see the remark
    source      where that figure is from
    outside     those outside the embeddings and the head; None: not published
    active      as a text, since it is rounded and not everybody counts the same
    remark      on what a figure counts
    """

    parameters: int | None
    source: str
    outside: int | None = None
    active: str = ""
    remark: str = ""


def pythia(parameters: int, outside: int) -> Published:
    """A size of the suite. Biderman et al. 2023, Table 1, arXiv 2304.01373."""
    return Published(parameters, f"{BOTH}; outside: arXiv 2304.01373, Table 1", outside)


GPT_OSS = f"{LIBRARY}; rounded: model card, arXiv 2508.10925"
PUBLISHED = {
    "book_124m": Published(163_009_536, "Raschka 2024, chapter 4", remark="untied head"),
    "gpt2_124m": Published(124_439_808, BOTH),
    "gpt2_355m": Published(354_823_168, BOTH),
    "gpt2_774m": Published(774_030_080, BOTH),
    "gpt2_1558m": Published(1_557_611_200, BOTH),
    "pythia_70m": pythia(70_426_624, 18_915_328),
    "pythia_160m": pythia(162_322_944, 85_056_000),
    "pythia_410m": pythia(405_334_016, 302_311_424),
    "pythia_1b": pythia(1_011_781_632, 805_736_448),
    "pythia_1_4b": pythia(1_414_647_808, 1_208_602_624),
    "pythia_2_8b": pythia(2_775_208_960, 2_517_652_480),
    "pythia_6_9b": pythia(6_857_302_016, 6_444_163_072),
    "pythia_12b": pythia(11_846_072_320, 11_327_027_200),
    "gpt_neo_125m": Published(125_198_592, LIBRARY),
    "gpt_neo_1_3b": Published(1_315_575_808, LIBRARY),
    "gpt_neo_2_7b": Published(2_651_307_520, LIBRARY),
    "opt_125m": Published(125_239_296, LIBRARY),
    "opt_350m": Published(331_196_416, LIBRARY),
    "opt_1_3b": Published(1_315_758_080, LIBRARY),
    "opt_2_7b": Published(2_651_596_800, LIBRARY),
    "opt_6_7b": Published(6_658_473_984, LIBRARY),
    "gptj_6b": Published(
        6_053_381_344,
        "announcement",
        remark=f"6,050,882,784 in {LIBRARY}: of the announced, 2,465,792 are copies of norms and "
        "biases in seven of the eight shards of its training, and 32,768 a bias of the embeddings "
        "in each shard, which the published model does not have",
    ),
    "llama_7b": Published(6_738_415_616, BOTH),
    "llama_13b": Published(13_015_864_320, BOTH),
    "gpt_oss_20b": Published(20_914_757_184, GPT_OSS, active="3.6B", remark="card: 20.9B"),
    "gpt_oss_120b": Published(116_829_156_672, GPT_OSS, active="5.1B", remark="card: 116.8B"),
    "qwen3_0_6b": Published(596_049_920, LIBRARY),
    "qwen3_1_7b": Published(1_720_574_976, LIBRARY),
    "qwen3_4b": Published(4_022_468_096, LIBRARY),
    "qwen3_8b": Published(8_190_735_360, LIBRARY),
    "gemma3_270m": Published(268_098_176, BOTH),
    "gemma3_1b": Published(999_885_952, BOTH),
    "olmo3_7b": Published(7_298_011_136, LIBRARY),
    "smollm3_3b": Published(3_075_098_624, LIBRARY),
    "deepseek_v3": Published(
        None,
        "arXiv 2412.19437",
        active="37B",
        remark="671B in all; counted here, active: 37.55B with the embedding, 36.63B without",
    ),
    "kimi_k2": Published(
        None,
        "arXiv 2507.20534",
        active="32B",
        remark="1T in all; counted here, active: 32.86B with the embedding, 31.69B without",
    ),
}


@dataclass(frozen=True)
class LatentSizes:
    """A decoder with multi-head latent attention and experts, by its sizes: counts alone.

    DeepSeek-AI 2024, arXiv 2405.04434 and 2412.19437. Queries, and keys and values together, are
    projected through a narrow vector with an RMSNorm of its own; a part of each key turns by its
    place, is shared by all heads and does not pass through that vector. The feed-forward layers of
    the first blocks are dense, the others have experts of which some get every token. No biases,
    except one number for each routed expert, which is added to its score, the sigmoid of its logit,
    for the choice of experts alone. The head is not tied. The module that predicts a second token
    (multi-token prediction) is left out.

    The defaults are the sizes of DeepSeek-V3, those of DeepseekV3Config in transformers 5.24.0.
    """

    vocab_size: int = 129_280
    emb_dim: int = 7168
    n_layers: int = 61
    n_heads: int = 128
    query_rank: int = 1536
    key_value_rank: int = 512
    plain_dim: int = 128  # of each head's query and key: does not turn
    turned_dim: int = 64  # turns
    value_dim: int = 128
    dense_layers: int = 3
    dense_dim: int = 18_432
    experts: int = 256
    active: int = 8
    shared: int = 1
    expert_dim: int = 2048

    @property
    def attention(self) -> int:
        """Parameters of one block's attention, its two norms among them."""
        query = self.query_rank * (self.emb_dim + 1)
        query += self.query_rank * self.n_heads * (self.plain_dim + self.turned_dim)
        down = self.emb_dim * (self.key_value_rank + self.turned_dim) + self.key_value_rank
        up = self.key_value_rank * self.n_heads * (self.plain_dim + self.value_dim)
        return query + down + up + self.n_heads * self.value_dim * self.emb_dim

    def feed_forward(self, experts: int) -> int:
        """Parameters of all blocks' feed-forward layers, with as many routed experts in each."""
        dense = 3 * self.emb_dim * self.dense_dim
        router = self.experts * (self.emb_dim + 1)
        each = 3 * self.emb_dim * self.expert_dim
        sparse = router + (experts + self.shared) * each
        return self.dense_layers * dense + (self.n_layers - self.dense_layers) * sparse

    @property
    def embedding(self) -> int:
        """Parameters of the token embedding, and of the head."""
        return self.vocab_size * self.emb_dim

    @property
    def outside(self) -> int:
        """Parameters outside the embedding and the head."""
        return self.n_layers * self.attention + self.norms + self.feed_forward(self.experts)

    @property
    def norms(self) -> int:
        """Parameters of two norms in each block and of the last one."""
        return (2 * self.n_layers + 1) * self.emb_dim

    @property
    def parameters(self) -> int:
        """All of them."""
        return 2 * self.embedding + self.outside

    @property
    def active_parameters(self) -> int:
        """Those that one token meets, of the embedding none, as in `gpt.count`."""
        blocks = self.n_layers * self.attention + self.feed_forward(self.active)
        return self.embedding + self.norms + blocks

    @property
    def cached_values(self) -> int:
        """Numbers kept for one token: the narrow vector, and the part of the keys that turns."""
        return self.n_layers * (self.key_value_rank + self.turned_dim)


# By the names that they would have in conf/model.
COUNTS_ALONE = {
    "deepseek_v3": LatentSizes(),
    "kimi_k2": LatentSizes(vocab_size=163_840, n_heads=64, experts=384, dense_layers=1),
}
