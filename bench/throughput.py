"""Geodesics per second, ours and the peers': ``python -m bench.throughput``.

The same pairs, the same machine, one run. Every number of threads is a process of its own, pinned to that many
processors before any library is loaded: no peer takes more. Beside each rate stands the accuracy of the same answers,
by one dense evaluator for all; a curve too long, or none, counts as a failure, and the rate compared is that of the
geodesics found. Writes ``throughput.json`` and ``throughput.md``; a run that was killed goes on where it was.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.contest.cell import Seconds, timed
from bench.contest.contestants import Answer, Contestant, contestants, missing_peers
from bench.contest.dense_length import dense_length
from bench.contest.environment import environment, source_digest
from bench.contest.throughput_report import markdown
from bench.contest.time_limit import TimedMetric, TimeLimit
from bench.problems.many_pairs import SINGLE, many_pairs
from bench.problems.problem_set import ROOT, ProblemSet
from geodesics import Curve

SETS = ("sphere", "half-plane", "torus", "digits", "digits" + SINGLE)
BATCHES = (1, 64, 1024)
OURS = ("energy/straight", "energy/graph", "energy-quick/straight", "energy-quick/graph")
PEERS = (
    "stochman/straight",
    "georce-jax/straight",
    "geomstats-straightening/straight",
    "geomstats-bvp/straight",
    "collocation/straight",
)
# Pairs that are solved one by one, by a batch of one and by contestants that know no batch.
SINGLES = 8
RUNS = 5
# No more runs are started after this many seconds of them.
ENOUGH = 20.0
CHORDS = 4000


@dataclass(frozen=True)
class Options:
    """Arguments of the run.

    Attributes:
        sets: names of problem sets.
        solvers: names of contestants.
        batches: sizes of batches.
        threads: numbers of threads.
        time_limit: seconds per cell, warm-up included.
        out: folder of the results.
    """

    sets: tuple[str, ...]
    solvers: tuple[str, ...]
    batches: tuple[int, ...]
    threads: tuple[int, ...]
    time_limit: float
    out: Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, or go on with, the comparison and print it; with ``--worker`` the part of one number of threads."""
    parser = argparse.ArgumentParser(prog="python -m bench.throughput", description="Geodesics per second.")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, metavar="NAME")
    parser.add_argument("--solvers", nargs="+", choices=OURS + PEERS, default=OURS + PEERS, metavar="NAME")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--time-limit", type=float, default=240.0, help="seconds per cell (%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", help="output folder")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if min(*given.batches, *given.threads, 1) < 1 or given.time_limit <= 0:
        parser.error("--batches, --threads and --time-limit must be positive")
    options = Options(
        tuple(given.sets),
        tuple(given.solvers),
        tuple(given.batches),
        tuple(given.threads),
        given.time_limit,
        given.out,
    )
    if given.worker:
        work(options)
    else:
        print(run(options))


def run(options: Options) -> str:
    """One process per number of threads, then the report."""
    options.out.mkdir(parents=True, exist_ok=True)
    for name in missing_peers():
        print(f"{name} is not installed and left out; the extra `peers` brings it, in an environment of its own")
    for threads in options.threads:
        subprocess.run(_command(options, threads), cwd=ROOT, env=_environ(threads), check=True)
    report = markdown(_load(options.out))
    (options.out / "throughput.md").write_text(report, encoding="utf-8")
    return report


def _command(options: Options, threads: int) -> list[str]:
    command = [sys.executable, "-m", "bench.throughput", "--worker", "--threads", str(threads)]
    command += ["--sets", *options.sets, "--solvers", *options.solvers]
    command += ["--batches", *map(str, options.batches), "--time-limit", str(options.time_limit)]
    return [*command, "--out", str(options.out.resolve())]


def _environ(threads: int) -> dict[str, str]:
    """Thread numbers are read when libraries are loaded; threads that wait sleep."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}


def work(options: Options) -> None:
    """All cells of one number of threads, each stored when it is done."""
    (threads,) = options.threads
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch.set_num_threads(threads)
    results = _load(options.out)
    results["environment"] = environment(threads) | {"threads": "see table"}
    chosen = [one for name, one in contestants().items() if name in options.solvers]
    for name, contestant in product(options.sets, chosen):
        for batch in (1,) if contestant.one_by_one else options.batches:
            problems = many_pairs(name, max(batch, SINGLES))
            settings = {"source": source_digest(), "time_limit": options.time_limit}
            key = f"{name} {batch} {threads} {contestant.name}"
            if contestant.applies(problems) and results["cells"].get(key, {}).get("settings") != settings:
                exact = many_pairs(name.removesuffix(SINGLE), len(problems))
                cell = measure(contestant, problems, batch, options.time_limit, exact)
                identity = {"set": name, "batch": batch, "threads": threads, "contestant": contestant.name}
                results["cells"][key] = {**identity, "settings": settings, **cell}
                _store(options.out, results)
                print(f"{threads} threads, {name}, batch {batch}, {contestant.name}: {cell['note']}", flush=True)


def measure(
    contestant: Contestant, problems: ProblemSet, batch: int, time_limit: float, exact: ProblemSet | None = None
) -> dict[str, Any]:
    """Time a contestant on the first problems, and judge the same answers, by the same problems in double precision.

    The first run warms up: compilers and caches. Batches of one are `SINGLES` calls; all others one.
    """
    slices = [slice(i, i + batch) for i in range(0, SINGLES if batch == 1 else batch, batch)]
    parts = [problems.part(rows) for rows in slices]
    if contestant.graph is not None:
        contestant.graph(problems)  # built once per metric, outside of the contest
    metric = TimedMetric(problems.metric, time.perf_counter() + time_limit)
    answers, times, error = _run_parts(contestant, parts, metric)
    if len(answers) < len(parts) and not contestant.one_by_one:
        return _lost(error)
    runs = [times]
    if len(answers) == len(parts):
        stop = min(metric.deadline, time.perf_counter() + ENOUGH)
        while len(runs) <= RUNS and (len(runs) == 1 or time.perf_counter() < stop):
            again, times, _ = _run_parts(contestant, parts, metric)
            if len(again) < len(parts):
                break
            runs.append(times)
    return _judged([(exact or problems).part(rows) for rows in slices], answers, runs, error)


def _run_parts(
    contestant: Contestant, parts: list[ProblemSet], metric: TimedMetric
) -> tuple[list[Answer], list[Seconds], str]:
    """Answers to the parts that were reached, their times, and why there are no more."""
    answers, times = [], []
    for part in parts:
        try:
            answer, seconds = timed(contestant, part, metric)
        except TimeLimit:
            return answers, times, "time-out"
        except Exception as exception:  # a contestant that raises has failed on what is left
            return answers, times, f"{type(exception).__name__}: {str(exception).partition(chr(10))[0][:120]}"
        answers.append(answer)
        times.append(seconds)
    return answers, times, ""


def _lost(error: str) -> dict[str, Any]:
    return {"rate": None, "note": error, "solved": 0}


def _judged(parts: list[ProblemSet], answers: list[Answer], runs: list[list[Seconds]], error: str) -> dict[str, Any]:
    """Rates, and the excess of the curves over the best lengths; later runs count where there are any."""
    if not answers:
        return _lost(error)
    solved = sum(len(answer.converged) for answer in answers)
    warm = runs[1:] or runs
    wall, cpu = (median(sum(getattr(t, kind) for t in times) for times in warm) for kind in ("wall", "cpu"))
    excess, width = [], 0.0
    for part, answer in zip(parts, answers, strict=False):
        curve = Curve(answer.curve.points.to(part.best), degree=answer.curve.degree)
        length, error_width = dense_length(part, curve, CHORDS)
        excess += (length / part.best - 1).nan_to_num(torch.inf, torch.inf, torch.inf).tolist()
        width = max(width, float((error_width / part.best).nan_to_num(0.0).amax()))
    tolerance = parts[0].tolerance
    found = sum(abs(e) <= tolerance if parts[0].graph is None else e <= tolerance for e in excess)
    rate = solved / wall
    return {
        "rate": rate,
        "cpu_rate": solved / cpu,
        "found_rate": rate * found / solved,
        "solved": solved,
        "found": found,
        "tolerance": tolerance,
        "median_excess": _finite(median(excess)),
        "worst_excess": _finite(max(excess)),
        "dense_error": width,
        "claimed": int(sum(int(answer.converged.sum()) for answer in answers)),
        "runs": len(runs) - 1,
        "note": error or f"{rate:.3g}/s, {found} of {solved} found",
    }


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _load(out: Path) -> dict[str, Any]:
    path = out / "throughput.json"
    loaded: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {"cells": {}}
    return loaded


def _store(out: Path, results: dict[str, Any]) -> None:
    """Write all results, or leave the old file."""
    partial = out / f"throughput.json.{os.getpid()}.partial"
    partial.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    partial.replace(out / "throughput.json")


if __name__ == "__main__":
    main()
