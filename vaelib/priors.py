"""Where to draw a latent from when there is no picture to encode.

Every prior has `sample(count, generator) -> (count, *shape)`, ready for `vae.decode`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NormalPrior:
    """N(0, scale²·I) over latents of `shape`. scale = 1 is the prior that a VAE is trained towards.

    *Anime VAE* advises to draw from a wider normal, since its loose KL lets the posteriors spread beyond N(0, I).
    """

    shape: tuple[int, ...]
    scale: float = 1.0

    def __post_init__(self):
        _check_scale(self.scale)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` latents, float32 (count, *shape)."""
        return self.scale * torch.randn(count, *self.shape, generator=generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats of each of `z` (B, *shape): (B,)."""
        scale = torch.as_tensor(self.scale, dtype=z.dtype, device=z.device)
        return torch.distributions.Normal(0.0, scale).log_prob(z).flatten(1).sum(1)


@dataclass(frozen=True)
class ExponentialPrior:
    """Independent exponentials of mean `scale` over latents of `shape`: all positive, so one corner of the space.

    *VAE-Anime-Cartoon* draws from it with scale 0.7.
    """

    shape: tuple[int, ...]
    scale: float = 0.7

    def __post_init__(self):
        _check_scale(self.scale)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` latents, float32 (count, *shape), each number above 0."""
        return torch.empty(count, *self.shape).exponential_(1 / self.scale, generator=generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats of each of `z` (B, *shape): (B,); -inf where any number is negative."""
        rate = torch.as_tensor(1 / self.scale, dtype=z.dtype, device=z.device)
        return (
            torch.distributions.Exponential(rate, validate_args=False)
            .log_prob(z)
            .where(z >= 0, -torch.inf)
            .flatten(1)
            .sum(1)
        )


def published_priors(shape: tuple[int, ...]) -> dict[str, NormalPrior | ExponentialPrior]:
    """Where the two published systems draw latents of `shape` from: N(0, I), a wider normal, an exponential."""
    return {
        "normal": NormalPrior(shape),
        "wide": NormalPrior(shape, scale=2.0),
        "exponential": ExponentialPrior(shape, scale=0.7),
    }


def _check_scale(scale: float) -> None:
    if not scale > 0:
        raise ValueError(f"got scale={scale}, expected a positive number")
