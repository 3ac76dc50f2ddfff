import math

import numpy as np
import pytest
import torch
from torch import nn

from vaelib.metrics import evaluate, psnr, reconstruct, ssim
from vaelib.model import Posterior


def noisy(x: torch.Tensor, amount: float) -> torch.Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return (x + amount * noise).clamp(0, 1)


def test_psnr_is_minus_ten_log_mse_of_each_picture(x):
    x_hat = noisy(x, 0.1)
    x_hat[0] = noisy(x[:1], 0.5)[0]
    mse = ((x_hat.numpy().astype(np.float64) - x.numpy()) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(psnr(x_hat, x).numpy(), -10 * np.log10(mse), rtol=1e-5)
    assert psnr(x_hat, x).shape == (16,)


def test_psnr_of_equal_pictures_is_infinite(x):
    assert psnr(x[:2], x[:2]).tolist() == [math.inf, math.inf]


def test_ssim_of_equal_pictures_is_one_and_falls_with_noise(x):
    torch.testing.assert_close(ssim(x, x), torch.ones(16), atol=1e-4, rtol=0)
    little, much = ssim(noisy(x, 0.05), x), ssim(noisy(x, 0.3), x)
    assert (much < little).all() and (little < 1).all()


def test_ssim_of_two_flat_pictures_by_the_formula():
    """Without variance only Wang et al.'s luminance term is left: (2ab + C₁) / (a² + b² + C₁), C₁ = 0.01²."""
    a, b = 0.8, 0.3
    dark, light = (torch.full((1, 3, 32, 32), value) for value in (a, b))
    expected = (2 * a * b + 1e-4) / (a**2 + b**2 + 1e-4)
    assert ssim(dark, light).tolist() == [pytest.approx(expected, abs=1e-3)]


def test_ssim_of_one_picture_is_the_same_alone(x):
    x_hat = noisy(x, 0.1)
    torch.testing.assert_close(ssim(x_hat[3:4], x[3:4]), ssim(x_hat, x)[3:4], atol=1e-4, rtol=0)


def test_reconstruct_decodes_the_mean_and_leaves_the_model_as_it_was(tiny_vae, x):
    tiny_vae.train()
    before = {name: value.clone() for name, value in tiny_vae.state_dict().items()}
    x_hat = reconstruct(tiny_vae, x)
    assert tiny_vae.training
    assert all(torch.equal(value, before[name]) for name, value in tiny_vae.state_dict().items())
    tiny_vae.eval()
    with torch.no_grad():
        torch.testing.assert_close(x_hat, tiny_vae.decoder(tiny_vae.encode(x).mean).sigmoid())


class MeanColour(nn.Module):
    """Encodes a picture as its mean colour with σ = 1, decodes that as one flat colour; in training mode drops half."""

    def __init__(self):
        super().__init__()
        self.scale, self.dropout = nn.Parameter(torch.ones(3)), nn.Dropout(0.5)

    def encode(self, x):
        return Posterior(self.scale * x.mean((2, 3)), torch.zeros(len(x), 3))

    def decode(self, z):
        return self.dropout(z)[:, :, None, None].expand(-1, -1, 64, 64)


@pytest.mark.parametrize("batch_size", [4, 256])
def test_evaluate_agrees_with_a_loop_over_faces(faces, batch_size):
    some = faces.select(range(9))  # 9 = 2 · 4 + 1: the last batch is a single face
    vae = MeanColour().train()
    found = evaluate(vae, some, batch_size)
    assert vae.training
    psnrs, ssims, rates = [], [], []
    for row in range(len(some)):
        x = some.batch([row])
        x_hat = x.mean((2, 3), keepdim=True).expand_as(x)
        psnrs.append(-10 * math.log10(nn.functional.mse_loss(x_hat, x).item()))
        ssims.append(ssim(x_hat, x).item())
        rates.append(0.5 * x.mean((2, 3)).square().sum().item())
    assert found["psnr"] == pytest.approx(np.mean(psnrs), rel=1e-4)
    assert found["ssim"] == pytest.approx(np.mean(ssims), rel=1e-4)
    assert found["rate"] == pytest.approx(np.mean(rates), rel=1e-4)


class Fixed(nn.Module):
    """Answers the same posterior, N(mean, 1), for each picture, and the same grey for each latent."""

    def __init__(self, mean: list[float]):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean))

    def encode(self, x):
        return Posterior(self.mean.expand(len(x), -1), torch.zeros(len(x), len(self.mean)))

    def decode(self, z):
        return torch.full((len(z), 3, 64, 64), 0.5)


def test_active_units_counts_the_latents_that_carry_something(faces):
    collapsed = evaluate(Fixed([0.0, 0.0, 0.0]), faces)
    assert (collapsed["active_units"], collapsed["rate"]) == (0, 0)
    used = evaluate(Fixed([0.0, 2.0, -1.0, 0.1]), faces)  # ½ · 0.1² = 0.005 nats is below the threshold
    assert used["active_units"] == 2
    assert used["rate"] == pytest.approx(0.5 * (4 + 1 + 0.01))
