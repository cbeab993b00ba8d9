"""The metrics of the benchmarks once more, in JAX and for one point: what `georce_jax` works on.

A test holds each of them to its torch original.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from torch import Tensor

from bench.problems.learned_metrics import DIGITS_RBF, DIGITS_VAE
from vae import VAE, RBFPrecision, load_rbf, load_vae

jax.config.update("jax_enable_x64", True)

Point = jax.Array
Map = Callable[[Point], jax.Array]


class JaxMetric(NamedTuple):
    """A metric at one point.

    Attributes:
        tensor: x ``(d,)`` to G(x) ``(d, d)``.
        form: x and u ``(d,)`` to ``u^T G(x) u``.
    """

    tensor: Map
    form: Callable[[Point, jax.Array], jax.Array]


def jax_metric(name: str) -> JaxMetric:
    """The metric of a set of problems among `PORTED`."""
    if name == "digits":
        return pullback(decoder(load_vae(DIGITS_VAE).double(), load_rbf(DIGITS_RBF).double()))
    if name in _EMBEDDINGS:
        return pullback(_EMBEDDINGS[name])
    return field(_TENSORS[name])


def pullback(embedding: Map) -> JaxMetric:
    """``J^T J`` by forward mode, and ``||J u||^2`` by one tangent."""

    def tensor(x: Point) -> jax.Array:
        J = jax.jacfwd(embedding)(x)
        return J.T @ J

    def form(x: Point, u: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(jax.jvp(embedding, (x,), (u,))[1]))

    return JaxMetric(tensor, form)


def field(tensor: Map) -> JaxMetric:
    """A tensor field."""
    return JaxMetric(tensor, lambda x, u: u @ tensor(x) @ u)


def decoder(vae: VAE, precision: RBFPrecision) -> Map:
    """Mean and standard deviation, ``(sigmoid(A h(z) + b), (W v(z) + xi)^(-1/2))``; h by tanh, v radial."""
    weights = {name: _array(value) for name, value in vae.decoder.state_dict().items()}
    depth = sum(name.startswith("layers.") and name.endswith(".weight") for name in weights)
    layers = [(weights[f"layers.{2 * i}.weight"], weights[f"layers.{2 * i}.bias"]) for i in range(depth)]
    A, b = weights["output_mu.0.weight"], weights["output_mu.0.bias"]
    W, xi = _array(precision.weights), _array(precision.xi)
    centers, bandwidths = _array(precision.centers), _array(precision.bandwidths)

    def embedding(z: Point) -> jax.Array:
        h = z
        for weight, bias in layers:
            h = jnp.tanh(weight @ h + bias)
        v = jnp.exp(-bandwidths * jnp.sum(jnp.square(z - centers), axis=1))
        return jnp.concatenate([jax.nn.sigmoid(A @ h + b), jax.lax.rsqrt(W @ v + xi)])

    return embedding


def _array(x: Tensor) -> jax.Array:
    return jnp.asarray(x.detach().numpy())


def _sphere(z: Point) -> jax.Array:
    theta, phi = z
    return jnp.stack([jnp.sin(theta) * jnp.cos(phi), jnp.sin(theta) * jnp.sin(phi), jnp.cos(theta)])


def _torus(z: Point) -> jax.Array:
    phi, v = z
    rho = 2 + jnp.cos(v)
    return jnp.stack([rho * jnp.cos(phi), rho * jnp.sin(phi), jnp.sin(v)])


def _paraboloid(z: Point) -> jax.Array:
    return jnp.concatenate([z, jnp.sum(jnp.square(z), keepdims=True)])


_EMBEDDINGS: dict[str, Map] = {"sphere": _sphere, "torus": _torus, "paraboloid": _paraboloid}
_TENSORS: dict[str, Map] = {
    "half-plane": lambda z: jnp.eye(2) / z[1] ** 2,
    "fisher": lambda z: jnp.diag(jnp.array([1.0, 2.0])) / z[1] ** 2,
    "poincare-disk": lambda z: 4 * jnp.eye(2) / (1 - jnp.sum(jnp.square(z))) ** 2,
}
# Sets of problems whose metric is here.
PORTED = frozenset({"digits", *_EMBEDDINGS, *_TENSORS})
