"""Drawn faces: two styles of labelled, procedurally drawn faces, so that no lesson needs a download.

    from vaelib.drawn import draw_face, draw_faces
    images, labels = draw_faces("anime", 1000)     # uint8 (1000, 64, 64, 3), and the factors behind the faces
    picture = draw_face("cartoon", size=256, glasses="round", smile=1.0)

A face is a list of shapes in unit coordinates: x from -1 (left) to 1 (right), y from -1 (top) to 1 (bottom).
They are painted with Pillow, back to front, on a picture three times too large, which is then averaged down.
"""

from bisect import bisect
from dataclasses import dataclass
from itertools import accumulate
from numbers import Integral, Real

import numpy as np

from vaelib.drawn_anime import draw_anime
from vaelib.drawn_canvas import Canvas
from vaelib.drawn_cartoon import draw_cartoon


@dataclass(frozen=True)
class Factor:
    """One thing that varies from face to face: a name out of `choices`, or a number from `low` to `high`."""

    name: str
    default: str | float
    choices: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()  # how often each choice is sampled; equally often when empty
    low: float = 0.0
    high: float = 1.0

    @property
    def is_hue(self) -> bool:
        """Whether the number goes round: 0 and 1 are the same colour."""
        return not self.choices and self.name.endswith("hue")

    def at(self, fraction):
        """The value at a fraction in [0, 1) of the factor's range or, by weight, of its choices."""
        if not self.choices:  # rounded to float32, so that a stored label redraws exactly the same face
            return float(np.float32(self.low + (self.high - self.low) * fraction))
        shares = list(accumulate(self.weights or [1.0] * len(self.choices)))
        return self.choices[bisect(shares, fraction * shares[-1])]

    def check(self, value):
        if self.choices:
            if value not in self.choices:
                raise ValueError(f"{self.name}={value!r} is not one of {', '.join(self.choices)}")
            return str(value)
        if not isinstance(value, Real) or not self.low - 1e-6 <= value <= self.high + 1e-6:
            raise ValueError(f"{self.name}={value!r} is not a number from {self.low} to {self.high}")
        return float(value)


def _by_name(*factors):
    return {factor.name: factor for factor in factors}


FACTORS = {
    "anime": _by_name(
        Factor("hair", "long", ("long", "bob", "twintails", "ponytail", "spiky", "wavy", "buns")),
        Factor("fringe", "spiky", ("straight", "spiky", "swept", "parted", "curtain", "strand")),
        Factor("hair_hue", 0.97),
        Factor("hair_light", 0.7, low=0.45, high=0.9),
        Factor("eyes", "round", ("round", "sharp", "droopy", "sleepy", "wink")),
        Factor("eye_hue", 0.65),
        Factor("eye_size", 1.0, low=0.8, high=1.2),
        Factor("gaze", 0.0, low=-1.0),
        Factor("brows", 0.2, low=-1.0),
        Factor("mouth", "line", ("line", "open", "cat", "teeth")),
        Factor("smile", 0.7),
        Factor("blush", 0.5),
        Factor("skin", 0.2),
        Factor("face_width", 1.0, low=0.9, high=1.1),
        Factor("tilt", 0.0, low=-12.0, high=12.0),
        Factor("accessory", "none", ("none", "ribbon", "hairpin", "flower", "headband", "cat ears", "glasses")),
        Factor("background", "gradient", ("plain", "gradient", "glow", "dots", "night")),
        Factor("background_hue", 0.6),
        Factor("outfit_hue", 0.7),
    ),
    "cartoon": _by_name(
        Factor("hair", "swoop", ("swoop", "buzz", "spiky", "curly", "bob", "long", "wavy", "bun", "pigtails", "bald")),
        Factor("hair_colour", "brown", ("black", "brown", "auburn", "blond", "grey", "pink", "blue")),
        Factor("skin", 0.3),
        Factor("face_shape", "oval", ("oval", "round", "square", "heart")),
        Factor("face_width", 1.0, low=0.9, high=1.1),
        Factor("eyes", "round", ("round", "almond", "dot", "sleepy", "lashes")),
        Factor("eye_hue", 0.65),
        Factor("eye_spacing", 1.0, low=0.85, high=1.15),
        Factor("brows", 0.0, low=-1.0),
        Factor("brow_width", 0.5),
        Factor("nose", 0.5),
        Factor("mouth", "smile", ("smile", "grin", "open", "smirk")),
        Factor("smile", 0.6, low=-0.4),
        Factor("beard", "none", ("none", "stubble", "moustache", "goatee", "full"), (6, 1, 1, 1, 1)),
        Factor("glasses", "none", ("none", "round", "square", "cat", "shades"), (4, 1, 1, 1, 1)),
        Factor("glasses_hue", 0.05),
        Factor("cheeks", "blush", ("plain", "blush", "freckles")),
        Factor("tilt", 0.0, low=-8.0, high=8.0),
    ),
}


def sample_factors(style: str, seed: int | list[int]) -> dict[str, str | float]:
    """Draw every factor of a style independently.

    `seed`: an integer or a sequence of them, as `np.random.default_rng` takes.
    Returns a dict from factor name to str (a choice) or float (within the factor's range).
    Raises ValueError for an unknown style.
    """
    known = _factors_of(style)
    fractions = np.random.default_rng(seed).random(len(known)).tolist()
    return {name: known[name].at(fraction) for name, fraction in zip(known, fractions, strict=True)}


def draw_face(style: str, size: int = 64, **factors: str | float) -> np.ndarray:
    """Draw one face; factors that are not given take the default that `FACTORS[style]` lists.

    Returns uint8 (size, size, 3). Raises ValueError for an unknown style, size, factor or value.
    """
    known = _factors_of(style)
    if unknown := sorted(factors.keys() - known.keys()):
        raise ValueError(f"{style} faces have no factor {', '.join(unknown)}; they have {', '.join(known)}")
    values = {name: factor.check(factors.get(name, factor.default)) for name, factor in known.items()}
    canvas = Canvas(_checked(size))
    {"anime": draw_anime, "cartoon": draw_cartoon}[style](canvas, **values)
    return canvas.finish()


def draw_faces(style: str, count: int, size: int = 64, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw `count` random faces; face i depends on `(seed, i)` only, so 100 faces begin with the same 10.

    Returns images, uint8 (count, size, size, 3), and labels: a dict from factor name to an array of length
    count, of strings for a discrete factor and float32 for a continuous one.
    Raises ValueError for an unknown style, a bad size or a negative count.
    """
    if not isinstance(count, Integral) or count < 0:
        raise ValueError(f"count={count!r} is not a whole number of faces, 0 or more")
    known = _factors_of(style)
    drawn = [sample_factors(style, [seed, i]) for i in range(count)]
    images = np.zeros((count, _checked(size), size, 3), np.uint8)
    for i, factors in enumerate(drawn):
        images[i] = draw_face(style, size, **factors)
    labels = {name: np.array([factors[name] for factors in drawn], str if factor.choices else np.float32)
              for name, factor in known.items()}
    return images, labels


def _checked(size):
    if not isinstance(size, Integral) or not 8 <= size <= 2048:
        raise ValueError(f"size={size!r} is not a whole number of pixels from 8 to 2048")
    return size


def _factors_of(style):
    if style not in FACTORS:
        raise ValueError(f"style={style!r} is not one of {', '.join(FACTORS)}")
    return FACTORS[style]
