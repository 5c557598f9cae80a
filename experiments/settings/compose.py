"""From Hydra's config to values, once, and from values to settings, once."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.machine.files import hide_home, safe_file_name, typed_path
from experiments.settings.identity import RENAMED, flatten
from experiments.settings.schema import Settings
from gpt import ConfigError
from gpt.checks import ANYTHING, Valid, hints_of, in_words, valid_of
from gpt.registry import ACTIVATIONS, NORMS, PLACEMENTS, choice_hint

S = TypeVar("S")

TABLES = {"norm": PLACEMENTS, "norm.kind": NORMS, "activation": ACTIVATIONS}


def schema_of(kind: type) -> type:
    """A mutable twin of a dataclass, field by field: OmegaConf makes frozen ones read-only.

    It stands in this module under a name of its own, by which the processes of a sweep find it: one
    that is pickled whole comes back without its defaults.
    """
    hints = hints_of(kind)
    twins = []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            hint = schema_of(cast(type, hint))
            default: Any = dataclasses.field(default_factory=hint)
        elif field.default_factory is not dataclasses.MISSING:
            default = dataclasses.field(default_factory=field.default_factory)
        elif field.default is dataclasses.MISSING:
            default = dataclasses.field(default=MISSING)
        else:
            default = dataclasses.field(default=field.default)
        twins.append((field.name, hint, default))
    twin = dataclasses.make_dataclass(
        f"{kind.__name__}Schema", twins, namespace={"__module__": __name__}
    )
    globals()[twin.__name__] = twin
    return twin


SCHEMA = schema_of(Settings)


def every(table: str, between: str = ",") -> str:
    """All names of a table, for the YAML files that would list them: `${every:norm}`."""
    return between.join(TABLES[table])


def open_schema() -> DictConfig:
    """The schema with a place for options of any name, which the placement then checks.

    Hydra would refuse a name that the chosen YAML file lacks, before a resumed run or the job of a
    sweep has said which placement it has.
    """
    schema = OmegaConf.structured(SCHEMA)
    OmegaConf.set_struct(schema.norm.options, False)
    return cast(DictConfig, schema)


ConfigStore.instance().store(name="schema", node=open_schema())
# There is one store, and Hydra copies what it takes from it. It copies all of it besides, once for
# each composition and a hundred times for --help, which then takes a second longer.
ConfigStore.__deepcopy__ = lambda store, copies: store  # type: ignore[attr-defined]
OmegaConf.register_new_resolver("every", every, replace=True)
OmegaConf.register_new_resolver("file_name", safe_file_name, replace=True)
OmegaConf.register_new_resolver("first_of", lambda *given: next(filter(None, given)), replace=True)


def to_values(config: DictConfig) -> dict[str, Any]:
    """A composed config as nested dictionaries, each value resolved, the home directory as ~.

    The path of the text is absolute, so that the run can be resumed from any folder. Raises
    ConfigError for a reference to nothing, and for a value that is missing.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        unresolved = cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))
        name, reason = str(error.full_key), str(error).strip().splitlines()[0]
        raise ConfigError(name, dict(flatten(unresolved)).get(name), reason) from None
    data = cast(dict[str, Any], values)["data"]
    if data["path"]:
        data["path"] = os.path.abspath(typed_path(data["path"]))
    return cast(dict[str, Any], hide_home(values))


def literal(value: Any) -> Any:
    """Nested `value` as OmegaConf must be given it to leave ${...} in it as it stands."""
    if isinstance(value, dict):
        return {key: literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [literal(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    return value


def from_values(values: Mapping[str, Any]) -> Settings:
    """Checked settings from nested dictionaries."""
    settings = build_dataclass(Settings, values)
    settings.check()
    return settings


def build_dataclass(kind: type[S], values: Any, prefix: str = "") -> S:
    """An instance of the dataclass `kind` from nested dictionaries.

    Raises ConfigError for a name that no field has.
    """
    hints = hints_of(kind)
    for name in values:
        if name not in hints:
            full = f"{prefix}{name}"
            raise ConfigError(full, values[name], unknown_setting(full))
    built = {
        name: build_dataclass(hints[name], value, f"{prefix}{name}.")
        if dataclasses.is_dataclass(hints[name])
        else value
        for name, value in values.items()
    }
    return kind(**built)


# What else the field calls a setting.
OTHER_NAMES = {
    "trainer.steps": "epochs iters iterations max_iters max_steps num_steps train_steps updates",
    "trainer.batch_size": "batch bs batchsize",
    "trainer.sequence_length": "seq_len seq_length seqlen",
    "trainer.accumulate": "accumulation grad_accum gradient_accumulation_steps",
    "trainer.clip": "clip_grad grad_clip gradient_clip max_grad_norm",
    "trainer.precision": "amp dtype",
    "trainer.eval_every": "eval_interval",
    "trainer.log_every": "log_interval",
    "trainer.checkpoint_every": "save_every save_interval",
    "optimizer": "opt optim",
    "optimizer.lr": "learning_rate",
    "optimizer.weight_decay": "decay wd",
    "optimizer.betas": "beta beta1 beta2",
    "schedule": "lr_schedule lr_scheduler scheduler",
    "schedule.warmup_steps": "num_warmup_steps warm_up warmup warmup_iters",
    "model.n_layers": "blocks depth layers n_blocks n_layer num_layers",
    "model.n_heads": "heads n_head num_heads",
    "model.emb_dim": "d_model dim embed_dim embedding_dim hidden_size n_embd width",
    "model.context_length": "block_size context context_size ctx max_length n_ctx",
    "model.drop_rate": "drop dropout p_drop",
    "model.tie_head": "tie tie_weights tied weight_tying",
    "norm": "norm_type placement",
    "norm.qk": "qk_layernorm qk_norm qk_width use_qk_norm",
    "activation": "act nonlinearity",
    "init.std": "init_std initializer_range",
    "init.embedding_std": "embedding_init_std embed_init_std embed_std",
    "data": "corpus dataset",
    "data.path": "file text text_file",
    "device": "cuda gpu",
    "threads": "n_jobs num_threads num_workers workers",
    "generate.tokens": "max_new_tokens new_tokens",
    "generate.temperature": "temp",
    "wandb.mode": "wandb_mode",
    "wandb.name": "name run_name",
    "hydra.run.dir": "dir out out_dir outdir output output_dir run_dir save_dir",
}


def unknown_setting(name: str) -> str:
    """What could have been meant by the name of a setting that does not exist."""
    if name in RENAMED:
        return f"no such setting; its name is now {RENAMED[name]}"
    if meant := meant_settings(name):
        return f"no such setting; did you mean {' or '.join(map(repr, meant))}?"
    return "no such setting; " + choice_hint(name, siblings(name, setting_names()))


def siblings(name: str, names: Sequence[str]) -> Sequence[str]:
    """Those of dotted `names` that are in the section of `name`; all of them if there is none."""
    section = name.rpartition(".")[0]
    return [other for other in names if other.rpartition(".")[0] == section] or names


def meant_settings(name: str) -> list[str]:
    """Settings that the last part of a dotted name stands for, by another word or in full."""
    last = name.rpartition(".")[2].lower()
    by_word = [setting for setting, words in OTHER_NAMES.items() if last in words.split()]
    return by_word or [other for other in setting_names() if other.rpartition(".")[2] == last]


def setting_names() -> list[str]:
    """Every setting's dotted name, sections first."""
    return list(setting_fields())


def setting_fields(kind: Any = Settings, prefix: str = "") -> dict[str, tuple[Any, Valid]]:
    """The type of every setting, and what is valid beside it, by dotted name, sections first."""
    hints = hints_of(kind)
    found: dict[str, tuple[Any, Valid]] = {}
    for field in dataclasses.fields(kind):
        name, hint = prefix + field.name, hints[field.name]
        found[name] = (hint, valid_of(field))
        if dataclasses.is_dataclass(hint):
            found |= setting_fields(hint, f"{name}.")
    return found


def wrong_value(name: str, value: str) -> ConfigError:
    """The error of a value, as typed, that is not of its setting's type."""
    hint, valid = setting_fields().get(name, (Any, ANYTHING))
    parts = [other for other in setting_names() if other.rpartition(".")[0] == name]
    if parts:
        return ConfigError(name, value, f"is a section; set its parts: {', '.join(parts)}")
    return ConfigError(name, value, f"must be {in_words(hint, valid)}")
