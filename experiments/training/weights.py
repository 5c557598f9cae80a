"""Weights in the files of the Hub: read into a model, and written from one."""

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.machine.console import one_line
from experiments.machine.files import typed_path
from experiments.settings.weights import CONFIG, read_description
from gpt import GPT, ConfigError, GPTConfig
from gpt.count import meta_model
from gpt.families import Family, load, stored

log = logging.getLogger(__name__)

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
Shapes = Mapping[str, tuple[int, ...]]
SHARD_BYTES = 5 * 10**9  # of one file, as the Hub's other libraries write them


def safetensors() -> Any:
    """The library; ConfigError that says how to install it."""
    try:
        import safetensors.torch
    except ImportError:
        valid = 'needs the library safetensors: pip install -c constraints.txt -e ".[hub]"'
        raise ConfigError("model.weights", None, valid) from None
    return safetensors


def load_weights(model: GPT, directory: str) -> None:
    """Copy the weights in a directory into the model, tensor by tensor.

    The model may have another placement than the one that was trained, as long as every tensor has
    a place in it and every parameter a tensor. Raises ConfigError with the names that do not fit.
    """
    family, trained = read_description(directory)
    check_fit(model.config, trained, directory)
    placement, before = model.config.norm.placement, trained.norm.placement
    if placement != before:
        log.warning(
            "the weights were trained with %s: with %s they are another function until it is "
            "trained, too",
            before,
            placement,
        )
    files = files_of(directory)
    library = safetensors()

    def read(name: str) -> Tensor:
        # Opened anew for each tensor: an open file keeps in memory all that was read of it.
        with library.safe_open(files[name], framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    try:
        load(model, family, files, read)
    except ConfigError as error:
        raise ConfigError("model.weights", directory, one_line(error)) from None
    except Exception as error:  # the library has a class of its own, which it does not export
        valid = f"its files cannot be read: {one_line(error)}"
        raise ConfigError("model.weights", directory, valid) from None


def check_fit(config: GPTConfig, trained: GPTConfig, directory: str) -> None:
    """Raise ConfigError for a model with other parameters than the trained, or of other shapes."""
    placement, before = config.norm.placement, trained.norm.placement
    ours, theirs = (parameter_shapes(each) for each in (config, trained))
    if placement != before and ours.keys() != theirs.keys():
        added = theirs.keys() - ours.keys()
        final = any(name.startswith("final_norm.") for name in added)
        hint = "; norm.final=true keeps the norm before the head" if final else ""
        valid = f"{what_lacks(ours, theirs, directory)}, trained with {before}{hint}"
        raise ConfigError("norm.placement", placement, valid)
    if ours != theirs:
        valid = f"with the settings typed, it {what_lacks(ours, theirs, directory)}"
        raise ConfigError("model.weights", directory, valid)


def what_lacks(ours: Shapes, theirs: Shapes, directory: str) -> str:
    """In words, a parameter of one model that the other does not have, or not of that shape."""
    if added := theirs.keys() - ours.keys():
        return f"has no place for {in_short(added)}, which {directory} has"
    if lacking := ours.keys() - theirs.keys():
        return f"needs {in_short(lacking)}, which {directory} does not have"
    name = next(name for name in ours if ours[name] != theirs[name])
    return f"needs {name} of the shape {ours[name]}, and {directory} has it of {theirs[name]}"


def parameter_shapes(config: GPTConfig) -> Shapes:
    """Of a model that is not made."""
    named = meta_model(config).named_parameters()
    return {name: tuple(parameter.shape) for name, parameter in named}


def in_short(names: Collection[str]) -> str:
    """The first of some names, and how many more there are."""
    first, more = min(names), len(names) - 1
    return f"{first} and {more} more" if more else first


def files_of(directory: str) -> dict[str, Path]:
    """The file of each tensor by the tensor's name. Raises ConfigError."""
    folder = typed_path(directory)
    try:
        if (folder / INDEX).is_file():
            found = shards_in(folder / INDEX)
            if missing := [path.name for path in set(found.values()) if not path.is_file()]:
                raise FileNotFoundError(f"{INDEX} names {min(missing)}, which is not there")
            return found
        if not (folder / SINGLE).is_file():
            raise FileNotFoundError(f"it has neither {SINGLE} nor {INDEX}")
        with safetensors().safe_open(folder / SINGLE, framework="pt") as file:
            return dict.fromkeys(file.keys(), folder / SINGLE)
    except ConfigError:
        raise
    except Exception as error:  # as in load_weights, and an index of another form
        valid = f"its weights cannot be read: {one_line(error)}"
        raise ConfigError("model.weights", directory, valid) from None


def shards_in(index: Path) -> dict[str, Path]:
    """The file of each tensor, as an index has them, without a look at whether they are there.

    Raises ValueError for an index of another form.
    """
    content = json.loads(index.read_text(encoding="utf-8"))
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(file, str) for file in shards.values()):
        raise ValueError(f"weight_map in {INDEX} must have the name of a file for each tensor")
    return {name: index.parent / Path(file).name for name, file in shards.items()}


def write_weights(model: GPT, family: Family, folder: Path, dtype: torch.dtype) -> list[Path]:
    """Write config.json and the weights as the family stores them; returns the files.

    A model of more than SHARD_BYTES is cut into several files, with an index.
    """
    values = family.values(model.config) | {"dtype": str(dtype).removeprefix("torch.")}
    description = folder / CONFIG
    description.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    names = [*shards_of(stored(model, family), dtype.itemsize)]
    paths = [folder / SINGLE]
    if len(names) > 1:
        of = f"of-{len(names):05}.safetensors"
        paths = [folder / f"model-{number:05}-{of}" for number in range(1, len(names) + 1)]
        write_index(folder, dict(zip(paths, names, strict=True)), model, dtype)
    tensors = stored(model, family)
    for path, inside in zip(paths, names, strict=True):
        content = {name: next(tensors)[1].to(dtype).contiguous().cpu() for name in inside}
        safetensors().torch.save_file(content, path, metadata={"format": "pt"})
    return [description, *paths]


def shards_of(tensors: Iterator[tuple[str, Tensor]], itemsize: int) -> Iterator[list[str]]:
    """Names of the tensors of each file, in their order."""
    names: list[str] = []
    size = 0
    for name, tensor in tensors:
        if names and size + tensor.numel() * itemsize > SHARD_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += tensor.numel() * itemsize
    yield names


def write_index(folder: Path, files: dict[Path, list[str]], model: GPT, dtype: torch.dtype) -> None:
    """Write which tensor is in which file."""
    total = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    places = {name: path.name for path, names in files.items() for name in names}
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def fitting_family(config: GPTConfig, families: dict[str, Family], wanted: str | None) -> Family:
    """The family that is wanted, or the first that can say what the config says.

    Raises ConfigError with what keeps each from it.
    """
    reasons = []
    for name, family in families.items():
        if wanted in (None, name):
            try:
                family.values(config)
                return family
            except ConfigError as error:
                reasons.append(f"{name}: {one_line(error)}")
    raise ConfigError("export.family", wanted, f"no published family fits ({'; '.join(reasons)})")
