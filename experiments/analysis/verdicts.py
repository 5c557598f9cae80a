"""The words and numbers that a board of claims shares with the pages about it.

`experiments.claims.rule` says what they mean.
"""

ALPHAS = {6: 0.005, 12: 0.010, 24: 0.015, 48: 0.020}  # by the number of seeds of a look
LOOKS = tuple(ALPHAS)
ALPHA = sum(ALPHAS.values())

HOLDS, FAILS, OPPOSITE, NO_EFFECT = "holds", "does not hold", "opposite", "no effect"
OPEN, INVALID = "open", "test invalid"
CONTRADICTIONS = (FAILS, OPPOSITE, NO_EFFECT)
# In place of a verdict, where nobody could read the source.
NO_SOURCE = "source not read"

LAW, SIGN, RATE = "law", "sign", "rate"

# Blocks of the board, in its order.
THEOREM, GPT_LAW, TRAINING = "theorem", "gpt", "training"
BLOCKS = {
    THEOREM: "Theorems in their setting",
    GPT_LAW: "The same laws in a GPT at initialisation",
    TRAINING: "Training",
}
# The distance of a measurement from the paper's, with the words for where something does not hold.
DISTANCES = {
    "same": "in the paper's setting",
    "scaled down": "in a scaled-down setting",
    "other architecture": "in another architecture",
}
