"""What an experiment is, what it returns, and what its figures are drawn from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.figure import Figure

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
        arrays: what the figures need besides the numbers: nested mappings of tensors, arrays and lists of texts, see
            `arrays.save_arrays`; None for nothing.
    """

    numbers: Mapping[str, Any]
    claims: tuple[Claim, ...] = ()
    arrays: Mapping[str, Any] | None = None


class Stored(NamedTuple):
    """What the figures of an experiment are drawn from: all of it was read from files.

    Attributes:
        numbers: of its JSON.
        arrays: nested mappings of NumPy arrays; empty where there are none.
    """

    numbers: Mapping[str, Any]
    arrays: Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """One experiment of the paper.

    Attributes:
        name: of its result file, and on the command line.
        title: one line about it.
        run: does it, with the models and data of a `Lab`: all the computing.
        draw: its figures by file name, from what was stored, in seconds; None where it has none.
    """

    name: str
    title: str
    run: Callable[[Lab], Outcome]
    draw: Callable[[Stored], dict[str, Figure]] | None = None
