"""How the drawn cartoon faces look: shapes, and the order in which they are painted."""

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

HAIR_COLOURS = {"black": (.32, .03, .75), "brown": (.47, .08, .15), "auburn": (.58, .15, .11), "blond": (.86, .13, .24),
                "grey": (.80, .01, .70), "pink": (.76, .16, .99), "blue": (.62, .15, .70)}
JAWS = {"oval": ((.63, .2), (.52, .60), (.25, .88)), "round": ((.69, .22), (.62, .62), (.30, .87)),
        "square": ((.65, .25), (.62, .68), (.40, .89)), "heart": ((.62, .12), (.44, .58), (.14, .91))}
HEADS = {shape: rimmed(mirrored((0, -.80), (.42, -.70), (.63, -.28), *jaw)) for shape, jaw in JAWS.items()}
BEARDS = {shape: rimmed(np.concatenate([
    arc(*[(x + .01, y + .01) for x, y in ((.63, -.05), *jaw)], (0, .95)),
    arc((-.55, .0), (-.54, .25), (-.46, .42), (-.28, .50), (0, .46))])) for shape, jaw in JAWS.items()}
STUBBLE = {shape: [np.concatenate([arc(*jaw, (0, .92)), arc(flip(jaw[0], -1), (-.40, y + .03), (0, y))])
                   for y in np.linspace(.43, .59, 6)] for shape, jaw in JAWS.items()}
GOATEE = rimmed(mirrored((0, .80), (.13, .78), (.22, .70), (.27, .78), (.19, .93), (0, .98)), .03)
MOUSTACHE = rimmed(mirrored((0, .415), (.15, .39), (.29, .45), (.33, .52), (.18, .53), (0, .49)), .025)

# The front hair of each style: its outer edge from right to left, then the hairline from left to right.
FRONT_HAIR = {name: rimmed(np.concatenate(edges)) for name, edges in {
    "swoop": (line((.66, .0), (.75, -.38), (.74, -.76), (.38, -1.02), (-.2, -1.0), (-.62, -.75), (-.75, -.35),
                    (-.66, .0)),
              line((-.58, -.02), (-.57, -.26), (-.25, -.38), (.2, -.48), (.44, -.66), (.53, -.38), (.58, -.02))),
    "buzz": (arc((.65, -.08), (.66, -.4), (.44, -.76), (0, -.87)),
             arc((-.58, -.10), (-.52, -.44), (-.32, -.54), (0, -.55))),
    "spiky": (locks([(.66, .0), (.93, -.22), (.74, -.36), (.98, -.70), (.60, -.74), (.60, -1.04), (.16, -.91)],
                     .22, -.14),
              locks([(.16, -.91), (-.08, -1.06), (-.32, -.87), (-.80, -.94), (-.70, -.56), (-.95, -.42),
                      (-.74, -.22), (-.66, .0)], -.14, .22),
              locks([(-.58, .0), (-.54, -.34), (-.40, -.27), (-.26, -.50), (-.04, -.28), (.10, -.52), (.36, -.28),
                      (.50, -.44), (.58, .0)], .1)),
    "curly": (locks(both((.66, .0), (.82, -.14), (.87, -.42), (.77, -.66), (.56, -.85), (.29, -.96),
                           (0, -.97)), .4),
              locks(both((-.56, .0), (-.50, -.22), (-.36, -.36), (-.18, -.40), (0, -.42)), -.35)),
    "wavy": (locks(both((.62, .66), (.84, .58), (.86, .26), (.84, -.06), (.80, -.40), (.62, -.72), (.34, -.93),
                          (0, -.96)), .3),
             arc((-.62, .66), (-.56, .2), (-.54, -.1), (-.38, -.34), (0, -.66))),
    "bob": (arc((.56, .64), (.78, .62), (.90, .36), (.86, -.2), (.62, -.8), (0, -.99)),
            arc((-.56, .64), (-.54, .2), (-.53, -.14), (-.47, -.20), (0, -.26))),
    "long": (arc((.62, .92), (.82, .90), (.88, .68), (.86, .2), (.80, -.4), (.52, -.86), (0, -.98)),
             arc((-.62, .92), (-.66, .7), (-.60, .3), (-.54, -.10), (-.22, -.50), (0, -.74))),
    "bun": (arc((.65, .0), (.70, -.38), (.46, -.78), (0, -.88)),
            arc((-.58, -.02), (-.54, -.3), (-.34, -.52), (0, -.58))),
    "pigtails": (arc((.66, .0), (.74, -.38), (.50, -.84), (0, -.98)),
                 locks([(-.58, -.02), (-.50, -.18), (-.30, -.22), (-.10, -.26), (.30, -.66), (.52, -.24),
                         (.58, -.02)], .15)),
}.items()}
PIGTAIL = smooth([(.62, -.62), (.78, -.80), (.92, -.66), (.96, -.26), (.93, .14), (.84, .40), (.79, .12), (.70, -.3)])
BEHIND = {name: [rimmed(shape) for shape in shapes] for name, shapes in {
    "bob": [mirrored((0, -.9), (.74, -.3), (.8, .4), (.7, .60), (.4, .55))],
    "wavy": [mirrored((0, -.9), (.74, -.3), (.8, .4), (.7, .62), (.4, .6))],
    "long": [mirrored((0, -.9), (.72, -.3), (.78, .4), (.76, .86), (.4, .86))],
    "bun": [ellipse(0, -.87, .30, .17)],
    "pigtails": [PIGTAIL, flip(PIGTAIL, -1)],
}.items()}
# How far each eye opens from its middle, and how far the lid comes down over it.
EYES = {"round": (.17, .0), "almond": (.14, .01), "sleepy": (.15, .085), "lashes": (.16, .02)}
HAIR_SHINE = brush(line((-.62, -.42), (-.50, -.64), (-.24, -.79)), .08, ends=.4)
BALD_SHINE = brush(line((-.46, -.36), (-.38, -.54), (-.20, -.66)), .08, ends=.5)


def draw_cartoon(canvas, hair, hair_colour, skin, face_shape, face_width, eyes, eye_hue, eye_spacing, brows,
                  brow_width, nose, mouth, smile, beard, glasses, glasses_hue, cheeks, tilt):
    wide = (face_width, 1)
    hairs, skins = _hair_tones(hair_colour), _skin_tones(skin)
    canvas.pose(tilt, .95, (0, .55))
    for shape in BEHIND.get(hair, []):
        canvas.outlined(shape * wide, INK, hairs["shade"])
    _head(canvas, face_shape, cheeks, skins, wide)
    if hair == "bald":
        canvas.fill(BALD_SHINE * wide, skins["light"])
    _beard(canvas, beard, face_shape, hairs, skins, wide)
    _mouth(canvas, mouth, smile)
    if beard in ("moustache", "full"):
        canvas.outlined(MOUSTACHE, INK, hairs["base"])
    canvas.fill(ellipse(0, .30, .07 + .09 * nose, .05 + .04 * nose), skins["shade"])
    x = .29 * eye_spacing
    brow = line((x - .17, -.24 + .07 * brows), (x, -.30), (x + .18, -.23 - .06 * brows))
    brow = brush(brow, .04 + .08 * brow_width, ends=.4)
    for side in (-1, 1):
        _eye(canvas, side, x, eyes, eye_hue, skins)
        canvas.fill(flip(brow, side), hairs["brow"])
    if hair != "bald":
        canvas.outlined(FRONT_HAIR[hair] * wide, INK, hairs["base"])
        canvas.fill(HAIR_SHINE * wide, hairs["light"])
    if glasses != "none":
        _glasses(canvas, glasses, oklch(.5, .17, glasses_hue), x)


def _hair_tones(hair_colour):
    light, chroma, hue = HAIR_COLOURS[hair_colour]
    return {"base": oklch(light, chroma, hue), "light": oklch(light + .1, chroma, hue),
            "shade": oklch(light - .12, chroma, hue), "brow": oklch(light * .75, chroma, hue)}


def _skin_tones(skin):
    light = .90 - .46 * skin
    return {"base": oklch(light, .06 + .03 * skin, .16), "shade": oklch(light - .09, .09, .13),
            "light": oklch(light + .06, .05, .17), "blush": oklch(light - .06 + .05 * skin, .15, .06)}


def _head(canvas, face_shape, cheeks, skins, wide):
    for side in (-1, 1):
        canvas.fill(ellipse(side * .68, .12, .175, .215) * wide, INK)
        canvas.fill(ellipse(side * .68, .12, .14, .18) * wide, skins["base"])
        canvas.fill(ellipse(side * .70, .13, .06, .09) * wide, skins["shade"])
    canvas.outlined(HEADS[face_shape] * wide, INK, skins["base"])
    for side in (-1, 1):
        if cheeks == "blush":
            canvas.fill(ellipse(side * .40, .36, .14, .09), skins["blush"], opacity=.6)
        elif cheeks == "freckles":
            for dx, dy in ((-.11, 0), (0, .04), (.11, 0), (-.05, -.06), (.06, -.06)):
                canvas.fill(ellipse(side * .38 + dx, .35 + dy, .027, .027), skins["blush"])


def _beard(canvas, beard, face_shape, hairs, skins, wide):
    if beard == "full":
        canvas.outlined(BEARDS[face_shape] * wide, INK, hairs["base"])
        canvas.fill(ellipse(0, .64, .29, .16), skins["base"])  # else the mouth is lost in a dark beard
    elif beard == "stubble":
        for layer in STUBBLE[face_shape]:  # each lower than the last: soft at the upper edge
            canvas.fill(layer * wide, hairs["brow"], opacity=.06)
    elif beard == "goatee":
        canvas.outlined(GOATEE, INK, hairs["base"])


def _eye(canvas, side, x, shape, hue, skins):
    x, y = side * x, .04
    gleam = ellipse(x - .045, y - (.01 if shape == "sleepy" else .06), .045, .045)
    if shape == "dot":
        canvas.fill(ellipse(x, y, .085, .115), oklch(.33, .09, hue))
        canvas.fill(gleam, WHITE)
        return
    height, lid = EYES[shape]
    white = ellipse(x, y, .165, height)
    if shape == "almond":
        inner, outer = (x - side * .17, y + .04), (x + side * .20, y - .06)
        white = smooth([inner, (x, y - height), outer, (x, y + height)])
    if shape == "lashes":
        for dx, dy in ((.08, -.14), (.13, -.07)):
            lash = line((x + side * dx, y + dy), (x + side * (dx + .11), y + dy - .09))
            canvas.fill(brush(lash, .045, .3, .3), INK)
    white, rim = rimmed(white, .028)
    canvas.fill(rim, INK)
    with canvas.inside(white, WHITE):
        canvas.fill(ellipse(x, y, .13, .14), oklch(.62, .14, hue))
        canvas.fill(ellipse(x, y, .08, .09), INK)
        canvas.fill(gleam, WHITE)
        canvas.fill(ellipse(x, y - height + lid - .14, .25, .16), INK)
        canvas.fill(ellipse(x, y - height + lid - .165, .25, .16), skins["shade"])


def _mouth(canvas, mouth, smile):
    y, w, curve = .62, .22, .03 + .12 * smile
    lips = arc((-w, y - curve / 2), (-w / 2, y + curve * .3), (0, y + curve / 2))
    if mouth == "smirk":
        lips = lips[6:]
        lips[:, 1] -= .2 * lips[:, 0]
    if mouth in ("smile", "smirk"):
        canvas.fill(brush(lips, .05, ends=.6), INK)
        return
    depth = .09 if mouth == "grin" else .15
    lower = line(lips[-1], (w * .7, y + depth * .75), (0, y + curve * .4 + depth),
                  (-w * .7, y + depth * .75), lips[0])
    shape, rim = rimmed(np.concatenate([lips, lower]), .03)
    canvas.fill(rim, INK)
    with canvas.inside(shape, WHITE if mouth == "grin" else oklch(.45, .15, .07)):
        if mouth == "open":
            canvas.fill(ellipse(0, y + depth + curve * .4, w * .6, .07), oklch(.7, .15, .04))


LENSES = {
    "round": ellipse(0, .05, .25, .24),
    "square": smooth([(0, -.17), (.20, -.16), (.24, -.1), (.24, .15), (.20, .21), (0, .22),
                       (-.19, .21), (-.23, .15), (-.23, -.1), (-.20, -.16)]),
    "shades": smooth([(0, -.15), (.22, -.14), (.25, -.06), (.20, .16), (.05, .23), (-.12, .20),
                       (-.21, .06), (-.20, -.14)]),
    "cat": smooth([(.10, .24), (-.10, .22), (-.22, .1), (-.20, -.10), (.10, -.16), (.33, -.26), (.27, .10)]),
}


def _glasses(canvas, glasses, colour, x):
    for side in (-1, 1):
        lens = flip(LENSES[glasses] + (x, 0), side)
        if glasses == "shades":
            canvas.fill(lens, oklch(.25, .03, .7), oklch(.45, .06, .7))
            canvas.fill(brush(line((side * x - .10, .10), (side * x + .04, -.08)), .04, ends=.6), WHITE)
        else:
            canvas.fill(lens, WHITE, opacity=.15)
        canvas.fill(ring(lens, .055), colour)
    canvas.fill(brush(line((.24 - x, .0), (0, -.04), (x - .24, .0)), .05, ends=1), colour)
