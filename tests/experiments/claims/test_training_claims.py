"""Claims about training, on made runs whose numbers and verdicts are known."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

import run
from experiments.analysis.runs import Run
from experiments.claims import CLAIMS, inside, rates, training
from experiments.claims.claim import Evidence
from experiments.claims.lab import Lab, Untrained
from experiments.claims.rule import (
    FAILS,
    HOLDS,
    INVALID,
    LOOKS,
    NO_EFFECT,
    OPEN,
    OPPOSITE,
    judge,
    verdict_of,
)
from experiments.jobs.check import checked_settings
from experiments.records.summary import CorpusSummary, Summary
from experiments.settings.compose import to_values

FREQUENCIES, INITIAL, LEARNT, STUCK = 3.0, 4.5, 2.4, 2.99
# deepnet_chain takes its steps itself; all others read runs.
TRAINING = [c.name for c in CLAIMS.values() if c.trains and c.name != "deepnet_chain"]

Settings = Mapping[str, str]  # an arm's overrides by name
LossOf = Callable[[Settings], float]


class MadeLab(Lab):
    """Gives each arm a made run, and keeps which arms were asked for."""

    def __init__(self, make: Callable[[Settings, int], Run]) -> None:
        super().__init__()
        self.make, self.asked = make, dict[tuple[str, ...], None]()

    def runs(self, arms: Mapping[str, Sequence[str]], seed: int) -> dict[str, Run]:
        self.asked |= dict.fromkeys(map(tuple, arms.values()))
        return {name: self.make(settings_of(o), seed) for name, o in arms.items()}


def settings_of(overrides: Iterable[str]) -> Settings:
    return dict(override.split("=", 1) for override in overrides)  # the last of a name counts


def made(loss: float, seed: int = 0, directory: Path = Path("nowhere"), **summary: Any) -> Run:
    """A run that finished with this loss, a little above it with each seed, or diverged (inf)."""
    outcome: dict[str, Any] = {"status": "diverged"}
    if math.isfinite(loss):
        outcome = {"status": "finished", "val_loss": loss + 1e-4 * (seed % 7)}
    corpus = CorpusSummary(unigram_validation_loss=FREQUENCIES)
    known = {"seed": seed, "initial_val_loss": INITIAL, "corpus": corpus}
    return Run(directory, Summary(**known | outcome | summary))


def verdict(name: str, loss_of: LossOf, seeds: int = LOOKS[1]) -> str:
    """The verdict of a claim after made runs of as many seeds."""
    claim, lab = CLAIMS[name], MadeLab(lambda settings, seed: made(loss_of(settings), seed))
    found = [claim.measure(lab, seed).values for seed in range(seeds)]
    values = {p.name: [of_seed[p.name] for of_seed in found] for p in claim.predictions}
    return verdict_of(claim, judge(claim, values))


def is_arm(settings: Settings, arm: Settings) -> bool:
    return all(settings.get(name) == value for name, value in arm.items())


def losses(*special: tuple[Settings, float], usual: float = LEARNT) -> LossOf:
    """The loss of the first arm that fits, else the usual one."""

    def loss_of(settings: Settings) -> float:
        return next((loss for arm, loss in special if is_arm(settings, arm)), usual)

    return loss_of


POST = {"norm": "post_ln"}
POST_COLD = POST | {"schedule.warmup_steps": "0"}
POST_PLAIN = POST | {"init": "xavier"}
HYBRID, PRE, DYT = {"norm": "hybrid"}, {"norm": "pre_ln"}, {"norm.kind": "dyt"}
LONG = {"trainer.steps": str(rates.LONG)}
SCALED = {"norm": "ln_scaling", "init": "gpt2_scaled"}


@pytest.mark.parametrize(
    ("name", "loss_of", "expected"),
    [
        ("warm_up", losses((POST_COLD, STUCK)), HOLDS),
        ("warm_up", losses((POST_COLD, math.inf)), HOLDS),  # diverged: it does not learn
        ("warm_up", losses(), FAILS),  # Post-LN learns without
        ("warm_up", losses((POST, STUCK)), INVALID),  # it does not recover
        ("warm_up", losses((POST_COLD, STUCK), (PRE | {"schedule.warmup_steps": "0"}, 2.5)), FAILS),
        ("deepnorm_trains", losses((POST_COLD, STUCK)), HOLDS),
        ("deepnorm_trains", losses(({"norm": "deepnorm"}, STUCK), (POST_COLD, STUCK)), FAILS),
        ("deepnorm_trains", losses(({"norm": "deepnorm"}, STUCK)), INVALID),  # Post-LN learns
        ("deepnorm_trains", losses((PRE, STUCK), (POST_COLD, STUCK)), INVALID),
        ("deepnorm_init", losses((POST_PLAIN, STUCK)), HOLDS),
        ("deepnorm_init", losses((POST, STUCK)), FAILS),
        ("deepnorm_init", losses(), INVALID),  # so does Post-LN as it is
        ("deepnorm_shortcut", losses((POST, STUCK)), HOLDS),
        ("deepnorm_shortcut", losses(usual=STUCK), INVALID),
        ("init_trains", losses((POST_PLAIN, STUCK)), HOLDS),
        ("init_trains", losses((POST, STUCK)), FAILS),
        ("init_trains", losses((POST | {"init": "gpt2"}, STUCK)), INVALID),
        ("hybrid_trains", losses((HYBRID | {"init": "xavier"}, STUCK)), HOLDS),
        ("hybrid_trains", losses((HYBRID, STUCK)), NO_EFFECT),  # within the margin of nothing
        ("hybrid_loss", losses((HYBRID, LEARNT - 0.03)), HOLDS),
        ("hybrid_loss", losses((HYBRID, LEARNT - 0.01)), NO_EFFECT),
        ("hybrid_loss", losses((HYBRID, LEARNT + 0.03)), OPPOSITE),
        ("post_ln_better", losses((POST | LONG, LEARNT - 0.1)), HOLDS),
        ("post_ln_better", losses((LONG, LEARNT), (POST, LEARNT - 0.1)), NO_EFFECT),  # the long run
        ("post_ln_better", losses((POST, STUCK)), INVALID),  # both have to train
        ("dyt", losses((DYT, LEARNT + 0.01)), HOLDS),
        ("dyt", losses((DYT, LEARNT + 0.03)), FAILS),
        ("dyt", losses((DYT | {"optimizer.lr": "1e-2"}, LEARNT), (DYT, STUCK)), HOLDS),  # its best
        ("ln_scaling_init", losses((SCALED, LEARNT + 0.01)), HOLDS),
        ("ln_scaling_init", losses((SCALED, LEARNT - 0.01)), OPPOSITE),
    ],
)
def test_losses_become_verdicts(name: str, loss_of: LossOf, expected: str) -> None:
    assert verdict(name, loss_of) == expected


@pytest.mark.parametrize("name", TRAINING)
def test_a_failed_run_leaves_every_claim_open(name: str) -> None:
    def make(settings: Settings, seed: int) -> Run:
        return Run(Path("nowhere"), Summary(status="failed", seed=seed))

    claim = CLAIMS[name]
    values = claim.measure(MadeLab(make), 0).values
    for prediction in claim.predictions:
        if prediction.kind:
            assert math.isnan(values[prediction.name]), prediction.name


@pytest.mark.parametrize("first", range(7))
def test_bisection_finds_the_first_success(first: int) -> None:
    asked = []

    def succeeds(index: int) -> float:
        asked.append(index)
        return float(index >= first)

    assert training.smallest(6, succeeds) == first
    assert len(asked) <= 3


def test_bisection_ends_at_an_unknown_outcome() -> None:
    assert math.isnan(training.smallest(6, lambda index: math.nan if index == 3 else 1.0))


def test_what_several_tasks_lack_is_asked_for_at_once() -> None:
    lab = Lab()
    tasks = {
        "first": lambda: training.learnt(training.one(lab, ["a=1"], 3)),
        "known": lambda: 2.0,
        "second": lambda: training.learnt(training.one(lab, ["b=1"], 3)),
    }
    with pytest.raises(Untrained) as request:
        training.together(tasks)
    assert request.value.runs == [(("a=1",), 3), (("b=1",), 3)]
    lab.trained = {request.value.runs[0]: made(2.5), request.value.runs[1]: made(2.75)}
    assert training.together(tasks) == {"first": 0.5, "known": 2.0, "second": 0.25}


def test_the_warm_up_that_is_needed() -> None:
    """Post-LN learns with 5 steps a block at least; Pre-LN with any. Each takes three runs."""

    def loss_of(settings: Settings) -> float:
        needed = 5 * int(settings["model.n_layers"]) * (settings["norm"] == "post_ln")
        return LEARNT if int(settings["schedule.warmup_steps"]) >= needed else STUCK

    lab = MadeLab(lambda settings, seed: made(loss_of(settings)))
    values = CLAIMS["warm_up_depth"].measure(lab, 0).values
    rungs = [training.LADDER.index(steps) for steps in (10, 20, 40)]
    for depth, rung in zip((2, 4, 8), rungs, strict=True):
        assert values[f"post_ln: rungs at {depth} blocks"] == rung
    assert values["post_ln: 8 blocks need more warm-up than 2"] == 1
    assert values["pre_ln, 8 blocks: share that needs none"] == 1
    assert values["post_ln, 2 blocks: share with a warm-up that is enough"] == 1
    assert len(lab.asked) <= 3 * 4
    assert verdict("warm_up_depth", loss_of, LOOKS[0]) == OPEN  # six equal outcomes are too few
    assert verdict("warm_up_depth", loss_of) == HOLDS
    assert verdict("warm_up_depth", losses((PRE, STUCK))) == FAILS  # Pre-LN needs some
    assert verdict("warm_up_depth", losses(usual=STUCK)) == INVALID


def test_the_rates_that_can_be_used() -> None:
    """A rate can be used where a run learns half of what Pre-LN does at the usual rate."""
    limits = {("post_ln", "null"): 1e-2, ("pre_ln", "null"): 3e-2, ("pre_ln", "true"): 3e-1}
    enough, too_little = FREQUENCIES - 0.31, FREQUENCIES - 0.29  # of the 0.6 at the usual rate

    def loss_of(settings: Settings) -> float:
        rate, of = float(settings["optimizer.lr"]), (settings["norm"], settings["norm.qk"])
        if of == ("pre_ln", "null") and settings["optimizer.lr"] == training.RATE:
            return LEARNT
        return enough if rate <= limits[of] else too_little

    lab = MadeLab(lambda settings, seed: made(loss_of(settings)))
    found = CLAIMS["usable_rate"].measure(lab, 0).values
    assert found["post_ln: usable rates"] == rates.LARGE.index("1e-2") + 1
    assert found["pre_ln: usable rates"] == rates.LARGE.index("3e-2") + 1
    assert found["pre_ln: more usable rates than post_ln"] == 1
    found = CLAIMS["usable_rate_qk_norm"].measure(lab, 0).values
    assert found["QK-norm: usable rates"] == rates.LARGE.index("3e-1") + 1
    assert found["QK-norm: more usable rates than pre_ln"] == 1
    for name in ("usable_rate", "usable_rate_qk_norm"):
        assert verdict(name, loss_of) == HOLDS
        assert verdict(name, losses()) == INVALID  # no rate is too large


def test_sensitivities() -> None:
    """A mean over the grid of min(final, initial) less the best, by hand."""
    last, count = rates.GRID[-1], len(rates.GRID)
    diverges = losses(
        ({"norm.qk": "true"}, 2.0),
        ({"optimizer.lr": last, "model.n_layers": "2"}, 2.5),
        ({"optimizer.lr": last}, math.inf),
        usual=2.0,
    )
    lab = MadeLab(lambda settings, seed: made(diverges(settings)))
    expected = (INITIAL - 2.0) / count  # a run that diverged counts with its initial loss
    values = CLAIMS["lr_qk_norm"].measure(lab, 0).values
    assert values["pre_ln: sensitivity (nats)"] == pytest.approx(expected)
    assert values["pre_ln less QK-norm: sensitivity (nats)"] == pytest.approx(expected)
    values = CLAIMS["lr_depth"].measure(lab, 0).values
    of_depth = values["pre_ln less 2 blocks: sensitivity (nats)"]
    assert of_depth == pytest.approx(expected - 0.5 / count)
    values = CLAIMS["lr_warm_up"].measure(lab, 0).values
    assert values["no warm-up less pre_ln: sensitivity (nats)"] == 0.0


Layered = Mapping[tuple[str, str], Sequence[float]]  # of each block, by component and statistic


def write_gradients(folder: Path, steps: Mapping[int, Layered]) -> Path:
    """A gradients.csv with these values at these steps."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"step": step, "layer": layer, "component": component, "stat": stat, "value": value}
        for step, values in steps.items()
        for (component, stat), by_block in values.items()
        for layer, value in enumerate(by_block)
    ]
    pd.DataFrame(rows).to_csv(folder / "gradients.csv", index=False)
    return folder


BLOCKS = range(inside.DEPTH)


def layered(rate: float, variance: float, scale: float = 1.0) -> Layered:
    """Powers of a rate over the blocks. The first and the last, which are out of line, are left
    out of trends."""
    powers = [rate**block for block in BLOCKS]
    dropped = [0.0, *powers[1:-1], 0.1] if rate < 1 else [50.0, *powers[1:-1], 0.0]
    return {
        ("block", "layer_drop"): dropped,
        ("block", "angular_distance"): [0.1 * drop for drop in dropped],
        ("output", "activation_variance"): [variance * (block + 1) for block in BLOCKS],
        (inside.W_2, "grad_norm"): [scale * power for power in powers],
        ("block", "grad_norm"): [scale * power for power in powers],
    }


def probed_lab(folder: Path, of: Mapping[str, tuple[float, float]]) -> MadeLab:
    """Runs whose gradients fall by a rate per block, and whose variance grows by a factor."""

    def make(settings: Settings, seed: int) -> Run:
        rate, grown = of[settings["norm"]]
        steps = {0: layered(1.0, 2.0, 100.0)}  # step 0 is left out of gradients
        steps |= {step: layered(rate, 2.0 * grown) for step in (60, 120)}
        return made(LEARNT, seed, write_gradients(folder / settings["norm"], steps))

    return MadeLab(make)


def test_what_is_read_of_a_run(tmp_path: Path) -> None:
    """Growths, trends and ratios, from made files with known answers."""
    of = {
        "pre_ln": (0.5, 8.0),
        "post_ln": (2.0, 1.0),
        "ln_scaling": (0.5, 2.0),
        "peri_ln": (0.5, 4.0),
        "normformer": (0.75, 2.0),
        "mix_ln": (1.0, 2.0),
    }
    lab, last = probed_lab(tmp_path, of), inside.DEPTH - 1
    found: dict[str, float] = {}
    names = ("growth_ln_scaling", "growth_peri_ln", "idle_layers", "idle_layers_post")
    for name in (*names, "early_gradients", "normformer", "late_gradients", "mix_ln_gradients"):
        found |= CLAIMS[name].measure(lab, 0).values
    powers = pd.Series([0.5**block for block in BLOCKS])
    for name, value in {
        "pre_ln: growth of the variance (ln)": math.log(8),
        "pre_ln less ln_scaling: growth of the variance (ln)": math.log(4),
        "pre_ln less peri_ln: growth of the variance (ln)": math.log(2),
        "pre_ln: loss by dropping the block, rho with depth": -1.0,
        "pre_ln: angular distance, rho with depth": -1.0,
        "post_ln: loss by dropping the block, rho with depth": 1.0,
        inside.trending("pre_ln", "falls", "loss by dropping the block"): 1.0,
        inside.trending("post_ln", "rises", "angular distance"): 1.0,
        "pre_ln: ln(gradient of the first block / last)": last * math.log(2),
        "post_ln: ln(gradient of the last block / first)": last * math.log(2),
        "pre_ln less normformer: |ln(gradient of the first block / last)|": last * math.log(1.5),
        "mix_ln: variation of the gradients": 0.0,
        "pre_ln less mix_ln: variation of the gradients": powers.std(ddof=0) / powers.mean(),
    }.items():
        assert found[name] == pytest.approx(value), name


def test_logits_of_attention(tmp_path: Path) -> None:
    """The largest logit of all blocks, and its exponent in the rate; the least entropy."""

    def make(settings: Settings, seed: int) -> Run:
        rate = float(settings["optimizer.lr"])
        largest = 5.0 if settings["norm.qk"] == "true" else 1e6 * rate**1.5
        values = {
            ("attention", "attention_max_logit"): [1.0, largest, 2.0],
            ("attention", "attention_entropy"): [0.9, 0.8 - 10 * rate, 0.9],
        }
        name = f"{settings['norm.qk']}{settings['optimizer.lr']}"
        return made(LEARNT, seed, write_gradients(tmp_path / name, {0: values, 120: values}))

    values = CLAIMS["attention_logits"].measure(MadeLab(make), 0).values
    assert values["pre_ln: slope of the largest logit in the rate"] == pytest.approx(1.5)
    assert values["QK-norm: slope of the largest logit in the rate"] == pytest.approx(0, abs=1e-9)
    last = float(rates.LOGIT_RATES[-1])
    ratio = f"ln(largest logit of pre_ln / of QK-norm) at {rates.LOGIT_RATES[-1]}"
    assert values[ratio] == pytest.approx(math.log(1e6 * last**1.5 / 5))
    fall = f"pre_ln: entropy at {rates.LOGIT_RATES[0]} less at {rates.LOGIT_RATES[-1]}"
    assert values[fall] == pytest.approx(10 * (last - float(rates.LOGIT_RATES[0])))


def test_the_chain_is_measured_in_the_first_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Post-LN's output moves farther than DeepNorm's from the first steps on."""
    monkeypatch.setattr(training, "CHAIN_STEPS", 6)
    monkeypatch.setattr(training, "DEPTH", 2)
    claim = CLAIMS["deepnet_chain"]
    with initialize_config_dir(run.CONF, version_base="1.3"):
        evidence: Evidence = claim.measure(Lab(["device=cpu"]), 0)
    assert set(evidence.values) == {p.name for p in claim.predictions}
    assert all(map(math.isfinite, evidence.values.values()))
    assert evidence.values[f"post_ln less deepnorm: {training.CHAIN_LINKS[0]}"] > 0
    moved = {arm: [p.value for p in evidence.points if p.arm == arm] for arm in ("post_ln",)}
    assert len(moved["post_ln"]) == 6


@pytest.mark.parametrize("name", TRAINING)
def test_each_training_claim_measures_what_it_predicts(name: str, tmp_path: Path) -> None:
    values = layered(0.5, 2.0) | {
        ("attention", "attention_max_logit"): [2.0, 3.0],
        ("attention", "attention_entropy"): [0.5, 0.6],
    }
    folder = write_gradients(tmp_path, {0: values, 120: values})
    evidence = CLAIMS[name].measure(MadeLab(lambda _, seed: made(LEARNT, seed, folder)), 0)
    assert set(evidence.values) >= {p.name for p in CLAIMS[name].predictions}
    assert evidence.points
    assert all(math.isfinite(value) for value in evidence.values.values())


@pytest.mark.long
@pytest.mark.parametrize("name", TRAINING)
def test_the_arms_of_each_training_claim_are_valid_settings(name: str, tmp_path: Path) -> None:
    lab = MadeLab(lambda _, seed: made(LEARNT, seed, tmp_path))
    CLAIMS[name].measure(lab, 0)
    with initialize_config_dir(run.CONF, version_base="1.3"):
        for overrides in lab.asked:
            settings = checked_settings(to_values(compose("config", list(overrides))))
            assert settings.model.emb_dim == 64
