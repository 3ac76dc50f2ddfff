"""Write the pictures that README.md shows, from the shipped weights and drawn faces: `make images`.

Generated faces come from the largest models that ship; originals are always drawn ones.
"""

import json
from dataclasses import replace
from pathlib import Path

import nbformat
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

import vaelib
from vaelib import diagrams
from vaelib.metrics import reconstruct
from vaelib.plots import decode, face_grid, reconstruction_grid, to_gif, traversal_grid
from vaelib.pretrained import Bundle

HERE = Path(__file__).parent
STYLES = ("anime", "cartoon")


def side_by_side(grids: list[Image.Image], gap: int = 16) -> Image.Image:
    """Pictures in a row on white, as high as the highest."""
    width = sum(grid.width for grid in grids) + gap * (len(grids) - 1)
    row = Image.new("RGB", (width, max(grid.height for grid in grids)), "white")
    left = 0
    for grid in grids:
        row.paste(grid, (left, 0))
        left += grid.width + gap
    return row


def save(picture: Image.Image | Figure, name: str) -> None:
    """As images/NAME.jpg, or a drawing as NAME.png: the smaller form of each in which no eye sees a loss."""
    path = HERE / f"{name}.jpg"
    if isinstance(picture, Figure):
        path = path.with_suffix(".png")
        picture.savefig(path, dpi=100)
        Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)
    else:
        picture.save(path, quality=90, subsampling=0, optimize=True)
    print(f"images/{path.name}, {path.stat().st_size / 1000:.0f} kB")


def drawn(style: str, count: int, size: int = 64) -> Tensor:
    """Faces (count, 3, size, size) from a seed that no training used."""
    return vaelib.Faces(vaelib.draw_faces(style, count, size=size, seed=5)[0]).batch()


def sample(bundle: Bundle, prior: str, count: int) -> Tensor:
    return decode(bundle.vae, bundle.priors[prior].sample(count, torch.Generator().manual_seed(1)))


def while_training(bundle: Bundle, style: str, epochs: tuple[int, ...] = (1, 4, 20), count: int = 640) -> Tensor:
    """One face before training, after some epochs of a small model, by `bundle`, and itself: (6, 3, 64, 64)."""
    x = drawn(style, 1)
    torch.manual_seed(0)
    vae = vaelib.VAE(base_channels=8, latent_channels=32)
    seen = [reconstruct(vae, x)]

    def look(run) -> None:
        if len(run.history) in epochs:
            seen.append(reconstruct(run.vae, x))

    config = replace(vaelib.RECIPES["gaussian"], epochs=epochs[-1], batch_size=32)
    vaelib.train(vae, vaelib.load_faces(f"drawn-{style}", count=count), config, device="cpu", on_epoch=look)
    return torch.cat([*seen, reconstruct(bundle.vae, x), x])


def overview(small: dict[str, Bundle], large: dict[str, Bundle]) -> None:
    """Anime at left, cartoon at right: faces, reconstructions, samples and axes."""
    rows = {
        "faces": [face_grid(drawn(style, 12, size=128), columns=4) for style in STYLES],
        "reconstructions": [face_grid(reconstruction_grid(small[style].vae, drawn(style, 16))) for style in STYLES],
        "noise": [face_grid(torch.cat([sample(large[s], "normal", 16), sample(large[s], "flow", 16)])) for s in STYLES],
        "traversals": [face_grid(traversal_grid(large[s].vae, large[s].axes, rows=5), columns=7) for s in STYLES],
    }
    for name, pair in rows.items():
        save(side_by_side(pair), name)


def sharper(large: dict[str, Bundle], sharp: dict[str, Bundle]) -> None:
    """The same latents decoded by the calibrated models in odd rows and, under each, by the sharpened ones."""
    pairs = []
    for style, bundle in large.items():
        z = bundle.priors["flow"].sample(16, torch.Generator().manual_seed(1))
        soft, crisp = (decode(vae, z).split(8) for vae in (bundle.vae, sharp[style].vae))
        pairs.append(face_grid(torch.cat([row for pair in zip(soft, crisp, strict=True) for row in pair])))
    save(side_by_side(pairs), "sharper")


def map_of_the_lessons(small: dict[str, Bundle], large: dict[str, Bundle], sharp: dict[str, Bundle]) -> None:
    """A small picture for each."""
    for number, rows in {
        1: [torch.cat([x[:4], x.mean(0, keepdim=True)]) for x in (drawn(style, 300) for style in STYLES)],
        4: [while_training(small[style], style) for style in STYLES],
        5: [torch.cat(row) for row in zip(*(originals_and_back(small[s].vae, s) for s in STYLES), strict=True)],
        6: [torch.cat([sample(large[style], prior, 3) for style in STYLES]) for prior in ("normal", "flow")],
        7: [torch.cat([sample(bundle, "flow", 3) for bundle in bundles.values()]) for bundles in (large, sharp)],
        8: [torch.cat(row) for row in zip(*(with_other_hair(style) for style in STYLES), strict=True)],
        9: [torch.cat([as_asked(style) for style in STYLES])],
    }.items():
        save(face_grid(torch.cat(rows), columns=len(rows[0])), f"lesson-0{number}")
    save(diagrams.reparameterisation(), "lesson-02")
    save(diagrams.shapes(vaelib.VAE(), 64), "lesson-03")


def with_other_hair(style: str) -> tuple[Tensor, Tensor]:
    """Three drawn faces by the sharpened decoder, and the same with their hair changed."""
    bundle = vaelib.load_pretrained(f"drawn-{style}-sharp")
    z = vaelib.encode_faces(bundle.vae, vaelib.Faces(vaelib.draw_faces(style, 3, seed=7)[0])).mean
    choice = {"anime": "twintails", "cartoon": "pigtails"}[style]
    return decode(bundle.vae, z), decode(bundle.vae, bundle.attributes.swaps.swap(z, "hair", choice))


def as_asked(style: str) -> Tensor:
    """Three faces with pink hair and glasses."""
    bundle = vaelib.load_pretrained(f"drawn-{style}-sharp")
    asked = {
        "anime": {"hair_hue": 0.97, "hair_light": 0.7, "accessory": "glasses"},
        "cartoon": {"hair_colour": "pink", "glasses": "round", "mouth": "grin"},
    }[style]
    return decode(bundle.vae, bundle.priors["flow"].sample(3, torch.Generator().manual_seed(1), asked))


def film_of_a_training() -> None:
    """The training of lesson 04, by its own cells: held-out faces above, what its networks make of them below."""
    notebook = nbformat.read(HERE.parent / "notebooks" / "04_training.ipynb", as_version=4)
    names = {"vaelib": vaelib}
    for cell in [cell for cell in notebook.cells if cell.cell_type == "code"][1:]:  # the first installs the package
        if "originals" not in names:
            exec(cell.source, names)
    originals, seen = names["originals"], names["seen_by_both"]
    frames = [face_grid(torch.cat([originals, seen(step)]), scale=2) for step in sorted(names["LOOKS"])]
    film = to_gif(frames + 8 * frames[-1:], seconds=0.25, there_and_back=False)
    (HERE / "training.gif").write_bytes(film)
    film_for_the_site(originals, names["runs"], seen)


def film_for_the_site(originals: Tensor, runs: dict, seen) -> None:
    """The same film and its curves for site/static/figures.js: a sheet with the originals in its first row, then one
    row for each look, and what each step cost, in nats per face."""
    folder = HERE.parent / "site" / "data"
    steps = list(next(iter(runs.values()))["looks"])
    sheet = make_grid(torch.cat([originals, *map(seen, steps)]), nrow=len(originals), padding=0)
    to_pil_image(sheet).save(folder / "training.webp", quality=80, method=6)
    curves = {
        style: {
            "training": [round(cost) for cost in run["curve"].sum(1).tolist()],
            "held out": [round(float(sum(run["looks"][step]["averages"]))) for step in steps],
        }
        for style, run in runs.items()
    }
    (folder / "training.json").write_text(json.dumps({"steps": steps, "curves": curves}), encoding="utf-8")


def originals_and_back(vae: vaelib.VAE, style: str) -> tuple[Tensor, Tensor]:
    x = drawn(style, 3)
    return x, reconstruct(vae, x)


def main() -> None:
    small = {style: vaelib.load_pretrained(f"drawn-{style}") for style in STYLES}
    large = {style: vaelib.load_pretrained(style) for style in STYLES}
    sharp = {style: vaelib.load_pretrained(f"{style}-sharp") for style in STYLES}
    save(diagrams.vae(), "vae")
    overview(small, large)
    sharper(large, sharp)
    map_of_the_lessons(small, large, sharp)
    film_of_a_training()


if __name__ == "__main__":
    main()
