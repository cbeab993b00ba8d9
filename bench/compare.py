"""The core's pieces now against those stored: ``python -m bench.compare run.json``, the end of ``make bench``.

Seconds differ from machine to machine, and from one busy minute to the next; what is compared is each piece's time over
its floor, both from the same run. The exit status is 1 where a ratio has grown by more than the limit, or a stored
piece is missing.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.contest.environment import environment
from bench.problems.problem_set import ROOT

STORED = ROOT / "bench" / "results" / "core.json"
LIMIT = 1.5


class Change(NamedTuple):
    """A piece's time over its floor, stored and now; None where it is missing."""

    name: str
    stored: float | None
    now: float | None

    def is_slower(self, limit: float) -> bool:
        """Whether the ratio has grown by more than the limit, or the piece is gone."""
        return self.stored is not None and (self.now is None or self.now > limit * self.stored)

    def line(self, limit: float) -> str:
        """For people."""
        stored, now = ("      –" if x is None else f"{x:7.2f}" for x in (self.stored, self.now))
        change = f"{self.now / self.stored:6.2f}x" if self.stored and self.now else "      –"
        verdict = "SLOWER" if self.is_slower(limit) else "new" if self.stored is None else ""
        return f"{self.name:<52} stored {stored}   now {now}   change {change}   {verdict}".rstrip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line per piece; store the run instead where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description="The core now and as stored.")
    parser.add_argument("run", type=Path, help="JSON written by pytest --benchmark-json")
    parser.add_argument("--stored", type=Path, default=STORED, help="(%(default)s)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="growth of a ratio that fails (%(default)s)")
    parser.add_argument("--store", action="store_true", help="keep this run as the one to compare with")
    given = parser.parse_args(arguments)
    now = ratios(json.loads(given.run.read_text("utf-8")))
    if given.store:
        kept = {"environment": environment(1), "ratios": now}
        given.stored.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    stored = json.loads(given.stored.read_text("utf-8"))
    print(f"time over its floor, stored ({stored['environment']['date']}, {stored['environment']['commit']}) and now")
    changes = compare(stored["ratios"], now)
    for change in changes:
        print(change.line(given.limit))
    slower = [change.name for change in changes if change.is_slower(given.limit)]
    if slower:
        print(f"slower than {given.limit:g} times the stored ratio, or missing: {', '.join(slower)}")
    return 1 if slower else 0


def ratios(run: dict[str, Any]) -> dict[str, float]:
    """Each piece's time over each of its floors: what its benchmark has stored under a name with ``ratio``."""
    return {
        f"{entry['name'].removeprefix('test_')}: {name.removeprefix('ratio_').replace('_', ' ')}": float(value)
        for entry in run["benchmarks"]
        for name, value in entry["extra_info"].items()
        if name.startswith("ratio_")
    }


def compare(stored: dict[str, float], now: dict[str, float]) -> list[Change]:
    """All pieces of either, in the order of the run, what is missing last."""
    return [Change(name, stored.get(name), now.get(name)) for name in [*now, *(stored.keys() - now.keys())]]


if __name__ == "__main__":
    raise SystemExit(main())
