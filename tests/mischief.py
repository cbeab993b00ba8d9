"""Calls of the public functions with arguments of all sorts, for the tests by chance.

A call starts from arguments that fit; some of them are replaced by others, good or bad. What is asked of every call:
it ends, and with an answer or with a ValueError or a TypeError that names an argument.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal

import geodesics as g

F64 = torch.float64
Z = torch.tensor([[0.1, -0.3], [0.6, 0.4]], dtype=F64)
W = Z.flip(0) + 0.2
V = 0.1 * W
EYE = torch.eye(2, dtype=F64)
ANY: Any = None


def surface(z):
    return torch.cat([z, (z[:, :1] * z[:, 1:]).sin()], dim=1)


def field(z):
    return torch.eye(z.shape[1], dtype=z.dtype, device=z.device) * (1 + z.square().sum(1))[:, None, None]


torch.manual_seed(0)
NET = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3))
NETS = {
    "float32": NET,
    "float64": nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)).double(),
    "dropout": nn.Sequential(nn.Linear(2, 3), nn.Dropout()).double(),
    "batch norm": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double(),
    "batch norm of eval": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double().eval(),
    "without statistics": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, track_running_stats=False)).double().eval(),
    "three latents": nn.Linear(3, 4).double(),
    "images": nn.Sequential(nn.Conv2d(1, 2, 3, padding=1)).double(),
    "half": nn.Linear(2, 3).half(),
}


def raising(*_):
    raise KeyError("nobody expects this")


DECODERS: list[Any] = [
    surface,
    *NETS.values(),
    NETS["float64"].forward,
    lambda z: NET(z),
    lambda z: surface(z).unflatten(1, (1, 3, 1)),
    lambda z: Normal(surface(z), 1 + surface(z).square()),
    lambda z: Independent(Normal(surface(z), 0.5), 1),
    lambda z: Bernoulli(surface(z).sigmoid()),
    lambda z: (z, z),
    lambda z: {"sample": z},
    lambda z: None,
    lambda z: z.numpy(),
    lambda z: torch.from_numpy(np.tanh(z.numpy())),
    lambda z: z.tolist(),
    lambda z: z.float(),
    lambda z: z.long(),
    lambda z: z * 1j,
    lambda z: z[:, 0],
    lambda z: z[:1],
    lambda z: z.sum(),
    lambda z: z[:, :0],
    lambda z: z.detach(),
    lambda z: z.round(),
    lambda z: z - z.mean(0),
    lambda z: z + torch.rand_like(z),
    lambda z: z * torch.nan,
    lambda z: z / 0,
    lambda z: torch.zeros_like(z),
    lambda z: z.relu(),
    lambda z: z.to_sparse(),
    lambda z: 1e200 * surface(z),
    lambda z: 1e-200 * surface(z),
    lambda z: z.mul_(2),
    lambda z, y: z,
    raising,
    g.Stack(surface, NETS["float64"]),
    nn.Linear,
    "decoder",
    None,
    3,
]
FIELDS: list[Any] = [
    field,
    lambda z: -field(z),
    lambda z: field(z) * torch.nan,
    lambda z: field(z).cumsum(1),
    lambda z: field(z).float(),
    lambda z: field(z).long(),
    lambda z: 0 * field(z),
    lambda z: z,
    lambda z: None,
    lambda z: field(z)[:1],
    lambda z: field(z).numpy(),
    lambda z: torch.rand(len(z), 1, 1, dtype=z.dtype) * field(z),
    raising,
    None,
    "field",
]


class Half:
    def tensor(self, z):
        return field(z)


class Lazy:
    def solve(self, metric, starts):
        return starts


def metric_of(kind: type, function: Any) -> Any:
    """A metric, or what was to be one where it cannot be made."""
    try:
        return kind(function)
    except (TypeError, ValueError):
        return function


FLAT = g.FunctionMetric(field)
CURVED = g.PullbackMetric(surface)
METRICS = [
    FLAT,
    CURVED,
    *(metric_of(g.PullbackMetric, decoder) for decoder in DECODERS),
    *(metric_of(g.FunctionMetric, function) for function in FIELDS),
    g.PullbackMetric,
    Half(),
    surface,
    None,
    "metric",
]
with torch.inference_mode():
    INFERENCE = Z + 0
TENSORS: list[Any] = [
    Z,
    W,
    Z.float(),
    Z.half(),
    Z.bfloat16(),
    Z.long(),
    Z > 0,
    Z.to(torch.complex128),
    Z[0],
    Z[None],
    Z[:1],
    Z[:0],
    Z[:, :1],
    Z[:, :0],
    torch.cat([Z, W]),
    torch.cat([Z, W], dim=1),
    Z.expand(3, 2, 2).reshape(6, 2),
    Z.T,
    Z[:1].expand(2, 2),
    Z * torch.nan,
    torch.tensor([[torch.nan, 0.0], [0.3, 0.1]], dtype=F64),
    Z / 0,
    1e300 * Z,
    1e-300 * Z,
    0 * Z,
    Z.clone().requires_grad_(),
    nn.Parameter(Z),
    INFERENCE,
    Z.to("meta"),
    Z.to_sparse(),
    torch.tensor(2.0, dtype=F64),
    torch.zeros(1, 4, 2, 2, dtype=F64),
    Z.numpy(),
    Z.tolist(),
    tuple(Z),
    {"z": Z},
    "points",
    None,
    0.5,
    True,
    torch.Tensor,
]
NUMBERS: list[Any] = [
    *(0, 1, 2, 3, -1, 2.5, 0.1, 1e-3, math.nan, math.inf, -math.inf, 1e-300, 1e300, 2**31, 10**30, 10**400, True),
    *("3", None, np.int64(2), np.float32(0.5), np.float64(math.nan), Fraction(1, 2), Decimal("0.1"), 1j, [1], {}),
    *(torch.tensor(2), np.array(2), b"2", int),
]
SOLVERS: list[Any] = [
    None,
    g.EnergySolver(),
    g.EnergySolver(num_segments=2, max_segments=4),
    g.GeorceSolver(num_segments=8, max_iter=20),
    g.EnergySolver,
    "energy",
    Lazy(),
    surface,
    3,
    FLAT,
]
INITIALS: list[Any] = [
    None,
    g.Straight(),
    g.Straight,
    "straight",
    lambda z0, z1: [],
    lambda z0, z1: None,
    lambda z0, z1: g.Straight()(z0, z1)[0],
    lambda z0, z1: tuple(g.Straight()(z0, z1)),
    lambda z0, z1: [g.Curve(torch.stack([z0, z1], 1).float())],
    lambda z0, z1: [g.Curve(torch.stack([z0, z0 * torch.nan, z1], 1))],
    lambda z0, z1: [g.Curve(torch.stack([z0, z1], 1)[:1])],
    lambda z0, z1: [z0],
    lambda z0, z1: 3,
    [g.Straight()],
]
LINE = g.Curve(torch.stack([Z, W], dim=1))
CURVES: list[Any] = [
    LINE,
    g.Curve(torch.stack([Z, Z, W, W], 1), degree=3),
    g.Curve(torch.stack([Z, Z * torch.nan, W], 1)),
    g.Curve(torch.stack([Z, W], 1).float()),
    LINE[:0],
    g.Curve(torch.stack([Z, Z], 1)),
    Z,
    None,
    "curve",
    [LINE],
]
RANDOMS: list[Any] = [None, torch.Generator(), 0, "seed", np.random.default_rng(0), torch.Generator]
SHAPED: list[Any] = [*TENSORS, EYE, EYE[None], torch.ones(2, dtype=F64), torch.ones(1, 2, dtype=F64), torch.ones(2, 2)]
LABELS: list[Any] = [torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([5, -1]), Z[:, 0], [0, 1], *TENSORS[-9:]]
KNOTS: list[Any] = [
    None,
    torch.tensor([[0.0, 1.0]] * 2, dtype=F64),
    torch.tensor([[0.0, 0.5]] * 2, dtype=F64),
    torch.tensor([[1.0, 0.0]] * 2, dtype=F64),
    *TENSORS,
]
TIMES: list[Any] = [
    torch.linspace(0, 1, 3, dtype=F64),
    torch.linspace(0, 1, 3),
    torch.tensor([0.0, 0.0], dtype=F64),
    torch.tensor([0.0, math.inf], dtype=F64),
    *TENSORS,
]
QUICK = g.EnergySolver(num_segments=2, max_segments=4)

# The choices for an argument, by name where functions agree on them.
POOLS: dict[str, Sequence[Any]] = {
    "metric": METRICS,
    "generator": DECODERS,
    "decoder": DECODERS,
    "function": FIELDS,
    "tensor": [field, FLAT.tensor, CURVED.tensor, *FIELDS],
    "solver": SOLVERS,
    "initial": INITIALS,
    "curve": CURVES,
    "curves": CURVES,
    "random": RANDOMS,
    "labels": LABELS,
    "knots": KNOTS,
    "times": TIMES,
    "t": TIMES,
    **dict.fromkeys(("z", "z0", "z1", "u", "v", "w", "latents", "means", "points", "rows"), TENSORS),
    **dict.fromkeys(("weights", "start", "covariances", "distances"), SHAPED),
}


class Call(NamedTuple):
    """A public function with arguments that fit; further options have the choices of numbers."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    renamed: dict[str, str] = {}  # noqa: RUF012  argument to pool, where names mean different things


def _drawn(function: Callable[..., Any], **arguments: Any) -> Call:
    return Call(function, arguments, {"generator": "random"})


def _pairs(function: Callable[..., Any], **more: Any) -> Call:
    return Call(function, {"metric": CURVED, "z0": Z, "z1": W, "solver": QUICK, "initial": None, **more})


CALLS: dict[str, Call] = {
    "geodesic": _pairs(g.geodesic, chunk_size=None),
    "distance": _pairs(g.distance, chunk_size=None),
    "log_map": _pairs(g.log_map),
    "distance_matrix": Call(
        g.distance_matrix, {"metric": CURVED, "z": Z, "solver": QUICK, "initial": None, "chunk_size": 8}
    ),
    "inner": Call(g.inner, {"metric": CURVED, "z": Z, "u": W, "v": V}),
    "norm": Call(g.norm, {"metric": CURVED, "z": Z, "v": V}),
    "log_measure": Call(g.log_measure, {"metric": CURVED, "z": Z}),
    "gaussian_curvature": Call(g.gaussian_curvature, {"metric": CURVED, "z": Z}),
    "sectional_curvature": Call(g.sectional_curvature, {"metric": FLAT, "z": Z, "u": W, "v": Z}),
    "brownian_drift": Call(g.brownian_drift, {"metric": CURVED, "z": Z}),
    "exp_map": Call(g.exp_map, {"metric": FLAT, "z": Z, "v": V, "tol": 1e-3, "max_steps": 20}),
    "geodesic_flow": Call(
        g.geodesic_flow, {"metric": FLAT, "z": Z, "v": V, "times": TIMES[0], "tol": 1e-3, "max_steps": 20}
    ),
    "random_walk": _drawn(g.random_walk, metric=CURVED, z0=Z, num_steps=2, step_size=0.1, generator=None),
    "brownian_motion": _drawn(g.brownian_motion, metric=FLAT, z0=Z, num_steps=2, time_step=0.1, generator=None),
    "length": Call(g.length, {"metric": CURVED, "curve": LINE}),
    "energy": Call(g.energy, {"metric": CURVED, "curve": LINE, "num_points": 4}),
    "constant_speed": Call(g.constant_speed, {"metric": CURVED, "curve": LINE, "num_points": 4}),
    "straight_lines": Call(g.straight_lines, {"curves": LINE}),
    "value_and_jacobian": Call(g.value_and_jacobian, {"generator": surface, "z": Z}),
    "directional_second_derivative": Call(g.directional_second_derivative, {"generator": surface, "z": Z, "v": V}),
    "contracted_hessian": Call(
        g.contracted_hessian, {"generator": surface, "z": Z, "w": torch.ones(2, 3, dtype=F64)}, {"w": "weights"}
    ),
    "pullback_acceleration": Call(g.pullback_acceleration, {"generator": surface, "z": Z, "v": V}),
    "general_acceleration": Call(g.general_acceleration, {"tensor": field, "z": Z, "v": V}),
    "christoffel_symbols": Call(g.christoffel_symbols, {"tensor": field, "z": Z}),
    "check_generator": Call(g.check_generator, {"generator": surface, "z": Z}),
    "Curve": Call(g.Curve, {"points": LINE.points, "knots": None, "degree": 1}),
    "evaluate": Call(LINE.evaluate, {"t": TIMES[0]}),
    "derivative": Call(LINE.derivative, {"t": TIMES[0]}),
    "with_segments": Call(LINE.with_segments, {"count": 3}),
    "rows": Call(LINE.__getitem__, {"rows": torch.tensor([0, 1])}),
    "EnergySolver": Call(
        g.EnergySolver, {"num_segments": 8, "max_segments": 16, "degree": 3, "num_samples": 6, "tol": None}
    ),
    "more of EnergySolver": Call(g.EnergySolver, {"length_tol": 1e-2, "max_iter": 5, "max_meshes": 2}),
    "GeorceSolver": Call(g.GeorceSolver, {"num_segments": 8, "tol": None, "length_tol": 1e-2, "max_iter": 5}),
    "LBFGSSolver": Call(g.LBFGSSolver, {"num_segments": 8, "degree": 1, "history": 3, "tol": None, "max_iter": 5}),
    "AdamSolver": Call(g.AdamSolver, {"num_segments": 8, "learning_rate": 0.1, "tol": 1e-2, "max_iter": 5}),
    "CollocationSolver": Call(g.CollocationSolver, {"num_segments": 8, "max_nodes": 50, "tol": 1e-3}),
    "ShootingOptions": Call(g.ShootingOptions, {"num_segments": 4, "max_segments": 8, "tol": None, "max_iter": 5}),
    "LandOptions": Call(g.LandOptions, {"num_nodes": 8, "num_candidates": 8, "tol": 0.1, "flatness": 0.1}),
    "describe": Call(g.describe, {"status": 0}),
    "frechet_mean": Call(
        g.frechet_mean,
        {
            "metric": FLAT,
            "z": Z,
            "weights": None,
            "start": None,
            "solver": QUICK,
            "initial": None,
            "chunk_size": None,
            "tol": 0.1,
            "max_iter": 1,
        },
    ),
    "riemannian_k_means": _drawn(
        g.riemannian_k_means,
        metric=FLAT,
        z=Z,
        num_clusters=1,
        start=None,
        solver=QUICK,
        tol=0.1,
        max_iter=1,
        generator=None,
    ),
    "k_medoids": _drawn(
        g.k_medoids, distances=torch.cdist(Z, Z), num_clusters=1, num_starts=2, max_iter=2, generator=None
    ),
    "Land": _drawn(
        g.Land.from_parameters,
        metric=FLAT,
        means=Z[:1],
        covariances=EYE[None],
        weights=None,
        num_nodes=24,
        solver=QUICK,
        generator=None,
    ),
    "PullbackMetric": Call(g.PullbackMetric, {"generator": surface}),
    "FunctionMetric": Call(g.FunctionMetric, {"function": field}),
    "Stack": Call(lambda decoder: g.Stack(surface, decoder), {"decoder": surface}),
}
# These take long where all fits; by chance they are called more rarely.
COSTLY = (
    "geodesic",
    "distance",
    "log_map",
    "distance_matrix",
    "frechet_mean",
    "riemannian_k_means",
    "Land",
    "exp_map",
    "geodesic_flow",
)


def choose(pick: Callable[[Sequence[Any]], Any], name: str) -> tuple[Call, dict[str, Any]]:
    """A call and its arguments, one to three of which are picked from their pools."""
    call = CALLS[name]
    arguments = dict(call.arguments)
    for _ in range(pick((1, 1, 2, 3))):
        argument = pick(sorted(arguments))
        arguments[argument] = pick(POOLS.get(call.renamed.get(argument, argument), NUMBERS))
    return call, arguments


def verdict(call: Call, arguments: dict[str, Any]) -> str:
    """What is wrong with how a call ended, or with its arguments afterwards; empty where all is as it should be."""
    points = [value for value in arguments.values() if isinstance(value, torch.Tensor) and not value.is_inference()]
    versions = [value._version for value in points]
    trouble = _ended(call, arguments)
    written = any(value._version != version for value, version in zip(points, versions, strict=True))
    return trouble or ("its arguments were written to" if written else "")


def _ended(call: Call, arguments: dict[str, Any]) -> str:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            answer = call.function(**arguments)
        except (ValueError, TypeError) as error:
            known = {"z0 and z1", "curves", "generator", "function", "metric", *arguments}
            named = any(name in str(error) for name in known)
            return "" if named else f"no argument named in {type(error).__name__}: {error}"
        except IndexError as error:
            return "" if call.function == LINE.__getitem__ else f"IndexError: {error}"  # as any sequence has it
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return _silent_nan(call, arguments, answer, [str(warning.message) for warning in told])


def _silent_nan(call: Call, arguments: dict[str, Any], answer: Any, told: list[str]) -> str:
    """Distances and end points that are not finite where all points are and no warning was given."""
    if call.function not in (g.distance, g.distance_matrix, g.exp_map, g.frechet_mean, g.random_walk) or told:
        return ""
    tensors = [value for value in arguments.values() if isinstance(value, torch.Tensor)]
    weights = arguments.get("weights")
    if weights is not None and not bool((weights > 0).any(1).all()):  # a mean of no points
        return ""
    if not all(bool(value.isfinite().all()) for value in tensors):
        return ""
    first = answer[0] if isinstance(answer, tuple) else answer
    return "" if bool(first.isfinite().all()) else f"NaN without a word: {first}"
