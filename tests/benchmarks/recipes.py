"""Which part of a recipe helps? The same network, faces and seed; one thing changed at a time. PCA is the yardstick.

Prints what reconstructions of held-out faces reach, and the sliced Wasserstein distance to held-out faces of the
reconstructions, of samples from N(0, I), and of samples from the Gaussian fitted to the training latents. The rows with
another β are the rate–distortion curve.

    python tests/benchmarks/recipes.py --faces cartoon --epochs 3 --base-channels 10
"""

import argparse
import datetime
import os
import platform
from dataclasses import replace

import torch
from sklearn.decomposition import PCA

from vaelib.faces import Faces, load_faces
from vaelib.latents import encode_faces
from vaelib.metrics import evaluate, psnr, reconstruct, sliced_wasserstein
from vaelib.model import VAE
from vaelib.plots import decode
from vaelib.priors import NormalPrior, fit_gaussian
from vaelib.recipes import RECIPES
from vaelib.training import train

CALIBRATED = RECIPES["calibrated"]
PUBLISHED = RECIPES["anime-vae"]
MUON = RECIPES["muon"]
WAYS = {
    "published, Anime VAE": PUBLISHED,
    "published, but in our batches and steps": replace(PUBLISHED, learning_rate=1e-3, batch_size=32, schedule="cosine"),
    "calibrated": CALIBRATED,
    "calibrated, but σ 9.9 as VAE-Anime-Cartoon": replace(CALIBRATED, likelihood="gaussian", sigma=9.9),
    "calibrated, but σ 0.1": replace(CALIBRATED, likelihood="gaussian", sigma=0.1),
    "calibrated, but batches of 128": replace(CALIBRATED, batch_size=128),
    "calibrated, but half the learning rate": replace(CALIBRATED, learning_rate=5e-4),
    "calibrated, but a constant learning rate": replace(CALIBRATED, schedule="constant"),
    "calibrated, but no average of the weights": replace(CALIBRATED, ema=0.0),
    "calibrated, but β 0.1": replace(CALIBRATED, beta=0.1),
    "calibrated, but β 0.3": replace(CALIBRATED, beta=0.3),
    "calibrated, but β 3": replace(CALIBRATED, beta=3.0),
    "calibrated, but β 10": replace(CALIBRATED, beta=10.0),
    "muon": MUON,
    "muon, but Adam": replace(MUON, optimizer="adam"),
    "muon, but a cosine": replace(MUON, schedule="cosine"),
    "muon, but batches of 32": replace(MUON, batch_size=32),
    "muon, but batches of 128": replace(MUON, batch_size=128),
    "muon, but batches of 256": replace(MUON, batch_size=256),
    "muon, but half the rate": replace(MUON, muon_rate=MUON.muon_rate / 2),
    "muon, but twice the rate": replace(MUON, muon_rate=MUON.muon_rate * 2),
    "muon, but an average of the weights": replace(MUON, ema=0.999),
    "muon, but β 0.5": replace(MUON, beta=0.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", default="drawn-anime", help="what load_faces takes (default: %(default)s)")
    parser.add_argument("--count", type=int, default=4000, help="faces, a tenth held out (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--base-channels", type=int, default=20, help="20 is the published network")
    parser.add_argument("--latent-channels", type=int, default=128, help="128 is the published network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS), metavar="WAY", help="default: all")
    options = parser.parse_args()
    faces = load_faces(options.faces, verbose=False)
    training, test = faces.select(range(min(options.count, len(faces)))).split()
    cores = f"{os.cpu_count()} cores, {platform.machine()}"
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else cores
    print(f"{name}, torch {torch.__version__}, {datetime.date.today()}, {len(training):,} {faces.name} faces, ", end="")
    print(f"{options.epochs} epochs, base_channels {options.base_channels}, seed {options.seed}\n")
    print("| way | PSNR, dB | SSIM | rate, nats | SWD × 10³: reconstructions | N(0, I) | fitted Gaussian |")
    print("| --- " * 7 + "|")
    for components, decibels in pca_psnr(training, test, (16, 64, 128, 256, 512)).items():
        print(f"| PCA, {components} numbers | {decibels:.2f} | | | | | |", flush=True)
    for way in options.ways:
        torch.manual_seed(options.seed)
        vae = VAE(base_channels=options.base_channels, latent_channels=options.latent_channels)
        config = replace(WAYS[way], epochs=options.epochs, seed=options.seed)
        print(f"| {way} | {row(train(vae, training, config).model, training, test)} |", flush=True)


def pca_psnr(training: Faces, test: Faces, components: tuple[int, ...]) -> dict[int, float]:
    """Mean PSNR of unseen faces, from as many main axes of the training faces' pixels as `components` say."""
    rows, x = training.batch().flatten(1).numpy(), test.batch()
    pca = PCA(min(max(components), len(rows) - 1), svd_solver="randomized", random_state=0).fit(rows)
    codes = pca.transform(x.flatten(1).numpy())
    scores = {}
    for k in components:
        x_hat = torch.from_numpy(pca.mean_ + codes[:, :k] @ pca.components_[:k]).reshape(x.shape)
        scores[k] = psnr(x_hat.clamp(0, 1), x).mean().item()
    return scores


def row(vae: VAE, training: Faces, test: Faces) -> str:
    half = len(test) // 2
    judges, others = test.batch(range(half)), test.batch(range(half, 2 * half))
    shape = vae.latent_shape(test.images.shape[1])
    priors = (NormalPrior(shape), fit_gaussian(encode_faces(vae, training)))
    samples = [decode(vae, prior.sample(half, torch.Generator().manual_seed(0))) for prior in priors]
    near = [sliced_wasserstein(pictures, judges)["mean"] for pictures in (reconstruct(vae, others), *samples)]
    return "{psnr:.2f} | {ssim:.3f} | {rate:.0f} | ".format(**evaluate(vae, test)) + " | ".join(
        f"{d:.1f}" for d in near
    )


if __name__ == "__main__":
    main()
