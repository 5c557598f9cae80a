"""Every size of conf/model beside what is published of it, without allocating any."""

import logging
from dataclasses import replace

from hydra.core.global_hydra import GlobalHydra

from experiments.data.corpus import load_corpus
from experiments.machine.console import one_line, print_table
from experiments.records.recorder import Recorder
from experiments.records.sink import Value
from experiments.runner import Outcome
from experiments.settings.schema import Settings
from experiments.settings.sizes import settings_of_size
from experiments.training.setup import BF16_BYTES, four_bit_bytes
from gpt import ConfigError, GPTConfig, cached_values
from gpt.count import flops_per_token_of, met_parameters, meta_model
from gpt.published import COUNTS_ALONE, PUBLISHED, LatentSizes

log = logging.getLogger(__name__)

Size = dict[str, Value]
EMBEDDINGS = ("token_embedding.", "position_embedding.", "head.")


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """model_sizes.csv: a row for each size, the smallest first, and for those counted alone."""
    rows = [
        {"model": name, **size_of(config), **beside(name, config)}
        for name, config in configs(settings).items()
    ]
    rows += [{"model": name, **size_alone(sizes)} for name, sizes in COUNTS_ALONE.items()]
    for row in rows:
        row |= published(str(row["model"]), int(row["parameters"] or 0))
    rows.sort(key=lambda row: int(row["parameters"] or 0))
    recorder.table("model_sizes", rows)
    print_table("Sizes", [line_of(row) for row in rows])
    equal = sum(row["equal"] == "yes" for row in rows)
    compared = sum(row["equal"] is not None for row in rows)
    return Outcome(
        results={
            "sizes": str(len(rows)),
            "equal to the published count": f"{equal} of {compared}",
            "counts alone": ", ".join(COUNTS_ALONE),
        },
        finding=f"{equal} of the {compared} sizes whose exact count is published have it here",
    )


def configs(settings: Settings) -> dict[str, GPTConfig]:
    """The model of each file in conf/model; of those that take their tokenizer's vocabulary, that
    of the run's tokenizer.
    """
    found: dict[str, GPTConfig] = {}
    for name in size_names():
        try:
            of_size = settings_of_size(name)
            vocab_size = of_size.model.vocab_size
            if vocab_size is None:
                vocab_size = load_corpus(settings).tokenizer.vocab_size
                of_size = replace(of_size, tokenizer=settings.tokenizer)
            found[name] = of_size.model_config(vocab_size)
        except ConfigError as error:
            log.warning("model=%s is left out: %s", name, one_line(error))
    return found


def size_names() -> list[str]:
    """The files of conf/model."""
    return GlobalHydra.instance().config_loader().get_group_options("model")


def size_of(config: GPTConfig) -> Size:
    """What is counted of a model that can be made: see gpt/count.py."""
    model = meta_model(config)
    met = met_parameters(model)
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    total, active = sum(counts.values()), sum(met.values())
    embedding = counts["token_embedding.weight"] - met["token_embedding.weight"]
    return {
        "parameters": total,
        "active": active,
        "active_and_embedding": active + embedding,
        "outside_embeddings": sum(
            count for name, count in counts.items() if not name.startswith(EMBEDDINGS)
        ),
        "bytes_bf16": total * BF16_BYTES,
        "bytes_4bit": four_bit_bytes(total),
        "cache_bytes_per_token": cached_values(config, 1) * BF16_BYTES,
        "flops_per_token": flops_per_token_of(model),
    }


def beside(name: str, config: GPTConfig) -> Size:
    """What else a size is."""
    return {
        "placement": config.norm.placement,
        "n_layers": config.n_layers,
        "emb_dim": config.emb_dim,
        "context_length": config.context_length,
        "vocab_size": config.vocab_size,
    }


def size_alone(sizes: LatentSizes) -> Size:
    """The same columns of a model that is counted alone; empty where nothing is counted."""
    return {
        "parameters": sizes.parameters,
        "active": sizes.active_parameters,
        "active_and_embedding": sizes.active_parameters + sizes.embedding,
        "outside_embeddings": sizes.outside,
        "bytes_bf16": sizes.parameters * BF16_BYTES,
        "bytes_4bit": four_bit_bytes(sizes.parameters),
        "cache_bytes_per_token": sizes.cached_values * BF16_BYTES,
        "flops_per_token": None,
        "placement": "pre_ln",
        "n_layers": sizes.n_layers,
        "emb_dim": sizes.emb_dim,
        "context_length": None,
        "vocab_size": sizes.vocab_size,
    }


def published(name: str, parameters: int) -> Size:
    """The published figures, and whether ours is the same; empty where nothing is published.

    Nothing is compared where the published count is rounded.
    """
    figures = PUBLISHED.get(name)
    alone = "counts alone: cannot be made here" if name in COUNTS_ALONE else ""
    if figures is None:
        return dict.fromkeys(
            ("published", "equal", "published_outside", "published_active", "source", "remark")
        )
    equal = "yes" if figures.parameters == parameters else "no"
    return {
        "published": figures.parameters,
        "equal": None if figures.parameters is None else equal,
        "published_outside": figures.outside,
        "published_active": figures.active or None,
        "source": figures.source,
        "remark": "; ".join(filter(None, [alone, figures.remark])) or None,
    }


def line_of(row: Size) -> dict[str, str]:
    """The columns that fit a terminal."""
    is_known = row["published"] is not None
    return {
        "model": str(row["model"]),
        "parameters": f"{row['parameters']:,}",
        "active": f"{row['active']:,}",
        "published": f"{row['published']:,}" if is_known else "",
        "equal": str(row["equal"] or ""),
        "bf16": f"{int(row['bytes_bf16'] or 0) / 2**30:,.1f} GiB",
        "key-values per token": f"{row['cache_bytes_per_token']:,} B",
    }
