"""Diagrams: what they say is true of the network, nothing is cut off, no label lies on another."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from vaelib import VAE, diagrams


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def labels(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


DRAWINGS = {
    "vae": diagrams.vae,
    "reparameterisation": diagrams.reparameterisation,
    "two_gradients": diagrams.two_gradients,
    "shapes": lambda axes=None: diagrams.shapes(VAE(), 64, axes),
}
every_drawing = pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)


@every_drawing
def test_every_label_is_inside_and_none_lies_on_another(draw):
    figure = draw()
    figure.canvas.draw()
    boxes = {text: text.get_window_extent() for text in figure.axes[0].texts if text.get_text()}
    for text, box in boxes.items():
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text
    assert not [(a, b) for a, b in combinations(boxes, 2) if boxes[a].overlaps(boxes[b])]


@every_drawing
def test_draws_on_given_axes_and_opens_no_figure_of_its_own(draw):
    figure, (left, right) = plt.subplots(1, 2)
    assert draw(left) is figure
    assert left.patches and not right.has_data()
    assert plt.get_fignums() == [figure.number]


def test_the_vae_shows_a_face_and_a_reconstruction_that_is_near_it():
    face, x_hat = (np.asarray(image.get_array(), float) for image in diagrams.vae().axes[0].images)
    face = face / 255
    assert face.shape == x_hat.shape == (64, 64, 3)
    assert 0 < np.square(face - x_hat).mean() < 0.2 * face.var()


@pytest.mark.parametrize("size", [64, 128])
def test_shapes_are_those_of_a_forward_pass(size):
    vae = VAE(base_channels=4, latent_channels=8)
    seen = []
    for half in vae.encoder, vae.decoder:
        for layer in (half.stem, *half.stages, half.head):
            layer.register_forward_hook(lambda layer, args, output: seen.append(output.shape))
    figure = diagrams.shapes(vae, size)
    assert vae.training  # as before
    seen.clear()
    vae.eval()(torch.rand(1, 3, size, size))

    rows = [*seen[:7], (1, *vae.latent_shape(size)), *seen[7:]]
    for _, channels, height, width in rows:
        assert f"{height}×{width}" in labels(figure) and f"{channels}" in labels(figure)
    assert [text for text in labels(figure) if "×" in text and text[0].isdigit()] == [
        f"{size}×{size}",
        *(f"{height}×{width}" for _, _, height, width in rows),
    ]


def test_shapes_refuse_a_size_that_does_not_fit():
    with pytest.raises(ValueError, match="multiple of 32"):
        diagrams.shapes(VAE(base_channels=4), 100)
