"""What does each way past the blur buy? A shipped model's decoder trained on, in as much time each, one term at a time.

Half of the held-out faces judge; the other half gives reconstructions, and there are as many samples from the flow. The
Fréchet distance is in the features that the term "features" trains on, so it flatters that row.

    python tests/benchmarks/sharpening.py cartoon --minutes 4
"""

import argparse
import datetime
import os
import platform
import time
from dataclasses import replace

import torch
from quality import halves, unseen_faces

from vaelib.faces import Faces, load_faces
from vaelib.metrics import evaluate, evaluate_samples, reconstruct, sliced_wasserstein
from vaelib.plots import decode
from vaelib.pretrained import Bundle, load_pretrained
from vaelib.recipes import SharpenConfig
from vaelib.sharpening import sharpen

ALONE = SharpenConfig(epochs=1, ema=0.99, adversarial=0.0)  # a shorter average than by default, for a short run
WAYS = {
    "nothing added": ALONE,
    "discriminator": replace(ALONE, adversarial=SharpenConfig.adversarial),
    "features": replace(ALONE, features=1.0),
    "pyramid": replace(ALONE, pyramid=1.0),
    "all three": replace(ALONE, pyramid=1.0, features=1.0, adversarial=SharpenConfig.adversarial),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", default="drawn-anime", help="what ships, or a run (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=4.0, help="of training for each way (default: %(default)s)")
    options = parser.parse_args()
    bundle = load_pretrained(options.bundle)
    judges, others = halves(unseen_faces(bundle, 1000))
    training, _ = load_faces(bundle.card["faces"], bundle.image_size, verbose=False).split()
    name = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores, {platform.machine()}"
    )
    print(
        f"{name}, torch {torch.__version__}, {datetime.date.today()}, {options.bundle}, {options.minutes:g} minutes\n"
    )
    print(
        "| added | faces seen | PSNR, dB | SSIM | SWD × 10³: reconstructions | samples | Fréchet | precision | recall |"
    )
    print("| --- " * 9 + "|")
    print(f"| as it ships | 0 | {row(bundle, others, judges)} |", flush=True)
    for way, config in WAYS.items():
        faces = as_many(options.bundle, training, config, 60 * options.minutes)
        sharp = sharpen(load_pretrained(options.bundle).vae, faces, config).model
        print(f"| {way} | {len(faces):,} | {row(replace(bundle, vae=sharp), others, judges)} |", flush=True)


def as_many(name: str, training: Faces, config: SharpenConfig, seconds: float) -> Faces:
    """As many training faces, over and over where they are few, as `seconds` of this way take."""
    trial = 20 * config.batch_size
    started = time.perf_counter()
    sharpen(load_pretrained(name).vae, training.select(range(trial)), config)
    count = max(trial, int(seconds / (time.perf_counter() - started) * trial))
    return training.select([row % len(training) for row in range(count)])


def row(bundle: Bundle, others: Faces, judges: Faces) -> str:
    z = bundle.priors["flow"].sample(len(others), torch.Generator().manual_seed(0))
    near = evaluate_samples(decode(bundle.vae, z), judges)
    far = sliced_wasserstein(reconstruct(bundle.vae, others.batch()), judges.batch())["mean"]
    return "{psnr:.2f} | {ssim:.3f} | ".format(**evaluate(bundle.vae, others)) + (
        "{far:.1f} | {swd:.1f} | {frechet:.1f} | {precision:.2f} | {recall:.2f}".format(far=far, **near)
    )


if __name__ == "__main__":
    main()
