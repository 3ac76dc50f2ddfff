import numpy as np
import pytest
import torch

from vaelib.latents import encode_faces, fit_pca, interpolate


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    """500 latents (2, 3, 2) with a different spread in each of twelve oblique directions, away from the origin."""
    generator = torch.Generator().manual_seed(0)
    oblique, _ = torch.linalg.qr(torch.randn(12, 12, generator=generator))
    spread = torch.linspace(4, 0.2, 12)
    z = torch.randn(500, 12, generator=generator) * spread @ oblique + 3
    return z.reshape(500, 2, 3, 2)


def test_axes_are_the_singular_vectors(latents):
    axes = fit_pca(latents, 5)
    flat = latents.flatten(1).double().numpy()
    _, singular, vectors = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    cosines = axes.directions.flatten(1).numpy() @ vectors[:5].T
    np.testing.assert_allclose(np.abs(cosines), np.eye(5), atol=1e-5)
    np.testing.assert_allclose(axes.scales, singular[:5] / np.sqrt(499), rtol=1e-5)
    np.testing.assert_allclose(axes.explained, (singular**2 / (singular**2).sum())[:5], rtol=1e-5)
    np.testing.assert_allclose(axes.mean.flatten(), flat.mean(0), rtol=1e-5)
    assert len(axes) == 5 and axes.mean.shape == (2, 3, 2) and axes.directions.shape == (5, 2, 3, 2)
    assert {tensor.dtype for tensor in vars(axes).values()} == {torch.float32}


def test_signs_do_not_depend_on_the_order_of_the_data(latents):
    first, second = fit_pca(latents, 5), fit_pca(latents.flip(0), 5)
    torch.testing.assert_close(first.directions, second.directions, atol=1e-5, rtol=1e-5)
    flat = first.directions.flatten(1)
    assert (flat.gather(1, flat.abs().argmax(1, keepdim=True)) > 0).all()


def test_a_weight_is_one_standard_deviation_of_the_data(latents):
    weights = fit_pca(latents, 6).weights(latents)
    torch.testing.assert_close(weights.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(weights.std(0), torch.ones(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.corrcoef(weights.T), torch.eye(6), atol=1e-4, rtol=0)


def test_weights_and_latents_are_each_others_inverse(latents):
    axes = fit_pca(latents, 5)
    weights = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(axes.weights(axes.latents(weights)), weights, atol=1e-5, rtol=1e-4)

    every = fit_pca(latents, 12)  # with all twelve axes nothing of a latent is lost
    torch.testing.assert_close(every.latents(every.weights(latents)), latents, atol=1e-4, rtol=1e-4)


def test_weight_zero_is_the_mean(latents):
    axes = fit_pca(latents, 5)
    torch.testing.assert_close(axes.latents(torch.zeros(2, 5)), axes.mean.expand(2, 2, 3, 2))
    step = axes.latents(torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]])) - axes.mean
    torch.testing.assert_close(step[0], axes.directions[1] * axes.scales[1])


@pytest.mark.parametrize("shape", [(5,), (2, 4), (2, 3, 5)])
def test_weights_of_another_shape(latents, shape):
    with pytest.raises(ValueError, match=r"got weights of shape .*, expected \(batch, 5\)"):
        fit_pca(latents, 5).latents(torch.zeros(shape))


@pytest.mark.parametrize("rows, count, most", [(500, 0, 12), (500, 13, 12), (5, 5, 4)])
def test_more_axes_than_there_are(latents, rows, count, most):
    with pytest.raises(ValueError, match=f"got count={count}, expected 1 to {most} for latents"):
        fit_pca(latents[:rows], count)


def test_interpolate_goes_straight_from_end_to_end():
    start, end = torch.randn(2, 8, 2, 2, generator=torch.Generator().manual_seed(0))
    line = interpolate(start, end, 5)
    assert line.shape == (5, 8, 2, 2)
    assert torch.equal(line[0], start) and torch.equal(line[-1], end)
    torch.testing.assert_close(line[2], (start + end) / 2)
    torch.testing.assert_close(line.diff(dim=0), ((end - start) / 4).expand(4, 8, 2, 2), atol=1e-5, rtol=1e-5)


def test_interpolate_wants_equal_shapes():
    with pytest.raises(ValueError, match=r"got latents of shapes \(8,\) and \(9,\), expected equal ones"):
        interpolate(torch.zeros(8), torch.zeros(9), 3)


def test_encode_faces_is_encode_in_one_batch(tiny_vae, faces):
    posterior = encode_faces(tiny_vae.train(), faces, batch_size=25)
    assert tiny_vae.training
    with torch.no_grad():
        expected = tiny_vae.eval().encode(faces.batch())
    assert posterior.mean.shape == (96, 8, 2, 2)
    torch.testing.assert_close(posterior.mean, expected.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(posterior.log_var, expected.log_var, atol=1e-5, rtol=1e-5)
