"""RBF network for the decoder's precision: beta(z) = W v(z) + xi ."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae.arguments import check_floating, check_rows
from vae.generators.feature_maps import RadialFeatures


class RBFPrecision(nn.Module):
    r"""Precision of the decoder as a positive combination of Gaussian kernels.

    .. math:: \beta(z) = W v(z) + \xi, \quad v_k(z) = \exp(-\lambda_k \|z - c_k\|^2), \quad
        \sigma = \beta^{-1/2}

    Near the data beta is the VAE's precision; far from them v vanishes, beta falls to xi and sigma rises to
    xi^(-1/2): that makes shortest paths stay near the data. Source: Arvanitidis, Hansen and Hauberg, "Latent
    Space Oddity", ICLR 2018, section 4.1, after Que and Belkin, "Back to the Future: Radial Basis Function
    Networks Revisited", AISTATS 2016.

    Args:
        centers: c, (K, d), latent units.
        bandwidths: lambda, (K,), inverse squared latent units, positive.
        weights: W, (D, K), inverse squared data units, non-negative.
        xi: precision far from the data, positive, (D,) one per output.

    Raises:
        ValueError: shapes that do not fit, or a value outside its range.
    """

    centers: Tensor
    bandwidths: Tensor
    weights: Tensor
    xi: Tensor

    def __init__(
        self,
        centers: Float[Tensor, "k d"],
        bandwidths: Float[Tensor, " k"],
        weights: Float[Tensor, "D k"],
        xi: Float[Tensor, " D"],
    ) -> None:
        super().__init__()
        tensors = {"centers": centers, "bandwidths": bandwidths, "weights": weights, "xi": xi}
        for name, tensor in tensors.items():
            check_floating(name, tensor)
        if len({(t.dtype, t.device) for t in tensors.values()}) > 1:
            got = ", ".join(f"{t.dtype} on {t.device}" for t in tensors.values())
            raise ValueError(f"{', '.join(tensors)} must share dtype and device; got {got}")
        num_centers = centers.shape[0] if centers.ndim == 2 else -1
        if bandwidths.shape != (num_centers,) or weights.shape[1:] != (num_centers,) or xi.shape != weights.shape[:1]:
            shapes = [tuple(t.shape) for t in tensors.values()]
            raise ValueError(f"centers (K, d), bandwidths (K,), weights (D, K) and xi (D,) expected; got {shapes}")
        for name, tensor, valid in (
            ("centers", centers, centers.isfinite()),
            ("bandwidths", bandwidths, bandwidths.isfinite() & (bandwidths > 0)),
            ("weights", weights, weights.isfinite() & (weights >= 0)),
            ("xi", xi, xi.isfinite() & (xi > 0)),
        ):
            if not bool(valid.all()):
                raise ValueError(
                    f"{name} has {int((~valid).sum())} of {tensor.numel()} values out of range or not finite"
                )
        self.register_buffer("centers", centers)
        self.register_buffer("bandwidths", bandwidths)
        self.register_buffer("weights", weights)
        self.register_buffer("xi", xi)

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b D"]:
        """Precision beta(z), inverse squared data units.

        Raises:
            ValueError: z is not (B, d).
        """
        check_rows("z", z, self.centers.shape[1])
        return torch.addmm(self.xi, RadialFeatures(self.centers, self.bandwidths)(z), self.weights.T)

    def standard_deviation(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b D"]:
        """sigma(z) = beta(z)^(-1/2), data units."""
        return torch.rsqrt(self(z))
