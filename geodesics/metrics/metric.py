"""Riemannian metrics: the pullback of a generator, and any tensor field."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.batches.arguments import check_callable, check_kept, check_output
from geodesics.batches.memory import check_memory
from geodesics.batches.rows import rows_in_memory
from geodesics.batches.trial import says_something, try_field
from geodesics.curves.elements import Elements
from geodesics.generators.derivatives import directional_derivative, value, value_and_jacobian
from geodesics.generators.known import settled_once, share
from geodesics.generators.protocols import DirectionalGenerator, Generator, JacobianGenerator
from geodesics.generators.reduction import reduced
from geodesics.metrics.connection import (
    MANY_AXES,
    acceleration_by_products,
    general_acceleration,
    pullback_acceleration,
)
from geodesics.metrics.path_energy import PathEnergy
from geodesics.metrics.pullback_energy import PullbackPathEnergy
from geodesics.metrics.tensor_energy import GeneralPathEnergy

# Latent dimension up to which a generator's own Jacobian is faster than one directional derivative by torch.func,
# where it has no directional derivative of its own.
_FEW = 3
# Dimensions that the chunks of a directional derivative are sized for at most.
_NARROW = 8
# Points from which on it pays to factorize the weights of a last affine layer, some milliseconds.
_MANY = 256


@runtime_checkable
class Metric(Protocol):
    """What a solver asks of a metric. All methods are row-wise: row i of the result depends on row i alone."""

    def tensor(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d d"]:
        """The metric tensor M(z), symmetric positive semi-definite."""

    def norm(self, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """``sqrt(v^T M(z) v)``."""

    def acceleration(self, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Right-hand side of the geodesic ODE ``c'' = a(c, c')``."""

    def path_energy(self, elements: Elements) -> PathEnergy:
        """The discrete energy of curves made of such elements, with its derivatives."""


class PullbackMetric:
    """The pullback metric ``M(z) = J(z)^T J(z)`` of a generator, summed over all D outputs.

    For a stochastic generator pass ``Stack(mean, standard_deviation)``: its pullback metric is the expected metric
    ``J_mu^T J_mu + J_sigma^T J_sigma`` (Arvanitidis, Hansen and Hauberg 2018, theorem 1).

    Args:
        generator: row-wise torch callable ``(B, d) -> (B, D)``; `check_generator` tells whether it is one. Images
            ``(B, C, H, W)`` are flattened, and a `torch.distributions.Normal` is taken as the stochastic generator that
            it is, ``Stack(mean, standard_deviation)``.
    """

    def __init__(self, generator: Generator) -> None:
        check_callable("generator", generator, "(B, d) -> (B, D)")
        self.generator, self._tried = generator, False

    def examine(self, z: Float[Tensor, "b d"]) -> None:
        """Raise unless the generator can be evaluated at points z ``(B, d)``, row by row; once per kind of points.

        Outputs that are images or distributions are rows from here on: see `geodesics.batches.outputs`.

        Raises:
            ValueError: when it cannot, its outputs do not fit, or its rows are coupled or random.
            TypeError: when its outputs are not tensors.
        """
        self.generator = settled_once(self.generator, z)
        self._tried = self._tried or says_something(z)

    def tensor(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d d"]:
        """``J^T J`` at the points z ``(B, d)``, as ``(B, d, d)``; one value and Jacobian per point.

        Jacobians are computed on chunks of points that fit the available memory, whatever B.
        """
        self._try_first(z)
        generator = self._economical(z)
        first = value(generator, z[:1])
        check_output("generator", z[:1], first, "(B, d) to (B, D)")
        d, outputs = z.shape[-1], first.shape[-1]
        needed = z.element_size() * (len(z) * d * d + 2 * (1 + d) * outputs)
        what = f"The metric tensor of {len(z)} points, d = {d}, D = {outputs},"
        check_memory(needed, z, what, "Lengths and geodesics do without it: see norm, and MatrixFreeSolver.")
        chunk = rows_in_memory(z, 2 * (1 + z.shape[-1]) * first.shape[-1])
        return torch.cat([_gram(generator, part) for part in z.split(chunk)])

    def norm(self, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """``||J(z) v||``, one directional derivative per point."""
        self._try_first(z)
        generator = self._economical(z)
        own = isinstance(generator, JacobianGenerator) and not isinstance(generator, DirectionalGenerator)
        push = _pushed if own and z.shape[-1] <= _FEW else directional_derivative
        axes = min(z.shape[-1], _NARROW)  # a directional derivative does not grow with d
        chunk = rows_in_memory(z, 2 * (1 + axes) * value(generator, z[:1]).shape[-1])
        parts = zip(z.split(chunk), v.split(chunk), strict=True)
        return torch.cat([push(generator, *part).norm(dim=-1) for part in parts])

    def chord(
        self, z0: Float[Tensor, "b d"], z1: Float[Tensor, "b d"]
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """``||F(z1) - F(z0)||``, which no curve between the points is shorter than, and ``||F(z0)|| + ||F(z1)||``.

        The second is what the first is rounded by. Two values per pair, and no derivative.
        """
        chunk = rows_in_memory(z0, 2 * value(self.generator, z0[:1]).shape[-1])
        chords, sizes = [], []
        for start, end in zip(z0.split(chunk), z1.split(chunk), strict=True):
            F, G = value(self.generator, torch.cat([start, end])).chunk(2)
            chords.append((G - F).norm(dim=-1))
            sizes.append(F.norm(dim=-1) + G.norm(dim=-1))
        return torch.cat(chords), torch.cat(sizes)

    def acceleration(self, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """``-M^{-1} J^T F''[v, v]``; see `geodesics.pullback_acceleration`.

        Above 64 dimensions by conjugate gradients, see `acceleration_by_products` in `geodesics.metrics.connection`.
        """
        self._try_first(z)
        accelerate = pullback_acceleration if z.shape[-1] <= MANY_AXES else acceleration_by_products
        return accelerate(self.generator, z, v)

    def path_energy(self, elements: Elements) -> PathEnergy:
        """Energy of the generator's own polynomial interpolant along the curve."""
        return PullbackPathEnergy(self._economical(), elements)

    def _try_first(self, z: Tensor) -> None:
        """`examine`, where nobody has done it: the public functions do."""
        if not self._tried:
            self.examine(z)

    def _economical(self, z: Tensor | None = None) -> Generator:
        """An isometric generator of fewer outputs, where no gradient may flow to weights and the points are many."""
        few = z is not None and len(z) < _MANY
        return self.generator if few or torch.is_grad_enabled() else share(self.generator, reduced(self.generator))


def _gram(generator: Generator, z: Tensor) -> Tensor:
    F, J = value_and_jacobian(generator, z)
    check_output("generator", z, F, "(B, d) to (B, D)")
    check_kept("generator", z, F)
    rows = J.movedim(0, 1)
    return rows @ rows.mT


def _pushed(generator: Generator, z: Tensor, v: Tensor) -> Tensor:
    _, J = value_and_jacobian(generator, z)
    return torch.einsum("kbo,bk->bo", J, v)


class FunctionMetric:
    """A metric given as a tensor field, with no embedding: the half-plane, Fisher information, one of your own.

    Args:
        function: row-wise torch callable ``(B, d) -> (B, d, d)`` with symmetric positive definite values.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        check_callable("function", function, "(B, d) -> (B, d, d)")
        self.function, self._tried = function, set[tuple[object, ...]]()

    def examine(self, z: Float[Tensor, "b d"]) -> None:
        """Raise unless the function gives symmetric tensors at points z ``(B, d)``, row by row; tried once per kind.

        Raises:
            ValueError: when it cannot be evaluated there, its values do not fit or are not symmetric, or rows are
                coupled or random.
            TypeError: when its values are not tensors.
        """
        kind = (z.dtype, z.device, z.shape[-1])
        if kind not in self._tried:
            try_field("function", self.function, z, check_symmetric)
            if says_something(z):
                self._tried.add(kind)

    def tensor(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d d"]:
        """G(z), ``(B, d, d)``."""
        G = self.function(z)
        check_output("function", z, G, "(B, d) to (B, d, d)", (*z.shape, z.shape[-1]))
        return G

    def norm(self, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """``sqrt(v^T G(z) v)``; NaN where the form is negative."""
        return torch.einsum("bi,bij,bj->b", v, self.function(z), v).sqrt()

    def acceleration(self, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """The paper's general form; see `geodesics.metrics.connection.general_acceleration`."""
        return general_acceleration(self.function, z, v)

    def path_energy(self, elements: Elements) -> PathEnergy:
        """Energy by Gauss quadrature of ``1/2 c'^T G(c) c'`` in every element."""
        return GeneralPathEnergy(self.function, elements)


def check_symmetric(name: str, z: Tensor, G: object) -> None:
    """Raise unless G ``(B, d, d)`` are symmetric tensors, of the dtype and on the device of the points."""
    check_output(name, z, G, "(B, d) to (B, d, d)", (*z.shape, z.shape[-1]))
    assert isinstance(G, Tensor)
    check_kept(name, z, G)
    skew = (G - G.mT).abs().amax((1, 2))
    largest = G.abs().amax((1, 2))
    wrong = skew > torch.finfo(G.dtype).eps ** 0.5 * largest  # False where not finite
    if bool(wrong.any()):
        i = int(wrong.int().argmax())
        raise ValueError(f"{name} must give symmetric tensors; at {z[i]} it gives {G[i]}")
