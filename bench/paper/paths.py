"""Curves between pairs of images, and what is measured on the way: lengths, deviations, decoded frames."""

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench.paper.lab import Lab, Model, digest
from geodesics import Curve, EnergySolver, GeodesicResult, Metric, Status, constant_speed, geodesic, length

# Lengths to 1 %: the ratios told here are of several times that.
SOLVER = EnergySolver(max_segments=32, length_tol=1e-2)
# Points of a curve at which the standard deviation is taken.
LOOKS = 257
# Pairs solved at a time, and kept: what a kill can cost.
PART = 25
_ROWS = 2048


class Frames(NamedTuple):
    """What the images decoded along each of B curves do.

    Attributes:
        largest_change: Euclidean distance of neighboring frames, the largest.
        total_change: the sum of these distances.
        nearest_mean: distance of a frame to the nearest training image, the mean over frames.
        nearest_largest: the largest.
    """

    largest_change: Float[Tensor, " b"]
    total_change: Float[Tensor, " b"]
    nearest_mean: Float[Tensor, " b"]
    nearest_largest: Float[Tensor, " b"]


def connect(lab: Lab, model: Model, metric: Metric, z0: Tensor, z1: Tensor, text: str) -> GeodesicResult:
    """Geodesics from z0 to z1, started on the graph of the model's data; every part is kept when it is done."""
    parts = [
        _connect_part(lab, model, metric, a, b)
        for a, b in lab.progress(list(zip(z0.split(PART), z1.split(PART), strict=True)), text)
    ]
    finest = max(part.curve.num_segments for part in parts)
    curves = [part.curve.with_segments(finest) for part in parts]
    whole = Curve(torch.cat([c.points for c in curves]), torch.cat([c.knots for c in curves]), curves[0].degree)
    fields = zip(*(part[1:] for part in parts), strict=True)
    return GeodesicResult(whole, *(torch.cat(field) for field in fields))


def _connect_part(lab: Lab, model: Model, metric: Metric, z0: Tensor, z1: Tensor) -> GeodesicResult:
    names = GeodesicResult._fields[1:]

    def solve() -> dict[str, Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # problems that fail are counted
            result = geodesic(metric, z0, z1, solver=SOLVER, initial=lab.graph(metric, model.latents))
        curve = {"points": result.curve.points, "knots": result.curve.knots}
        return curve | dict(zip(names, result[1:], strict=True))

    seen = digest(z0, z1, metric.tensor(z0), model.latents)
    found = lab.kept(f"geodesics {SOLVER} {lab.config.graph_nodes} {lab.config.seed} {seen}", solve)
    curve = Curve(found["points"], found["knots"], SOLVER.degree)
    return GeodesicResult(curve, *(found[name] for name in names))


def statuses(result: GeodesicResult) -> dict[str, int]:
    """How many problems ended in each status."""
    return dict(Counter(Status(code).name for code in result.status.tolist()))


def certified(lab: Lab, metric: Metric, curves: Curve, text: str) -> tuple[Tensor, Tensor]:
    """Lengths of curves with error estimates, `geodesics.length` in parts."""
    parts = [length(metric, curves[start : start + PART]) for start in lab.progress(range(0, len(curves), PART), text)]
    return torch.cat([value for value, _ in parts]), torch.cat([error for _, error in parts])


def largest_deviation(deviation: Callable[[Tensor], Tensor], curves: Curve) -> Float[Tensor, " b"]:
    """The largest standard deviation met on the way: root mean square over the outputs, largest over the curve."""
    t = torch.linspace(0, 1, LOOKS, dtype=curves.points.dtype)
    return deviations(deviation, curves.evaluate(t)).amax(1)


def deviations(deviation: Callable[[Tensor], Tensor], z: Float[Tensor, "b t d"]) -> Float[Tensor, "b t"]:
    """Standard deviations at points of curves: root mean square over the outputs."""
    with torch.no_grad():
        size = torch.cat([deviation(part).square().mean(1).sqrt() for part in z.flatten(0, 1).split(_ROWS)])
    return size.view(z.shape[:2])


def frames_at_equal_latent_steps(curves: Curve, count: int) -> Float[Tensor, "b t d"]:
    """Points of curves at equal Euclidean steps of the latent space."""
    dense = curves.evaluate(torch.linspace(0, 1, 2049, dtype=curves.points.dtype))
    arc = torch.nn.functional.pad(dense.diff(dim=1).norm(dim=-1).cumsum(1), (1, 0))
    wanted = arc[:, -1:] * torch.linspace(0, 1, count, dtype=arc.dtype)
    right = torch.searchsorted(arc, wanted.contiguous()).clamp(1, arc.shape[1] - 1)
    return dense.gather(1, right[..., None].expand(-1, -1, dense.shape[-1]))


def frames_at_equal_steps(lab: Lab, metric: Metric, curves: Curve, count: int) -> Float[Tensor, "b t d"]:
    """Points of curves at equal Riemannian steps."""
    return torch.cat(
        [constant_speed(metric, curves[start : start + PART], count) for start in range(0, len(curves), PART)]
    )


def watch(model: Model, z: Float[Tensor, "b t d"]) -> Frames:
    """Decode frames and compare them with one another and with the training images."""
    with torch.no_grad():
        images = model.vae.decode(z.flatten(0, 1)).mean
        nearest = torch.cat([torch.cdist(part, model.split.train.x.double()).amin(1) for part in images.split(_ROWS)])
    change = images.view(*z.shape[:2], -1).diff(dim=1).norm(dim=-1)
    nearest = nearest.view(z.shape[:2])
    return Frames(change.amax(1), change.sum(1), nearest.mean(1), nearest.amax(1))


def one_of_each(labels: Tensor, first: Tensor, second: Tensor) -> Int[Tensor, " k"]:
    """For each pair of classes, the first of the drawn pairs of images that is of it."""
    found: dict[tuple[int, int], int] = {}
    for row, kinds in enumerate(zip(labels[first].tolist(), labels[second].tolist(), strict=True)):
        found.setdefault(kinds, row)
    return torch.tensor(list(found.values()))


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Tensors of a table as lists of six digits, to keep the files small."""
    return {
        name: [float(f"{v:.6g}") for v in value.tolist()] if isinstance(value, Tensor) else value
        for name, value in values.items()
    }
