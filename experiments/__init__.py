"""What is done with a model: runners, probes, sinks, pictures.

Sets how GNU OpenMP's threads behave, which PyTorch computes with. OpenMP reads these variables
once, when PyTorch is loaded; so do processes that are started from here.
"""

import os

# The number of threads must not follow the machine's load, since the last bits of sums depend on
# it; and threads must not be bound to cores, or all processes of a sweep are bound to the first.
os.environ |= {"OMP_DYNAMIC": "false", "OMP_PROC_BIND": "false"}

# PyTorch does not know of this limit, and a run would record more threads than compute.
if limit := os.environ.pop("OMP_THREAD_LIMIT", None):
    os.environ.setdefault("OMP_NUM_THREADS", limit)

# Threads wait for each other in a loop, by default of 300,000 turns. Where another program uses the
# same cores, most of a step would go into waiting for a thread that has no core to run on.
if not (os.environ.get("OMP_WAIT_POLICY") or os.environ.get("GOMP_SPINCOUNT")):
    os.environ["GOMP_SPINCOUNT"] = "10000"
