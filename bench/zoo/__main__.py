"""``python -m bench.zoo``: train the zoo's models, search for the shortest curves, measure a solver.

::

    python -m bench.zoo train --data FOLDER    # models that need no images are trained without --data
    python -m bench.zoo refer                  # best known lengths, by the heavy search; nice -n 10 is kind
    python -m bench.zoo merge NAME FILE        # take over what is shorter in another file of a member's pairs
    python -m bench.zoo measure                # the table

Every command goes on where it was killed, and stores what it has after each model.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.contest.environment import environment
from bench.problems.problem_set import ROOT
from bench.zoo.measure import SETTINGS, measure
from bench.zoo.members import HALVES, Member, lengths_path, members, sources
from bench.zoo.models import path_of
from bench.zoo.pairs import Pairs, combined, load, merge_files, merged, pairs_path, store
from bench.zoo.recipes import RECIPES, Source
from bench.zoo.report import markdown, table
from bench.zoo.search import Effort, search
from bench.zoo.training import train

RESULTS = ROOT / "bench" / "results"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the commands."""
    given = _parse(arguments)
    torch.set_num_threads(given.threads)
    {"train": _train, "refer": _refer, "merge": _merge, "measure": _measure}[given.command](given)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.zoo", description="Learned metrics to measure solvers on.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = {name: commands.add_parser(name) for name in ("train", "refer", "merge", "measure")}
    for name in ("train", "refer", "measure"):
        one[name].add_argument("--only", nargs="+", default=(), metavar="MEMBER", help="members; all by default")
        one[name].add_argument("--threads", type=int, default=1, help="of torch (%(default)s)")
    for name in ("refer", "measure"):
        one[name].add_argument("--shared", type=Path, help="folder with published models, data and references")
    one["train"].add_argument("--data", type=Path, help="folder with FashionMNIST/raw and MNIST/raw")
    one["train"].add_argument("--again", action="store_true", help="train models that are there, too")
    effort = Effort()
    one["refer"].add_argument("--again", action="store_true", help="repeat searches that came to their end")
    one["refer"].add_argument("--seed", type=int, default=effort.seed, help="of the graph (%(default)s)")
    one["refer"].add_argument("--nodes", type=int, default=effort.nodes, help="of the graph (%(default)s)")
    one["refer"].add_argument("--paths", type=int, default=effort.paths, help="a pair (%(default)s)")
    one["refer"].add_argument("--segments", type=int, default=effort.segments, help="at most (%(default)s)")
    one["merge"].add_argument("name", help="the member")
    one["merge"].add_argument("file", type=Path, help="its pairs with other lengths")
    one["merge"].set_defaults(threads=1)
    one["measure"].add_argument("--solver", choices=sorted(SETTINGS), default="default", help="(%(default)s)")
    one["measure"].add_argument("--half", choices=HALVES, default="both", help="of the pairs (%(default)s)")
    one["measure"].add_argument("--out", type=Path, default=RESULTS, help="folder of zoo.json and zoo.md (%(default)s)")
    one["measure"].add_argument("--no-continuation", action="store_true", help="do not test the error estimates")
    one["measure"].add_argument("--merge", action="store_true", help="store lengths shorter than those known")
    one["measure"].add_argument("--again", action="store_true", help="measure rows of the same sources again")
    return parser.parse_args(arguments)


def _train(given: argparse.Namespace) -> None:
    for recipe in RECIPES:
        if given.only and recipe.name not in given.only:
            continue
        if path_of(recipe.name).exists() and not given.again:
            print(f"{recipe.name} is there")
        elif given.data is None and recipe.source in (Source.FASHION, Source.MNIST):
            print(f"{recipe.name} needs --data")
        else:
            print(train(recipe, given.data), flush=True)


def _refer(given: argparse.Namespace) -> None:
    effort = Effort(given.nodes, given.paths, given.seed, given.segments)
    for member in members(given.only, shared=given.shared):
        if str(effort) in member.pairs.searches and not given.again:
            print(f"{member.name}: searched already")
            continue
        path = lengths_path(member.name, member.group)

        def keep(pairs: Pairs, path: Path = path) -> None:
            # Another process may have found shorter ones meanwhile.
            store(path, combined(load(path), pairs) if path.exists() else pairs)

        search(member, effort, keep, lambda line: print(line, flush=True))


def _merge(given: argparse.Namespace) -> None:
    count = merge_files(pairs_path(given.name), given.file)
    print(f"{given.name}: {count} lengths are shorter now")


def _measure(given: argparse.Namespace) -> None:
    setting, about = SETTINGS[given.solver], environment(given.threads)
    stamp = {"commit": about["commit"], "date": about["date"], "threads": given.threads}
    given.out.mkdir(parents=True, exist_ok=True)
    for member in members(given.only, given.half, given.shared):
        results = _load(given.out, about)
        key = f"{member.name} {given.solver} {given.half}"
        settings = {"sources": sources(member), "threads": given.threads, "continued": not given.no_continuation}
        row = results["rows"].get(key)
        if row is None or row["settings"] != settings or given.again:
            measured = measure(member, given.solver, setting, given.half, not given.no_continuation)
            row = {**measured.to_dict(), **stamp, "settings": settings}
            results["rows"][key] = row
            _store(given.out, results)
        if given.merge:
            _keep_shorter(member, row["outcome"], f"measured, {given.solver}")
        print(table([row]).splitlines()[-1], flush=True)
    results = _load(given.out, about)
    report = markdown(results)
    (given.out / "zoo.md").write_text(report, encoding="utf-8")
    print(report)


def _keep_shorter(member: Member, outcome: dict[str, Any], by: str) -> None:
    """Store the lengths of a row that are shorter than those known."""
    unknown = float("inf")
    lengths = [unknown if x is None else x for x in outcome["measured"]]
    errors = [unknown if x is None else x for x in outcome["measured_error"]]
    length, error = torch.full_like(member.drawn.best, unknown), torch.zeros_like(member.drawn.best)
    length[outcome["pair"]], error[outcome["pair"]] = member.best.new_tensor(lengths), member.best.new_tensor(errors)
    store(lengths_path(member.name, member.group), merged(member.drawn, length, error, by))


def _load(out: Path, about: dict[str, object]) -> dict[str, Any]:
    path = out / "zoo.json"
    rows = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else {}
    return {"environment": about, "rows": rows}


def _store(out: Path, results: dict[str, Any]) -> None:
    """Write all rows, or leave the old file."""
    partial = out / f"zoo.json.{os.getpid()}.partial"
    partial.write_text(json.dumps(results) + "\n", encoding="utf-8")
    partial.replace(out / "zoo.json")


if __name__ == "__main__":
    main()
