"""Published claims about norm placement, and how each is measured.

Importing this package fills `experiments.claims.claim.CLAIMS`, block by block.
"""

from experiments.claims import theorems, gpt_laws, training, inside, rates  # noqa: I001 - the order of the board
from experiments.claims.claim import CLAIMS

__all__ = ["CLAIMS", "gpt_laws", "inside", "rates", "theorems", "training"]
