import pytest
import torch
from torch import nn

from vaelib.model import VAE, DenseVAE
from vaelib.muon import MOMENTUM, STEP_SIZE, Muon, orthogonalize


@pytest.fixture
def network():
    torch.manual_seed(0)
    return VAE(base_channels=4, depth=2, latent_channels=8)


def give_gradients(network: nn.Module, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def update(network: nn.Module, optimizer: torch.optim.Optimizer, name: str) -> torch.Tensor:
    """What one step adds to the weight called `name`."""
    weight = dict(network.named_parameters())[name]
    before = weight.detach().clone()
    optimizer.step()
    return weight.detach() - before


@pytest.mark.parametrize("shape", [(8, 40), (40, 8)])
def test_a_matrix_keeps_its_directions_and_loses_its_lengths(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalize(matrix)
    assert found.shape == shape
    # In the basis of the SVD it is diagonal, and near 1 there: UᵀXV = diag.
    inner = u.T @ found @ vh.T
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), atol=1e-4, rtol=0)
    assert inner.diagonal().min() > 0.65 and inner.diagonal().max() < 1.25


def test_products_in_bfloat16_are_enough():
    matrix = torch.randn(16, 40, generator=torch.Generator().manual_seed(0))
    exact = orthogonalize(matrix)
    with torch.autocast("cpu", torch.bfloat16):
        found = orthogonalize(matrix)
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    assert ((found - exact).norm() / exact.norm()) < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_iteration_maps_each_singular_value_by_the_polynomial(dtype):
    values = torch.tensor([0.9, 0.4, 0.1, 0.02], dtype=dtype)
    values = values / values.norm()
    found = orthogonalize(torch.diag(values), steps=5)
    assert found.dtype == dtype
    expected = values.double()
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    torch.testing.assert_close(found.diagonal().double(), expected, atol=1e-5, rtol=1e-5)


def test_a_zero_gradient_is_no_direction():
    assert not orthogonalize(torch.zeros(3, 5)).any()


@pytest.mark.parametrize(
    "name, exchange",
    [("encoder.stages.0.1.weight", False), ("decoder.stages.0.1.weight", True)],  # a convolution, a transposed one
)
def test_a_convolution_is_a_matrix_from_its_inputs_to_its_outputs(network, name, exchange):
    give_gradients(network)
    gradient = dict(network.named_parameters())[name].grad
    found = update(network, Muon(network, muon_rate=0.5, learning_rate=1e-3), name)
    if exchange:
        gradient, found = gradient.transpose(0, 1), found.transpose(0, 1)
    # The first step's momentum is the gradient, so Nesterov's look ahead has its direction.
    u, _, vh = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    size = STEP_SIZE * max(gradient.flatten(1).shape) ** 0.5
    inner = u.T @ (found.flatten(1) / (-0.5 * size)) @ vh.T
    torch.testing.assert_close(inner, inner.diagonal().diag(), atol=2e-4, rtol=0)
    assert inner.diagonal().min() > 0.65 and inner.diagonal().max() < 1.25
    assert found.square().mean().sqrt() == pytest.approx(0.5 * STEP_SIZE, rel=0.2)


def test_momentum_adds_up(network):
    name = "decoder.head.weight"
    optimizer = Muon(network, muon_rate=1.0, learning_rate=1e-3)
    gradients = []
    for seed in (1, 2):
        give_gradients(network, seed)
        gradients.append(dict(network.named_parameters())[name].grad.clone())
        found = update(network, optimizer, name)
    momentum = MOMENTUM * gradients[0] + gradients[1]
    ahead = (gradients[1] + MOMENTUM * momentum).flatten(1)
    expected = -STEP_SIZE * max(ahead.shape) ** 0.5 * orthogonalize(ahead)
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-4, atol=1e-5)


def test_the_rest_learns_by_adam(network):
    twin = VAE(base_channels=4, depth=2, latent_channels=8)
    twin.load_state_dict(network.state_dict())
    optimizers = Muon(network, muon_rate=1e-2, learning_rate=1e-3), torch.optim.Adam(twin.parameters(), 1e-3)
    for seed in range(3):
        for net, optimizer in zip((network, twin), optimizers, strict=True):
            give_gradients(net, seed)
            optimizer.step()
    found, expected = dict(network.named_parameters()), dict(twin.named_parameters())
    by_adam = {name for name in found if torch.allclose(found[name], expected[name], rtol=1e-5, atol=1e-7)}
    vectors = {name for name, parameter in found.items() if parameter.ndim == 1}
    assert by_adam == vectors | {"encoder.stem.0.weight"}, "norms, biases and the layer that sees the picture"


def test_a_dense_network_has_matrices_too():
    network = DenseVAE(image_size=32, latent_dim=4)
    hidden, rest = Muon(network, 1e-2, 1e-3).param_groups
    assert len(hidden["params"]) == 10 and all(weight.ndim > 1 for weight in hidden["params"])
    assert len(hidden["params"]) + len(rest["params"]) == len(list(network.parameters()))


def test_what_has_no_gradient_stays(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    Muon(network, 1e-2, 1e-3).step()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
