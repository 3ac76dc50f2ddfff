import socket
from itertools import pairwise

import pytest
import torch
from torch import nn

from vaelib.model import VAE, DenseVAE, Posterior, Residual, inference


def trainable(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


@pytest.fixture(scope="module")
def vae() -> VAE:
    torch.manual_seed(0)
    return VAE().eval()


@pytest.fixture(scope="module")
def dense_vae() -> DenseVAE:
    torch.manual_seed(0)
    return DenseVAE(image_size=64).eval()


# ------------------------------------------------------------------------------------------- the published tables


def test_anime_vae_counts_17_089_539_parameters(vae):
    assert trainable(vae) == 17_089_539


def test_anime_vae_counts_layer_by_layer(vae):
    encoder, decoder = vae.encoder, vae.decoder
    assert (trainable(encoder.stem[0]), trainable(encoder.stem[1])) == (540, 40)
    assert [trainable(stage) for stage in encoder.stages] == [16_520, 65_840, 262_880, 1_050_560, 4_200_320]
    assert trainable(encoder.head) == 1_474_816

    assert (trainable(decoder.stem[0]), trainable(decoder.stem[1])) == (737_280, 1_280)
    assert [trainable(stage) for stage in decoder.stages] == [6_965_120, 1_741_760, 435_680, 109_040, 27_320]
    assert trainable(decoder.head) == 543


def test_vae_anime_cartoon_counts():
    vae = DenseVAE()
    assert trainable(vae.encoder) == 3_521_328
    assert trainable(vae.decoder) == 1_085_859


@pytest.mark.parametrize("network", ["vae", "dense_vae"])
def test_no_bias_where_a_batch_norm_subtracts_it_in_anime_vae(network, request):
    layers = list(request.getfixturevalue(network).modules())
    before_norm = [
        module.bias
        for module, following in pairwise(layers)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and isinstance(following, nn.BatchNorm2d)
    ]
    assert before_norm
    assert all((bias is None) == (network == "vae") for bias in before_norm)  # the Keras original has them


# ------------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("height, width", [(64, 64), (128, 128), (64, 96), (32, 32)])
def test_any_size_that_32_divides_goes_through(vae, height, width):
    x = torch.rand(2, 3, height, width)
    with torch.inference_mode():
        logits, posterior = vae(x)
        x_hat = vae.decode(posterior.mean)
    assert posterior.mean.shape == posterior.log_var.shape == (2, 128, height // 32, width // 32)
    assert logits.shape == x_hat.shape == x.shape
    assert x_hat.min() >= 0 and x_hat.max() <= 1


def test_the_dense_network_keeps_one_vector(dense_vae):
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        logits, posterior = dense_vae(x)
    assert posterior.mean.shape == posterior.log_var.shape == (2, 200)
    assert logits.shape == x.shape
    assert dense_vae.latent_shape(64) == (200,)


def test_the_published_dense_network_takes_256_pixels():
    with torch.inference_mode():
        logits, posterior = DenseVAE().eval()(torch.rand(1, 3, 256, 256))
    assert posterior.mean.shape == (1, 200) and logits.shape == (1, 3, 256, 256)


def test_latent_shape_is_what_encode_gives(vae, tiny_vae):
    assert vae.latent_shape(64) == (128, 2, 2)
    assert vae.latent_shape(256) == (128, 8, 8)
    assert tiny_vae.latent_shape(64) == (8, 2, 2) == tiny_vae.eval().encode(torch.rand(1, 3, 64, 64)).mean.shape[1:]


def test_other_channels_widths_and_depths():
    vae = VAE(image_channels=1, base_channels=4, depth=3, latent_channels=6).eval()
    posterior = vae.encode(torch.rand(2, 1, 24, 40))
    assert posterior.mean.shape == (2, 6, 3, 5)
    assert vae.decode(posterior.mean).shape == (2, 1, 24, 40)


# ---------------------------------------------------------------------------------------------------- behaviour


def test_a_residual_block_starts_as_the_identity_and_learns_from_the_first_step():
    torch.manual_seed(0)
    block, x = Residual(6), torch.randn(4, 6, 8, 8)
    torch.testing.assert_close(block(x), x, rtol=0, atol=0)
    block(x).square().sum().backward()
    assert block.block[1].weight.grad.abs().min() > 0


def test_encode_rescales_for_itself(vae):
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        mean, log_var = vae.encoder(x * 2 - 1).chunk(2, 1)
        posterior = vae.encode(x)
    torch.testing.assert_close(posterior.mean, mean)
    torch.testing.assert_close(posterior.log_var, log_var)


def test_decode_is_the_sigmoid_of_the_logits(vae):
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        logits, posterior = vae(x, torch.Generator().manual_seed(1))
        x_hat = vae.decode(posterior.sample(torch.Generator().manual_seed(1)))
    torch.testing.assert_close(x_hat, logits.sigmoid())


def test_a_generator_makes_forward_repeatable(vae):
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        first, second, other = (vae(x, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_pictures_of_a_batch_do_not_mix_in_eval_mode(vae, x):
    with torch.inference_mode():
        together = vae.encode(x[:3]).mean
        alone = torch.cat([vae.encode(picture[None]).mean for picture in x[:3]])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_outputs_stay_float32_under_autocast(tiny_vae):
    with torch.autocast("cpu", torch.bfloat16):
        logits, posterior = tiny_vae(torch.rand(2, 3, 64, 64))
    assert logits.dtype == posterior.mean.dtype == posterior.log_var.dtype == torch.float32


def test_samples_have_the_posteriors_mean_and_variance():
    mean = torch.tensor([-2.0, 0.0, 3.0])
    sigma = torch.tensor([0.1, 1.0, 2.5])
    count = 200_000
    posterior = Posterior(mean.expand(count, 3), (2 * sigma.log()).expand(count, 3))
    z = posterior.sample(torch.Generator().manual_seed(0))
    standard_error = sigma / count**0.5
    assert ((z.mean(0) - mean).abs() < 5 * standard_error).all()
    assert ((z.std(0) / sigma - 1).abs() < 5 / (2 * count) ** 0.5).all()
    correlation = torch.corrcoef(z.T) - torch.eye(3)
    assert correlation.abs().max() < 5 / count**0.5


def test_samples_are_repeatable_and_differentiable():
    mean, log_var = torch.zeros(4, 5, requires_grad=True), torch.zeros(4, 5, requires_grad=True)
    posterior = Posterior(mean, log_var)
    z = posterior.sample(torch.Generator().manual_seed(3))
    assert torch.equal(z, posterior.sample(torch.Generator().manual_seed(3)))
    z.sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(4, 5))
    torch.testing.assert_close(log_var.grad, 0.5 * z.detach())  # ∂(σε)/∂log σ² = ½ σε, and σ = 1


# ----------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("height, width, size", [(50, 50, 64), (64, 100, 96), (16, 64, 32), (70, 64, 64)])
def test_a_size_that_32_does_not_divide(vae, height, width, size):
    with pytest.raises(ValueError, match=f"expected a multiple of 32: .* Resize to {size}."):
        vae.encode(torch.rand(1, 3, height, width))


def test_uint8_pictures(vae):
    with pytest.raises(ValueError, match=r"got pictures of torch.uint8, expected float in \[0, 1\]: divide"):
        vae.encode(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 64, 64, 3)])
def test_pictures_of_another_shape(vae, shape):
    with pytest.raises(ValueError, match=r"expected \(batch, 3, height, width\)"):
        vae.encode(torch.rand(shape))


def test_the_dense_network_is_tied_to_its_size(dense_vae):
    with pytest.raises(ValueError, match=r"got a side of 128 pixels, expected 64: .*DenseVAE\(image_size=128\)"):
        dense_vae.encode(torch.rand(1, 3, 128, 128))
    with pytest.raises(ValueError, match="expected 64"):
        dense_vae.encode(torch.rand(1, 3, 64, 96))
    with pytest.raises(ValueError, match="got image_size=50, expected a multiple of 32"):
        DenseVAE(image_size=50)


@pytest.mark.parametrize("width", ["image_channels", "base_channels", "latent_channels"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_network_without_channels(width, value):
    with pytest.raises(ValueError, match=f"got {width}={value}, expected at least 1"):
        VAE(**{width: value})


@pytest.mark.parametrize("width", ["image_channels", "latent_dim"])
def test_a_dense_network_without_channels(width):
    with pytest.raises(ValueError, match=f"got {width}=0, expected at least 1"):
        DenseVAE(image_size=32, **{width: 0})


# ------------------------------------------------------------------------------------------------- save and load


@pytest.mark.parametrize(
    "build",
    [
        lambda: VAE(base_channels=4, latent_channels=8),
        lambda: VAE(image_channels=1, base_channels=2, depth=4, latent_channels=3),
        lambda: DenseVAE(image_size=32, latent_dim=7),
    ],
)
def test_save_and_load_bit_for_bit_without_a_network(tmp_path, monkeypatch, build):
    monkeypatch.setattr(socket, "socket", lambda *args, **options: pytest.fail("no network needed"))
    vae = build()
    vae.train()(torch.rand(4, vae.image_channels, 32, 32))  # moves the running averages of the batch norms
    vae.save_pretrained(tmp_path)
    assert {"model.safetensors", "config.json"} <= {path.name for path in tmp_path.iterdir()}

    loaded = type(vae).from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == vae.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in vae.state_dict().items())
    x = torch.rand(1, vae.image_channels, 32, 32)
    assert torch.equal(loaded.eval().encode(x).mean, vae.eval().encode(x).mean)


def test_weights_of_another_network_are_an_error_not_random_numbers(tmp_path):
    DenseVAE(image_size=32, latent_dim=7).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RuntimeError, match="Missing key"):
        VAE.from_pretrained(tmp_path)


def test_inference_puts_the_mode_back_even_after_an_error(tiny_vae, x):
    tiny_vae.train()
    with pytest.raises(ValueError), inference(tiny_vae) as device:
        assert not tiny_vae.training and not torch.is_grad_enabled()
        tiny_vae.encode(x[:, :2].to(device))
    assert tiny_vae.training and torch.is_grad_enabled()
