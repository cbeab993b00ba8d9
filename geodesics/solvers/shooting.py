"""Connecting geodesics by shooting, behind the one door: minimize first, then solve the geodesic ODE."""

from dataclasses import dataclass, field

import torch

from geodesics.curves.curve import Curve
from geodesics.metrics.lengths import KRONROD_POINTS, length
from geodesics.metrics.metric import Metric
from geodesics.ode.multiple_shooting import ShootingOptions, shoot
from geodesics.solvers.energy import EnergySolver
from geodesics.solvers.solution import GeodesicResult, Status


@dataclass(frozen=True)
class ShootingSolver:
    """Multiple shooting of the geodesic ODE, warm-started by energy minimization.

    Exact to the tolerance of the ODE on smooth metrics (about 1e-9 in float64), where it polishes the minimizer's
    curve in one to three Newton steps. On metrics with walls the ODE is too stiff: such problems keep the minimizer's
    curve and say so. The ODE does not see kinks: with a ReLU decoder it sees straight lines.

    Args:
        shooting: options of the boundary-value problem.
        warm_start: options of the energy minimizer that goes before.
    """

    shooting: ShootingOptions = field(default_factory=ShootingOptions)
    warm_start: EnergySolver = field(default_factory=EnergySolver)

    @property
    def length_tol(self) -> float:
        """Tolerance on the length error estimate, relative to the length: that of the warm start."""
        return self.warm_start.length_tol

    def solve(self, metric: Metric, starts: list[Curve]) -> GeodesicResult:
        """Minimize from all starts, then shoot from the winners.

        The result's ``gradient`` is the relative residual of the boundary-value problem; ``jacobians`` adds the
        accelerations computed. ``minimum`` is the verdict of the minimizer on the curve next to it.
        """
        warm = self.warm_start.solve(metric, starts)
        shot = shoot(metric, warm.curve, self.shooting)
        total, quadrature_error = length(metric, shot.curve)
        error = quadrature_error + shot.residual.maximum(shot.step_error) * total
        verdict = torch.where(warm.minimum, int(Status.CONVERGED), int(Status.NOT_MINIMUM))
        tolerable = error <= self.warm_start.length_tol * total
        verdict = torch.where(tolerable, verdict, int(Status.UNRESOLVED))
        verdict = torch.where(shot.converged, verdict, int(Status.STALLED))
        spent = shot.evaluations + KRONROD_POINTS * shot.curve.num_segments
        return GeodesicResult(
            shot.curve,
            total,
            torch.where(shot.converged, error, warm.length_error),
            total.square() / 2,
            torch.where(shot.failed | ~total.isfinite(), int(Status.FAILED), verdict),
            shot.residual,
            warm.minimum,
            warm.iterations + shot.iterations,
            warm.jacobians + spent,
            warm.values,
            warm.starts,
        )
