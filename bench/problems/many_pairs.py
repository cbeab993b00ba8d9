"""As many pairs as a batch takes, on closed forms and on the digits, with the lengths they are held to."""

from functools import lru_cache

import torch

from bench.gpu.models import digits_pairs
from bench.problems.closed_forms import closed_forms
from bench.problems.learned_metrics import digits_model
from bench.problems.problem_set import ProblemSet

NUM_PAIRS = 1024
# What the name of a set in single precision ends in.
SINGLE = "-float32"


def many_pairs(name: str, count: int) -> ProblemSet:
    """The first pairs of a set, the same for every count.

    Args:
        name: of a closed form, ``digits``, or ``digits-float32``, the same in single precision.
        count: B, at most `NUM_PAIRS`.

    Raises:
        ValueError: there are not so many.
    """
    if count > NUM_PAIRS:
        raise ValueError(f"count must be at most {NUM_PAIRS}; got {count}")
    problems = _digits(name.endswith(SINGLE)) if name.startswith("digits") else _closed_form(name)
    return problems.part(slice(count))


@lru_cache
def _closed_form(name: str) -> ProblemSet:
    return closed_forms()[name](NUM_PAIRS)


@lru_cache
def _digits(single: bool) -> ProblemSet:
    """The stored pairs of `bench.gpu.inputs`, each followed by its reversal: one reference length serves both."""
    model, pairs = digits_model(), digits_pairs()
    z0, z1 = (torch.stack(ends, dim=1).flatten(0, 1) for ends in ((pairs.z0, pairs.z1), (pairs.z1, pairs.z0)))
    best = pairs.best.repeat_interleave(2)
    if not single:
        return model.problem_set("digits", z0, z1, best)
    return model.single().problem_set("digits" + SINGLE, z0.float(), z1.float(), best.float())
