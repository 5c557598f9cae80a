"""What takes seconds in a new process, done once before the processes of `children` are forked."""

import gc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import vl_convert
from hydra import compose, initialize_config_dir

import experiments.report
import experiments.report.run_pictures
import run
from composing import compose_quickly
from experiments.jobs.check import checked_settings
from experiments.report.interactive import library
from experiments.settings.compose import to_values
from experiments.training.memory import predict

__all__ = ["experiments"]

compose_quickly()
with initialize_config_dir(run.CONF, version_base="1.3"):  # finds Hydra's plugins
    settings = checked_settings(to_values(compose("config", overrides=["model=nano"])))
predict(settings, settings.model_config(100))  # loads PyTorch's fake tensors
# Vega's script is put together by an engine with threads, which must not be in what is forked.
with ProcessPoolExecutor(1, get_context("fork")) as elsewhere:
    script = elsewhere.submit(library).result()
vl_convert.javascript_bundle = lambda code: str(script)
gc.freeze()  # as conftest.py does
