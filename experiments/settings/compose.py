"""From Hydra's config to values, once, and from values to settings, once."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, TypeVar, cast, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from experiments.machine.files import hide_home, safe_file_name, typed_path
from experiments.settings.identity import RENAMED
from experiments.settings.schema import Settings
from gpt import ConfigError
from gpt.registry import ACTIVATIONS, NORMS, PLACEMENTS, choice_hint

S = TypeVar("S")

TABLES = {"norm": PLACEMENTS, "norm.kind": NORMS, "activation": ACTIVATIONS}


def schema_of(kind: type) -> type:
    """A mutable twin of a dataclass, field by field: OmegaConf makes frozen ones read-only.

    It stands in this module under a name of its own, by which the processes of a sweep find it: one
    that is pickled whole comes back without its defaults.
    """
    hints = get_type_hints(kind)
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
OmegaConf.register_new_resolver("every", every, replace=True)
OmegaConf.register_new_resolver("file_name", safe_file_name, replace=True)
OmegaConf.register_new_resolver("first_of", lambda *given: next(filter(None, given)), replace=True)


def to_values(config: DictConfig) -> dict[str, Any]:
    """A composed config as nested dictionaries, each value resolved, the home directory as ~.

    The path of the text is absolute, so that the run can be resumed from any folder.
    """
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    data = cast(dict[str, Any], values)["data"]
    if data["path"] is not None:
        data["path"] = os.path.abspath(typed_path(data["path"]))
    return cast(dict[str, Any], hide_home(values))


def from_values(values: Mapping[str, Any]) -> Settings:
    """Checked settings from nested dictionaries."""
    settings = build_dataclass(Settings, values)
    settings.check()
    return settings


def build_dataclass(kind: type[S], values: Any, prefix: str = "") -> S:
    """An instance of the dataclass `kind` from nested dictionaries.

    Raises ConfigError for a name that no field has.
    """
    hints = get_type_hints(kind)
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


def unknown_setting(name: str) -> str:
    """What could have been meant by the name of a setting that does not exist."""
    if name in RENAMED:
        return f"no such setting; its name is now {RENAMED[name]}"
    parents = name.split(".")[:-1]
    known = [other for other in setting_names() if other.split(".")[:-1] == parents]
    return "no such setting; " + choice_hint(name, known or setting_names())


def setting_names(kind: Any = Settings, prefix: str = "") -> list[str]:
    """Every setting's dotted name, sections first."""
    names = []
    for name, hint in get_type_hints(kind).items():
        names.append(prefix + name)
        if dataclasses.is_dataclass(hint):
            names += setting_names(hint, f"{prefix}{name}.")
    return names
