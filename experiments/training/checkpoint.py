"""Checkpoints: everything that it takes to continue a run, or to write text, in one file.

`checkpoint.pt` is the newest, `checkpoint-STEP.pt` are those before it, `best.pt` is the one with
the least validation loss. Each is written whole or not at all, with a checksum of its content.
Nothing in a checkpoint is executed when it is read.
"""

import dataclasses
import hashlib
import logging
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import experiments.data.pretrained  # noqa: F401  a checkpoint may hold one of these, too
from experiments.data.tokenizer import TOKENIZERS, Tokenizer
from experiments.machine.console import one_line
from experiments.machine.files import atomic_file, sync_directory, typed_path
from experiments.machine.versions import versions
from gpt import GPT, ConfigError, GPTConfig, parameter_count

log = logging.getLogger(__name__)

NEWEST, BEST = "checkpoint.pt", "best.pt"
State = dict[str, Any]


def model_state(model: GPT, tokenizer: Tokenizer) -> State:
    """What it takes to build the model again and write text with it."""
    return {
        "model": model.state_dict(),
        "model_config": dataclasses.asdict(model.config),
        "tokenizer": {"name": tokenizer.name, "state": tokenizer.state()},
    }


def random_state() -> State:
    """The state of every random generator that a run draws from."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: State) -> None:
    """Put the generators back; those of absent devices stay as they are."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def checksum(state: State) -> str:
    """sha256 of nested state: of names, types, shapes and bytes.

    Raises ValueError for a tensor that repeats its storage, which could grow without limit.
    """
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, dict):
            digest.update(f"dict {len(value)}\n".encode())
            for name, item in value.items():
                digest.update(f"{name!r}\n".encode())
                add(item)
        elif isinstance(value, list | tuple):
            digest.update(f"list {len(value)}\n".encode())
            for item in value:
                add(item)
        elif isinstance(value, Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}\n".encode())
            if value.nbytes > value.untyped_storage().nbytes():
                raise ValueError("one of its tensors is larger than its content")
            flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(flat.numpy().data)
        else:
            digest.update(f"{value!r}\n".encode())

    add({name: item for name, item in state.items() if name != "sha256"})
    return digest.hexdigest()


def write_checkpoint(path: Path, state: State) -> None:
    """Write `state` with its checksum; readers see the old file or the whole new one."""
    with atomic_file(path) as file:
        try:
            torch.save(state | {"sha256": checksum(state)}, file)
        except RuntimeError as error:  # PyTorch's writer trips over what it could not write
            reason: BaseException | None = error
            while reason is not None and not isinstance(reason, OSError):
                reason = reason.__context__
            raise reason or error from None


def write_newest(directory: Path, state: State, previous: int | None, keep: int) -> None:
    """Write checkpoint.pt, and keep `keep` checkpoints in all.

    A sound checkpoint is there at every moment: the new one gets its name only when it is whole.

    previous  the step of the checkpoint.pt that is there, which gets a name of its own
    """
    newest, fresh = directory / NEWEST, directory / f"checkpoint-{state['step']}.pt"
    write_checkpoint(fresh, state)
    if previous is not None and previous != state["step"] and newest.is_file():
        os.replace(newest, directory / f"checkpoint-{previous}.pt")
    os.replace(fresh, newest)
    for path in older(directory)[keep - 1 :]:
        path.unlink()
    sync_directory(directory)


def older(directory: Path) -> list[Path]:
    """The checkpoints before the newest, the latest first."""
    found = {
        int(match[1]): path
        for path in directory.glob("checkpoint-*.pt")
        if (match := re.fullmatch(r"checkpoint-(\d+)\.pt", path.name))
    }
    return [found[step] for step in sorted(found, reverse=True)]


def checkpoints_in(directory: Path) -> list[Path]:
    """Those that a run could be resumed from, the newest first."""
    return [path for path in (directory / NEWEST, *older(directory)) if path.is_file()]


def delete_checkpoints(directory: Path) -> None:
    """Remove what a run could be resumed from; best.pt, which somebody asked for, stays."""
    for path in checkpoints_in(directory):
        try:
            path.unlink()
        except OSError as error:
            log.warning("%s was not removed: %s", path, one_line(error))


def read_checkpoint(path: Path) -> State:
    """A checkpoint's state, loaded without running anything.

    Raises ValueError where it is not sound, FileNotFoundError where there is none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed, as no checkpoint is")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or "sha256" not in state:
            raise ValueError("it has no checksum, as all have since version 0.3")
        if checksum(state) != state["sha256"]:
            raise ValueError("its content does not match its checksum")
    except FileNotFoundError:
        raise
    except Exception as error:  # torch.load has no exception of its own for a foreign file
        # PyTorch's advice is to load the file without protection.
        reason = one_line(error).rpartition("WeightsUnpickler error: ")[2]
        raise ValueError(re.split(r"\. |, please", reason, flags=re.IGNORECASE)[0]) from error
    return state


def newest_state(
    directory: Path, check: Callable[[State], None] = lambda state: None
) -> tuple[State, list[Path]]:
    """The newest sound checkpoint of a run, and the damaged ones before it, each with a warning.

    check  raises ValueError for a state that cannot be used

    Raises FileNotFoundError where there is none at all, ConfigError that names them where none is
    sound.
    """
    damaged: dict[Path, str] = {}
    for path in checkpoints_in(directory):
        try:
            state = read_checkpoint(path)
            check(state)
        except ValueError as error:
            damaged[path] = f"{path.name}: {one_line(error)[:200]}"
            continue
        for bad, reason in damaged.items():
            log.warning("%s cannot be used, %s is taken instead (%s)", bad, path.name, reason)
        return state, list(damaged)
    if damaged:
        reasons = "; ".join(damaged.values())
        valid = f"none of its checkpoints can be used ({reasons})"
        raise ConfigError("resume", str(directory), valid)
    raise FileNotFoundError(directory / NEWEST)


def warn_of_other_versions(state: State, device: str) -> None:
    """Warn where what computes the numbers is not what it was at the checkpoint."""
    for name, now in versions(device).items():
        before = state["versions"].get(name)
        if name == "gpu" and before is None:  # the versions up to 0.5 did not record it
            continue
        if name in ("python", "machine", "gpu", "torch", "normscope") and before != now:
            log.warning("the run began under %s %s and continues under %s", name, before, now)


def check_size(config: GPTConfig, weights: State) -> None:
    """Raise ValueError for a description of more than is held, before that much is allocated."""
    if config.n_layers > len(weights):  # a count takes time for each of them
        raise ValueError(f"it describes {config.n_layers} blocks and holds {len(weights)} tensors")
    described = parameter_count(config)
    held = sum(tensor.numel() for tensor in weights.values())
    if described > held:
        raise ValueError(f"it describes {described} parameters and holds {held}")


def load_model(
    path: str, device: torch.device, setting: str = "generate.checkpoint"
) -> tuple[GPT, Tokenizer]:
    """The model and tokenizer of a checkpoint file, or of a run directory's newest checkpoint.

    setting  by which the path was given

    Raises ConfigError where there is none, it cannot be read or has weights that are not finite.
    Nothing in the file is executed.
    """
    file = typed_path(path)
    try:
        state = newest_state(file)[0] if file.is_dir() else read_checkpoint(file)
        config = GPTConfig.from_values(state["model_config"])
        check_size(config, state["model"])
        model = GPT(config)
        model.load_state_dict(state["model"])
        stored = state["tokenizer"]
        tokenizer = TOKENIZERS[stored["name"]].restore(stored["state"])
    except FileNotFoundError:
        raise ConfigError(
            setting,
            path,
            "must name a run directory that has a checkpoint.pt; a finished job of a sweep has one "
            "with sweep.keep_checkpoints=true",
        ) from None
    except Exception as error:  # whatever a foreign file brings
        raise ConfigError(
            setting, path, f"is not a checkpoint of this project ({one_line(error)})"
        ) from error
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            valid = f"its {name} has NaN or infinity in it: the run diverged"
            raise ConfigError(setting, path, valid)
    return model.to(device), tokenizer
