"""How the drawn anime faces look: shapes, and the order in which they are painted."""

import math
from functools import lru_cache

import numpy as np

from vaelib.drawn_canvas import (
    INK,
    WHITE,
    arc,
    both,
    brush,
    ellipse,
    flip,
    line,
    locks,
    mirrored,
    oklch,
    rimmed,
    ring,
    smooth,
)

FACE = rimmed(mirrored((0, -.8), (.45, -.65), (.66, -.2), (.66, .2), (.58, .49), (.35, .71), (.11, .825)), .018)


def _crown(right, tuft, left):
    """The top of the hair: a smooth curve from the right temple, a tuft (tip, notch, tip, ...), a curve."""
    return np.concatenate([line(*right), locks([right[-1], *tuft, left[0]], .2, -.1), line(*left)])


CROWNS = {
    "long": _crown([(.76, -.02), (.80, -.42), (.60, -.80), (.24, -1.0), (.06, -.99)], [(-.02, -1.08)],
                   [(-.12, -1.0), (-.34, -.97), (-.62, -.77), (-.80, -.40), (-.76, -.02)]),
    "bob": arc((.76, -.02), (.84, -.40), (.64, -.83), (.24, -1.01), (0, -.99)),
    "twintails": arc((.76, -.02), (.80, -.44), (.58, -.85), (.26, -1.01), (0, -.94)),
    "ponytail": _crown([(.76, -.02), (.80, -.40), (.62, -.85), (.30, -1.05)], [(.16, -1.0), (-.02, -1.09)],
                       [(-.10, -.98), (-.34, -.92), (-.60, -.74), (-.79, -.40), (-.76, -.02)]),
    "wavy": arc((.76, -.02), (.86, -.28), (.79, -.46), (.76, -.66), (.58, -.76), (.48, -.94), (.24, -.96), (0, -1.05)),
    "buns": _crown([(.76, -.02), (.78, -.42), (.55, -.82), (.20, -.99)], [(.04, -1.09), (-.04, -1.0), (-.13, -1.06)],
                   [(-.20, -.99), (-.55, -.82), (-.78, -.42), (-.76, -.02)]),
    "spiky": np.concatenate([  # tufts that sweep up to both sides from where the hair grows
        locks([(.76, -.02), (1.0, -.28), (.80, -.44), (1.04, -.84), (.60, -.82), (.66, -1.13), (.10, -.97)],
               .24, -.16),
        locks([(.10, -.97), (-.12, -1.14), (-.34, -.92), (-.86, -1.06), (-.70, -.62), (-1.02, -.52), (-.78, -.26),
                (-.76, -.02)], -.16, .24)]),
}
# The lower edge of the front hair, from the left temple to the right one: tip, notch, tip, ...
FRINGES = {
    "straight": both((-.70, .72), (-.55, -.02), (-.41, .03), (-.29, -.06), (-.17, .02), (-.06, -.07), (0, .02)),
    "spiky": ((-.72, .50), (-.57, .02), (-.47, .16), (-.33, -.26), (-.17, .09), (-.03, -.28), (.10, .04),
              (.26, -.28), (.45, .15), (.56, .02), (.72, .50)),
    "swept": ((-.72, .58), (-.58, .10), (-.52, .20), (-.40, -.06), (-.28, .07), (-.12, -.16), (.02, -.05),
              (.34, -.60), (.53, -.02), (.58, -.06), (.72, .55)),
    "parted": both((-.72, .60), (-.56, .00), (-.50, .12), (-.38, -.26), (-.30, -.14), (0, -.68)),
    "curtain": ((-.66, .84), (-.55, .24), (-.50, .30), (.16, -.66), (.54, .20), (.57, .18), (.70, .74)),
    "strand": both((-.72, .55), (-.57, -.02), (-.48, .06), (-.22, -.42), (0, .28)),
}
BACK_HAIR = {name: rimmed(shape, .02) for name, shape in {
    "long": mirrored((0, -.9), (.6, -.78), (.82, -.2), (.84, .4), (.96, 1.2), (.3, 1.3)),
    "bob": mirrored((0, -.95), (.6, -.8), (.86, -.1), (.93, .45), (.74, .72), (.3, .6)),
    "wavy": mirrored((0, -.9), (.5, -.7), (.72, -.40), (.78, -.12), (1.0, .12), (.86, .38), (1.06, .66), (.9, .95),
                      (1.05, 1.25), (.3, 1.3)),
    "spiky": locks([(.5, -.6), (.78, .1), (.96, .44), (.70, .38), (.70, .74), (0, .6), (-.74, .78), (-.70, .38),
                     (-.94, .34), (-.78, .1), (-.5, -.6)], .12),
    "twintails": smooth([(.62, -.56), (.86, -.68), (1.04, -.35), (.98, .3), (1.08, .7), (.98, 1.2), (.84, .8),
                          (.76, .3), (.70, -.2)]),
    "ponytail": smooth([(.2, -.84), (.5, -1.12), (.92, -.98), (1.06, -.35), (.90, .35), (1.04, .92), (.78, .72),
                         (.70, .1), (.68, -.5)]),
    "buns": ellipse(.60, -.86, .29, .27),
}.items()}
NAPE = mirrored((0, -.95), (.5, -.84), (.78, -.4), (.76, .1), (.66, .50), (.2, .65))
SHINE = np.concatenate([
    arc((-.66, -.44), (-.42, -.69), (0, -.79)),
    locks(both((.66, -.40), (.50, -.54), (.45, -.49), (.30, -.65), (.22, -.60), (0, -.71)), .1)])
SHOULDERS = mirrored((0, .84), (.3, .88), (.75, .98), (.95, 1.4))
NECK = mirrored((0, .55), (.2, .56), (.21, .86), (.1, 1.02), (0, 1.06))
COLLAR = np.array([(.2, .80), (.34, .88), (.2, 1.08), (.03, 1.06)])
NOSE = brush(line((.02, .41), (-.02, .465), (.025, .475)), .03)
AHOGE = brush(line((.0, -.95), (-.03, -1.07), (.08, -1.13), (.20, -1.08)), .07, .35)  # sticks up
GLASSES_BRIDGE = brush(line((-.07, .2), (0, .17), (.07, .2)), .035, ends=1)
RIBBON_WING = smooth([(.02, 0), (.16, -.17), (.34, -.2), (.36, .1), (.18, .13)])
HAIRPINS = [brush(line((.36, y + .04), (.64, y - .04)), .06, ends=1) for y in (-.28, -.16)]
PETALS = [rimmed(ellipse(-.52 + .12 * math.cos(turn), -.5 + .12 * math.sin(turn), .1, .1), .02)
          for turn in np.arange(5) * 2 * np.pi / 5]
HEADBAND = brush(arc((-.75, -.34), (-.56, -.68), (0, -.86)), .14, ends=.6)
CAT_EAR = rimmed(locks([(.16, -.93), (.66, -1.22), (.76, -.55), (.16, -.93)], .08), .02)
INNER_EAR = locks([(.36, -.92), (.63, -1.09), (.68, -.70)], .08)


@lru_cache
def _front_shapes(hair, fringe):
    """The front hair, and the lines that run up into it from the notches of the fringe but the outermost."""
    crown, edge = CROWNS[hair], FRINGES[fringe]
    front = np.concatenate([crown, locks([crown[-1], *edge, crown[0]], .14)])
    strands = [line((x, y + .25 * (min(left[1], right[1]) - y)), (x * .98, y - .08), (x * .90, y - .24),
                     (x * .74, max(y - .46, -.88)))
               for left, (x, y), right in zip(edge[2:-3:2], edge[3:-2:2], edge[4:-1:2], strict=True)]
    return rimmed(front, .02), [brush(strand, .035, .2) for strand in strands]


def _eye_shapes(lift, height):
    """Parts of an eye about its centre; the outer corner, at the right, is raised by `lift`."""
    upper = line((-1, .3), (-.7, -.5 * height), (0, -height), (.72, -.7 * height - .3 * lift), (1.05, .1 - lift))
    lower = line((1.05, .1 - lift), (.75, .7 - .2 * lift), (0, 1), (-.65, .8), (-1, .3))
    upper, lower, tail = upper * (.21, .255), lower * (.21, .255), [(.275, -.03 - .25 * lift)]
    return {"white": np.concatenate([upper, lower]), "lash": brush(np.concatenate([upper, tail]), .09, .6, .1),
            "lower": brush(lower[4:20], .024), "crease": brush(upper[6:21] - (0, .065), .018)}


EYES = {"round": _eye_shapes(.05, 1.0), "sharp": _eye_shapes(.35, .85),
              "droopy": _eye_shapes(-.3, .9), "sleepy": _eye_shapes(-.05, .5)}
EYES["wink"] = EYES["round"]  # the eye that stays open
WINK = brush(line((-.28, -.03), (-.22, -.01), (-.15, .09), (-.01, .14), (.13, .11), (.21, .01)), .08, .45, .1)


def draw_anime(canvas, hair, fringe, hair_hue, hair_light, eyes, eye_hue, eye_size, gaze, brows, mouth,
                smile, blush, skin, face_width, tilt, accessory, background, background_hue, outfit_hue):
    wide = (face_width, 1)
    hairs, skins = _hair_tones(_hue(hair_hue), hair_light), _skin_tones(skin)
    front, strands = _front_shapes(hair, fringe)
    _background(canvas, background, background_hue)
    canvas.pose(tilt, .92)
    _back_hair(canvas, hair, hairs, wide)
    canvas.pose(tilt / 3, .95)
    _body(canvas, skins, _hue(outfit_hue))
    canvas.pose(tilt, .92)
    _head(canvas, skins, front[0] * wide, blush, wide)
    for side in (-1, 1):
        centre = (side * .335 * face_width, .20)
        if side == -1 and eyes == "wink":  # the eye that locks of hair may hide
            canvas.fill(WINK * eye_size + centre, INK)
        else:
            _eye(canvas, side, centre, eyes, eye_hue, eye_size, gaze, skins)
    _mouth(canvas, mouth, smile, skins)
    if accessory == "glasses":
        _glasses(canvas, face_width)
    _front_hair(canvas, front * wide, strands, hair, hairs, wide)
    brow = brush(line((.19, -.14 + .06 * brows), (.35, -.20), (.51, -.14 - .05 * brows)), .032)
    for side in (-1, 1):
        canvas.fill(flip(brow, side * face_width), hairs["deep"])
    _accessory(canvas, accessory, _hue(outfit_hue), hairs, wide)


def _hue(fraction):
    """An OKLCH hue: round the circle, but fast through olive and grass green, which make muddy faces."""
    return float(np.interp(fraction % 1, (0, .33, .38, .47, .80, 1), (0, .23, .41, .54, .81, 1)))


def _unmuddied(lightness, hue):
    """A lightness, raised where the hue is yellow: dark yellow is olive."""
    return lightness + .6 * max(math.cos(2 * math.pi * (hue - .3)), 0) ** 4 * max(.86 - lightness, 0)


def _hair_tones(hue, light):
    chroma = float(np.interp(light, (.45, .53, .62, .8, .86, .9), (.03, .12, .17, .15, .09, .03)))
    light = float(np.interp(light, (.45, .53, .84, .9), (.30, .50, .84, .93)))  # nearly black ... nearly white
    light += (_unmuddied(light, hue) - light) * chroma / .17
    cool = .04 * math.sin(2 * math.pi * (.8 - hue))  # shadows lean towards violet, lights away from it
    return {"base": oklch(light, chroma, hue), "tip": oklch(light + .05, chroma, hue - cool),
            "light": oklch(min(light + .12, .98), chroma * .8, hue - cool),
            "shade": oklch(light * .83, chroma, hue + cool), "deep": oklch(light * .67, chroma * .9, hue + cool),
            "line": oklch(light * .48, chroma * .7, hue + cool)}


def _skin_tones(skin):
    light = .95 - .27 * skin
    return {"base": oklch(light, .03 + .05 * skin, .16), "shade": oklch(light - .09, .065 + .03 * skin, .11),
            "line": oklch(light - .42, .09, .08), "blush": oklch(light - .15 + .08 * skin, .15, .05)}


def _background(canvas, background, fraction):
    hue, next_hue = _hue(fraction), _hue(fraction + .06)
    pale, middle = oklch(.94, .05, hue), oklch(.84, .08, hue)
    deep = oklch(_unmuddied(.75, next_hue), .11, next_hue)
    if background == "night":
        x, y = math.cos(2 * math.pi * hue), math.sin(2 * math.pi * hue)  # a night is blue or violet at any hue
        canvas.backdrop(oklch(.25, .09, .76 + .04 * y), oklch(.50 + .05 * x, .14, .79 + .07 * y))
        for x, y, r in ((-.85, -.8, .05), (-.5, -.93, .03), (.88, -.5, .05), (.6, -.9, .04), (-.9, -.2, .03)):
            canvas.fill(ellipse(x, y, r, r), oklch(.95, .06, .25))
    else:
        canvas.backdrop({"plain": middle, "dots": pale}.get(background, deep),
                        {"plain": middle, "glow": deep}.get(background, pale))
    if background == "glow":
        canvas.glow(0, -.1, 1.2, 1.2, WHITE, .9)
    elif background == "dots":
        for x, y in ((-1, -1), (-.33, -1), (.33, -1), (1, -1), (-.67, -.6), (.67, -.6), (-1, -.2), (1, -.2),
                     (-.8, .2), (.8, .2), (-1, .6), (1, .6)):
            canvas.fill(ellipse(x, y, .13, .13), middle)


def _back_hair(canvas, hair, hairs, wide):
    shape = BACK_HAIR[hair] * wide
    if hair in ("twintails", "buns"):
        canvas.outlined(flip(shape, -1), hairs["line"], hairs["base"], hairs["shade"])
    if hair in ("twintails", "buns", "ponytail"):
        canvas.outlined(shape, hairs["line"], hairs["base"], hairs["shade"])
        canvas.fill(NAPE * wide, hairs["deep"])
    else:
        canvas.outlined(shape, hairs["line"], hairs["shade"], hairs["deep"])


def _body(canvas, skins, hue):
    canvas.fill(SHOULDERS, oklch(_unmuddied(.62, hue), .13, hue))
    canvas.fill(NECK, skins["shade"])
    for side in (-1, 1):
        canvas.fill(flip(COLLAR, side), oklch(.93, .03, hue))


def _head(canvas, skins, front, blush, wide):
    face, rim = FACE * wide
    canvas.fill(rim, skins["line"])
    with canvas.inside(face, skins["base"]):
        canvas.fill(np.add(front, (0, .08)), skins["shade"])
        for side in (-1, 1):
            canvas.glow(side * .43 * wide[0], .47, .24, .15, skins["blush"], blush)
    canvas.fill(NOSE, skins["line"])


def _eye(canvas, side, centre, shape, hue, size, gaze, skins):
    parts = {name: part * (side * size, size) + centre for name, part in EYES[shape].items()}
    x, y = centre[0] + gaze * .05, centre[1] + .02
    rx, ry = .145 * size, .225 * size
    with canvas.inside(parts["white"], oklch(.80, .04, .75)):  # the shadow of the lid
        canvas.fill(parts["white"] + (0, .05), WHITE)
        canvas.fill(ellipse(x, y, rx, ry), oklch(.32, .1, hue))
        canvas.fill(ellipse(x, y + .005, rx * .87, ry * .9), oklch(.40, .14, hue), oklch(.88, .15, hue + .04))
        canvas.fill(ellipse(x, y - .01, rx * .42, ry * .46), oklch(.24, .07, hue))
        canvas.fill(ellipse(x - .055 * size, y - .09 * size, rx * .40, ry * .30), WHITE)
        canvas.fill(ellipse(x + .06 * size, y + .10 * size, rx * .2, ry * .15), WHITE)
    canvas.fill(parts["lash"], INK)
    canvas.fill(parts["lower"], skins["line"])
    canvas.fill(parts["crease"], skins["line"])


def _mouth(canvas, mouth, smile, skins):
    y, w, curve = .63, .12 + .05 * smile, -.01 + .08 * smile
    if mouth == "line":
        lips = arc((-w, y), (-w / 2, y + .8 * curve), (0, y + curve))
        canvas.fill(brush(lips, .034, ends=.3), skins["line"])
    elif mouth == "cat":
        half = line((0, y), (w * .5, y + .035 + .02 * smile), (w, y - .01))
        lips = np.concatenate([flip(half[::-1], -1), half])
        canvas.fill(brush(lips, .034, ends=.3), skins["line"])
    else:
        depth = .07 + .08 * smile
        lower = arc((w, y), (w * .6, y + .75 * depth), (0, y + depth))
        shape, rim = rimmed(np.concatenate([arc((-w, y), (0, y + .02)), lower]), .02)
        canvas.fill(rim, skins["line"])
        with canvas.inside(shape, WHITE if mouth == "teeth" else oklch(.5, .15, .06)):
            if mouth == "open":
                canvas.fill(ellipse(0, y + depth, w * .6, .05), oklch(.74, .13, .03))


def _glasses(canvas, face_width):
    for side in (-1, 1):
        lens = ellipse(side * .335 * face_width, .23, .28, .26)
        canvas.fill(lens, WHITE, opacity=.15)
        canvas.fill(ring(lens, .035), INK)
    canvas.fill(GLASSES_BRIDGE, INK)


def _front_hair(canvas, front, strands, hair, hairs, wide):
    if hair == "bob":
        canvas.fill(AHOGE, hairs["line"])
    canvas.outlined(front, hairs["line"], hairs["base"], hairs["tip"])
    canvas.fill(SHINE * wide, hairs["light"], hairs["base"])
    for strand in strands:
        canvas.fill(strand * wide, hairs["shade"])


def _accessory(canvas, accessory, hue, hairs, wide):
    if accessory == "ribbon":
        for side in (-1, 1):
            wing = np.add(flip(RIBBON_WING, side), (.44, -.76))
            canvas.fill(wing, oklch(.68, .19, hue), oklch(.52, .16, hue))
        canvas.fill(ellipse(.44, -.76, .07, .08), oklch(.85, .1, hue))
    elif accessory == "hairpin":
        for pin in HAIRPINS:
            canvas.fill(pin, oklch(.8, .16, hue))
    elif accessory == "flower":
        for petal in PETALS:
            canvas.outlined(petal, oklch(.62, .17, hue), oklch(.87, .09, hue))
        canvas.fill(ellipse(-.52, -.5, .07, .07), oklch(.88, .17, .26))
    elif accessory == "headband":
        canvas.fill(HEADBAND * wide, oklch(.68, .17, hue))
    elif accessory == "cat ears":
        for side in (-1, 1):
            canvas.outlined(flip(CAT_EAR * wide, side), hairs["line"], hairs["base"])
            canvas.fill(flip(INNER_EAR * wide, side), oklch(.82, .09, .03))
