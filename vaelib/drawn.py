"""Drawn faces: two styles of labelled, procedurally drawn faces, so that no lesson needs a download.

    from vaelib.drawn import draw_face, draw_faces
    images, labels = draw_faces("anime", 1000)     # uint8 (1000, 64, 64, 3), and the factors behind the faces
    picture = draw_face("cartoon", size=256, glasses="round", smile=1.0)

A face is a list of shapes in unit coordinates: x from -1 (left) to 1 (right), y from -1 (top) to 1 (bottom).
They are painted with Pillow, back to front, on a picture three times too large, which is then averaged down.
"""

import math
from bisect import bisect
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from numbers import Integral, Real

import numpy as np
from PIL import Image, ImageDraw

# ---------------------------------------------------------------------------------------------- factors


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
    {"anime": _draw_anime, "cartoon": _draw_cartoon}[style](canvas, **values)
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


# ------------------------------------------------------------------------------- colours, curves, canvas

WHITE, INK = (255, 255, 255), (52, 36, 54)
_T = np.linspace(0, 1, 6, endpoint=False)  # where each piece of a curve is computed
_CATMULL_ROM = np.stack([-(_T**3) + 2 * _T**2 - _T, 3 * _T**3 - 5 * _T**2 + 2,
                         -3 * _T**3 + 4 * _T**2 + _T, _T**3 - _T**2], 1) / 2
_U = np.linspace(0, 1, 5, endpoint=False)  # locks bend less: fewer will do
_QUADRATIC = np.stack([(1 - _U) ** 2, 2 * _U * (1 - _U), _U**2], 1)
_CIRCLE = np.exp(1j * np.linspace(0, 2 * np.pi, 28, endpoint=False)).view(float).reshape(-1, 2)
_FADE = (1 - np.hypot(*np.mgrid[-1:1:64j, -1:1:64j])).clip(0)
_SOFT_DISC = Image.fromarray(np.uint8(255 * _FADE**0.8))


@lru_cache(1024)
def _colour(lightness, chroma, hue):
    """An RGB colour from OKLCH (Ottosson 2020), where equal lightness looks equally light at every hue."""
    a, b = chroma * math.cos(2 * math.pi * hue), chroma * math.sin(2 * math.pi * hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
              -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
              -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short)
    return tuple(round(255 * (12.92 * v if v < 0.0031308 else 1.055 * min(v, 1) ** (1 / 2.4) - 0.055))
                 for v in (max(v, 0) for v in linear))


def _smooth(points, closed=True):
    """A smooth curve through the points (Catmull-Rom), as a dense (N, 2) array."""
    p = np.asarray(points, float)
    p = np.concatenate([p[-1:], p, p[:2]] if closed else [p[:1], p, p[-1:]])
    pieces = np.stack([p[:-3], p[1:-2], p[2:-1], p[3:]], 1)
    curve = (_CATMULL_ROM @ pieces).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def _line(*points):
    return _smooth(points, closed=False)


def _locks(points, *bends):
    """Locks of hair: arcs from point to point, each bulging to its right by its bend / 2 of its length.

    The bends are repeated: one serves all arcs, two serve the two sides of every lock.
    """
    p = np.asarray(points, float)
    step = p[1:] - p[:-1]
    bend = np.resize(bends or .24, (len(step), 1))
    middle = (p[1:] + p[:-1]) / 2 + bend * step[:, ::-1] * (-1, 1)
    pieces = np.stack([p[:-1], middle, p[1:]], 1)
    return np.concatenate([(_QUADRATIC @ pieces).reshape(-1, 2), p[-1:]])


def _ellipse(x, y, rx, ry):
    return _CIRCLE * (rx, ry) + (x, y)


def _flip(points, side):
    return np.asarray(points, float) * (side, 1)


def _both(*half):
    """Points on one side of the head, and then their mirror images in the opposite order."""
    half = np.array(half, float)
    return np.concatenate([half, _flip(half[half[:, 0] != 0][::-1], -1)])


def _arc(*half):
    return _line(*_both(*half))


def _mirrored(*half):
    return _smooth(_both(*half))


def _normals(p, closed):
    """Unit vectors across a curve, (N, 2)."""
    p = np.concatenate([p[-1:], p, p[:1]] if closed else [p[:1], p, p[-1:]])
    along = p[2:] - p[:-2]
    return (along * (1 / np.sqrt((along**2).sum(1, keepdims=True) + 1e-12)))[:, ::-1] * (-1, 1)


@lru_cache(256)
def _pressure(count, heavy, ends):
    t = np.linspace(0, 1, count) ** (math.log(0.5) / math.log(heavy))
    return (ends + (1 - ends) * np.sqrt(np.sin(np.pi * t).clip(0)))[:, None]


def _brush(curve, width, heavy=0.5, ends=0.0):
    """A brush stroke along a curve, thickest at `heavy` of the way and `ends` as thick at both ends."""
    across = _normals(curve, closed=False) * (_pressure(len(curve), heavy, ends) * (width / 2))
    return np.concatenate([curve + across, (curve - across)[::-1]])


def _ring(points, width):
    return _brush(np.concatenate([points, points[:1]]), width, ends=1)


def _rimmed(points, width=0.035):
    """A shape, and the same shape grown by `width`, whose rim is its outline: (2, N, 2)."""
    x, y = points.T
    clockwise = np.sign(x[:-1] @ y[1:] - y[:-1] @ x[1:] + x[-1] * y[0] - y[-1] * x[0])
    return np.stack([points, points - clockwise * width * _normals(points, closed=True)])


class Canvas:
    """A square picture painted in unit coordinates, three times supersampled."""

    supersample = 3

    def __init__(self, size):
        self.side = size * self.supersample
        self._paint_on(Image.new("RGB", (self.side, self.side), WHITE))
        self.pose()

    def _paint_on(self, image):
        self.image, self.draw = image, ImageDraw.Draw(image)

    def pose(self, tilt=0.0, zoom=1.0, pivot=(0.0, 0.8)):
        """Turn what is painted from now on by `tilt` degrees, clockwise, and scale it, about a point."""
        c, s = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
        self.scale = zoom * self.side / 2
        self.turn = np.array([[c, s], [-s, c]]) * self.scale
        self.shift = (np.array(pivot) + 1) * (self.side / 2) - pivot @ self.turn

    def fill(self, points, colour, bottom=None, opacity=1.0):
        """Paint a shape in one colour, or fading into `bottom`, or translucent."""
        if bottom is None and opacity == 1:
            self.draw.polygon((points @ self.turn + self.shift).ravel().tolist(), fill=colour)
        else:
            box, mask = self._mask(points, opacity)
            self.image.paste(colour if bottom is None else _gradient(colour, bottom, *mask.size), box, mask)

    def outlined(self, rimmed, line, colour, bottom=None):
        """Paint a shape with an outline, from `_rimmed`."""
        shape, rim = rimmed
        self.fill(rim, line)
        self.fill(shape, colour, bottom)

    def glow(self, x, y, rx, ry, colour, opacity):
        """Paint a soft spot that fades to nothing at its rim."""
        (x, y), rx, ry = np.array([x, y]) @ self.turn + self.shift, rx * self.scale, ry * self.scale
        box = [round(v) for v in (x - rx, y - ry, x + rx, y + ry)]
        disc = Image.blend(Image.new("L", _SOFT_DISC.size), _SOFT_DISC, opacity)
        disc = disc.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BILINEAR)
        self.image.paste(colour, box, disc)

    def backdrop(self, top, bottom):
        """Paint the whole picture, fading from `top` into `bottom`."""
        self.image.paste(_gradient(top, bottom, self.side, self.side))

    @contextmanager
    def inside(self, points, colour):
        """Paint a shape in one colour; whatever is painted in this context shows only inside it."""
        (box, mask), whole, shift = self._mask(points), self.image, self.shift
        self._paint_on(Image.new("RGB", mask.size, colour))
        self.shift = shift - box[:2]
        yield
        whole.paste(self.image, box, mask)
        self._paint_on(whole)
        self.shift = shift

    def finish(self):
        return np.array(self.image.reduce(self.supersample))

    def _mask(self, points, opacity=1.0):
        """The box of pixels round a shape, and a mask of the shape within it."""
        xy = points @ self.turn + self.shift
        width, height = self.image.size
        (left, top), (right, bottom) = xy.min(0).tolist(), xy.max(0).tolist()
        left, top = min(max(int(left), 0), width - 1), min(max(int(top), 0), height - 1)
        right, bottom = min(max(int(right), 0) + 2, width), min(max(int(bottom), 0) + 2, height)
        mask = Image.new("1" if opacity == 1 else "L", (right - left, bottom - top))
        ImageDraw.Draw(mask).polygon((xy - (left, top)).ravel().tolist(), fill=round(255 * opacity))
        return (left, top, right, bottom), mask


def _gradient(top, bottom, width, height):
    ends = Image.frombytes("RGB", (1, 2), bytes(top + bottom))
    column = ends.resize((1, height), Image.Resampling.BILINEAR, box=(0, .5, 1, 1.5))  # between two centres
    return column.resize((width, height), Image.Resampling.NEAREST)


# ------------------------------------------------------------------------------------------ anime faces

ANIME_FACE = _rimmed(_mirrored((0, -.8), (.45, -.65), (.66, -.2), (.66, .2), (.58, .49), (.35, .71), (.11, .825)), .018)


def _crown(right, tuft, left):
    """The top of the hair: a smooth curve from the right temple, a tuft (tip, notch, tip, ...), a curve."""
    return np.concatenate([_line(*right), _locks([right[-1], *tuft, left[0]], .2, -.1), _line(*left)])


CROWNS = {
    "long": _crown([(.76, -.02), (.80, -.42), (.60, -.80), (.24, -1.0), (.06, -.99)], [(-.02, -1.08)],
                   [(-.12, -1.0), (-.34, -.97), (-.62, -.77), (-.80, -.40), (-.76, -.02)]),
    "bob": _arc((.76, -.02), (.84, -.40), (.64, -.83), (.24, -1.01), (0, -.99)),
    "twintails": _arc((.76, -.02), (.80, -.44), (.58, -.85), (.26, -1.01), (0, -.94)),
    "ponytail": _crown([(.76, -.02), (.80, -.40), (.62, -.85), (.30, -1.05)], [(.16, -1.0), (-.02, -1.09)],
                       [(-.10, -.98), (-.34, -.92), (-.60, -.74), (-.79, -.40), (-.76, -.02)]),
    "wavy": _arc((.76, -.02), (.86, -.28), (.79, -.46), (.76, -.66), (.58, -.76), (.48, -.94), (.24, -.96), (0, -1.05)),
    "buns": _crown([(.76, -.02), (.78, -.42), (.55, -.82), (.20, -.99)], [(.04, -1.09), (-.04, -1.0), (-.13, -1.06)],
                   [(-.20, -.99), (-.55, -.82), (-.78, -.42), (-.76, -.02)]),
    "spiky": np.concatenate([  # tufts that sweep up to both sides from where the hair grows
        _locks([(.76, -.02), (1.0, -.28), (.80, -.44), (1.04, -.84), (.60, -.82), (.66, -1.13), (.10, -.97)],
               .24, -.16),
        _locks([(.10, -.97), (-.12, -1.14), (-.34, -.92), (-.86, -1.06), (-.70, -.62), (-1.02, -.52), (-.78, -.26),
                (-.76, -.02)], -.16, .24)]),
}
# The lower edge of the front hair, from the left temple to the right one: tip, notch, tip, ...
FRINGES = {
    "straight": _both((-.70, .72), (-.55, -.02), (-.41, .03), (-.29, -.06), (-.17, .02), (-.06, -.07), (0, .02)),
    "spiky": ((-.72, .50), (-.57, .02), (-.47, .16), (-.33, -.26), (-.17, .09), (-.03, -.28), (.10, .04),
              (.26, -.28), (.45, .15), (.56, .02), (.72, .50)),
    "swept": ((-.72, .58), (-.58, .10), (-.52, .20), (-.40, -.06), (-.28, .07), (-.12, -.16), (.02, -.05),
              (.34, -.60), (.53, -.02), (.58, -.06), (.72, .55)),
    "parted": _both((-.72, .60), (-.56, .00), (-.50, .12), (-.38, -.26), (-.30, -.14), (0, -.68)),
    "curtain": ((-.66, .84), (-.55, .24), (-.50, .30), (.16, -.66), (.54, .20), (.57, .18), (.70, .74)),
    "strand": _both((-.72, .55), (-.57, -.02), (-.48, .06), (-.22, -.42), (0, .28)),
}
BACK_HAIR = {name: _rimmed(shape, .02) for name, shape in {
    "long": _mirrored((0, -.9), (.6, -.78), (.82, -.2), (.84, .4), (.96, 1.2), (.3, 1.3)),
    "bob": _mirrored((0, -.95), (.6, -.8), (.86, -.1), (.93, .45), (.74, .72), (.3, .6)),
    "wavy": _mirrored((0, -.9), (.5, -.7), (.72, -.40), (.78, -.12), (1.0, .12), (.86, .38), (1.06, .66), (.9, .95),
                      (1.05, 1.25), (.3, 1.3)),
    "spiky": _locks([(.5, -.6), (.78, .1), (.96, .44), (.70, .38), (.70, .74), (0, .6), (-.74, .78), (-.70, .38),
                     (-.94, .34), (-.78, .1), (-.5, -.6)], .12),
    "twintails": _smooth([(.62, -.56), (.86, -.68), (1.04, -.35), (.98, .3), (1.08, .7), (.98, 1.2), (.84, .8),
                          (.76, .3), (.70, -.2)]),
    "ponytail": _smooth([(.2, -.84), (.5, -1.12), (.92, -.98), (1.06, -.35), (.90, .35), (1.04, .92), (.78, .72),
                         (.70, .1), (.68, -.5)]),
    "buns": _ellipse(.60, -.86, .29, .27),
}.items()}
NAPE = _mirrored((0, -.95), (.5, -.84), (.78, -.4), (.76, .1), (.66, .50), (.2, .65))
SHINE = np.concatenate([
    _arc((-.66, -.44), (-.42, -.69), (0, -.79)),
    _locks(_both((.66, -.40), (.50, -.54), (.45, -.49), (.30, -.65), (.22, -.60), (0, -.71)), .1)])
SHOULDERS = _mirrored((0, .84), (.3, .88), (.75, .98), (.95, 1.4))
NECK = _mirrored((0, .55), (.2, .56), (.21, .86), (.1, 1.02), (0, 1.06))
COLLAR = np.array([(.2, .80), (.34, .88), (.2, 1.08), (.03, 1.06)])
NOSE = _brush(_line((.02, .41), (-.02, .465), (.025, .475)), .03)
AHOGE = _brush(_line((.0, -.95), (-.03, -1.07), (.08, -1.13), (.20, -1.08)), .07, .35)  # sticks up
GLASSES_BRIDGE = _brush(_line((-.07, .2), (0, .17), (.07, .2)), .035, ends=1)
RIBBON_WING = _smooth([(.02, 0), (.16, -.17), (.34, -.2), (.36, .1), (.18, .13)])
HAIRPINS = [_brush(_line((.36, y + .04), (.64, y - .04)), .06, ends=1) for y in (-.28, -.16)]
PETALS = [_rimmed(_ellipse(-.52 + .12 * math.cos(turn), -.5 + .12 * math.sin(turn), .1, .1), .02)
          for turn in np.arange(5) * 2 * np.pi / 5]
HEADBAND = _brush(_arc((-.75, -.34), (-.56, -.68), (0, -.86)), .14, ends=.6)
CAT_EAR = _rimmed(_locks([(.16, -.93), (.66, -1.22), (.76, -.55), (.16, -.93)], .08), .02)
INNER_EAR = _locks([(.36, -.92), (.63, -1.09), (.68, -.70)], .08)


@lru_cache
def _anime_front_shapes(hair, fringe):
    """The front hair, and the lines that run up into it from the notches of the fringe but the outermost."""
    crown, edge = CROWNS[hair], FRINGES[fringe]
    front = np.concatenate([crown, _locks([crown[-1], *edge, crown[0]], .14)])
    strands = [_line((x, y + .25 * (min(left[1], right[1]) - y)), (x * .98, y - .08), (x * .90, y - .24),
                     (x * .74, max(y - .46, -.88)))
               for left, (x, y), right in zip(edge[2:-3:2], edge[3:-2:2], edge[4:-1:2], strict=True)]
    return _rimmed(front, .02), [_brush(strand, .035, .2) for strand in strands]


def _anime_eye_shapes(lift, height):
    """Parts of an eye about its centre; the outer corner, at the right, is raised by `lift`."""
    upper = _line((-1, .3), (-.7, -.5 * height), (0, -height), (.72, -.7 * height - .3 * lift), (1.05, .1 - lift))
    lower = _line((1.05, .1 - lift), (.75, .7 - .2 * lift), (0, 1), (-.65, .8), (-1, .3))
    upper, lower, tail = upper * (.21, .255), lower * (.21, .255), [(.275, -.03 - .25 * lift)]
    return {"white": np.concatenate([upper, lower]), "lash": _brush(np.concatenate([upper, tail]), .09, .6, .1),
            "lower": _brush(lower[4:20], .024), "crease": _brush(upper[6:21] - (0, .065), .018)}


ANIME_EYES = {"round": _anime_eye_shapes(.05, 1.0), "sharp": _anime_eye_shapes(.35, .85),
              "droopy": _anime_eye_shapes(-.3, .9), "sleepy": _anime_eye_shapes(-.05, .5)}
ANIME_EYES["wink"] = ANIME_EYES["round"]  # the eye that stays open
WINK = _brush(_line((-.28, -.03), (-.22, -.01), (-.15, .09), (-.01, .14), (.13, .11), (.21, .01)), .08, .45, .1)


def _draw_anime(canvas, hair, fringe, hair_hue, hair_light, eyes, eye_hue, eye_size, gaze, brows, mouth,
                smile, blush, skin, face_width, tilt, accessory, background, background_hue, outfit_hue):
    wide = (face_width, 1)
    hairs, skins = _anime_hair_tones(_hue(hair_hue), hair_light), _anime_skin_tones(skin)
    front, strands = _anime_front_shapes(hair, fringe)
    _anime_background(canvas, background, background_hue)
    canvas.pose(tilt, .92)
    _anime_back_hair(canvas, hair, hairs, wide)
    canvas.pose(tilt / 3, .95)
    _anime_body(canvas, skins, _hue(outfit_hue))
    canvas.pose(tilt, .92)
    _anime_head(canvas, skins, front[0] * wide, blush, wide)
    for side in (-1, 1):
        centre = (side * .335 * face_width, .20)
        if side == -1 and eyes == "wink":  # the eye that locks of hair may hide
            canvas.fill(WINK * eye_size + centre, INK)
        else:
            _anime_eye(canvas, side, centre, eyes, eye_hue, eye_size, gaze, skins)
    _anime_mouth(canvas, mouth, smile, skins)
    if accessory == "glasses":
        _anime_glasses(canvas, face_width)
    _anime_front_hair(canvas, front * wide, strands, hair, hairs, wide)
    brow = _brush(_line((.19, -.14 + .06 * brows), (.35, -.20), (.51, -.14 - .05 * brows)), .032)
    for side in (-1, 1):
        canvas.fill(_flip(brow, side * face_width), hairs["deep"])
    _anime_accessory(canvas, accessory, _hue(outfit_hue), hairs, wide)


def _hue(fraction):
    """An OKLCH hue: round the circle, but fast through olive and grass green, which make muddy faces."""
    return float(np.interp(fraction % 1, (0, .33, .38, .47, .80, 1), (0, .23, .41, .54, .81, 1)))


def _unmuddied(lightness, hue):
    """A lightness, raised where the hue is yellow: dark yellow is olive."""
    return lightness + .6 * max(math.cos(2 * math.pi * (hue - .3)), 0) ** 4 * max(.86 - lightness, 0)


def _anime_hair_tones(hue, light):
    chroma = float(np.interp(light, (.45, .53, .62, .8, .86, .9), (.03, .12, .17, .15, .09, .03)))
    light = float(np.interp(light, (.45, .53, .84, .9), (.30, .50, .84, .93)))  # nearly black ... nearly white
    light += (_unmuddied(light, hue) - light) * chroma / .17
    cool = .04 * math.sin(2 * math.pi * (.8 - hue))  # shadows lean towards violet, lights away from it
    return {"base": _colour(light, chroma, hue), "tip": _colour(light + .05, chroma, hue - cool),
            "light": _colour(min(light + .12, .98), chroma * .8, hue - cool),
            "shade": _colour(light * .83, chroma, hue + cool), "deep": _colour(light * .67, chroma * .9, hue + cool),
            "line": _colour(light * .48, chroma * .7, hue + cool)}


def _anime_skin_tones(skin):
    light = .95 - .27 * skin
    return {"base": _colour(light, .03 + .05 * skin, .16), "shade": _colour(light - .09, .065 + .03 * skin, .11),
            "line": _colour(light - .42, .09, .08), "blush": _colour(light - .15 + .08 * skin, .15, .05)}


def _anime_background(canvas, background, fraction):
    hue, next_hue = _hue(fraction), _hue(fraction + .06)
    pale, middle = _colour(.94, .05, hue), _colour(.84, .08, hue)
    deep = _colour(_unmuddied(.75, next_hue), .11, next_hue)
    if background == "night":
        x, y = math.cos(2 * math.pi * hue), math.sin(2 * math.pi * hue)  # a night is blue or violet at any hue
        canvas.backdrop(_colour(.25, .09, .76 + .04 * y), _colour(.50 + .05 * x, .14, .79 + .07 * y))
        for x, y, r in ((-.85, -.8, .05), (-.5, -.93, .03), (.88, -.5, .05), (.6, -.9, .04), (-.9, -.2, .03)):
            canvas.fill(_ellipse(x, y, r, r), _colour(.95, .06, .25))
    else:
        canvas.backdrop({"plain": middle, "dots": pale}.get(background, deep),
                        {"plain": middle, "glow": deep}.get(background, pale))
    if background == "glow":
        canvas.glow(0, -.1, 1.2, 1.2, WHITE, .9)
    elif background == "dots":
        for x, y in ((-1, -1), (-.33, -1), (.33, -1), (1, -1), (-.67, -.6), (.67, -.6), (-1, -.2), (1, -.2),
                     (-.8, .2), (.8, .2), (-1, .6), (1, .6)):
            canvas.fill(_ellipse(x, y, .13, .13), middle)


def _anime_back_hair(canvas, hair, hairs, wide):
    shape = BACK_HAIR[hair] * wide
    if hair in ("twintails", "buns"):
        canvas.outlined(_flip(shape, -1), hairs["line"], hairs["base"], hairs["shade"])
    if hair in ("twintails", "buns", "ponytail"):
        canvas.outlined(shape, hairs["line"], hairs["base"], hairs["shade"])
        canvas.fill(NAPE * wide, hairs["deep"])
    else:
        canvas.outlined(shape, hairs["line"], hairs["shade"], hairs["deep"])


def _anime_body(canvas, skins, hue):
    canvas.fill(SHOULDERS, _colour(_unmuddied(.62, hue), .13, hue))
    canvas.fill(NECK, skins["shade"])
    for side in (-1, 1):
        canvas.fill(_flip(COLLAR, side), _colour(.93, .03, hue))


def _anime_head(canvas, skins, front, blush, wide):
    face, rim = ANIME_FACE * wide
    canvas.fill(rim, skins["line"])
    with canvas.inside(face, skins["base"]):
        canvas.fill(np.add(front, (0, .08)), skins["shade"])
        for side in (-1, 1):
            canvas.glow(side * .43 * wide[0], .47, .24, .15, skins["blush"], blush)
    canvas.fill(NOSE, skins["line"])


def _anime_eye(canvas, side, centre, shape, hue, size, gaze, skins):
    parts = {name: part * (side * size, size) + centre for name, part in ANIME_EYES[shape].items()}
    x, y = centre[0] + gaze * .05, centre[1] + .02
    rx, ry = .145 * size, .225 * size
    with canvas.inside(parts["white"], _colour(.80, .04, .75)):  # the shadow of the lid
        canvas.fill(parts["white"] + (0, .05), WHITE)
        canvas.fill(_ellipse(x, y, rx, ry), _colour(.32, .1, hue))
        canvas.fill(_ellipse(x, y + .005, rx * .87, ry * .9), _colour(.40, .14, hue), _colour(.88, .15, hue + .04))
        canvas.fill(_ellipse(x, y - .01, rx * .42, ry * .46), _colour(.24, .07, hue))
        canvas.fill(_ellipse(x - .055 * size, y - .09 * size, rx * .40, ry * .30), WHITE)
        canvas.fill(_ellipse(x + .06 * size, y + .10 * size, rx * .2, ry * .15), WHITE)
    canvas.fill(parts["lash"], INK)
    canvas.fill(parts["lower"], skins["line"])
    canvas.fill(parts["crease"], skins["line"])


def _anime_mouth(canvas, mouth, smile, skins):
    y, w, curve = .63, .12 + .05 * smile, -.01 + .08 * smile
    if mouth == "line":
        lips = _arc((-w, y), (-w / 2, y + .8 * curve), (0, y + curve))
        canvas.fill(_brush(lips, .034, ends=.3), skins["line"])
    elif mouth == "cat":
        half = _line((0, y), (w * .5, y + .035 + .02 * smile), (w, y - .01))
        lips = np.concatenate([_flip(half[::-1], -1), half])
        canvas.fill(_brush(lips, .034, ends=.3), skins["line"])
    else:
        depth = .07 + .08 * smile
        lower = _arc((w, y), (w * .6, y + .75 * depth), (0, y + depth))
        shape, rim = _rimmed(np.concatenate([_arc((-w, y), (0, y + .02)), lower]), .02)
        canvas.fill(rim, skins["line"])
        with canvas.inside(shape, WHITE if mouth == "teeth" else _colour(.5, .15, .06)):
            if mouth == "open":
                canvas.fill(_ellipse(0, y + depth, w * .6, .05), _colour(.74, .13, .03))


def _anime_glasses(canvas, face_width):
    for side in (-1, 1):
        lens = _ellipse(side * .335 * face_width, .23, .28, .26)
        canvas.fill(lens, WHITE, opacity=.15)
        canvas.fill(_ring(lens, .035), INK)
    canvas.fill(GLASSES_BRIDGE, INK)


def _anime_front_hair(canvas, front, strands, hair, hairs, wide):
    if hair == "bob":
        canvas.fill(AHOGE, hairs["line"])
    canvas.outlined(front, hairs["line"], hairs["base"], hairs["tip"])
    canvas.fill(SHINE * wide, hairs["light"], hairs["base"])
    for strand in strands:
        canvas.fill(strand * wide, hairs["shade"])


def _anime_accessory(canvas, accessory, hue, hairs, wide):
    if accessory == "ribbon":
        for side in (-1, 1):
            wing = np.add(_flip(RIBBON_WING, side), (.44, -.76))
            canvas.fill(wing, _colour(.68, .19, hue), _colour(.52, .16, hue))
        canvas.fill(_ellipse(.44, -.76, .07, .08), _colour(.85, .1, hue))
    elif accessory == "hairpin":
        for pin in HAIRPINS:
            canvas.fill(pin, _colour(.8, .16, hue))
    elif accessory == "flower":
        for petal in PETALS:
            canvas.outlined(petal, _colour(.62, .17, hue), _colour(.87, .09, hue))
        canvas.fill(_ellipse(-.52, -.5, .07, .07), _colour(.88, .17, .26))
    elif accessory == "headband":
        canvas.fill(HEADBAND * wide, _colour(.68, .17, hue))
    elif accessory == "cat ears":
        for side in (-1, 1):
            canvas.outlined(_flip(CAT_EAR * wide, side), hairs["line"], hairs["base"])
            canvas.fill(_flip(INNER_EAR * wide, side), _colour(.82, .09, .03))


# ---------------------------------------------------------------------------------------- cartoon faces

HAIR_COLOURS = {"black": (.32, .03, .75), "brown": (.47, .08, .15), "auburn": (.58, .15, .11), "blond": (.86, .13, .24),
                "grey": (.80, .01, .70), "pink": (.76, .16, .99), "blue": (.62, .15, .70)}
JAWS = {"oval": ((.63, .2), (.52, .60), (.25, .88)), "round": ((.69, .22), (.62, .62), (.30, .87)),
        "square": ((.65, .25), (.62, .68), (.40, .89)), "heart": ((.62, .12), (.44, .58), (.14, .91))}
HEADS = {shape: _rimmed(_mirrored((0, -.80), (.42, -.70), (.63, -.28), *jaw)) for shape, jaw in JAWS.items()}
BEARDS = {shape: _rimmed(np.concatenate([
    _arc(*[(x + .01, y + .01) for x, y in ((.63, -.05), *jaw)], (0, .95)),
    _arc((-.55, .0), (-.54, .25), (-.46, .42), (-.28, .50), (0, .46))])) for shape, jaw in JAWS.items()}
STUBBLE = {shape: [np.concatenate([_arc(*jaw, (0, .92)), _arc(_flip(jaw[0], -1), (-.40, y + .03), (0, y))])
                   for y in np.linspace(.43, .59, 6)] for shape, jaw in JAWS.items()}
GOATEE = _rimmed(_mirrored((0, .80), (.13, .78), (.22, .70), (.27, .78), (.19, .93), (0, .98)), .03)
MOUSTACHE = _rimmed(_mirrored((0, .415), (.15, .39), (.29, .45), (.33, .52), (.18, .53), (0, .49)), .025)

# The front hair of each style: its outer edge from right to left, then the hairline from left to right.
FRONT_HAIR = {name: _rimmed(np.concatenate(edges)) for name, edges in {
    "swoop": (_line((.66, .0), (.75, -.38), (.74, -.76), (.38, -1.02), (-.2, -1.0), (-.62, -.75), (-.75, -.35),
                    (-.66, .0)),
              _line((-.58, -.02), (-.57, -.26), (-.25, -.38), (.2, -.48), (.44, -.66), (.53, -.38), (.58, -.02))),
    "buzz": (_arc((.65, -.08), (.66, -.4), (.44, -.76), (0, -.87)),
             _arc((-.58, -.10), (-.52, -.44), (-.32, -.54), (0, -.55))),
    "spiky": (_locks([(.66, .0), (.93, -.22), (.74, -.36), (.98, -.70), (.60, -.74), (.60, -1.04), (.16, -.91)],
                     .22, -.14),
              _locks([(.16, -.91), (-.08, -1.06), (-.32, -.87), (-.80, -.94), (-.70, -.56), (-.95, -.42),
                      (-.74, -.22), (-.66, .0)], -.14, .22),
              _locks([(-.58, .0), (-.54, -.34), (-.40, -.27), (-.26, -.50), (-.04, -.28), (.10, -.52), (.36, -.28),
                      (.50, -.44), (.58, .0)], .1)),
    "curly": (_locks(_both((.66, .0), (.82, -.14), (.87, -.42), (.77, -.66), (.56, -.85), (.29, -.96),
                           (0, -.97)), .4),
              _locks(_both((-.56, .0), (-.50, -.22), (-.36, -.36), (-.18, -.40), (0, -.42)), -.35)),
    "wavy": (_locks(_both((.62, .66), (.84, .58), (.86, .26), (.84, -.06), (.80, -.40), (.62, -.72), (.34, -.93),
                          (0, -.96)), .3),
             _arc((-.62, .66), (-.56, .2), (-.54, -.1), (-.38, -.34), (0, -.66))),
    "bob": (_arc((.56, .64), (.78, .62), (.90, .36), (.86, -.2), (.62, -.8), (0, -.99)),
            _arc((-.56, .64), (-.54, .2), (-.53, -.14), (-.47, -.20), (0, -.26))),
    "long": (_arc((.62, .92), (.82, .90), (.88, .68), (.86, .2), (.80, -.4), (.52, -.86), (0, -.98)),
             _arc((-.62, .92), (-.66, .7), (-.60, .3), (-.54, -.10), (-.22, -.50), (0, -.74))),
    "bun": (_arc((.65, .0), (.70, -.38), (.46, -.78), (0, -.88)),
            _arc((-.58, -.02), (-.54, -.3), (-.34, -.52), (0, -.58))),
    "pigtails": (_arc((.66, .0), (.74, -.38), (.50, -.84), (0, -.98)),
                 _locks([(-.58, -.02), (-.50, -.18), (-.30, -.22), (-.10, -.26), (.30, -.66), (.52, -.24),
                         (.58, -.02)], .15)),
}.items()}
PIGTAIL = _smooth([(.62, -.62), (.78, -.80), (.92, -.66), (.96, -.26), (.93, .14), (.84, .40), (.79, .12), (.70, -.3)])
BEHIND = {name: [_rimmed(shape) for shape in shapes] for name, shapes in {
    "bob": [_mirrored((0, -.9), (.74, -.3), (.8, .4), (.7, .60), (.4, .55))],
    "wavy": [_mirrored((0, -.9), (.74, -.3), (.8, .4), (.7, .62), (.4, .6))],
    "long": [_mirrored((0, -.9), (.72, -.3), (.78, .4), (.76, .86), (.4, .86))],
    "bun": [_ellipse(0, -.87, .30, .17)],
    "pigtails": [PIGTAIL, _flip(PIGTAIL, -1)],
}.items()}
# How far each eye opens from its middle, and how far the lid comes down over it.
CARTOON_EYES = {"round": (.17, .0), "almond": (.14, .01), "sleepy": (.15, .085), "lashes": (.16, .02)}
HAIR_SHINE = _brush(_line((-.62, -.42), (-.50, -.64), (-.24, -.79)), .08, ends=.4)
BALD_SHINE = _brush(_line((-.46, -.36), (-.38, -.54), (-.20, -.66)), .08, ends=.5)


def _draw_cartoon(canvas, hair, hair_colour, skin, face_shape, face_width, eyes, eye_hue, eye_spacing, brows,
                  brow_width, nose, mouth, smile, beard, glasses, glasses_hue, cheeks, tilt):
    wide = (face_width, 1)
    hairs, skins = _cartoon_hair_tones(hair_colour), _cartoon_skin_tones(skin)
    canvas.pose(tilt, .95, (0, .55))
    for shape in BEHIND.get(hair, []):
        canvas.outlined(shape * wide, INK, hairs["shade"])
    _cartoon_head(canvas, face_shape, cheeks, skins, wide)
    if hair == "bald":
        canvas.fill(BALD_SHINE * wide, skins["light"])
    _cartoon_beard(canvas, beard, face_shape, hairs, skins, wide)
    _cartoon_mouth(canvas, mouth, smile)
    if beard in ("moustache", "full"):
        canvas.outlined(MOUSTACHE, INK, hairs["base"])
    canvas.fill(_ellipse(0, .30, .07 + .09 * nose, .05 + .04 * nose), skins["shade"])
    x = .29 * eye_spacing
    brow = _line((x - .17, -.24 + .07 * brows), (x, -.30), (x + .18, -.23 - .06 * brows))
    brow = _brush(brow, .04 + .08 * brow_width, ends=.4)
    for side in (-1, 1):
        _cartoon_eye(canvas, side, x, eyes, eye_hue, skins)
        canvas.fill(_flip(brow, side), hairs["brow"])
    if hair != "bald":
        canvas.outlined(FRONT_HAIR[hair] * wide, INK, hairs["base"])
        canvas.fill(HAIR_SHINE * wide, hairs["light"])
    if glasses != "none":
        _cartoon_glasses(canvas, glasses, _colour(.5, .17, glasses_hue), x)


def _cartoon_hair_tones(hair_colour):
    light, chroma, hue = HAIR_COLOURS[hair_colour]
    return {"base": _colour(light, chroma, hue), "light": _colour(light + .1, chroma, hue),
            "shade": _colour(light - .12, chroma, hue), "brow": _colour(light * .75, chroma, hue)}


def _cartoon_skin_tones(skin):
    light = .90 - .46 * skin
    return {"base": _colour(light, .06 + .03 * skin, .16), "shade": _colour(light - .09, .09, .13),
            "light": _colour(light + .06, .05, .17), "blush": _colour(light - .06 + .05 * skin, .15, .06)}


def _cartoon_head(canvas, face_shape, cheeks, skins, wide):
    for side in (-1, 1):
        canvas.fill(_ellipse(side * .68, .12, .175, .215) * wide, INK)
        canvas.fill(_ellipse(side * .68, .12, .14, .18) * wide, skins["base"])
        canvas.fill(_ellipse(side * .70, .13, .06, .09) * wide, skins["shade"])
    canvas.outlined(HEADS[face_shape] * wide, INK, skins["base"])
    for side in (-1, 1):
        if cheeks == "blush":
            canvas.fill(_ellipse(side * .40, .36, .14, .09), skins["blush"], opacity=.6)
        elif cheeks == "freckles":
            for dx, dy in ((-.11, 0), (0, .04), (.11, 0), (-.05, -.06), (.06, -.06)):
                canvas.fill(_ellipse(side * .38 + dx, .35 + dy, .027, .027), skins["blush"])


def _cartoon_beard(canvas, beard, face_shape, hairs, skins, wide):
    if beard == "full":
        canvas.outlined(BEARDS[face_shape] * wide, INK, hairs["base"])
        canvas.fill(_ellipse(0, .64, .29, .16), skins["base"])  # else the mouth is lost in a dark beard
    elif beard == "stubble":
        for layer in STUBBLE[face_shape]:  # each lower than the last: soft at the upper edge
            canvas.fill(layer * wide, hairs["brow"], opacity=.06)
    elif beard == "goatee":
        canvas.outlined(GOATEE, INK, hairs["base"])


def _cartoon_eye(canvas, side, x, shape, hue, skins):
    x, y = side * x, .04
    gleam = _ellipse(x - .045, y - (.01 if shape == "sleepy" else .06), .045, .045)
    if shape == "dot":
        canvas.fill(_ellipse(x, y, .085, .115), _colour(.33, .09, hue))
        canvas.fill(gleam, WHITE)
        return
    height, lid = CARTOON_EYES[shape]
    white = _ellipse(x, y, .165, height)
    if shape == "almond":
        inner, outer = (x - side * .17, y + .04), (x + side * .20, y - .06)
        white = _smooth([inner, (x, y - height), outer, (x, y + height)])
    if shape == "lashes":
        for dx, dy in ((.08, -.14), (.13, -.07)):
            lash = _line((x + side * dx, y + dy), (x + side * (dx + .11), y + dy - .09))
            canvas.fill(_brush(lash, .045, .3, .3), INK)
    white, rim = _rimmed(white, .028)
    canvas.fill(rim, INK)
    with canvas.inside(white, WHITE):
        canvas.fill(_ellipse(x, y, .13, .14), _colour(.62, .14, hue))
        canvas.fill(_ellipse(x, y, .08, .09), INK)
        canvas.fill(gleam, WHITE)
        canvas.fill(_ellipse(x, y - height + lid - .14, .25, .16), INK)
        canvas.fill(_ellipse(x, y - height + lid - .165, .25, .16), skins["shade"])


def _cartoon_mouth(canvas, mouth, smile):
    y, w, curve = .62, .22, .03 + .12 * smile
    lips = _arc((-w, y - curve / 2), (-w / 2, y + curve * .3), (0, y + curve / 2))
    if mouth == "smirk":
        lips = lips[6:]
        lips[:, 1] -= .2 * lips[:, 0]
    if mouth in ("smile", "smirk"):
        canvas.fill(_brush(lips, .05, ends=.6), INK)
        return
    depth = .09 if mouth == "grin" else .15
    lower = _line(lips[-1], (w * .7, y + depth * .75), (0, y + curve * .4 + depth),
                  (-w * .7, y + depth * .75), lips[0])
    shape, rim = _rimmed(np.concatenate([lips, lower]), .03)
    canvas.fill(rim, INK)
    with canvas.inside(shape, WHITE if mouth == "grin" else _colour(.45, .15, .07)):
        if mouth == "open":
            canvas.fill(_ellipse(0, y + depth + curve * .4, w * .6, .07), _colour(.7, .15, .04))


LENSES = {
    "round": _ellipse(0, .05, .25, .24),
    "square": _smooth([(0, -.17), (.20, -.16), (.24, -.1), (.24, .15), (.20, .21), (0, .22),
                       (-.19, .21), (-.23, .15), (-.23, -.1), (-.20, -.16)]),
    "shades": _smooth([(0, -.15), (.22, -.14), (.25, -.06), (.20, .16), (.05, .23), (-.12, .20),
                       (-.21, .06), (-.20, -.14)]),
    "cat": _smooth([(.10, .24), (-.10, .22), (-.22, .1), (-.20, -.10), (.10, -.16), (.33, -.26), (.27, .10)]),
}


def _cartoon_glasses(canvas, glasses, colour, x):
    for side in (-1, 1):
        lens = _flip(LENSES[glasses] + (x, 0), side)
        if glasses == "shades":
            canvas.fill(lens, _colour(.25, .03, .7), _colour(.45, .06, .7))
            canvas.fill(_brush(_line((side * x - .10, .10), (side * x + .04, -.08)), .04, ends=.6), WHITE)
        else:
            canvas.fill(lens, WHITE, opacity=.15)
        canvas.fill(_ring(lens, .055), colour)
    canvas.fill(_brush(_line((.24 - x, .0), (0, -.04), (x - .24, .0)), .05, ends=1), colour)
