"""What the pages need of the models that ship: decoders as they are, axes, draws from the priors, faces drawn in advance."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid


from vaelib.explorer import _first
from vaelib.explorer_state import Draw, ExplorerState
from vaelib.pretrained import SHIPPED, Bundle, load_pretrained, shipped

DRAWS = 64  # latents of each prior: a page has not PyTorch's random numbers, and takes one of these
GALLERY = 12  # faces to begin with, drawn in advance
BEST = "flow"  # the prior they come from, where there is one
THUMB = 48  # pixels a side of a strip's faces


def write_models(folder: Path) -> list[dict]:
    """Write all that the explorer loads into `folder`; the smallest model first. What it returns is in models.json too."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    spaces: dict[str, dict] = {}
    models = []
    for name in shipped():
        card = json.loads((SHIPPED / name / "card.json").read_text())
        if card["model"] != "VAE":
            continue
        base = card.get("base", name)
        bundle = load_pretrained(name)
        if base not in spaces:
            spaces[base] = _write_space(bundle, base, folder)
        models.append(_write_model(bundle, name, base, folder))
    models.sort(key=lambda model: model["bytes"])
    (folder / "models.json").write_text(json.dumps({"models": models, "spaces": spaces}, ensure_ascii=False))
    return models


def _write_model(bundle: Bundle, name: str, base: str, folder: Path) -> dict:
    config = json.loads((SHIPPED / base / "config.json").read_text())
    content = _decoder_file(SHIPPED / name)
    (folder / f"{name}.safetensors").write_bytes(content)
    state = ExplorerState(bundle, _first(bundle.attributes), name)
    strips = {"strips": state.strips(THUMB)}
    if state.can_be_orthogonal:
        state.orthogonal = True
        strips["right-angles"] = state.strips(THUMB)
        state.orthogonal = False
    for kind, rows in strips.items():
        whole = torch.cat([_pixels(row) for row in rows], dim=1)
        to_pil_image(whole).save(folder / f"{name}-{kind}.webp", quality=80, method=6)
    gallery, faces = [], [state.face()]
    for seed in range(GALLERY):
        state.prior, state.spread = (BEST if BEST in bundle.fitted else "axes"), 1.0
        codes = _face_of_seed(state, seed)
        gallery.append(codes)
        faces.append(state.face())
    sheet = make_grid(torch.stack(faces), nrow=len(faces), padding=0)
    to_pil_image(sheet).save(folder / f"{name}-faces.webp", quality=90, method=6)
    return {
        "name": name,
        "space": base,
        "config": config,
        "image_size": bundle.image_size,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "gallery": gallery,
        "right_angles": "right-angles" in strips,
        "faces": bundle.card["faces"],
        "limits": bundle.card.get("limits", ""),
    }


def _face_of_seed(state: ExplorerState, seed: int) -> str:
    """Go to the face of this seed, as `randomize` does, and give its code."""
    if state.prior == "axes":
        state.randomize(torch.Generator().manual_seed(seed))
    else:
        state.reset()
        state.draw = Draw(state.prior, seed, state.spread)
        weights, _ = state._taken_apart(state.draw)
        weights = [round(weight, 1) for weight in weights.clamp(-3, 3).tolist()]
        state.weights = weights + [0.0] * (len(state.names) - len(weights))
    return state.code


def _decoder_file(folder: Path) -> bytes:
    """The decoder's part of a bundle's weights, number for number as they ship: a safetensors file."""
    path = next(folder / name for name in ("decoder-int8.safetensors", "model-int8.safetensors", "model.safetensors") if (folder / name).exists())
    if path.name.startswith("decoder"):
        return path.read_bytes()
    with safe_open(path, "pt") as file:
        tensors = {name.removeprefix("decoder."): file.get_tensor(name) for name in file.keys() if name.startswith("decoder.")}  # noqa: SIM118
    return vaelib_save(tensors)


def vaelib_save(tensors: dict[str, torch.Tensor]) -> bytes:
    from safetensors.torch import save

    return save({name: value.contiguous() for name, value in tensors.items()})


def _write_space(bundle: Bundle, base: str, folder: Path) -> dict:
    """What models with one encoder share: axes and attributes, and latents drawn from each prior."""
    axes, attributes = bundle.axes, _first(bundle.attributes)
    tensors = {"mean": axes.mean, "directions": axes.directions, "scales": axes.scales}
    if attributes:
        tensors |= {"attributes": attributes.directions, "attribute_scales": attributes.scales}
        if len(attributes) <= attributes.directions[0].numel():
            tensors["right_angles"] = attributes.orthogonal().directions
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / f"{base}-space.safetensors")
    draws = {
        name: torch.cat([prior.sample(1, torch.Generator().manual_seed(seed)) for seed in range(DRAWS)]).half()
        for name, prior in bundle.priors.items()
    }
    save_file(draws, folder / f"{base}-draws.safetensors")
    return {
        "attributes": list(attributes.names) if attributes else [],
        "shape": list(axes.mean.shape),
        "priors": list(draws),
        "draws": DRAWS,
    }


def _pixels(picture) -> torch.Tensor:
    from torchvision.transforms.functional import pil_to_tensor

    return pil_to_tensor(picture)
