"""The latent space of a trained VAE: encode a data set, find its main axes and named ones, walk between two faces."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from sklearn.decomposition import PCA
from torch import Tensor, nn

from vaelib.faces import Faces
from vaelib.model import Posterior, inference
from vaelib.storage import atomic_file, check_header, checked_tensor
from vaelib.swaps import Swaps, fit_swaps


def encode_faces(vae: nn.Module, faces: Faces, batch_size: int = 256) -> Posterior:
    """The posteriors of all `faces`, on the CPU: `mean` and `log_var` are float32 (N, *latent_shape)."""
    with inference(vae) as device:
        posteriors = [
            vae.encode(faces.batch(slice(start, start + batch_size)).to(device))
            for start in range(0, len(faces), batch_size)
        ]
    return Posterior(
        torch.cat([posterior.mean for posterior in posteriors]).cpu(),
        torch.cat([posterior.log_var for posterior in posteriors]).cpu(),
    )


@dataclass(frozen=True)
class PCAAxes:
    """The directions in which a data set's latents vary most.

    `mean` (*latent_shape), `directions` (K, *latent_shape) orthonormal, `scales` (K,) the standard deviation of the
    data along each, `explained` (K,) the fraction of the variance, largest first, and `limits` (K, 2) the weights
    between which 98 % of the data lie; None with axes that were saved before these were measured. All float32.
    """

    mean: Tensor
    directions: Tensor
    scales: Tensor
    explained: Tensor
    limits: Tensor | None = None

    def __len__(self) -> int:
        return len(self.directions)

    def latents(self, weights: Tensor) -> Tensor:
        """Latents (B, *latent_shape) at `weights` (B, K), in standard deviations from the mean. 0 is the mean face."""
        return self.mean + _steps(weights, self.scales, self.directions)

    def weights(self, z: Tensor) -> Tensor:
        """The inverse: the coordinates (B, K), in standard deviations, of latents `z` (B, *latent_shape)."""
        return (z - self.mean).flatten(1) @ self.directions.flatten(1).T / self.scales


def fit_pca(latents: Tensor, count: int = 12) -> PCAAxes:
    """The `count` main axes of `latents`, float (N, *latent_shape) with N > count, by scikit-learn's PCA.

    Each axis points so that its largest component is positive: the sign is arbitrary, this makes it repeatable.
    """
    shape, flat = latents.shape[1:], latents.flatten(1)
    most = min(len(flat) - 1, flat.shape[1])  # N points span N - 1 directions
    if not 1 <= count <= most:
        raise ValueError(f"got count={count}, expected 1 to {most} for latents of {tuple(flat.shape)}")
    pca = PCA(count, svd_solver="full").fit(flat.double().numpy())
    directions = torch.from_numpy(pca.components_)
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    axes = PCAAxes(
        mean=torch.from_numpy(pca.mean_).float().reshape(shape),
        directions=(directions * largest.sign()).float().contiguous().reshape(count, *shape),
        scales=torch.from_numpy(pca.explained_variance_).sqrt().float(),
        explained=torch.from_numpy(pca.explained_variance_ratio_).float().nan_to_num(),  # 0 of no variance is 0
    )
    return replace(axes, limits=_limits(axes.weights(latents.float()).nan_to_num().numpy()))


@dataclass(frozen=True)
class NamedAxes:
    """Directions in latent space that each have a name, such as "skin" or "glasses=round".

    `names` are K texts, `directions` float32 (K, *latent_shape) of length 1, and `scales` float32 (K,): how far a
    latent moves for one unit of weight. `limits` float32 (K, 2) are the weights between which 98 % of the faces lie (of
    a choice: those of the faces without and with it), and `swaps` go from one choice to another; None with axes that
    have no such thing, or were saved before there was.
    """

    names: tuple[str, ...]
    directions: Tensor
    scales: Tensor
    limits: Tensor | None = None
    swaps: Swaps | None = None

    def __len__(self) -> int:
        return len(self.names)

    def offsets(self, weights: Tensor) -> Tensor:
        """What to add to latents for `weights` (B, K): float32 (B, *latent_shape)."""
        return _steps(weights, self.scales, self.directions)

    def pick(self, *names: str) -> "NamedAxes":
        """Only the axes called so, in that order, without swaps. Raises `ValueError` for a name that is not there."""
        if unknown := [name for name in names if name not in self.names]:
            raise ValueError(f"no axis called {', '.join(unknown)}; there are: {', '.join(self.names)}")
        rows = [self.names.index(name) for name in names]
        limits = None if self.limits is None else self.limits[rows]
        return NamedAxes(names, self.directions[rows], self.scales[rows], limits)

    def joined(self, other: "NamedAxes") -> "NamedAxes":
        """These axes, with their swaps, and then those of `other`."""
        both = {name: torch.cat([getattr(self, name), getattr(other, name)]) for name in ("directions", "scales")}
        known = self.limits is not None and other.limits is not None
        limits = torch.cat([self.limits, other.limits]) if known else None
        return replace(self, names=self.names + other.names, limits=limits, **both)

    def orthogonal(self) -> "NamedAxes":
        """The axes at right angles to each other that are nearest to these: each then keeps out of the others' way.

        None comes first (as in Gram and Schmidt's way): this is Löwdin's symmetric orthogonalisation.
        """
        if len(self) > (most := self.directions[0].numel()):
            raise ValueError(f"got {len(self)} axes in {most} dimensions, which can't be at right angles: pick fewer")
        u, _, v = torch.linalg.svd(self.directions.flatten(1).double(), full_matrices=False)
        return replace(self, directions=(u @ v).float().reshape(self.directions.shape))

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file, names and all, for `NamedAxes.load`."""
        with atomic_file(Path(path)) as part:
            part.write_bytes(self.to_bytes())
        return Path(path)

    def to_bytes(self) -> bytes:
        """What `save` writes."""
        names = torch.frombuffer(bytearray(json.dumps(self.names).encode()), dtype=torch.uint8)
        tensors = {"names": names, "directions": self.directions, "scales": self.scales}
        if self.limits is not None:
            tensors["limits"] = self.limits
        if self.swaps:
            tensors |= self.swaps.to_tensors()
        return safetensors.torch.save(tensors)

    @classmethod
    def load(cls, file: str | Path | bytes) -> "NamedAxes":
        """From what `save` wrote, or its bytes. `FileNotFoundError`, or `ValueError` for another or a damaged file."""
        content, title = (file, "the file") if isinstance(file, bytes) else (_content(Path(file)), file)
        try:
            check_header(content, title)
            tensors = safetensors.torch.load(content)
            names, directions = tuple(json.loads(bytes(tensors["names"].tolist()))), tensors["directions"]
            if not (names and all(isinstance(name, str) and name for name in names) and len({*names}) == len(names)):
                raise ValueError(f"its names are {names}, expected different texts")
            directions = checked_tensor("directions", directions, (len(names), *directions.shape[1:]))
            axes = cls(names, directions, checked_tensor("scales", tensors["scales"], (len(names),)))
            if "limits" in tensors:
                axes = replace(axes, limits=checked_tensor("limits", tensors["limits"], (len(names), 2)))
            if "choices" in tensors:
                axes = replace(axes, swaps=Swaps.from_tensors(tensors, directions[0].numel()))
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{title} holds no named axes ({error}): give what NamedAxes.save wrote") from error
        return axes


def _content(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no ordinary file: give what NamedAxes.save wrote")
    return path.read_bytes()


def fit_attributes(latents: Tensor, labels: Mapping[str, np.ndarray]) -> NamedAxes:
    """Axes along which one label changes and the others stay, from `latents`, float (N, *latent_shape), and `labels`.

    `labels` are arrays of N numbers or texts by name, such as `faces.labels`. A linear regression of the latents on all
    labels together gives each its direction, of all that fit equally well the shortest. One unit of weight is what one
    standard deviation of the label does. A text becomes one axis per choice, "hair=long"; a name that ends in "hue" (a
    number from 0 to 1, where both ends are the same colour) two. The axis that moves latents most comes first; labels
    that do not vary are left out. `swaps` of the texts come with the axes.

    Raises `ValueError` where lengths differ, there are fewer than two latents, a label is not finite or none varies.
    """
    if wrong := {name: len(values) for name, values in labels.items() if len(values) != len(latents)}:
        raise ValueError(f"got {len(latents)} latents and labels of other lengths: {wrong}")
    columns = {name: column for label, values in labels.items() for name, column in _columns(label, values)}
    if bad := [name for name, column in columns.items() if not np.isfinite(column).all()]:
        raise ValueError(f"got labels that are not finite numbers: {', '.join(bad)}. Leave out those faces")
    columns = {name: column for name, column in columns.items() if len(column) > 1 and column.std() > 1e-6}
    if not columns:
        raise ValueError(f"got no label that varies among {len(latents)} faces; there were: {', '.join(labels)}")
    x = np.stack([(column - column.mean()) / column.std() for column in columns.values()], 1)  # (N, K)
    z = latents.flatten(1).double().numpy()
    effects, *_ = np.linalg.lstsq(x, z - z.mean(0), rcond=1e-9)  # (K, D); the columns of a text add up to a constant
    lengths = np.linalg.norm(effects, axis=1)
    order = np.argsort(-lengths)
    directions = torch.from_numpy(effects[order] / lengths[order, None]).float()
    names = tuple(np.array(list(columns))[order].tolist())
    texts = [label.replace("_", " ") for label, values in labels.items() if _is_text(values)]
    return NamedAxes(
        names,
        directions.reshape(-1, *latents.shape[1:]),
        torch.from_numpy(lengths[order]).float(),
        _limits(x[:, order]),
        fit_swaps(latents, {name: columns[name] for name in names}, texts),
    )


def _limits(columns: np.ndarray) -> Tensor:
    """The 1st and 99th percentile of each column of an array (N, K), or its two values if no more: float32 (K, 2)."""
    limits = [
        values[[0, -1]] if len(values := np.unique(column)) == 2 else np.quantile(column, [0.01, 0.99])
        for column in columns.T
    ]
    return torch.from_numpy(np.array(limits, np.float32))


def measure_colours(images: np.ndarray) -> dict[str, np.ndarray]:
    """Labels for faces that have none, from the pixels of `images`, uint8 (N, S, S, 3): float32 (N,) each.

    Lightness (0 to 1) and warmth (red less blue, -1 to 1) where hair and where skin is on most faces: a window high up
    in the middle, and one between mouth and eyes.
    """
    side = images.shape[1]
    windows = {"hair": (0.12, 0.28, 0.3, 0.7), "skin": (0.6, 0.72, 0.38, 0.62)}  # top, bottom, left, right
    labels = {}
    for name, window in windows.items():
        top, bottom, left, right = (round(side * edge) for edge in window)
        red, green, blue = images[:, top:bottom, left:right].mean((1, 2), dtype=np.float32).T / 255
        labels |= {f"{name} lightness": (red + green + blue) / 3, f"{name} warmth": red - blue}
    return labels


def fit_attributes_of(vae: nn.Module, faces: Faces) -> NamedAxes:
    """`fit_attributes` on the latents of `faces` and `labels_of` them."""
    return fit_attributes(encode_faces(vae, faces).mean, labels_of(faces))


def labels_of(faces: Faces) -> dict[str, np.ndarray]:
    """The labels of `faces`, or else their measured colours."""
    return faces.labels or measure_colours(faces.images)


def _steps(weights: Tensor, scales: Tensor, directions: Tensor) -> Tensor:
    """How far `weights` (B, K), in units of `scales`, lead along `directions` (K, *latent_shape), added up."""
    if weights.ndim != 2 or weights.shape[1] != len(scales):
        raise ValueError(f"got weights of shape {tuple(weights.shape)}, expected (batch, {len(scales)})")
    return torch.tensordot(weights * scales, directions, dims=1)


def _is_text(values: np.ndarray) -> bool:
    return np.asarray(values).dtype.kind in "USO"


def _columns(label: str, values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """A label as numbers to regress on: (name, float (N,)) one or several times."""
    values, label = np.asarray(values), label.replace("_", " ")
    if _is_text(values):
        return [(f"{label}={choice}", (values == choice).astype(float)) for choice in sorted(set(values.tolist()))]
    if label.endswith("hue"):  # angles in OKLCH: 0 is red, a quarter yellow, a half green to teal, three quarters blue
        angle, label = 2 * math.pi * values.astype(float), label.removesuffix("hue").strip() or "hue"
        return [(f"{label}: red", np.cos(angle)), (f"{label}: yellow", np.sin(angle))]
    return [(label, values.astype(float))]


def interpolate(z_from: Tensor, z_to: Tensor, steps: int, spherical: bool = False) -> Tensor:
    """`steps` latents (steps, *latent_shape) on the line between two (*latent_shape), both included: see `between`."""
    return between(z_from, z_to, torch.linspace(0, 1, steps), spherical)


def between(z_from: Tensor, z_to: Tensor, shares: Tensor, spherical: bool = False) -> Tensor:
    """Latents (B, *latent_shape) at `shares` (B,) of the way from one (*latent_shape) to another.

    The way is straight, or with `spherical` an arc about the origin (slerp), on which the length of the latent changes
    evenly instead of sinking half-way. Latents that point the same way, or opposite ways, are joined straight.
    Source: White, *Sampling Generative Networks*, 2016.
    """
    if z_from.shape != z_to.shape:
        raise ValueError(f"got latents of shapes {tuple(z_from.shape)} and {tuple(z_to.shape)}, expected equal ones")
    share = shares.reshape(-1, *[1] * z_from.ndim)
    straight = torch.lerp(z_from[None], z_to[None], share)
    lengths = z_from.norm(), z_to.norm()
    angle = torch.dot(z_from.flatten() / lengths[0], z_to.flatten() / lengths[1]).clamp(-1, 1).acos()
    if not spherical or not angle.sin() > 1e-3:
        return straight
    arc = ((1 - share) * angle).sin() * z_from / lengths[0] + (share * angle).sin() * z_to / lengths[1]
    return arc / angle.sin() * torch.lerp(*lengths, share)
