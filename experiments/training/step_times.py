"""Times a training step under each placement against one under Pre-LN, in turn in one process."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from experiments.analysis.step_times import CSV, REFERENCE, StepTime, read_step_times, rows_of
from experiments.machine.console import ReportProgress
from experiments.machine.device import device_name, pick_device
from experiments.machine.files import write_atomically
from experiments.machine.turns import Step, Timed, quartiles, ratios, take_turns
from experiments.machine.versions import versions
from experiments.settings.schema import Settings
from experiments.training.build import build_model
from experiments.training.loss import language_model_loss
from experiments.training.optimizer import make_optimizer

log = logging.getLogger(__name__)

VOCABULARY = 64  # of random tokens: a large head would hide what differs between the blocks


def step_times(
    models: Mapping[str, Settings], rounds: int, folder: Path, report: ReportProgress
) -> list[StepTime]:
    """Of each placement but Pre-LN, which must be among `models`, measured two at a time.

    What was measured in `folder` under the same conditions is read there. What is new is written at
    once, so that an interruption loses the rounds of one placement. One whose step raises has none.
    """
    known, found = read_step_times(folder), list[StepTime]()
    for done, name in enumerate(models, start=1):
        if name != REFERENCE:
            pair = {REFERENCE: models[REFERENCE], name: models[name]}
            conditions = conditions_of(pair, rounds)
            time = next((time for time in known if time.fits(conditions)), None)
            if time is None and (ratio := measured(pair, rounds)) is not None:
                time = StepTime(**conditions, **ratio)
                known.append(time)
                table = pd.DataFrame(rows_of(known)).to_csv(index=False)
                write_atomically(folder / CSV, table.encode())
            if time is not None:
                found.append(time)
        report(done, name)
    return found


def conditions_of(pair: Mapping[str, Settings], rounds: int) -> dict[str, Any]:
    """All of a StepTime that is known before it is measured, of the second of a pair."""
    *_, (placement, settings) = pair.items()
    computed = [
        (
            dataclasses.asdict(each.model_config(VOCABULARY)),
            each.optimizer.name,
            each.trainer.clip is not None,
        )
        for each in pair.values()
    ]
    known = versions()
    return {
        "placement": placement,
        "rounds": rounds,
        "layers": settings.model.n_layers,
        "width": settings.model.emb_dim,
        "tokens": settings.trainer.batch_size * settings.sequence_length,
        "precision": settings.trainer.precision,
        "device": device_name(pick_device(settings.device)),
        "threads": torch.get_num_threads(),
        "torch": known["torch"],
        "normscope": known["normscope"],
        "models": hashlib.sha256(json.dumps(computed).encode()).hexdigest()[:12],
    }


def measured(pair: Mapping[str, Settings], rounds: int) -> dict[str, Any] | None:
    """The ratio and the seconds of the second of a pair; None, and a warning, where a step raises.

    Eager steps, whatever trainer.compile says: compiling takes longer than all rounds.
    """
    device = pick_device(next(iter(pair.values())).device)
    found = {name: Timed() for name in pair}
    steps = {name: step_of(settings, device) for name, settings in pair.items()}
    take_turns(steps, found, rounds, device, lambda done, note="": None)
    for name, timed in found.items():
        if timed.error is not None:
            log.warning("a step of norm=%s could not be timed: %s", name, timed.error)
            return None
    reference, own = (timed.seconds for timed in found.values())
    low, middle, high = quartiles(ratios(own, reference))
    return {"ratio": middle, "ratio_low": low, "ratio_high": high, "seconds": quartiles(own)[1]}


def step_of(settings: Settings, device: torch.device) -> Step:
    """Forward, backward, clipping and optimizer, on random tokens; nothing is recorded."""
    torch.manual_seed(settings.seed)
    model = build_model(settings.model_config(VOCABULARY), settings, device)
    optimizer, parameters = make_optimizer(model, settings.optimizer), list(model.parameters())
    shape = (settings.trainer.batch_size, settings.sequence_length + 1)
    text = torch.randint(VOCABULARY, shape, device=device)

    def step(number: int) -> None:
        loss = language_model_loss(model, text[:, :-1], text[:, 1:], settings.trainer.precision)
        loss.backward()
        if settings.trainer.clip is not None:
            nn.utils.clip_grad_norm_(parameters, settings.trainer.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
