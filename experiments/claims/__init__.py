"""Published claims about norm placement, and how each is measured.

Importing this package fills `experiments.claims.claim.CLAIMS`.
"""

from experiments.claims import theory, training
from experiments.claims.claim import CLAIMS

__all__ = ["CLAIMS", "theory", "training"]
