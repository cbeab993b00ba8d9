"""From cells of `bench.throughput` to its tables: rates with their accuracy, ours against the best peer."""

from typing import Any

OURS = "energy"
HEADER = (
    "problems",
    "batch",
    "threads",
    "solver/start",
    "geodesics / s",
    "found",
    "excess: median / worst",
    "found / s",
    "remarks",
)
NOTES = """\
*Found*: the length of the returned curve, by {chords:,} dense chords with Richardson extrapolation, is within 0.01 % of
the exact distance (closed forms) or at most 1 % above the reference length (digits), in double precision for all.
*Excess*: that length over the best, less one. *Found / s*: the rate of the geodesics found; what was lost counts for
nothing. Median of up to 5 runs after one that warms up (compilation is left out; * where there was no time for a second
run). Contestants that know no
batch are timed on pairs one by one, as many of 8 as the time limit lets them; their rate stands for every batch. The
graph of starts on the digits is built once per metric, outside; its queries are inside. Ours are `energy`, with its
defaults, and `energy-quick`, the quick settings of "Choosing a solver", which stop at accuracies more like the peers'.
`digits-float32` are the digits in single precision, for ours and for the peers.
Against the best peer: both sides may cut the pairs into the batches of this table that suit them best.
"""


def markdown(results: dict[str, Any]) -> str:
    """The whole report."""
    cells = list(results["cells"].values())
    lines = ["# Geodesics per second", ""]
    lines += [f"{name}: {value}  " for name, value in results["environment"].items()]
    lines += ["", "## Against the best peer", "", *comparison(cells), "", "## All contestants", "", *_table(cells)]
    return "\n".join([*lines, "", NOTES.format(chords=4000)]).rstrip() + "\n"


def best(cells: list[dict[str, Any]], mine: bool) -> dict[str, Any] | None:
    """Ours, or the peers', with the highest rate of geodesics found."""
    rated = [c for c in cells if c["contestant"].startswith(OURS) == mine and c.get("found_rate")]
    return max(rated, key=lambda cell: float(cell["found_rate"]), default=None)


def group(cells: list[dict[str, Any]], name: str, batch: int, threads: int) -> list[dict[str, Any]]:
    """Cells of one set and number of threads at any batch that so many pairs can be cut into."""
    return [c for c in cells if c["set"] == name and c["threads"] == threads and c["batch"] <= batch]


def is_sequential(cell: dict[str, Any]) -> bool:
    """Whether a contestant knows no batch."""
    return cell["contestant"].startswith(("geomstats", "collocation"))


def comparison(cells: list[dict[str, Any]]) -> list[str]:
    """Table rows: ours against the best peer, by the rate of geodesics found."""
    header = ("problems", "pairs", "threads", "ours, found / s", "best peer, found / s", "ratio")
    lines = ["| " + " | ".join(row) + " |" for row in (header, ("---",) * len(header))]
    for name, batch, threads in dict.fromkeys((c["set"], c["batch"], c["threads"]) for c in cells):
        here = group(cells, name, batch, threads)
        ours, peer = best(here, mine=True), best(here, mine=False)
        if ours is None:
            continue
        theirs = f"{peer['found_rate']:.3g} ({_short(peer)})" if peer else "none finds any"
        ratio = f"{ours['found_rate'] / peer['found_rate']:.2g}" if peer else "–"
        shown = f"{ours['found_rate']:.3g} ({_short(ours)})"
        lines.append(f"| {name} | {batch} | {threads} | {shown} | {theirs} | {ratio} |")
    return lines


def _short(cell: dict[str, Any]) -> str:
    return f"{cell['contestant']}, excess {_number(cell['median_excess'])}"


def _table(cells: list[dict[str, Any]]) -> list[str]:
    rows = [HEADER, ("---",) * len(HEADER), *map(_row, cells)]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _row(cell: dict[str, Any]) -> list[str]:
    batch = "any" if is_sequential(cell) else str(cell["batch"])
    start = [cell["set"], batch, str(cell["threads"]), cell["contestant"]]
    if cell["rate"] is None:
        return [*start, "–", "0", "–", "0", cell["note"]]
    remark = "" if "found" in cell["note"] else f"{cell['note']} after {cell['solved']}"
    return [
        *start,
        f"{cell['rate']:.3g}" + ("" if cell["runs"] else " *"),
        f"{cell['found']}/{cell['solved']}",
        f"{_number(cell['median_excess'])} / {_number(cell['worst_excess'])}",
        f"{cell['found_rate']:.3g}",
        remark,
    ]


def _number(value: float | None) -> str:
    return "∞" if value is None else f"{value:.0e}"
