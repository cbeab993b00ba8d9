"""Correctness and speed on a GPU: ``python -m bench.gpu --output gpu.json``, from the root of the repository.

For a bare machine: torch, NumPy and Python 3.10 or later, nothing installed, inputs from the repository. It first holds
the device to float64 on the CPU, on fresh random points and on geodesics; then it times, with events, metric tensors,
values and Jacobians against the matrix products that they cannot do without, and batched solves, and says where their
time goes. It prints one table, writes JSON, and ends within ten minutes; what it left out it names. ``--device cpu
--quick`` runs the same code on a CPU in under a minute. The exit status is 1 where a check has failed.
"""

import argparse
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.gpu.bare import STANDS_IN
from bench.gpu.checks import check_geodesics, check_points
from bench.gpu.models import Pairs, digits_generator, digits_pairs, image_generator, image_pairs
from bench.gpu.stopwatch import Stopwatch
from bench.gpu.timings import Measured, compiled, kernels, metric_tensors, polished, profile, solves

MAKERS = {"digits": digits_generator, "images": image_generator}
DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Sizes:
    """How much is done, and for how long.

    Attributes:
        limit: seconds for all.
        batches: pairs per call.
        points: of the kernels.
        checked: geodesics held to the CPU.
        rounds: timed calls of each function at most.
        need: seconds that must be left to start a section.
        compile: whether torch.compile is tried.
    """

    limit: float
    batches: tuple[int, ...]
    points: int
    checked: int
    rounds: int
    need: float
    compile: bool


FULL = Sizes(540.0, (1024, 8192, 65536), 2**20, 64, 5, 20.0, compile=True)
QUICK = Sizes(300.0, (3,), 2**8, 3, 1, 1.0, compile=False)
# A section's time at one batch over that at the batch before, at most.
GROWTH = 8
# Where a section hangs, what is known by then is written and the process ends.
LAST = 590.0


@dataclass
class Report:
    """What is printed and written.

    Attributes:
        environment: machine and settings.
        checks: what was held to float64 on the CPU.
        timings: what was measured.
        left_out: sections that time, memory or the device did not allow, with why.
        profile: operations of one solve, the longest first.
    """

    environment: dict[str, Any]
    checks: list[dict[str, Any]] = field(default_factory=list)
    timings: list[Measured] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    profile: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**vars(self), "timings": [timing._asdict() for timing in self.timings]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, time, print, write; 0 if every check has passed."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="Correctness and speed on a GPU.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a test of this script")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**31, help="of the fresh random points")
    given = parser.parse_args(arguments)
    sizes = QUICK if given.quick else FULL
    torch.set_float32_matmul_precision("highest")  # no TF32: what is timed is what is checked
    watch = Stopwatch(given.device, sizes.limit, sizes.rounds)
    report = Report(_environment(given.device, given.seed))
    alarm = threading.Timer(LAST, _give_up, (report, given.output))
    alarm.daemon = True
    alarm.start()
    pairs = {"digits": digits_pairs(), "images": image_pairs()}
    with torch.no_grad():
        check(report, pairs, given.device, given.seed, sizes)
        spent: dict[str, float] = {}
        for section in sections(pairs, watch, given.device, sizes):
            attempt(report, watch, sizes, section, spent)
    alarm.cancel()
    _publish(report, given.output)
    return 0 if all(check["passed"] for check in report.checks) else 1


def _publish(report: Report, output: Path | None) -> None:
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report.to_dict(), indent=1) + "\n", encoding="utf-8")
    print(table(report), flush=True)


def _give_up(report: Report, output: Path | None) -> None:
    report.left_out.append(f"all that is missing: the time was over after {LAST:.0f} s")
    _publish(report, output)
    os._exit(2)  # the main thread may hang in the driver or in a compiler


def check(report: Report, pairs: dict[str, Pairs], device: str, seed: int, sizes: Sizes) -> None:
    """Everything that is held to float64 on the CPU."""
    for (name, maker), dtype in product(MAKERS.items(), DTYPES):
        report.checks += check_points(name, maker, dtype, device, seed)
    for dtype in DTYPES:
        report.checks += check_geodesics(digits_generator, pairs["digits"], dtype, device, sizes.checked)


class Section(NamedTuple):
    """Something timed: its label, the same for all batches, the batch where it has one, and what times it."""

    label: str
    batch: int
    run: Callable[[], list[Any]]


def sections(pairs: dict[str, Pairs], watch: Stopwatch, device: str, sizes: Sizes) -> list[Section]:
    """What is timed, in order: the goals first, so that a short run has them."""
    listed: list[Section] = []
    for (name, maker), dtype in product(MAKERS.items(), DTYPES):
        for timing in (kernels, metric_tensors):
            run = partial(_generator_section, timing, name, maker, dtype, device, watch, sizes.points)
            listed.append(Section(f"{timing.__name__} {name} {dtype}", 0, run))
    for index, batch in enumerate(sizes.batches):
        kinds = (("digits", "graph"), ("digits", "straight"), ("images", "straight"))
        for dtype, (name, started) in product(DTYPES, kinds):
            solve = partial(_solve_section, name, dtype, device, pairs[name], watch, started, batch)
            listed.append(Section(f"solve {name} {started} {dtype}", batch, solve))
        mixed = partial(polished, digits_generator, pairs["digits"], watch, device, batch)
        listed.append(Section("solve digits float32 then float64", batch, mixed))
        if index == min(1, len(sizes.batches) - 1):
            listed.append(Section("profile", batch, partial(profile, digits_generator, pairs["digits"], device, batch)))
            if sizes.compile:
                listed.append(Section("compile", 0, partial(compiled, digits_generator, watch, device, sizes.points)))
    return listed


def _generator_section(
    timing: Callable[..., list[Measured]],
    name: str,
    maker: Callable[[torch.dtype, str], Any],
    dtype: torch.dtype,
    device: str,
    watch: Stopwatch,
    points: int,
) -> list[Measured]:
    return timing(name, maker(dtype, device), watch, points)


def _solve_section(
    name: str, dtype: torch.dtype, device: str, pairs: Pairs, watch: Stopwatch, started: str, batch: int
) -> list[Measured]:
    return solves(name, MAKERS[name](dtype, device), pairs, watch, started, batch)


def attempt(report: Report, watch: Stopwatch, sizes: Sizes, section: Section, spent: dict[str, float]) -> None:
    """Run a section if there is time; what memory or the device refuses is named, and the rest goes on.

    The time of the same section at the batch before, eight times as small, tells what it may need.
    """
    label = f"{section.label}, B = {section.batch}" if section.batch else section.label
    need = max(sizes.need, GROWTH * spent.get(section.label, 0.0))
    if watch.left < need:
        report.left_out.append(f"{label}: {watch.left:.0f} s were left, {need:.0f} s may be needed")
        return
    start = time.perf_counter()
    try:
        found = section.run()
    except Exception as error:  # of the device, the driver or a compiler: the next section may do without
        report.left_out.append(f"{label}: {type(error).__name__}: {str(error).partition(chr(10))[0][:200]}")
        return
    spent[section.label] = time.perf_counter() - start
    if section.label == "profile":
        report.profile = found
    else:
        report.timings += found
    print(f"{label}: {spent[section.label]:.1f} s", flush=True)


def table(report: Report) -> str:
    """All that was found, as text."""
    lines = [f"{name}: {value}" for name, value in report.environment.items()]
    lines += ["", "held to float64 on the CPU"]
    for entry in report.checks:
        verdict = "ok    " if entry["passed"] else "FAILED"
        lines.append(f"  {verdict} {entry['check']}, {entry['dtype']}: {entry['error']:.1e}")
    lines += ["", f"{'measured':<72}{'':>12}  unit (goal)"]
    for timing in report.timings:
        goal = f" ({timing.goal})" if timing.goal else ""
        lines.append(f"  {timing.name:<70}{timing.value:>12.4g}  {timing.unit}{goal}")
        shown = ("found", "median_excess", "converged", "mib")
        known = [f"{key} {timing.details[key]:.3g}" for key in shown if timing.details.get(key) is not None]
        if known:
            lines.append(f"      {', '.join(known)}")
    if report.profile:
        lines += ["", f"{'operations of one solve':<50}{'calls':>10}{'device ms':>12}{'cpu ms':>12}"]
        lines += [
            f"  {row['operation'][:48]:<48}{row['calls']:>10}{row['device_ms']:>12.1f}{row['cpu_ms']:>12.1f}"
            for row in report.profile[:10]
        ]
    lines += ["", *(f"left out: {entry}" for entry in report.left_out)]
    return "\n".join(lines)


def _environment(device: str, seed: int) -> dict[str, Any]:
    on_gpu = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if on_gpu else device,
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "jaxtyping": "stand-in" if STANDS_IN else "installed",
        "seed": seed,
        "date": time.strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    raise SystemExit(main())
