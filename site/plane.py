"""The planes of lesson 02 for each σ, into site/data: `python site/plane.py`, about a minute and a half on one core.

The faces, the network and the training are the lesson's own cells; only σ differs from model to model.
"""

import json
import math
import re
from pathlib import Path

import nbformat
import torch
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

HERE = Path(__file__).parent
SIGMAS = (0.03, 0.1, 0.3, 0.6, 1.0, 3.0, 5.0, 9.9)  # from a cloud that sprawls to the one that collapses
STYLE = "anime"
TILES, REACH = 15, 6.0  # faces across the plane, which ends at ±REACH
PRIOR = 2.45  # the radius that holds 95 % of N(0, I)


def lesson() -> dict:
    """The names that lesson 02's cells define up to `vae_loss`, without running its trainings."""
    names = {}
    notebook = nbformat.read(HERE.parent / "notebooks" / "02_maths.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and "vae_loss" not in names and re.match("import|FREE|def |class ", cell.source):
            exec(cell.source, names)
    return names


def mosaic(model) -> torch.Tensor:
    """The plane decoded place by place, from its upper left: float (3, TILES · 32, TILES · 32)."""
    places = (torch.arange(TILES) + 0.5) * 2 * REACH / TILES - REACH
    z = torch.cartesian_prod(places.flip(0), places).flip(1)
    return make_grid(model.decoder(z), nrow=TILES, padding=0)


def scores(names: dict, model, x: torch.Tensor, sigma: float) -> dict:
    """What held-out faces (B, 3, 32, 32) cost under `sigma`, in nats per face, and where they lie."""
    torch.manual_seed(0)
    mean, log_var = model.encode(x)
    squared = names["squared_error"](model.decoder(names["draw"](mean, log_var)), x).mean().item()
    pixels = x[0].numel()
    return {
        "rate": names["kl"](mean, log_var).mean().item(),
        "distortion": squared / (2 * sigma**2) + pixels * math.log(sigma * math.sqrt(2 * math.pi)),
        "error": (model.decoder(mean) - x).square().mean().sqrt().item(),
        "inside": (mean.norm(dim=1) < PRIOR).float().mean().item(),
    }


def main() -> None:
    names, models = lesson(), []
    x, _ = names["two_factor_faces"](STYLE)
    for sigma in SIGMAS:
        model = names["fit"](lambda model, x, sigma=sigma: names["vae_loss"](model, x, sigma), x[:600])
        cloud = model.encode(x[600:])[0]
        name = f"plane-{sigma}.webp"
        to_pil_image(mosaic(model)).save(HERE / "data" / name, quality=36, method=6)
        found = {"sigma": sigma, "mosaic": name, **scores(names, model, x[600:], sigma)}
        found = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
        models.append(found | {"cloud": [[round(value, 2) for value in point] for point in cloud.tolist()]})
        print({key: value for key, value in found.items() if key != "mosaic"}, flush=True)
    planes = {"tiles": TILES, "reach": REACH, "circle": PRIOR, "models": models}
    (HERE / "data" / "plane.json").write_text(json.dumps(planes, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
