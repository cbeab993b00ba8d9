"""How time and memory grow: ``python -m bench.scaling``.

Time of one batched solve against B, N, D and d, each alone, with the exponent fitted by least squares to the
logarithms over the larger half; peak memory of `distance_matrix` against n at a fixed chunk; what float32 costs in
accuracy and saves in time, and whether float32 first and float64 after pays. Writes ``scaling.json`` and
``scaling.md``. Times are processor times: they hold on a busy machine.
"""

import argparse
import copy
import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from bench.contest.cell import peak_memory, reset_peak
from bench.contest.dense_length import dense_length
from bench.contest.environment import environment
from bench.problems.closed_forms import closed_forms
from bench.problems.learned_metrics import digits
from bench.problems.problem_set import ROOT, ProblemSet
from geodesics import Curve, EnergySolver, PullbackMetric, distance_matrix, geodesic

RUNS = 3
BATCH = 256
CHUNK = 256
HIDDEN = 64


@dataclass(frozen=True)
class Sizes:
    """The points at which each law is measured."""

    batch: tuple[int, ...] = (16, 64, 256, 1024)
    segments: tuple[int, ...] = (8, 16, 32, 64)
    outputs: tuple[int, ...] = (64, 256, 1024, 4096)
    latents: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    points: tuple[int, ...] = (32, 64, 128)


QUICK = Sizes((4, 8), (2, 4), (8, 16), (2, 3), (4, 8))


class Law(NamedTuple):
    """Time or memory against one size.

    Attributes:
        name: what grows.
        unit: of the values.
        sizes: where it was measured.
        values: what was measured there.
        exponent: slope of the logarithms over the larger half of the sizes.
        expected: what it should be at most.
    """

    name: str
    unit: str
    sizes: list[int]
    values: list[float]
    exponent: float
    expected: str


class Decoder(nn.Module):
    """A smooth decoder of any size with fixed random weights: ``A tanh(B z + b)``, B of unit rows.

    Args:
        d: latents.
        D: outputs.
        dtype: of the weights.
    """

    def __init__(self, d: int, D: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(d)
        B = torch.nn.functional.normalize(torch.randn(HIDDEN, d, generator=rng, dtype=torch.float64), dim=1)
        self.register_buffer("inner", B.to(dtype))
        self.register_buffer("shift", torch.randn(HIDDEN, generator=rng, dtype=torch.float64).to(dtype))
        A = torch.randn(D, HIDDEN, generator=rng, dtype=torch.float64) / math.sqrt(D)
        self.register_buffer("outer", A.to(dtype))

    def forward(self, z: Tensor) -> Tensor:
        """Outputs ``(B, D)``."""
        return torch.tanh(z @ self.inner.mT + self.shift) @ self.outer.mT


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, write, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description="Scaling laws and precision.")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", help="output folder")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a test of this script")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # failures are counted below
        results = {
            "environment": environment(1, "float64 unless said"),
            "laws": [law._asdict() for law in laws(QUICK if given.quick else Sizes())],
            "precision": precision(4 if given.quick else None),
        }
    report = markdown(results)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "scaling.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (given.out / "scaling.md").write_text(report, encoding="utf-8")
    print(report)


def laws(sizes: Sizes) -> list[Law]:
    """Each size varied alone about d = 2, D = 128, N = 8 and `BATCH` pairs."""
    return [
        _law("B, pairs", sizes.batch, lambda n: _solve_seconds(n, 2, 128, 8), "1"),
        _law("N, elements per curve", sizes.segments, lambda n: _solve_seconds(BATCH // 4, 2, 128, n), "1"),
        _law("D, outputs", sizes.outputs, lambda n: _solve_seconds(BATCH // 4, 2, n, 8), "1"),
        _law("d, latents", sizes.latents, lambda n: _solve_seconds(BATCH // 16, n, 128, 8), "3"),
        _law("n, points of distance_matrix", sizes.points, _matrix_memory, "2 of the matrix itself", "MiB"),
    ]


def _law(name: str, sizes: Sequence[int], measure: Callable[[int], float], expected: str, unit: str = "s") -> Law:
    values = [measure(n) for n in tqdm(sizes, desc=name)]
    return Law(name, unit, list(sizes), values, exponent(sizes, values), expected)


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Least-squares slope of ``log value`` in ``log size`` over the larger half, of two sizes at least."""
    first = min(len(sizes) // 2, len(sizes) - 2)
    x, y = (np.log(np.maximum(list(part)[first:], 1e-12)) for part in (sizes, values))
    return float(np.polyfit(x, y, 1)[0])


def _pairs(count: int, d: int) -> tuple[Tensor, Tensor]:
    """Ends at Euclidean distances about 1.4 whatever d: problems of equal difficulty."""
    rng = torch.Generator().manual_seed(0)
    z0, z1 = (torch.randn(count, d, generator=rng, dtype=torch.float64) / math.sqrt(d) for _ in range(2))
    return z0, z1


def _solve_seconds(count: int, d: int, D: int, num_segments: int) -> float:
    """Processor time of four Newton steps on one mesh, always the same work: what grows is its cost."""
    z0, z1 = _pairs(count, d)
    metric = PullbackMetric(Decoder(d, D))
    solver = EnergySolver(num_segments, num_segments, max_iter=4, max_meshes=1)
    return _processor_time(lambda: geodesic(metric, z0, z1, solver=solver))


def _processor_time(function: Callable[[], Any]) -> float:
    """Median over a few runs after a warm-up."""
    times = []
    for _ in range(RUNS + 1):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return median(times[1:])


def _matrix_memory(n: int) -> float:
    """`_matrix_memory_here` in a fresh process: one that has freed memory before takes that first."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_matrix_memory_here, n).result()


def _matrix_memory_here(n: int) -> float:
    """Peak memory of all distances between n points, `CHUNK` pairs at a time, in MiB above what was held."""
    torch.set_num_threads(1)
    z, _ = _pairs(n, 2)
    metric = PullbackMetric(Decoder(2, 128))
    distance_matrix(metric, z[:3])
    before = reset_peak()
    distance_matrix(metric, z, chunk_size=CHUNK)
    return peak_memory(before) or math.nan


class Answered(NamedTuple):
    """Curves of one way to solve, with what it took."""

    curve: Curve
    length: Tensor
    converged: float
    seconds: float


def precision(count: int | None) -> list[dict[str, Any]]:
    """float64, float32, and float32 polished by float64, on closed forms and on the digits from straight lines."""
    rows = []
    for name, make in tqdm({**closed_forms(), "digits": digits}.items(), desc="precision"):
        problems = make().part(slice(count))
        for kind, answered in _answers(problems).items():
            curve = Curve(answered.curve.points.double(), None, answered.curve.degree)
            measured, _ = dense_length(problems, _pinned(curve, problems), 4000)
            excess = (measured / problems.best - 1).abs() if problems.graph is None else measured / problems.best - 1
            reported = (answered.length.double() / measured - 1).abs()
            rows.append(
                {
                    "set": name,
                    "kind": kind,
                    "seconds": answered.seconds / len(problems),
                    "median_excess": float(excess.nanmedian()),
                    "worst_excess": float(excess.nan_to_num(torch.inf).amax()),
                    "worst_reported": float(reported.nan_to_num(torch.inf).amax()),
                    "converged": answered.converged,
                    "failed": int(measured.isnan().sum()),
                }
            )
    return rows


def _pinned(curve: Curve, problems: ProblemSet) -> Curve:
    """Ends in float64: the length is to be that of a curve between the points asked for."""
    points = torch.cat([problems.z0[:, None], curve.points[:, 1:-1], problems.z1[:, None]], dim=1)
    return Curve(points, curve.knots, curve.degree)


def _answers(problems: ProblemSet) -> dict[str, Answered]:
    single = _in_single(problems)

    def solved(metric: Any, part: ProblemSet, start: Curve | None = None) -> Any:
        initial = None if start is None else (lambda z0, z1: [start])
        return geodesic(metric, part.z0, part.z1, initial=initial)

    def mixed() -> Any:
        first = solved(single.metric, single).curve
        return solved(problems.metric, problems, Curve(first.points.double(), first.knots.double(), first.degree))

    ways: dict[str, Callable[[], Any]] = {
        "float64": lambda: solved(problems.metric, problems),
        "float32": lambda: solved(single.metric, single),
        "float32, then float64": mixed,
    }
    answers = {}
    for kind, way in ways.items():
        result = way()
        seconds = _processor_time(way)
        answers[kind] = Answered(result.curve, result.length, float(result.converged.double().mean()), seconds)
    return answers


def _in_single(problems: ProblemSet) -> ProblemSet:
    """The same problems in float32; closed forms compute in the type of their argument, models are converted."""
    metric = problems.metric
    if isinstance(problems.embedding, nn.Module):
        metric = PullbackMetric(copy.deepcopy(problems.embedding).float())
    return ProblemSet(problems.name, metric, problems.z0.float(), problems.z1.float(), problems.best.float())


def markdown(results: dict[str, Any]) -> str:
    """Environment, laws, precision."""
    lines = ["# Scaling and precision", ""]
    lines += [f"{name}: {value}  " for name, value in results["environment"].items()]
    lines += ["", *law_table(results["laws"]), "", NOTES, "", *precision_table(results["precision"])]
    return "\n".join([*lines, ""])


def law_table(laws: list[dict[str, Any]]) -> list[str]:
    """Rows of Markdown: what was measured at which sizes, with the exponent."""
    rows = [("against", "sizes", "measured", "fitted exponent", "at most"), ("---",) * 5]
    for law in laws:
        sizes = ", ".join(map(str, law["sizes"]))
        values = ", ".join(f"{value:.3g}" for value in law["values"])
        rows.append((law["name"], sizes, f"{values} {law['unit']}", f"{law['exponent']:.2f}", law["expected"]))
    return ["| " + " | ".join(row) + " |" for row in rows]


def precision_table(found: list[dict[str, Any]]) -> list[str]:
    """Rows of Markdown: a number type on a set of problems."""
    header = ("problems", "type", "CPU s", "excess: median / worst", "reported off by", "converged", "failed")
    rows = [header, ("---",) * len(header)]
    rows += [
        (
            row["set"],
            row["kind"],
            f"{row['seconds']:.2g}",
            f"{row['median_excess']:.0e} / {row['worst_excess']:.0e}",
            f"{row['worst_reported']:.0e}",
            f"{row['converged']:.0%}",
            str(row["failed"]),
        )
        for row in found
    ]
    return ["| " + " | ".join(row) + " |" for row in rows]


NOTES = """\
Times are processor seconds of one batched call with always the same work, four Newton steps on one mesh from straight
lines; the decoder is a perceptron with 64 tanh units. The exponent is fitted to the larger half of the sizes. Memory is
what `distance_matrix` holds at most above what was there, with chunks of 256 pairs. Below: one call with the default
solver per set, from straight lines; excess of the dense length in float64 of the curve over the best known, and how far
the reported length is from that dense length at worst."""


if __name__ == "__main__":
    main()
