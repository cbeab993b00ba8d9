"""Geodesics in the latent spaces of generative models, thousands at a time.

Public names live here, one import path each; they are resolved on first use, so that importing the package is cheap.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geodesics.batches.threads import forward_mode
    from geodesics.connecting.distances import distance, distance_matrix
    from geodesics.connecting.geodesic import Solver, geodesic
    from geodesics.connecting.logarithm import log_map
    from geodesics.curves.curve import Curve
    from geodesics.curves.initial import InitialCurves, Straight
    from geodesics.generators.checks import GeneratorReport, check_generator
    from geodesics.generators.protocols import (
        DirectionalGenerator,
        Generator,
        HessianGenerator,
        JacobianGenerator,
        SecondOrderGenerator,
        Stack,
    )
    from geodesics.generators.reduction import ReducibleGenerator
    from geodesics.graphs.graph_paths import GraphPaths
    from geodesics.land.density import Land
    from geodesics.land.fit import LandFit, LandOptions, fit_land
    from geodesics.metrics.curvature import gaussian_curvature, sectional_curvature
    from geodesics.metrics.doors import (
        christoffel_symbols,
        contracted_hessian,
        directional_second_derivative,
        general_acceleration,
        pullback_acceleration,
        value_and_jacobian,
    )
    from geodesics.metrics.lengths import constant_speed, energy, length
    from geodesics.metrics.metric import FunctionMetric, Metric, PullbackMetric
    from geodesics.metrics.pointwise import inner, log_measure, norm
    from geodesics.ode.exponential import exp_map, geodesic_flow
    from geodesics.ode.flow import Flow
    from geodesics.ode.multiple_shooting import ShootingOptions
    from geodesics.plots.images import plot_decoded, plot_strips
    from geodesics.plots.lines import plot_curves, plot_speeds, straight_lines
    from geodesics.plots.planes import plot_field, plot_latents, plot_measure
    from geodesics.solvers.adam import AdamSolver
    from geodesics.solvers.collocation import CollocationSolver
    from geodesics.solvers.energy import EnergySolver
    from geodesics.solvers.georce import GeorceSolver
    from geodesics.solvers.lbfgs import LBFGSSolver
    from geodesics.solvers.matrix_free import MatrixFreeSolver
    from geodesics.solvers.shooting import ShootingSolver
    from geodesics.solvers.solution import GeodesicResult, Status, describe
    from geodesics.statistics.k_means import KMeans, riemannian_k_means
    from geodesics.statistics.means import FrechetMean, frechet_mean
    from geodesics.statistics.medoids import KMedoids, k_medoids
    from geodesics.statistics.random_walks import brownian_drift, brownian_motion, random_walk

_HOMES = {
    "generators.checks": ("GeneratorReport", "check_generator"),
    "batches.threads": ("forward_mode",),
    "generators.protocols": (
        "DirectionalGenerator",
        "Generator",
        "HessianGenerator",
        "JacobianGenerator",
        "SecondOrderGenerator",
        "Stack",
    ),
    "generators.reduction": ("ReducibleGenerator",),
    "curves.curve": ("Curve",),
    "curves.initial": ("InitialCurves", "Straight"),
    "metrics.doors": (
        "christoffel_symbols",
        "contracted_hessian",
        "directional_second_derivative",
        "general_acceleration",
        "pullback_acceleration",
        "value_and_jacobian",
    ),
    "metrics.curvature": ("gaussian_curvature", "sectional_curvature"),
    "metrics.lengths": ("constant_speed", "energy", "length"),
    "metrics.metric": ("FunctionMetric", "Metric", "PullbackMetric"),
    "metrics.pointwise": ("inner", "log_measure", "norm"),
    "graphs.graph_paths": ("GraphPaths",),
    "ode.exponential": ("exp_map", "geodesic_flow"),
    "ode.flow": ("Flow",),
    "ode.multiple_shooting": ("ShootingOptions",),
    "plots.images": ("plot_decoded", "plot_strips"),
    "plots.lines": ("plot_curves", "plot_speeds", "straight_lines"),
    "plots.planes": ("plot_field", "plot_latents", "plot_measure"),
    "solvers.adam": ("AdamSolver",),
    "solvers.collocation": ("CollocationSolver",),
    "solvers.energy": ("EnergySolver",),
    "solvers.georce": ("GeorceSolver",),
    "solvers.lbfgs": ("LBFGSSolver",),
    "solvers.matrix_free": ("MatrixFreeSolver",),
    "solvers.shooting": ("ShootingSolver",),
    "solvers.solution": ("GeodesicResult", "Status", "describe"),
    "connecting.distances": ("distance", "distance_matrix"),
    "connecting.geodesic": ("Solver", "geodesic"),
    "connecting.logarithm": ("log_map",),
    "statistics.k_means": ("KMeans", "riemannian_k_means"),
    "statistics.means": ("FrechetMean", "frechet_mean"),
    "statistics.medoids": ("KMedoids", "k_medoids"),
    "statistics.random_walks": ("brownian_drift", "brownian_motion", "random_walk"),
    "land.density": ("Land",),
    "land.fit": ("LandFit", "LandOptions", "fit_land"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AdamSolver",
    "CollocationSolver",
    "Curve",
    "DirectionalGenerator",
    "EnergySolver",
    "Flow",
    "FrechetMean",
    "FunctionMetric",
    "Generator",
    "GeneratorReport",
    "GeodesicResult",
    "GeorceSolver",
    "GraphPaths",
    "HessianGenerator",
    "InitialCurves",
    "JacobianGenerator",
    "KMeans",
    "KMedoids",
    "LBFGSSolver",
    "Land",
    "LandFit",
    "LandOptions",
    "MatrixFreeSolver",
    "Metric",
    "PullbackMetric",
    "ReducibleGenerator",
    "SecondOrderGenerator",
    "ShootingOptions",
    "ShootingSolver",
    "Solver",
    "Stack",
    "Status",
    "Straight",
    "brownian_drift",
    "brownian_motion",
    "check_generator",
    "christoffel_symbols",
    "constant_speed",
    "contracted_hessian",
    "describe",
    "directional_second_derivative",
    "distance",
    "distance_matrix",
    "energy",
    "exp_map",
    "fit_land",
    "forward_mode",
    "frechet_mean",
    "gaussian_curvature",
    "general_acceleration",
    "geodesic",
    "geodesic_flow",
    "inner",
    "k_medoids",
    "length",
    "log_map",
    "log_measure",
    "norm",
    "plot_curves",
    "plot_decoded",
    "plot_field",
    "plot_latents",
    "plot_measure",
    "plot_speeds",
    "plot_strips",
    "pullback_acceleration",
    "random_walk",
    "riemannian_k_means",
    "sectional_curvature",
    "straight_lines",
    "value_and_jacobian",
]

try:
    __version__ = version("latent-geodesics")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'geodesics' has no attribute {name!r}")
    value = getattr(import_module(f"geodesics.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
