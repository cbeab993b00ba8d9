"""A curve's discrete energy and its gradient, a few elements at a time.

The energy is a sum over elements. So its gradient needs the decoder's intermediate results for some elements only,
which are let go before the next: the memory does not grow with the mesh or the batch. Of the decoder it asks values
and ``J^T w``; nothing of size ``D d`` or ``d d`` is ever formed.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import grad

from geodesics.batches.memory import check_memory
from geodesics.curves.elements import Elements
from geodesics.generators.derivatives import transposed_derivative, value
from geodesics.generators.modes import transposed_by_reverse
from geodesics.generators.routes import name_of, transposed_way
from geodesics.matrix_free.quasi_newton import Preconditioner
from geodesics.metrics.metric import Metric, PullbackMetric
from geodesics.metrics.path_energy import PathEnergy

# Bytes of a decoder's intermediate results that are kept at a time.
_BLOCK = 2**26
# Random directions per node that the metric's diagonal is estimated from.
_PROBES = 4
# Least entry of that diagonal, as a share of the mean one.
_LEAST_AXIS = 1e-6
# Iterations of conjugate gradients: what they have not found by then, the decrement is too small by.
_PRODUCTS = 15
# They end when one adds less than this share of what was found.
_SHARE = 0.02


class Evaluation(NamedTuple):
    """The energy of R curves, their speeds at the quadrature points, and the derivative in the nodes, zero at ends."""

    energy: Float[Tensor, " r"]
    speed: Float[Tensor, "r s g"]
    derivative: Float[Tensor, "r n d"]


class StreamedEnergy:
    """A `PathEnergy` by blocks of elements.

    Args:
        energy: the energy.
        elements: its elements.
        block: elements that are evaluated at a time.
    """

    def __init__(self, energy: PathEnergy, elements: Elements, block: int) -> None:
        self.energy, self.elements, self.block = energy, elements, block

    def samples(self, points: Float[Tensor, "r n d"]) -> int:
        """Points of the generator per curve and evaluation."""
        count = self._count(points)
        return self.energy.samples(count) + -(-count // self.block) - 1

    def speed(self, points: Float[Tensor, "r n d"]) -> Float[Tensor, "r s g"]:
        """Speeds alone, by values."""
        speed = points.new_empty(len(points), self._count(points), len(self.elements.weights))
        for rows, part, nodes in self._blocks(points):
            speed[rows, part] = self.energy.value(points[rows, nodes], None)[1]
        return speed

    def evaluate(self, points: Float[Tensor, "r n d"], profile: Float[Tensor, "r s g"]) -> Evaluation:
        """Energy, speeds and derivative, row by row; row i of each depends on row i alone."""

        def weighted(nodes: Tensor, reference: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            energy, speed = self.energy.value(nodes, reference)
            return energy.sum(), (energy, speed)  # the sum couples nothing

        energy, derivative = torch.zeros_like(points[:, 0, 0]), torch.zeros_like(points)
        speed = torch.empty_like(profile)
        for rows, part, nodes in self._blocks(points):
            slope, (some, speed[rows, part]) = grad(weighted, has_aux=True)(points[rows, nodes], profile[rows, part])
            energy[rows] += some
            derivative[rows, nodes] += slope
        derivative[:, 0], derivative[:, -1] = 0, 0
        return Evaluation(energy, speed, derivative)

    def _count(self, points: Tensor) -> int:
        return (points.shape[1] - 1) // self.elements.degree

    def _blocks(self, points: Tensor) -> list[tuple[slice, slice, slice]]:
        """Rows, elements and nodes of every block."""
        count, p = self._count(points), self.elements.degree
        rows = max(1, self.block // count)
        width = min(count, self.block)
        return [
            (slice(row, row + rows), slice(i, i + width), slice(i * p, min(i + width, count) * p + 1))
            for row in range(0, len(points), rows)
            for i in range(0, count, width)
        ]


def block_in_memory(metric: Metric, z: Float[Tensor, "1 d"], num_samples: int) -> int:
    """How many elements' intermediate results to keep at a time, from those of one point and of two.

    Raises:
        ValueError: when those of one element do not fit into memory, or the generator has no reverse mode.
    """
    if not isinstance(metric, PullbackMetric):
        return max(1, _BLOCK // (num_samples * z.shape[1] ** 2 * z.element_size()))
    if transposed_way(metric.generator, z) is not transposed_by_reverse:
        raise ValueError(
            f"{name_of(metric.generator)} has no derivatives in reverse mode, which MatrixFreeSolver needs; "
            "remove torch.no_grad and detach from it, or pass EnergySolver() where its Jacobians fit into memory"
        )
    kept = []
    for points in (z, z.expand(2, -1)):
        sizes: dict[int, int] = {}

        def note(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            F = value(metric.generator, points.clone().requires_grad_())
        kept.append(sum(sizes.values()) + 4 * F.numel() * F.element_size())
    per_element = num_samples * max(kept[1] - kept[0], 1)
    what = f"A decoder of {z.shape[1]} latents: its intermediate results for one element of {num_samples} samples"
    check_memory(2 * per_element, z, what, "Pass MatrixFreeSolver(degree=1, num_samples=1), or use float32.")
    return max(1, _BLOCK // per_element)


def mean_axes(metric: Metric, points: Float[Tensor, "r n d"], chunk: int) -> Float[Tensor, "r d"]:
    """Diagonal of the metric's mean over the nodes.

    Estimated from ``J^T u`` with random signs u, the same for all rows; so many points at a time.
    """
    if not isinstance(metric, PullbackMetric):
        mean = metric.tensor(points.flatten(0, 1)).diagonal(dim1=1, dim2=2).unflatten(0, points.shape[:2]).mean(1)
    else:
        mean = torch.zeros_like(points[:, 0])
        generator = torch.Generator(points.device).manual_seed(0)
        outputs = value(metric.generator, points[:1, 0]).shape[-1]
        for node in range(points.shape[1]):
            shape = (_PROBES, outputs)
            signs = 2.0 * torch.randint(0, 2, shape, generator=generator, device=points.device).to(points) - 1
            for part, z in zip(mean.split(chunk), points[:, node].split(chunk), strict=True):
                for u in signs:
                    part += transposed_derivative(metric.generator, z, u.expand(len(z), -1)).square()
        mean /= _PROBES * points.shape[1]
    floor = _LEAST_AXIS * mean.mean(1, keepdim=True) + torch.finfo(mean.dtype).tiny
    return mean.maximum(floor)


class Decrement(NamedTuple):
    """What conjugate gradients on the Hessian say of R curves.

    Attributes:
        gradient: scale-free gradient ``sqrt(g^T H^{-1} g / 2E)``, ``(R,)``.
        minimum: whether no direction of negative curvature was met, ``(R,)``.
        products: products with the Hessian, one evaluation each, ``(R,)``.
    """

    gradient: Float[Tensor, " r"]
    minimum: Bool[Tensor, " r"]
    products: Tensor


def decrement_by_products(
    streamed: StreamedEnergy,
    points: Float[Tensor, "r n d"],
    profile: Float[Tensor, "r s g"],
    at: Evaluation,
    precondition: Preconditioner,
) -> Decrement:
    """`newton_decrement` without a Hessian: preconditioned conjugate gradients on differences of the gradient.

    They run twice, from the gradient, and from a fixed random direction: where the gradient vanishes by symmetry, it
    does not know of a direction of negative curvature. Cost: at most 30 evaluations.
    """
    generator = torch.Generator(points.device).manual_seed(0)
    # The same directions for every row, whatever the batch.
    noise = torch.randn(points.shape[1:], generator=generator, dtype=points.dtype, device=points.device)
    noise[0], noise[-1] = 0, 0
    first = _conjugate_gradients(streamed, points, profile, at, precondition, -at.derivative)
    second = _conjugate_gradients(streamed, points, profile, at, precondition, noise.expand_as(points))
    gradient = (first.gradient.clamp(min=0) / (2 * at.energy)).sqrt()
    return Decrement(gradient, first.minimum & second.minimum, first.products + second.products)


def _conjugate_gradients(
    streamed: StreamedEnergy,
    points: Tensor,
    profile: Tensor,
    at: Evaluation,
    precondition: Preconditioner,
    right: Tensor,
) -> Decrement:
    """``b^T H^{-1} b``, from below; the products of a row stop at its first direction of negative curvature."""
    residual = right.clone()
    direction = precondition(residual)
    size = (residual * direction).sum((1, 2))
    found = torch.zeros_like(size)
    minimum = torch.ones_like(size, dtype=torch.bool)
    products = torch.zeros_like(minimum, dtype=torch.long)
    reach = torch.finfo(points.dtype).eps ** 0.5 * points.flatten(1).norm(dim=1)
    active = size > 0
    for _ in range(_PRODUCTS):
        rows = active.nonzero()[:, 0]
        if rows.numel() == 0:
            break
        p = direction[rows]
        h = (reach[rows] / p.flatten(1).norm(dim=1))[:, None, None]
        moved = streamed.evaluate(points[rows] + h * p, profile[rows])
        product = (moved.derivative - at.derivative[rows]) / h
        curvature = (p * product).sum((1, 2))
        products[rows] += 1
        share = size[rows] / curvature
        positive = curvature > 0
        gain = torch.where(positive, share * size[rows], 0.0)
        found[rows] += gain
        residual[rows] -= share[:, None, None] * product
        solved = precondition(residual)[rows]
        after = (residual[rows] * solved).sum((1, 2))
        direction[rows] = solved + (after / size[rows])[:, None, None] * p
        size[rows] = after
        minimum[rows] = positive
        active[rows] = positive & (gain > _SHARE * found[rows]) & (after > 0)
    return Decrement(found, minimum, products)
