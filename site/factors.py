"""Drawn faces under every setting of a few factors, for the sliders of lesson 01."""

from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from vaelib.drawn import draw_face

SIDE = 96  # pixels of a face
TURNED = {  # the positions of each slider
    "anime": {
        "hair_hue": (0.0, 0.15, 0.35, 0.55, 0.75, 0.95),
        "eyes": ("round", "sharp", "wink"),
        "tilt": (-12, -6, 0, 6, 12),
    },
    "cartoon": {
        "hair": ("swoop", "spiky", "curly", "long", "bald"),
        "skin": (0.0, 0.3, 0.6, 1.0),
        "tilt": (-8, -4, 0, 4, 8),
    },
}


def write_factors(folder: Path) -> dict:
    """Write a sheet of faces for each style into `folder`; the factors that its sliders turn.

    A row for each value of the first factor, and the last one runs fastest.
    """
    for style, factors in TURNED.items():
        faces = [
            draw_face(style, SIDE, **dict(zip(factors, values, strict=True))) for values in product(*factors.values())
        ]
        rows = np.array(faces).reshape(len(next(iter(factors.values()))), -1, SIDE, SIDE, 3)
        sheet = rows.swapaxes(1, 2).reshape(-1, rows.shape[1] * SIDE, 3)
        Image.fromarray(sheet).save(folder / f"factors-{style}.webp", quality=60, method=4)
    return TURNED
