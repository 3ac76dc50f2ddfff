import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import begun
from safetensors.torch import load_file
from scipy.ndimage import convolve
from sklearn.metrics.pairwise import polynomial_kernel
from torch.nn.functional import interpolate

from vaelib.checkpoints import CHECKPOINT
from vaelib.faces import Faces, load_faces
from vaelib.features import load_factor_net
from vaelib.imagenet import load_lite
from vaelib.losses import optimal_gaussian_nll
from vaelib.metrics import laplacian_pyramid, psnr, reconstruct
from vaelib.model import VAE
from vaelib.plots import decode
from vaelib.pretrained import load_pretrained
from vaelib.priors import NormalPrior
from vaelib.recipes import SharpenConfig
from vaelib.sharpening import (
    KernelWitness,
    PatchDiscriminator,
    ProjectedDiscriminator,
    SharpeningRun,
    augment,
    crowd_features,
    feature_nll,
    pyramid_nll,
    sharpen,
    shifted,
    softened,
    split_for_sharpening,
    unit_maps,
)

QUICK = SharpenConfig(
    epochs=2, batch_size=16, precision="float32", ema=0.0, features=0.0, matching=0.0, adversarial=0.7
)


@pytest.fixture(scope="module")
def small(session_cache) -> Faces:
    """48 drawn faces of 32×32 pixels: three batches of 16."""
    return load_faces("drawn-cartoon", size=32, count=48)


def network() -> VAE:
    torch.manual_seed(0)
    return VAE(base_channels=4, latent_channels=8)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


# ------------------------------------------------------------------------------------------------------ the terms


def test_pyramid_nll_of_one_level_is_the_best_laplacian_likelihood():
    x, x_hat = torch.rand(5, 3, 16, 16), torch.rand(5, 3, 16, 16)  # 16 pixels are not halved
    error = (x_hat - x).abs()
    best = torch.distributions.Laplace(x_hat, error.mean())
    torch.testing.assert_close(pyramid_nll(x_hat, x), -best.log_prob(x).flatten(1).sum(1))


def test_pyramid_nll_minds_a_lost_edge_more_than_a_shifted_colour_of_the_same_squared_error():
    x = (torch.arange(64) % 4 < 2).float().expand(4, 3, 64, 64)
    x = 0.4 + 0.2 * x
    flat = torch.full_like(x, 0.5)  # every stripe is gone
    tinted = x + 0.1
    assert torch.allclose(psnr(flat, x), psnr(tinted, x))
    noise = 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    lost, kept = (pyramid_nll(y + noise, x).mean() for y in (flat, tinted))
    assert lost > kept


def test_feature_nll_is_the_best_gaussian_likelihood():
    maps, maps_hat = [torch.randn(4, 3, 8, 8)], [torch.randn(4, 3, 8, 8)]
    sigma = (maps_hat[0] - maps[0]).square().mean().sqrt()
    expected = -torch.distributions.Normal(maps_hat[0], sigma).log_prob(maps[0]).flatten(1).sum(1)
    torch.testing.assert_close(feature_nll(maps_hat, maps, pixel_values=3 * 8 * 8), expected)


def test_no_layer_outweighs_another():
    """Each layer's error counts by its own spread, so its unit does not matter: the gradients stay."""
    x, x_hat = torch.randn(4, 6), torch.randn(4, 6, requires_grad=True)
    gradients = [
        torch.autograd.grad(feature_nll([x_hat, scale * x_hat], [x, scale * x], 6).sum(), x_hat)[0] for scale in (1, 50)
    ]
    torch.testing.assert_close(*gradients)


def test_the_factor_net_sees_blur_and_lets_gradients_through():
    faces = load_faces("drawn-anime", count=8, verbose=False).batch().requires_grad_()
    maps = load_factor_net().maps(faces)
    assert [tuple(seen.shape[1:]) for seen in maps] == [(24, 32, 32), (48, 16, 16), (96, 8, 8), (128, 4, 4)]
    sum(seen.square().sum() for seen in maps).backward()
    assert faces.grad.abs().sum() > 0


def test_one_number_of_the_discriminator_depends_on_a_patch_of_40_pixels():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 96, 96, requires_grad=True)
    judged = PatchDiscriminator().eval()(x)
    assert judged.shape == (1, 1, 12, 12)
    judged[0, 0, 6, 6].backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert rows.max() - rows.min() + 1 == 40


def test_unit_maps_weigh_every_place_alike(small):
    maps = unit_maps(small.batch(slice(2)))
    assert [tuple(seen.shape) for seen in maps] == [
        (2, 16, 64, 64), (2, 24, 32, 32), (2, 40, 16, 16), (2, 80, 8, 8), (2, 112, 8, 8),
    ]  # fmt: skip
    for seen in maps:
        lengths = seen.square().sum(1).sqrt()
        assert (torch.isclose(lengths, torch.ones(1), atol=1e-4) | (lengths < 1e-4)).all()  # ReLU6 may leave nothing


def test_crowd_features_are_means_and_deviations_over_places(small):
    x = small.batch(slice(3))
    seen = crowd_features(x)
    maps = [map.numpy() for map in load_lite("lite0").maps(interpolate(x, (128, 128), mode="bilinear"))[1:]]
    expected = [map.mean((2, 3)) for map in maps] + [map.std((2, 3), ddof=1) for map in maps]
    assert seen.shape == (3, 512)
    np.testing.assert_allclose(seen, np.concatenate(expected, 1), atol=2e-3)


def test_shifting_moves_all_pictures_alike_by_whole_pixels(small):
    x = small.batch(slice(3))
    wide = np.pad(x.numpy(), ((0, 0), (0, 0), (8, 8), (8, 8)), mode="reflect")
    torch.manual_seed(0)
    places = set()
    for _ in range(20):
        moved = shifted(x).numpy()
        found = [(r, c) for r in range(17) for c in range(17) if (wide[:, :, r : r + 32, c : c + 32] == moved).all()]
        assert len(found) == 1
        places.update(found)
    assert len(places) > 10


def test_softened_is_a_binomial_filter_to_which_a_checkerboard_is_grey():
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    kernel = np.float32([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    expected = torch.from_numpy(convolve(x, kernel[None, None], mode="mirror"))
    torch.testing.assert_close(softened(x), expected)
    checkerboard = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    torch.testing.assert_close(softened(checkerboard.expand(1, 1, 8, 8)), torch.full((1, 1, 8, 8), 0.5))
    assert softened(x.bfloat16()).dtype == torch.float32


def test_the_witness_tells_two_sets_apart_by_their_kernel_distance():
    """Against scikit-learn's kernel: E k(real, real) + E k(decoded, decoded) - 2 E k(real, decoded)."""
    generator = torch.Generator().manual_seed(0)
    real, decoded = (scale * torch.randn(40, 6, generator=generator) + shift for scale, shift in ((1, 0), (2, 0.5)))
    witness = KernelWitness(size=40)
    witness.remember(real, decoded)
    deviation, mean = torch.std_mean(real, 0)
    r, d = (((some - mean) / deviation).numpy() for some in (real, decoded))
    within = sum(polynomial_kernel(some, degree=3, gamma=1 / 6, coef0=1).mean() for some in (r, d))
    across = polynomial_kernel(r, d, degree=3, gamma=1 / 6, coef0=1).mean()
    assert (witness(real).mean() - witness(decoded).mean()).item() == pytest.approx(within - 2 * across, rel=1e-4)


def test_the_witness_remembers_the_last_ones():
    witness = KernelWitness(size=8)
    for number in range(5):
        assert witness.ready == (number > 0)
        witness.remember(torch.full((2, 3), float(number)), torch.full((3, 3), -float(number)))
    assert witness.real[:, 0].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert witness.decoded[:, 0].tolist() == [-2, -2, -3, -3, -3, -4, -4, -4]


def test_augmenting_blanks_a_square_shifts_and_leaves_one_tint_a_picture():
    torch.manual_seed(0)
    x = torch.full((200, 3, 16, 24), 0.5)
    x[:, 0] = 0.8
    x = x.requires_grad_()
    y = augment(x)
    assert y.shape == x.shape
    blank = (y == 0).all(1)
    share = blank.float().mean((1, 2))
    assert share.min() >= 1 / 16 and share.max() <= 1 / 4 + (
        1 - 7 / 8 * 7 / 8
    )  # a corner of the square; its border too
    for picture, nothing in zip(y.detach(), blank, strict=True):
        seen = picture[:, ~nothing]
        torch.testing.assert_close(seen, seen[:, :1].expand_as(seen))
    assert y.detach().flatten(1).std(0).min() > 0.05, "each picture by its own amounts"
    y.sum().backward()
    assert (x.grad[:, 0] != 0).any((1, 2)).all()


def test_augmenting_shifts_by_whole_pixels():
    torch.manual_seed(0)
    x = torch.zeros(50, 3, 16, 16)
    x[:, :, 8, 8] = 1
    y = augment(x)
    middles = y.mean((1, 2, 3), keepdim=True)
    brightest = (y - middles).mean(1).flatten(1).argmax(1)
    shifts = torch.stack([brightest // 16, brightest % 16], 1)[y.amax((1, 2, 3)) > 0.4] - 8
    assert shifts.abs().max() == 2 and len(shifts.unique(dim=0)) > 8


def test_the_projected_discriminator_learns_by_its_heads_alone(small):
    torch.manual_seed(0)
    projected = ProjectedDiscriminator()
    x = small.batch(slice(3)).requires_grad_()
    judged = projected(x)
    assert judged.shape == (3, 16 * 16 + 8 * 8 + 8 * 8)
    judged.mean().backward()
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in load_lite("lite0", x.device).parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in projected.heads.parameters())


# ------------------------------------------------------------------------------------------------------- the run


def test_only_the_decoder_changes(small):
    vae = network()
    before = copy.deepcopy(vae)
    run = sharpen(vae, small, QUICK)
    assert run.vae is vae
    assert same(before.encoder, vae.encoder)
    assert not same(before.decoder, vae.decoder)
    assert not vae.training
    assert [entry["epoch"] for entry in run.history] == [1, 2]
    assert all(parameter.requires_grad for parameter in vae.parameters())


def test_the_gradient_is_that_of_the_whole_loss(small):
    """One step on one batch, against autograd of the sum of the terms."""
    config = replace(QUICK, epochs=1, batch_size=48, optimizer="adam", flip=False, adversarial=0.0, pyramid=0.5)
    vae = begun(network())
    mine = copy.deepcopy(vae).train()
    mine.encoder.eval()
    run = sharpen(vae, small, config)
    torch.manual_seed(config.seed * 1_000_003 + 1)
    x = small.batch(torch.randperm(48).numpy())
    logits = mine.decoder(mine.encode(x).sample())
    (optimal_gaussian_nll(logits, x) + 0.5 * pyramid_nll(logits.sigmoid(), x)).mean().backward()
    for weight, expected in zip(vae.decoder.parameters(), mine.decoder.parameters(), strict=True):
        found = run.optimizer.state[weight]["exp_avg"] / (1 - 0.9)  # Adam's mean after one step, its β₁ taken out
        assert (found - expected.grad).norm() < 1e-3 * expected.grad.norm()


@pytest.fixture
def quick_witness(monkeypatch):
    """A witness that speaks after one batch of 16."""
    monkeypatch.setattr("vaelib.sharpening.KernelWitness", lambda: KernelWitness(size=64))


@pytest.mark.parametrize(
    "terms, kept", [({"adversarial": 0.7}, "judging."), ({"adversarial": 0.0, "matching": 0.7}, "witness.")]
)
def test_a_stopped_run_goes_on_as_if_it_had_not_been(small, tmp_path, quick_witness, terms, kept):
    config = replace(QUICK, epochs=5, ema=0.9, head_start=5, **terms)
    through, broken = network(), network()
    told = sharpen(through, small, config).history[-1].get("told_apart")
    sharpen(broken, small, replace(config, epochs=3), folder=tmp_path)
    run = sharpen(network(), small, config, folder=tmp_path, resume=True)
    assert same(through, run.vae)
    assert run.history[-1].get("told_apart") == told
    assert any(name.startswith(kept) for name in load_file(tmp_path / CHECKPOINT))


@pytest.mark.parametrize("terms, steps", [({"adversarial": 2.5, "head_start": 5}, 4), ({"matching": 2.5}, 8)])
def test_what_compares_sets_pulls_as_hard_as_told(small, quick_witness, terms, steps):
    """At the picture its gradient has that many times the norm of the others', whatever its own scale."""
    pulls = []

    class Spy(SharpeningRun):
        def _scores(self, x, x_hat):
            scores = super()._scores(x, x_hat)
            pulls.extend(share for _, share in scores)
            return scores

        def _pull(self, score, shown, gradient, count):
            pull = super()._pull(score, shown, gradient, count)
            assert pull[:count].norm().item() == pytest.approx(gradient[:count].norm().item(), rel=1e-4)
            assert pull[count:].norm() > 0 and not gradient[count:].any()  # the samples have no original to be like
            return pull

    config = replace(QUICK, epochs=3, **({"adversarial": 0.0} | terms))
    Spy(network(), small, config, prior=NormalPrior((8, 1, 1))).resume()
    assert pulls == steps * [2.5]


def test_matching_brings_the_reconstructions_as_a_set_nearer_to_the_faces(session_cache, quick_witness):
    faces = load_faces("drawn-cartoon", size=64, count=64)
    real, far = crowd_features(faces.batch()), {}
    for matching in (0.0, 1.0):
        config = replace(QUICK, epochs=5, adversarial=0.0, matching=matching)
        run = sharpen(load_pretrained("drawn-cartoon").vae, faces, config)
        decoded = crowd_features(reconstruct(run.model, faces.batch()))
        witness = KernelWitness()
        witness.remember(real, decoded)
        far[matching] = (witness(real).mean() - witness(decoded).mean()).item()
    assert far[1.0] < 0.9 * far[0.0]


# A discriminator adds detail; features move that of the cartoons, whose base is crisp, to where it belongs.
@pytest.mark.parametrize("name, times", [("anime", 1.05), ("cartoon", 1.0)])
def test_the_sharpened_models_that_ship_draw_finer_from_the_same_latents(name, times):
    base, sharp = load_pretrained(name), load_pretrained(f"{name}-sharp")
    assert same(base.vae.encoder, sharp.vae.encoder)
    z = base.priors["flow"].sample(32, torch.Generator().manual_seed(0))
    blurred, fine = (decode(bundle.vae, z) for bundle in (base, sharp))
    detail = [next(laplacian_pyramid(x)).square().mean() for x in (blurred, fine)]
    assert detail[1] > times * detail[0]
    assert psnr(fine, blurred).mean() > 18, "still the same faces"


def test_other_maps_can_take_the_networks_place(small):
    seen = []

    def maps(x):
        seen.append(x.shape)
        return [x[:, :, ::2], x.mean(1)]

    sharpen(network(), small, replace(QUICK, epochs=1, features=1.0, adversarial=0.0), maps=maps)
    assert seen == 2 * 3 * [(16, 3, 32, 32)]  # a batch and its reconstruction, in each of three steps


def test_no_face_that_a_base_model_learned_from_tests_its_sharpening(session_cache):
    few, many = (load_faces("drawn-anime", 32, count) for count in (40, 400))
    train, test = split_for_sharpening(few)
    assert (len(train), len(test)) == (40, 4)
    learned = {face.tobytes() for face in many.images}
    assert learned.issuperset(face.tobytes() for face in train.images)
    assert learned.isdisjoint(face.tobytes() for face in test.images)


def test_the_rate_and_distortion_of_a_run_are_those_of_the_faces_alone(small):
    """Samples of a prior stand beside the reconstructions for the discriminators, in one batch of the decoder."""
    config = replace(QUICK, epochs=1, batch_size=48, flip=False, discriminator="patch")
    one, both = (sharpen(network(), small, config, prior=prior) for prior in (None, NormalPrior((8, 1, 1))))
    assert one.history[0]["rate"] == both.history[0]["rate"]
    assert one.history[0]["distortion"] == pytest.approx(both.history[0]["distortion"], rel=0.05)


def test_an_unknown_discriminator():
    with pytest.raises(ValueError, match="got discriminator='hinge', expected one of both, patch, projected"):
        SharpenConfig(discriminator="hinge")


@pytest.mark.parametrize("name", ["pyramid", "features", "matching", "adversarial"])
def test_weights_below_0(name):
    with pytest.raises(ValueError, match=f"got {name}=-1, expected a weight of 0 or more"):
        SharpenConfig(**{name: -1})
    with pytest.raises(ValueError, match=f"got {name}=nan"):
        SharpenConfig(**{name: math.nan})
