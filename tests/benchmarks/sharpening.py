"""What does each way past the blur buy? A shipped model's decoder trained on, in as much CPU time each.

Half of the held-out faces judge; the other half gives reconstructions, and there are as many samples from the flow. The
judge's distances (FD and KID) are in features of EfficientNet-Lite1, which no way trains with; the ways look with
EfficientNet-Lite0. A discriminator learns for its first 100 steps before the decoder listens to it. `--picture` keeps
eight samples of each way, the same latents in each row.

    python tests/benchmarks/sharpening.py anime --minutes 3.5 --picture images/ways.jpg
"""

import argparse
import datetime
import os
import platform
import time
from dataclasses import replace
from pathlib import Path

import torch
from quality import halves, unseen_faces

from vaelib.faces import Faces, load_faces
from vaelib.imagenet import judge_features
from vaelib.metrics import compare_features, evaluate, reconstruct
from vaelib.plots import decode, show_faces
from vaelib.pretrained import load_pretrained
from vaelib.recipes import SharpenConfig
from vaelib.sharpening import SharpeningRun, sharpen

ALONE = SharpenConfig(epochs=1, batch_size=16, ema=0.99, features=0.0, matching=0.0)  # a short average, a short run
JUDGED = replace(ALONE, adversarial=0.7)
WAYS = {
    "nothing": ALONE,
    "pyramid": replace(ALONE, pyramid=1.0),
    "features": replace(ALONE, features=1.0),
    "features, and sets compared": replace(ALONE, features=1.0, matching=0.5),
    "patches judged": replace(JUDGED, discriminator="patch"),
    "features judged": replace(JUDGED, discriminator="projected"),
    "features, and patches judged": replace(JUDGED, discriminator="patch", features=1.0),
    "features, and features judged": replace(JUDGED, discriminator="projected", features=1.0),
    "features, and both judged": replace(JUDGED, discriminator="both", features=1.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", default="drawn-anime", help="what ships, or a run (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=6.0, help="of CPU time for each way (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="how many runs of each (default: %(default)s)")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, help="(default: all)")
    parser.add_argument("--picture", type=Path, help="where to write eight samples of each way")
    options = parser.parse_args()
    bundle = load_pretrained(options.bundle)
    judges, others = halves(unseen_faces(bundle, 1000))
    seen = judge_features(judges.batch())
    training, _ = load_faces(bundle.card["faces"], bundle.image_size, verbose=False).split()
    z = bundle.priors["flow"].sample(len(others), torch.Generator().manual_seed(0))
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    print(f"{machine}, {os.cpu_count()} cores, {torch.get_num_threads()} in use, torch {torch.__version__}")
    print(f"{datetime.date.today()}, {options.bundle}, {options.minutes:g} CPU minutes each\n")
    print("| added | seed | faces seen | PSNR, dB | FD: reconstructions | samples | KID | precision | recall |")
    print("| --- " * 9 + "|")
    shown = {}

    def judge(way: str, seed: str, faces: int, vae: torch.nn.Module) -> None:
        samples = torch.cat([decode(vae, some) for some in z.split(100)])
        shown[way] = samples[:8]
        far = compare_features(judge_features(reconstruct(vae, others.batch())), seen)["judge_fd"]
        near = compare_features(judge_features(samples), seen)
        told = "{judge_fd:.0f} | {judge_kid:.3f} | {judge_precision:.2f} | {judge_recall:.2f}".format(**near)
        decibels = evaluate(vae, others)["psnr"]
        print(f"| {way} | {seed} | {faces:,} | {decibels:.2f} | {far:.0f} | {told} |", flush=True)

    judge("as it ships", "", 0, bundle.vae)
    for way in options.ways:
        faces = as_many(options.bundle, training, WAYS[way], 60 * options.minutes)
        for seed in range(options.seeds):
            judge(way, str(seed), len(faces), trained(options.bundle, faces, replace(WAYS[way], seed=seed)).model)
    if options.picture:
        show_faces(shown, scale=2).savefig(options.picture)


def trained(name: str, faces: Faces, config: SharpenConfig) -> SharpeningRun:
    bundle = load_pretrained(name)
    return sharpen(bundle.vae, faces, config, prior=bundle.priors["flow"])


def as_many(name: str, training: Faces, config: SharpenConfig, seconds: float) -> Faces:
    """As many training faces, over and over where they are few, as `seconds` of this way take."""
    trial = 20 * config.batch_size
    started = time.process_time()
    trained(name, training.select(range(trial)), replace(config, head_start=0))
    count = max(trial, int(seconds / (time.process_time() - started) * trial))
    return training.select([row % len(training) for row in range(count)])


if __name__ == "__main__":
    main()
