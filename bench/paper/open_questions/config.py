"""Settings of experiment 8, what the report leaves open."""

from dataclasses import dataclass

from vae import Activation


@dataclass(frozen=True)
class OpenQuestionsConfig:
    """A field of `PaperConfig`. All models of this experiment are trained alike, and not as the main model.

    Attributes:
        dimensions: latent dimensions d.
        activations: of the layers; the first is that of all other parts.
        epochs: of training; at this learning rate a quarter of the paper's are enough.
        learning_rate: of Adam.
        noise: added to the images in training. Both log variances are linear here, so that the model can learn how
            sure it is, and need it (see `TrainingConfig`).
        factors: candidates for a.
        centers: candidates for K.
        fit_iterations: of the RBF network's weights at most, for candidates and for the network chosen.
        fit_tol: of these weights; scores do not change in their fourth digit below it.
        components: principal components in which k-means is tried too, where d is larger.
        field_dimensions: latent dimensions in which the neural field is set against the RBF network.
        field_steps: of its fit.
        pairs: of images of different classes, connected in every space.
        graph_nodes: of the graphs of initial curves.
        curvature_points: encoded images at which curvatures are taken.
        curvature_planes: that many times as many where d > 2, each of another plane.
    """

    dimensions: tuple[int, ...] = (2, 3, 8, 16, 32)
    activations: tuple[Activation, ...] = (Activation.TANH, Activation.RELU, Activation.ELU, Activation.SILU)
    epochs: int = 200
    learning_rate: float = 1e-3
    noise: float = 0.1
    factors: tuple[float, ...] = (1.0, 1.25, 1.5, 2.0, 3.0)
    centers: tuple[int, ...] = (32, 64, 128)
    fit_iterations: int = 50
    fit_tol: float = 1e-2
    components: int = 2
    field_dimensions: tuple[int, ...] = (2, 8)
    field_steps: int = 2000
    pairs: int = 16
    graph_nodes: int = 2000
    curvature_points: int = 200
    curvature_planes: int = 4

    @staticmethod
    def quick() -> "OpenQuestionsConfig":
        """Few of everything, to see that it runs."""
        return OpenQuestionsConfig(
            dimensions=(2, 4),
            activations=(Activation.TANH, Activation.RELU),
            epochs=40,
            learning_rate=3e-3,
            factors=(1.5, 3.0),
            centers=(16,),
            fit_iterations=20,
            field_dimensions=(2,),
            field_steps=100,
            pairs=3,
            graph_nodes=200,
            curvature_points=10,
            curvature_planes=1,
        )
