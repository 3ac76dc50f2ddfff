"""A trained model with all that its explorer needs, as a folder of safetensors and JSON: no pickle, no network.

bundle = load_pretrained("drawn-anime")     # ships with the package
bundle = load_pretrained("path/to/run")     # what `python -m vaelib train` wrote
"""

import copy
import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from vaelib.faces import Faces
from vaelib.latents import NamedAxes, PCAAxes, encode_faces, fit_attributes, fit_pca, labels_of
from vaelib.model import VAE, DenseVAE
from vaelib.priors import FittedPrior, Prior, fit_priors, priors_from_tensors, priors_to_tensors, published_priors
from vaelib.storage import atomic_file, checked_tensor, expand, put, read_tensors, read_text, unfinished

SHIPPED = Path(__file__).parent / "weights"
MODELS = {"VAE": VAE, "DenseVAE": DenseVAE}
FILES = [f"{name}.safetensors" for name in ("model", "model-int8", "decoder-int8", "axes", "attributes", "priors")]
STORED = ("sha256", "base")  # keys of a card.json that say how a bundle is stored, and nothing of the model


@dataclass(frozen=True)
class Bundle:
    """A trained `vae` (on the CPU, in eval mode), the PCA `axes` of its training faces' latents, and its `card`.

    The card says what the model is, in plain JSON values: model, image_size, faces, and what `make_bundle` was told.
    `fitted` holds the priors that were fitted to the latents, by name, where there are any. `attributes` are the axes
    of the faces' labels, or of their hair's and skin's colours; None where nothing varies. `name` is that of a bundle
    that ships.
    """

    vae: nn.Module
    axes: PCAAxes
    card: dict
    fitted: dict[str, FittedPrior] = field(default_factory=dict)
    attributes: NamedAxes | None = None
    name: str | None = None

    @property
    def image_size(self) -> int:
        return self.card["image_size"]

    @property
    def priors(self) -> dict[str, Prior]:
        """Where to draw latents from, by name: those of `published_priors`, and the fitted ones."""
        return published_priors(self.vae.latent_shape(self.image_size)) | self.fitted

    def save_decoder(self, folder: str | Path, base: str) -> Path:
        """Write only what a bundle that ships, `base`, has not: the card, and the decoder as int8.

        `ValueError` unless the encoder is that of `base`, as after `sharpen`; then its axes and priors hold here too.
        """
        theirs = load_pretrained(base).vae.encoder.state_dict()
        mine = self.vae.encoder.state_dict()
        # Not batch norm's counters: an average of the weights averages those too, and nothing reads them here.
        if not all(torch.equal(value, theirs[name]) for name, value in mine.items() if value.is_floating_point()):
            raise ValueError(f"got a bundle with another encoder than {base!r}, expected the same: use save()")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / "decoder-int8.safetensors") as path:
            save_file(_to_int8(self.vae.decoder.state_dict()), path)
        digests = {"decoder-int8.safetensors": _sha256(folder / "decoder-int8.safetensors")}
        with atomic_file(folder / "card.json") as path:
            path.write_text(json.dumps(self.card | {"base": base, "sha256": digests}, indent=1, allow_nan=False) + "\n")
        return folder

    def save(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write the bundle into `folder`, weights as `dtype`; `load_pretrained` reads it.

        float16 halves the file. int8 makes it a quarter: each output or input channel of a layer has its own scale.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished(folder) as part:  # each file gets its final name when complete
            vae = copy.deepcopy(self.vae).to(memory_format=torch.contiguous_format)
            vae.to(dtype if dtype.is_floating_point else torch.float32).save_pretrained(part)
            if dtype == torch.int8:
                Path(part, "model.safetensors").unlink()
                save_file(_to_int8(vae.state_dict()), Path(part, "model-int8.safetensors"))
            axes = {name: tensor for name, tensor in vars(self.axes).items() if tensor is not None}
            save_file(axes, Path(part, "axes.safetensors"))
            if self.attributes:
                self.attributes.save(Path(part, "attributes.safetensors"))
            if self.fitted:
                save_file(priors_to_tensors(self.fitted), Path(part, "priors.safetensors"))
            files = sorted(path for path in Path(part).iterdir() if path.suffix == ".safetensors")
            card = self.card | {"sha256": {path.name: _sha256(path) for path in files}}
            Path(part, "card.json").write_text(json.dumps(card, indent=1, allow_nan=False) + "\n")
            for name in ("config.json", *(path.name for path in files), "card.json"):
                put(part / name, folder / name)  # the card last: it says that a bundle is there
        for name in set(FILES) - set(card["sha256"]):  # of a bundle that was here before
            (folder / name).unlink(missing_ok=True)
        return folder


def make_bundle(vae: nn.Module, faces: Faces, card: dict, axes: int = 12, flow_steps: int = 0) -> Bundle:
    """Fit `axes` PCA axes (fewer where the latents have fewer) on `faces`, the ones trained on; add model and card.

    With `flow_steps` above 0 the priors of `fit_priors` are fitted too, the flow so that it can be asked for what
    `labels_of` the faces tell: 3,000 steps take minutes.
    """
    known = {"model": type(vae).__name__, "image_size": faces.images.shape[1], "faces": faces.name}
    vae = vae.cpu().eval()
    posterior = encode_faces(vae, faces)
    latents = posterior.mean
    pca = fit_pca(latents, min(axes, len(latents) - 1, latents[0].numel()))
    labels = labels_of(faces)
    try:
        attributes = fit_attributes(latents, labels)
    except ValueError:  # no label varies among these faces
        attributes, labels = None, None
    fitted = fit_priors(posterior, flow_steps, labels=labels) if flow_steps else {}
    return Bundle(vae, pca, known | card, fitted, attributes)


def load_pretrained(name: str | Path) -> Bundle:
    """Load a bundle that ships with the package, by name, or one from a folder. Works offline.

    Every file is compared with the digest that the card keeps of it, and every tensor with what it should be. Raises
    `FileNotFoundError` for an unknown name or a folder without a bundle, `ValueError` for damaged files.
    """
    folder = SHIPPED / name if str(name) in shipped() else expand(name)
    if not (folder / "card.json").exists():
        raise FileNotFoundError(
            f"no bundle called {str(name)!r}: those that ship are {', '.join(shipped())}. "
            "Or give the folder that `python -m vaelib train` wrote; it holds a card.json."
        )
    try:
        card = json.loads(read_text(folder / "card.json"))
        stored = {key: card.pop(key) for key in STORED if key in card}
        if not stored["sha256"].keys() <= {*FILES} or not isinstance(card["faces"], str):
            raise ValueError(f"its card names the files {[*stored['sha256']]} and the faces {card['faces']!r}")
        for file, digest in stored["sha256"].items():
            if _sha256(folder / file) != digest:
                raise ValueError(f"{file} is not what was saved")
        if "decoder-int8.safetensors" in stored["sha256"]:
            bundle = _on_base(folder, card, stored["base"])
        else:
            bundle = _read_whole(folder, card, stored["sha256"])
        return replace(bundle, name=str(name) if folder.parent == SHIPPED else None)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"the bundle in {folder} is damaged ({error}): install or train it again") from error


def _on_base(folder: Path, card: dict, base: str) -> Bundle:
    """What `save_decoder` wrote: all but the decoder is that of `base`, which ships."""
    if base not in shipped():
        raise ValueError(f"it stands on {base!r}, expected a bundle that ships")
    bundle = load_pretrained(base)
    _load_weights(bundle.vae.decoder, _from_int8(read_tensors(folder / "decoder-int8.safetensors")))
    return replace(bundle, card=card)


def _read_whole(folder: Path, card: dict, files: dict[str, str]) -> Bundle:
    """What `save` wrote; `files` are its safetensors files, with their digests."""
    vae = MODELS[card["model"]](**json.loads(read_text(folder / "config.json")))
    shape = vae.latent_shape(card["image_size"])
    if not {"model.safetensors", "model-int8.safetensors"} & files.keys() or "axes.safetensors" not in files:
        raise ValueError("its card names no model or no axes")
    if "model-int8.safetensors" in files:
        _load_weights(vae, _from_int8(read_tensors(folder / "model-int8.safetensors")))
    else:
        _load_weights(vae, read_tensors(folder / "model.safetensors"))
    axes = PCAAxes(**read_tensors(folder / "axes.safetensors"))
    count = len(axes.directions)
    shapes = {"mean": shape, "directions": (count, *shape), "scales": (count,), "explained": (count,)}
    if axes.limits is not None:
        shapes["limits"] = (count, 2)
    axes = PCAAxes(**{name: checked_tensor(f"axes: {name}", vars(axes)[name], shapes[name]) for name in shapes})
    if not count or axes.scales.min() < 0:
        raise ValueError("axes: got none, or scales below 0")
    attributes, fitted = None, {}
    if "attributes.safetensors" in files:
        attributes = NamedAxes.load(folder / "attributes.safetensors")
        checked_tensor("attributes: directions", attributes.directions, (len(attributes), *shape))
    if "priors.safetensors" in files:
        fitted = priors_from_tensors(read_tensors(folder / "priors.safetensors"))
        checked_tensor("priors: gaussian.mean", fitted["gaussian"].mean, shape)
    return Bundle(vae.eval(), axes, card, fitted, attributes)


def _load_weights(network: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, mine in network.state_dict().items():
        if name.endswith("num_batches_tracked"):  # which nothing reads
            continue
        value = weights.get(name, mine)
        if value.is_floating_point() != mine.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
            raise ValueError(f"{name}: got {value.dtype}, expected numbers such as {mine.dtype}")
        if not value.isfinite().all() or (name.endswith("running_var") and value.min() < 0):
            raise ValueError(f"{name} holds numbers that are not finite, or a variance below 0")
    network.load_state_dict(weights)


def shipped() -> list[str]:
    """The names of the bundles that come with the package."""
    return sorted(card.parent.name for card in SHIPPED.glob("*/card.json"))


def _to_int8(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of two or more dimensions as int8; beside each its scales, one for each entry of its first dimension."""
    stored = {}
    for name, value in state.items():
        stored[name] = value
        if value.ndim > 1:
            scale = value.flatten(1).abs().amax(1).clamp(min=1e-12) / 127
            stored[name] = (value / _like(value, scale)).round().to(torch.int8)
            stored[f"{name}.scale"] = scale
    return stored


def _from_int8(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    scales = {name.removesuffix(".scale"): value for name, value in stored.items() if name.endswith(".scale")}
    state = {name: value for name, value in stored.items() if not name.endswith(".scale")}
    for name, scale in scales.items():
        checked_tensor(f"{name}.scale", scale, (len(state[name]),))
    return state | {name: state[name] * _like(state[name], scale) for name, scale in scales.items()}


def _like(value: Tensor, scale: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (value.ndim - 1))


def _sha256(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is no ordinary file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
