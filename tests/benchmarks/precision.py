"""Does speed cost quality? bfloat16 and compiled against float32: same faces, same steps, three seeds each.

Prints the held-out loss (nats per face) and PSNR of every run, and whether the difference between the means lies
within the spread of the seeds.

    python tests/benchmarks/precision.py --faces anime --count 4000 --epochs 4
"""

import argparse
import datetime
import os
import platform
import statistics
from dataclasses import replace

import torch

from vaelib.faces import load_faces
from vaelib.model import VAE
from vaelib.recipes import RECIPES
from vaelib.training import train

WAYS = {
    "float32": {"precision": "float32", "compile": False},
    "bfloat16, compiled": {"precision": "bfloat16", "compile": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", default="drawn-anime", help="what load_faces takes (default: %(default)s)")
    parser.add_argument("--count", type=int, default=4000, help="faces, a tenth held out (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--base-channels", type=int, default=20, help="20 is the published network")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    faces = load_faces(options.faces, verbose=False)
    training, test = faces.select(range(min(options.count, len(faces)))).split()
    config = replace(RECIPES["gaussian"], epochs=options.epochs, batch_size=options.batch_size)
    cores = f"{os.cpu_count()} cores, {platform.machine()}"
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else cores
    print(f"{name}, torch {torch.__version__}, {datetime.date.today()}, {len(training):,} {faces.name} faces, ", end="")
    print(f"{options.epochs} epochs, batch {options.batch_size}, base_channels {options.base_channels}\n")
    print("| way | seed | held-out loss, nats | PSNR, dB |\n| --- | --- | --- | --- |")

    losses = {way: [] for way in WAYS}
    for seed in range(options.seeds):
        for way, how in WAYS.items():
            torch.manual_seed(seed)
            vae = VAE(base_channels=options.base_channels)
            last = train(vae, training, replace(config, seed=seed, **how), test=test).history[-1]
            losses[way].append(last["test_loss"])
            print(f"| {way} | {seed} | {last['test_loss']:,.1f} | {last['test_psnr']:.2f} |", flush=True)

    exact, fast = losses.values()
    difference = statistics.mean(fast) - statistics.mean(exact)
    spread = max(max(exact) - min(exact), max(fast) - min(fast))
    within = "within" if abs(difference) <= spread else "BEYOND"
    print(f"\n{difference:+,.1f} nats between the means, {within} the seeds' spread of {spread:,.1f}")


if __name__ == "__main__":
    main()
