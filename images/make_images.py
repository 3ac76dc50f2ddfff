"""Write the pictures that README.md shows, from the shipped weights and drawn faces: `make images`."""

from pathlib import Path

import torch
from PIL import Image

import vaelib
from vaelib.plots import decode, face_grid, reconstruction_grid, traversal_grid

HERE = Path(__file__).parent
STYLES = ("anime", "cartoon")


def side_by_side(grids: list[Image.Image], gap: int = 16) -> Image.Image:
    """Pictures of one height in a row on white."""
    width = sum(grid.width for grid in grids) + gap * (len(grids) - 1)
    row = Image.new("RGB", (width, max(grid.height for grid in grids)), "white")
    left = 0
    for grid in grids:
        row.paste(grid, (left, 0))
        left += grid.width + gap
    return row


def main() -> None:
    """Faces, reconstructions, noise and traversals: anime at left, cartoon at right."""
    grids: dict[str, list[Image.Image]] = {"faces": [], "reconstructions": [], "noise": [], "traversals": []}
    for style in STYLES:
        bundle = vaelib.load_pretrained(f"drawn-{style}")
        unseen = vaelib.Faces(vaelib.draw_faces(style, 16, seed=5)[0])  # a seed that no training used
        large = vaelib.draw_faces(style, 12, size=128, seed=4)[0]
        grids["faces"].append(face_grid(torch.from_numpy(large).permute(0, 3, 1, 2) / 255, columns=4))
        grids["reconstructions"].append(face_grid(reconstruction_grid(bundle.vae, unseen.batch())))
        z = bundle.priors["normal"].sample(32, torch.Generator().manual_seed(1))
        grids["noise"].append(face_grid(decode(bundle.vae, z)))
        grids["traversals"].append(face_grid(traversal_grid(bundle.vae, bundle.axes, rows=5), columns=7))
    for name, pair in grids.items():
        side_by_side(pair).save(HERE / f"{name}.png", optimize=True)
        print(f"images/{name}.png")


if __name__ == "__main__":
    main()
