"""Families of published models, one small file each: data, by which their files become ours."""

from gpt.families import (  # noqa: F401  they fill the table
    gemma3,
    gpt2,
    gpt_neo,
    gpt_neox,
    gpt_oss,
    gptj,
    llama,
    olmo3,
    opt,
    qwen3,
    smollm3,
)
from gpt.families.family import Family, family_of, load, spelled_out, stored
from gpt.registry import FAMILIES

__all__ = ["FAMILIES", "Family", "family_of", "load", "spelled_out", "stored"]
