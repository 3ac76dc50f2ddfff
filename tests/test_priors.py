import math

import pytest
import torch
from safetensors.torch import load, save
from scipy import stats
from sklearn.mixture import GaussianMixture
from torch import distributions

from vaelib.model import Posterior
from vaelib.priors import (
    ExponentialPrior,
    FlowPrior,
    NormalPrior,
    VelocityField,
    fit_flow,
    fit_gaussian,
    fit_mixture,
    priors_from_tensors,
    priors_to_tensors,
    published_priors,
)

SHAPE = (8, 2, 2)
COUNT = 20_000  # of 32 numbers each
NOISE = 0.1  # of the posteriors around the points of a ring


@pytest.fixture(scope="module")
def posterior():
    """200 posteriors over latents (3, 2, 2), correlated, of different widths: as from `encode_faces`."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(12, 12, generator=generator)
    mean = 1 + torch.randn(200, 12, generator=generator) @ mixing
    log_var = torch.randn(200, 12, generator=generator) - 2
    return Posterior(mean.unflatten(1, (3, 2, 2)), log_var.unflatten(1, (3, 2, 2)))


def ring(count, modes=6):
    """`count` posteriors around `modes` points on a circle of radius 2: an aggregate posterior known exactly."""
    angles = 2 * math.pi * (torch.arange(count) % modes) / modes
    points = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)
    return Posterior(points, torch.full_like(points, 2 * math.log(NOISE)))


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_normal_has_mean_0_and_the_scale_as_deviation(scale):
    z = NormalPrior(SHAPE, scale).sample(COUNT, torch.Generator().manual_seed(0))
    assert z.shape == (COUNT, *SHAPE) and z.dtype == torch.float32
    error = scale / COUNT**0.5  # the standard error of one number's mean
    assert z.mean(0).abs().max() < 5 * error
    assert (z.std(0) - scale).abs().max() < 5 * error
    assert (z.abs() < scale).float().mean() == pytest.approx(0.6827, abs=0.005)


@pytest.mark.parametrize("scale", [0.7, 2.0])
def test_exponential_has_the_scale_as_mean_and_deviation(scale):
    z = ExponentialPrior(SHAPE, scale).sample(COUNT, torch.Generator().manual_seed(0))
    assert z.shape == (COUNT, *SHAPE) and z.dtype == torch.float32
    assert (z > 0).all()
    error = scale / COUNT**0.5
    assert (z.mean(0) - scale).abs().max() < 5 * error
    assert (z.std(0) - scale).abs().max() < 10 * error  # the kurtosis of 9 makes this one vary more
    assert (z < scale * 0.693147).float().mean() == pytest.approx(0.5, abs=0.005)  # the median is ln 2 · scale


@pytest.mark.parametrize("prior", [NormalPrior(SHAPE), ExponentialPrior(SHAPE)])
def test_the_same_generator_draws_the_same(prior):
    first, second, other = (prior.sample(3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_prob_agrees_with_torch_distributions(dtype):
    z = torch.randn(5, *SHAPE, dtype=dtype)
    expected = distributions.Normal(0.0, 2.0).log_prob(z).sum((1, 2, 3))
    torch.testing.assert_close(NormalPrior(SHAPE, 2.0).log_prob(z), expected)
    z = z.abs()
    expected = distributions.Exponential(1 / 0.7).log_prob(z).sum((1, 2, 3))
    torch.testing.assert_close(ExponentialPrior(SHAPE, 0.7).log_prob(z), expected)


def test_exponential_never_gives_a_negative_number():
    z = torch.ones(3, *SHAPE)
    z[1, 0, 0, 0] = -0.001
    log_prob = ExponentialPrior(SHAPE).log_prob(z)
    assert log_prob.isfinite().tolist() == [True, False, True]
    assert log_prob[1] == -torch.inf


def test_the_published_scales_are_the_defaults():
    assert NormalPrior(SHAPE).scale == 1
    assert ExponentialPrior(SHAPE).scale == 0.7
    assert published_priors(SHAPE) == {
        "normal": NormalPrior(SHAPE),
        "wide": NormalPrior(SHAPE, 2.0),
        "exponential": ExponentialPrior(SHAPE),
    }


@pytest.mark.parametrize("prior", [NormalPrior, ExponentialPrior])
@pytest.mark.parametrize("scale", [0, -1.0, float("nan")])
def test_a_scale_must_be_positive(prior, scale):
    with pytest.raises(ValueError, match=f"got scale={scale}, expected a positive number"):
        prior(SHAPE, scale)


def test_the_gaussian_has_the_moments_of_the_aggregate_posterior(posterior):
    prior = fit_gaussian(posterior)
    generator = torch.Generator().manual_seed(1)
    draws = torch.cat([posterior.sample(generator) for _ in range(500)]).flatten(1).double()
    covariance = (prior.factor @ prior.factor.T).double()
    torch.testing.assert_close(prior.mean.flatten().double(), draws.mean(0), rtol=0, atol=0.02)
    torch.testing.assert_close(covariance, draws.T.cov(), rtol=0.02, atol=0.02)
    samples = prior.sample(100_000, generator)
    assert samples.shape == (100_000, 3, 2, 2) and samples.dtype == torch.float32
    torch.testing.assert_close(samples.flatten(1).T.cov(), prior.factor @ prior.factor.T, rtol=0.05, atol=0.2)


def test_the_gaussians_log_prob_is_scipys(posterior):
    prior = fit_gaussian(posterior)
    z = posterior.sample(torch.Generator().manual_seed(2))[:20]
    covariance = (prior.factor.double() @ prior.factor.double().T).numpy()
    expected = stats.multivariate_normal(prior.mean.flatten().numpy(), covariance).logpdf(z.flatten(1).numpy())
    torch.testing.assert_close(prior.log_prob(z.double()), torch.from_numpy(expected), rtol=1e-9, atol=1e-8)
    assert prior.log_prob(z).dtype == torch.float32


def test_whitening_is_undone_and_makes_the_aggregate_posterior_standard(posterior):
    prior = fit_gaussian(posterior)
    generator = torch.Generator().manual_seed(3)
    draws = torch.cat([posterior.sample(generator) for _ in range(500)])
    w = prior.whiten(draws)
    torch.testing.assert_close(prior.unwhiten(w.float()), draws, rtol=1e-4, atol=1e-4)
    assert w.mean(0).abs().max() < 0.02
    assert (w.T.cov() - torch.eye(12)).abs().max() < 0.03
    assert (prior.factor.norm(dim=0).diff() <= 0).all()  # the longest axis first


def test_a_gaussian_is_happy_with_fewer_faces_than_dimensions():
    few = Posterior(torch.randn(2, 5), torch.zeros(2, 5))  # the posteriors' own variance fills all directions
    assert fit_gaussian(few).log_prob(few.mean).isfinite().all()


def test_the_mixtures_log_prob_is_scikit_learns(posterior):
    prior = fit_mixture(posterior, components=3, dims=12)
    z = posterior.sample(torch.Generator().manual_seed(4)).double()
    reference = GaussianMixture(3)
    reference.weights_ = prior.weights.double().numpy()
    reference.means_ = prior.means.double().numpy()
    reference.precisions_cholesky_ = torch.linalg.inv(prior.factors.double()).mT.numpy()
    expected = torch.from_numpy(reference.score_samples(prior.gaussian.whiten(z).numpy())) - prior.gaussian.log_volume
    torch.testing.assert_close(prior.log_prob(z), expected, rtol=1e-9, atol=1e-8)


def test_a_mixture_in_few_directions_is_still_a_density():
    prior = fit_mixture(ring(600), components=6, dims=1)  # one of the two directions stays Gaussian
    side = torch.linspace(-6, 6, 601)
    grid = torch.cartesian_prod(side, side)
    total = prior.log_prob(grid).double().exp().sum() * (12 / 600) ** 2
    assert total == pytest.approx(1, abs=1e-3)


def test_one_component_is_the_gaussian(posterior):
    mixture, z = fit_mixture(posterior, components=1, dims=4), posterior.mean[:20]
    difference = mixture.log_prob(z) - mixture.gaussian.log_prob(z)
    assert difference.abs().max() < 1  # one draw per face, not the exact moments


def test_the_mixture_finds_the_modes_and_draws_from_them():
    prior = fit_mixture(ring(1200), components=6)
    check_ring(prior.sample(6000, torch.Generator().manual_seed(5)), within=0.95)
    entropy = math.log(6) + 2 * (0.5 + 0.5 * math.log(2 * math.pi) + math.log(NOISE))  # of the ring, in nats
    held_out = ring(6000).sample(torch.Generator().manual_seed(6))
    assert prior.log_prob(held_out).mean() == pytest.approx(-entropy, abs=0.05)
    assert fit_gaussian(ring(1200)).log_prob(held_out).mean() < -entropy - 2


def test_the_flow_learns_the_modes():
    prior = fit_flow(ring(1200), steps=800, width=64, depth=2, learning_rate=1e-2, progress=False)
    check_ring(prior.sample(6000, torch.Generator().manual_seed(5)), within=0.9)


def check_ring(samples, within, modes=6):
    """At least `within` of `samples` lie in 4 deviations of a mode (of the true ring: 99.97 %), each mode's share."""
    distances, nearest = torch.cdist(samples, ring(modes).mean).min(1)
    assert (distances < 4 * NOISE).float().mean() > within
    shares = torch.bincount(nearest, minlength=modes) / len(samples)
    assert (shares - 1 / modes).abs().max() < 0.03


def test_a_flow_has_the_mean_and_the_spread_of_its_data(posterior):
    prior = fit_flow(posterior, steps=20, width=16, depth=2, progress=False)
    w = prior.gaussian.whiten(prior.sample(20_000, torch.Generator().manual_seed(9)))
    assert w.mean(0).abs().max() < 0.06  # 4,096 draws told it where it stands: 3 standard errors, and ours
    assert (w.std(0) - 1).abs().max() < 0.05


def test_an_untrained_flow_draws_from_the_gaussian(posterior):
    gaussian = fit_gaussian(posterior)
    flow = FlowPrior(gaussian, VelocityField(torch.ones(12), width=8, depth=1))
    drawn, expected = (prior.sample(50, torch.Generator().manual_seed(7)) for prior in (flow, gaussian))
    torch.testing.assert_close(drawn, expected, rtol=1e-2, atol=1e-2)  # the same noise ends where it began


def test_a_flow_leaves_noise_alone():
    generator = torch.Generator().manual_seed(8)
    mean = torch.stack([torch.randn(400, generator=generator).sign(), torch.zeros(400)], dim=1)
    log_var = torch.tensor([-4.0, 0.0]).expand(400, 2)  # the first number tells two groups apart, the second nothing
    prior = fit_flow(Posterior(mean, log_var), steps=300, width=32, depth=1, learning_rate=5e-3, progress=False)
    signal = dict(zip(prior.gaussian.factor.abs().argmax(0).tolist(), prior.network.signal.tolist(), strict=True))
    assert signal[0] == pytest.approx(1 / (1 + math.exp(-4)), abs=0.01)
    assert signal[1] == pytest.approx(0.001)
    z = prior.sample(4000, generator)
    assert stats.kstest(z[:, 1].numpy(), "norm").pvalue > 0.01
    assert (z[:, 0].abs() - 1).abs().mean() < 0.3  # 0.11 for the truth, 0.5 for one Gaussian


@pytest.fixture(scope="module")
def priors(posterior):
    gaussian, mixture = fit_gaussian(posterior), fit_mixture(posterior, components=4, dims=6)
    return {
        "gaussian": gaussian,
        "mixture": mixture,
        "flow": fit_flow(posterior, steps=20, width=16, depth=2, progress=False),
    }


@pytest.mark.parametrize("name", ["gaussian", "mixture", "flow"])
def test_fitting_and_drawing_repeat_with_their_seeds(name, priors, posterior):
    before = torch.get_rng_state()
    refit = {
        "gaussian": lambda: fit_gaussian(posterior),
        "mixture": lambda: fit_mixture(posterior, components=4, dims=6),
        "flow": lambda: fit_flow(posterior, steps=20, width=16, depth=2, progress=False),
    }[name]()
    first, again, other = (
        prior.sample(5, torch.Generator().manual_seed(seed))
        for prior, seed in ((priors[name], 1), (refit, 1), (refit, 2))
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (5, 3, 2, 2) and first.dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), before)  # the reader's own seed is left alone


def test_another_seed_fits_another_prior(posterior):
    first, second = (fit_mixture(posterior, components=4, dims=6, seed=seed).means for seed in (0, 1))
    assert not torch.equal(first, second)
    first, second = (
        fit_flow(posterior, steps=1, width=16, depth=1, seed=seed, progress=False).network.read.weight
        for seed in (0, 1)
    )
    assert not torch.equal(first, second)


def test_priors_survive_safetensors(priors, posterior):
    tensors = load(save(priors_to_tensors(priors, torch.float32)))
    for name, prior in priors_from_tensors(tensors).items():
        drawn, expected = (p.sample(9, torch.Generator().manual_seed(3)) for p in (prior, priors[name]))
        assert type(prior) is type(priors[name]) and torch.equal(drawn, expected)


def test_half_precision_moves_a_latent_by_a_thousandth(priors, posterior):
    restored = priors_from_tensors(priors_to_tensors(priors))
    size = posterior.mean.std()
    for name, prior in restored.items():
        drawn, expected = (p.sample(200, torch.Generator().manual_seed(3)) for p in (prior, priors[name]))
        assert (drawn - expected).square().mean().sqrt() < 2e-3 * size
    for name in ("gaussian", "mixture"):
        torch.testing.assert_close(
            restored[name].log_prob(posterior.mean), priors[name].log_prob(posterior.mean), rtol=0, atol=0.5
        )


def test_the_shared_gaussian_is_stored_once(priors):
    names = set(priors_to_tensors(priors))
    assert {name for name in names if name.startswith(("gaussian.", "mixture."))} == {
        "gaussian.mean",
        "gaussian.factor",
        "mixture.weights",
        "mixture.means",
        "mixture.factors",
    }
    assert set(priors_from_tensors(priors_to_tensors({"flow": priors["flow"]}))) == {"gaussian", "flow"}


def test_priors_of_different_latents_are_not_stored_together(priors):
    with pytest.raises(ValueError, match="fitted to different latents"):
        priors_to_tensors(priors | {"mixture": fit_mixture(ring(50), components=2)})


def test_what_is_not_fitted_is_not_stored(priors):
    with pytest.raises(ValueError, match="expected some of those that fit_priors gives: gaussian, mixture, flow"):
        priors_to_tensors({"normal": NormalPrior(SHAPE)})


@pytest.mark.parametrize("name", ["gaussian.mean", "mixture.means", "flow.read.weight"])
def test_missing_tensors_are_said_so(priors, name):
    tensors = priors_to_tensors(priors)
    del tensors[name]
    with pytest.raises(ValueError, match="the stored priors are damaged"):
        priors_from_tensors(tensors)


def test_tensors_that_do_not_fit_together_are_said_so(priors):
    tensors = priors_to_tensors(priors)
    with pytest.raises(ValueError, match="the stored priors are damaged"):
        priors_from_tensors(tensors | {"gaussian.factor": torch.eye(5)})


@pytest.mark.parametrize("fit", [fit_gaussian, fit_mixture, fit_flow])
def test_posteriors_must_be_finite_and_of_one_shape(fit):
    mean, log_var = torch.zeros(5, 4), torch.zeros(5, 4)
    with pytest.raises(ValueError, match=r"got means of shape \(5, 4\) and log-variances of \(5, 2\)"):
        fit(Posterior(mean, log_var[:, :2]))
    with pytest.raises(ValueError, match=r"expected both .* with N of 2 or more"):
        fit(Posterior(mean[:1], log_var[:1]))
    mean[3, 1] = torch.nan
    with pytest.raises(ValueError, match="got 1 of 5 posteriors with numbers that are not finite, the first in row 3"):
        fit(Posterior(mean, log_var))


def test_a_mixture_needs_as_many_faces_as_components(posterior):
    with pytest.raises(ValueError, match="got components=201, expected 1 to 200, the number of faces"):
        fit_mixture(posterior, components=201)


def test_latents_of_another_shape_are_refused(priors):
    for name in ("gaussian", "mixture"):
        with pytest.raises(ValueError, match=r"got latents of shape \(4, 12\), expected \(batch, 3, 2, 2\), as fitted"):
            priors[name].log_prob(torch.zeros(4, 12))
