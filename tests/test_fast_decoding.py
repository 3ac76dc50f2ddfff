import pytest
import torch
from torch import nn

from vaelib.fast_decoding import FastDecoder
from vaelib.model import VAE, DenseVAE


@pytest.mark.parametrize(
    "vae",
    [VAE(base_channels=4, latent_channels=8), VAE(base_channels=16, latent_channels=8), DenseVAE(3, 64, 20)],
    ids=["small", "wide enough for products", "dense"],
)
@pytest.mark.parametrize("count", [1, 3])
@torch.no_grad()
def test_it_gives_the_same_faces_as_the_model(vae, count):
    for norm in (module for module in vae.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.normal_()
    z = torch.randn(count, *vae.latent_shape(64))
    torch.testing.assert_close(FastDecoder(vae)(z), vae.eval().decode(z), atol=1e-5, rtol=1e-4)


def test_it_leaves_the_model_and_the_number_of_threads_as_they_were(tiny_vae):
    before = {name: value.clone() for name, value in tiny_vae.train().state_dict().items()}
    torch.set_num_threads(2)
    faces = FastDecoder(tiny_vae)(torch.randn(1, *tiny_vae.latent_shape(64)))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert faces.shape == (1, 3, 64, 64) and faces.dtype == torch.float32
    assert tiny_vae.training and all(parameter.requires_grad for parameter in tiny_vae.parameters())
    assert all(torch.equal(value, before[name]) for name, value in tiny_vae.state_dict().items())
