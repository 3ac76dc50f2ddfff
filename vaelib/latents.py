"""The latent space of a trained VAE: encode a data set, find its main axes, walk between two faces."""

from dataclasses import dataclass

import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from vaelib.faces import Faces
from vaelib.model import Posterior, inference


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
    data along each, `explained` (K,) the fraction of the variance, largest first. All float32.
    """

    mean: Tensor
    directions: Tensor
    scales: Tensor
    explained: Tensor

    def __len__(self) -> int:
        return len(self.directions)

    def latents(self, weights: Tensor) -> Tensor:
        """Latents (B, *latent_shape) at `weights` (B, K), in standard deviations from the mean. 0 is the mean face."""
        if weights.ndim != 2 or weights.shape[1] != len(self):
            raise ValueError(f"got weights of shape {tuple(weights.shape)}, expected (batch, {len(self)})")
        return self.mean + torch.tensordot(weights * self.scales, self.directions, dims=1)

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
    return PCAAxes(
        mean=torch.from_numpy(pca.mean_).float().reshape(shape),
        directions=(directions * largest.sign()).float().contiguous().reshape(count, *shape),
        scales=torch.from_numpy(pca.explained_variance_).sqrt().float(),
        explained=torch.from_numpy(pca.explained_variance_ratio_).float(),
    )


def interpolate(z_from: Tensor, z_to: Tensor, steps: int) -> Tensor:
    """`steps` latents (steps, *latent_shape) on the straight line between two (*latent_shape), both included."""
    if z_from.shape != z_to.shape:
        raise ValueError(f"got latents of shapes {tuple(z_from.shape)} and {tuple(z_to.shape)}, expected equal ones")
    share = torch.linspace(0, 1, steps).reshape(-1, *[1] * z_from.ndim)
    return torch.lerp(z_from[None], z_to[None], share)
