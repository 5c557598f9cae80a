"""How fast a training step is beside its peers': `python -m experiments.benchmark`."""
