"""The explorer as one picture, for pages without a kernel: on GitHub, printed, in an e-mail."""

import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.functional import to_pil_image

from vaelib.explorer_state import ExplorerState, Morph
from vaelib.latents import between

FACE, STRIP, GAP, NAME = 384, 44, 12, 120  # pixels: a side of the face, a strip's height, between things, for a name
ROWS = 6  # of strips, in each of two columns


def still(state: ExplorerState, attributes: bool = False) -> Image.Image:
    """The face at the sliders, large, and beside it what the first axes do, or the first attributes and menus."""
    count = len(state.bundle.axes)
    if attributes:
        strips = {label: state.menu_strip(label, STRIP) for label in list(state.menus)[:ROWS]}
        indices = range(count, min(count + 2 * ROWS - len(strips), len(state.names)))
    else:
        strips, indices = {}, range(min(count, 2 * ROWS))
    for index, strip in zip(indices, state.strips(STRIP, indices), strict=True):
        strips[f"{state.names[index]}  {state.weights[index] or 0.0:.1f}"] = strip
    return _beside(state.picture(FACE), strips)


def morph_still(morph: Morph) -> Image.Image:
    """The face between two, large, and beside it the two pictures, what the model makes of them, and the way."""
    rows = {
        name: [to_pil_image(morph.pictures[side]), to_pil_image(morph.reconstruction(side))]
        for side, name in enumerate(("from", "to"))
    }
    way = morph.decoder(between(*morph.latents, torch.linspace(0, 1, 6), morph.spherical))
    rows["way"] = [to_pil_image(face) for face in way]
    strips = {}
    for name, faces in rows.items():
        strips[name] = Image.new("RGB", (STRIP * 2 * len(faces), STRIP * 2))
        for place, face in enumerate(faces):
            strips[name].paste(face.resize((STRIP * 2, STRIP * 2)), (STRIP * 2 * place, 0))
    return _beside(morph.picture(FACE), strips)


def _beside(face: Image.Image, strips: dict[str, Image.Image]) -> Image.Image:
    font = ImageFont.load_default(13)
    rows = list(strips.items())
    columns = [rows[:ROWS], rows[ROWS:]]
    heights = [sum(strip.height + GAP for _, strip in column) for column in columns]
    widths = [NAME + GAP + max((strip.width for _, strip in column), default=-NAME - GAP) for column in columns]
    left = sum(width + GAP for width in widths if width) + GAP
    page = Image.new("RGB", (left + FACE + GAP, max(FACE + GAP, *heights) + GAP), "white")
    pen, x = ImageDraw.Draw(page), GAP
    for column, width in zip(columns, widths, strict=True):
        y = GAP
        for name, strip in column:
            pen.text((x + NAME, y + strip.height / 2), name, "black", font, anchor="rm")
            page.paste(strip, (x + NAME + GAP, y))
            y += strip.height + GAP
        x += width + GAP
    page.paste(face, (left, GAP))
    return page
