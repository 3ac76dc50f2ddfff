"""Colours, curves and the canvas that the drawn faces are painted on, in unit coordinates: see `vaelib.drawn`."""

import math
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

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
def oklch(lightness, chroma, hue):
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


def smooth(points, closed=True):
    """A smooth curve through the points (Catmull-Rom), as a dense (N, 2) array."""
    p = np.asarray(points, float)
    p = np.concatenate([p[-1:], p, p[:2]] if closed else [p[:1], p, p[-1:]])
    pieces = np.stack([p[:-3], p[1:-2], p[2:-1], p[3:]], 1)
    curve = (_CATMULL_ROM @ pieces).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def line(*points):
    return smooth(points, closed=False)


def locks(points, *bends):
    """Locks of hair: arcs from point to point, each bulging to its right by its bend / 2 of its length.

    The bends are repeated: one serves all arcs, two serve the two sides of every lock.
    """
    p = np.asarray(points, float)
    step = p[1:] - p[:-1]
    bend = np.resize(bends or .24, (len(step), 1))
    middle = (p[1:] + p[:-1]) / 2 + bend * step[:, ::-1] * (-1, 1)
    pieces = np.stack([p[:-1], middle, p[1:]], 1)
    return np.concatenate([(_QUADRATIC @ pieces).reshape(-1, 2), p[-1:]])


def ellipse(x, y, rx, ry):
    return _CIRCLE * (rx, ry) + (x, y)


def flip(points, side):
    return np.asarray(points, float) * (side, 1)


def both(*half):
    """Points on one side of the head, and then their mirror images in the opposite order."""
    half = np.array(half, float)
    return np.concatenate([half, flip(half[half[:, 0] != 0][::-1], -1)])


def arc(*half):
    return line(*both(*half))


def mirrored(*half):
    return smooth(both(*half))


def _normals(p, closed):
    """Unit vectors across a curve, (N, 2)."""
    p = np.concatenate([p[-1:], p, p[:1]] if closed else [p[:1], p, p[-1:]])
    along = p[2:] - p[:-2]
    return (along * (1 / np.sqrt((along**2).sum(1, keepdims=True) + 1e-12)))[:, ::-1] * (-1, 1)


@lru_cache(256)
def _pressure(count, heavy, ends):
    t = np.linspace(0, 1, count) ** (math.log(0.5) / math.log(heavy))
    return (ends + (1 - ends) * np.sqrt(np.sin(np.pi * t).clip(0)))[:, None]


def brush(curve, width, heavy=0.5, ends=0.0):
    """A brush stroke along a curve, thickest at `heavy` of the way and `ends` as thick at both ends."""
    across = _normals(curve, closed=False) * (_pressure(len(curve), heavy, ends) * (width / 2))
    return np.concatenate([curve + across, (curve - across)[::-1]])


def ring(points, width):
    return brush(np.concatenate([points, points[:1]]), width, ends=1)


def rimmed(points, width=0.035):
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
        """Paint a shape with an outline, from `rimmed`."""
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
