"""What the pages need of the models that ship: decoders, axes, draws from priors, faces drawn in advance."""

import hashlib
import json
import shutil
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from torchvision.utils import make_grid

from vaelib.explorer_state import Draw, ExplorerState, first_attributes
from vaelib.latents import interpolate
from vaelib.pretrained import SHIPPED, Bundle, load_pretrained, shipped

DRAWS = 64  # latents of each prior: a page has not PyTorch's random numbers, and takes one of these
GALLERY = 12  # faces to begin with, drawn in advance
BEST = "flow"  # the prior they come from, where there is one
THUMB = 64  # pixels a side of a strip's faces
FILMS, FILM_STEPS = 2, 12  # models of which the start page shows a film, and its frames from one face to the next


def write_models(folder: Path, earlier: Path) -> list[dict]:
    """Write all that the explorer loads into `folder`; the smallest model comes first.

    What it returns is in models.json too. Where the folder `earlier` has been made from the same weights by the same
    program, it is copied: drawing the faces takes most of a minute.
    """
    cards = [(name, (SHIPPED / name / "card.json").read_text(encoding="utf-8")) for name in shipped()]
    made_from = hashlib.sha256("".join([Path(__file__).read_text("utf-8"), *map(str, cards)]).encode()).hexdigest()
    if (earlier / "made_from").exists() and (earlier / "made_from").read_text() == made_from:
        shutil.copytree(earlier, folder)
        return json.loads((folder / "models.json").read_text(encoding="utf-8"))["models"]
    folder.mkdir(parents=True)
    cards = {name: json.loads(card) for name, card in cards}
    cards = {name: card for name, card in cards.items() if card["model"] == "VAE"}
    spaces, models = {}, []
    for name, card in cards.items():
        base, bundle = card.get("base", name), load_pretrained(name)
        if base not in spaces:
            spaces[base] = _write_space(bundle, base, folder)
        models.append(_write_model(bundle, name, base, folder))
    models.sort(key=lambda model: model["bytes"])
    for model in [model for model in models if "sharpened" in cards[model["name"]]][-FILMS:]:
        model["film"] = _write_film(model, folder)
    catalogue = json.dumps({"models": models, "spaces": spaces}, ensure_ascii=False)
    (folder / "models.json").write_text(catalogue, encoding="utf-8")
    (folder / "made_from").write_text(made_from)
    return models


def _write_model(bundle: Bundle, name: str, base: str, folder: Path) -> dict:
    config = json.loads((SHIPPED / base / "config.json").read_text())
    content = _decoder_file(SHIPPED / name)
    (folder / f"{name}.safetensors").write_bytes(content)
    state = ExplorerState(bundle, first_attributes(bundle.attributes), name)
    strips = {"strips": state.strips(THUMB)}
    if state.can_be_orthogonal:
        state.orthogonal = True
        strips["right-angles"] = state.strips(THUMB)
        state.orthogonal = False
    for kind, rows in strips.items():
        _save_picture(torch.cat([pil_to_tensor(row) for row in rows], dim=1), folder / f"{name}-{kind}.webp")
    gallery, faces = [], [state.face()]
    for seed in range(GALLERY):
        state.prior, state.spread = (BEST if BEST in bundle.fitted else "axes"), 1.0
        gallery.append(_face_of_seed(state, seed))
        faces.append(state.face())
    _save_picture(make_grid(torch.stack(faces), nrow=len(faces), padding=0), folder / f"{name}-faces.webp")
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
        state.take(Draw(state.prior, seed, state.spread))
    return state.code


def _write_film(model: dict, folder: Path) -> int:
    """Write a walk from face to face of the gallery and back, its frames side by side; their number."""
    bundle = load_pretrained(model["name"])
    state = ExplorerState(bundle, first_attributes(bundle.attributes), model["name"])
    stations = []
    for code in model["gallery"]:
        state.restore(code)
        stations.append(state.latent()[0])
    pairs = pairwise([*stations, stations[0]])
    walk = torch.cat([interpolate(*pair, FILM_STEPS + 1, spherical=True)[:-1] for pair in pairs])
    frames = torch.cat([state.decoder(z[None]) for z in walk])
    _save_picture(make_grid(frames, nrow=len(frames), padding=0), folder / f"{model['name']}-film.webp")
    return len(frames)


def _save_picture(picture: torch.Tensor, path: Path) -> None:
    to_pil_image(picture).save(path, quality=85, method=4)


def _decoder_file(folder: Path) -> bytes:
    """The decoder's part of a bundle's weights, number for number as they ship: a safetensors file."""
    if (whole := folder / "decoder-int8.safetensors").exists():
        return whole.read_bytes()
    path = next(path for path in (folder / "model-int8.safetensors", folder / "model.safetensors") if path.exists())
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if name.startswith("decoder.")]  # noqa: SIM118, it is no dict
        return save({name.removeprefix("decoder."): file.get_tensor(name) for name in names})


def _write_space(bundle: Bundle, base: str, folder: Path) -> dict:
    """What models with one encoder share: axes and attributes, and latents drawn from each prior."""
    axes, attributes = bundle.axes, first_attributes(bundle.attributes)
    tensors = {"mean": axes.mean, "directions": axes.directions, "scales": axes.scales}
    if attributes:
        tensors |= {"attributes": attributes.directions, "attribute_scales": attributes.scales}
        if len(attributes) <= attributes.directions[0].numel():
            tensors["right_angles"] = attributes.orthogonal().directions
    content = save({name: value.contiguous() for name, value in tensors.items()})
    (folder / f"{base}-space.safetensors").write_bytes(content)
    draws = {
        name: torch.cat([prior.sample(1, torch.Generator().manual_seed(seed)) for seed in range(DRAWS)]).half()
        for name, prior in bundle.priors.items()
    }
    (folder / f"{base}-draws.safetensors").write_bytes(save(draws))
    return {
        "attributes": list(attributes.names) if attributes else [],
        "limits": ExplorerState(bundle, attributes).limits,
        "shape": list(axes.mean.shape),
        "priors": list(draws),
        "draws": DRAWS,
    }
