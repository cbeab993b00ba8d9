"""Where solvers start: initial curves between end points."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.curves.curve import Curve


@runtime_checkable
class InitialCurves(Protocol):
    """A way to make initial curves; row i of the result depends on row i of the ends alone."""

    def __call__(self, z0: Float[Tensor, "b d"], z1: Float[Tensor, "b d"]) -> list[Curve]:
        """One or several curves per problem: a list of S batches of B curves, the most promising first."""


class Straight:
    """The straight line in the latent space. Right on smooth metrics; on real ones ask `GraphPaths`."""

    def __call__(self, z0: Float[Tensor, "b d"], z1: Float[Tensor, "b d"]) -> list[Curve]:
        """The line from z0 to z1, one curve per problem."""
        return [straight(z0, z1)]


def straight(z0: Float[Tensor, "b d"], z1: Float[Tensor, "b d"]) -> Curve:
    """The curves ``c(t) = (1 - t) z0 + t z1`` as polylines of one element."""
    return Curve(torch.stack([z0, z1], dim=1))
