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
        ValueError: when the shapes, dtypes or devices do not fit together, or knots do not increase from 0 to 1.
        TypeError: when points or knots are not floating-point tensors, or degree is not an integer.
    """

    def __init__(
        self, points: Float[Tensor, "b n d"], knots: Float[Tensor, "b k"] | None = None, degree: int = 1
    ) -> None:
        check_floating("points", points)
        check_count("degree", degree)
        shape = tuple(points.shape)
        if points.ndim != 3 or shape[1] < 2 or (shape[1] - 1) % degree or shape[2] < 1:
            raise ValueError(f"points must be (B, N * degree + 1, d); got {shape}, degree {degree}")
        if knots is None:
            count = (shape[1] - 1) // degree
            knots = torch.linspace(0, 1, count + 1, dtype=points.dtype, device=points.device).expand(shape[0], -1)
        else:
            _check_knots(points, knots, (shape[0], (shape[1] - 1) // degree + 1))
        self.points, self.knots, self.degree = points, knots, int(degree)

    @classmethod
    def unchecked(cls, points: Tensor, knots: Tensor, degree: int) -> "Curve":
        """A curve of tensors that are known to fit, as those of other curves; no check waits for a GPU."""
        curve = cls.__new__(cls)
        curve.points, curve.knots, curve.degree = points, knots, degree
        return curve

    @property
    def num_segments(self) -> int:
        """N, the number of elements."""
        return self.knots.shape[1] - 1

    def __len__(self) -> int:
        return self.points.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> "Curve":
        """The curves of some rows; rows is a slice, an index tensor or a boolean mask."""
        if not isinstance(rows, slice | Tensor) or (isinstance(rows, Tensor) and rows.ndim != 1):
            got = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise TypeError(f"rows must be a slice, or a tensor of indices or booleans with one axis; got {got}")
        if isinstance(rows, Tensor) and rows.dtype not in (torch.long, torch.int, torch.bool):
            raise TypeError(f"rows must be indices or booleans; got {rows.dtype}")
        if isinstance(rows, Tensor) and rows.dtype == torch.bool and len(rows) != len(self):
            raise ValueError(f"rows must be one boolean for each of {len(self)} curves; got {len(rows)}")
        return Curve.unchecked(self.points[rows], self.knots[rows], self.degree)

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
        check_floating("t", t)
        if t.ndim not in (1, 2) or (t.ndim == 2 and len(t) != len(self)):
            raise ValueError(f"t must be (T,) or (B, T) with B = {len(self)}; got {tuple(t.shape)}")
        if t.dtype != self.points.dtype or t.device != self.points.device:
            own = f"{self.points.dtype} on {self.points.device}"
            raise ValueError(f"t must be {own} as the points; got {t.dtype} on {t.device}")
        t = t.expand(len(self), -1) if t.ndim == 1 else t
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
        return Curve.unchecked(points, torch.cat([knots, self.knots[:, -1:]], dim=1), self.degree)

    def with_segments(self, count: int) -> "Curve":
        """The same curves with ``count`` elements, cut as evenly as goes, or more where they have more."""
        check_count("count", count)
        count = max(count, self.num_segments)
        ends = torch.arange(self.num_segments + 1, device=self.points.device) * count // self.num_segments
        return self.subdivide(ends.diff().expand(len(self), -1), count)

    def reverse(self) -> "Curve":
        """The curves run backward, t -> 1 - t."""
        return Curve.unchecked(self.points.flip(1), 1 - self.knots.flip(1), self.degree)


def _check_knots(points: Tensor, knots: Tensor, shape: tuple[int, int]) -> None:
    check_floating("knots", knots)
    if knots.shape != shape:
        raise ValueError(f"knots must be (B, N + 1) = {shape}; got {tuple(knots.shape)}")
    if knots.dtype != points.dtype or knots.device != points.device:
        own = f"{points.dtype} on {points.device}"
        raise ValueError(f"knots must be {own} as the points; got {knots.dtype} on {knots.device}")
    rises = (knots.diff(dim=1) > 0).all(1) & (knots[:, 0] == 0) & (knots[:, -1] == 1)
    rises |= knots.isnan().all(1)  # a curve that failed
    if not bool(rises.all()):
        raise ValueError(f"knots must increase from 0 to 1; {int((~rises).sum())} of {len(knots)} rows do not")
