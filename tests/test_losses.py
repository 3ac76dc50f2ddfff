import math
from functools import partial

import pytest
import torch
from torch import distributions, nn

from vaelib.losses import (
    bernoulli_nll,
    bits_per_dimension,
    gaussian_nll,
    importance_weighted_bound,
    kl_divergence,
    kl_per_dimension,
    optimal_gaussian_nll,
)
from vaelib.model import Posterior
from vaelib.recipes import RECIPES
from vaelib.training import loss_terms


def random_posterior(*shape: int, seed: int = 0, dtype=torch.float64) -> Posterior:
    generator = torch.Generator().manual_seed(seed)
    mean, log_var = torch.randn(2, *shape, generator=generator, dtype=dtype)
    return Posterior(mean, log_var)


def random_pictures(*shape: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits, x)"""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(shape, generator=generator, dtype=torch.float64), torch.rand(
        shape, generator=generator, dtype=torch.float64
    )


def as_normal(posterior: Posterior) -> distributions.Normal:
    return distributions.Normal(posterior.mean, (0.5 * posterior.log_var).exp())


# ------------------------------------------------------------------------------------------------------------ KL


@pytest.mark.parametrize("shape", [(5, 8, 2, 2), (5, 200)])
def test_kl_agrees_with_torch_distributions(shape):
    posterior = random_posterior(*shape)
    expected = distributions.kl_divergence(as_normal(posterior), distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(kl_per_dimension(posterior), expected)
    torch.testing.assert_close(kl_divergence(posterior), expected.flatten(1).sum(1))
    assert kl_divergence(posterior).shape == (5,)


def test_kl_agrees_with_sampling():
    """KL = E[log q(z) - log p(z)] for z drawn from q."""
    posterior = random_posterior(3, 4)
    draws = 100_000
    torch.manual_seed(0)
    q, p = as_normal(posterior), distributions.Normal(0.0, 1.0)
    z = q.sample((draws,))  # (draws, 3, 4)
    log_ratio = (q.log_prob(z) - p.log_prob(z)).sum(2)
    error = log_ratio.std(0) / draws**0.5
    assert ((log_ratio.mean(0) - kl_divergence(posterior)).abs() < 5 * error).all()


def test_kl_is_zero_only_for_the_prior_itself():
    zero = torch.zeros(2, 6)
    assert kl_divergence(Posterior(zero, zero)).tolist() == [0, 0]
    for seed in range(20):
        assert (kl_per_dimension(random_posterior(10, 6, seed=seed)) > 0).all()


def test_kl_of_one_number_by_hand():
    posterior = Posterior(torch.tensor([[3.0]]), torch.tensor([[math.log(4.0)]]))
    assert kl_divergence(posterior).item() == pytest.approx(0.5 * (9 + 4 - 1 - math.log(4)))


# --------------------------------------------------------------------------------------------------- likelihoods


def test_bernoulli_nll_of_black_and_white_pictures():
    logits, x = random_pictures(4, 3, 8, 8)
    x = x.round()
    expected = -distributions.Bernoulli(logits=logits).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(bernoulli_nll(logits, x), expected)
    assert bernoulli_nll(logits, x).shape == (4,)


def test_bernoulli_nll_of_grey_pictures():
    logits, x = random_pictures(4, 3, 8, 8)
    p = logits.sigmoid()
    expected = -(x * p.log() + (1 - x) * (1 - p).log()).flatten(1).sum(1)
    torch.testing.assert_close(bernoulli_nll(logits, x), expected)


def test_bernoulli_nll_of_grey_is_least_at_the_grey_itself_but_not_zero():
    _, x = random_pictures(1, 3, 8, 8)
    least = bernoulli_nll(x.logit(), x)
    entropy = -(x * x.log() + (1 - x) * (1 - x).log()).sum()
    torch.testing.assert_close(least.sum(), entropy)
    for shift in (-0.1, 0.1):
        assert bernoulli_nll(x.logit() + shift, x) > least


def test_bernoulli_nll_of_extreme_logits_is_finite():
    logits = torch.tensor([1000.0, -1000.0]).reshape(2, 1, 1, 1)
    assert bernoulli_nll(logits, torch.zeros(2, 1, 1, 1)).tolist() == [1000, 0]


@pytest.mark.parametrize("sigma", [0.05, 0.1, 1.0, 9.9])
def test_gaussian_nll_agrees_with_torch_distributions(sigma):
    logits, x = random_pictures(4, 3, 8, 8)
    expected = -distributions.Normal(logits.sigmoid(), sigma).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(gaussian_nll(logits, x, sigma), expected)
    assert gaussian_nll(logits, x, sigma).shape == (4,)


def test_gaussian_nll_is_least_at_the_true_residual():
    logits, x = random_pictures(1, 3, 32, 32)
    rmse = (x - logits.sigmoid()).square().mean().sqrt().item()
    least = gaussian_nll(logits, x, rmse)
    assert least < gaussian_nll(logits, x, 0.98 * rmse)
    assert least < gaussian_nll(logits, x, 1.02 * rmse)


@pytest.mark.parametrize("sigma", [0, -0.1, float("nan")])
def test_gaussian_nll_wants_a_positive_sigma(sigma):
    logits, x = random_pictures(1, 3, 4, 4)
    with pytest.raises(ValueError, match=r"got sigma=.*, expected a positive standard deviation on the \[0, 1\]"):
        gaussian_nll(logits, x, sigma)


def test_optimal_gaussian_nll_takes_the_error_of_the_batch_as_sigma():
    logits, x = random_pictures(4, 3, 8, 8)
    rmse = (x - logits.sigmoid()).square().mean().sqrt().item()
    torch.testing.assert_close(optimal_gaussian_nll(logits, x), gaussian_nll(logits, x, rmse))
    for sigma in (0.98 * rmse, 1.02 * rmse):
        assert optimal_gaussian_nll(logits, x).mean() < gaussian_nll(logits, x, sigma).mean()


def test_the_gradient_of_optimal_gaussian_nll_is_that_of_the_logarithm_of_the_error():
    """Per picture of D pixel values D/2 · log(mean squared error), although σ is held still."""
    logits, x = random_pictures(4, 3, 8, 8)
    logits.requires_grad_()
    logarithm = 3 * 8 * 8 / 2 * (x - logits.sigmoid()).square().mean().log()
    (expected,) = torch.autograd.grad(logarithm, logits)
    (gradient,) = torch.autograd.grad(optimal_gaussian_nll(logits, x).mean(), logits)
    torch.testing.assert_close(gradient, expected)


def test_the_sigma_of_optimal_gaussian_nll_stays_above_a_thousandth():
    _, x = random_pictures(4, 3, 8, 8)
    for error in (0, 1e-4):
        logits = (x + error).clamp(1e-9, 1 - 1e-9).logit()
        torch.testing.assert_close(optimal_gaussian_nll(logits, x), gaussian_nll(logits, x, 0.001))


def test_each_picture_counts_by_itself():
    logits, x = random_pictures(6, 3, 8, 8)
    for nll in (bernoulli_nll, lambda logits, x: gaussian_nll(logits, x, 0.1)):
        alone = torch.cat([nll(logits[i : i + 1], x[i : i + 1]) for i in range(6)])
        torch.testing.assert_close(nll(logits, x), alone)


# -------------------------------------------------------------------------- the published recipes, in our units


def ours(recipe: str, logits: torch.Tensor, x: torch.Tensor, posterior: Posterior) -> torch.Tensor:
    """Our loss for a network that answers `logits` and `posterior`."""
    distortion, rate = loss_terms(lambda x: (logits, posterior), x, RECIPES[recipe])
    return distortion + RECIPES[recipe].beta * rate


@pytest.mark.parametrize("size", [64, 128])
def test_anime_vae_recipe_is_mean_bce_and_mean_kl(size):
    """mean BCE + 0.01 · mean KL, times the number of pixel values, is our loss with β = 0.24, also at 128×128."""
    assert RECIPES["anime-vae"].beta == pytest.approx(0.24)
    for seed in range(3):
        logits, x = random_pictures(4, 3, size, size, seed=seed)
        posterior = random_posterior(4, 128, size // 32, size // 32, seed=seed)
        p, m, v = logits.sigmoid(), posterior.mean, posterior.log_var.exp()
        mean_bce = -(x * p.log() + (1 - x) * (1 - p).log()).mean()
        mean_kl = (-0.5 * (1 + v.log() - m**2 - v)).mean()
        published = mean_bce + 0.01 * mean_kl
        torch.testing.assert_close(ours("anime-vae", logits, x, posterior), published * 3 * size**2)


def test_vae_anime_cartoon_recipe_is_1000_mse_and_summed_kl_up_to_a_constant():
    differences = []
    for seed in range(3):
        logits, x = random_pictures(2, 3, 256, 256, seed=seed)
        posterior = random_posterior(2, 200, seed=seed)
        m, v = posterior.mean, posterior.log_var.exp()
        mse = (x - logits.sigmoid()).square().mean()
        kl = (-0.5 * (1 + v.log() - m**2 - v)).sum(1).mean()
        differences.append(ours("vae-anime-cartoon", logits, x, posterior) - (1000 * mse + kl))
    sigma = RECIPES["vae-anime-cartoon"].sigma
    assert sigma == pytest.approx(9.9, abs=0.05)
    constant = 256 * 256 * 3 * 0.5 * math.log(2 * math.pi * sigma**2)
    torch.testing.assert_close(torch.stack(differences), torch.full((3,), constant, dtype=torch.float64))


# ------------------------------------------------------------------------------------------------- bounds on log p


class OneLatent(nn.Module):
    """Pictures of two values from one number, and a posterior that is too wide and off its place."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))

    def encode(self, x):
        return Posterior(x[:, :1, 0, 0] - 0.2, torch.zeros(len(x), 1, dtype=torch.float64))

    def decoder(self, z):
        return (z * self.slope)[:, :, None, None]


def evidence(vae: OneLatent, x: torch.Tensor, sigma: float) -> torch.Tensor:
    """log p(x) by a sum over a fine grid of z."""
    z = torch.linspace(-8, 8, 20_001, dtype=torch.float64)[:, None]
    logits = vae.decoder(z).detach()
    log_prior = distributions.Normal(0.0, 1.0).log_prob(z[:, 0])
    joint = torch.stack([log_prior - gaussian_nll(logits, one.expand_as(logits), sigma) for one in x])
    return joint.logsumexp(1) + math.log(16 / 20_000)


def test_the_importance_weighted_bound_rises_to_the_evidence():
    vae, x = OneLatent(), torch.tensor([[0.3, 0.8], [0.9, 0.2]], dtype=torch.float64)[:, :, None, None]
    nll = partial(gaussian_nll, sigma=0.3)
    exact = evidence(vae, x, 0.3)
    many = importance_weighted_bound(vae, x, nll, 20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(many, exact, atol=0.02, rtol=0)
    repeated = x.repeat(2000, 1, 1, 1)
    bounds = [
        importance_weighted_bound(vae, repeated, nll, draws, torch.Generator().manual_seed(1)).view(2000, 2).mean(0)
        for draws in (1, 5, 50)
    ]
    assert (bounds[0] < bounds[1]).all() and (bounds[1] < bounds[2]).all() and (bounds[2] < exact).all()


def test_one_draw_of_the_bound_is_the_elbo_on_average():
    vae, x = OneLatent(), torch.tensor([0.3, 0.8], dtype=torch.float64).view(1, 2, 1, 1).repeat(20_000, 1, 1, 1)
    found = importance_weighted_bound(vae, x, partial(gaussian_nll, sigma=0.3), 1, torch.Generator().manual_seed(0))
    posterior = vae.encode(x)
    z = posterior.sample(torch.Generator().manual_seed(2))
    elbo = -gaussian_nll(vae.decoder(z), x, 0.3).mean() - kl_divergence(posterior).mean()
    assert found.mean().item() == pytest.approx(elbo.item(), abs=4 * found.std().item() / 100)


def test_bits_per_dimension_of_uniform_noise_are_8():
    x = torch.rand(5, 3, 4, 4)
    torch.testing.assert_close(bits_per_dimension(torch.zeros(5), x), torch.full((5,), 8.0))  # its density is 1
    half = torch.full((5,), -48 * math.log(2))  # the density of pixels known to half of their range
    torch.testing.assert_close(bits_per_dimension(half, x), torch.full((5,), 7.0))
