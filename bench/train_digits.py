"""Train the digits model that is shipped in ``bench/models``: ``python -m bench.train_digits``.

The demo's settings and seed, 18 s on one core. Run `bench.digits_reference` after it.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from bench.problems.learned_metrics import DIGITS_RBF, DIGITS_VAE, MODELS
from vae import fit_rbf_to_vae, load_digits, save_rbf, save_vae
from vae.demo import RBF, Options, train


def main() -> None:
    """Train, fit the precision, write both files."""
    parser = argparse.ArgumentParser(prog="python -m bench.train_digits", description="Train the model.")
    parser.add_argument("--epochs", type=int, default=400, help="epochs of training (%(default)s)")
    parser.add_argument("--out", type=Path, default=MODELS, help="output folder (%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train_digits(options.out, options.epochs)


def train_digits(out: Path, epochs: int, seed: int = 0) -> None:
    """Train the VAE and fit its RBF precision; a killed training goes on where it was."""
    out.mkdir(parents=True, exist_ok=True)
    data = load_digits()
    vae = train(data, Options(out, epochs, pairs=1, seed=seed))
    # The weights as they were trained, in float32: the VAE is turned into float64 where it is loaded.
    save_vae(vae, out / DIGITS_VAE.name)
    rbf = fit_rbf_to_vae(vae.double(), data.x.double(), replace(RBF, seed=seed))
    save_rbf(rbf, out / DIGITS_RBF.name)
    for checkpoint in out.glob("training_seed*.safetensors"):
        checkpoint.unlink()


if __name__ == "__main__":
    main()
