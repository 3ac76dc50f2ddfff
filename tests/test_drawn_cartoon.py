"""What is particular to the drawn cartoon faces."""

import numpy as np
import pytest

from vaelib.drawn import FACTORS, draw_face


def test_skin_darkens_the_cheek_from_end_to_end():
    cheeks = [draw_face("cartoon", skin=skin, cheeks="plain")[46, 20].mean() for skin in np.linspace(0, 1, 5)]
    assert (np.diff(cheeks) < -5).all()


@pytest.mark.parametrize("hair", [hair for hair in FACTORS["cartoon"]["hair"].choices if hair not in ("bald", "buzz")])
def test_every_hair_style_takes_the_colour_asked_for(hair):
    """Blue hair makes the picture bluer than grey hair does, by far and for every style."""
    blue, grey = (draw_face("cartoon", hair=hair, hair_colour=colour).astype(int) for colour in ("blue", "grey"))
    tinted = (blue[:, :, 2] - blue[:, :, 0]) - (grey[:, :, 2] - grey[:, :, 0])
    assert (tinted > 60).mean() > 0.05


def test_a_bald_head_shows_no_hair_colour():
    faces = [draw_face("cartoon", hair="bald", hair_colour=colour) for colour in ("blue", "blond")]
    changed = np.abs(np.subtract(*[face.astype(int) for face in faces])).max(2) > 30
    assert changed.mean() < 0.02  # the brows
