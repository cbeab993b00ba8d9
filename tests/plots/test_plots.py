"""The pictures: what they show is where it should be, at the value it should have, and bad input is named."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from geodesics import (
    Curve,
    FunctionMetric,
    PullbackMetric,
    length,
    plot_curves,
    plot_decoded,
    plot_field,
    plot_latents,
    plot_measure,
    plot_speeds,
    plot_strips,
    straight_lines,
)

pytest.importorskip("matplotlib")

import matplotlib
from matplotlib.figure import Figure


@pytest.fixture
def half_plane() -> FunctionMetric:
    """G(z) = I / z_2^2, whose log measure is -2 log z_2."""
    return FunctionMetric(lambda z: torch.diag_embed((1 / z[:, 1:] ** 2).expand(-1, 2)))


@pytest.fixture
def arcs() -> Curve:
    """Two quarter circles about the origin, of radii 1 and 2: geodesics of the half-plane, of one length."""
    angle = torch.linspace(0.25, 0.75, 257, dtype=torch.float64) * torch.pi
    arc = torch.stack([angle.cos(), angle.sin()], dim=1)
    return Curve(torch.stack([arc, 2 * arc]))


def decode(z: torch.Tensor) -> torch.Tensor:
    """Images of 2 x 3 pixels that are constant and equal to z_1, with two more columns behind."""
    return torch.cat([z[:, :1].expand(-1, 6), 100 + z], dim=1)


def test_measure_is_drawn_where_it_is(half_plane):
    ax = plot_measure(half_plane, extent=(-1.0, 1.0, 1.0, 3.0), resolution=11)
    (mesh,) = ax.collections
    drawn = np.asarray(mesh.get_array()).reshape(11, 11)
    # Rows of the picture go up the second axis; the cells' midpoints are the points evaluated.
    expected = -2 * np.log(np.linspace(1, 3, 11))[:, None] * np.ones(11)
    np.testing.assert_allclose(drawn, expected, atol=1e-6)
    middles = mesh.get_coordinates()[0, :, 0]
    np.testing.assert_allclose((middles[1:] + middles[:-1]) / 2, np.linspace(-1, 1, 11), atol=1e-6)
    assert ax.get_xlim() == (-1, 1)
    assert ax.get_ylim() == (1, 3)
    assert "measure" in ax.figure.axes[1].get_ylabel()


def test_data_and_curves_are_drawn_and_framed(half_plane, arcs):
    latents = torch.tensor([[0.0, 1.0], [0.5, 1.5], [-0.5, 3.0]], dtype=torch.float64)
    ax = plot_measure(half_plane, latents, labels=torch.tensor([7, 7, 3]), curves=arcs, resolution=8)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["3", "7"]
    points = np.concatenate([np.asarray(scatter.get_offsets()) for scatter in ax.collections[1:]])
    assert sorted(points.tolist()) == sorted(latents.tolist())
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    solid = [line for line in ax.lines if line.get_linestyle() == "-"]
    assert len(dashed) == len(solid) == len(arcs)
    for row, (straight, curve) in enumerate(zip(dashed, solid, strict=True)):
        radii = np.hypot(*curve.get_data())
        np.testing.assert_allclose(radii, row + 1, rtol=1e-4)
        np.testing.assert_allclose(straight.get_ydata(), straight.get_ydata()[0])
    shown = np.concatenate([points, *(line.get_xydata() for line in ax.lines)])
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert ((shown > (left, bottom)) & (shown < (right, top))).all()


def test_colors_are_spent_where_the_data_are(half_plane):
    """Near z_2 = 0 the measure is 1e6 and more; points at 1 < z_2 < e have log measures from -2 to 0."""
    extent = -1.0, 1.0, 1e-3, 3.0
    height = torch.linspace(0, 1, 1001, dtype=torch.float64).exp()
    latents = torch.stack([torch.zeros_like(height), height], dim=1)
    ax = plot_measure(half_plane, latents, extent=extent, resolution=16)
    assert ax.collections[0].get_clim() == pytest.approx((-2, 1), abs=0.05)
    ax = plot_measure(half_plane, latents, extent=extent, limits=(-5.0, 5.0), resolution=16)
    assert ax.collections[0].get_clim() == (-5, 5)


@pytest.mark.parametrize("value", [1.0, 0.0, torch.nan])
def test_constant_and_degenerate_measures_are_drawn(value):
    metric = FunctionMetric(lambda z: torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2) * value)
    ax = plot_measure(metric, torch.zeros(1, 2), resolution=4)
    low, high = ax.collections[0].get_clim()
    assert low < high
    masked = np.ma.getmaskarray(ax.collections[0].get_array())
    assert masked.all() if value != 1 else not masked.any()
    ax.figure.canvas.draw()


def test_curves_take_one_color_each(arcs):
    ax = plot_curves(arcs, color=["red", "blue"], linestyle=":", linewidth=3.0, num_points=5)
    assert [line.get_color() for line in ax.lines] == ["red", "blue"]
    assert {(line.get_linestyle(), line.get_linewidth(), len(line.get_xdata())) for line in ax.lines} == {(":", 3, 5)}


def test_ends_are_marked_in_the_color_of_their_curve(arcs):
    marked = [line for line in plot_curves(arcs, color=["red", "blue"], ends=True).lines if line.get_marker() == "o"]
    assert [line.get_color() for line in marked] == ["red", "blue"]
    for line, curve in zip(marked, arcs.points, strict=True):
        assert line.get_linestyle() == "None"
        np.testing.assert_allclose(line.get_xydata(), curve[[0, -1]])
    assert not [line for line in plot_curves(arcs).lines if line.get_marker() == "o"]


def test_the_measure_marks_the_ends_of_its_curves(half_plane, arcs):
    """A curve that failed has none."""
    points = arcs.points.clone()
    points[1] = torch.nan
    ax = plot_measure(half_plane, curves=Curve(points), extent=(-2.0, 2.0, 0.1, 3.0), resolution=4)
    (marked,) = (line for line in ax.lines if line.get_marker() == "o")
    np.testing.assert_allclose(marked.get_xydata(), arcs.points[0, [0, -1]])


def test_axes_of_their_own_are_labeled(half_plane, arcs):
    for ax in (plot_curves(arcs), plot_latents(arcs.points[0]), plot_measure(half_plane, curves=arcs, resolution=4)):
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("$z_1$", "$z_2$")


def test_a_failed_curve_leaves_the_others(half_plane, arcs):
    points = arcs.points.clone()
    points[0] = torch.nan
    curves = Curve(points)
    ax = plot_measure(half_plane, curves=curves, resolution=8)
    assert np.isfinite(ax.lines[-1].get_xydata()).all()
    plot_strips(half_plane, decode, curves, (2, 3)).canvas.draw()
    plot_speeds(half_plane, curves).figure.canvas.draw()


def test_strips_step_equally_in_the_metric(half_plane, arcs):
    """On the geodesic circle, angles pi/4 to 3 pi/4, equal lengths are equal steps of log tan(angle / 2)."""
    figure = plot_strips(half_plane, decode, arcs, (2, 3), num_frames=7, titles=["one", "two"])
    images = [ax.images[0].get_array() for ax in figure.axes]
    assert [image.shape for image in images] == [(2, 7 * 4 - 1)] * 4
    ends = np.log(np.tan(np.array([0.125, 0.375]) * np.pi))
    angle = 2 * np.arctan(np.exp(np.linspace(*ends, 7)))
    for radius, geodesic, straight in ((1, *images[:2]), (2, *images[2:])):
        frames = geodesic.reshape(2, -1)[:, : 7 * 4 - 1]
        assert np.ma.getmaskarray(np.ma.masked_invalid(frames))[:, 3::4].all()
        np.testing.assert_allclose(frames[:, ::4], radius * np.cos(angle) * np.ones((2, 1)), atol=1e-3)
        # The straight line is at one height, where equal steps are equal steps.
        np.testing.assert_allclose(straight[0, ::4], radius * np.linspace(0.5, -0.5, 7) * np.sqrt(2), atol=1e-3)
    assert [ax.get_ylabel().partition("\n")[0] for ax in figure.axes] == ["geodesic", "straight"] * 2
    lengths = [float(ax.get_ylabel().partition("\n")[2]) for ax in figure.axes]
    np.testing.assert_allclose(lengths, [2 * np.arcsinh(1), 2] * 2, rtol=1e-3)


@pytest.mark.parametrize(("shape", "drawn"), [((1, 2, 3), (2, 15)), ((3, 1, 2), (1, 11, 3))])
def test_strips_of_channels(half_plane, arcs, shape, drawn):
    figure = plot_strips(half_plane, decode, arcs[:1], shape, num_frames=4)
    assert figure.axes[0].images[0].get_array().shape == drawn
    figure.canvas.draw()


def test_area_under_the_speed_is_the_length(half_plane, arcs):
    ax = plot_speeds(half_plane, arcs, color=["red", "blue"], num_points=2000)
    certified = torch.cat([length(half_plane, lines)[0] for lines in (arcs, straight_lines(arcs))])
    for line, expected in zip(ax.lines, certified.tolist(), strict=True):
        traveled, speed = line.get_data()
        cell = np.median(np.diff(traveled))
        assert (speed * cell).sum() == pytest.approx(expected, rel=1e-3)
    assert [line.get_color() for line in ax.lines] == ["red", "blue"] * 2


def test_straight_lines_keep_the_ends(arcs):
    lines = straight_lines(arcs)
    torch.testing.assert_close(lines.points[:, [0, -1]], arcs.points[:, [0, -1]], rtol=0, atol=1e-15)
    steps = lines.points.diff(dim=1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps))


def test_no_figure_is_left_open(half_plane, arcs):
    """No pyplot: nothing is kept behind the caller's back, and the backend is not chosen for him."""
    import matplotlib.pyplot as plt

    before, backend = plt.get_fignums(), matplotlib.rcParams._get("backend")
    plot_measure(half_plane, curves=arcs, resolution=4)
    plot_strips(half_plane, decode, arcs, (2, 3))
    plot_speeds(half_plane, arcs)
    assert plt.get_fignums() == before
    assert matplotlib.rcParams._get("backend") == backend


def test_given_axes_are_used(half_plane, arcs):
    axes = Figure().subplots(3)
    assert plot_measure(half_plane, curves=arcs, resolution=4, ax=axes[0]) is axes[0]
    assert plot_curves(arcs, ax=axes[1]) is axes[1]
    assert plot_speeds(half_plane, arcs, ax=axes[2]) is axes[2]


def test_a_stochastic_generator_is_shown_by_its_mean(arcs):
    figure = plot_strips(PullbackMetric(decode), decode, arcs, (2, 3))
    assert max(np.nanmax(ax.images[0].get_array()) for ax in figure.axes) < 2


def test_bad_input_is_named(half_plane, arcs, unchecked_shapes):
    plane, space = torch.zeros(4, 2), torch.zeros(4, 3)
    with pytest.raises(ValueError, match=r"latents must lie in a plane.*\(4, 3\)"):
        plot_measure(half_plane, space)
    with pytest.raises(ValueError, match="curves must lie in a plane"):
        plot_curves(Curve(torch.zeros(1, 2, 3)))
    with pytest.raises(ValueError, match=r"labels must be \(4,\).*\(3,\)"):
        plot_measure(half_plane, plane, labels=torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="labels must be"):
        plot_measure(half_plane, labels=torch.zeros(3, dtype=torch.long), extent=(0, 1, 1, 2))
    with pytest.raises(ValueError, match="extent must be given"):
        plot_measure(half_plane)
    with pytest.raises(ValueError, match="extent must be given"):
        plot_measure(half_plane, plane * torch.nan)
    with pytest.raises(ValueError, match="increasing"):
        plot_measure(half_plane, extent=(1, 0, 0, 1))
    with pytest.raises(ValueError, match="resolution"):
        plot_measure(half_plane, plane, resolution=1)
    for draw in (plot_curves, lambda curves, color: plot_speeds(half_plane, curves, color=color)):
        with pytest.raises(ValueError, match="color must be one color or 2; got 3"):
            draw(arcs, color=["red"] * 3)


def test_bad_strips_are_named(half_plane, arcs):
    for shape in ((6,), (2, 2, 3), (1, 1, 2, 3)):
        with pytest.raises(ValueError, match="image_shape must be"):
            plot_strips(half_plane, decode, arcs, shape)
    with pytest.raises(ValueError, match="D >= 9"):
        plot_strips(half_plane, decode, arcs, (3, 3))
    with pytest.raises(ValueError, match="at least one curve"):
        plot_strips(half_plane, decode, arcs[:0], (2, 3))
    with pytest.raises(ValueError, match="titles must be 2"):
        plot_strips(half_plane, decode, arcs, (2, 3), titles=["one"])
    with pytest.raises(ValueError, match="at least 2"):
        plot_strips(half_plane, decode, arcs, (2, 3), num_frames=1)


def test_missing_matplotlib_is_explained(half_plane, arcs, monkeypatch):
    assert find_spec("matplotlib")
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"latent-geodesics\[plots\]"):
        plot_curves(arcs)


def test_a_field_is_drawn_where_it_is():
    ax = plot_field(lambda z: 10 * z[:, 0] + z[:, 1], extent=(0.0, 1.0, 2.0, 4.0), resolution=5, label="height")
    (mesh,) = ax.collections
    drawn = np.asarray(mesh.get_array()).reshape(5, 5)
    np.testing.assert_allclose(drawn, np.linspace(2, 4, 5)[:, None] + 10 * np.linspace(0, 1, 5), atol=1e-6)
    assert ax.figure.axes[1].get_ylabel() == "height"


def test_latents_have_a_color_for_each_class():
    points = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    ax = plot_latents(points, torch.tensor([4, 2, 4]))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["2", "4"]
    drawn = [np.asarray(part.get_offsets()).tolist() for part in ax.collections]
    assert drawn == [[[2, 3]], [[0, 1], [4, 5]]]
    assert plot_latents(points).get_legend() is None


def test_classes_have_their_names_in_the_legend(half_plane):
    points, labels = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]), torch.tensor([4, 2, 4])
    names = {4: "shoe", 7: "bag"}
    for ax in (
        plot_latents(points, labels, names=names),
        plot_measure(half_plane, points, labels=labels, names=names, resolution=4),
        plot_field(lambda z: z[:, 0], points, labels=labels, names=names, resolution=4),
    ):
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["2", "shoe"]


@pytest.mark.parametrize(("shape", "channels"), [((1, 2), 0), ((1, 1, 2), 0), ((3, 1, 2), 3)])
def test_decoded_images_are_where_their_points_are(shape, channels):
    """The first pixel of each image is z_1, the second z_2: cells' midpoints, the second axis upward."""

    def decode_point(z):
        pair = z[:, None, :].expand(-1, max(channels, 1), 2) / 10
        return torch.cat([pair.flatten(1), torch.full_like(z, 9.0)], dim=1)

    latents = torch.tensor([[0.0, 0.0], [4.0, 4.0]], dtype=torch.float64)
    ax = plot_decoded(decode_point, latents, shape, extent=(0.0, 4.0, 0.0, 8.0), num_images=2)
    image = np.ma.getdata(ax.images[0].get_array())
    image = image if channels else image[..., None].repeat(3, axis=2)
    np.testing.assert_allclose(image[0, [0, 1, 3, 4], 0], [0.1, 0.6, 0.3, 0.6])
    np.testing.assert_allclose(image[2, [0, 1, 3, 4], 0], [0.1, 0.2, 0.3, 0.2])
    assert image.shape[:2] == (3, 5)
    assert list(ax.images[0].get_extent()) == [0, 4, 0, 8]
    ax.figure.canvas.draw()


def test_bad_fields_and_grids_are_named(unchecked_shapes):
    plane = torch.rand(4, 2)
    with pytest.raises(ValueError, match=r"field must map \(B, 2\) to \(B,\)"):
        plot_field(lambda z: z, plane, resolution=4)
    with pytest.raises(ValueError, match="latents must lie in a plane"):
        plot_latents(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="latents must lie in a plane"):
        plot_decoded(decode, torch.zeros(4, 3), (2, 3))
    with pytest.raises(ValueError, match="image_shape must be"):
        plot_decoded(decode, plane, (6,))
    with pytest.raises(ValueError, match="increasing"):
        plot_decoded(decode, plane, (2, 3), extent=(0.0, 0.0, 1.0, 2.0))
    with pytest.raises(ValueError, match="num_images must be at least 1"):
        plot_decoded(decode, plane, (2, 3), num_images=0)
