"""What importing costs beyond torch: ``python -m bench.start_up``. Processor time, median of fresh processes."""

import json
import subprocess
import sys
from statistics import median

from bench.contest.environment import environment
from bench.problems.problem_set import ROOT

IMPORTS = (
    "import geodesics",
    "from geodesics import EnergySolver, PullbackMetric, geodesic",
    "from geodesics import GraphPaths",
)
RUNS = 5


def main() -> None:
    """Print one line per import, and store them."""
    found = {statement: round(seconds(statement), 4) for statement in IMPORTS}
    for statement, cost in found.items():
        print(f"{cost:6.3f} s  {statement}")
    text = json.dumps({"environment": environment(1), "seconds": found}, indent=1)
    (ROOT / "bench" / "results" / "start_up.json").write_text(text + "\n", encoding="utf-8")


def seconds(statement: str, runs: int = RUNS) -> float:
    """Median processor time of a statement in a fresh interpreter that has loaded torch."""
    code = f"import time, torch; start = time.process_time(); {statement}; print(time.process_time() - start)"
    command = [sys.executable, "-c", code]
    found = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout for _ in range(runs)]
    return median(map(float, found))


if __name__ == "__main__":
    main()
