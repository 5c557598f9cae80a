"""What the benchmark times, counts and writes; never how fast anything is."""

import dataclasses
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from conftest import ROOT
from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import contenders, results, rounds, shapes
from experiments.benchmark.contenders import CONTENDERS, TITLES, Case, mean_cross_entropy
from experiments.benchmark.plain import PlainGPT
from experiments.benchmark.products import all_products, products_of
from experiments.benchmark.results import Line, beside_fastest_peer, lines_of
from experiments.benchmark.rounds import Measured, peak_bytes, with_instrumented
from experiments.benchmark.shapes import COMPACT, SHAPES, Shape, config_of
from experiments.data.corpus import load_corpus
from experiments.machine import turns
from experiments.machine.turns import take_turns
from experiments.settings.sizes import settings_of_size
from gpt import GPT
from gpt.count import flops_per_token

TOY = Shape("toy", 2, 16, 2, 8, 2, 11)
CPU = torch.device("cpu")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Case:
    """The toy shape, chosen by its name, too; W&B is off."""
    monkeypatch.setitem(SHAPES, "toy", TOY)
    usual = settings_of_size("nano")
    quiet = replace(usual, wandb=replace(usual.wandb, mode="disabled"))
    monkeypatch.setattr(shapes, "defaults", lambda: quiet)
    return Case(TOY, CPU, "float32")


def copied(model: GPT, shape: Shape) -> PlainGPT:
    """The plain GPT with the weights of this project's."""
    plain = PlainGPT(shape).to(model.head.weight.dtype)
    names = {
        "tokens": "token_embedding",
        "places": "position_embedding",
        "norm": "final_norm",
        "norm_1": "norm_1",
        "norm_2": "norm_2",
        "qkv": "attention.qkv",
        "out": "attention.out_proj",
        "up": "feed_forward.fc_in",
        "down": "feed_forward.fc_out",
    }
    own = model.state_dict()

    def source(name: str) -> torch.Tensor:
        *parts, kind = name.split(".")
        return own[".".join([*(names.get(part, part) for part in parts), kind])]

    plain.load_state_dict({name: source(name) for name in plain.state_dict()})
    return plain


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_the_plain_gpt_computes_our_logits(tied: bool, qkv_bias: bool) -> None:
    shape = replace(TOY, tied=tied, qkv_bias=qkv_bias)
    torch.manual_seed(0)
    model = GPT(config_of(shape)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    plain = copied(model, shape)
    tokens = torch.randint(shape.vocabulary, (3, shape.length))
    assert model(tokens).std() > 0.1
    torch.testing.assert_close(plain(tokens), model(tokens), rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [TOY, *SHAPES.values()], ids=lambda shape: shape.name)
def test_the_products_have_as_many_operations_as_the_formula(shape: Shape) -> None:
    d, layers = shape.width, shape.layers
    matrices = 12 * layers * d * d + shape.vocabulary * d
    per_token = 6 * matrices + 12 * layers * shape.length * d
    assert sum(p.flops for p in products_of(shape)) == shape.tokens * per_token
    assert shape.flops == shape.tokens * (per_token - 6 * layers * shape.length * d)


def test_the_products_are_those_of_a_step() -> None:
    """PyTorch counts the same operations in a step of the plain GPT, attention written out."""
    model, tokens = PlainGPT(TOY), torch.randint(TOY.vocabulary, (TOY.batch, TOY.length))
    with FlopCounterMode(display=False) as of_a_step, sdpa_kernel(SDPBackend.MATH):
        mean_cross_entropy(model, tokens, tokens, "float32").backward()
    with FlopCounterMode(display=False) as of_products:
        all_products(TOY, CPU, torch.float32)(0)
    assert of_products.get_total_flops() == of_a_step.get_total_flops()
    assert of_products.get_total_flops() == sum(p.flops for p in products_of(TOY))


def test_the_operations_are_three_times_those_of_the_forward_pass() -> None:
    """But that there a token sees itself, too, so (T + 1) / 2 others on the average."""
    for shape in (TOY, SHAPES["nano"]):
        counted = 3 * shape.tokens * flops_per_token(config_of(shape))
        assert counted - shape.flops == 6 * shape.tokens * shape.layers * shape.width


def test_nano_is_the_model_that_is_trained_by_default() -> None:
    usual, nano = settings_of_size("nano"), SHAPES["nano"]
    assert config_of(nano) == usual.model_config(COMPACT)
    assert (nano.batch, nano.length) == (usual.trainer.rows, usual.sequence_length)


@pytest.mark.long
def test_nano_has_the_vocabulary_of_the_embedded_corpus(tmp_path: Path) -> None:
    usual = settings_of_size("nano")
    corpus = load_corpus(replace(usual, data=replace(usual.data, cache_dir=str(tmp_path))))
    assert corpus.tokenizer.vocab_size == COMPACT


class Clock:
    """Goes on only while a step is taken."""

    def __init__(self) -> None:
        self.now = 0.0

    def step(self, seconds: Callable[[int], float]) -> Callable[[int], None]:
        def take(number: int) -> None:
            self.now += seconds(number - turns.WARMUP)

        return take


def timed(*steps: Callable[[int], float]) -> dict[str, Measured]:
    """Four rounds of the reference and of plain, whose steps take so long in each."""
    clock, names = Clock(), ("normscope", "plain")
    found = {name: Measured() for name in names}
    made = {n: clock.step(s) for n, s in zip(names, steps, strict=True)}
    take_turns(made, found, 4, CPU, lambda done, note="": None, lambda: clock.now)
    return found


def test_ratios_are_taken_round_by_round() -> None:
    """A machine that is ten times slower in one round changes no ratio."""
    slow = {0: 1.0, 1: 10.0, 2: 1.0, 3: 2.0}
    factors = {0: 1.0, 1: 2.0, 2: 3.0, 3: 5.0}
    found = timed(
        lambda n: slow.get(n, 100.0), lambda n: slow.get(n, 100.0) * factors.get(n, 100.0)
    )
    assert found["plain"].seconds == pytest.approx([1, 20, 3, 10])
    own, plain = lines_of(Case(TOY, CPU, "float32"), found)
    assert (own.ratio_low, own.ratio, own.ratio_high) == (1, 1, 1)
    assert (plain.ratio_low, plain.ratio, plain.ratio_high) == pytest.approx((1.75, 2.5, 3.5))
    assert (plain.seconds_low, plain.seconds, plain.seconds_high) == pytest.approx((2.5, 6.5, 12.5))
    assert plain.tokens_per_s == pytest.approx(16 / 6.5)
    assert plain.rounds == 4
    assert plain.mfu is None


def test_the_step_with_records_is_compared_with_the_fastest_peer() -> None:
    found = {
        "normscope": Measured([1.0, 1.0, 1.0]),
        "instrumented": Measured([1.1, 2.2, 3.0]),
        "plain": Measured([2.0, 2.0, 6.0]),
        "torch": Measured([3.0, 3.0, 3.0]),
        "transformers": Measured(error="ImportError"),
        "products": Measured([0.1, 0.1, 0.1]),
    }
    expected = "normscope with its default records takes 0.55 of the bare step of plain GPT"
    assert beside_fastest_peer(found) == expected
    assert beside_fastest_peer({"normscope": Measured([1.0])}) is None


def test_a_gpu_has_the_share_of_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "device_name", lambda device: "a GPU")
    case = Case(SHAPES["gpt2_b16"], torch.device("cuda"), "bf16")
    (line,) = lines_of(case, {"normscope": Measured([0.1, 0.1])})
    # 12 blocks of 12 d^2 and a head of 50304 d; 6 L T d more for attention.
    operations = 16384 * (6 * (84_934_656 + 38_633_472) + 6 * 12 * 1024 * 768)
    assert line.flops == operations
    assert line.mfu == pytest.approx(operations / 0.1 / 989e12)


def test_the_default_run_is_put_together_from_its_two_steps() -> None:
    found = {
        "records": Measured([1.0, 2.0], parameters=5, peak_bytes=70),
        "probed": Measured([51.0, 2.0], parameters=5, peak_bytes=90),
    }
    expected = Measured([2.0, 2.0], parameters=5, peak_bytes=90)
    assert with_instrumented(found)["instrumented"] == expected
    assert with_instrumented({}) == {}


def test_the_default_run_has_no_figure_where_one_of_its_steps_failed() -> None:
    found = {"records": Measured([1.0, 2.0], parameters=5), "probed": Measured(error="no memory")}
    assert with_instrumented(found)["instrumented"] == Measured([], "no memory", 5)


def test_a_step_that_fails_is_left_out_and_says_why() -> None:
    def failing(number: int) -> float:
        if number == 2:
            raise RuntimeError("no more\nmemory")
        return 1.0

    found = timed(lambda number: 1.0, failing)
    assert found["plain"] == Measured(error="RuntimeError: no more memory")
    own, plain = lines_of(Case(TOY, CPU, "float32"), found)
    assert own.rounds == 4
    assert (plain.ratio, plain.tokens_per_s, plain.rounds) == (None, None, 0)


@pytest.mark.pictures
def test_every_contender_takes_its_step(toy: Case, tmp_path: Path) -> None:
    """From the command line, without `watch`, which starts a process of W&B's."""
    names = [name for name in TITLES if name != "watch"]
    out = tmp_path / "out"
    typed = ["--shapes", "toy", "--rounds", "2", "--no-memory", "--out", str(out)]
    assert benchmark.main([*typed, "--peers", ",".join(names)]) == 0
    table = pd.read_csv(out / "benchmark.csv").set_index("contender")
    assert [*table.reset_index().columns[:2]] == ["contender", "shape"]
    assert [*table.index] == names
    assert table["error"].isna().all(), table["error"].to_dict()
    assert (table["rounds"] == 2).all()
    assert (table["ratio"] > 0).all()
    assert (out / "benchmark.png").stat().st_size > 10_000
    counts, own = table["parameters"], sum(p.numel() for p in GPT(config_of(TOY)).parameters())
    assert counts.drop(["products", "x-transformers"]).eq(own).all()
    # Its attention has no biases, its norms no shift: 3 d and d in each block, and 2 d, once d.
    assert counts["x-transformers"] == own - 2 * 6 * 16 - 16
    assert pd.isna(counts["products"])


@pytest.mark.parametrize("name", ["normscope", "plain", "transformers", "x-transformers", "torch"])
def test_a_step_updates_every_parameter(
    toy: Case, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """AdamW's first step goes as far as the learning rate says, up to what decays."""
    models: list[torch.nn.Module] = []
    optimizer = contenders.make_optimizer
    monkeypatch.setattr(
        contenders,
        "make_optimizer",
        lambda model, how: models.append(model) or optimizer(model, how),
    )
    torch.manual_seed(0)
    contender = CONTENDERS[name](toy)
    parameters = dict(models[0].named_parameters())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    contender.step(0)
    rate = settings_of_size("nano").optimizer.lr
    for key, parameter in parameters.items():
        moved = (parameter.detach() - before[key]).abs().max()
        assert 0.5 * rate < moved < 1.5 * rate, key
        assert parameter.grad is None


def test_rows_and_probes_are_recorded_as_in_a_run(toy: Case) -> None:
    with toy.closing:
        records, probed = CONTENDERS["records"](toy), CONTENDERS["probed"](toy)
        for contender in (records, probed, records):
            contender.step(0)
        directory = toy.trainer.recorder.directory
        for sink in toy.trainer.recorder.open():
            sink.state()  # what is kept back is written
        metrics = pd.read_csv(directory / "metrics.csv")
        layers = pd.read_csv(directory / "gradients.csv")
    assert [*metrics["step"]] == [0, 1, 2]
    assert (metrics["clip_factor"] <= 1).all()
    stats = layers.groupby("step")["stat"].agg(set)
    assert stats[0] == stats[2] == {"grad_norm", "grad_rms"}
    assert len(stats[1]) > 10
    assert not directory.exists()


def test_a_package_that_is_not_there_is_a_row(
    toy: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "x_transformers", None)
    typed = ["--shapes", "toy", "--peers", "x-transformers", "--rounds", "1", "--no-memory"]
    assert benchmark.main([*typed, "--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "benchmark.csv").set_index("contender")
    assert [*table.index] == ["normscope", "x-transformers"]
    assert "x_transformers" in table["error"]["x-transformers"]
    assert pd.isna(table["ratio"]["x-transformers"])
    assert table["ratio"]["normscope"] == 1
    assert "ModuleNotFoundError" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--shapes", "nano,6x38"], "--shapes='6x38'"),
        (["--peers", "xtransformers"], "did you mean 'x-transformers'?"),
        (["--rounds", "0"], "--rounds='0' is not valid: must be a whole number of at least 1"),
        (["--rounds", "many"], "--rounds='many'"),
        (["--device", "gpu"], "did you mean 'cuda'?"),
        (["--precision", "fp16"], "did you mean 'bf16'?"),
        (["--compile", "maybe"], "--compile='maybe'"),
        (["--device", "cuda"], "--device='cuda' is not valid: this machine has none; choose cpu"),
        (["--out", "{file}"], "/file' is not valid: must be a directory that can be written: File"),
        (["--out", "{file}/a/b"], "/file/a/b' is not valid: must be a directory that can be"),
    ],
)
def test_bad_input_is_one_line(
    typed: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "file").touch()
    assert benchmark.main([each.format(file=tmp_path / "file") for each in typed]) == 1
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    assert benchmark.main(["--shapes", "nano", "--out", str(tmp_path)]) == 1
    assert "can be written: Permission denied" in capsys.readouterr().err


def test_times_are_on_the_disk_before_memory_is_measured(
    toy: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "measure_memory", stopped)
    typed = ["--shapes", "toy", "--peers", "plain", "--rounds", "1", "--out", str(tmp_path)]
    assert benchmark.main(typed) == 130
    table = pd.read_csv(tmp_path / "benchmark.csv").set_index("contender")
    assert [*table.index] == ["normscope", "plain"]
    assert (table["seconds"] > 0).all()
    assert table["peak_bytes"].isna().all()


def test_earlier_measurements_are_not_overwritten(
    toy: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "benchmark.csv").write_text("measured for hours")
    assert benchmark.main(["--shapes", "toy", "--out", str(tmp_path)]) == 1
    assert "has a benchmark.csv already" in capsys.readouterr().err
    assert (tmp_path / "benchmark.csv").read_text() == "measured for hours"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset a process's peak")
def test_the_peak_has_room_for_weights_gradients_and_moments() -> None:
    case = Case(Shape("wide", 1, 64, 2, 8, 2, 50_000), CPU, "float32")
    weights = 4 * 50_000 * 64
    peak = peak_bytes(case, "normscope", torch.get_num_threads())
    assert peak is not None
    assert 4 * weights < peak < 10 * weights  # and the embedding's gradient beside the head's


@pytest.mark.long
def test_memory_is_measured_in_processes_of_their_own() -> None:
    found = {name: Measured() for name in ("normscope", "plain")}
    rounds.measure_memory(Case(SHAPES["4x128"], CPU, "float32"), found, lambda done, note="": None)
    assert all(m.error is None and m.peak_bytes for m in found.values()), found


def test_the_page_names_every_column_contender_and_shape() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    columns = page.split("## benchmark.csv")[1]
    first = [line.split("|")[1] for line in columns.splitlines() if line.startswith("| `")]
    named = [name for cell in first for name in re.findall(r"`(\w+)`", cell)]
    assert named == [field.name for field in dataclasses.fields(Line)]
    for name in (*TITLES, *SHAPES):
        assert f"\n| `{name}` |" in page, name
