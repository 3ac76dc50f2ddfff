"""What is particular to the drawn anime faces."""

import numpy as np
import pytest

from vaelib.drawn import draw_face


@pytest.mark.parametrize("name", ["hair_hue", "eye_hue", "background_hue", "outfit_hue"])
def test_a_hue_goes_round(name):
    assert (draw_face("anime", **{name: 0.0}) == draw_face("anime", **{name: 1.0})).all()


def test_a_night_is_blue_or_violet_at_any_hue():
    skies = [draw_face("anime", background="night", background_hue=hue)[10] for hue in np.linspace(0, 1, 12)]
    corners = np.array(skies)[:, 0].astype(int)
    assert (corners[:, 2] > corners[:, :2].max(1) + 30).all()
    assert np.ptp(corners, axis=0).max() > 12  # and yet the hue shows


def test_long_hair_hangs_down_and_short_hair_does_not():
    """Which pixels of the lower third change with the colour of the hair?"""
    low = {}
    for hair in ("long", "wavy", "bob", "spiky"):
        pink, blue = (draw_face("anime", hair=hair, hair_hue=hue).astype(int) for hue in (0.97, 0.65))
        low[hair] = (np.abs(pink - blue).max(2)[43:] > 30).sum()
    assert min(low["long"], low["wavy"]) > 1.5 * max(low["bob"], low["spiky"])
