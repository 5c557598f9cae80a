"""What is installed, and what is set before PyTorch loads."""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from configs import settings_of
from conftest import ROOT
from experiments.machine import versions as versions_module
from experiments.machine.versions import versions
from experiments.records.recorder import Recorder
from experiments.training.checkpoint import warn_of_other_versions

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def direct() -> list[Requirement]:
    """Every requirement of the project and its extras, but for itself."""
    extras = PROJECT["optional-dependencies"].values()
    every = map(Requirement, chain(PROJECT["dependencies"], *extras))
    return [requirement for requirement in every if requirement.name != PROJECT["name"]]


def pinned() -> dict[str, str]:
    """Versions in constraints.txt by name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all([s.operator for s in pin.specifier] == ["=="] for pin in pins)
    return {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}


def installed(name: str) -> importlib.metadata.Distribution | None:
    """What is installed of a package; None where it is not."""
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def test_every_direct_dependency_is_pinned_within_its_range() -> None:
    pins = pinned()
    for requirement in direct():
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: {version}"
    assert not [version for version in pins.values() if "+" in version]  # a build, on one index


def test_what_the_dependencies_need_is_pinned_too() -> None:
    """By what is installed here at the pinned version, for another may need other packages.

    What a package fixes by itself, as PyTorch does its parts for CUDA, needs no pin.
    """
    pins = pinned()
    todo, seen = direct(), set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if (name, *sorted(requirement.extras)) in seen or name == "pip":
            continue
        seen.add((name, *sorted(requirement.extras)))
        is_fixed = any(s.operator == "==" for s in requirement.specifier)
        assert name in pins or is_fixed, name
        found = installed(requirement.name)
        if found is None or found.version.partition("+")[0] != pins.get(name):
            continue
        needed = map(Requirement, found.requires or [])
        extras = requirement.extras or {""}
        todo += [
            r
            for r in needed
            if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in extras)
        ]


def test_another_pytorch_may_be_there() -> None:
    (torch,) = (r for r in direct() if r.name == "torch")
    assert all(torch.specifier.contains(v) for v in ("2.9.0", "2.9.1+cu130", "2.13.0", "2.14.1"))
    assert not any(torch.specifier.contains(v) for v in ("2.8.0", "3.0.0"))


FIRST_TORCH = """
import importlib, json, os, sys

class Found(Exception): ...

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise Found

sys.meta_path.insert(0, Finder())
seen = {}
for entry in sys.argv[1:]:
    for name in [n for n in sys.modules if n.split(".")[0] in ("run", "experiments", "gpt")]:
        del sys.modules[name]
    os.environ.pop("GOMP_SPINCOUNT", None)
    try:
        importlib.import_module(entry)
    except Found:
        seen[entry] = os.environ.get("GOMP_SPINCOUNT")
print(json.dumps(seen))
"""
ENTRIES = [
    "run",
    "experiments.plots",
    "experiments.report.__main__",
    "experiments.claims.board",
]


def environment(**more: str) -> dict[str, str]:
    """This one without what OpenMP is told, and with `more`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def test_how_threads_wait_is_set_before_pytorch_loads() -> None:
    """In each way to start, the spawned workers of claims among them."""
    command = [sys.executable, "-c", FIRST_TORCH, *ENTRIES]
    output = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert json.loads(output.stdout) == dict.fromkeys(ENTRIES, "10000")


def openmp(**given: str) -> dict[str, str]:
    """What OpenMP is told, where the user has said what is given."""
    code = "import experiments, json, os; print(json.dumps(dict(os.environ)))"
    command = [sys.executable, "-c", code]
    output = subprocess.run(
        command, env=environment(**given), capture_output=True, text=True, check=True
    )
    told = json.loads(output.stdout)
    return {name: value for name, value in told.items() if name.startswith(("OMP_", "GOMP_"))}


def test_how_threads_wait_is_the_users_choice() -> None:
    for given in ("7", "infinity"):
        assert openmp(GOMP_SPINCOUNT=given)["GOMP_SPINCOUNT"] == given
    assert openmp(GOMP_SPINCOUNT="")["GOMP_SPINCOUNT"] == "10000"
    assert "GOMP_SPINCOUNT" not in openmp(OMP_WAIT_POLICY="active")


def test_the_number_of_threads_follows_nothing_but_what_is_set() -> None:
    """Not the load, by which OpenMP would change it from one moment to the next."""
    told = openmp(OMP_DYNAMIC="true", OMP_THREAD_LIMIT="2")
    assert (told["OMP_DYNAMIC"], told["OMP_NUM_THREADS"]) == ("false", "2")
    assert "OMP_THREAD_LIMIT" not in told  # more would be recorded than compute
    assert openmp(OMP_NUM_THREADS="3", OMP_THREAD_LIMIT="4")["OMP_NUM_THREADS"] == "3"
    assert "OMP_NUM_THREADS" not in openmp()


def test_threads_are_not_bound_to_cores() -> None:
    """Or the processes of a sweep, which are started from one that is bound, share its core."""
    found = importlib.util.find_spec("torch")
    assert found is not None
    assert found.origin is not None
    libraries = list(Path(found.origin).parent.glob("lib/libgomp*"))
    if not libraries:
        pytest.skip("this build of PyTorch does not use GNU OpenMP")
    code = """if True:
        import ctypes, os, sys
        before = os.sched_getaffinity(0)
        import experiments
        ctypes.CDLL(sys.argv[1])  # which binds the thread that loads it
        assert os.sched_getaffinity(0) == before
    """
    given = environment(OMP_PROC_BIND="true", OMP_PLACES="{0}")
    subprocess.run([sys.executable, "-c", code, str(libraries[0])], env=given, check=True)


def test_the_gpu_that_a_run_computes_on_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In its summary, and where it goes on: there a run on another one has a warning."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"H100 of {device}")
    assert "gpu" not in versions()
    assert "gpu" not in versions("cpu")
    recorder = Recorder(tmp_path, settings_of("wandb.mode=disabled"))
    recorder.summary.device = "cuda"
    recorder.close("finished", [])
    told = json.loads((tmp_path / "summary.json").read_text())["versions"]
    assert told["gpu"] == "H100 of cuda"
    warn_of_other_versions({"versions": told}, "cuda")
    earlier = {name: version for name, version in told.items() if name != "gpu"}
    warn_of_other_versions({"versions": earlier}, "cuda")  # of version 0.5
    assert not caplog.messages
    warn_of_other_versions({"versions": told | {"gpu": "A100"}}, "cuda")
    assert caplog.messages == ["the run began under gpu A100 and continues under H100 of cuda"]


def test_the_version_is_that_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of an editable installation made at an earlier one; nor need there be one at all."""
    monkeypatch.setattr(versions_module, "_installed", versions_module._installed.__wrapped__)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.1")
    assert versions()["normscope"] == PROJECT["version"]
    assert versions()["numpy"] == "0.0.1"

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert versions()["normscope"] == PROJECT["version"]
    assert "numpy" not in versions()
    monkeypatch.setattr(versions_module, "PROJECT", Path("absent"))
    assert "normscope" not in versions()
