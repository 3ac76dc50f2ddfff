"""How good is a model? How near its reconstructions come to faces, and how much its samples are like faces.

    evaluate(vae, test)                 # of reconstructions: PSNR, SSIM; of the latents: rate, active units
    evaluate_samples(pictures, test)    # of samples: sliced Wasserstein, Fréchet distance, precision, recall
    judge(pictures, real)               # the same and KID, in the features of a network that was not trained here
    copying(pictures, held_out, train)  # are the samples copies of training faces?

All of that works offline. `fid`, `kid` and `lpips` need networks that torchmetrics downloads.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor, nn
from torch.nn.functional import pad
from torchmetrics.functional.image import (
    learned_perceptual_image_patch_similarity,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance, poly_mmd

from vaelib.faces import Faces
from vaelib.features import face_features
from vaelib.imagenet import judge_features
from vaelib.losses import kl_divergence, kl_per_dimension
from vaelib.model import inference


def psnr(x_hat: Tensor, x: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture, dB, shape (B,): -10 log₁₀(mean squared error).

    Both float (B, C, H, W) in [0, 1]. Average over pictures, not over errors: one bad face then counts as one.
    """
    return peak_signal_noise_ratio(x_hat, x, data_range=1.0, dim=(1, 2, 3), reduction="none")


def ssim(x_hat: Tensor, x: Tensor) -> Tensor:
    """Structural similarity of each picture, 1 for equal ones, shape (B,). Both float (B, C, H, W) in [0, 1].

    Gaussian window of 11×11 pixels with σ = 1.5; Wang et al. 2004, computed by torchmetrics.
    """
    return structural_similarity_index_measure(x_hat, x, data_range=1.0, reduction="none")


def reconstruct(vae: nn.Module, x: Tensor) -> Tensor:
    """Decode the posterior's mean: float (B, 3, H, W) in [0, 1] -> the same. Batch norm uses its running averages."""
    with inference(vae):
        return vae.decode(vae.encode(x).mean)


def evaluate(vae: nn.Module, faces: Faces, batch_size: int = 256) -> dict[str, float]:
    """Means over all `faces`: `psnr` (dB) and `ssim` of posterior-mean reconstructions, `rate` (nats per image), and
    `active_units`, the number of latent dimensions with a mean KL above 0.01 nats. Use faces kept out of training.
    """
    scores, kl = [], []
    with inference(vae) as device:
        for start in range(0, len(faces), batch_size):
            x = faces.batch(slice(start, start + batch_size)).to(device)
            posterior = vae.encode(x)
            x_hat = vae.decode(posterior.mean)
            scores.append(torch.stack([psnr(x_hat, x), ssim(x_hat, x), kl_divergence(posterior)]))
            kl.append(kl_per_dimension(posterior).flatten(1))
    means = torch.cat(scores, 1).mean(1).tolist()
    active = int((torch.cat(kl).mean(0) > 0.01).sum())
    return dict(zip(("psnr", "ssim", "rate"), means, strict=True)) | {"active_units": active}


# ----------------------------------------------------------------------------- samples against faces, offline


def evaluate_samples(pictures: Tensor, faces: Faces, seed: int = 0) -> dict[str, float]:
    """How near samples are to `faces`: `swd` and `frechet`, lower is better; `precision` and `recall`, 1 is best.

    Protocol: `pictures` are N samples, float (N, 3, H, W) in [0, 1]; `faces`, held out of training and of the same
    size, give N at random by `seed`. Every number depends on N, so compare only where N is the same; 1,000 is usual.
    `swd` is the mean level of `sliced_wasserstein`; the rest is in the features of `face_features` (64 pixels).
    For the best that can be reached, give one half of the held-out faces against the other. Reconstructions need
    faces other than their originals, which would be nearer than faces are to each other.
    Raises `ValueError` for fewer than 65 pictures, fewer faces than pictures, other ranges, types or sizes.
    """
    if len(faces) < len(pictures):
        raise ValueError(f"got {len(pictures)} pictures and {len(faces)} faces, expected no more pictures than faces")
    rows = np.random.default_rng(seed).permutation(len(faces))[: len(pictures)]
    real = faces.batch(rows)
    swd = sliced_wasserstein(pictures, real, seed)["mean"]
    features = face_features(pictures), face_features(real)
    if len(pictures) <= features[0].shape[1]:
        count, width = features[0].shape
        raise ValueError(f"got {count} pictures with {width} features each, expected more than {width}: give more")
    return {"swd": swd, "frechet": frechet_distance(*features)} | precision_recall(*features)


PATCH, PATCHES, DIRECTIONS, REPEATS = 7, 128, 128, 4  # as published


def sliced_wasserstein(a: Tensor, b: Tensor, seed: int = 0) -> dict[str, float]:
    """Multi-scale sliced Wasserstein distance between two sets of pictures, × 10³, by side of the level, and the mean.

    Protocol: both float (N, 3, H, W) in [0, 1], as many and as large, not resized; sides of at least 16 pixels. Each
    picture gives 128 patches of 7×7 pixels at random from each level of its Laplacian pyramid (64, 32, 16 for 64×64).
    A level's patches have mean 0 and variance 1 in each channel, set by set; what is left is projected in 512 random
    directions, and the mean distance between sorted projections is the level's. The same seed gives the same numbers.
    Equal sets differ too, a little, since their patches are taken from different places.
    For N = 1,000 at 64×64: some 700 MB, and some 10 seconds on one core.
    Raises `ValueError` for other ranges, types or sizes. Source: Karras et al. 2018, section 5, and their code.
    """
    _check_pictures(a, b)
    if a.shape != b.shape:
        raise ValueError(f"got pictures of shapes {_shape(a)} and {_shape(b)}, expected as many of the same size")
    if min(a.shape[2:]) < 16:
        raise ValueError(f"got pictures of shape {_shape(a)}, expected sides of at least 16 pixels")
    generator = torch.Generator().manual_seed(seed)
    distances = {}
    for level_a, level_b in zip(*(laplacian_pyramid(x.cpu().float()) for x in (a, b)), strict=True):
        patches = [_patches(level, generator) for level in (level_a, level_b)]
        distances[str(level_a.shape[2])] = 1000 * float(np.mean([_sliced(*patches, generator) for _ in range(REPEATS)]))
    return distances | {"mean": float(np.mean(list(distances.values())))}


def laplacian_pyramid(x: Tensor) -> Iterator[Tensor]:
    """What each halving of the pictures takes away, finest first, and what is left at 16 to 31 pixels."""
    while min(x.shape[2:]) >= 32 and x.shape[2] % 2 == x.shape[3] % 2 == 0:
        coarse = smoothed(x)[:, :, ::2, ::2]
        spread = torch.zeros_like(x)
        spread[:, :, ::2, ::2] = 4 * coarse
        yield x - smoothed(spread)
        x = coarse
    yield x


def smoothed(x: Tensor, weights: tuple[int, ...] = (1, 4, 6, 4, 1)) -> Tensor:
    """Pictures (B, C, H, W) filtered in both directions with a binomial kernel, mirrored at the border; same shape."""
    half = len(weights) // 2
    for dim, border in ((2, (0, 0, half, half)), (3, (half, half, 0, 0))):
        padded = pad(x, border, mode="reflect")
        # On one channel a sum of shifted pictures is much faster than a convolution.
        x = sum(weight / sum(weights) * padded.narrow(dim, i, x.shape[dim]) for i, weight in enumerate(weights))
    return x


def _patches(x: Tensor, generator: torch.Generator) -> Tensor:
    """128 patches of each picture, every channel with mean 0 and variance 1 over all of them: (3·7·7, N·128)."""
    windows = x.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # (N, 3, H - 6, W - 6, 7, 7), a view
    rows, columns = (torch.randint(side, (len(x), PATCHES), generator=generator) for side in windows.shape[2:4])
    patches = windows[torch.arange(len(x))[:, None], :, rows, columns].flatten(0, 1)  # (N·128, 3, 7, 7)
    deviation, mean = torch.std_mean(patches, (0, 2, 3), correction=0, keepdim=True)
    return patches.sub_(mean).div_(deviation.clamp(min=1e-6)).flatten(1).T  # a flat colour has no deviation


def _sliced(a: Tensor, b: Tensor, generator: torch.Generator) -> float:
    """Mean Wasserstein-1 distance between the columns of two (D, N), projected on random directions."""
    directions = torch.randn(DIRECTIONS, len(a), generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    low, high = (np.sort((directions @ points).numpy()) for points in (a, b))  # NumPy sorts floats 20× faster
    return float(np.abs(low - high).mean())


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance between two sets of features as Gaussians: ‖μₐ − μ_b‖² + tr(Σₐ + Σ_b − 2 (Σₐ Σ_b)^½).

    `a` float (N, D), `b` float (M, D), such as from `face_features`. Few pictures make it larger, and fewer than D
    leave directions out of sight: compare only where N and M are the same. With Inception's features this is the FID of
    Heusel et al. 2017, so do not call it that. Raises `ValueError` for fewer than two of either.
    """
    _check_features(a, b)
    if min(len(a), len(b)) < 2:
        raise ValueError(f"got {len(a)} and {len(b)} pictures, expected two or more of each: one has no spread")
    means, roots = zip(*(_mean_and_root(features.double()) for features in (a, b)), strict=True)
    traces = sum(root.square().sum() for root in roots)
    overlap = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()  # tr (Σₐ Σ_b)^½, exact where a Σ is singular too
    return ((means[0] - means[1]).square().sum() + traces - 2 * overlap).item()


def _mean_and_root(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of (N, D), and some R, (min(N, D), D), with Σ = RᵀR."""
    mean = features.mean(0)
    return mean, torch.linalg.qr(features - mean, "r").R / (len(features) - 1) ** 0.5


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Unbiased squared MMD between two sets of features (N, D) under the kernel (a·b / D + 1)³: 0 on average for
    samples of one distribution, whatever their number, and so at times a little below.

    With Inception's features this is the KID of Bińkowski et al. 2018, over all pictures at once; not times 10³.
    Raises `ValueError` unless there are as many of both, and two or more.
    """
    _check_features(a, b)
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"got {len(a)} and {len(b)} pictures, expected as many of both, and two or more")
    return poly_mmd(a.double(), b.double()).item()


def judge(pictures: Tensor, real: Tensor) -> dict[str, float]:
    """How near samples are to faces in the eyes of a network that no loss here has used: `judge_fd` and `judge_kid`,
    lower is better, `judge_precision` and `judge_recall`, 1 is best.

    Protocol: both float (N, 3, H, W) in [0, 1], as many; the real faces are held out of training. They are enlarged to
    128×128 (bilinear) for EfficientNet-Lite1; what it sees in its last layer, 1,280 numbers a picture, is compared by
    `frechet_distance`, `kernel_distance` (× 1) and `precision_recall`. Compare only where N is the same; for the best
    that can be reached, give other real faces. Never train with this network's features: `load_lite("lite0")` is for
    that. 1,000 pictures take about 15 seconds on one core. Raises `ValueError` for other counts, ranges or types.
    """
    _check_pictures(pictures, real)
    return compare_features(judge_features(pictures), judge_features(real))


def compare_features(a: Tensor, b: Tensor) -> dict[str, float]:
    """What `judge` says, from `judge_features` of pictures and of real faces, both (N, 1280)."""
    distances = {"fd": frechet_distance(a, b), "kid": kernel_distance(a, b)}
    return {f"judge_{name}": value for name, value in (distances | precision_recall(a, b)).items()}


def precision_recall(samples: Tensor, faces: Tensor, k: int = 3) -> dict[str, float]:
    """`precision`: the share of samples that lie among the faces; `recall`: the share of faces among the samples.

    A point lies among a set where it is no farther from one of its members than that one's `k`-th nearest neighbour.
    `samples` float (N, D) and `faces` float (M, D) are features, such as from `face_features`; compare only where N, M
    and k are the same. A blurred or average face lies amid all others, so a high precision alone says little.
    Raises `ValueError` unless there are more than k of both.
    Source: Kynkäänniemi et al. 2019.
    """
    _check_features(samples, faces)
    if min(len(samples), len(faces)) <= k or k < 1:
        raise ValueError(f"got {len(samples)} samples, {len(faces)} faces and k={k}, expected more than k of both")
    return {"precision": _share_among(samples, faces, k), "recall": _share_among(faces, samples, k)}


def _share_among(points: Tensor, members: Tensor, k: int) -> float:
    # In chunks, and k + 1: each member is its own nearest one.
    reach = torch.cat([_distances(some, members).kthvalue(k + 1).values for some in members.split(1024)])
    inside = [(_distances(some, members) <= reach).any(1) for some in points.split(1024)]
    return torch.cat(inside).float().mean().item()


def _distances(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")  # exactly 0 between equal rows


# ------------------------------------------------------------------------------------- are samples copies?


def nearest_faces(pictures: Tensor, faces: Faces, batch_size: int = 1024) -> tuple[Tensor, Tensor]:
    """For each picture the row of the nearest of `faces`, int64 (N,), and how far it is, float32 (N,).

    Protocol: `pictures` float (N, 3, H, W) in [0, 1], `faces` (all that the model was trained on) of the same size;
    far is the root mean square difference of their pixels, so 0 is a copy. Raises `ValueError` for another size.
    """
    _check_pictures(pictures)
    if pictures.shape[2:] != faces.images.shape[1:3]:
        raise ValueError(f"got pictures of shape {_shape(pictures)} for {faces}, expected the same size")
    pictures = pictures.cpu().float()
    best, nearest = torch.full((len(pictures),), torch.inf), torch.zeros(len(pictures), dtype=torch.int64)
    for start in range(0, len(faces), batch_size):
        some = faces.batch(slice(start, start + batch_size))
        found, row = torch.cdist(pictures.flatten(1), some.flatten(1)).min(1)
        nearest = torch.where(found < best, start + row, nearest)
        best = best.minimum(found)
    # `cdist` is quick, not exact: measure the nearest ones again.
    return nearest, (pictures - faces.batch(nearest.numpy())).square().mean((1, 2, 3)).sqrt()


def copying(pictures: Tensor, held_out: Tensor, train: Faces) -> dict[str, float]:
    """Are samples nearer to training faces than honest pictures are? Medians of the distances, and how often.

    `samples` and `held_out` are the median distances of `nearest_faces`; `nearer` is the share of pairs (sample,
    held-out picture) in which the sample is the nearer one: about ½ when nothing is copied, 1 when all is.
    Protocol: both float (N, 3, H, W) in [0, 1]; `held_out` shows faces that were kept out of training. Blurred pictures
    are nearer to everything, so give reconstructions of held-out faces, which are as blurred as the samples.
    Source: the test statistic of Meehan et al. 2020, over the whole space at once.
    """
    sample, honest = (nearest_faces(x, train)[1].numpy() for x in (pictures, held_out))
    nearer = mannwhitneyu(honest, sample).statistic / (len(sample) * len(honest))
    return {"samples": float(np.median(sample)), "held_out": float(np.median(honest)), "nearer": float(nearer)}


# ----------------------------------------------------------------------- with networks that are downloaded once


def fid(pictures: Tensor, faces: Tensor) -> float:
    """Fréchet Inception distance (Heusel et al. 2017), from 2,048 features; lower is better.

    Protocol: both float (N, 3, H, W) in [0, 1]; torchmetrics rounds them to 8 bits and resizes them to 299×299 as the
    original code did. Published numbers use 10,000 or more of each: fewer make it larger.
    Raises `ModuleNotFoundError` without torch-fidelity, `ConnectionError` where its network can't be downloaded.
    """
    with _downloaded():
        metric = FrechetInceptionDistance(normalize=True)
    return _compare(metric, pictures, faces).item()


def kid(pictures: Tensor, faces: Tensor, seed: int = 0) -> float:
    """Kernel Inception distance (Bińkowski et al. 2018); about 0 for two sets of faces, whatever their number.

    Protocol and errors as for `fid`; the mean over 100 subsets, chosen by `seed`, of 1,000 pictures (N where fewer).
    """
    with _downloaded():
        metric = KernelInceptionDistance(subset_size=min(1000, len(pictures), len(faces)), normalize=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _compare(metric, pictures, faces)[0].item()


def lpips(x_hat: Tensor, x: Tensor) -> Tensor:
    """Perceptual distance of each picture from its original, shape (B,): LPIPS with AlexNet (Zhang et al. 2018).

    Both float (B, 3, H, W) in [0, 1], not resized. Raises `ConnectionError` where AlexNet can't be downloaded.
    """
    _check_pictures(x_hat, x)
    with _downloaded(), torch.inference_mode():
        return learned_perceptual_image_patch_similarity(x_hat, x, reduction="none", normalize=True)


def _compare(metric: nn.Module, pictures: Tensor, faces: Tensor) -> Tensor:
    _check_pictures(pictures, faces)
    for x, real in ((pictures, False), (faces, True)):
        for some in x.split(64):
            metric.update(some, real=real)
    return metric.compute()


@contextmanager
def _downloaded() -> Iterator[None]:
    """Say what to do where a metric's network is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("FID and KID need torch-fidelity: pip install 'vaelib[metrics]'") from error
    except OSError as error:
        raise ConnectionError(
            f"this metric downloads its network once, and could not ({error}): run it again with internet access, "
            "or use evaluate_samples, which needs none"
        ) from error


# ------------------------------------------------------------------------------------------------ checks


def _check_pictures(*sets: Tensor) -> None:
    for x in sets:
        if x.ndim != 4 or x.shape[1] != 3 or not len(x):
            raise ValueError(f"got pictures of shape {_shape(x)}, expected (N, 3, height, width)")
        if not x.is_floating_point():
            raise ValueError(f"got pictures of {x.dtype}, expected float in [0, 1]: divide uint8 pictures by 255")
        low, high = x.min().item(), x.max().item()
        if not -1e-3 <= low <= high <= 1 + 1e-3:  # true of NaN as well; resizing and blurring round a little
            raise ValueError(f"got pictures from {low:g} to {high:g}, expected [0, 1]: rescale or clamp them")


def _check_features(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"got features of shapes {_shape(a)} and {_shape(b)}, expected (N, D) and (M, D)")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("got features with NaN or infinite numbers, expected finite ones: look at the pictures")


def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)
