"""One member measured: what a solver finds, what it says of it, and whether that holds."""

import time
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bench.contest.dense_length import dense_length
from bench.problems.problem_set import LEARNED_TOLERANCE, QUICK_SOLVER
from bench.zoo.continuation import continued
from bench.zoo.members import Member
from bench.zoo.starts import DEFAULT, QUICK_GRAPH, GraphSettings
from geodesics import EnergySolver, GeodesicResult, Solver, Status, geodesic

NUM_CHORDS = 8000
# A length may be under the chord between the ends in the data space by rounding alone.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Setting:
    """A solver with its starts, as a user would call them."""

    solver: Solver
    graph: GraphSettings


SETTINGS = {"default": Setting(EnergySolver(), DEFAULT), "quick": Setting(QUICK_SOLVER, QUICK_GRAPH)}


@dataclass
class Outcome:
    """What is known of each pair, in order; None stands for what is not finite.

    Attributes:
        pair: index of the pair in its file.
        held_out: whether it is kept aside.
        excess: dense length over the shortest known, less one; None where none is known.
        measured: dense length.
        measured_error: the dense rule's own error.
        length: as reported.
        length_error: as reported.
        status: as reported.
        jacobians: derivatives taken.
        checked: whether length and error estimate are finite.
        fall: what the length fell by when the curve was continued, None where it was not.
        holds: whether that is within the estimate.
        far: whether it is more than three times the estimate.
        below_chord: whether the length is under the distance of the ends in the data space, which cannot be.
        segments: elements of the curve.
    """

    pair: list[int]
    held_out: list[bool]
    excess: list[float | None]
    measured: list[float | None]
    measured_error: list[float | None]
    length: list[float | None]
    length_error: list[float | None]
    status: list[str]
    jacobians: list[int]
    checked: list[bool]
    fall: list[float | None]
    holds: list[bool]
    far: list[bool]
    below_chord: list[bool]
    segments: list[int]


@dataclass
class Measured:
    """A member's row of the table.

    Attributes:
        member: its name.
        group: its group.
        dim: d.
        setting: name of the solver's settings.
        half: pairs measured.
        cpu_seconds: processor time per pair, all pairs in one call, without the graph.
        continued: whether error estimates were put to the test.
        outcome: pair by pair.
    """

    member: str
    group: str
    dim: int
    setting: str
    half: str
    cpu_seconds: float
    continued: bool
    outcome: Outcome

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def measure(member: Member, name: str, setting: Setting, half: str, test_errors: bool = True) -> Measured:
    """Solve all pairs of a member in one call, and judge every answer.

    Args:
        member: metric and pairs.
        name: of the setting.
        setting: solver and starts.
        half: name of the half that the member's pairs are.
        test_errors: whether curves are continued, which takes longer than all else.
    """
    starts = member.starts(setting.graph)
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # failures are counted in the table
        result = geodesic(member.metric, member.z0, member.z1, solver=setting.solver, initial=starts)
    seconds = (time.process_time() - began) / len(member.pairs)
    dim = member.z0.shape[1]
    outcome = judged(member, result, test_errors)
    return Measured(member.name, member.group, dim, name, half, seconds, test_errors, outcome)


def judged(member: Member, result: GeodesicResult, test_errors: bool = True) -> Outcome:
    """What is to be said of the answers to a member's pairs."""
    measured, measured_error = dense_length(member.problems(), result.curve, NUM_CHORDS)
    with torch.no_grad():
        generator = member.model.embedding
        chord = (generator(member.z1) - generator(member.z0)).norm(dim=1)
    below = result.length < chord * (1 - _ROUNDING)
    unknown = torch.full_like(result.length, torch.nan)
    checked = result.length.isfinite() & result.length_error.isfinite()
    fall, holds, far, segments = unknown, ~checked, torch.zeros_like(checked), torch.zeros_like(result.status)
    if test_errors:
        after = continued(member.metric, result)
        fall, holds, far, segments = (result.length - after.length), after.holds, after.far, after.segments
    return Outcome(
        pair=member.indices.tolist(),
        held_out=member.held_out.tolist(),
        excess=known(measured / member.best.masked_fill(member.best.isinf(), torch.nan) - 1),
        measured=known(measured, 16),
        measured_error=known(measured_error),
        length=known(result.length),
        length_error=known(result.length_error),
        status=[Status(code).name for code in result.status.tolist()],
        jacobians=result.jacobians.tolist(),
        checked=checked.tolist(),
        fall=known(fall),
        holds=holds.tolist(),
        far=far.tolist(),
        below_chord=below.tolist(),
        segments=segments.tolist(),
    )


def known(values: Tensor, digits: int = 8) -> list[float | None]:
    """Numbers of so many digits, None for what is not finite."""
    return [float(f"{x:.{digits}g}") if abs(x) < float("inf") else None for x in values.tolist()]


@dataclass(frozen=True)
class Summary:
    """The figures of a row, or of several together.

    Attributes:
        pairs: number of pairs.
        found: how many are within 1 % of the shortest known length.
        shorter: how many are shorter than it by more than 0.1 %.
        excess: median, ninth decile and largest excess; infinite where no curve was found.
        statuses: how often each was given.
        checked: error estimates that are finite.
        holds: how many of them hold, None where it was not tested.
        far: how many are too small by more than three times.
        false: how many of the CONVERGED ones do not hold.
        below_chord: lengths under the chord.
        jacobians: median and largest number of derivatives.
    """

    pairs: int
    found: int
    shorter: int
    excess: tuple[float, float, float]
    statuses: dict[str, int]
    checked: int
    holds: int | None
    far: int | None
    false: int | None
    below_chord: int
    jacobians: tuple[int, int]


def summarize(outcomes: list[dict[str, Any]], tested: bool) -> Summary:
    """One summary of the outcomes of one or more rows, as dictionaries."""
    all_of = {key: [x for outcome in outcomes for x in outcome[key]] for key in outcomes[0]}
    excess = torch.tensor([float("inf") if x is None else x for x in all_of["excess"]], dtype=torch.float64)
    order = excess.sort().values
    counts = sorted(all_of["jacobians"])
    checked = all_of["checked"]
    claims = [status == Status.CONVERGED.name for status in all_of["status"]]
    wrong = [c and not h for c, h in zip(checked, all_of["holds"], strict=True)]
    return Summary(
        pairs=len(excess),
        found=int((excess <= LEARNED_TOLERANCE).sum()),
        shorter=int((excess < -1e-3).sum()),
        excess=(float(order[len(order) // 2]), float(order[int(0.9 * (len(order) - 1))]), float(order[-1])),
        statuses={status.name: all_of["status"].count(status.name) for status in Status},
        checked=sum(checked),
        holds=sum(checked) - sum(wrong) if tested else None,
        far=sum(all_of["far"]) if tested else None,
        false=sum(c and w for c, w in zip(claims, wrong, strict=True)) if tested else None,
        below_chord=sum(all_of["below_chord"]),
        jacobians=(counts[len(counts) // 2], counts[-1]),
    )
