"""From cells to the table: what was found, what is true, what was claimed, and what it cost."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

# A claim of convergence is false when the curve is longer than the best known by more than this share.
FALSE_CLAIM = 1e-2
# A curve shorter than the best known by more than this share improves the reference.
IMPROVED = 1e-4

NOTES = """\
*Found*: the returned curve's length, by {chords:,} dense chords with Richardson extrapolation and none of the
library's quadrature, is within 0.01 % of the exact distance, or within 1 % of the best length known on learned
metrics. *Excess*: that length over the best, less one, over the problems answered. *True*: the reported length
agrees with the dense one within the reported error estimate plus the dense rule's own error. *Claimed*: reported as
converged. *False*: claimed, but more than 1 % longer than the best known (a longer local minimum, where the status
promises no more than that), or with no curve or a length that is not true. *Failed*: no finite curve, or an
exception. *Jacobians* and *values*: generator evaluations per geodesic with and without derivatives, all starts and
checks included, the graph of starts, built once per metric, not. *CPU s*: processor time per geodesic, median of up
to 5 runs of the whole batch after a warm-up (marked * where there was only the first run, in smaller batches, warm-up
included). *MiB*: peak memory above what the process held before. Problems not reached in time count as not found.
Answers are those of batches of 1, 1, 2, 4, ...; this matters for stochman only, whose stop is one for the batch.
"""

HEADER = (
    "problems",
    "solver/start",
    "found",
    "excess: median / p90 / max",
    "true",
    "claimed",
    "false: too long / untrue",
    "failed",
    "Jacobians: median / max",
    "values: median / max",
    "CPU s",
    "MiB",
    "remarks",
)


class Summary(NamedTuple):
    """Counts over the problems of a cell; ``excess``, ``jacobians`` and ``values`` are quantiles as texts."""

    found: int
    excess: str
    true: int
    checked: int
    claimed: int
    too_long: int
    untrue: int
    failed: int
    improved: int
    jacobians: str
    values: str

    @property
    def false_claims(self) -> int:
        """Claims of convergence on curves that are too long, or of a length that is not true."""
        return self.too_long + self.untrue


def summarize(cell: dict[str, Any]) -> Summary:
    """Count a cell's problems, given as the JSON holds it."""
    columns = cell["columns"]
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    exact = cell["tolerance"] < FALSE_CLAIM
    answered = [row["excess"] for row in rows if row["excess"] is not None]
    verdicts = [true_length(row) for row in rows]
    raised = cell["problems"] - cell["reached"] if cell["error"] else 0
    return Summary(
        found=sum((abs(e) if exact else e) <= cell["tolerance"] for e in answered),
        excess=_quantiles([abs(e) if exact else e for e in answered], "{:.1e}".format, p90=True),
        true=sum(verdict is True for verdict in verdicts),
        checked=sum(verdict is not None for verdict in verdicts),
        claimed=sum(row["converged"] for row in rows),
        too_long=sum(row["converged"] and not is_untrue(row) and row["excess"] > FALSE_CLAIM for row in rows),
        untrue=sum(row["converged"] and is_untrue(row) for row in rows),
        failed=len(rows) - len(answered) + raised,
        improved=0 if exact else sum(e < -IMPROVED for e in answered),
        jacobians=_quantiles([n for n in columns["jacobians"] if n is not None], "{:,.0f}".format),
        values=_quantiles([n for n in columns["values"] if n is not None], "{:,.0f}".format),
    )


def true_length(row: dict[str, Any]) -> bool | None:
    """Whether the reported length is that of the curve; None where no length was reported or measured."""
    if row["length"] is None or row["measured"] is None:
        return None
    # An error estimate of infinity, kept as None, promises nothing and so cannot be wrong.
    if row["length_error"] is None:
        return True
    return bool(abs(row["length"] - row["measured"]) <= row["length_error"] + row["measured_error"])


def is_untrue(row: dict[str, Any]) -> bool:
    """Whether there is no curve, or its reported length is not true."""
    return row["excess"] is None or true_length(row) is False


def _quantiles(values: Sequence[float], show: Callable[[float], str], p90: bool = False) -> str:
    if not values:
        return "–"
    ordered = sorted(values)
    shown = [statistics.median(ordered), ordered[-1]]
    if p90:
        shown.insert(1, ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))])
    return " / ".join(map(show, shown))


def markdown(results: dict[str, Any], order: Sequence[str]) -> str:
    """The whole report: environment, table, notes.

    Args:
        results: what `bench.solvers` stores.
        order: keys of cells in the order of the table; others are left out.
    """
    lines = ["# Solvers compared", "", *_environment(results["environment"]), ""]
    lines += ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    cells = results["cells"]
    lines += ["| " + " | ".join(_row(cells[key], results)) + " |" for key in order if key in cells]
    notes = NOTES.format(chords=results["environment"]["chords"])
    return "\n".join([*lines, "", notes, *_graphs(results["graphs"])]).rstrip() + "\n"


def _environment(environment: dict[str, Any]) -> list[str]:
    return [f"{name}: {value}  " for name, value in environment.items() if name != "chords"]


def _graphs(graphs: dict[str, dict[str, float]]) -> list[str]:
    return [
        f"Graph of starts on {name}: {graph['seconds']:.1f} s, {graph['jacobians']:,} Jacobians, "
        f"{graph['values']:,} values, once for all problems."
        for name, graph in graphs.items()
    ]


def _row(cell: dict[str, Any], results: dict[str, Any]) -> list[str]:
    summary = summarize(cell)
    cpu, memory = cell["cpu_seconds"], cell["memory"]
    return [
        cell["set"],
        cell["contestant"],
        f"{summary.found}/{cell['problems']}",
        summary.excess,
        f"{summary.true}/{summary.checked}" if summary.checked else "–",
        str(summary.claimed),
        f"**{summary.too_long} / {summary.untrue}**" if summary.false_claims else "0",
        str(summary.failed),
        summary.jacobians,
        summary.values,
        "–" if cpu is None else f"{cpu:.2g}" + ("" if cell["runs"] else " *"),
        "–" if memory is None else f"{memory:.0f}",
        "; ".join(_remarks(cell, summary, results)),
    ]


def _remarks(cell: dict[str, Any], summary: Summary, results: dict[str, Any]) -> list[str]:
    remarks = []
    if cell["timed_out"]:
        limit = cell["settings"]["time_limit"]
        remarks.append(f"time-out: {cell['reached']} of {cell['problems']} reached in {limit:g} s")
    if cell["error"]:
        remarks.append(f"raised after {cell['reached']}: {cell['error']}")
    if summary.improved:
        remarks.append(f"{summary.improved} shorter than the best known")
    if cell["settings"]["source"] != results["environment"]["source"]:
        remarks.append(f"other source, {cell['settings']['source']}")
    return remarks
