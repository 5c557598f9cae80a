"""Published models: read from a directory as the Hub has it, changed, trained and written back."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from hub import CONFIGS, VOCABULARY, publish, tokenizer_json
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
)

import run as cli_module
from conftest import Cli, Sweep
from experiments.data.corpus import load_corpus
from experiments.data.pretrained import PretrainedTokenizer
from experiments.jobs.check import checked_settings
from experiments.training import weights as weights_module
from experiments.training.build import build_model
from experiments.training.checkpoint import load_model
from same_run import summary_of

# A run that any of these models can make.
SHORT = (
    *("trainer.steps=2", "trainer.batch_size=2", "trainer.eval_every=2", "trainer.eval_tokens=32"),
    *("trainer.probe_every=2", "trainer.probe_tokens=32", "schedule.warmup_steps=1"),
    *("init_gradients.seeds=2", "init_gradients.batches=2", "generate.tokens=4"),
    *("device=cpu", "wandb.mode=disabled", "data=text", "trainer.sequence_length=16"),
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A directory with a random model of a family, made once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = publish(name, tmp_path_factory.mktemp(name))
        return made[name]

    return make


@pytest.fixture
def short(text_file: Path, tmp_path: Path) -> tuple[str, ...]:
    return (*SHORT, f"data.path={text_file}", f"data.cache_dir={tmp_path}/cache")


def reference(directory: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return model.eval()


def assert_same_logits(ours: torch.nn.Module, directory: Path) -> None:
    tokens = torch.randint(VOCABULARY, (2, 12))
    with torch.no_grad():
        expected = reference(directory)(tokens).logits
        torch.testing.assert_close(ours.eval()(tokens), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_directory_is_trained_and_written_back(
    name: str, published: Callable[[str], Path], cli: Cli, short: tuple[str, ...]
) -> None:
    """What is read is what was published; after training, what is written is what was trained."""
    directory = published(name)
    code, run = cli(*short, f"model.weights={directory}")
    summary = summary_of(run)
    assert (code, summary["status"]) == (0, "finished")
    settings = checked_settings(read_config(run))
    assert settings.tokenizer.name == "pretrained"
    assert settings.model.vocab_size == VOCABULARY
    read = build_model(settings.model_config(VOCABULARY), settings, torch.device("cpu"))
    assert_same_logits(read, directory)
    code, export = cli("experiment=export", f"export.checkpoint={run}", "wandb.mode=disabled")
    assert code == 0
    trained, _ = load_model(str(run), torch.device("cpu"))
    assert_same_logits(trained, export / "model")
    written = json.loads((export / "model" / "config.json").read_text())
    assert written["model_type"] == name
    assert (export / "model" / "tokenizer.json").read_text() == (
        directory / "tokenizer.json"
    ).read_text()


def read_config(run: Path) -> Any:
    return yaml.safe_load((run / ".hydra" / "config.yaml").read_text())


def test_the_first_loss_is_that_of_the_published_model(
    published: Callable[[str], Path], cli: Cli, short: tuple[str, ...]
) -> None:
    directory = published("llama")
    _, run = cli(*short, f"model.weights={directory}", "trainer.steps=1", "trainer.eval_every=1")
    settings = checked_settings(read_config(run))
    corpus = load_corpus(settings)
    tokens, targets = corpus.fixed_windows(32, 16)
    logits = reference(directory)(tokens).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert summary_of(run)["initial_val_loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_gradients_of_a_published_model_and_another_placement(
    published: Callable[[str], Path],
    cli: Cli,
    short: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """norm= changes what the same weights compute, where each has a place, and says so."""
    directory = published("llama")
    norms = {}
    for placement in ("pre_ln", "ln_scaling"):
        code, run = cli(
            *short,
            "experiment=init_gradients",
            f"model.weights={directory}",
            f"norm={placement}",
            "norm.final=true",
        )
        assert code == 0
        rows = pd.read_csv(run / "gradients.csv")
        chosen = rows[(rows["stat"] == "grad_norm") & (rows["component"] == "block")]
        norms[placement] = chosen["value"].tolist()
    assert "trained with pre_ln: with ln_scaling they are another function" in caplog.text
    assert norms["pre_ln"] != norms["ln_scaling"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["norm=post_ln"], "has no place for final_norm.weight, which "),
        (["norm=post_ln"], " has, trained with pre_ln; norm.final=true keeps the norm before"),
        (["norm=sandwich"], "needs blocks.0.out_norm_1.weight and 3 more, which"),
        (["model=nano"], "model='nano' is not valid: leave it out"),
        (["init=gpt2"], "init='gpt2' is not valid: leave it out: the weights are read from"),
        (["model.n_layers=3"], "with the settings typed, it needs blocks.2.attention.out_proj"),
        (["model.feed_forward.dim=20"], "blocks.0.feed_forward.fc_in.weight of the shape (40, 16)"),
        (
            ["tokenizer.path=/nowhere"],
            "tokenizer.path='/nowhere' is not valid: must be a tokenizer",
        ),
    ],
)
def test_what_does_not_fit_a_published_model_is_one_line(
    overrides: list[str],
    words: str,
    published: Callable[[str], Path],
    cli: Cli,
    short: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _ = cli(*short, f"model.weights={published('llama')}", *overrides)
    assert code == 1
    assert words in capsys.readouterr().err


def test_files_that_are_damaged_or_missing_are_one_line(
    published: Callable[[str], Path],
    tmp_path: Path,
    cli: Cli,
    short: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def error(change: Callable[[Path], object]) -> str:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(published("llama"), copy)
        change(copy)
        assert cli(*short, f"model.weights={copy}")[0] == 1
        (line,) = (line for line in capsys.readouterr().err.splitlines() if "error" in line)
        return line

    def without(tensor: str) -> Callable[[Path], None]:
        def change(copy: Path) -> None:
            tensors = load_file(copy / "model.safetensors")
            tensors["added"] = tensors.pop(tensor)
            save_file(tensors, copy / "model.safetensors")

        return change

    assert "tensor='model.norm.weight' is not valid: is missing" in error(
        without("model.norm.weight")
    )
    truncated = error(lambda copy: (copy / "model.safetensors").write_bytes(b"\0" * 100))
    assert "its weights cannot be read" in truncated
    assert "it has neither model.safetensors" in error(
        lambda copy: (copy / "model.safetensors").unlink()
    )
    for index in ('{"weight_map": 5}', '{"weight_map": {"lm_head.weight": 5}}', "[]"):
        assert "weight_map in model.safetensors.index.json must have the name of a file" in error(
            lambda copy, index=index: (copy / "model.safetensors.index.json").write_text(index)
        )
    assert "config.json that can be read" in error(lambda copy: (copy / "config.json").unlink())
    assert "config.json that can be read" in error(
        lambda copy: (copy / "config.json").write_text("[1]")
    )
    assert "is a run's directory: experiment=export writes its model as the Hub has it" in error(
        lambda copy: ((copy / "config.json").unlink(), (copy / ".hydra").mkdir())
    )
    assert "has no tokenizer.json; say which it is" in error(
        lambda copy: (copy / "tokenizer.json").unlink()
    )
    assert "tokenizer.path" in error(lambda copy: (copy / "tokenizer.json").write_text("{}"))


def test_shards_are_read_and_written(
    published: Callable[[str], Path],
    tmp_path: Path,
    cli: Cli,
    short: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = tmp_path / "shards"
    reference(published("llama")).save_pretrained(directory, max_shard_size="8KB")
    shutil.copy(published("llama") / "tokenizer.json", directory)
    assert len([*directory.glob("*.safetensors")]) > 2
    code, run = cli(*short, f"model.weights={directory}")
    assert code == 0
    monkeypatch.setattr(weights_module, "SHARD_BYTES", 8000)
    code, export = cli("experiment=export", f"export.checkpoint={run}", "wandb.mode=disabled")
    assert code == 0
    assert len([*(export / "model").glob("*.safetensors")]) > 2
    trained, _ = load_model(str(run), torch.device("cpu"))
    assert_same_logits(trained, export / "model")


def test_a_sweep_over_placements_of_a_published_model(
    published: Callable[[str], Path], sweep: Sweep, short: tuple[str, ...]
) -> None:
    """Jobs have the published sizes, and a placement each."""
    code, folder = sweep(
        *short, f"model.weights={published('llama')}", "norm=pre_ln,ln_scaling", "norm.final=true"
    )
    assert code == 0
    runs = pd.read_csv(folder / "runs.csv")
    assert sorted(runs["norm.placement"]) == ["ln_scaling", "pre_ln"]
    assert runs["val_loss"].nunique() == 2


def test_a_placement_that_does_not_fit_is_found_before_a_job_starts(
    published: Callable[[str], Path],
    sweep: Sweep,
    short: tuple[str, ...],
    capfd: pytest.CaptureFixture[str],
) -> None:
    grid = (*short, f"model.weights={published('llama')}", "norm=pre_ln,post_ln")
    code, folder = sweep(*grid)
    error = capfd.readouterr().err
    assert code == 1
    assert error.startswith("error: norm.placement='post_ln' is not valid: has no place for")
    assert error.count("\n") == 1, error
    assert not folder.exists()
    assert sweep(*grid, "experiment=parameters")[0] == 0  # no weights are read


def test_a_run_on_weights_is_resumed_without_them(
    published: Callable[[str], Path], tmp_path: Path, cli: Cli, short: tuple[str, ...]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(published("gpt2"), copy)
    _, run = cli(*short, f"model.weights={copy}")
    (copy / "model.safetensors").unlink()
    (copy / "config.json").unlink()
    assert cli_module.main([f"resume={run}", "trainer.steps=3"]) == 0
    assert summary_of(run)["steps"] == 3


def test_a_model_that_no_family_has_is_not_written(
    toy: tuple[str, ...], cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = cli(*toy, "norm=b2t")
    code, _ = cli("experiment=export", f"export.checkpoint={run}", "wandb.mode=disabled")
    assert code == 1
    assert "no published family fits (" in capsys.readouterr().err


def test_a_published_tokenizer_is_its_file(tmp_path: Path) -> None:
    content = tokenizer_json()
    (tmp_path / "tokenizer.json").write_text(content)
    tokenizer = PretrainedTokenizer.read(str(tmp_path))
    text = "abc ab cé<|end|>\n日"
    tokens = tokenizer.tokens(text.encode())
    assert tokens.tolist() == Tokenizer.from_str(content).encode(text).ids
    assert tokens.dtype == "uint16"
    assert tokenizer.decode(tokens.tolist()) == text
    assert tokenizer.decode([*tokens.tolist(), VOCABULARY]) == text  # of a model with more rows
    assert int(tokenizer.token_bytes()[tokens].sum()) == len(text.encode())
    again = PretrainedTokenizer.restore(tokenizer.state())
    assert again.encode(text) == tokens.tolist()


def test_tokens_that_stand_for_spaces_and_bytes_have_their_length() -> None:
    names = ["<unk>", "<0x0A>", "\u2581the", "\u65e5"]
    library = Tokenizer(
        models.BPE({name: n for n, name in enumerate(names)}, [], unk_token="<unk>")
    )
    library.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback()])
    assert PretrainedTokenizer(library.to_str()).token_bytes().tolist() == [5, 1, 4, 3]
