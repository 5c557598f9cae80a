"""The command line: every choice runs, bad input costs one line."""

import itertools
import json
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import run as cli_module
from conftest import ROOT, Cli
from equations import closed_form
from experiments.analysis.paper_figures import PAPER_FIGURES
from experiments.data.corpus import CORPORA
from experiments.data.tokenizer import TOKENIZERS
from experiments.jobs.check import checked_settings
from experiments.report import run_pictures as plots
from experiments.runner import runner_names
from experiments.settings.compose import (
    OTHER_NAMES,
    setting_names,
    to_values,
    unknown_setting,
)
from experiments.settings.explain import explain_composition
from experiments.settings.identity import flatten
from experiments.training.optimizer import OPTIMIZERS
from experiments.training.schedule import SCHEDULES
from gpt import ACTIVATIONS, INITS, NORMS, PLACEMENTS
from gpt.published import COUNTS_ALONE

CONF = ROOT / "conf"


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
GRIDS = [
    name
    for name in options("experiment")
    if "sweeper"
    in yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text()).get("hydra", {})
]


OF_MODELS = ("model", "change", "experiment")  # whose options set what belongs to other groups
TOGETHER = itertools.zip_longest(
    *(
        [f"{group}={option}" for option in options(group)]
        for group in GROUPS
        if group not in OF_MODELS
    )
)
EVERY_OPTION = [
    *([f"{group}={option}"] for group in OF_MODELS for option in options(group)),
    *([choice for choice in choices if choice] for choices in TOGETHER),
]


@pytest.mark.parametrize("choices", EVERY_OPTION, ids=" ".join)
def test_every_option_composes_to_valid_settings(choices: list[str]) -> None:
    """Those of the small groups together, each at least once."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=choices)
    settings = checked_settings(to_values(config))
    assert settings.model_config(2).n_heads
    (group, option), *_ = (choice.split("=") for choice in choices)
    if group == "experiment":
        text = (CONF / group / f"{option}.yaml").read_text()
        assert text.startswith("# @package _global_")
        values = OmegaConf.to_container(OmegaConf.create(text))  # numbers as Hydra reads them
        for taken_out in ("hydra", "defaults"):  # of the job's config
            values.pop(taken_out, None)
        # Its values win.
        assert dict(flatten(values)).items() <= dict(flatten(to_values(config))).items()


@pytest.mark.parametrize(
    ("group", "registry"),
    [
        ("norm", PLACEMENTS),
        ("init", INITS),
        ("data", CORPORA),
        ("tokenizer", TOKENIZERS),
        ("optimizer", OPTIMIZERS),
        ("schedule", SCHEDULES),
        ("experiment", [*sorted({*runner_names()} - {"paper_figure"}), *PAPER_FIGURES]),
    ],
)
def test_registries_and_folders_agree(group: str, registry: Iterable[str]) -> None:
    grids = GRIDS if group == "experiment" else []
    assert options(group) == sorted([*registry, *grids])


@pytest.mark.pictures
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("book_124m", 163_009_536),
        ("gpt2_124m", 124_439_808),
        pytest.param("gpt2_355m", 354_823_168, marks=pytest.mark.long),
        pytest.param("gpt2_774m", 774_030_080, marks=pytest.mark.long),
        ("gpt2_1558m", 1_557_611_200),
    ],
)
def test_parameters_of_published_sizes(
    cli: Cli, capsys: pytest.CaptureFixture[str], name: str, count: int
) -> None:
    code, run = cli("experiment=parameters", f"model={name}", "wandb.mode=disabled")
    assert code == 0
    table = pd.read_csv(run / "parameters.csv")
    assert table["parameters"].sum() == count
    assert table["bytes"].sum() == 4 * count
    assert table["bytes_bf16"].sum() == 2 * count
    assert f"{count:,}" in capsys.readouterr().out
    assert (run / "plots" / "parameters.png").is_file()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = checked_settings(to_values(compose("config", overrides=[f"model={name}"])))
    assert closed_form(settings.model_config(settings.model.vocab_size or 0)) == count


def test_parameters_of_a_mixture_of_experts(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    """Router and experts apart; what is active; what windows keep of keys and values."""
    experts = ("model.experts.count=4", "model.experts.active=1", "model.feed_forward.dim=10")
    attention = ("model.attention.windows=[3,0]", "model.attention.kv_heads=2")
    code, run = cli(
        "experiment=parameters", "model=gpt2_124m", *experts, *attention, "wandb.mode=disabled"
    )
    assert code == 0
    table = pd.read_csv(run / "parameters.csv")
    one = table[table["layer"] == 0].set_index("component")
    assert one.loc["experts", "parameters"] == 4 * (2 * 10 * 768 + 10 + 768)
    assert one.loc["experts", "active"] * 4 == one.loc["experts", "parameters"]
    assert one.loc["router", "parameters"] == one.loc["router", "active"] == 4 * 769
    assert "feed_forward" not in one.index
    assert one.loc["experts", "bytes_4bit"] * 2 == one.loc["experts", "parameters"]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["active_parameters"] == table["active"].sum() < summary["parameters"]
    assert summary["cache_bytes"] == 2 * 2 * 2 * 64 * 6 * (3 + 1024)
    said = capsys.readouterr().out
    assert "6,144 bytes in bf16, 3,072 beyond the windows of 6 layers" in said
    assert "GFLOPs in a text of 1,024 tokens" in said


def test_sizes_stand_beside_what_is_published(
    cli: Cli, toy: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, run = cli("experiment=model_sizes", *toy)
    assert code == 0
    table = pd.read_csv(run / "model_sizes.csv").set_index("model")
    assert list(table.index) == ["micro", "gpt2_124m", "deepseek_v3", "kimi_k2"]
    assert table.loc["gpt2_124m", "parameters"] == table.loc["gpt2_124m", "published"]
    assert table.loc["gpt2_124m", "outside_embeddings"] == 85_056_000  # as Pythia's of its shape
    assert table["equal"].dropna().to_dict() == {"gpt2_124m": "yes"}
    assert table["published"].dropna().index.tolist() == ["gpt2_124m"]
    assert table["published_active"].dropna().to_dict() == {"deepseek_v3": "37B", "kimi_k2": "32B"}
    for name, rounded in (("deepseek_v3", "671B in all"), ("kimi_k2", "1T in all")):
        assert rounded in table.loc[name, "remark"]
    assert table.loc["micro", "vocab_size"] == 28  # of the toy text
    assert "equal to the published count  1 of 1" in capsys.readouterr().out


@pytest.mark.long
def test_every_published_size_is_equal(cli: Cli, toy: tuple[str, ...]) -> None:
    """The announced count of GPT-J includes copies, as its remark says."""
    code, run = cli("experiment=model_sizes", *toy)
    assert code == 0
    table = pd.read_csv(run / "model_sizes.csv").set_index("model")
    assert set(table.index) == {path.stem for path in (CONF / "model").iterdir()} | set(
        COUNTS_ALONE
    )
    assert set(table.index[table["equal"] == "no"]) <= {"gptj_6b"}
    outside = table.dropna(subset="published_outside")
    assert (outside["published_outside"] == outside["outside_embeddings"]).all()


@pytest.mark.parametrize("name", COUNTS_ALONE)
@pytest.mark.parametrize("sweep", [(), ("-m", "seed=0,1")])
def test_a_model_that_is_counted_alone_cannot_be_made(
    capsys: pytest.CaptureFixture[str], name: str, sweep: tuple[str, ...]
) -> None:
    assert cli_module.main([*sweep, f"model={name}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: model='{name}' is not valid: counted by experiment=model_sizes")


MORE_FIGURES = ("xiong_figure_3", "sun_figure_4")
PICTURE_OF = {name: name for name in PAPER_FIGURES} | {
    "activations": "activations",
    "init_gradients": "gradient_by_layer",
    "memory": "memory",
    "model_sizes": "model_sizes",
    "parameters": "parameters",
    "shortcut": "shortcut",
    "train": "loss",
}


OF_OTHER_TESTS = ("atlas", "claims", "export", "generate", "lecture")


@pytest.mark.pictures
@pytest.mark.parametrize(
    "experiment",
    [
        # One of the papers' figures is drawn here; test_paper_figures.py has them all.
        pytest.param(name, marks=pytest.mark.long) if name in MORE_FIGURES else name
        for name in options("experiment")
        if name not in {*OF_OTHER_TESTS, *GRIDS}
    ],
)
def test_every_experiment_runs_at_toy_size(cli: Cli, toy: tuple[str, ...], experiment: str) -> None:
    code, run = cli(f"experiment={experiment}", *toy)
    assert code == 0
    assert (run / "summary.json").is_file()
    if experiment in PICTURE_OF:
        assert (run / "plots" / f"{PICTURE_OF[experiment]}.png").stat().st_size > 5000
    assert list(run.glob("*.csv"))


@pytest.fixture(scope="module")
def plain_gradients() -> dict[str, bytes]:
    """gradients.csv of a placement without another choice, once it was made."""
    return {}


FIRST = ("pre_ln", "post_ln", "no_norm")
OF_FIRST = ("shortcut=false", "norm.kind=rms_norm", "norm.final=true", "norm.qk=true")


@pytest.mark.parametrize(
    ("norm", "choice"),
    [
        *itertools.product(FIRST, OF_FIRST),
        ("b2t", "norm.kind=dyt"),
        *(
            pytest.param(norm, "norm.kind=dyt", marks=pytest.mark.long)
            for norm in PLACEMENTS
            if norm not in (*FIRST, "b2t")
        ),
        ("mix_ln", "norm.options.fraction=0.5"),
        ("peri_ln", "norm.options.embedding_norm=true"),
        ("reordered", "norm.options.scale_start=0"),
        ("deepnorm", "init=xavier"),
        ("hybrid", "norm.qk=false"),
        ("hybrid", "norm.qk=projection"),
    ],
)
def test_choices_reach_the_model(
    cli: Cli, toy: tuple[str, ...], plain_gradients: dict[str, bytes], norm: str, choice: str
) -> None:
    if norm not in plain_gradients:
        _, plain = cli("experiment=init_gradients", *toy, f"norm={norm}")
        plain_gradients[norm] = (plain / "gradients.csv").read_bytes()
    code, other = cli("experiment=init_gradients", *toy, f"norm={norm}", choice)
    assert code == 0
    same = plain_gradients[norm] == (other / "gradients.csv").read_bytes()
    unchanged = {("pre_ln", "norm.final=true"), ("no_norm", "norm.kind=rms_norm")}
    assert same == ((norm, choice) in unchanged)


def test_init_gradients_records_every_value_and_its_spread(cli: Cli, toy: tuple[str, ...]) -> None:
    _, run = cli("experiment=init_gradients", *toy, "init_gradients.seeds=3")
    single = pd.read_csv(run / "init_gradients.csv")
    assert set(single["seed"]) == {0, 1, 2}
    assert set(single["batch"].dropna()) == {0, 1}
    of_all = single[single["batch"].isna()]
    assert set(of_all["stat"]) == {"mean_grad_norm"}
    block = single.query("layer == 1 and component == 'block' and stat == 'grad_norm'")
    by_seed = block.groupby("seed")["value"].mean()
    rows = pd.read_csv(run / "gradients.csv").query("layer == 1 and component == 'block'")
    values = rows.set_index("stat")["value"]
    assert values["grad_norm"] == pytest.approx(by_seed.mean(), rel=1e-6)
    assert values["grad_norm_std"] == pytest.approx(by_seed.std(ddof=1), rel=1e-6)
    of_all = of_all.query("layer == 1 and component == 'block'")["value"]
    assert values["mean_grad_norm"] == pytest.approx(of_all.mean(), rel=1e-6)
    assert values["mean_grad_norm_std"] == pytest.approx(of_all.std(ddof=1), rel=1e-6)
    _, trained = cli(*toy)
    first = pd.read_csv(trained / "gradients.csv").query(
        "step == 0 and layer == 1 and component == 'block' and stat == 'grad_norm'"
    )
    seed_0 = block.query("seed == 0 and batch == 0")["value"]
    assert seed_0.tolist() == pytest.approx(first["value"].tolist())


def test_shortcut_table(cli: Cli) -> None:
    _, run = cli("experiment=shortcut", "wandb.mode=disabled")
    table = pd.read_csv(run / "shortcut.csv")
    assert table["without_shortcut"][0] == pytest.approx(0.00020173587836325169, rel=1e-5)
    assert table["with_shortcut"][4] == pytest.approx(1.3258540630340576, rel=1e-5)


def test_activation_curves(cli: Cli) -> None:
    """The recorded derivative equals the slope of the recorded curve, kinks aside."""
    _, run = cli("experiment=activations", "wandb.mode=disabled")
    table = pd.read_csv(run / "activations.csv")
    assert set(table["activation"]) == set(ACTIVATIONS)
    for _, curve in table.groupby("activation"):
        slope = (curve["value"].shift(-1) - curve["value"].shift(1)) / 0.04
        away = curve["x"].abs().between(0.03, 3.97)
        # Central differences of step h err by h^2/6 times the third derivative, here below 2.
        assert (slope - curve["derivative"])[away].abs().max() < 0.02**2 / 6 * 2 * 2


def test_a_chosen_tokenizer_of_the_larger_sizes() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=["model=gpt2_124m"])
        assert (config.tokenizer.name, config.init.scheme) == ("gpt2", "gpt2_scaled")
        arguments = ["model=gpt2_124m", "tokenizer=byte", "init=xavier"]
        config = compose("config", overrides=arguments)
        assert (config.tokenizer.name, config.init.scheme) == ("byte", "xavier")


BAD_INPUT = {
    "norm=postln": r"norm='postln' .* did you mean 'post_ln'\? Choose from: admin, b2t,",
    "norm.fraction=0.5": r"'norm.fraction' .* its name is now norm.options.fraction",
    "norm.options.fraction=0.5": r"norm.options.fraction=0.5 .*norm=pre_ln .* norm=mix_ln",
    "norm.options.nonsense=1": r"norm.options.nonsense=1 .*norm=pre_ln has .*its options: gpas\)$",
    "model.attention.causal=false": r"model.attention.causal=False .* is to predict",
    "experiment=trian": r"did you mean 'train'",
    "norm=null": r"norm='null' .* Choose from",
    "norn=post_ln": r"'norn' .* did you mean 'norm'",
    "model.n_layr=3": r"'model.n_layr' .* did you mean 'model.n_layers'",
    "+model.n_layr=3": r"model.n_layr=3 .* did you mean 'model.n_layers'",
    "+extra=1": r"extra=1 .* no such setting",
    "trainer.steps=abc": r"trainer.steps='abc' .* must be a whole number of at least 1$",
    "trainer.steps=1.5": r"trainer.steps='1.5' .* must be a whole number",
    "trainer.steps=": r"trainer.steps='' .* must be a whole number",
    "seed=1e3": r"seed='1e3' .* must be a whole number in \[0,",
    "seed=1!": r"seed='1!' .* must be a whole number",
    "seed=0,1": r"seed='0,1' .* one value, or with -m a run for each$",
    "optimizer.lr=abc": r"optimizer.lr='abc' .* must be a finite number of at least 0$",
    "shortcut=3": r"shortcut='3' .* must be true or false$",
    "norm.final=-7": r"norm.final='-7' .* must be true or false, or null$",
    "norm.qk=all": r"norm.qk='all' .* must be true, false, head, projection, or null$",
    "norm.qk=3": r"norm.qk='?3'? .* must be true, false, head, projection, or null$",
    "norm.qk_width=all": r"'norm.qk_width' .* did you mean 'norm.qk'\?$",
    "wandb.tags=x": r"wandb.tags='x' .* must be a list of names, such as \[a,b\]$",
    "optimizer.betas=0.9": r"optimizer.betas='0.9' .* numbers, such as \[0.9,0.95\], or null$",
    "model.position=none": r"model.position='none' .* is a section; .* model.position.kind, ",
    "norm.options=3": r"norm.options='3' .* must be names with their values$",
    "optimizer=3": r"optimizer='3' .* Choose from: adamw, muon, sgd$",
    "trainer=null": r"trainer='null' .* Choose from: long, quick$",
    "init=": r"init='' .* Choose from: deepnorm,",
    "wandb=disabled": r"wandb='disabled' .* is a section; set its parts: wandb.mode,",
    "~model.n_layers": r"'~model.n_layers' .* not be deleted$",
    "norm=pre_ln,post_ln": r"norm='pre_ln,post_ln' .* one value, or with -m a run for each$",
    "activation=relu,gelu": r"activation='relu,gelu' .* one value, or with -m a run for each",
    "optimizer.lr=${{nope}}": r"optimizer.lr='\$\{nope\}' .*nope.* not found$",
    "generate.prompt=a${{b": r"generate.prompt='a\$\{b' .* must begin a reference",
    "generate.prompt=???": r"generate.prompt='\?\?\?' .* missing$",
    "data.path=": r"data.path='' .* must name",
    "data.train_share=5e-324": r"with data.train_share=5e-324 its train part has 0 tokens",
    "model.feed_forward.ratio=1e300": r"model.feed_forward.ratio=1e\+300 .* above 0",
    "model.emb_dim=1000000000000000000": r"model.emb_dim=10{18} .* in \[1, 1,000,000\]$",
    "trainer.batch_size=10000000000000": r"trainer.batch_size=10{13} .* in \[1, 1,000,000\]$",
    "threads=10000000000000000000": r"threads=10{19} .* in \[1, 1,024\], or null$",
    "resume=": r"resume='' .* must be the directory of a run$",
    "hydra.run.dirr=x": r"'hydra.run.dirr' .* did you mean 'hydra.run.dir'",
    "hydra.launcher.n_jobs=2": r"'hydra.launcher.n_jobs' .* hydra/launcher=joblib",
    "steps=10": r"'steps' .* did you mean 'trainer.steps'\?$",
    "+lr=1": r"lr=1 .* did you mean 'optimizer.lr'\?$",
    "trainer.steps=0": r"trainer.steps=0 .* at least 1",
    "trainer.steps=null": r"trainer.steps='null' .* must be a whole number",
    "model.n_heads=3": r"model.n_heads=3 .* must divide model.emb_dim=16",
    "model.drop_rate=2": r"model.drop_rate=2.0 .* in \[0, 1\]",
    "activation=rellu": r"activation='rellu' .* did you mean 'relu'",
    "norm.placement=../../x": r"norm.placement='../../x' .* Choose from",
    "norm.kind=batch": r"norm.kind='batch' .* derf, dyt, gain_free_rms_norm, layer_norm, rms_norm",
    "optimizer.betas=[0.9]": r"optimizer.betas=\[0.9\] .* two numbers",
    "optimizer.lr=nan": r"optimizer.lr=nan .* finite",
    "schedule.final_ratio=-1": r"schedule.final_ratio=-1.0",
    "trainer.clip=0": r"trainer.clip=0.0 .* above 0, or null",
    "trainer.sequence_length=99": r"sequence_length=99 .* model.context_length=16",
    "data.train_share=1.0": r"data.train_share=1.0 .* strictly between 0 and 1",
    "data.path=/no/such/file": r"data.path='/no/such/file' .* No such file",
    "data.path=null": r"data.path=None .* must name",
    "data.path={empty}": r"empty.txt' .* it is empty",
    "data.path={binary}": r"binary.txt' .* must be UTF-8",
    "data.path={short}": r"part has \d+ tokens, and one window needs 17",
    "model.vocab_size=5": r"model.vocab_size=5 .* tokenizer=char needs 28",
    "generate.prompt=UPPER": r"character 'U' does not occur",
    "generate.prompt=''": r"generate.prompt='' .* at least one token",
    "device=cuda": r"device='cuda' .* this machine has none; choose from: auto",
    "device=tpu": r"device='tpu' .* Choose from: auto, cpu, cuda, mps",
    "seed=-1": r"seed=-1 .* in \[0, 9,223,372,036,854,775,807\]",
    "wandb.mode=ofline": r"wandb.mode='ofline' .* did you mean 'offline'",
    "model={{": r"model='\{' .* Choose from: book_124m,",
    "foo": r"foo",
    "activation='${{nope}}'": r"nope",
    "generate.prompt=ab,cd": r"character ',' does not occur",
    "optimizer.momentum=0.5": r"optimizer.momentum=0.5 .* optimizer=adamw has none",
    "optimizer.betas=null": r"adamw needs two numbers",
    "hydra.run.dir={file}/run": "must be a directory",
    "hydra.run.dir={occupied}": r"must be a new or empty directory",
}


@pytest.mark.parametrize("argument", BAD_INPUT)
def test_bad_input_costs_one_line(
    cli: Cli,
    toy: tuple[str, ...],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    argument: str,
) -> None:
    files = {"empty": "", "binary": "\u00e9", "short": "a b c", "file": "x"}
    for name, content in files.items():
        (tmp_path / f"{name}.txt").write_bytes(content.encode("latin-1"))
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "metrics.csv").write_text("precious\n")
    places = {name: tmp_path / f"{name}.txt" for name in files} | {"occupied": occupied}
    if argument.startswith("device=cuda"):
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has one")
    code, _ = cli(*toy, argument.format(**places))
    error = capfd.readouterr().err
    assert code != 0
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    assert re.search(BAD_INPUT[argument], error), error
    assert [path.name for path in occupied.iterdir()] == ["metrics.csv"]
    assert (occupied / "metrics.csv").read_text() == "precious\n"


FORMS = {
    ("--norm", "post_ln"): "'--norm' is not valid: must have the form name=value, such as "
    "norm=post_ln",
    ("--norm=post_ln",): "such as norm=post_ln",
    ("-norm=post_ln",): "such as norm=post_ln",
    ("norm", "post_ln"): "such as norm=post_ln",
    ("norm", "=", "post_ln"): "such as norm=post_ln",
    ("norm=", "post_ln"): "such as norm=post_ln",
    ("norm", "=post_ln"): "such as norm=post_ln",
    ("norm = post_ln",): "such as norm=post_ln",
    ("norm:post_ln",): "such as norm=post_ln",
    ("--lr", "3e-4"): "such as optimizer.lr=3e-4",
    ("--n-layers", "3"): "such as model.n_layers=3",
    ("-model=micro",): "such as model=micro",
    ("--verbose",): "'--verbose' is not valid: must have the form name=value",
    ("--cfg", "nonsense"): "invalid choice: 'nonsense'",
    ("--config-dir",): "expected one argument",
    ("generate.prompt=Let", "there"): "stands between quotes, as 'generate.prompt=Let ...'",
    ("generate.prompt =x",): "such as generate.prompt=x",
    ("data.path=caf\udce9",): r"'data.path=caf\udce9' is not valid: must be UTF-8",
    ("generate.prompt=a\0b",): r"'generate.prompt=a\x00b' is not valid: must be UTF-8",
}


@pytest.mark.parametrize("arguments", FORMS)
def test_another_form_than_name_and_value_costs_one_line_with_the_right_one(
    arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli_module.main(arguments) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert FORMS[arguments] in printed.err


MEANT_VALUES = {
    "model=gpt2-xl": "gpt2_1558m",
    "model=gpt2-small": "gpt2_124m",
    "model=gpt2-medium": "gpt2_355m",
    "model=gpt2-large": "gpt2_774m",
    "model=gpt2": "gpt2_124m",
    "norm=prenorm": "pre_ln",
    "norm=pre-ln": "pre_ln",
    "norm=Post-Norm": "post_ln",
    "norm=layernorm": "norm.kind=layer_norm",
    "norm=rmsnorm": "norm.kind=rms_norm",
    "norm=none": "no_norm",
    "norm.kind=LayerNorm": "layer_norm",
    "norm.kind=rmsnorm": "rms_norm",
    "activation=swish": "silu",
    "activation=relu^2": "squared_relu",
    "trainer.precision=bfloat16": "bf16",
    "trainer.precision=fp32": "float32",
    "trainer.precision=half": "bf16",
    "trainer.precision=double": "float64",
    "device=gpu": "cuda",
    "device=cuda:0": "cuda",
    "data=shakespeare": "data=text data.path=FILE",
    "tokenizer=character": "char",
    "schedule=none": "constant",
    "init=glorot": "xavier",
    "optimizer=adam": "adamw",
}


@pytest.mark.parametrize("argument", MEANT_VALUES)
def test_another_word_for_a_value_is_understood(
    argument: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli_module.main([f"hydra.run.dir={tmp_path}/run", argument]) == 1
    error = capfd.readouterr().err
    assert f"is not valid: did you mean {MEANT_VALUES[argument]!r}? Choose from: " in error
    assert error.count("\n") == 1


def test_another_word_for_a_setting_is_understood() -> None:
    """Also without its section, or under another one."""
    for setting, words in OTHER_NAMES.items():
        for word in words.split():
            assert unknown_setting(word) == f"no such setting; did you mean {setting!r}?", word
        assert setting in setting_names() or setting == "hydra.run.dir"
    for name, meant in {
        "lr": "'optimizer.lr'",
        "steps": "'trainer.steps'",
        "n_layers": "'model.n_layers'",
        "train.steps": "'trainer.steps'",
        "model.lr": "'optimizer.lr'",
        "kind": "'norm.kind' or 'model.position.kind'",
        "Warmup": "'schedule.warmup_steps'",
    }.items():
        assert unknown_setting(name) == f"no such setting; did you mean {meant}?"
    known = {name.rpartition(".")[2] for name in setting_names()}
    words = " ".join(OTHER_NAMES.values()).split()
    assert len(set(words)) == len(words)
    assert not {word for word in words if word in setting_names()}
    # Of several settings, of a rare one, or better by a folder.
    assert known & set(words) == {"name", "placement", "dim", "dtype"}


def test_of_a_name_given_twice_the_last_value_counts(cli: Cli, toy: tuple[str, ...]) -> None:
    code, run = cli("experiment=parameters", *toy, "norm=pre_ln", "seed=1", "norm=b2t", "seed=2")
    assert code == 0
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["placement"], summary["seed"]) == ("b2t", 2)


def test_options_may_stand_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["norm=b2t", "--cfg", "job", "seed=7", "--package=norm"]
    assert cli_module.main(arguments) == 0
    assert "placement: b2t" in capsys.readouterr().out


def test_generate_says_what_it_needs(cli: Cli, tmp_path: Path, capfd: object) -> None:
    foreign = tmp_path / "checkpoint.pt"
    foreign.write_bytes(b"not a checkpoint")
    for arguments, words in (
        ((), "generate.prompt=None is not valid: must be the text to continue"),
        ((f"generate.checkpoint={foreign}",), "generate.prompt=None"),
        (("generate.prompt=a", f"generate.checkpoint={tmp_path}/none"), "must name a run"),
        (("generate.prompt=a", f"generate.checkpoint={foreign}"), "is not a checkpoint"),
    ):
        assert cli("experiment=generate", "wandb.mode=disabled", *arguments)[0] == 1
        error = capfd.readouterr().err  # type: ignore[attr-defined]
        assert words in error
        assert error.count("\n") == 1


def test_a_run_never_writes_into_another(cli: Cli, toy: tuple[str, ...]) -> None:
    _, first = cli(*toy)
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    code, _ = cli(*toy, f"hydra.run.dir={first}")
    assert code == 1
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before


def test_a_refused_prompt_leaves_no_wandb_run(cli: Cli, toy: tuple[str, ...]) -> None:
    code, run = cli(*toy, "wandb.mode=offline", "generate.prompt=ZZZ")
    assert code == 1
    assert not (run / "wandb").exists()


def test_plain_progress_whatever_the_log_interval(
    cli: Cli, toy: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for every, lines in ((1, 11), (3, 11), (10, 5)):
        cli(*toy, "trainer.steps=40", f"trainer.log_every={every}", "trainer.probe_every=null")
        seen = re.findall(r"^train (\d+)/40 ", capsys.readouterr().out, re.MULTILINE)
        assert seen[-1] == "40"
        assert abs(len(seen) - lines) <= 1


def test_a_launcher_that_is_not_installed_says_how_to_get_it() -> None:
    from hydra.errors import MissingConfigException

    error = MissingConfigException("", "hydra/launcher/joblib", ["basic"])
    assert 'install it with pip install -e ".[joblib]"' in explain_composition(error)


def test_one_run_of_a_grid_says_that_it_is_one(
    cli: Cli, toy: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("experiment=depth", *toy)[0] == 0
    assert "this is one run of a grid" in capsys.readouterr().err
    assert cli("experiment=depth", *toy, "seed=0", "norm=pre_ln")[0] == 0  # n_layers is a toy's
    assert "grid" not in capsys.readouterr().err


def test_help_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_module.main(["--help"]) == 0
    text = capsys.readouterr().out
    for words in ("python run.py norm=post_ln", "norm: admin, b2t, ", "nano"):
        assert words in text
    for name in itertools.chain(ACTIVATIONS, NORMS):
        assert name in text
    for line in text.splitlines():
        assert len(line) <= 100 or line.split(":")[0] in GROUPS  # Hydra writes these


def test_pictures_can_be_drawn_again_and_compared(
    cli: Cli, toy: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the files of runs that have none."""
    runs = [cli(*toy, f"norm={norm}")[1] for norm in ("pre_ln", "post_ln")]
    picture = runs[0] / "plots" / "loss.png"
    assert not picture.exists()
    capsys.readouterr()
    assert plots.main([str(runs[0])]) == 0
    assert picture.is_file()
    out = tmp_path / "both.png"
    assert plots.main([str(runs[0]), "--out", str(out)]) == 1
    assert plots.main([*map(str, runs), "--out", str(out)]) == 0
    assert out.stat().st_size > 5000
    assert plots.main([str(tmp_path / "absent")]) == 1
    assert "must be a run directory" in capsys.readouterr().err
    _, other = cli("experiment=shortcut", "wandb.mode=disabled")
    (other / "metrics.csv").write_text("")
    assert plots.main([str(other)]) == 0
    assert plots.main([str(runs[0]), str(other)]) == 1
    assert "whose gradients.csv has gradient norms" in capsys.readouterr().err


def test_directories_of_training_runs_say_the_warm_up(
    toy: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli_module.main([*toy, "norm=post_ln", "schedule.warmup_steps=0"]) == 0
    (directory,) = tmp_path.glob("outputs/*/*")
    assert directory.name.partition("_")[2] == "train-post_ln-nano-warmup0-seed0"


def test_every_run_ends_with_what_it_shows_and_the_next_command(
    cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli("experiment=shortcut", "wandb.mode=disabled")[0] == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "Without shortcuts the first layer gets 1,100 times less gradient than with.",
        "next: python run.py experiment=init_gradients norm=post_ln",
    ]
