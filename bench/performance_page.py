"""Put the stored results into docs/explanation/performance.md: ``python -m bench.performance_page``.

Each table of the page stands between two comments that name it; it is written anew from ``bench/results``, with device,
number type, date and commit. What has not been measured says so, with the command that measures it.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from bench.contest.throughput_report import comparison
from bench.problems.problem_set import ROOT
from bench.scaling import law_table, precision_table

RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "explanation" / "performance.md"

Table = Callable[[dict[str, Any]], list[str]]


def main() -> None:
    """Rewrite the page."""
    PAGE.write_text(filled(PAGE.read_text("utf-8")), encoding="utf-8")


def filled(page: str) -> str:
    """A page with all of its tables as the stored results have them."""
    for name, (file, command, table) in TABLES.items():
        path = RESULTS / file
        if path.exists():
            results = json.loads(path.read_text("utf-8"))
            lines = [*table(results), "", *_origin(results["environment"], command)]
        else:
            lines = [f"**Not yet measured**: `{command}`."]
        block = "\n".join([f"<!-- {name} -->", "", *lines, "", f"<!-- end of {name} -->"])
        page, count = re.subn(rf"<!-- {name} -->.*?<!-- end of {name} -->", lambda _, b=block: b, page, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"the page must hold one block {name}; it has {count}")
    return page


def _origin(environment: dict[str, Any], command: str) -> list[str]:
    known = [str(environment[key]) for key in ("device", "dtype", "date", "commit") if environment.get(key)]
    return [f"`{command}`; {', '.join(known)}."]


def _core(results: dict[str, Any]) -> list[str]:
    rows = [("piece", "time over", "ratio"), ("---",) * 3]
    for name, ratio in results["ratios"].items():
        piece, _, floor = name.partition(": ")
        rows.append((f"`{piece}`", floor.removeprefix("to "), f"{ratio:.2f}"))
    return _lines(rows)


def _start_up(results: dict[str, Any]) -> list[str]:
    rows = [("statement", "seconds beyond `import torch`"), ("---", "---")]
    rows += [(f"`{statement}`", f"{cost:.3f}") for statement, cost in results["seconds"].items()]
    return _lines(rows)


def _gpu(results: dict[str, Any]) -> list[str]:
    rows = [("measured", "value", "unit", "goal", "found"), ("---",) * 5]
    for timing in results["timings"]:
        found = timing["details"].get("found")
        shown = "" if found is None else f"{found:.1%}"
        rows.append((timing["name"], f"{timing['value']:.4g}", timing["unit"], timing["goal"], shown))
    failed = [check["check"] for check in results["checks"] if not check["passed"]]
    held = f"Held to float64 on the CPU: {len(results['checks'])} checks, {len(failed)} failed."
    return [*_lines(rows), "", held, *(f"Left out: {entry}." for entry in results["left_out"])]


def _lines(rows: list[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in rows]


TABLES: dict[str, tuple[str, str, Table]] = {
    "core": ("core.json", "make bench BENCH_ARGS=--store", _core),
    "throughput": (
        "throughput.json",
        "python -m bench.throughput",
        lambda results: comparison(list(results["cells"].values())),
    ),
    "scaling": ("scaling.json", "python -m bench.scaling", lambda results: law_table(results["laws"])),
    "precision": ("scaling.json", "python -m bench.scaling", lambda results: precision_table(results["precision"])),
    "start-up": ("start_up.json", "python -m bench.start_up", _start_up),
    "gpu": ("gpu.json", "python -m bench.gpu --output bench/results/gpu.json", _gpu),
}


if __name__ == "__main__":
    main()
