"""What measuring costs, in processor time over that of a training step of the default run.

Made by `python -m tests.benchmarks.statistics > normscope/costs.py`, on a CPU with 1 thread.
"""

COSTS = {
    "step": 0.65,
    "update": 0.027,
    "mixing": 0.62,
    "end": 40.0,
    "activation_rms": 0.022,
    "activation_variance": 0.022,
    "activation_max": 0.0043,
    "attention_max_logit": 0.00069,
    "attention_entropy": 0.01,
    "branch_ratio": 0.006,
    "token_cosine": 0.0067,
    "stream_kurtosis": 0.0057,
    "stream_max_over_rms": 0.0039,
    "stream_max_over_median": 0.033,
    "stream_grad_norm": 0.0031,
    "angular_distance": 0.015,
    "stream_cosine": 0.011,
    "mixing_share": 0.1,
    "mixing_size": 0.08,
}
