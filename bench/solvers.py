"""The table of solvers: ``python -m bench.solvers``.

Every contestant on every set of problems: how many geodesics it found, whether its lengths are true and its
claims honest, what it cost. Writes ``solvers.json`` and ``solvers.md``. Each cell is stored when it is done:
a run that was killed goes on where it was, and cells whose sources or settings have changed are measured
again.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from bench.contest.cell import run_cell
from bench.contest.contestants import Contestant, contestants, missing_peers
from bench.contest.dense_length import NUM_CHORDS
from bench.contest.environment import environment, source_digest
from bench.contest.solvers_report import markdown
from bench.problems.closed_forms import closed_forms
from bench.problems.learned_metrics import digits, published
from bench.problems.problem_set import ROOT, ProblemSet
from geodesics import GraphPaths

QUICK_PROBLEMS = 4
QUICK_LIMIT = 5.0
SHARED = ROOT.parent / "shared"


@dataclass(frozen=True)
class Options:
    """Arguments of the run.

    Attributes:
        problems: names of problem sets.
        solvers: names of contestants.
        out: folder for the results.
        time_limit: seconds per cell.
        threads: of torch.
        count: problems of each set at most; None for all.
        shared: folder of the published model; None where there is none.
        chords: of the dense length.
    """

    problems: tuple[str, ...]
    solvers: tuple[str, ...]
    out: Path
    time_limit: float
    threads: int
    count: int | None
    shared: Path | None
    chords: int = NUM_CHORDS


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, or go on with, the table, and print it."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    for name in missing_peers():
        print(f"{name} is not installed and left out; the extra `peers` brings it, in an environment of its own")
    print(run(options))


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Options from the command line; exits with a sentence on a wrong one."""
    parser = argparse.ArgumentParser(prog="python -m bench.solvers", description="Solvers on problems.")
    parser.add_argument("--problems", nargs="+", metavar="NAME", help="sets of problems; all by default")
    parser.add_argument("--solvers", nargs="+", metavar="NAME", help="solvers and starts; all by default")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", help="output folder")
    parser.add_argument("--time-limit", type=float, help="seconds per cell of the table (60; 5 with --quick)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (%(default)s)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PROBLEMS} problems of each set")
    parser.add_argument("--shared", type=Path, help="folder of a published model (../shared)")
    given = parser.parse_args(arguments)
    shared = given.shared or (SHARED if SHARED.is_dir() else None)
    if shared is not None and not shared.is_dir():
        parser.error(f"--shared must be a folder; got {shared}")
    limit = given.time_limit or (QUICK_LIMIT if given.quick else 60.0)
    if limit <= 0 or given.threads < 1:
        parser.error(f"--time-limit and --threads must be positive; got {limit}, {given.threads}")
    return Options(
        problems=_known(parser, "--problems", given.problems, list(problem_sets(shared))),
        solvers=_known(parser, "--solvers", given.solvers, list(contestants())),
        out=given.out,
        time_limit=limit,
        threads=given.threads,
        count=QUICK_PROBLEMS if given.quick else None,
        shared=shared,
    )


def _known(
    parser: argparse.ArgumentParser, name: str, given: list[str] | None, all_names: list[str]
) -> tuple[str, ...]:
    unknown = set(given or ()) - set(all_names)
    if unknown:
        parser.error(f"{name} must be among {', '.join(all_names)}; got {', '.join(sorted(unknown))}")
    return tuple(given or all_names)


def problem_sets(shared: Path | None) -> dict[str, Callable[[], ProblemSet]]:
    """Makers of all sets of problems, by name; with the published model where its folder is given."""
    makers: dict[str, Callable[[], ProblemSet]] = {**closed_forms(), "digits": digits}
    if shared is not None:
        makers["published"] = lambda: published(shared)
    return makers


def run(options: Options) -> str:
    """Measure the cells that are missing, storing each; returns the report."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "solvers.json"
    results = json.loads(path.read_text("utf-8")) if path.exists() else {"cells": {}, "graphs": {}}
    results["environment"] = {**environment(options.threads), "source": source_digest(), "chords": options.chords}
    chosen = [contestants()[name] for name in options.solvers]
    settings = _settings(options, results["environment"]["source"])
    with tqdm(total=len(options.problems) * len(chosen), unit="cell") as bar:
        for name in options.problems:
            problems = problem_sets(options.shared)[name]().part(slice(options.count))
            for contestant in chosen:
                bar.set_postfix_str(_key(name, contestant.name))
                _fill(results, problems, contestant, settings, options.chords)
                _store(path, results)
                bar.update()
    report = markdown(results, _order(options))
    (options.out / "solvers.md").write_text(report, encoding="utf-8")
    return report


def _key(problems: str, contestant: str) -> str:
    return f"{problems} {contestant}"


def _order(options: Options) -> list[str]:
    """Keys of all cells that there can be, in the order of the table."""
    return [_key(name, other) for name in problem_sets(options.shared) for other in contestants()]


def _settings(options: Options, source: str) -> dict[str, Any]:
    """What a stored cell must have been measured with, not to be measured again."""
    return {
        "source": source,
        "time_limit": options.time_limit,
        "threads": options.threads,
        "count": options.count,
        "chords": options.chords,
    }


def _fill(
    results: dict[str, Any],
    problems: ProblemSet,
    contestant: Contestant,
    settings: dict[str, Any],
    chords: int,
) -> None:
    """Measure a cell unless it is there, or the contestant cannot be run on these problems."""
    key = _key(problems.name, contestant.name)
    stored = results["cells"].get(key)
    if not contestant.applies(problems) or (stored and stored["settings"] == settings):
        return
    if contestant.graph is not None:
        _build_graph(results, problems, contestant.graph)
    cell = run_cell(contestant, problems, settings["time_limit"], chords)
    results["cells"][key] = {
        "set": problems.name,
        "contestant": contestant.name,
        "settings": settings,
        **cell.to_dict(),
    }


def _build_graph(results: dict[str, Any], problems: ProblemSet, build: Callable[[ProblemSet], GraphPaths]) -> None:
    """Build a graph of starts outside of the contestants' time, and note what it cost."""
    start = time.perf_counter()
    graph = build(problems)
    seconds = time.perf_counter() - start
    if seconds > 1e-2:  # else it was there already
        results["graphs"][f"{problems.name}, {len(graph.nodes):,} nodes"] = {
            "seconds": seconds,
            "jacobians": graph.jacobians,
            "values": graph.values,
        }


def _store(path: Path, results: dict[str, Any]) -> None:
    """Write all results, or leave the old file: a kill never leaves half of one."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    cells = ",\n".join(f"  {json.dumps(key)}: {json.dumps(cell)}" for key, cell in results["cells"].items())
    rest = {name: value for name, value in results.items() if name != "cells"}
    text = json.dumps(rest, indent=1)[:-2] + ',\n "cells": {\n' + cells + "\n }\n}\n"
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main()
