"""One cell of the table: one contestant on one set of problems, under a time limit, measured."""

import statistics
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.contest.contestants import Answer, Contestant
from bench.contest.dense_length import NUM_CHORDS, dense_length
from bench.contest.time_limit import TimedMetric, TimeLimit
from bench.problems.problem_set import ProblemSet

RUNS = 5
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass
class Columns:
    """What is known of every problem reached, in order; JSON has no NaN or infinity, so those are None.

    Attributes:
        excess: dense length over the best known, less one.
        length: as reported; None where the contestant reports none.
        length_error: as reported.
        measured: dense length.
        measured_error: the dense rule's own error.
        converged: whether convergence is claimed.
        status: in the contestant's words.
        jacobians: generator values with derivatives; None where not counted.
        values: generator values alone; None where not counted.
    """

    excess: list[float | None]
    length: list[float | None]
    length_error: list[float | None]
    measured: list[float | None]
    measured_error: list[float | None]
    converged: list[bool]
    status: list[str]
    jacobians: list[int | None]
    values: list[int | None]


@dataclass
class Cell:
    """A contestant's result on a set of problems.

    Attributes:
        problems: B.
        reached: problems answered before the time limit, or before an exception.
        timed_out: whether the time limit came first.
        error: the exception that ended the cell; None where there was none.
        tolerance: excess up to which a geodesic counts as found.
        seconds: wall time per geodesic: median of the whole batch's runs, or, where ``runs`` is 0, of all
            that was done.
        cpu_seconds: processor time of the same.
        runs: runs of the whole batch that were timed.
        memory: MiB above what the process held before; None where the system does not say.
        columns: problem by problem.
    """

    problems: int
    reached: int
    timed_out: bool
    error: str | None
    tolerance: float
    seconds: float | None
    cpu_seconds: float | None
    runs: int
    memory: float | None
    columns: Columns

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def run_cell(contestant: Contestant, problems: ProblemSet, time_limit: float, num_chords: int = NUM_CHORDS) -> Cell:
    """Solve a set of problems in batches of 1, 1, 2, 4, ..., until done or out of time; then time one batch.

    An answer does not depend on its batch, so batches that grow find out how many problems fit the time
    limit, and are the warm-up of the runs that are timed. Problems not reached have not been found.

    Args:
        contestant: the solver from its start.
        problems: B problems.
        time_limit: seconds for the cell, without the measurements.
        num_chords: of the dense length.
    """
    metric = TimedMetric(problems.metric, time.perf_counter() + time_limit)
    baseline = reset_peak()
    solved = _solve(contestant, problems, metric)
    runs: list[Seconds] = []
    if solved.reached == len(problems):
        runs = _repeat(contestant, problems, metric, solved.seconds.wall)
    memory = peak_memory(baseline)
    seconds = _per_geodesic(runs, solved, len(problems))
    return Cell(
        problems=len(problems),
        reached=solved.reached,
        timed_out=solved.timed_out,
        error=solved.error,
        tolerance=problems.tolerance,
        seconds=seconds and seconds.wall,
        cpu_seconds=seconds and seconds.cpu,
        runs=len(runs),
        memory=memory,
        columns=_columns(problems, solved.answers, num_chords),
    )


class Seconds(NamedTuple):
    """Wall and processor time."""

    wall: float
    cpu: float


class Solved(NamedTuple):
    """Answers to the first ``reached`` problems, the time they took together, and why there are no more."""

    answers: list[Answer]
    seconds: Seconds
    reached: int
    timed_out: bool
    error: str | None


def _solve(contestant: Contestant, problems: ProblemSet, metric: TimedMetric) -> Solved:
    """Batches of 1, 1, 2, 4, ... until done, out of time, or an exception."""
    answers: list[Answer] = []
    wall = cpu = 0.0
    reached, timed_out, error = 0, False, None
    while reached < len(problems):
        rows = slice(reached, min(len(problems), max(1, 2 * reached)))
        try:
            answer, seconds = timed(contestant, problems.part(rows), metric)
        except TimeLimit:
            timed_out = True
            break
        except Exception as exception:  # a solver that raises has failed on what is left
            error = f"{type(exception).__name__}: {str(exception).partition(chr(10))[0][:200]}"
            break
        answers.append(answer)
        wall, cpu = wall + seconds.wall, cpu + seconds.cpu
        reached = rows.stop
    return Solved(answers, Seconds(wall, cpu), reached, timed_out, error)


def timed(contestant: Contestant, problems: ProblemSet, metric: TimedMetric) -> tuple[Answer, Seconds]:
    """An answer with the time that it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # failures are counted in the table
        answer = contestant.solve(problems, metric)
    return answer, Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def _repeat(contestant: Contestant, problems: ProblemSet, metric: TimedMetric, expected: float) -> list[Seconds]:
    """Times of the whole batch, as often as fits before the deadline, at most `RUNS` times."""
    runs: list[Seconds] = []
    while len(runs) < RUNS and time.perf_counter() + expected < metric.deadline:
        try:
            _, seconds = timed(contestant, problems, metric)
        except TimeLimit:
            break
        runs.append(seconds)
        expected = seconds.wall
    return runs


def _per_geodesic(runs: list[Seconds], solved: Solved, count: int) -> Seconds | None:
    if runs:
        return Seconds(*(statistics.median(times) / count for times in zip(*runs, strict=True)))
    if solved.reached:
        return Seconds(*(total / solved.reached for total in solved.seconds))
    return None


def _columns(problems: ProblemSet, answers: list[Answer], num_chords: int) -> Columns:
    """All that is known of the problems reached; here their curves are measured."""
    columns = Columns([], [], [], [], [], [], [], [], [])
    start = 0
    for answer in answers:
        part = problems.part(slice(start, start + len(answer.length)))
        start += len(part)
        measured, error = dense_length(part, answer.curve, num_chords)
        columns.excess += _known(measured / part.best - 1)
        columns.length += _known(answer.length)
        columns.length_error += _known(answer.length_error)
        columns.measured += _known(measured)
        columns.measured_error += _known(error)
        columns.converged += answer.converged.tolist()
        columns.status += answer.status
        for counts, into in ((answer.jacobians, columns.jacobians), (answer.values, columns.values)):
            into += [None] * len(part) if counts is None else counts.tolist()
    return columns


def _known(values: Any) -> list[float | None]:
    return [float(f"{x:.12g}") if abs(x) < float("inf") else None for x in values.tolist()]


def reset_peak() -> float | None:
    """Set the process's peak memory back to what it holds now, in MiB; None where that cannot be done."""
    try:
        _CLEAR.write_text("5")
        return _memory("VmRSS")
    except OSError:
        return None


def peak_memory(baseline: float | None) -> float | None:
    return None if baseline is None else max(0.0, _memory("VmHWM") - baseline)


def _memory(name: str) -> float:
    lines = dict(line.split(":", 1) for line in _STATUS.read_text("utf-8").splitlines())
    return float(lines[name].split()[0]) / 1024
