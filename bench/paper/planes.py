"""The latent plane as all figures show it: a field, and small points of the encoded images in their colors."""

from matplotlib.axes import Axes
from torch import Tensor

from bench.paper.figures import class_color
from bench.paper.lab import Lab, Model
from geodesics import Curve, PullbackMetric, log_measure, plot_curves, plot_field, straight_lines

# Share of the data's width and height that is shown beyond them on each side.
NEAR = 0.15
FAR = 0.5


def box(latents: Tensor, beyond: float) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of points, enlarged by a share of their width and height on each side."""
    low, high = latents.amin(0), latents.amax(0)
    (left, bottom), (right, top) = (low - beyond * (high - low)).tolist(), (high + beyond * (high - low)).tolist()
    return left, right, bottom, top


def draw_points(model: Model, ax: Axes, size: float = 3.0) -> None:
    """The encoded training images, a color for each class."""
    for k, label in enumerate(model.split.class_names):
        own = model.latents[model.split.train.labels == label].T.numpy()
        ax.scatter(*own, s=size, color=class_color(k), linewidths=0)


def draw_measure(
    lab: Lab,
    model: Model,
    metric: PullbackMetric,
    ax: Axes,
    curves: Curve | None = None,
    beyond: float = NEAR,
    points: bool = True,
) -> None:
    """Log measure with its colors spent at the data, encoded images, curves and their straight lines."""
    at_data = log_measure(metric, model.latents)
    low, high = at_data.quantile(at_data.new_tensor([0.01, 0.99])).tolist()
    plot_field(
        lambda z: log_measure(metric, z.to(model.latents)),
        extent=box(model.latents, beyond),
        limits=(low, high + 0.5 * (high - low)),
        resolution=lab.config.resolution,
        label="log measure",
        ax=ax,
    )
    if points:
        draw_points(model, ax)
    if curves is not None:
        plot_curves(straight_lines(curves), ax=ax, linestyle="--", linewidth=0.8)
        plot_curves(curves, ax=ax)
    ax.set(xlabel="", ylabel="", aspect="auto")
