import math
from urllib.error import URLError

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import convolve
from scipy.stats import wasserstein_distance
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from torchvision.transforms.functional import gaussian_blur

from vaelib import metrics
from vaelib.faces import Faces, load_faces
from vaelib.metrics import (
    copying,
    evaluate,
    evaluate_samples,
    fid,
    frechet_distance,
    judge,
    kernel_distance,
    kid,
    lpips,
    nearest_faces,
    precision_recall,
    psnr,
    reconstruct,
    sliced_wasserstein,
    ssim,
)
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


# ---------------------------------------------------------------------------------- samples against faces


@pytest.fixture
def quick(monkeypatch):
    """Fewer patches and directions than published."""
    monkeypatch.setattr(metrics, "PATCHES", 32)
    monkeypatch.setattr(metrics, "REPEATS", 1)


@pytest.fixture(scope="module")
def many() -> Faces:
    """192 drawn anime faces."""
    return load_faces("drawn-anime", count=192)


@pytest.fixture(scope="module")
def halves(many) -> tuple[torch.Tensor, Faces]:
    """96 of them as pictures, the others as faces."""
    return many.batch(slice(96)), many.select(range(96, 192))


def random_features(count: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(8, 8, generator=torch.Generator().manual_seed(99))
    return torch.randn(count, 8, generator=generator) @ mix + shift


def test_worse_pictures_get_worse_scores(quick, halves):
    x, faces = halves
    uniform = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    cartoons = load_faces("drawn-cartoon", count=96).batch()
    little, much = gaussian_blur(x, 7, 1.0), gaussian_blur(x, 13, 2.0)
    kinds = {"faces": x, "little": little, "much": much, "cartoons": cartoons, "uniform": uniform}
    scores = {kind: evaluate_samples(pictures, faces) for kind, pictures in kinds.items()}
    for name in ("swd", "frechet"):
        values = {kind: score[name] for kind, score in scores.items()}
        assert values["faces"] < values["little"] < values["much"] < values["uniform"]
        assert 1.5 * values["faces"] < values["cartoons"]
    for name in ("precision", "recall"):
        assert scores["faces"][name] > 0.7
        assert max(scores["uniform"][name], scores["cartoons"][name]) < 0.3


def test_a_model_with_few_faces_has_little_recall(quick, halves):
    x, faces = halves
    collapsed = evaluate_samples((x[:3].repeat(32, 1, 1, 1) + 0.01 * torch.rand(x.shape)).clamp(0, 1), faces)
    assert collapsed["precision"] > 0.6
    assert collapsed["recall"] < 0.1


def test_scores_depend_on_the_seed_alone(quick, many, x):
    pictures = torch.cat([x] * 5)  # 80 pictures against 80 of 192 faces
    torch.manual_seed(1)
    first = evaluate_samples(pictures, many, seed=3)
    torch.manual_seed(2)
    assert evaluate_samples(pictures, many, seed=3) == first
    assert evaluate_samples(pictures, many, seed=4)["frechet"] != first["frechet"]


def test_sliced_wasserstein_of_each_level(quick, halves):
    x, faces = halves
    found = sliced_wasserstein(x, faces.batch())
    assert list(found) == ["64", "32", "16", "mean"]
    assert found["mean"] == pytest.approx((found["64"] + found["32"] + found["16"]) / 3)
    blurred = sliced_wasserstein(gaussian_blur(x, 5, 0.7), faces.batch())
    changes = [blurred[level] - found[level] for level in ("64", "32", "16")]
    assert changes[0] > changes[1] > changes[2], "a blur takes the finest level first"
    assert list(sliced_wasserstein(x[:2, :, :48, :48], x[2:4, :, :48, :48])) == ["48", "24", "mean"]


def test_sliced_wasserstein_does_not_see_brightness(quick, halves):
    """Each set's patches are brought to mean 0 and variance 1, as published: contrast and tint cancel."""
    x, faces = halves
    same = sliced_wasserstein(0.5 * x + 0.25, 0.5 * faces.batch())
    assert same == pytest.approx(sliced_wasserstein(x, faces.batch()), rel=1e-3)


def test_the_pyramid_by_scipy(x):
    row = np.array([1, 4, 6, 4, 1]) / 16
    picture = x[0, 0].numpy()
    smooth = convolve(picture, np.outer(row, row), mode="mirror")
    spread = np.zeros_like(picture)
    spread[::2, ::2] = smooth[::2, ::2]
    finest = picture - 4 * convolve(spread, np.outer(row, row), mode="mirror")
    found = list(metrics.laplacian_pyramid(x))
    assert [level.shape[2] for level in found] == [64, 32, 16]
    np.testing.assert_allclose(found[0][0, 0].numpy(), finest, atol=1e-6)


def test_patches_are_windows_of_the_pictures(monkeypatch):
    monkeypatch.setattr(metrics, "PATCHES", 3)
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    patches = metrics._patches(x, torch.Generator().manual_seed(0)).T.unflatten(1, (3, 7, 7))
    assert len(patches) == 6
    torch.testing.assert_close(patches.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(patches.square().mean((0, 2, 3)), torch.ones(3))
    windows = x.unfold(2, 7, 1).unfold(3, 7, 1).permute(0, 2, 3, 1, 4, 5).reshape(2, 100, 3, 49)
    for i, patch in enumerate(patches.flatten(2)):  # equal up to scale and shift: a correlation of 1 in each channel
        correlations = [
            min(np.corrcoef(patch[c], window[c])[0, 1] for c in range(3)) for window in windows[i // 3].numpy()
        ]
        assert max(correlations) == pytest.approx(1, abs=1e-4)


def test_sliced_by_scipy():
    a, b = random_features(50, 0).T, random_features(50, 1, shift=1).T
    found = metrics._sliced(a, b, torch.Generator().manual_seed(5))
    directions = torch.randn(128, 8, generator=torch.Generator().manual_seed(5))
    unit = [direction / direction.norm() for direction in directions]
    expected = [wasserstein_distance((d @ a).numpy(), (d @ b).numpy()) for d in unit]
    assert found == pytest.approx(np.mean(expected), rel=1e-5)


def test_frechet_distance_by_scipy():
    a, b = random_features(100, 0).double(), 1.5 * random_features(60, 1, shift=0.5).double()
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(b, a) == pytest.approx(expected)


def test_frechet_distance_of_shifted_features_is_the_shift_squared():
    a = random_features(100, 0).double()
    assert frechet_distance(a, a + 3) == pytest.approx(8 * 3**2)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_fewer_pictures_than_features_by_scipy():
    a, b = (torch.randn(6, 9, generator=torch.Generator().manual_seed(seed)).double() for seed in (0, 1))
    roots = [sqrtm(np.cov(x.T)) for x in (a, b)]  # Σ^½, since scipy's root of a singular product is not exact
    overlap = np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * overlap
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-5)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_by_brute_force():
    a, b = random_features(12, 0), random_features(12, 1, shift=0.5)

    def kernel(p, q):
        return (float(p @ q) / 8 + 1) ** 3

    within = [np.mean([kernel(p, q) for i, p in enumerate(x) for j, q in enumerate(x) if i != j]) for x in (a, b)]
    across = np.mean([kernel(p, q) for p in a for q in b])
    assert kernel_distance(a, b) == pytest.approx(sum(within) - 2 * across, rel=1e-4)


def test_kernel_distance_of_one_distribution_is_0_on_average_whatever_the_count():
    for count in (20, 80):
        found = [
            kernel_distance(random_features(count, seed), random_features(count, seed + 500)) for seed in range(60)
        ]
        assert min(found) < 0 < max(found)
        assert abs(np.mean(found)) < 3 * np.std(found) / 60**0.5


def test_the_judge_prefers_faces_to_blurred_ones_and_those_to_other_things(halves):
    x, faces = halves[0][:24], halves[1].batch(slice(24))
    uniform = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    found = [judge(pictures, faces) for pictures in (x, gaussian_blur(x, 7, 1.0), uniform)]
    assert list(found[0]) == ["judge_fd", "judge_kid", "judge_precision", "judge_recall"]
    for name in ("judge_fd", "judge_kid"):
        assert found[0][name] < found[1][name] < found[2][name]
    assert found[0]["judge_precision"] > 0.5 and found[2]["judge_precision"] == 0


def test_precision_and_recall_by_hand():
    """Faces at 0, 1, 2 reach 1 far each with k = 1; samples at 1.5 and 1.6 reach 0.1."""
    faces, samples = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.5], [1.6], [10.0]])
    assert precision_recall(samples, faces, k=1) == pytest.approx({"precision": 2 / 3, "recall": 1 / 3})


def test_precision_and_recall_by_brute_force():
    samples, faces = random_features(40, 0, shift=1).numpy(), random_features(30, 1).numpy()

    def share(points, members):
        def reach(member):
            return sorted(np.linalg.norm(members - member, axis=1))[3]

        inside = [any(np.linalg.norm(point - m) <= reach(m) for m in members) for point in points]
        return np.mean(inside)

    found = precision_recall(torch.tensor(samples), torch.tensor(faces), k=3)
    assert found == pytest.approx({"precision": share(samples, faces), "recall": share(faces, samples)})


# ------------------------------------------------------------------------------------------------- copies


def test_nearest_faces_by_brute_force(faces):
    pictures = noisy(faces.batch([5, 90, 41]), 0.2)
    row, distance = nearest_faces(pictures, faces, batch_size=40)
    for picture, found_row, found in zip(pictures, row, distance, strict=True):
        every = [(picture - face).square().mean().sqrt().item() for face in faces.batch()]
        assert found_row == np.argmin(every)
        assert found.item() == pytest.approx(min(every), rel=1e-5)
    row, distance = nearest_faces(faces.batch([17]), faces)
    assert (row.tolist(), distance.tolist()) == ([17], [0.0])


def test_copies_are_told_from_new_faces(many):
    train, held_out = many.select(range(96)), many.batch(slice(96, 144))
    copies, new = noisy(train.batch(slice(48)), 0.02), many.batch(slice(144, 192))
    assert copying(copies, held_out, train)["nearer"] == 1
    found = copying(new, held_out, train)
    assert 0.35 < found["nearer"] < 0.65
    distances = [nearest_faces(x, train)[1].numpy() for x in (new, held_out)]
    assert (found["samples"], found["held_out"]) == pytest.approx(tuple(map(np.median, distances)))
    assert found["nearer"] == pytest.approx(np.less.outer(*distances).mean())


# --------------------------------------------------------------------------- networks that are downloaded


class Average(nn.Module):
    """Stands in for Inception: the 12 colours of a 2×2 picture."""

    num_features = 12

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def test_fid_is_the_frechet_distance_of_a_networks_features(monkeypatch, halves):
    def metric(normalize):
        return FrechetInceptionDistance(Average(), normalize=normalize)

    monkeypatch.setattr(metrics, "FrechetInceptionDistance", metric)
    x, faces = halves
    x = 0.8 * x
    expected = frechet_distance(Average()(x), Average()(faces.batch()))
    assert fid(x, faces.batch()) == pytest.approx(expected, rel=1e-3)


def test_kid_by_the_formula(monkeypatch, halves):
    """With one subset of everything: Bińkowski et al.'s unbiased MMD² under the kernel (a·b / D + 1)³."""

    def metric(subset_size, normalize):
        return KernelInceptionDistance(Average(), subsets=2, subset_size=subset_size, normalize=normalize)

    monkeypatch.setattr(metrics, "KernelInceptionDistance", metric)
    x, faces = halves
    x = 0.8 * x
    a, b = Average()(x).double(), Average()(faces.batch()).double()
    within = [((f @ f.T / 12 + 1) ** 3).fill_diagonal_(0).sum() / (96 * 95) for f in (a, b)]
    expected = within[0] + within[1] - 2 * ((a @ b.T / 12 + 1) ** 3).mean()
    before = torch.random.get_rng_state()
    assert kid(x, faces.batch()) == pytest.approx(expected.item(), rel=1e-3)
    assert torch.equal(torch.random.get_rng_state(), before)


def unreachable(*args, **options):
    raise URLError("no route to host")


def absent(*args, **options):
    raise ModuleNotFoundError("No module named 'torch_fidelity'")


@pytest.mark.parametrize(
    ("measure", "network"),
    [
        (fid, "FrechetInceptionDistance"),
        (kid, "KernelInceptionDistance"),
        (lpips, "learned_perceptual_image_patch_similarity"),
    ],
)
def test_without_a_network_it_says_so(monkeypatch, measure, network, x):
    monkeypatch.setattr(metrics, network, unreachable)
    with pytest.raises(ConnectionError, match=r"downloads its network once, and could not .*use evaluate_samples"):
        measure(x, x)


@pytest.mark.parametrize(("measure", "network"), [(fid, "FrechetInceptionDistance"), (kid, "KernelInceptionDistance")])
def test_without_torch_fidelity_it_says_what_to_install(monkeypatch, measure, network, x):
    monkeypatch.setattr(metrics, network, absent)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'vaelib\[metrics\]'"):
        measure(x, x)


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: 2 * x - 1, r"from -1 to 1, expected \[0, 1\]"),
        (lambda x: 255 * x, r"to 255, expected \[0, 1\]"),
        (lambda x: x * torch.nan, r"from nan to nan, expected \[0, 1\]"),
        (lambda x: (255 * x).byte(), r"pictures of torch.uint8, expected float in \[0, 1\]: divide"),
        (lambda x: x[:, :1], r"shape \(96, 1, 64, 64\), expected \(N, 3, height, width\)"),
        (lambda x: x[..., ::2], r"expected .*same size"),
        (lambda x: x[:50, :, ::8, ::8], "expected as many of the same size"),
    ],
)
def test_pictures_that_cannot_be_scored(halves, change, message):
    x, faces = halves
    with pytest.raises(ValueError, match=message):
        evaluate_samples(change(x), faces)
    with pytest.raises(ValueError, match="expected"):
        nearest_faces(change(x), faces)


def test_the_judge_checks_its_pictures(x):
    with pytest.raises(ValueError, match=r"to 255, expected \[0, 1\]"):
        judge(255 * x, x)
    with pytest.raises(ValueError, match="got 4 and 5 pictures, expected as many of both"):
        judge(x[:4], x[:5])


def test_too_few_pictures(halves, x):
    pictures, faces = halves
    with pytest.raises(ValueError, match="got 60 pictures with 64 features each, expected more than 64"):
        evaluate_samples(pictures[:60], faces)
    with pytest.raises(ValueError, match="got 1 and 9 pictures, expected two or more of each"):
        frechet_distance(torch.rand(1, 2), torch.rand(9, 2))
    with pytest.raises(ValueError, match="got 8 and 9 pictures, expected as many of both"):
        kernel_distance(torch.rand(8, 2), torch.rand(9, 2))
    with pytest.raises(ValueError, match="got 96 pictures and 95 faces, expected no more pictures than faces"):
        evaluate_samples(pictures, faces.select(range(95)))
    with pytest.raises(ValueError, match="expected sides of at least 16 pixels"):
        sliced_wasserstein(x[..., :12, :12], x[..., :12, :12])
    with pytest.raises(ValueError, match="got 3 samples, 9 faces and k=3, expected more than k of both"):
        precision_recall(torch.rand(3, 2), torch.rand(9, 2))


def test_features_that_cannot_be_compared():
    good = random_features(20, 0)
    with pytest.raises(ValueError, match=r"shapes \(20, 8\) and \(20, 7\), expected \(N, D\) and \(M, D\)"):
        frechet_distance(good, good[:, :7])
    with pytest.raises(ValueError, match="NaN or infinite"):
        precision_recall(good, good / 0)
