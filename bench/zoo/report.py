"""The zoo's table, from the stored rows."""

from typing import Any

from bench.zoo.measure import Summary, summarize
from geodesics import Status

_SHORT = {
    "CONVERGED": "conv",
    "SETTLED": "settled",
    "MAX_ITER": "max_iter",
    "STALLED": "stalled",
    "NOT_MINIMUM": "saddle",
    "UNRESOLVED": "unresolved",
    "FAILED": "failed",
    "INVALID": "invalid",
}
ABOUT = """Found: within 1 % of the shortest length known. Errors hold: the curve, continued to convergence on a mesh
twice as fine, is shorter by no more than its error estimate; far: by more than three times as much. False claims:
CONVERGED, and the estimate does not hold. Graphs are not in the times."""
HEAD = (
    "| member | d | found | excess: median / p90 / max | statuses | errors hold | far | false claims |"
    " derivatives: median / max | CPU s a pair |\n|---|---|---|---|---|---|---|---|---|---|"
)


def markdown(results: dict[str, Any]) -> str:
    """All rows, one table for each setting and half, with a line for all members together."""
    about = results["environment"]
    lines = ["# The zoo", "", f"`python -m bench.zoo measure`; {about['device']}, {about['dtype']}."]
    lines += [ABOUT, ""]
    tables: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in results["rows"].values():
        tables.setdefault((row["setting"], row["half"]), []).append(row)
    for (setting, half), rows in tables.items():
        lines += [f"## {setting}, {half}", "", table(rows), ""]
        stamps = sorted({f"{row['commit']} on {row['date']}" for row in rows})
        lines += [f"Commit {', '.join(stamps)}; {rows[0]['threads']} thread(s).", ""]
    return "\n".join(lines)


def table(rows: list[dict[str, Any]]) -> str:
    """The table of some rows; the zoo's own are added up under them, as far as there are several."""
    lines = [HEAD, *(_line(row["member"], str(row["dim"]), [row]) for row in rows)]
    own = [row for row in rows if row["group"] == "zoo"]
    if len(own) > 1:
        lines.append(_line("**zoo**", "", own))
    return "\n".join(lines)


def _line(name: str, dim: str, rows: list[dict[str, Any]]) -> str:
    tested = all(row["continued"] for row in rows)
    s = summarize([row["outcome"] for row in rows], tested)
    pairs = sum(len(row["outcome"]["pair"]) for row in rows)
    seconds = sum(row["cpu_seconds"] * len(row["outcome"]["pair"]) for row in rows) / pairs
    excess = " / ".join(_percent(x) for x in s.excess)
    cells = [name, dim, _found(s), excess, _statuses(s), *_errors(s), f"{s.jacobians[0]:,} / {s.jacobians[1]:,}"]
    return "| " + " | ".join([*cells, f"{seconds:.2f}"]) + " |"


def _found(s: Summary) -> str:
    shorter = f", {s.shorter} shorter than known" if s.shorter else ""
    return f"{s.found} of {s.pairs} ({s.found / s.pairs:.0%}){shorter}"


def _statuses(s: Summary) -> str:
    return ", ".join(f"{s.statuses[status.name]} {_SHORT[status.name]}" for status in Status if s.statuses[status.name])


def _errors(s: Summary) -> list[str]:
    if s.holds is None:
        return ["", "", ""]
    below = f", {s.below_chord} below the chord" if s.below_chord else ""
    return [f"{s.holds} of {s.checked}{below}", str(s.far), str(s.false)]


def _percent(x: float) -> str:
    return f"{100 * x:.2f} %" if x < float("inf") else "none"
