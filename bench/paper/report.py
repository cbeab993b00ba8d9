"""The claims of the paper, one line each, as a table for people."""

from collections.abc import Sequence
from typing import Any

VERDICTS = {True: "held", False: "**not held**", None: "open"}


def claims_table(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of all claims with their verdicts and numbers."""
    lines = ["| Claim | | Numbers | Experiment |", "|---|---|---|---|"]
    lines += [
        f"| {claim['text']} | {VERDICTS[claim['held']]} | {claim['evidence']} | `{result['experiment']}` |"
        for result in results
        for claim in result["claims"]
    ]
    return "\n".join(lines) + "\n"


def times_table(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of what each experiment cost."""
    lines = ["| Experiment | Seconds | CPU seconds |", "|---|---|---|"]
    lines += [f"| `{r['experiment']}` | {r['seconds']:.0f} | {r['cpu_seconds']:.0f} |" for r in results]
    seconds, cpu = (sum(r[name] for r in results) for name in ("seconds", "cpu_seconds"))
    return "\n".join([*lines, f"| all | {seconds:.0f} | {cpu:.0f} |"]) + "\n"


def report(results: Sequence[dict[str, Any]]) -> str:
    """Everything about a run in a page: where and with what, the claims, the costs."""
    about = {f"{k}: {v}" for r in results for k, v in r["environment"].items()}
    head = f"# {', '.join(sorted({r['data'] for r in results}))}\n\n" + "\n".join(f"- {line}" for line in sorted(about))
    return f"{head}\n\n{claims_table(results)}\n{times_table(results)}"
