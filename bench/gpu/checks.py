"""The device held to float64 on the CPU, on fresh random points and on geodesics."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vmap

from bench.gpu.models import Given, Pairs
from geodesics import PullbackMetric, geodesic, log_measure, value_and_jacobian
from vae import RBFGenerator

Maker = Callable[[torch.dtype, str], RBFGenerator]

NUM_POINTS = 256
# Relative errors allowed, against the largest entry of each row.
_POINTWISE = {torch.float32: 2e-4, torch.float64: 1e-11}
# Errors of log measures allowed, as multiples of rounding times the condition number of M: no algorithm that forms M
# does better. Where that product exceeds the second number nothing is asked.
_LOG_MEASURE = 100.0
_HOPELESS = 1e-3
# Share of the geodesics whose length must agree to this; the rest may end in another valley.
_LENGTH = {torch.float32: 1e-3, torch.float64: 1e-6}
_SHARE = 0.9


def check_points(name: str, maker: Maker, dtype: torch.dtype, device: str, seed: int) -> list[dict[str, Any]]:
    """Value, Jacobian, metric tensor and log measure against plain automatic differentiation in float64."""
    rng = torch.Generator().manual_seed(seed)
    exact = maker(torch.float64, "cpu")
    z = torch.randn(NUM_POINTS, exact.latent_dim, generator=rng, dtype=torch.float64).to(dtype)
    F, J = _by_autodiff(exact, z.double())
    M = torch.einsum("aio,bio->iab", J, J)
    generator = maker(dtype, device)
    metric = PullbackMetric(generator)
    there = z.to(device)
    value, jacobian = value_and_jacobian(generator, there)
    found = {
        "value": _error(value, F),
        "jacobian": _error(jacobian.movedim(0, 1).flatten(1), J.movedim(0, 1).flatten(1)),
        "tensor": _error(metric.tensor(there).flatten(1), M.flatten(1)),
        "log measure over rounding and conditioning": _log_error(log_measure(metric, there), M),
    }
    allowed = {kind: _LOG_MEASURE if kind.startswith("log") else _POINTWISE[dtype] for kind in found}
    return [
        {"check": f"{kind}, {name}", "dtype": str(dtype), "error": error, "passed": error <= allowed[kind]}
        for kind, error in found.items()
    ]


def check_geodesics(maker: Maker, pairs: Pairs, dtype: torch.dtype, device: str, count: int) -> list[dict[str, Any]]:
    """Lengths and statuses of the first pairs against the same solver in float64 on the CPU."""
    lengths = []
    for where, kind in ((device, dtype), ("cpu", torch.float64)):
        generator = maker(kind, where)
        problems = pairs.repeated(count, next(generator.buffers()))
        result = geodesic(PullbackMetric(generator), problems.z0, problems.z1, initial=Given(problems.starts))
        lengths.append(result.length.cpu().double())
    gap = (lengths[0] / lengths[1] - 1).abs().nan_to_num(torch.inf)
    share = float((gap <= _LENGTH[dtype]).double().mean())
    return [
        {
            "check": f"lengths of {count} geodesics, digits: share within {_LENGTH[dtype]:g} of float64 on the CPU",
            "dtype": str(dtype),
            "error": float(gap.median()),
            "share": share,
            "passed": share >= _SHARE,
        }
    ]


def _by_autodiff(generator: RBFGenerator, z: Tensor) -> tuple[Tensor, Tensor]:
    """F and J by forward mode through `forward` alone, none of the generator's own rules."""
    basis = torch.eye(z.shape[1], dtype=z.dtype)[:, None].expand(-1, *z.shape)
    return generator(z), vmap(lambda v: jvp(generator.forward, (z,), (v,))[1])(basis)


def _log_error(found: Tensor, M: Tensor) -> float:
    """Largest error of ``1/2 log det M``, in multiples of rounding times condition number."""
    noise = torch.finfo(found.dtype).eps * torch.linalg.cond(M)
    gap = (found.cpu().double() - M.logdet() / 2).abs() / noise
    return float(gap[noise < _HOPELESS].nan_to_num(torch.inf).amax())


def _error(found: Tensor, exact: Tensor) -> float:
    """Largest error over the rows, each relative to its largest entry."""
    gap = (found.cpu().double() - exact).abs().amax(1) / exact.abs().amax(1)
    return float(gap.nan_to_num(torch.inf).amax())
