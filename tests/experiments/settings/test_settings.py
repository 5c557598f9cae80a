"""What can be set: bounds and defaults stand with their fields, and names are those one types."""

import copy
import dataclasses
import functools
import itertools
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import cloudpickle
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import composing
import run
from experiments.jobs.check import check_effects, checked_settings
from experiments.settings.compose import SCHEMA, every, schema_of, setting_names, to_values
from experiments.settings.explain import options_of
from experiments.settings.identity import (
    RENAMED,
    defaults,
    digest,
    flatten,
    result_settings,
    with_new_names,
)
from experiments.settings.schema import Settings
from experiments.settings.typed import names_of
from experiments.training.optimizer import OPTIMIZERS, OWN
from gpt import PLACEMENTS, ConfigError, GPTConfig
from gpt.checks import Valid, valid_of


def values_of(*overrides: str) -> dict[str, Any]:
    """What is composed; without overrides once for all tests, which change copies of it."""
    return copy.deepcopy(USUAL_VALUES()) if not overrides else composed(*overrides)


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(run.CONF, version_base="1.3"):
        return to_values(compose("config", list(overrides)))


USUAL_VALUES = functools.cache(composed)


def test_what_is_composed_from_memory_is_what_hydra_composes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twice with other values, since a copy is changed; and with a choice that brings others."""
    commands = (["seed=3", "norm=mix_ln"], ["norm=mix_ln", "optimizer.lr=2"], ["model=micro"])
    quick = [composed(*overrides) for overrides in commands]
    monkeypatch.setattr(composing, "may_change", lambda repo: True)
    assert [composed(*overrides) for overrides in commands] == quick


def leaves(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any, Valid]]:
    """Name, type and what is valid, of every field below a dataclass."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from leaves(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, hints[field.name], valid_of(field)


def put(values: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Nested values with another one at a dotted name."""
    first, _, rest = name.partition(".")
    return values | {first: put(values[first], rest, value) if rest else value}


OUT_OF_BOUNDS = [
    (name, bad)
    for name, _, valid in leaves(Settings)
    for bad in (
        valid.at_least - 1,
        valid.at_most + 1,
        valid.above,
        valid.below,
        None if valid.choices is None else "nonsense",
    )
    if bad is not None and (isinstance(bad, str) or abs(bad) < float("inf"))
]


@pytest.mark.parametrize(("name", "bad"), OUT_OF_BOUNDS)
def test_a_value_out_of_its_bounds_is_refused_under_the_name_one_types(name: str, bad: Any) -> None:
    values = values_of()
    whole = isinstance(bad, float) and bad.is_integer()
    with pytest.raises(ConfigError) as refused:
        checked_settings(put(values, name, int(bad) if whole else bad))
    assert refused.value.field == name
    assert str(refused.value).startswith(f"{name}=")


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("norm.kind=batch", "norm.kind"),
        ("norm.placement=x", "norm.placement"),
        ("init.scheme=x", "init.scheme"),
        ("activation=x", "activation"),
        ("model.n_heads=3", "model.n_heads"),
        ("model.feed_forward.ratio=0.3", "model.feed_forward.ratio"),
        ("model.position.kind=x", "model.position.kind"),
        ("data.name=x", "data.name"),
        ("tokenizer.name=x", "tokenizer.name"),
        ("optimizer.name=x", "optimizer.name"),
        ("schedule.name=x", "schedule.name"),
        ("runner=x", "runner"),
    ],
)
def test_an_error_names_the_field_as_it_is_typed(override: str, field: str) -> None:
    with pytest.raises(ConfigError) as refused:
        checked_settings(values_of(override))
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optimizer.momentum=0.5"], "optimizer=adamw has none; leave it null, or choose opt"),
        (["optimizer.betas=null"], "optimizer.betas=None is not valid: optimizer=adamw needs two"),
        (["optimizer=sgd", "optimizer.betas=[0.9,0.95]"], "optimizer=sgd has none; leave it null"),
        (
            ["optimizer=muon", "optimizer.momentum=1"],
            "optimizer.momentum=1.0 is not valid",
        ),
        (["optimizer=muon", "optimizer.betas=null"], "optimizer=muon needs two numbers"),
        (["optimizer=sgd", "optimizer.name=adamw"], "optimizer.momentum=0.9 is not valid"),
    ],
)
def test_what_belongs_to_another_optimizer_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        checked_settings(values_of(*overrides))
    assert OWN.keys() == OPTIMIZERS.keys()


def check_command(*overrides: str) -> None:
    check_effects([checked_settings(values_of(*overrides))], names_of(overrides))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["model.position.bases=[500]"],
            "model.position.bases=[500.0] is not valid: has no",
        ),
        (["model.position.fraction=1.0"], "it needs model.position.kind=rotary"),
        (["model.position.yarn.truncate=false"], "it needs model.position.kind=rotary"),
        (["model.position.kind=rotary", "model.position.offset=2"], "model.position.kind=learned"),
        (["model.experts.active=2"], "it needs model.experts.count above 0"),
        (["model.attention.windows=[64,0]"], "it needs model.context_length above each"),
        (["model.attention.windows=[1,2,3,4,5,6,7,8,9]"], "it needs model.n_layers of at least as"),
        (["model.attention.windows=[0,0]"], "it needs model.attention.windows other than 0 for"),
        (["model.n_layers=0", "activation=relu"], "it needs model.n_layers above 0"),
        (["model.n_layers=0", "shortcut=false"], "it needs model.n_layers above 0"),
        (["model.parallel.shared=true"], "it needs model.parallel.enabled=true"),
        (["model.feed_forward.clamp=7"], "it needs model.feed_forward.gated=true"),
        (["model=llama_7b", "model.feed_forward.ratio=4"], "it needs model.feed_forward.dim=null"),
        (["match=flops", "model.feed_forward.ratio=2"], "it needs match=null"),
        (["norm.kind=dyt", "norm.eps=0.1"], "it needs norm.kind other than dyt and derf"),
        (["norm.kind=derf", "norm.eps=0.1"], "it needs norm.kind other than dyt and derf"),
        (["init.std=0.02"], "it needs init.scheme=gpt2 or gpt2_scaled"),
        (["model.weights=x", "init.embedding_std=1"], "it needs model.weights=null"),
        (["data.path=text.txt"], "it needs data=text or data=tokens"),
        (["generate.temperature=0", "generate.top_p=0.9"], "it needs generate.temperature above 0"),
    ],
)
def test_what_is_typed_without_effect_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        check_command(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["norm=no_norm", "norm.kind=rms_norm", "norm.eps=1e-6"],  # the control arm
        ["model=gpt_oss_20b", "model.position.kind=learned"],
        ["model=gpt_oss_20b", "model.experts.count=0", "model.feed_forward.gated=false"],
        ["model=gptj_6b", "model.parallel.enabled=false"],
        ["model=olmo3_7b", "norm.qk=false", "model.context_length=128"],
        ["model=smollm3_3b", "model.n_layers=2", "norm=no_norm"],
        ["model=xiong", "match=parameters"],
        ["model=opt_125m", "norm=deepnorm"],  # which brings its own initialisation
        ["model.parallel.shared=false", "model.attention.windows=[0]"],  # which says off
    ],
    ids=str,
)
def test_a_part_of_a_size_may_take_the_effect_of_others(overrides: list[str]) -> None:
    check_command(*overrides)


@pytest.mark.long
def test_every_size_takes_every_placement_that_parallel_branches_allow() -> None:
    sizes, placements = (options_of(group) for group in ("model", "norm"))
    for size, placement in itertools.product(sizes, placements):
        try:
            check_command(f"model={size}", f"norm={placement}")
        except ConfigError as refused:
            words = str(refused)
            assert "read the same input" in words or "parallel.shared" in words, (size, words)


def test_a_file_of_a_size_that_says_what_has_no_effect_is_refused() -> None:
    values = values_of()
    settings = checked_settings(put(values, "model.experts.active", 4))
    with pytest.raises(ConfigError, match=r"it needs model.experts.count above 0"):
        check_effects([settings], ["model"])
    check_effects([settings], ["model", "model.experts.count"])


def test_files_that_say_which_are_for_training_leave_no_share_to_choose(tmp_path: Path) -> None:
    typed = ("data=tokens", f"data.path={tmp_path}", "data.train_share=0.5")
    (tmp_path / "train.bin").touch()
    check_command(*typed)
    (tmp_path / "val.bin").touch()
    with pytest.raises(ConfigError, match="it needs files that do not say by their names"):
        check_command(*typed)


def test_what_has_an_effect_in_one_job_of_a_sweep_stays() -> None:
    learned, rotary = (
        checked_settings(values_of(f"model.position.kind={kind}", "model.position.fraction=0.5"))
        for kind in ("learned", "rotary")
    )
    typed = ["model.position.kind", "model.position.fraction"]
    check_effects([learned, rotary], typed)
    with pytest.raises(ConfigError, match=r"model.position.fraction=0.5"):
        check_effects([learned, learned], typed)


def test_the_schema_is_a_mutable_twin_of_the_settings() -> None:
    twin = OmegaConf.structured(SCHEMA)
    assert list(twin) == [field.name for field in dataclasses.fields(Settings)]
    twin.norm.kind = "rms_norm"  # a frozen dataclass would refuse it
    for kind in (SCHEMA, schema_of(GPTConfig)):  # as a sweep sends it to its processes
        assert pickle.loads(cloudpickle.dumps(kind)) is kind
    names = {name for name, _, _ in leaves(SCHEMA)}
    assert names == {name for name, _, _ in leaves(Settings)} <= set(setting_names())


def test_what_affects_no_result_has_no_part_in_the_hash() -> None:
    """Against the list, written out once more: a new setting affects results unless it says no."""
    silent = {
        "resume",
        "pictures",
        "data.cache_dir",
        "trainer.checkpoint_every",
        "trainer.keep",
        "trainer.keep_best",
        "claims.runs",
        "atlas.runs",
        "atlas.rounds",
        "atlas.timed",
    }
    values = values_of()
    dropped = dict(flatten(values)).keys() - dict(flatten(result_settings(values))).keys()
    sections = {name for name in dropped if name.startswith(("wandb.", "sweep."))}
    assert dropped - sections == silent
    assert sections == {n for n in dict(flatten(values)) if n.startswith(("wandb.", "sweep."))}
    for name in silent:
        assert digest(put(values, name, "other")) == digest(values)
    for name in ("seed", "device", "threads", "norm.placement", "generate.prompt"):
        assert digest(put(values, name, "other")) != digest(values)


def test_runs_on_the_embedded_text_have_the_hash_of_version_0_5() -> None:
    assert digest(values_of()).startswith("de47e3410b99d94c")
    assert digest(values_of("tokenizer=char")).startswith("09eff0533bc65dae")
    assert digest(values_of("norm.qk=true")).startswith("9fb748bcd73a49b9")
    peri_ln = ("norm=peri_ln", "norm.options.embedding_norm=true")  # its default then
    assert digest(values_of(*peri_ln)).startswith("30365f01b1666fa9")
    assert digest(values_of("init=gpt2")).startswith("20e37591aba852dc")
    newer = ("compile=true", "activation_checkpointing=true", "precision=fp16", "precision=tf32")
    others = {digest(values_of(f"trainer.{each}")) for each in newer}
    assert len(others | {digest(values_of())}) == 5


def test_a_text_has_its_content_in_the_hash(text_file: Path, tmp_path: Path) -> None:
    copy, other = tmp_path / "copy.txt", tmp_path / "other.txt"
    copy.write_bytes(text_file.read_bytes())
    other.write_text("another")
    paths = (text_file, copy, other, "/absent")
    hashes = [digest(values_of("data=text", f"data.path={path}")) for path in paths]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_the_path_of_a_text_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for typed, recorded in (
        ("a.txt", f"{tmp_path}/a.txt"),
        ("home/a.txt", "~/a.txt"),
        ("'~/a.txt'", "~/a.txt"),
    ):
        assert values_of("data=text", f"data.path={typed}")["data"]["path"] == recorded


def test_names_of_the_version_before_are_understood() -> None:
    old = {
        "norm": {"placement": "mix_ln", "fraction": 0.5, "embedding_norm": None},
        "model": {"n_layers": 2, "ff_ratio": 2.0, "causal": True},
        "seed": 3,
    }
    kept = json.dumps(old)
    assert with_new_names(old) == {
        "norm": {"placement": "mix_ln", "options": {"fraction": 0.5}},
        "model": {"n_layers": 2, "feed_forward": {"ratio": 2.0}, "attention": {"causal": True}},
        "seed": 3,
    }
    assert json.dumps(old) == kept
    new = values_of("norm=mix_ln")
    assert with_new_names(new) == new
    assert set(RENAMED.values()) <= dict(flatten(values_of("norm=mix_ln"))).keys() | {
        "norm.options.embedding_norm",
        "norm.options.scale_start",
    }


def test_an_option_belongs_to_its_placement() -> None:
    values = values_of("norm=mix_ln", "norm.options.fraction=0.5")
    assert values["norm"]["options"] == {"fraction": 0.5}
    assert values_of()["norm"]["options"] == {}
    with pytest.raises(ConfigError, match=r"norm.options.fraction=0.5 .*norm=mix_ln") as refused:
        checked_settings(values_of("norm=pre_ln", "norm.options.fraction=0.5"))
    assert "norm=pre_ln" in refused.value.valid


def test_an_option_may_be_given_before_its_placement_is_known() -> None:
    """As to a sweep over placements, or to a resumed run, whose placement its directory has."""
    assert values_of("norm.options.fraction=0.5")["norm"]["options"] == {"fraction": 0.5}
    with pytest.raises(ConfigError, match=r"norm.options.nonsense=1 .*its options: fraction"):
        checked_settings(values_of("norm=mix_ln", "norm.options.nonsense=1"))


def test_an_option_newer_than_recorded_runs_changes_no_hash_at_its_default() -> None:
    for norm in ("pre_ln", "peri_ln"):
        plain, off, on = (
            digest(values_of(f"norm={norm}", *option))
            for option in ([], ["norm.options.gpas=false"], ["norm.options.gpas=true"])
        )
        assert plain == off != on
    assert digest(values_of()) == digest(values_of("norm=pre_ln"))


def test_defaults_are_what_composes_without_a_choice() -> None:
    composed, usual = dict(flatten(values_of())), dict(flatten(defaults()))
    chosen = {"init.scheme", "optimizer.betas"}  # of which the YAML files say something else
    assert {name for name in usual if composed[name] != usual[name]} == chosen
    assert usual["model.position.kind"] == "learned"


def test_lists_of_choices_come_from_their_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert every("norm") == ",".join(PLACEMENTS)
    monkeypatch.setitem(PLACEMENTS, "new", PLACEMENTS["pre_ln"])
    assert every("norm", "|").endswith("|new")
