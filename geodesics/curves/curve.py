"""Curves with fixed ends, as piecewise polynomials on [0, 1]."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodesics.batches.arguments import check_count, check_floating
from geodesics.curves.elements import basis_at, gather, join, lobatto_nodes


class Curve:
    """A batch of continuous piecewise polynomial curves c: [0, 1] -> R^d.

    Element i covers ``knots[:, i] <= t <= knots[:, i + 1]`` and is the polynomial of degree p through its p + 1
    nodes, which lie at the Gauss-Lobatto points of the element (both ends included, ends shared by neighbors).
    Degree 1 is a polyline.

    Args:
        points: nodes ``(B, N p + 1, d)``.
        knots: times of the element ends ``(B, N + 1)``, increasing from 0 to 1; None for equal steps.
        degree: p >= 1.

    Raises:
        ValueError: when the shapes do not fit together.
    """

    def __init__(
        self, points: Float[Tensor, "b n d"], knots: Float[Tensor, "b k"] | None = None, degree: int = 1
    ) -> None:
        check_floating("points", points)
        check_count("degree", degree)
        b, n = points.shape[:2]
        if degree < 1 or n < 2 or (n - 1) % degree:
            raise ValueError(f"points must be (B, N * degree + 1, d); got {tuple(points.shape)}, degree {degree}")
        count = (n - 1) // degree
        if knots is None:
            knots = torch.linspace(0, 1, count + 1, dtype=points.dtype, device=points.device).expand(b, -1)
        if knots.shape != (b, count + 1):
            raise ValueError(f"knots must be (B, N + 1) = {(b, count + 1)}; got {tuple(knots.shape)}")
        self.points, self.knots, self.degree = points, knots, degree

    @property
    def num_segments(self) -> int:
        """N, the number of elements."""
        return self.knots.shape[1] - 1

    def __len__(self) -> int:
        return self.points.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> "Curve":
        """The curves of some rows; rows is a slice, an index tensor or a boolean mask."""
        return Curve(self.points[rows], self.knots[rows], self.degree)

    def evaluate(self, t: Float[Tensor, "b t"] | Float[Tensor, " t"]) -> Float[Tensor, "b t d"]:
        """Points c(t).

        Args:
            t: times in [0, 1], ``(T,)`` for all curves or ``(B, T)``.

        Returns:
            ``(B, T, d)``.
        """
        return self._evaluate(t)[0]

    def derivative(self, t: Float[Tensor, "b t"] | Float[Tensor, " t"]) -> Float[Tensor, "b t d"]:
        """Velocities c'(t), per unit of t; at a knot that of the element to its right. Shapes as in `evaluate`."""
        return self._evaluate(t)[1]

    def _evaluate(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = t.expand(len(self), -1) if t.ndim == 1 else t
        if t.shape[0] != len(self):
            raise ValueError(f"t must be (T,) or (B, T) with B = {len(self)}; got {tuple(t.shape)}")
        index = torch.searchsorted(self.knots.contiguous(), t.contiguous(), right=True) - 1
        index = index.clamp(0, self.num_segments - 1)
        left = self.knots.gather(1, index)
        width = self.knots.gather(1, index + 1) - left
        local = (t - left) / width
        rows = torch.arange(len(self), device=t.device)[:, None, None]
        offsets = torch.arange(self.degree + 1, device=t.device)
        nodes = self.points[rows, index[..., None] * self.degree + offsets]
        values, slopes = basis_at(self.degree, local)
        return (
            torch.einsum("btk,btkd->btd", values, nodes),
            torch.einsum("btk,btkd->btd", slopes, nodes) / width[..., None],
        )

    def subdivide(self, pieces: Int[Tensor, "b s"], count: int) -> "Curve":
        """The same curves with every element cut into equal pieces.

        Args:
            pieces: pieces of every element, at least one.
            count: their number in every row, the new N.
        """
        last = pieces.cumsum(1)
        new = torch.arange(count, device=pieces.device).expand(len(pieces), -1).contiguous()
        old = torch.searchsorted(last, new, right=True)
        width = 1 / pieces.gather(1, old).to(self.points)
        start = 1 + (new - last.gather(1, old)) * width
        inner = torch.as_tensor(lobatto_nodes(self.degree)).to(self.points)
        values, _ = basis_at(self.degree, start[..., None] + width[..., None] * inner)
        rows = torch.arange(len(pieces), device=pieces.device)[:, None]
        points = join(values @ gather(self.points, self.degree)[rows, old])
        points = torch.cat([self.points[:, :1], points[:, 1:-1], self.points[:, -1:]], dim=1)
        knots = self.knots.gather(1, old) + start * self.knots.diff(dim=1).gather(1, old)
        return Curve(points, torch.cat([knots, self.knots[:, -1:]], dim=1), self.degree)

    def with_segments(self, count: int) -> "Curve":
        """The same curves with ``count`` elements, cut as evenly as goes, or more where they have more."""
        count = max(count, self.num_segments)
        ends = torch.arange(self.num_segments + 1, device=self.points.device) * count // self.num_segments
        return self.subdivide(ends.diff().expand(len(self), -1), count)

    def reverse(self) -> "Curve":
        """The curves run backward, t -> 1 - t."""
        return Curve(self.points.flip(1), 1 - self.knots.flip(1), self.degree)
