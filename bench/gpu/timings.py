"""What is timed: kernels against their floors, metric tensors, batched solves, and a profile of one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity

from bench.gpu.models import Given, Pairs
from bench.gpu.stopwatch import Stopwatch
from geodesics import GeodesicResult, InitialCurves, PullbackMetric, Straight, geodesic, value_and_jacobian
from vae import RBFGenerator

Maker = Callable[[torch.dtype, str], RBFGenerator]

# Points at a time for metric tensors and floors: what keeps their Jacobians within a few GiB.
CHUNK = 2**18
FOUND = 1e-2
OPERATIONS = 20


class Measured(NamedTuple):
    """One line of the table: a number, its unit, what it can be held to, and what else is known."""

    name: str
    value: float
    unit: str
    goal: str
    details: dict[str, Any]


def latent_points(generator: RBFGenerator, count: int, seed: int = 0) -> Tensor:
    """Normal random points with the generator's dtype and device, ``(count, d)``."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator.latent_dim, generator=rng).to(next(generator.buffers()))


def kernels(name: str, generator: RBFGenerator, watch: Stopwatch, count: int) -> list[Measured]:
    """Values and Jacobians per second, as a share of the rate of their matrix products alone."""
    z = latent_points(generator, min(count, CHUNK))
    floor = watch.seconds(_products(generator, z))
    seconds = watch.seconds(lambda: value_and_jacobian(generator, z))
    values = watch.seconds(lambda: generator(z))
    details = {
        "points": len(z),
        "seconds": seconds,
        "floor_seconds": floor,
        "value_seconds": values,
        "per_second": len(z) / seconds,
        "mib": watch.peak_memory(lambda: value_and_jacobian(generator, z)),
    }
    label = f"value and Jacobian, {name}, {_kind(z)}"
    return [Measured(label, floor / seconds, "of the floor's rate", "0.5", details)]


def metric_tensors(name: str, generator: RBFGenerator, watch: Stopwatch, count: int) -> list[Measured]:
    """Metric tensors per second, in chunks."""
    metric = PullbackMetric(generator)
    z = latent_points(generator, count)

    def tensors() -> None:
        for part in z.split(CHUNK):
            metric.tensor(part)

    seconds = watch.seconds(tensors)
    details = {"points": count, "seconds": seconds, "mib": watch.peak_memory(tensors)}
    return [Measured(f"metric tensors, {name}, {_kind(z)}", count / seconds / 1e6, "million / s", "20", details)]


def solves(
    name: str, generator: RBFGenerator, pairs: Pairs, watch: Stopwatch, started: str, batch: int
) -> list[Measured]:
    """Geodesics per second of one call, with their excess, and the call over its own evaluations."""
    problems = pairs.repeated(batch, next(generator.buffers()))
    metric = PullbackMetric(generator)
    initial: InitialCurves = Straight() if started == "straight" else Given(problems.starts)
    kept: list[GeodesicResult] = []

    def solve() -> None:
        kept[:] = [geodesic(metric, problems.z0, problems.z1, initial=initial)]

    mib = watch.peak_memory(solve)
    seconds = watch.seconds(solve)
    result = kept[0]
    z = latent_points(generator, min(CHUNK, 128 * batch))
    jacobian = watch.seconds(lambda: value_and_jacobian(generator, z)) / len(z)
    value = watch.seconds(lambda: generator(z)) / len(z)
    evaluations = float(result.jacobians.sum()) * jacobian + float(result.values.sum()) * value
    excess = result.length / problems.best - 1
    known = bool(problems.best.isfinite().all())
    details = {
        "batch": batch,
        "seconds": seconds,
        "overhead": seconds / evaluations,
        "converged": float(result.converged.double().mean()),
        "found": float((excess <= FOUND).double().mean()) if known else None,
        "median_excess": float(excess.median()) if known else None,
        "jacobians": float(result.jacobians.double().mean()),
        "values": float(result.values.double().mean()),
        "mib": mib,
    }
    goal = "5000" if name == "digits" and z.dtype == torch.float32 and started == "graph" else ""
    label = f"solve, {name}, {started} starts, {_kind(z)}, B = {batch}"
    return [
        Measured(label, batch / seconds, "geodesics / s", goal, details),
        Measured(f"overhead, {label}", seconds / evaluations, "of its evaluations", "2", {}),
    ]


def polished(maker: Maker, pairs: Pairs, watch: Stopwatch, device: str, batch: int) -> list[Measured]:
    """Mixed precision: solved in float32, and its curves solved on in float64."""
    rough, fine = (maker(dtype, device) for dtype in (torch.float32, torch.float64))
    single, double = (pairs.repeated(batch, next(g.buffers())) for g in (rough, fine))
    kept: list[GeodesicResult] = []

    def solve() -> None:
        first = geodesic(PullbackMetric(rough), single.z0, single.z1, initial=Given(single.starts))
        t = torch.linspace(0, 1, 257, device=first.length.device)
        start = Given(first.curve.evaluate(t)[None].double())
        kept[:] = [geodesic(PullbackMetric(fine), double.z0, double.z1, initial=start)]

    seconds = watch.seconds(solve)
    excess = kept[0].length / double.best - 1
    details = {
        "batch": batch,
        "seconds": seconds,
        "converged": float(kept[0].converged.double().mean()),
        "found": float((excess <= FOUND).double().mean()),
        "median_excess": float(excess.median()),
    }
    label = f"solve, digits, graph starts, float32 then float64, B = {batch}"
    return [Measured(label, batch / seconds, "geodesics / s", "5000", details)]


def compiled(maker: Maker, watch: Stopwatch, device: str, count: int) -> list[Measured]:
    """torch.compile of the plain forward value in float32: whether it pays, before anything is built on it."""
    generator = maker(torch.float32, device)
    z = latent_points(generator, min(count, CHUNK))
    fast = torch.compile(generator.forward)
    gap = float((fast(z) - generator(z)).abs().amax())
    plain, fused = watch.seconds(lambda: generator(z)), watch.seconds(lambda: fast(z))
    return [Measured("torch.compile of the value, digits", plain / fused, "times faster", "", {"largest_gap": gap})]


def profile(maker: Maker, pairs: Pairs, device: str, batch: int) -> list[dict[str, Any]]:
    """Where the time of one batched solve in float32 from stored starts goes, by operation, the longest first."""
    generator = maker(torch.float32, device)
    problems = pairs.repeated(batch, next(generator.buffers()))
    metric, initial = PullbackMetric(generator), Given(problems.starts)
    on_gpu = problems.z0.is_cuda
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with torch.profiler.profile(activities=activities) as recorded:
        geodesic(metric, problems.z0, problems.z1, initial=initial)
        if on_gpu:
            torch.cuda.synchronize()
    rows = [
        {
            "operation": event.key,
            "calls": event.count,
            "device_ms": getattr(event, "self_device_time_total", 0) / 1e3,
            "cpu_ms": event.self_cpu_time_total / 1e3,
        }
        for event in recorded.key_averages()
    ]
    return sorted(rows, key=lambda row: -(row["device_ms"] if on_gpu else row["cpu_ms"]))[:OPERATIONS]


def _kind(z: Tensor) -> str:
    return str(z.dtype).removeprefix("torch.")


def _products(generator: RBFGenerator, z: Tensor) -> Callable[[], None]:
    """The matrix products that a value and Jacobian cannot do without: 1 + d times all weights."""
    rows = (1 + z.shape[1]) * len(z)
    weights = [buffer for buffer in generator.buffers() if buffer.ndim == 2 and min(buffer.shape) > z.shape[1]]
    pairs = [(z.new_ones(rows, weight.shape[1]), weight.mT.contiguous()) for weight in weights]
    outputs = [z.new_empty(rows, weight.shape[1]) for _, weight in pairs]

    def products() -> None:
        for (left, right), out in zip(pairs, outputs, strict=True):
            torch.mm(left, right, out=out)

    return products
