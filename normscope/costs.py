"""What measuring costs, in processor time over that of a training step of the default run.

Made by `python -m tests.benchmarks.statistics > normscope/costs.py`, on a CPU with 2 threads.
"""

COSTS = {
    "step": 0.77,
    "update": 0.039,
    "mixing": 0.73,
    "end": 39.0,
    "activation_rms": 0.025,
    "activation_variance": 0.017,
    "activation_max": 0.003,
    "attention_max_logit": 0.00041,
    "attention_entropy": 0.0061,
    "branch_ratio": 0.0046,
    "token_cosine": 0.0052,
    "stream_kurtosis": 0.0043,
    "stream_max_over_rms": 0.0029,
    "stream_max_over_median": 0.074,
    "stream_grad_norm": 0.003,
    "angular_distance": 0.019,
    "stream_cosine": 0.0078,
    "mixing_share": 0.12,
    "mixing_size": 0.11,
}
