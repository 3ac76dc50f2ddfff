import pytest
import torch
from torch import distributions

from vaelib.priors import ExponentialPrior, NormalPrior, published_priors

SHAPE = (8, 2, 2)
COUNT = 20_000  # of 32 numbers each


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
