"""Random points, curves and matrices that several files of tests share."""

import torch

from geodesics import Curve


def uneven(count, batch):
    """Knots of widths 1 : 2 : 1 : 2 ..., a little different in each row."""
    widths = 1 + torch.arange(count, dtype=torch.float64) % 2 + 0.1 * torch.arange(batch, dtype=torch.float64)[:, None]
    t = torch.cat([torch.zeros(batch, 1, dtype=torch.float64), widths.cumsum(1)], dim=1)
    return t / t[:, -1:]


def random_curve(normal, degree, batch=3, count=4):
    return Curve(normal(batch, count * degree + 1, 2), uneven(count, batch), degree)


def points_near(problem, normal, count=6):
    z0, z1 = problem.ends()
    t = torch.linspace(0.1, 0.9, count, dtype=z0.dtype)[:, None]
    return z0 + t * (z1 - z0) + 0.02 * normal(count, z0.shape[1])


def scattered(matrices, degree, d):
    """The dense Hessian that element matrices stand for, written down as a loop."""
    batch, count, size, _ = matrices.shape
    total = matrices.new_zeros(batch, (count * degree + 1) * d, (count * degree + 1) * d)
    for i in range(count):
        at = slice(i * degree * d, i * degree * d + size)
        total[:, at, at] += matrices[:, i]
    return total
