"""Colours against published values, curves against their definition, and what a canvas paints."""

import numpy as np
import pytest

from vaelib.drawn_canvas import Canvas, brush, ellipse, mirrored, oklch, rimmed, smooth

SQUARE = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])


def area(points: np.ndarray) -> float:
    """Of a polygon, by the shoelace formula."""
    x, y = points.T
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


@pytest.mark.parametrize(
    "lightness, chroma, degrees, colour",
    [  # CSS Color 4 gives these as the OKLCH of sRGB's own corners
        (1.0, 0.0, 0.0, (255, 255, 255)),
        (0.0, 0.0, 0.0, (0, 0, 0)),
        (0.62796, 0.25768, 29.234, (255, 0, 0)),
        (0.86644, 0.29483, 142.495, (0, 255, 0)),
        (0.45201, 0.31321, 264.052, (0, 0, 255)),
    ],
)
def test_oklch_gives_the_colours_of_the_standard(lightness, chroma, degrees, colour):
    assert np.abs(np.subtract(oklch(lightness, chroma, degrees / 360), colour)).max() <= 1


def test_a_smooth_curve_passes_through_its_points():
    curve = smooth(SQUARE)
    assert all(np.abs(curve - point).sum(1).min() < 1e-9 for point in SQUARE)
    assert area(curve) > area(SQUARE)  # it bulges between them


def test_what_is_mirrored_is_its_own_mirror_image():
    shape = mirrored((0, -0.8), (0.5, -0.2), (0.3, 0.7))
    flipped = shape * (-1, 1)
    assert max(np.abs(shape - point).sum(1).min() for point in flipped) < 0.05


def test_a_rim_lies_outside_by_its_width():
    inner, outer = rimmed(ellipse(0, 0, 0.5, 0.5), 0.1)
    np.testing.assert_allclose(np.hypot(*inner.T), 0.5)
    np.testing.assert_allclose(np.hypot(*outer.T), 0.6, rtol=1e-3)


def test_a_stroke_is_as_wide_as_asked_where_it_is_thickest():
    line = np.stack([np.linspace(-0.5, 0.5, 41), np.zeros(41)], 1)
    stroke = brush(line, 0.2)
    assert np.ptp(stroke[:, 1]) == pytest.approx(0.2, rel=1e-3)
    assert abs(stroke[0, 1]) < 1e-9  # and runs out at its ends


def test_a_shape_covers_its_share_of_the_picture():
    canvas = Canvas(64)
    canvas.fill(SQUARE, (0, 0, 0))
    assert (255 - canvas.finish()[:, :, 0]).mean() / 255 == pytest.approx(area(SQUARE) / 4, rel=0.06)


def test_what_is_painted_inside_a_shape_stays_inside():
    canvas = Canvas(64)
    with canvas.inside(SQUARE, (0, 0, 255)):
        canvas.fill(SQUARE + np.array([0.5, 0]), (255, 0, 0))
    picture = canvas.finish()
    assert picture[32, 40].tolist() == [255, 0, 0] and picture[32, 20].tolist() == [0, 0, 255]
    assert picture[32, 60].tolist() == [255, 255, 255]
