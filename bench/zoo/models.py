"""A zoo model's file: the decoder, its deviation and the encoded data, self-contained, in float32."""

from pathlib import Path

import torch
from torch import Tensor, nn

from bench.problems.problem_set import Model
from bench.zoo.recipes import Kind
from geodesics import PullbackMetric
from vae import VAE, RBFGenerator, RBFPrecision, VAEConfig, VAEGenerator
from vae.files.checkpoints import read, write

FOLDER = Path(__file__).resolve().parents[1] / "models" / "zoo"
_KIND = "zoo model"


class NormalizedCodes(nn.Module):
    """``F(z) = inner(z / |z|)``, a decoder of codes on the unit sphere, as users write it: a plain torch module.

    Args:
        inner: generator ``(B, d) -> (B, D)``.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z: Tensor) -> Tensor:
        """``(B, d) -> (B, D)``."""
        value: Tensor = self.inner(nn.functional.normalize(z, dim=1))
        return value


def path_of(name: str, folder: Path = FOLDER) -> Path:
    """The model's file."""
    return folder / f"{name}.safetensors"


def save_model(path: Path, vae: VAE, kind: Kind, rbf: RBFPrecision | None, latents: Tensor) -> None:
    """Write what measuring needs; the encoder is left out.

    Args:
        path: the file.
        vae: its decoder is stored.
        kind: of the generator.
        rbf: the precision; None for kinds that have none.
        latents: encoded data ``(n, d)``.
    """
    tensors = {f"decoder.{name}": value for name, value in vae.decoder.state_dict().items()}
    tensors |= {f"rbf.{name}": value for name, value in (rbf.state_dict() if rbf is not None else {}).items()}
    tensors["latents"] = latents
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {"config": vae.config.to_dict(), "generator": kind.value}
    write(path, _KIND, {name: value.float() for name, value in tensors.items()}, values)


def load_model(path: Path) -> Model:
    """The metric, the generator and the latents of a file, in float64."""
    tensors, values = read(path, _KIND)
    vae = VAE(VAEConfig.from_dict(values["config"]), torch.Generator())
    vae.decoder.load_state_dict(_under("decoder.", tensors))
    rbf = _under("rbf.", tensors)
    precision = RBFPrecision(*(rbf[n].double() for n in ("centers", "bandwidths", "weights", "xi"))) if rbf else None
    generator = generator_of(vae.double().eval(), Kind(values["generator"]), precision)
    return Model(PullbackMetric(generator), generator, tensors["latents"].double())


def generator_of(vae: VAE, kind: Kind, rbf: RBFPrecision | None) -> nn.Module:
    """The immersion whose pullback the metric is."""
    inner = VAEGenerator(vae) if rbf is None else RBFGenerator(vae, rbf)
    return NormalizedCodes(inner) if kind is Kind.NORMALIZED else inner


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
