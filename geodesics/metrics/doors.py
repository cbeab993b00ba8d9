"""Derivatives, Christoffel symbols and accelerations for users: those of the lower files, with arguments checked."""

from jaxtyping import Float
from torch import Tensor

from geodesics.batches.arguments import check_alike, check_callable, check_floating, check_points, plain
from geodesics.batches.trial import try_field
from geodesics.generators import derivatives
from geodesics.generators.known import settled_once
from geodesics.generators.protocols import Generator
from geodesics.metrics import connection
from geodesics.metrics.connection import TensorField
from geodesics.metrics.metric import check_symmetric


def value_and_jacobian(
    generator: Generator, z: Float[Tensor, "b d"]
) -> tuple[Float[Tensor, "b D"], Float[Tensor, "d b D"]]:
    """F(z) and its Jacobian, tangent axis first: ``J[k, i] = dF(z_i)/dz_k``.

    d forward-mode passes, vmapped over the basis tangents of the whole batch, so batched modules (convolutions,
    ``view(z.shape[0], ...)``) work as they are; a generator's own ``value_and_jacobian`` is used where it has one.
    Forward mode costs about d + 1 evaluations, reverse mode D.

    Args:
        generator: row-wise callable ``(B, d) -> (B, D)``; images and `torch.distributions.Normal` as in
            `PullbackMetric`.
        z: latent points ``(B, d)``.

    Returns:
        F ``(B, D)`` and J ``(d, B, D)``.

    Raises:
        ValueError: when z is not ``(B, d)``, the generator cannot be evaluated there, its outputs do not fit, or its
            rows are coupled or random.
        TypeError: when z is not a floating-point tensor, the generator cannot be called, or gives no tensor.
    """
    check_points("z", z, "B")
    return derivatives.value_and_jacobian(settled_once(generator, z), z)


def directional_second_derivative(
    generator: Generator, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
) -> tuple[Float[Tensor, "b D"], Float[Tensor, "b D"]]:
    """J(z) v and F''(z)[v, v] for all D outputs at once; no Christoffel tensor is formed.

    Forward mode through reverse mode, at the cost of some six evaluations.

    Args:
        generator: as in `value_and_jacobian`.
        z: latent points ``(B, d)``.
        v: directions ``(B, d)``.

    Returns:
        J v and F''[v, v], both ``(B, D)``.

    Raises:
        ValueError: when shapes, dtypes or devices do not fit, and as `value_and_jacobian`.
        TypeError: as `value_and_jacobian`.
    """
    check_alike({"z": z, "v": v})
    z, v = plain(z, v)
    return derivatives.directional_second_derivative(settled_once(generator, z), z, v)


def contracted_hessian(
    generator: Generator, z: Float[Tensor, "b d"], w: Float[Tensor, "b D"]
) -> Float[Tensor, "b d d"]:
    """The Hessian of ``<w, F(z)>`` in z for constant weights w, row by row.

    d forward-mode passes through one reverse-mode gradient; a generator's own ``contracted_hessian`` is used where
    it has one.

    Args:
        generator: as in `value_and_jacobian`.
        z: latent points ``(B, d)``.
        w: weights ``(B, D)``.

    Returns:
        ``sum_o w_o d^2 F_o / dz dz``, ``(B, d, d)``.

    Raises:
        ValueError: when shapes, dtypes or devices do not fit, and as `value_and_jacobian`.
        TypeError: as `value_and_jacobian`.
    """
    check_points("z", z, "B")
    check_floating("w", w)
    z, w = plain(z, w)
    generator = settled_once(generator, z)
    outputs = generator(z[:1].clone()).shape[-1]
    if w.shape != (len(z), outputs) or w.dtype != z.dtype or w.device != z.device:
        asked = f"(B, D) = {(len(z), outputs)}, {z.dtype} on {z.device}"
        raise ValueError(f"w must be {asked}; got {tuple(w.shape)}, {w.dtype} on {w.device}")
    return derivatives.contracted_hessian(generator, z, w)


def christoffel_symbols(tensor: TensorField, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d d d"]:
    """Christoffel symbols of the second kind.

    ``Gamma[:, k, i, j] = 1/2 sum_l G^{kl} (d_i G_{lj} + d_j G_{li} - d_l G_{ij})``. For study and tests: no solver
    forms them.

    Args:
        tensor: metric tensor field ``(B, d) -> (B, d, d)``, for instance ``metric.tensor``.
        z: points ``(B, d)``.

    Returns:
        ``(B, d, d, d)``, upper index first; NaN in the rows where G is not positive definite.

    Raises:
        ValueError: when z is not ``(B, d)``, or the field cannot be evaluated there or is not symmetric.
        TypeError: when z is not a floating-point tensor, or the field cannot be called or gives no tensor.
    """
    check_points("z", z, "B")
    _check_field(tensor, z)
    return connection.christoffel_symbols(tensor, z)


def general_acceleration(tensor: TensorField, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """Geodesic acceleration of any metric, in the paper's form.

    ``c'' = -1/2 M^{-1} [2 (I kron c'^T) (dvec M / dc) c' - (dvec M / dc)^T (c' kron c')]`` (Arvanitidis, Hansen and
    Hauberg 2018, appendix, equation of the geodesic ODE): the first term is the derivative of M along c', applied to
    c'; the second the gradient of ``c'^T M c'``.

    Args:
        tensor: metric tensor field ``(B, d) -> (B, d, d)``.
        z: points ``(B, d)``.
        v: velocities ``(B, d)``.

    Returns:
        ``(B, d)``; NaN in the rows where M is not positive definite.

    Raises:
        ValueError: when shapes, dtypes or devices do not fit, and as `christoffel_symbols`.
        TypeError: as `christoffel_symbols`.
    """
    check_alike({"z": z, "v": v})
    z, v = plain(z, v)
    _check_field(tensor, z)
    return connection.general_acceleration(tensor, z, v)


def pullback_acceleration(
    generator: Generator, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
) -> Float[Tensor, "b d"]:
    """Geodesic acceleration of a pullback metric, ``c'' = -M^{-1} J^T F''[c', c']``.

    With fewer outputs than latents M is singular everywhere; then the solution of least norm of ``J a = -F''[v, v]``,
    along which outputs move on straight lines. Cost: one value and Jacobian, and one directional second derivative.

    Args:
        generator: as in `value_and_jacobian`.
        z: points ``(B, d)``.
        v: velocities ``(B, d)``.

    Returns:
        ``(B, d)``; NaN in the rows where J has not full rank.

    Raises:
        ValueError: when shapes, dtypes or devices do not fit, and as `value_and_jacobian`.
        TypeError: as `value_and_jacobian`.
    """
    check_alike({"z": z, "v": v})
    z, v = plain(z, v)
    return connection.pullback_acceleration(settled_once(generator, z), z, v)


def _check_field(tensor: TensorField, z: Tensor) -> None:
    check_callable("tensor", tensor, "(B, d) -> (B, d, d)")
    try_field("tensor", tensor, z, check_symmetric)
