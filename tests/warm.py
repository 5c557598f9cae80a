"""What takes seconds in a new process, done once before the processes of `children` are forked."""

import gc

from hydra import compose, initialize_config_dir

import experiments.report.run_pictures
import run
from experiments.jobs.check import checked_settings
from experiments.settings.compose import to_values
from experiments.training.memory import predict

__all__ = ["experiments"]

with initialize_config_dir(run.CONF, version_base="1.3"):  # finds Hydra's plugins
    settings = checked_settings(to_values(compose("config", overrides=["model=nano"])))
predict(settings, settings.model_config(100))  # loads PyTorch's fake tensors
gc.freeze()  # as conftest.py does
