"""Recorded runs compared by their settings and losses."""

from pathlib import Path

import pytest

from experiments.analysis.runs import (
    Run,
    differing_settings,
    is_stuck,
    name_texts,
    sort_key,
    varying_settings,
)
from experiments.records.summary import CorpusSummary, Summary


def made(**settings: object) -> Run:
    nested: dict[str, object] = {}
    for name, value in settings.items():
        section, _, key = name.partition("__")
        if key:
            nested.setdefault(section, {})[key] = value  # type: ignore[index]
        else:
            nested[section] = value
    return Run(Path("x"), Summary(settings=nested))


def test_what_varies_between_runs() -> None:
    pair = [
        made(seed=0, optimizer__name="adamw", optimizer__lr=1e-3, norm__placement="a"),
        made(seed=1, optimizer__name="sgd", optimizer__lr=0.1, norm__placement="b"),
    ]
    assert varying_settings(pair) == [
        "optimizer.name",
        "norm.placement",
    ]  # the lr follows from the name
    third = made(seed=1, optimizer__name="sgd", optimizer__lr=0.2, norm__placement="b")
    assert varying_settings([*pair, third]) == ["optimizer.name", "optimizer.lr", "norm.placement"]
    assert varying_settings(pair[:1]) == []
    sizes = [made(model__vocab_size=v, model__n_layers=n) for v, n in ((None, 2), (50257, 12))]
    assert varying_settings(sizes) == ["model.n_layers"]
    assert differing_settings(pair) == [
        "optimizer.name",
        "optimizer.lr",
        "norm.placement",
    ]


def test_texts_are_told_apart_by_their_content() -> None:
    runs = [made(data__path=path, seed=seed) for seed, path in enumerate("aabac")]
    for run, sha256 in zip(runs, ("1" * 64, "2" * 64, "1" * 64, "2" * 64, None), strict=True):
        run.summary.corpus = CorpusSummary(sha256=sha256)
    for _ in range(2):  # again where runs of several folders come together
        name_texts(runs)
        names = [run.setting("data.path") for run in runs]
        assert names == ["a", "a (22222222)", "a", "a (22222222)", "c"]
    assert varying_settings([runs[0], runs[2]]) == []
    assert varying_settings(runs[:2]) == ["data.path"]


def test_values_are_ordered_as_people_do() -> None:
    values = ["b", 10, None, 9.5, "a", True]
    assert sorted(values, key=sort_key) == [None, True, 9.5, 10, "a", "b"]


@pytest.mark.parametrize(
    ("loss", "status", "stuck"),
    [
        (3.0, "finished", True),
        (2.971, "finished", True),
        (2.969, "finished", False),
        (3.5, "finished", True),
        (3.0, "diverged", False),
    ],
)
def test_stuck_is_within_one_percent_of_token_frequencies(
    loss: float, status: str, stuck: bool
) -> None:
    corpus = CorpusSummary(unigram_validation_loss=3.0)
    run = Run(Path(), Summary(status=status, val_loss=loss, corpus=corpus))
    assert run.is_stuck == stuck
    assert is_stuck(loss, 3.0) == (loss > 2.97)
    assert not is_stuck(loss, None)
