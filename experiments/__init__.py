"""What is done with a model: runners, probes, sinks, pictures."""

import os

# GNU OpenMP's threads wait for each other in a loop, by default of 300,000 turns. Where another
# program uses the same cores, most of a training step goes into waiting for a thread that cannot
# run, because the others do not give up its core. PyTorch reads this once, when it is loaded, as
# do the processes that are started from here.
if not (os.environ.get("OMP_WAIT_POLICY") or os.environ.get("GOMP_SPINCOUNT")):
    os.environ["GOMP_SPINCOUNT"] = "10000"
