"""Which part of a recipe helps? The same network, faces and seeds; one thing changed at a time. PCA is the yardstick.

Prints what reconstructions of held-out faces reach, the rate, and the sliced Wasserstein distance of reconstructions
from other held-out faces: the mean over the seeds ± their standard deviation. The rows with another β are the
rate–distortion curve.

    python tests/benchmarks/recipes.py --faces cartoon --count 3000 --ways adam
    python tests/benchmarks/recipes.py --faces anime --ways muon --seeds 0 1 2
    python tests/benchmarks/recipes.py --faces anime --count 18969 --ways          # PCA alone
"""

import argparse
import datetime
import itertools
import os
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import NamedTuple
from unittest.mock import patch

import torch
from quality import halves
from sklearn.decomposition import PCA
from speedrun import mean_and_spread, pytorchs_start
from torch import Tensor, nn

from vaelib import muon, training
from vaelib.faces import Faces, load_faces
from vaelib.metrics import evaluate, psnr, reconstruct, sliced_wasserstein
from vaelib.model import VAE
from vaelib.recipes import RECIPES, TrainConfig
from vaelib.training import train


class Way(NamedTuple):
    """A recipe; what is done to the fresh network; and what holds while it trains, for the steps of an epoch."""

    config: TrainConfig
    change: Callable[[nn.Module], None] = lambda vae: None
    during: Callable[[int], AbstractContextManager] = lambda steps: nullcontext()


def group_norms(network: nn.Module) -> None:
    """Group norms in place of all batch norms: what a face becomes no longer depends on the others of its batch."""
    for name, layer in network.named_children():
        if isinstance(layer, nn.BatchNorm2d):
            norm = nn.GroupNorm(layer.num_features // 4, layer.num_features)
            norm.load_state_dict({"weight": layer.weight, "bias": layer.bias})  # that of a residual block starts at 0
            setattr(network, name, norm)
        else:
            group_norms(layer)


def zero_heads(vae: nn.Module) -> None:
    """Last layers whose weights start at 0: one grey for all pictures, one posterior for all faces."""
    for head in (vae.encoder.head, vae.decoder.head):
        nn.init.zeros_(head.weight)


def newton_schulz(iterations: int) -> Callable[[int], AbstractContextManager]:
    return lambda steps: patch.object(muon, "orthogonalize", partial(muon.orthogonalize, steps=iterations))


def alternating_flips(steps: int) -> AbstractContextManager:
    """Each face mirrored in every other epoch, about half of them in the first (Jordan 2024, 94% on CIFAR-10)."""
    batches = itertools.count()

    def flip(x: Tensor) -> Tensor:
        level = (255 * x[:, 0, 32, 32]).round().int()  # the same in each epoch: it stands for the face
        mirrored = (level + next(batches) // steps) % 2 == 0
        return torch.where(mirrored[:, None, None, None], x.flip(3), x)

    return patch.object(training, "_flip_half", flip)


CALIBRATED = RECIPES["calibrated"]
PUBLISHED = RECIPES["anime-vae"]
MUON = RECIPES["muon"]
ADAM_WAYS = {
    "published, Anime VAE": Way(PUBLISHED, pytorchs_start),
    "the same in our batches and steps": Way(
        replace(PUBLISHED, learning_rate=1e-3, batch_size=32, schedule="cosine", ema=0.999), pytorchs_start
    ),
    "calibrated": Way(CALIBRATED),
    "… but σ 9.9, as VAE-Anime-Cartoon": Way(replace(CALIBRATED, likelihood="gaussian", sigma=9.9)),
    "… but σ 0.1": Way(replace(CALIBRATED, likelihood="gaussian", sigma=0.1)),
    "… but batches of 128": Way(replace(CALIBRATED, batch_size=128)),
    "… but half the learning rate": Way(replace(CALIBRATED, learning_rate=5e-4)),
    "… but a constant learning rate": Way(replace(CALIBRATED, schedule="constant")),
    "… but no average of the weights": Way(replace(CALIBRATED, ema=0.0)),
    "… but β 0.1": Way(replace(CALIBRATED, beta=0.1)),
    "… but β 0.3": Way(replace(CALIBRATED, beta=0.3)),
    "… but β 3": Way(replace(CALIBRATED, beta=3.0)),
    "… but β 10": Way(replace(CALIBRATED, beta=10.0)),
}
MUON_WAYS = {
    "muon": Way(MUON),
    "… but Adam": Way(replace(MUON, optimizer="adam")),
    "… but half its rate": Way(replace(MUON, muon_rate=MUON.muon_rate / 2)),
    "… but twice its rate": Way(replace(MUON, muon_rate=MUON.muon_rate * 2)),
    "… but thrice Adam's rate for the rest": Way(replace(MUON, learning_rate=3 * MUON.learning_rate)),
    "… but 1 Newton–Schulz iteration": Way(MUON, during=newton_schulz(1)),
    "… but 2 of them": Way(MUON, during=newton_schulz(2)),
    "… but 5 of them": Way(MUON, during=newton_schulz(5)),
    "… but a cosine": Way(replace(MUON, schedule="cosine")),
    "… but batches of 32, rate 0.004": Way(replace(MUON, batch_size=32, muon_rate=4e-3)),
    "… but batches of 128": Way(replace(MUON, batch_size=128)),
    "… but batches of 256": Way(replace(MUON, batch_size=256)),
    "… but an average of the weights": Way(replace(MUON, ema=0.99)),
    "… but no flips": Way(replace(MUON, flip=False)),
    "… but flips that alternate": Way(MUON, during=alternating_flips),
    "… but group norms": Way(MUON, group_norms),
    "… but heads that start at 0": Way(MUON, zero_heads),
    "… but residual blocks as PyTorch starts them": Way(MUON, pytorchs_start),
    "… but σ 0.1": Way(replace(MUON, likelihood="gaussian", sigma=0.1)),
    "… but β 0.3": Way(replace(MUON, beta=0.3)),
    "… but β 3": Way(replace(MUON, beta=3.0)),
}
WAYS = {"adam": ADAM_WAYS, "muon": MUON_WAYS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", default="drawn-anime", help="what load_faces takes (default: %(default)s)")
    parser.add_argument("--count", type=int, default=4000, help="faces, a tenth held out (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--base-channels", type=int, default=8, help="20 is the published network")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS), help="none: PCA alone (default: all)")
    options = parser.parse_args()
    faces = load_faces(options.faces, verbose=False)
    training_faces, test = faces.select(range(min(options.count, len(faces)))).split()
    cores = f"{os.cpu_count()} cores, {platform.machine()}, {torch.get_num_threads()} threads"
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else cores
    print(f"{name}, torch {torch.__version__}, {datetime.date.today()}, ", end="")
    print(f"{len(training_faces):,} {faces.name} faces, {len(test)} to test on", end="")
    if options.ways:
        print(f", {options.epochs} epochs, base_channels {options.base_channels}, seeds {options.seeds}", end="")
    print("\n")
    print("| way | PSNR, dB | SSIM | rate, nats | SWD × 10³ |\n" + "| --- " * 5 + "|")
    for components, decibels in pca_psnr(training_faces, test, (16, 64, 128, 256, 512)).items():
        print(f"| PCA, {components} numbers | {decibels:.2f} | | | |", flush=True)
    for kind in options.ways:
        for title, way in WAYS[kind].items():
            runs = [scores(way, training_faces, test, options, seed) for seed in options.seeds]
            print(row(title, runs), flush=True)


def pca_psnr(training_faces: Faces, test: Faces, components: tuple[int, ...]) -> dict[int, float]:
    """Mean PSNR of unseen faces, from as many main axes of the training faces' pixels as `components` say."""
    rows, x = training_faces.batch().flatten(1).numpy(), test.batch()
    pca = PCA(min(max(components), len(rows) - 1), svd_solver="randomized", random_state=0).fit(rows)
    codes = pca.transform(x.flatten(1).numpy())
    scores = {}
    for k in components:
        x_hat = torch.from_numpy(pca.mean_ + codes[:, :k] @ pca.components_[:k]).reshape(x.shape)
        scores[k] = psnr(x_hat.clamp(0, 1), x).mean().item()
    return scores


def scores(way: Way, training_faces: Faces, test: Faces, options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Train once; PSNR, SSIM and rate of held-out faces, and the SWD between half of them, decoded, and the others."""
    torch.manual_seed(seed)
    vae = VAE(base_channels=options.base_channels)
    way.change(vae)
    config = replace(way.config, epochs=options.epochs, seed=seed)
    with way.during(len(training_faces) // config.batch_size):
        vae = train(vae, training_faces, config).model
    judges, others = (half.batch() for half in halves(test))
    return evaluate(vae, test) | {"swd": sliced_wasserstein(reconstruct(vae, others), judges)["mean"]}


def row(title: str, runs: list[dict[str, float]]) -> str:
    shown = {"psnr": 2, "ssim": 3, "rate": 0, "swd": 1}
    cells = [mean_and_spread([run[key] for run in runs], digits) for key, digits in shown.items()]
    return f"| {' | '.join([title, *cells])} |"


if __name__ == "__main__":
    main()
