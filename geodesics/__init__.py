"""Geodesics in the latent spaces of generative models, thousands at a time.

Public names live here, one import path each; they are resolved on first use, so that importing the package is cheap.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geodesics.adam_solver import AdamSolver
    from geodesics.calculus import contracted_hessian, directional_second_derivative, value_and_jacobian
    from geodesics.checks import GeneratorReport, check_generator
    from geodesics.collocation_solver import CollocationSolver
    from geodesics.connection import christoffel_symbols, general_acceleration, pullback_acceleration
    from geodesics.curvature import gaussian_curvature, sectional_curvature
    from geodesics.curves import Curve
    from geodesics.distances import distance, distance_matrix
    from geodesics.energy_solver import EnergySolver
    from geodesics.exponential import exp_map, geodesic_flow
    from geodesics.flow import Flow
    from geodesics.forms import inner, log_measure, norm
    from geodesics.generators import (
        DirectionalGenerator,
        Generator,
        HessianGenerator,
        JacobianGenerator,
        SecondOrderGenerator,
        Stack,
    )
    from geodesics.georce_solver import GeorceSolver
    from geodesics.graph_paths import GraphPaths
    from geodesics.initial import InitialCurves, Straight
    from geodesics.k_means import KMeans, riemannian_k_means
    from geodesics.land import Land
    from geodesics.land_fit import LandFit, LandOptions, fit_land
    from geodesics.lbfgs_solver import LBFGSSolver
    from geodesics.logarithm import log_map
    from geodesics.means import FrechetMean, frechet_mean
    from geodesics.medoids import KMedoids, k_medoids
    from geodesics.metrics import FunctionMetric, Metric, PullbackMetric
    from geodesics.plots.images import plot_decoded, plot_strips
    from geodesics.plots.lines import plot_curves, plot_speeds, straight_lines
    from geodesics.plots.planes import plot_field, plot_latents, plot_measure
    from geodesics.quadrature import energy, length
    from geodesics.random_walks import brownian_drift, brownian_motion, random_walk
    from geodesics.reduction import ReducibleGenerator
    from geodesics.resampling import constant_speed
    from geodesics.shooting import ShootingOptions
    from geodesics.shooting_solver import ShootingSolver
    from geodesics.solution import GeodesicResult, Status, describe
    from geodesics.solve import Solver, geodesic

_HOMES = {
    "adam_solver": ("AdamSolver",),
    "calculus": ("contracted_hessian", "directional_second_derivative", "value_and_jacobian"),
    "checks": ("GeneratorReport", "check_generator"),
    "collocation_solver": ("CollocationSolver",),
    "connection": ("christoffel_symbols", "general_acceleration", "pullback_acceleration"),
    "curvature": ("gaussian_curvature", "sectional_curvature"),
    "curves": ("Curve",),
    "distances": ("distance", "distance_matrix"),
    "energy_solver": ("EnergySolver",),
    "exponential": ("exp_map", "geodesic_flow"),
    "flow": ("Flow",),
    "forms": ("inner", "log_measure", "norm"),
    "generators": (
        "DirectionalGenerator",
        "Generator",
        "HessianGenerator",
        "JacobianGenerator",
        "SecondOrderGenerator",
        "Stack",
    ),
    "georce_solver": ("GeorceSolver",),
    "graph_paths": ("GraphPaths",),
    "initial": ("InitialCurves", "Straight"),
    "k_means": ("KMeans", "riemannian_k_means"),
    "medoids": ("KMedoids", "k_medoids"),
    "land": ("Land",),
    "land_fit": ("LandFit", "LandOptions", "fit_land"),
    "lbfgs_solver": ("LBFGSSolver",),
    "logarithm": ("log_map",),
    "means": ("FrechetMean", "frechet_mean"),
    "metrics": ("FunctionMetric", "Metric", "PullbackMetric"),
    "plots.images": ("plot_decoded", "plot_strips"),
    "plots.lines": ("plot_curves", "plot_speeds", "straight_lines"),
    "plots.planes": ("plot_field", "plot_latents", "plot_measure"),
    "quadrature": ("energy", "length"),
    "random_walks": ("brownian_drift", "brownian_motion", "random_walk"),
    "reduction": ("ReducibleGenerator",),
    "resampling": ("constant_speed",),
    "shooting": ("ShootingOptions",),
    "shooting_solver": ("ShootingSolver",),
    "solution": ("GeodesicResult", "Status", "describe"),
    "solve": ("Solver", "geodesic"),
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
