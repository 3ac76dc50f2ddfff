"""Look: grids of faces, training curves, traversals. Each takes pictures as float (B, 3, H, W) in [0, 1]."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from vaelib.latents import PCAAxes
from vaelib.metrics import reconstruct
from vaelib.model import inference
from vaelib.priors import published_priors

# Okabe and Ito's palette: told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7F7F7F"


def face_grid(x: Tensor, columns: int = 8, scale: int = 1) -> Image.Image:
    """Pictures (B, 3, H, W) in rows of `columns` on white, each enlarged `scale` times: one PIL image."""
    grid = make_grid(x.detach().cpu().clamp(0, 1), nrow=columns, padding=2, pad_value=1.0)
    image = to_pil_image(grid)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)


def show_faces(rows: dict[str, Tensor], columns: int = 8, scale: float | None = None) -> Figure:
    """A figure with one titled block per entry of `rows`, each a grid of pictures (B, 3, H, W).

    Each picture is enlarged `scale` times; without it the figure is 648 pixels wide, however many there are in a row.
    """
    grids = {title: face_grid(x, columns) for title, x in rows.items()}
    dpi = 100 if scale else 72  # a grid of faces hardly compresses: in print quality a notebook outgrows GitHub
    widest = max(grid.width for grid in grids.values())
    width = scale * widest / dpi + 0.09 if scale else 9  # 0.09: the margins
    inches = [width * grid.height / grid.width + 0.3 for grid in grids.values()]
    figure, axes = plt.subplots(
        len(grids),
        1,
        figsize=(width, sum(inches)),
        dpi=dpi,
        height_ratios=inches,
        squeeze=False,
        layout="constrained",
    )
    for axis, (title, grid) in zip(axes.flat, grids.items(), strict=True):
        axis.imshow(np.asarray(grid), interpolation="lanczos")
        axis.set_title(title, loc="left", fontsize=11)
        axis.axis("off")
    return figure


def reconstruction_grid(vae: nn.Module, x: Tensor, columns: int = 8) -> Tensor:
    """Originals and, under each, its reconstruction: (2·B, 3, H, W) in the order that `face_grid` wants.

    White pictures fill up the last row.
    """
    x_hat = reconstruct(vae, x.to(next(vae.parameters()).device))
    blank = torch.ones(-len(x) % columns, *x.shape[1:])
    above, below = (torch.cat([faces.cpu(), blank]).split(columns) for faces in (x, x_hat))
    return torch.cat([row for pair in zip(above, below, strict=True) for row in pair])


def decode(vae: nn.Module, z: Tensor) -> Tensor:
    """Faces (B, 3, H, W) on the CPU for latents `z`, with batch norm in its inference mode."""
    with inference(vae) as device:
        return vae.decode(z.to(device)).cpu()


def noise_grids(vae: nn.Module, image_size: int, count: int = 16, seed: int = 0) -> dict[str, Tensor]:
    """`count` faces (count, 3, H, W) decoded from each of the published priors, by title; for `show_faces`."""
    titles = {"normal": "N(0, I)", "wide": "N(0, 2²·I)", "exponential": "exponential, scale 0.7"}
    priors = published_priors(vae.latent_shape(image_size))
    return {
        titles[name]: decode(vae, prior.sample(count, torch.Generator().manual_seed(seed)))
        for name, prior in priors.items()
    }


def traversal_grid(
    vae: nn.Module, axes: PCAAxes, rows: int = 6, values: Sequence[float] = (-3, -2, -1, 0, 1, 2, 3)
) -> Tensor:
    """Faces (rows·len(values), 3, H, W): along each of the first `rows` axes from `values[0]` to `values[-1]` σ.

    `ValueError` for more rows than there are axes.
    """
    if rows > len(axes):
        raise ValueError(f"got rows={rows}, expected at most {len(axes)}, one for each axis")
    weights = torch.zeros(rows, len(values), len(axes))
    for row in range(rows):
        weights[row, :, row] = torch.tensor(values)
    return decode(vae, axes.latents(weights.flatten(0, 1)))


def plot_history(history: list[dict[str, float]]) -> Figure:
    """Distortion, rate and (where there are test faces) PSNR by epoch: training dashed, held-out faces solid."""
    epochs = [entry["epoch"] for entry in history]
    tested = "test_psnr" in history[0]
    panels = {"distortion": "nats per image", "rate": "nats per image"} | ({"psnr": "dB"} if tested else {})
    figure, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 2.8), layout="constrained")
    style = {"marker": "o" if len(history) <= 12 else "", "ms": 3}  # many dots would hide the dashes
    for axis, (name, unit) in zip(axes, panels.items(), strict=True):
        if name in history[0]:
            axis.plot(epochs, [entry[name] for entry in history], "--", **style, color=ORANGE, label="training")
        if tested:
            axis.plot(epochs, [entry[f"test_{name}"] for entry in history], **style, color=BLUE, label="held out")
        axis.set(xlabel="epoch", ylabel=unit)
        axis.set_title({"psnr": "PSNR"}.get(name, name), loc="left", fontsize=11)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    return figure


def to_gif(
    pictures: Sequence[Image.Image], seconds: float = 0.04, there_and_back: bool = True, size: int | None = None
) -> bytes:
    """RGB pictures of one size as a GIF that plays for ever, `seconds` each; back to front again, so that none jumps.

    With `size` each is enlarged to `size`×`size` pixels when its turn comes, so that only one is large at a time.
    Raises `ValueError` for no picture at all.
    """
    # The octree takes a millisecond where Pillow's default, a median cut, takes a quarter of a second.
    quantize = partial(Image.Image.quantize, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    frames = [quantize(picture) if picture.mode == "RGB" else picture for picture in _enlarged(pictures, size)]
    frames = _played(frames, there_and_back)
    file = BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=round(1000 * seconds), loop=0)
    return file.getvalue()


def to_mp4(
    pictures: Sequence[Image.Image], seconds: float = 0.04, there_and_back: bool = True, size: int | None = None
) -> bytes:
    """The same as an MP4 (H.264): plays once, in all colours, in a twentieth of the GIF's bytes. Sides are made even.

    Needs PyAV, `pip install av`.
    """
    import av

    frames, file = _played(pictures, there_and_back), BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=Fraction(seconds).limit_denominator(1000) ** -1)
        stream.width, stream.height = (side - side % 2 for side in ((size, size) if size else frames[0].size))
        stream.pix_fmt = "yuv420p"  # what every browser plays; it holds colours at half the resolution
        for frame in _enlarged(frames, size):
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())  # what the encoder still holds
    return file.getvalue()


def _enlarged(pictures: Sequence[Image.Image], size: int | None) -> Iterator[Image.Image]:
    return (picture.resize((size, size), Image.Resampling.LANCZOS) if size else picture for picture in pictures)


def _played(pictures: Sequence[Image.Image], there_and_back: bool) -> list[Image.Image]:
    if not pictures:
        raise ValueError("got no picture, expected at least one")
    return [*pictures, *(pictures[-2:0:-1] if there_and_back else [])]
