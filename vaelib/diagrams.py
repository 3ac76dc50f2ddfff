"""Drawings of ideas: the VAE, the reparameterisation, the shapes through the network.

One style for all: the encoder is blue, the decoder orange, what is random green, what is lost red, in a palette that
colour-blind readers can tell apart; no meaning hangs on the colour alone. Every function draws on `axes`, or on a
figure of its own, and returns the figure.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Polygon

from vaelib.drawn import draw_face
from vaelib.faces import to_float
from vaelib.metrics import reconstruct
from vaelib.model import VAE, inference
from vaelib.plots import BLUE, GREEN, GREY, ORANGE, RED
from vaelib.pretrained import load_pretrained

INK = "#222222"


def vae(axes: Axes | None = None) -> Figure:
    """A VAE from a face to its reconstruction, with the two terms of its loss.

    The face is drawn, the reconstruction is what the shipped model makes of it.
    """
    axes = _canvas(axes, 12, 4.6)
    face = draw_face("anime", hair="long", smile=0.6)
    x = to_float(torch.from_numpy(face)[None])  # (1, 3, 64, 64)
    x_hat = reconstruct(load_pretrained("drawn-anime").vae, x)[0].permute(1, 2, 0).numpy()

    _picture(axes, face, 1, 2.8)
    _picture(axes, x_hat, 11, 2.8)
    axes.text(1, 1.62, "face $x$", ha="center", va="top")
    axes.text(11, 1.62, r"reconstruction $\hat{x}$", ha="center", va="top")

    _trapezoid(axes, (2.5, 2.8), (4.2, 2.8), 2.0, 1.5, "encoder", BLUE)
    _trapezoid(axes, (7.8, 2.8), (9.5, 2.8), 1.5, 2.0, "decoder", ORANGE)
    for y, text in (3.2, r"mean $\mu$"), (2.4, r"spread $\sigma$"):
        _arrow(axes, (4.2, y), (4.55, y))
        _box(axes, 5.1, y, text, BLUE)
        _arrow(axes, (5.65, y), (6.38, 2.8 + 0.36 * (y - 2.8)))
    _circle(axes, 6.75, 2.8, "$z$", GREEN)
    _box(axes, 6.75, 4.3, r"noise $\varepsilon \sim \mathcal{N}(0, I)$", GREEN, width=2.3)

    _arrow(axes, (2.0, 2.8), (2.5, 2.8))
    _arrow(axes, (6.75, 4.03), (6.75, 3.2))
    _arrow(axes, (7.15, 2.8), (7.8, 2.8))
    _arrow(axes, (9.5, 2.8), (10.0, 2.8))
    axes.text(6.6, 3.72, r"$z = \mu + \sigma\varepsilon$", ha="right", va="center", fontsize=11)

    _bracket(axes, 4.55, 7.15, 1.95, r"rate: $\mathrm{KL}(q(z|x)\,\|\,\mathcal{N}(0, I))$")
    _bracket(axes, 1, 11, 1.2, r"distortion: $-\log p(x|z)$, how far $\hat{x}$ is from $x$")
    axes.text(6, 0.1, "loss = distortion + β · rate", ha="center", va="center", weight="bold")
    return axes.figure


def reparameterisation(axes: Axes | None = None) -> Figure:
    """Why z is written as mean + σ·ε: a gradient stops at a random draw, but passes through a sum and a product."""
    axes = _canvas(axes, 12, 3.6)
    for left, title in (0, "draw $z$: the gradient stops"), (6.3, "draw the noise: the gradient passes"):
        axes.text(left + 0.3, 3.35, title, va="center", weight="bold")
        for y, text in (2.3, r"$\mu$"), (0.9, r"$\sigma$"):
            _box(axes, left + 0.75, y, text, BLUE, width=0.9)
            _arrow(axes, (left + 1.2, y), (left + 2.52, 1.6 + 0.2 * (y - 1.6)))
        _box(axes, left + 4.7, 1.6, "loss", ORANGE, width=1.2)
        _arrow(axes, (left + 3.3, 1.7), (left + 4.1, 1.7))
        _arrow(axes, (left + 4.1, 1.48), (left + 3.3, 1.48), RED, dashed=True)
    _circle(axes, 2.9, 1.6, "$z$", GREEN)
    axes.text(2.9, 0.9, r"$z \sim \mathcal{N}(\mu, \sigma^2)$", ha="center", va="center", fontsize=11)
    axes.plot([2.05, 2.35, np.nan, 2.05, 2.35], [1.45, 1.75, np.nan, 1.75, 1.45], color=RED, lw=2.5)

    _box(axes, 9.2, 1.6, "$z$", GREY, width=0.8)
    axes.text(9.2, 0.9, r"$z = \mu + \sigma\varepsilon$", ha="center", va="center", fontsize=11)
    _circle(axes, 9.2, 2.75, r"$\varepsilon$", GREEN, radius=0.32)
    _arrow(axes, (9.2, 2.43), (9.2, 1.87))
    _arrow(axes, (8.8, 1.58), (7.5, 2.13), RED, dashed=True)
    _arrow(axes, (8.8, 1.36), (7.5, 0.78), RED, dashed=True)
    axes.text(11.6, 0.2, "dashed: the gradient's way back", ha="right", va="center", color=RED, fontsize=10)
    return axes.figure


def two_gradients(axes: Axes | None = None) -> Figure:
    """How a discriminator's gradient joins the likelihood's: scaled where both reach the picture, and back as one."""
    axes = _canvas(axes, 12, 3.8)
    _circle(axes, 0.7, 1.8, "$z$", GREEN)
    _trapezoid(axes, (1.9, 1.8), (3.7, 1.8), 1.3, 1.9, "decoder", ORANGE)
    _box(axes, 5.6, 1.8, r"picture $\hat{x}$", GREY, width=1.7)
    _box(axes, 10, 3.0, "likelihood: is it $x$?", BLUE, width=3.1)
    _box(axes, 10, 0.6, "discriminator: a face?", BLUE, width=3.1)
    for start, end in ((1.1, 1.9), (1.9, 1.9)), ((3.7, 1.9), (4.75, 1.9)):
        _arrow(axes, start, end)
    _arrow(axes, (4.75, 1.65), (3.7, 1.65), RED, dashed=True)
    axes.text(4.25, 1.35, "$g$", ha="center", va="center", color=RED, fontsize=12)
    for y, text in (3.0, r"$g_\mathrm{pix}$"), (0.6, r"$g_\mathrm{adv}$, made $s$ times as long as $g_\mathrm{pix}$"):
        side = 1 if y > 1.8 else -1
        _arrow(axes, (6.45, 1.8 + 0.12 * side), (8.45, y))
        _arrow(axes, (8.45, y - 0.22 * side), (6.45, 1.8 - 0.02 * side), RED, dashed=True)
        axes.text(8.3, y - 0.62 * side, text, ha="left", va="center", color=RED, fontsize=11)
    axes.text(0, 0.1, "dashed: the gradients' way back", color=RED, fontsize=10, va="center")
    return axes.figure


@torch.no_grad()
def shapes(vae: VAE, size: int, axes: Axes | None = None) -> Figure:
    """The tensors on the way of one picture of `size` pixels through `vae`: as tall as they are, as thick as channels.

    The shapes are those that the network returns (height×width under each block, channels above it). `ValueError`
    for a size that the network cannot halve.
    """
    vae.latent_shape(size)
    with inference(vae):
        h = torch.zeros(1, vae.image_channels, size, size, device=next(vae.parameters()).device)
        down = [h] + [h := layer(h) for layer in (vae.encoder.stem, *vae.encoder.stages, vae.encoder.head)]
        h = h.chunk(2, dim=1)[0]
        up = [h] + [h := layer(h) for layer in (vae.decoder.stem, *vae.decoder.stages, vae.decoder.head)]
    blocks = [(h.shape, BLUE) for h in down] + [(up[0].shape, GREEN)] + [(h.shape, ORANGE) for h in up[1:]]

    tallest = 2.6
    axes = _canvas(axes, 0.82 * len(blocks), 4.4)
    for i, ((_, channels, height, width), colour) in enumerate(blocks):
        x, side = 0.82 * i + 0.3, tallest * (height / size) ** 0.5
        _slab(axes, x, 1.75, 0.05 + 0.011 * channels**0.5, side, colour)
        axes.text(x + 0.1, 0.25, f"{height}×{width}", ha="center", va="center", fontsize=9)
        axes.text(x + 0.1, 3.75, f"{channels}", ha="center", va="center", fontsize=9)
    axes.text(0, 4.1, "channels", fontsize=9, color=GREY, va="center")
    axes.text(0, -0.1, "height × width", fontsize=9, color=GREY, va="center")
    for i, text in (len(down) / 2, "encoder"), (len(down), "latent"), (len(down) + len(up) / 2, "decoder"):
        axes.text(0.82 * i + 0.4, 4.1, text, ha="center", va="center", weight="bold")
    return axes.figure


def _canvas(axes, width, height):
    if axes is None:
        _, axes = plt.subplots(figsize=(0.8 * width, 0.8 * height + 0.16), layout="constrained")
    axes.set(xlim=(0, width), ylim=(-0.2, height), aspect="equal")
    axes.axis("off")
    return axes


def _picture(axes, image, x, y, side=2.0):
    half = side / 2
    limits = axes.axis()
    axes.imshow(np.asarray(image), extent=(x - half, x + half, y - half, y + half), interpolation="lanczos")
    axes.axis(limits)  # imshow moves them


def _box(axes, x, y, text, colour, width=1.1, height=0.54):
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.1"
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, fc=_tint(colour), ec=colour, lw=1.5))
    axes.text(x, y, text, ha="center", va="center", fontsize=11)


def _circle(axes, x, y, text, colour, radius=0.4):
    axes.add_patch(Circle((x, y), radius, fc=_tint(colour), ec=colour, lw=1.5))
    axes.text(x, y, text, ha="center", va="center", fontsize=13)


def _trapezoid(axes, left, right, tall_left, tall_right, text, colour):
    (x0, y), (x1, _) = left, right
    corners = [(x0, y - tall_left / 2), (x1, y - tall_right / 2), (x1, y + tall_right / 2), (x0, y + tall_left / 2)]
    axes.add_patch(Polygon(corners, fc=_tint(colour), ec=colour, lw=1.5, joinstyle="round"))
    axes.text((x0 + x1) / 2, y, text, ha="center", va="center", weight="bold")


def _slab(axes, x, y, thick, side, colour):
    """A block seen from the right: a front of `thick` × `side`, a slanted side face and a top."""
    bottom, top, slant, end = y - side / 2, y + side / 2, 0.16 * side, x + thick
    front = [(x, bottom), (end, bottom), (end, top), (x, top)]
    right = [(end, bottom), (end + slant, bottom + slant), (end + slant, top + slant), (end, top)]
    above = [(x, top), (end, top), (end + slant, top + slant), (x + slant, top + slant)]
    for corners, strength in (front, 0.75), (right, 0.35), (above, 0.2):
        axes.add_patch(Polygon(corners, fc=_tint(colour, strength), ec=colour, lw=0.8, joinstyle="round"))


def _arrow(axes, start, end, colour=INK, dashed=False):
    style = {"arrowstyle": "-|>", "color": colour, "lw": 1.4, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 12}
    axes.annotate("", end, start, arrowprops=style | {"linestyle": "--" if dashed else "-"})


def _bracket(axes, x0, x1, y, text):
    axes.plot([x0, x0, x1, x1], [y, y - 0.15, y - 0.15, y], color=RED, lw=1.4)
    axes.text((x0 + x1) / 2, y - 0.25, text, ha="center", va="top", color=RED, fontsize=11)


def _tint(colour, strength=0.15):
    """The colour, thinned with white."""
    return tuple(1 - strength * (1 - np.array(to_rgb(colour))))
