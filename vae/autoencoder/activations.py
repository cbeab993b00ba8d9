"""Elementwise activations of the networks, with their first two derivatives."""

from enum import Enum
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

# torch's softplus returns x beyond its threshold; at the default of 20 that is wrong by 2e-9 in float64, at
# 40 by nothing.
SOFTPLUS_THRESHOLD = 40.0


class Activation(Enum):
    """Elementwise activation of a network; the value is its name in a saved configuration."""

    IDENTITY = "identity"
    TANH = "tanh"
    RELU = "relu"
    ELU = "elu"
    SILU = "silu"
    SOFTPLUS = "softplus"
    SIGMOID = "sigmoid"

    def module(self) -> nn.Module:
        """The activation as a torch module without parameters."""
        return _MODULES[self]()


class Derivatives(NamedTuple):
    """Value and first two derivatives of an activation, all of its input's shape."""

    value: Tensor
    slope: Tensor
    curvature: Tensor


def differentiate(activation: Activation, x: Float[Tensor, "*shape"]) -> Derivatives:
    r"""Value $\psi(x)$, slope $\psi'(x)$ and curvature $\psi''(x)$ of an activation.

    At a kink (0 for ReLU, and the second derivative of ELU) the value is torch's: that of the left branch.

    Args:
        activation: the activation $\psi$.
        x: pre-activations, any shape.

    Returns:
        Three tensors of x's shape.
    """
    if activation is Activation.TANH:
        y = torch.tanh(x)
        slope = 1 - y * y
        return Derivatives(y, slope, -2 * y * slope)
    if activation is Activation.SIGMOID:
        y = torch.sigmoid(x)
        slope = y - y * y
        return Derivatives(y, slope, slope - 2 * y * slope)
    if activation is Activation.SOFTPLUS:
        slope = torch.sigmoid(x)
        y = nn.functional.softplus(x, threshold=SOFTPLUS_THRESHOLD)
        return Derivatives(y, slope, slope - slope * slope)
    if activation is Activation.SILU:
        s = torch.sigmoid(x)
        ds = s - s * s
        return Derivatives(x * s, s + x * ds, ds * (2 + x - 2 * x * s))
    if activation is Activation.ELU:
        e = torch.exp(torch.clamp(x, max=0))
        zero = torch.zeros_like(x)
        return Derivatives(torch.where(x > 0, x, e - 1), torch.where(x > 0, 1 + zero, e), torch.where(x > 0, zero, e))
    if activation is Activation.RELU:
        return Derivatives(torch.relu(x), (x > 0).to(x.dtype), torch.zeros_like(x))
    return Derivatives(x.clone(), torch.ones_like(x), torch.zeros_like(x))


def _softplus() -> nn.Module:
    return nn.Softplus(threshold=SOFTPLUS_THRESHOLD)


_MODULES = {
    Activation.IDENTITY: nn.Identity,
    Activation.TANH: nn.Tanh,
    Activation.RELU: nn.ReLU,
    Activation.ELU: nn.ELU,
    Activation.SILU: nn.SiLU,
    Activation.SOFTPLUS: _softplus,
    Activation.SIGMOID: nn.Sigmoid,
}
