"""Fit of a neural field: the given variance at the data, and a floor of uncertainty that rises away from them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from tqdm.auto import tqdm

from vae.arguments import (
    check_counts,
    check_data,
    check_positive,
    check_seed,
    check_type,
    check_variances,
    check_widths,
)
from vae.autoencoder.model import VAE
from vae.deviation.neural_field import NeuralField
from vae.training import check_finite_weights, gradients, take_step


@dataclass(frozen=True)
class NeuralFieldConfig:
    """Options of the fit.

    Attributes:
        hidden: widths of the tanh layers.
        xi: precision far from the data, inverse squared data units; the standard deviation rises to xi^(-1/2).
        quantile: of the distances between a latent and its nearest other latent; it is the length ell within which of a
            latent nothing is demanded.
        reach: how far out uncertainty is demanded, in units of the latents' largest standard deviation.
        penalty: weight of the demand against the fit.
        steps: of Adam.
        batch_size: latents per step, and as many points off the data.
        learning_rate: at the first step; it falls to zero as a cosine.
        seed: of weights, batches and points.
    """

    hidden: tuple[int, ...] = (128, 128)
    xi: float = 1e-6
    quantile: float = 0.95
    reach: float = 4.0
    penalty: float = 1.0
    steps: int = 2000
    batch_size: int = 256
    learning_rate: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive(self, "xi", "reach", "penalty", "learning_rate")
        check_counts(self, "steps", "batch_size")
        check_widths("hidden", self.hidden)
        check_seed("seed", self.seed)
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile must lie between 0 and 1; got {self.quantile}")


def fit_neural_field_to_vae(
    vae: VAE, x: Float[Tensor, "n D"], config: NeuralFieldConfig | None = None, progress: bool = True
) -> NeuralField:
    """Neural field for a trained VAE: `fit_neural_field` at the encoded means, on the decoder's variance there.

    Args:
        vae: the trained model.
        x: data, (N, D), usually its training data.
        config: options; None for the defaults.
        progress: whether to show a progress bar.
    """
    check_type("vae", vae, VAE)
    check_data("x", x, vae.config.data_dim)
    with torch.no_grad():
        z = vae.encode(x).mean
        variances = vae.decode(z).log_variance.exp()
    return fit_neural_field(z, variances, config, progress)


def fit_neural_field(
    latents: Float[Tensor, "n d"],
    variances: Float[Tensor, "n D"],
    config: NeuralFieldConfig | None = None,
    progress: bool = True,
) -> NeuralField:
    r"""Neural field whose variance matches given ones at given latent points and rises away from them.

    .. math:: \min_\theta \; E_n \|w(z_n) - \log s_n\|_2^2 + p \, E_{y} \|(f(y) - w(y))_+\|_1, \quad
        f(y) = \min(\log s_{n(y)} + \tfrac12 ((\delta(y) - \ell)_+ / \ell)^2, \; -\log \xi)

    with w the field's log variance, n(y) the latent nearest to y, delta(y) its distance. The floor f is the
    uncertainty of an RBF network with a kernel of width ell at every latent: a Gaussian's growth, from the distance
    at which the latents leave off. The demand is a hinge: the field may be less sure
    than that, never surer; linear, since squares of its decades would drown the fit. Points y lie on
    lines through two random latents, between and beyond them; around random latents; and in a wide normal
    distribution. All are drawn anew at every step.

    Args:
        latents: N latent points, (N, d), at least two distinct ones.
        variances: the variance of each output there, (N, D), positive, squared data units.
        config: options; None for the defaults.
        progress: whether to show a progress bar.

    Raises:
        ValueError: shapes that do not fit, values not finite or not positive, or all points the same.
        FloatingPointError: the weights are no longer finite.
    """
    config = config or NeuralFieldConfig()
    check_type("config", config, NeuralFieldConfig)
    check_variances(latents, variances, least=2)
    with gradients():
        return _fit(latents.detach().clone(), variances.detach().clone(), config, progress)


def _fit(latents: Tensor, variances: Tensor, config: NeuralFieldConfig, progress: bool) -> NeuralField:
    rng = torch.Generator().manual_seed(config.seed)
    # One scale for all axes: axes that the model does not use would be blown up to their noise otherwise. Half of the
    # largest deviation: steeper first layers resolve gaps between clusters, and fit noise from a quarter on.
    scale = latents.std(0).amax().expand(latents.shape[1]) / 2
    ell = spacing(latents, config.quantile)
    targets = variances.log()
    field = NeuralField(latents.shape[1], variances.shape[1], config.hidden, latents.mean(0), scale, config.xi, rng)
    with torch.no_grad():
        field.head.bias.copy_(-targets.mean(0))
    optimizer = torch.optim.Adam(field.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    bar = tqdm(range(config.steps), unit="step", disable=not progress)
    for step in bar:
        rows = torch.randint(len(latents), (config.batch_size,), generator=rng).to(latents.device)
        away = off_data_points(latents, config.batch_size, config.reach, ell, rng)
        floor = uncertainty_floor(away, latents, targets, ell, -math.log(config.xi))
        fit = (field.log_variance(latents[rows]) - targets[rows]).square().mean()
        demand = (floor - field.log_variance(away)).clamp(min=0).mean()
        optimizer.zero_grad()
        (fit + config.penalty * demand).backward()
        take_step(optimizer)
        schedule.step()
        if step % 100 == 0:
            bar.set_postfix(fit=f"{fit.item():.3g}", floor=f"{demand.item():.3g}")
    check_finite_weights(field, f"after {config.steps} steps")
    return field.eval().requires_grad_(False)


def spacing(latents: Float[Tensor, "n d"], quantile: float) -> float:
    """A quantile of the distances between a latent point and its nearest other one, latent units.

    Raises:
        ValueError: it is zero, as where most points coincide.
    """
    positions = latents.detach().double().cpu().numpy()
    distances, _ = NearestNeighbors(n_neighbors=2).fit(positions).kneighbors(positions)
    ell = float(torch.as_tensor(distances[:, 1]).quantile(quantile))
    if not ell > 0:
        raise ValueError(f"latents must not coincide: the {quantile} quantile of their spacing is 0")
    return ell


def off_data_points(
    latents: Float[Tensor, "n d"], count: int, reach: float, ell: float, rng: torch.Generator
) -> Float[Tensor, "m d"]:
    """Latent points on and around the data and far from them, `count` of them, in three equal shares.

    On lines through two random latents, from half their distance before the first to half of it behind the second;
    beside a random latent, in a random direction, up to 8 ell away; and normal around the mean, with between 1 and
    `reach` times the latents' largest standard deviation along each axis. In high dimensions the last lie all far
    out, and only the first two show where the data end.

    Args:
        latents: N latent points, (N, d).
        count: M.
        reach: see above.
        ell: see above, latent units.
        rng: on the CPU.
    """
    third, d = -(-count // 3), latents.shape[1]

    def draw(maker: Callable[..., Tensor], *shape: int) -> Tensor:
        return maker(*shape, generator=rng, dtype=torch.float64).to(latents)

    first, second, own = torch.randint(len(latents), (3, third), generator=rng).to(latents.device)
    along = latents[first] + (2 * draw(torch.rand, third, 1) - 0.5) * (latents[second] - latents[first])
    direction = torch.nn.functional.normalize(draw(torch.randn, third, d), dim=1)
    beside = latents[own] + 8 * ell * draw(torch.rand, third, 1) * direction
    width = latents.std(0).amax() * (1 + (reach - 1) * draw(torch.rand, third, 1))
    far = latents.mean(0) + width * draw(torch.randn, third, d)
    return torch.cat([along, beside, far])[:count]


def uncertainty_floor(
    z: Float[Tensor, "b d"],
    latents: Float[Tensor, "n d"],
    log_variances: Float[Tensor, "n D"],
    ell: float,
    far: float,
) -> Float[Tensor, "b D"]:
    r"""Log variance f(z) that a field is to have at least.

    .. math:: f(z) = \min(\log s_{n(z)} + \tfrac12 ((\delta(z) - \ell)_+ / \ell)^2, f_\infty)

    Args:
        z: points, (B, d).
        latents: latent points, (N, d); n(z) is the nearest, delta(z) its distance.
        log_variances: log s at the latents, (N, D).
        ell: distance within which of a latent its own variance will do, latent units.
        far: f_infinity, the floor's highest value.
    """
    distance, nearest = torch.cdist(z, latents).min(dim=1)
    excess = (distance / ell - 1).clamp(min=0)
    return (log_variances[nearest] + excess.square()[:, None] / 2).clamp(max=far)
