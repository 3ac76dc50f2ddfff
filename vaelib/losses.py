"""The negative ELBO in nats per image: a likelihood term (distortion) plus a KL term (rate).

    loss = distortion + β · rate        distortion = -log p(x|z),  rate = KL(q(z|x) ‖ N(0, I)) >= 0

Every function returns one number per picture, shape (B,): sums over dimensions, never means. β = 1 is the ELBO.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

from vaelib.model import Posterior, inference


def kl_divergence(posterior: Posterior) -> Tensor:
    """KL(q(z|x) ‖ N(0, I)) in nats, shape (B,), never negative.

    Closed form for diagonal Gaussians: ½ Σ (mean² + σ² - 1 - log σ²); Kingma & Welling 2014, appendix B.
    """
    return kl_per_dimension(posterior).flatten(1).sum(1)


def kl_per_dimension(posterior: Posterior) -> Tensor:
    """The same before the sum: nats, shaped like `posterior.mean`. Shows which latents carry anything."""
    return 0.5 * (posterior.mean**2 + posterior.log_var.exp() - 1 - posterior.log_var)


def bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    """Binary cross-entropy summed over pixels: logits and x (B, C, H, W), x in [0, 1] -> nats (B,).

    A likelihood only for x in {0, 1}; grey values make it a pseudo-likelihood whose minimum is not 0 (lesson 02).
    """
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def gaussian_nll(logits: Tensor, x: Tensor, sigma: float) -> Tensor:
    """-log N(x; sigmoid(logits), σ²) summed over pixels: (B, C, H, W) -> nats (B,), σ on the [0, 1] pixel scale.

    Includes the constant ½ log 2πσ² per pixel, so values for different σ can be compared. `ValueError` if σ <= 0.
    """
    if not sigma > 0:
        raise ValueError(f"got sigma={sigma}, expected a positive standard deviation on the [0, 1] pixel scale")
    squared = (x - logits.sigmoid()).square() / (2 * sigma**2)
    return (squared + 0.5 * math.log(2 * math.pi * sigma**2)).flatten(1).sum(1)


def optimal_gaussian_nll(logits: Tensor, x: Tensor) -> Tensor:
    """`gaussian_nll` at the σ that makes it smallest over this batch: σ² is the mean squared error. Nats (B,).

    σ needs no gradient of its own: at its optimum the derivative by σ is 0. σ stays at or above 0.001, the error of
    rounding to 8 bits. Source: Rybkin, Daniilidis & Levine 2021, Simple and effective VAE training with calibrated
    decoders.
    """
    squared = (x - logits.sigmoid()).square()
    variance = squared.detach().mean().clamp(min=1e-6)
    return (squared / (2 * variance) + 0.5 * torch.log(2 * math.pi * variance)).flatten(1).sum(1)


def importance_weighted_bound(
    vae: nn.Module,
    x: Tensor,
    nll: Callable[[Tensor, Tensor], Tensor],
    draws: int = 100,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A floor under log p(x) in nats, (B,), that rises to it with the number of draws: log mean p(x|z) p(z) / q(z|x).

    `nll(logits, x)` is -log p(x|z), such as `bernoulli_nll`, or `gaussian_nll` with a σ that is fixed for all pictures.
    One draw gives the ELBO, by sampling. Source: Burda, Grosse & Salakhutdinov 2016.
    """
    logs = []
    with inference(vae):
        posterior = vae.encode(x)
        q = Normal(posterior.mean, (0.5 * posterior.log_var).exp())
        for _ in range(draws):
            z = posterior.sample(generator)
            ratio = (Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).flatten(1).sum(1)
            logs.append(ratio - nll(vae.decoder(z).float(), x))
    return torch.stack(logs).logsumexp(0) - math.log(draws)


def bits_per_dimension(nats: Tensor, x: Tensor) -> Tensor:
    """Negative log-densities of pictures with pixels in [0, 1], nats (B,), as bits for each value of 8 bits.

    Pixels on a scale of 256 steps instead of 1 have a density 256 times smaller, so each costs 8 bits more. It bounds
    what the 8-bit picture itself costs if `x` has a step's worth of uniform noise (Theis et al. 2016).
    """
    return nats / (x[0].numel() * math.log(2)) + 8
