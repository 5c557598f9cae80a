"""What is measured of a model, of any `torch.nn.Module`. PyTorch alone.

anatomy_of(model)   where its blocks, branches, norms, embeddings and head are
attach(model)       measure it in a training loop of your own
Probes(anatomy)     the same by hand: on a probed step, around the update, at the end
depth_mixing(...)   how much of the stream each sublayer wrote
trace(block, x)     what a block computes, as a graph
catalogue()         every statistic, with its equation; `python -m normscope` prints them
"""

from normscope.anatomy import Anatomy, anatomy_of, parameter_table
from normscope.attach import Scope, attach
from normscope.mixing import MixingRow, depth_mixing
from normscope.probes import Probes
from normscope.stats import Row, Statistic, catalogue
from normscope.trace import Graph, Node, trace

__all__ = [
    "Anatomy",
    "Graph",
    "MixingRow",
    "Node",
    "Probes",
    "Row",
    "Scope",
    "Statistic",
    "anatomy_of",
    "attach",
    "catalogue",
    "depth_mixing",
    "parameter_table",
    "trace",
]
