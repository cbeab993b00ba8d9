"""Numbers that carry their uncertainty: bootstrap intervals over pairs, and summaries of samples."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

RESAMPLES = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """A statistic of a sample with a confidence interval.

    Attributes:
        value: the statistic.
        low: lower end of the interval.
        high: upper end.
        count: finite values it is of.
    """

    value: float
    low: float
    high: float
    count: int

    def exceeds(self, bound: float) -> bool | None:
        """Whether the statistic is above a bound; None where the interval holds the bound."""
        return True if self.low > bound else False if self.high < bound else None

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def mean(values: Tensor) -> Tensor:
    """Mean over the last axis."""
    return values.mean(-1)


def median(values: Tensor) -> Tensor:
    """Median over the last axis, the mean of the two middle values where their number is even."""
    return values.quantile(0.5, dim=-1)


def bootstrap(
    values: Float[Tensor, " n"],
    rng: torch.Generator,
    statistic: Callable[[Tensor], Tensor] = median,
) -> Interval:
    """A statistic with its 95 % percentile bootstrap interval; values that are not finite are left out.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.

    Args:
        values: independent samples; all NaN in the result where none is finite.
        rng: draws the resamples.
        statistic: from (..., n) to (...).
    """
    kept = values[values.isfinite()].double()
    if kept.numel() == 0:
        return Interval(torch.nan, torch.nan, torch.nan, 0)
    rows = torch.randint(len(kept), (RESAMPLES, len(kept)), generator=rng)
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=kept.dtype)
    low, high = statistic(kept[rows]).quantile(ends).tolist()
    return Interval(float(statistic(kept)), low, high, len(kept))


def summary(values: Float[Tensor, " n"], rng: torch.Generator) -> dict[str, Any]:
    """Mean and median with their intervals, and quantiles, of the finite values."""
    kept = values[values.isfinite()].double()
    quantiles = [0.0, 0.1, 0.25, 0.75, 0.9, 1.0]
    spread = kept.quantile(torch.tensor(quantiles, dtype=kept.dtype)).tolist() if len(kept) else [torch.nan] * 6
    return {
        "mean": bootstrap(values, rng, mean)._asdict(),
        "median": bootstrap(values, rng)._asdict(),
        "quantiles": dict(zip([str(q) for q in quantiles], spread, strict=True)),
        "not_finite": int(len(values) - len(kept)),
    }
