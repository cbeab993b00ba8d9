"""Decoders built as pythae, scvi-tools and diffusers build them. The real ones are on the page of the docs."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from geodesics import (
    FunctionMetric,
    PullbackMetric,
    check_generator,
    contracted_hessian,
    directional_second_derivative,
    geodesic,
    value_and_jacobian,
)


class OutputOfMany(nn.Module):
    """As pythae's decoders: a list of layers, asked for by number, and a dictionary out."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Sequential(nn.Linear(3, 24), nn.Softplus()), nn.Sequential(nn.Linear(24, 32), nn.Sigmoid())]
        )

    def forward(self, z, output_layer_levels=None):
        out, output = z, {}
        for i, layer in enumerate(self.layers):
            out = layer(out)
            if output_layer_levels is not None and i + 1 in output_layer_levels:
                output[f"layer_{i + 1}"] = out
        return output | {"reconstruction": out.reshape(len(z), 1, 4, 8)}


class Counts(nn.Module):
    """As the decoder of scVI: shares of a library size, by way of covariates, in a distribution."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(3 + 2, 16), nn.BatchNorm1d(16, eps=1e-3), nn.Softplus(), nn.Dropout(0.1))
        self.scale, self.dropout = nn.Sequential(nn.Linear(16, 20), nn.Softmax(-1)), nn.Linear(16, 20)
        self.dispersion = nn.Parameter(torch.randn(20))

    def forward(self, z, library, batch):
        h = self.hidden(torch.cat([z, functional.one_hot(batch.squeeze(-1), 2).to(z)], dim=-1))
        rate = library.exp() * self.scale(h)
        r = self.dispersion.exp()
        return torch.distributions.NegativeBinomial(r, logits=(rate + 1e-8).log() - (r + 1e-8).log())


class AttentionBlock(nn.Module):
    """As in the middle of AutoencoderKL: normalized pixels as tokens, fused attention, back to channels first."""

    def __init__(self, channels, heads):
        super().__init__()
        self.norm, self.heads = nn.GroupNorm(4, channels, eps=1e-6), heads
        self.to_q, self.to_k, self.to_v, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x):
        b, c, h, w = x.shape
        tokens = self.norm(x.view(b, c, h * w)).transpose(1, 2)
        q, k, v = (
            layer(tokens).view(b, -1, self.heads, c // self.heads).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, -1, c)
        return self.out(mixed).transpose(-1, -2).reshape(b, c, h, w) + x


class Block(nn.Module):
    """A residual block of two normalized convolutions."""

    def __init__(self, channels):
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(4, channels, eps=1e-6) for _ in range(2))
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x):
        h = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            h = convolution(functional.silu(norm(h)))
        return x + h


class Picture(nn.Module):
    """As AutoencoderKL's decoder, with latents of 4 x 4 x 4."""

    def __init__(self):
        super().__init__()
        self.front = nn.Conv2d(4, 8, 3, padding=1)
        self.middle = nn.Sequential(Block(8), AttentionBlock(8, 2), Block(8))
        self.norm, self.out = nn.GroupNorm(4, 8, eps=1e-6), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, z):
        x = functional.interpolate(self.middle(self.front(z)), scale_factor=2.0, mode="nearest")
        return self.out(functional.silu(self.norm(x)))


def generators():
    torch.manual_seed(0)
    many, counts, picture = (module.double().eval() for module in (OutputOfMany(), Counts(), Picture()))

    def expression(z):
        return counts(z, z.new_full((len(z), 1), 4.0), torch.zeros(len(z), 1, dtype=torch.long)).mean

    return {
        "pythae": (3, lambda z: many(z)["reconstruction"].flatten(1)),
        "scvi": (3, expression),
        "diffusers": (64, lambda z: picture(z.unflatten(1, (4, 4, 4))).flatten(1)),
    }


GENERATORS = generators()


@pytest.mark.parametrize("name", GENERATORS)
def test_derivatives_are_those_of_differences(name, normal):
    d, generator = GENERATORS[name]
    z, v, h = normal(3, d), normal(3, d), 1e-3
    report = check_generator(generator, z)
    assert report.ok, report.messages
    with torch.no_grad():
        values = torch.stack([generator(z + k * h * v) for k in (-2, -1, 0, 1, 2)])
        slope = torch.einsum("k,kbo->bo", z.new_tensor([1, -8, 0, 8, -1]) / (12 * h), values)
        bend = torch.einsum("k,kbo->bo", z.new_tensor([-1, 16, -30, 16, -1]) / (12 * h**2), values)
        _, J = value_and_jacobian(generator, z)
        first, second = directional_second_derivative(generator, z, v)
        w = normal(*first.shape)
        form = torch.einsum("bij,bi,bj->b", contracted_hessian(generator, z, w), v, v)
    size = float(slope.abs().amax() + bend.abs().amax())
    close = {"rtol": 0, "atol": 1e-6 * size}
    torch.testing.assert_close(torch.einsum("kbo,bk->bo", J, v), slope, **close)
    torch.testing.assert_close(first, slope, **close)
    torch.testing.assert_close(second, bend, **close)
    torch.testing.assert_close(form, (w * second).sum(1), rtol=1e-9, atol=1e-9 * size)


@pytest.mark.parametrize("name", ["pythae", "scvi"])
def test_geodesics_converge(name, normal):
    d, generator = GENERATORS[name]
    result = geodesic(PullbackMetric(generator), *normal(2, 2, d))
    assert result.converged.all()


def test_the_metric_of_rhvae_is_one_line_and_right_at_its_centroids(normal):
    """Its distances are norms, as RHVAE writes them; the reference has no kink."""
    centroids, matrices = normal(10, 2), torch.diag_embed(0.2 + normal(10, 2).square())

    def of(squares):
        weights = torch.exp(-squares)[..., None, None]
        return torch.inverse((matrices[None] * weights).sum(1) + 0.01 * torch.eye(2, dtype=matrices.dtype))

    ours = FunctionMetric(lambda z: of(torch.norm(centroids.unsqueeze(0) - z.unsqueeze(1), dim=-1) ** 2))
    plain = FunctionMetric(lambda z: of((z[:, None] - centroids).square().sum(-1)))
    z, v = centroids, normal(10, 2)
    torch.testing.assert_close(ours.acceleration(z, v), plain.acceleration(z, v))
    found, expected = (geodesic(metric, z[:2], z[2:4]) for metric in (ours, plain))
    assert found.converged.all()
    torch.testing.assert_close(found.length, expected.length, rtol=1e-6, atol=0)
