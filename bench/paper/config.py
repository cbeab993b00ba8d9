"""The one configuration of all experiments."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.paper.open_questions.config import OpenQuestionsConfig
from vae import Activation


@dataclass(frozen=True)
class PaperConfig:
    """Everything that decides a number. The defaults are the paper's settings, on Fashion-MNIST.

    Attributes:
        data_root: folder with `FashionMNIST/raw` and `MNIST/raw`; None for the digits embedded in scikit-learn.
        classes: labels of the images that the model learns: T-shirt/top, Trouser, Sneaker; digits without data_root.
        digit_sets: the digits of the clustering experiment, a model for each set, as in the paper.
        digit_set_size: images per digit at most, as in the paper.
        seed: of training, pairs, walks and resamples.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them.
        variance_activation: of both log variances of the main model.
        other_activation: of the second model, trained to compare.
        noise: standard deviation of the noise added to images while a model with another variance activation than
            softplus is trained; without it the likelihood is unbounded at pixels that are always zero.
        epochs: of training.
        batch_size: of training.
        learning_rate: of Adam.
        num_centers: K of the RBF precision.
        bandwidth_factor: a of the RBF precision.
        rbf_iterations: of the fit of its weights at most.
        xi: its precision far from the data.
        sweep_factors: all a that are shown at `num_centers`.
        sweep_centers: all K that are shown at `bandwidth_factor`.
        extreme_factor: a of the extreme settings.
        extreme_centers: K of the extreme settings.
        pairs: random pairs of images of different classes.
        solver_pairs: of these, the pairs on which solvers are compared.
        frames: decoded images along a curve that are compared with one another.
        graph_nodes: nodes of the graph of initial curves.
        resolution: pixels along each side of a field.
        walkers: random walks at once.
        walk_steps: steps of each.
        walk_step: size s of a step.
        cluster_trials: starts of each clustering.
        cluster_images: images clustered at most, drawn at random.
        means_images: images clustered by Riemannian k-means, which solves geodesics in every iteration.
        means_iterations: of it at most.
        land_images: images that the densities are fitted to, and held-out images at most that they are judged on.
        land_nodes: of the normalizing integral of each component of LAND.
        land_iterations: moves of its means that are tried along geodesics, for each drawing of nodes, at most.
        land_rounds: drawings of nodes at most.
        land_tol: the least gain, in nats per image, for which a mean moves.
        land_samples: drawn from each density.
        land_steps: of the Markov chain that each sample of LAND ends.
        adam_epochs: of the fit of the RBF network's weights as others published it.
        open_questions: settings of experiment 8.
        quick: whether this is a try: few of everything.
    """

    data_root: str | None = None
    classes: tuple[int, ...] = (0, 1, 7)
    digit_sets: tuple[tuple[int, ...], ...] = ((0, 1, 2), (3, 4, 7), (5, 6, 9))
    digit_set_size: int = 1000
    seed: int = 0
    hidden: tuple[int, ...] = (64, 32)
    variance_activation: Activation = Activation.SOFTPLUS
    other_activation: Activation = Activation.IDENTITY
    noise: float = 0.1
    epochs: int = 800
    batch_size: int = 128
    learning_rate: float = 8e-5
    num_centers: int = 64
    bandwidth_factor: float = 1.25
    rbf_iterations: int = 200
    xi: float = 1e-6
    sweep_factors: tuple[float, ...] = (0.25, 0.5, 1.0, 1.25, 2.0, 3.0)
    sweep_centers: tuple[int, ...] = (16, 32, 64, 96, 128)
    extreme_factor: float = 3.0
    extreme_centers: int = 128
    pairs: int = 200
    solver_pairs: int = 48
    frames: int = 33
    graph_nodes: int = 40_000
    resolution: int = 300
    walkers: int = 32
    walk_steps: int = 10_000
    walk_step: float = 0.2
    cluster_trials: int = 10
    cluster_images: int = 600
    means_images: int = 200
    means_iterations: int = 10
    land_images: int = 150
    land_nodes: int = 128
    land_iterations: int = 40
    land_rounds: int = 6
    land_tol: float = 1e-3
    land_samples: int = 24
    land_steps: int = 4
    adam_epochs: int = 600
    open_questions: OpenQuestionsConfig = field(default_factory=OpenQuestionsConfig)
    quick: bool = False


def configured(data_root: Path | None, epochs: int | None, quick: bool) -> PaperConfig:
    """The configuration that the command line asks for.

    The embedded digits are a third as many as the paper's images, and have a hundredth of the pixels: there the paper's
    learning rate is too low for 800 epochs, and with softplus the model collapses onto its prior.
    """
    config = PaperConfig(data_root=None if data_root is None else str(data_root))
    if data_root is None:
        config = replace(
            config,
            learning_rate=1e-3,
            variance_activation=Activation.IDENTITY,
            other_activation=Activation.SOFTPLUS,
        )
    if quick:
        config = reduced(config)
    return config if epochs is None else replace(config, epochs=epochs)


def reduced(config: PaperConfig) -> PaperConfig:
    """Few of everything, to see that it runs: the numbers mean little."""
    return replace(
        config,
        quick=True,
        digit_sets=config.digit_sets[:1],
        digit_set_size=60,
        epochs=40,
        learning_rate=3e-3,
        num_centers=16,
        sweep_factors=(1.25, 3.0),
        sweep_centers=(8, 16),
        extreme_centers=32,
        pairs=6,
        solver_pairs=4,
        frames=9,
        graph_nodes=800,
        resolution=24,
        walkers=4,
        walk_steps=50,
        cluster_trials=2,
        cluster_images=40,
        means_images=6,
        means_iterations=1,
        land_images=6,
        land_nodes=24,
        land_iterations=1,
        land_rounds=1,
        land_samples=2,
        land_steps=1,
        adam_epochs=20,
        open_questions=OpenQuestionsConfig.quick(),
    )
