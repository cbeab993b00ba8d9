"""What an experiment is and what it returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench.paper.lab import Lab


class Claim(NamedTuple):
    """One statement of the paper, and what came of it.

    Attributes:
        text: the statement, one sentence.
        held: whether it held here; None where the numbers do not decide it.
        evidence: the numbers, in words.
    """

    text: str
    held: bool | None
    evidence: str


class Outcome(NamedTuple):
    """What an experiment found.

    Attributes:
        numbers: nested mappings and lists of strings, numbers, booleans, None and small tensors; goes into the JSON.
        claims: the paper's statements that these numbers bear on.
    """

    numbers: Mapping[str, Any]
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """One experiment of the paper.

    Attributes:
        name: of its result file, and on the command line.
        title: one line about it.
        run: does it, with the models and data of a `Lab`, and saves its figures there.
    """

    name: str
    title: str
    run: Callable[[Lab], Outcome]
