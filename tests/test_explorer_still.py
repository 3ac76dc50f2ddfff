import numpy as np
import pytest

from vaelib.explorer_state import ExplorerState, Morph
from vaelib.explorer_still import FACE, GAP, NAME, STRIP, morph_still, still


def test_the_face_stands_beside_what_the_axes_do(bundle):
    state = ExplorerState(bundle)
    state.move(0, 1.5)
    page = np.asarray(still(state))
    assert np.array_equal(page[GAP : GAP + FACE, -FACE - GAP : -GAP], np.asarray(state.picture(FACE)))
    strip = np.asarray(state.strips(STRIP)[0])
    assert np.array_equal(page[GAP : GAP + STRIP, NAME + 2 * GAP : NAME + 2 * GAP + strip.shape[1]], strip)
    assert page[GAP : GAP + STRIP, : NAME + GAP].min() < 128, "a name is written beside it"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_morph_stands_beside_its_ends(bundle, share):
    morph = Morph(bundle)
    morph.move(share, spherical=False)
    page = np.asarray(morph_still(morph))
    assert np.array_equal(page[GAP : GAP + FACE, -FACE - GAP : -GAP], np.asarray(morph.picture(FACE)))
