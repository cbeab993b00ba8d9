"""The best lengths known on the digits model: ``python -m bench.digits_reference``.

Several solvers with generous options, each from many starts, in both directions; of all curves the shortest
by the dense chords counts. An upper bound: where a solver of the table finds a shorter curve, the table says
so.
"""

import json
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from bench.contest.dense_length import dense_length
from bench.problems.learned_metrics import DIGITS_REFERENCE, digits_model
from bench.problems.problem_set import Model, ProblemSet
from geodesics import (
    Curve,
    EnergySolver,
    GraphPaths,
    InitialCurves,
    LBFGSSolver,
    ShootingSolver,
    Solver,
    Straight,
    geodesic,
)
from vae import load_digits
from vae.demo import draw_pairs

NUM_PAIRS = 24
SEED = 0
NUM_CHORDS = 40_000


class Attempt(NamedTuple):
    """A solver from its starts; ``reverse`` solves from the end to the start."""

    name: str
    solver: Solver
    initial: InitialCurves
    reverse: bool = False


def main() -> None:
    """Find, and store, the best lengths."""
    torch.set_num_threads(1)
    model = digits_model()
    first, second = draw_pairs(load_digits().labels, NUM_PAIRS, SEED)
    z0, z1 = model.latents[first], model.latents[second]
    unknown = torch.full_like(z0[:, 0], torch.inf)
    problems = ProblemSet("digits", model.metric, z0, z1, unknown, model.embedding)
    best, error, winner = best_lengths(problems, attempts(model))
    pairs = [
        {"z0": a, "z1": b, "length": length, "error": width, "by": name}
        for a, b, length, width, name in zip(
            z0.tolist(), z1.tolist(), best.tolist(), error.tolist(), winner, strict=True
        )
    ]
    text = ",\n".join("  " + json.dumps(pair) for pair in pairs)
    DIGITS_REFERENCE.write_text('{\n "pairs": [\n' + text + "\n ]\n}\n", encoding="utf-8")


def attempts(model: Model) -> list[Attempt]:
    """Everything that is tried."""
    many = GraphPaths(model.metric, model.latents, num_paths=6)
    fine = EnergySolver(num_segments=32, max_segments=512, length_tol=1e-6, max_iter=30, max_meshes=6)
    return [
        Attempt("energy, 6 graph paths", fine, many),
        Attempt("energy, 6 graph paths, reversed", fine, many, reverse=True),
        Attempt("energy, straight", fine, Straight()),
        Attempt("energy of degree 5, 6 graph paths", EnergySolver(32, 256, 5, 10, length_tol=1e-7), many),
        Attempt(
            "L-BFGS, 3 graph paths",
            LBFGSSolver(num_segments=64, max_iter=1000),
            GraphPaths(model.metric, model.latents, num_paths=3, seed=1),
        ),
        Attempt("shooting, straight", ShootingSolver(warm_start=fine), Straight()),
    ]


def best_lengths(problems: ProblemSet, tried: list[Attempt]) -> tuple[Tensor, Tensor, list[str]]:
    """Shortest dense lengths of all attempts, the dense rule's errors there, and who found them."""
    best, error = problems.best.clone(), torch.zeros_like(problems.best)
    winner = [""] * len(problems)
    for attempt in tqdm(tried, unit="attempt"):
        length, width = dense_length(problems, _curves(problems, attempt), NUM_CHORDS)
        for i in (length < best).nonzero()[:, 0].tolist():
            winner[i] = attempt.name
        error = torch.where(length < best, width, error)
        best = torch.where(length < best, length, best)
    return best, error, winner


def _curves(problems: ProblemSet, attempt: Attempt) -> Curve:
    z0, z1 = (problems.z1, problems.z0) if attempt.reverse else (problems.z0, problems.z1)
    return geodesic(problems.metric, z0, z1, solver=attempt.solver, initial=attempt.initial).curve


if __name__ == "__main__":
    main()
