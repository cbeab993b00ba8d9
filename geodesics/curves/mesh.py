"""Where the nodes stand: meshes of equal mixed arc length.

At constant Riemannian speed nearly all nodes of a geodesic of a learned metric crowd on the climb over one pass
between classes, and long quiet stretches are cut by a few chords. At constant latent speed the climb is not resolved.
Elements of equal MIXED arc length, half latent and half Riemannian, resolve both; the weighted energy makes any mesh
equally right.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodesics.curves.curve import Curve
from geodesics.curves.elements import Elements, gather, lobatto_nodes

_LATENT_SHARE = 0.5
# Mismatch of an element, relative to the mean length of one, above which it gets more than its share of the cuts.
_RESOLVED = 1e-5
# Pieces into which one element may be cut at a time.
_MOST_PIECES = 4


def interpolate(x: Float[Tensor, "b t"], nodes: Float[Tensor, "b k"], values: Float[Tensor, "b k"]) -> Tensor:
    """Piecewise linear interpolation, row by row; ``nodes`` increasing, ``x`` within them."""
    index = torch.searchsorted(nodes.contiguous(), x.contiguous(), right=True).clamp(1, nodes.shape[1] - 1)
    x0, x1 = nodes.gather(1, index - 1), nodes.gather(1, index)
    y0, y1 = values.gather(1, index - 1), values.gather(1, index)
    width = (x1 - x0).clamp(min=torch.finfo(x.dtype).tiny)
    return y0 + (y1 - y0) * ((x - x0) / width).clamp(0, 1)


def mixed_arc(riemannian: Float[Tensor, "b k"], latent: Float[Tensor, "b k"]) -> Float[Tensor, "b k1"]:
    """Cumulative mixed arc length, from 0 to 1, of consecutive cells with the given two lengths."""
    shares = [
        cells / cells.sum(1, keepdim=True).clamp(min=torch.finfo(cells.dtype).tiny) for cells in (latent, riemannian)
    ]
    mixed = _LATENT_SHARE * shares[0] + (1 - _LATENT_SHARE) * shares[1]
    total = torch.cat([torch.zeros_like(mixed[:, :1]), mixed.cumsum(1)], dim=1)
    return total / total[:, -1:].clamp(min=torch.finfo(total.dtype).tiny)


def equal_mixed_nodes(
    curve: Curve, arc: Float[Tensor, "b k"], times: Float[Tensor, "b k"], degree: int, num_segments: int
) -> Float[Tensor, "b n d"]:
    """Nodes of ``num_segments`` elements of equal mixed arc length on a curve.

    Args:
        curve: B curves.
        arc: cumulative mixed arc length at ``times``.
        times: increasing from 0 to 1.
        degree: degree p of the new elements.
        num_segments: N.

    Returns:
        ``(B, N p + 1, d)``, with the curve's own ends.
    """
    inner = torch.as_tensor(lobatto_nodes(degree)[:-1]).to(arc)
    starts = torch.arange(num_segments, dtype=arc.dtype, device=arc.device)
    wanted = torch.cat([(starts[:, None] + inner).flatten() / num_segments, starts.new_ones(1)])
    points = curve.evaluate(interpolate(wanted.expand(len(curve), -1), arc, times))
    points[:, 0], points[:, -1] = curve.points[:, 0], curve.points[:, -1]
    return points


def cell_arcs(
    points: Float[Tensor, "b n d"], speed: Float[Tensor, "b s g"], elements: Elements
) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"]]:
    """Cumulative mixed arc length of discrete curves and the times it belongs to, one cell per quadrature point."""
    latent = (elements.quadrature_slopes @ gather(points, elements.degree)).norm(dim=-1)
    arc = mixed_arc((speed * elements.weights).flatten(1), (latent * elements.weights).flatten(1))
    count = speed.shape[1]
    ends = torch.cat([elements.weights.new_zeros(1), elements.weights.cumsum(0)[:-1]])
    starts = torch.arange(count, dtype=arc.dtype, device=arc.device)
    times = torch.cat([(starts[:, None] + ends).flatten() / count, starts.new_ones(1)])
    return arc, times.expand(len(points), -1)


def distortion(arc: Float[Tensor, "b k"], num_segments: int) -> Float[Tensor, " b"]:
    """How far elements are from equal mixed arc: the largest share of an element times N; 1 on a perfect mesh."""
    cells = (arc.shape[1] - 1) // num_segments
    return (arc[:, cells::cells] - arc[:, :-1:cells]).amax(1) * num_segments


def allot_pieces(
    share: Float[Tensor, "b s"], length: Float[Tensor, "b s"], mismatch: Float[Tensor, "b s"], count: int
) -> Int[Tensor, "b s"]:
    """Into how many pieces to cut every element, ``count`` pieces in all.

    Elements get pieces by their share of mixed arc length, and those whose length is not what the discrete energy
    takes it for get more: at the sharp turns of a geodesic of a learned metric a few elements hold nearly all of the
    error. The pieces minimize the largest weight per piece.

    Args:
        share: of mixed arc length.
        length: Riemannian, of the elements.
        mismatch: distance of the elements' lengths from those in the discrete energy.
        count: pieces of a curve, N <= count <= 4 N.
    """
    num_segments = share.shape[1]
    excess = mismatch / (_RESOLVED * length.mean(1, keepdim=True))
    # Equal elements are told apart by their order, not by rounding.
    order = 1 + 1e-6 * torch.linspace(1, 0, num_segments, dtype=share.dtype, device=share.device)
    weight = (share * order * (1 + excess).sqrt().sqrt()).nan_to_num(0.0)
    each = weight[:, :, None] / torch.arange(1, _MOST_PIECES, dtype=share.dtype, device=share.device)
    cut = each.flatten(1).topk(count - num_segments, dim=1).indices // (_MOST_PIECES - 1)
    return torch.ones_like(share, dtype=torch.long).scatter_add(1, cut, torch.ones_like(cut))
