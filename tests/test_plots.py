from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from vaelib.latents import PCAAxes
from vaelib.metrics import reconstruct
from vaelib.plots import (
    decode,
    face_grid,
    noise_grids,
    plot_history,
    reconstruction_grid,
    show_faces,
    to_gif,
    to_mp4,
    traversal_grid,
)
from vaelib.priors import published_priors


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def cell(grid, row: int, column: int, size: int = 64) -> torch.Tensor:
    """The picture at one place of a grid, (3, size, size) in [0, 1]: two pixels of white stand between two."""
    top, left = 2 + row * (size + 2), 2 + column * (size + 2)
    pixels = np.array(grid)[top : top + size, left : left + size]
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255


def test_face_grid_shows_each_picture_in_its_place(x):
    grid = face_grid(x[:10], columns=4)
    assert grid.size == (4 * 66 + 2, 3 * 66 + 2)
    for index in range(10):
        torch.testing.assert_close(cell(grid, index // 4, index % 4), x[index])
    assert grid.getpixel((0, 0)) == (255, 255, 255)


def test_face_grid_enlarges_and_clips(x):
    assert face_grid(x[:4], columns=2, scale=3).size == (3 * 134, 3 * 134)
    grid = face_grid(torch.full((1, 3, 8, 8), 1.7) * torch.tensor([1.0, -1.0, 0.0]).reshape(3, 1, 1))
    assert grid.getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("count", [16, 8, 11, 3])
def test_each_reconstruction_stands_under_its_original(tiny_vae, x, count):
    grid = face_grid(reconstruction_grid(tiny_vae, x[:count], columns=8), columns=8)
    x_hat = reconstruct(tiny_vae, x[:count])
    for index in range(count):
        row, column = 2 * (index // 8), index % 8
        torch.testing.assert_close(cell(grid, row, column), x[index])
        torch.testing.assert_close(cell(grid, row + 1, column), x_hat[index], atol=1 / 255, rtol=0)


def test_decode_uses_the_running_averages_and_leaves_the_model_as_it_was(tiny_vae):
    z = torch.randn(3, 8, 2, 2)
    faces = decode(tiny_vae.train(), z)
    assert tiny_vae.training
    with torch.no_grad():
        torch.testing.assert_close(faces, tiny_vae.eval().decode(z))


def test_noise_grids_decode_the_published_priors(tiny_vae):
    grids = noise_grids(tiny_vae, image_size=64, count=5, seed=3)
    assert list(grids) == ["N(0, I)", "N(0, 2²·I)", "exponential, scale 0.7"]
    for faces, prior in zip(grids.values(), published_priors((8, 2, 2)).values(), strict=True):
        z = prior.sample(5, torch.Generator().manual_seed(3))
        torch.testing.assert_close(faces, decode(tiny_vae, z))


def test_a_traversal_moves_one_axis_per_row(tiny_vae):
    directions = torch.eye(32)[:4].reshape(4, 8, 2, 2)
    scales = torch.tensor([4.0, 3.0, 2.0, 1.0])
    axes = PCAAxes(torch.randn(8, 2, 2), directions, scales, scales / 10)
    faces = traversal_grid(tiny_vae, axes, rows=3, values=(-2, 0, 1)).reshape(3, 3, 3, 64, 64)  # row, value, picture
    for row in range(3):
        expected = decode(tiny_vae, torch.stack([axes.mean + v * scales[row] * directions[row] for v in (-2, 0, 1)]))
        torch.testing.assert_close(faces[row], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(faces[0, 1], faces[2, 1])


def test_a_traversal_of_more_axes_than_there_are(tiny_vae):
    axes = PCAAxes(torch.zeros(8, 2, 2), torch.eye(32)[:4].reshape(4, 8, 2, 2), torch.ones(4), torch.ones(4) / 32)
    with pytest.raises(ValueError, match="got rows=6, expected at most 4, one for each axis"):
        traversal_grid(tiny_vae, axes)


def test_show_faces_titles_each_block(x):
    figure = show_faces({"originals": x, "two of them": x[:2]})
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["originals", "two of them"]
    shown = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_array_equal(shown, np.asarray(face_grid(x)))


def test_show_faces_enlarges_each_picture(x):
    figure = show_faces({"originals": x[:6], "the same again": x[:6]}, columns=3, scale=2)
    figure.canvas.draw()
    for axis in figure.axes:
        assert axis.get_window_extent().width == pytest.approx(2 * (3 * 66 + 2), abs=3)


def history(epochs: int, tested: bool) -> list[dict[str, float]]:
    entries = [{"epoch": e, "loss": 100 / e, "distortion": 90 / e, "rate": 10.0 * e} for e in range(1, epochs + 1)]
    test = {"test_loss": 110.0, "test_distortion": 95.0, "test_rate": 9.0, "test_psnr": 14.5}
    return [entry | test if tested else entry for entry in entries]


@pytest.mark.parametrize("epochs", [1, 5])
def test_plot_history_draws_training_and_held_out_faces(epochs):
    figure = plot_history(history(epochs, tested=True))
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["distortion", "rate", "PSNR"]
    distortion, _, psnr = figure.axes
    training, held_out = distortion.lines
    assert list(training.get_xdata()) == list(range(1, epochs + 1))
    assert list(training.get_ydata()) == [90 / e for e in range(1, epochs + 1)]
    assert list(held_out.get_ydata()) == [95.0] * epochs
    assert [line.get_label() for line in psnr.lines] == ["held out"]
    assert [text.get_text() for text in distortion.get_legend().get_texts()] == ["training", "held out"]
    assert [axis.get_ylabel() for axis in figure.axes] == ["nats per image", "nats per image", "dB"]


def test_plot_history_without_held_out_faces():
    figure = plot_history(history(3, tested=False))
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["distortion", "rate"]
    assert [len(axis.lines) for axis in figure.axes] == [1, 1]


def test_a_gif_plays_there_and_back():
    pictures = [Image.new("RGB", (32, 24), (60 * i, 255 - 60 * i, 0)) for i in range(4)]
    gif = Image.open(BytesIO(to_gif(pictures, seconds=0.05)))
    assert (gif.format, gif.size, gif.n_frames, gif.info["duration"], gif.info["loop"]) == ("GIF", (32, 24), 6, 50, 0)
    for frame, expected in enumerate([0, 1, 2, 3, 2, 1]):
        gif.seek(frame)
        assert gif.convert("RGB").getpixel((5, 5)) == pictures[expected].getpixel((5, 5))


def test_an_mp4_plays_there_and_back():
    av = pytest.importorskip("av")
    pictures = [Image.new("RGB", (33, 24), (60 * i, 200 - 40 * i, 50)) for i in range(4)]
    with av.open(BytesIO(to_mp4(pictures, seconds=0.05))) as film:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in film.decode(video=0)]
        assert (film.streams.video[0].codec.name, film.streams.video[0].average_rate) == ("h264", 20)
    assert [frame.shape for frame in frames] == [(24, 32, 3)] * 6
    for frame, expected in zip(frames, [0, 1, 2, 3, 2, 1], strict=True):
        assert np.abs(frame[5, 5] - pictures[expected].getpixel((5, 5))).max() < 12


@pytest.mark.parametrize("write", [to_gif, to_mp4])
def test_an_animation_needs_a_picture(write):
    if write is to_mp4:
        pytest.importorskip("av")
    with pytest.raises(ValueError, match="got no picture, expected at least one"):
        write([])
