"""Published claims about norm placement, and how each is measured.

Importing this package fills `experiments.claims.claim.CLAIMS`, block by block.
"""

# In the order of the board.
from experiments.claims import theorems, variance, updates, vanishing  # noqa: I001
from experiments.claims import gpt_laws, training, inside, rates
from experiments.claims.claim import CLAIMS

__all__ = [
    "CLAIMS",
    "gpt_laws",
    "inside",
    "rates",
    "theorems",
    "training",
    "updates",
    "vanishing",
    "variance",
]
