"""Store the digits' many pairs, with starts: ``python -m bench.gpu.inputs``.

Pairs of encoded digits with reference lengths and the graph's initial curves, so that a bare machine needs neither the
data nor the graph's libraries. Run it after `bench.train_digits`; ten minutes on one core.
"""

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bench.contest.dense_length import dense_length
from bench.gpu.bare import STARTS
from bench.gpu.models import Pairs
from bench.problems.learned_metrics import digits_model
from bench.problems.problem_set import Model, ProblemSet
from geodesics import EnergySolver, GraphPaths, geodesic

NUM_PAIRS = 512
SEED = 0
CHORDS = 20_000
# Of the 257 vertices of a graph's polyline every fourth is kept, in single precision.
EVERY = 4


def main() -> None:
    """Draw, solve, write."""
    torch.set_num_threads(1)
    model = digits_model()
    rng = torch.Generator().manual_seed(SEED)
    rows = torch.randint(0, len(model.latents), (NUM_PAIRS, 2), generator=rng)
    z0, z1 = model.latents[rows[:, 0]], model.latents[rows[:, 1]]
    curves = GraphPaths(model.metric, model.latents)(z0, z1)
    starts = torch.stack([curve.points[:, ::EVERY] for curve in curves])
    pairs = Pairs(z0, z1, reference_lengths(model, z0, z1), starts.float())
    np.savez_compressed(STARTS, **{name: value.numpy() for name, value in pairs._asdict().items()})


def reference_lengths(model: Model, z0: Tensor, z1: Tensor) -> Tensor:
    """Dense lengths of finely resolved answers from four paths of another graph than that of the starts, ``(n,)``."""
    fine = EnergySolver(num_segments=16, max_segments=256, length_tol=1e-4)
    paths = GraphPaths(model.metric, model.latents, num_paths=4, seed=1)
    lengths = []
    for rows in tqdm(torch.arange(len(z0)).split(64)):
        answer = geodesic(model.metric, z0[rows], z1[rows], solver=fine, initial=paths)
        problems = ProblemSet("digits", model.metric, z0[rows], z1[rows], answer.length, model.embedding)
        lengths.append(dense_length(problems, answer.curve, CHORDS)[0])
    return torch.cat(lengths)


if __name__ == "__main__":
    main()
