"""Geodesics in many dimensions against plain Adam: ``python -m bench.dimensions``; one row: ``... NAME``.

Every row runs twice in fresh processes, once with the default solver and once with torch's Adam on the chord energy of
17 points, so that the peak memory is that of each. Both curves are measured by the same quadrature, `geodesics.length`:
the chords of 17 points are shorter than the curve through them.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from bench.contest.environment import environment
from bench.problems.problem_set import ROOT
from bench.zoo import members
from geodesics import Curve, EnergySolver, MatrixFreeSolver, PullbackMetric, Status, geodesic, length

_RESULTS = ROOT / "bench" / "results" / "dimensions"
# Adam's points, steps and rate: more steps change the lengths of the table by less than a hundredth.
_POINTS, _STEPS, _RATE = 17, 150, 3e-2
_SEED = 1


@dataclass(frozen=True)
class Row:
    """A decoder with some pairs of standard normal latents.

    Attributes:
        name: for the table.
        decoder: what makes it, in float64.
        d: latent dimension.
        pairs: their number.
        dtype: of decoder and points.
        length_tol: tolerance of the solver.
    """

    name: str
    decoder: Callable[[], nn.Module]
    d: int
    pairs: int = 1
    dtype: torch.dtype = torch.float64
    length_tol: float = 2e-3


def vector_decoder(d: int, activation: type[nn.Module], gain: float) -> nn.Module:
    """A stock decoder of vectors: linear, then four transposed convolutions to 3 x 64 x 64, random weights."""
    channels = (128, 64, 32, 16, 3)
    layers: list[nn.Module] = [nn.Linear(d, channels[0] * 16), nn.Unflatten(1, (channels[0], 4, 4))]
    for before, after in pairwise(channels):
        layers += [activation(), nn.ConvTranspose2d(before, after, 4, 2, 1)]
    return _random(nn.Sequential(*layers, nn.Sigmoid(), nn.Flatten()), gain)


def map_decoder(side: int) -> nn.Module:
    """A decoder of latents 4 x side x side, as those of image autoencoders: to images of twice the side."""
    return _random(
        nn.Sequential(
            nn.Unflatten(1, (4, side, side)),
            nn.Conv2d(4, 16, 3, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(16, 16, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(16, 3, 3, padding=1),
            nn.Flatten(),
        ),
        1.0,
    )


def _random(net: nn.Sequential, gain: float) -> nn.Module:
    torch.manual_seed(0)
    for module in net:
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            weight = module.weight
            fan = weight[0].numel() if not isinstance(module, nn.ConvTranspose2d) else 4 * len(weight)
            nn.init.normal_(weight, 0, gain * (2 / fan) ** 0.5)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return net.double().eval().requires_grad_(False)


ROWS = (
    Row("vectors, SiLU", lambda: vector_decoder(256, nn.SiLU, 1.0), 256),
    Row("vectors, SiLU, x8", lambda: vector_decoder(256, nn.SiLU, 1.0), 256, 8),
    Row("vectors, ReLU", lambda: vector_decoder(256, nn.ReLU, 1.5), 256, length_tol=2e-2),
    Row("maps 4 x 16 x 16", lambda: map_decoder(16), 1024),
    Row("maps 4 x 16 x 16, x8", lambda: map_decoder(16), 1024, 8),
    Row("maps 4 x 64 x 64", lambda: map_decoder(64), 16384, dtype=torch.float32),
    Row("maps 4 x 64 x 64, x8", lambda: map_decoder(64), 16384, 8, dtype=torch.float32),
)
# Members of the zoo whose dimension both solvers can take: their first practice pairs, straight starts.
SMALL = ("own_deviation", "two_images", "ten_garments")
_SMALL_PAIRS = 4


def main() -> None:
    """Measure the rows that are named, or all, store them, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="rows; all of them where none is named")
    parser.add_argument(
        "--with", dest="method", choices=("default", "adam", "newton"), help="one method, in this process"
    )
    options = parser.parse_args()
    names = options.names or [*(row.name for row in ROWS), *SMALL]
    if options.method:
        print(json.dumps(measure(names[0], options.method)))
        return
    _RESULTS.mkdir(exist_ok=True)
    for name in names:
        found = {method: _in_a_process(name, method) for method in ("default", "newton" if name in SMALL else "adam")}
        text = json.dumps({"environment": environment(1), "name": name, "results": found}, indent=1)
        (_RESULTS / f"{name.replace(' ', '_').replace(',', '')}.json").write_text(text + "\n", encoding="utf-8")
        print("\n".join(table(name, found)), flush=True)


def _in_a_process(name: str, method: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.dimensions", name, "--with", method]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def measure(name: str, method: str) -> dict[str, Any]:
    """What a method finds on a row, with its processor time and the peak memory of the process."""
    torch.set_num_threads(1)
    if name in SMALL:
        member = members(only=[name], half="practice")[0].rows(torch.arange(_SMALL_PAIRS))
        metric, z0, z1, tol = member.metric, member.z0, member.z1, 2e-3
        outputs = int(member.model.embedding(z0).shape[1])
    else:
        row = next(row for row in ROWS if row.name == name)
        decoder = row.decoder().to(row.dtype)
        generator = torch.Generator().manual_seed(_SEED)
        z0, z1 = torch.randn(2, row.pairs, row.d, generator=generator, dtype=torch.float64).to(row.dtype)
        metric, tol, outputs = PullbackMetric(decoder), row.length_tol, int(decoder(z0[:1]).shape[1])
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if method == "adam":
            curve, chords = adam(decoder, z0, z1)
            found: dict[str, Any] = {"chords": chords.tolist()}
        else:
            solver = EnergySolver(length_tol=tol) if method == "newton" else MatrixFreeSolver(length_tol=tol)
            result = geodesic(metric, z0, z1, solver=solver)
            curve = result.curve
            found = {
                "error": (result.length_error / result.length).tolist(),
                "status": [Status(code).name for code in result.status.tolist()],
                "resolved": result.resolved(tol).tolist(),
                "gradients": result.jacobians.tolist(),
                "elements": curve.num_segments,
            }
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with torch.no_grad():
        lengths, _ = length(metric, curve)
        straight, _ = length(metric, Curve(torch.stack([z0, z1], dim=1)).with_segments(16))
    shape = {"d": z0.shape[1], "D": outputs, "pairs": len(z0), "dtype": str(z0.dtype).removeprefix("torch.")}
    return (
        shape
        | found
        | {
            "seconds": seconds,
            "peak_gib": peak,
            "lengths": lengths.tolist(),
            "straight": straight.tolist(),
        }
    )


def adam(decoder: nn.Module, z0: Tensor, z1: Tensor) -> tuple[Curve, Tensor]:
    """Torch's Adam on the interior points of a polyline: the curves, and the sums of their chords in the data space."""
    t = torch.linspace(0, 1, _POINTS, dtype=z0.dtype)[:, None]
    inner = (z0[:, None] + t * (z1 - z0)[:, None])[:, 1:-1].clone().requires_grad_()
    optimizer = torch.optim.Adam([inner], lr=_RATE)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        _chords(decoder, z0, inner, z1).square().sum().backward()
        optimizer.step()
    inner = inner.detach()
    chords = _chords(decoder, z0, inner, z1).sum(1)
    return Curve(torch.cat([z0[:, None], inner, z1[:, None]], dim=1)), chords


def _chords(decoder: nn.Module, z0: Tensor, inner: Tensor, z1: Tensor) -> Tensor:
    points = torch.cat([z0[:, None], inner, z1[:, None]], dim=1)
    images = decoder(points.flatten(0, 1)).unflatten(0, points.shape[:2])
    return images.diff(dim=1).norm(dim=-1)


def table(name: str, found: dict[str, dict[str, Any]]) -> list[str]:
    """Lines of a Markdown table: name, d, D, pairs, method, status, CPU seconds, peak memory, mean length, error."""
    lines = []
    for method, one in found.items():
        status = ", ".join(f"{one['status'].count(s)} {s}" for s in dict.fromkeys(one.get("status", []))) or "-"
        error = f"{max(one['error']):.1e}" if "error" in one else "-"
        mean = sum(one["lengths"]) / len(one["lengths"])
        straight = sum(one["straight"]) / len(one["straight"])
        lines.append(
            f"| {name} | {one['d']:,} | {one['D']:,} | {one['pairs']} | {one['dtype']} | {method} | {status} | "
            f"{one['seconds']:.1f} | {one['peak_gib']:.2f} | {straight:.4g} | {mean:.5g} | {error} |"
        )
    return lines


if __name__ == "__main__":
    main()
