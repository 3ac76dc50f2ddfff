"""How much faster is a step than in the published runs, and where does its time go?

The baseline is the published loop: each picture decoded by Pillow, resized, mirrored and made a tensor on its own, a
`DataLoader` without workers, float32, Adam. Ours is `vaelib.train`'s step. Same network (17,089,539 parameters), same
faces, same batch of 256, in turn in one process; a figure is the median of the steps after a first one to warm up.

    python tests/benchmarks/training.py                     # on drawn faces
    python tests/benchmarks/training.py --faces anime       # on prepared ones, or on an archive
"""

import argparse
import contextlib
import datetime
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, RandomHorizontalFlip, Resize, ToTensor

from vaelib.devices import compute_dtype, near, take
from vaelib.faces import Faces, load_faces
from vaelib.model import VAE
from vaelib.recipes import RECIPES
from vaelib.training import TrainingRun, _batches, _flip_half, loss_terms

PARTS = ("data", "forward", "backward", "optimiser")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", default="drawn-anime", help="what load_faces takes (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="measured steps of each (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    faces = load_faces(options.faces, verbose=False).select(range(4 * options.batch_size))

    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} cores, {platform.machine()}"
    fast = "bfloat16 in hardware" if compute_dtype("auto", device) == torch.bfloat16 else "no bfloat16 in hardware"
    print(f"{name}, {fast}, torch {torch.__version__}, {datetime.date.today()}, {faces.name} faces, ", end="")
    print(f"batch {options.batch_size}, median of {options.steps} steps\n")
    print("| loop | faces/s | ratio | " + " | ".join(f"{part}, ms" for part in PARTS) + " |")
    print("| --- " * (3 + len(PARTS)) + "|")
    loops = {
        "published": lambda: published(faces, options.batch_size, device),
        "ours, float32": lambda: ours(faces, options.batch_size, device, precision="float32"),
        "ours, float32, compiled": lambda: ours(faces, options.batch_size, device, precision="float32", compiled=True),
        "ours, bfloat16": lambda: ours(faces, options.batch_size, device, precision="bfloat16"),
        "ours, bfloat16, compiled": lambda: ours(
            faces, options.batch_size, device, precision="bfloat16", compiled=True
        ),
    }
    baseline = None
    for what, loop in loops.items():
        parts = median_of_steps(loop(), options.steps)
        total = sum(parts.values())
        baseline = baseline or total
        times = " | ".join(f"{1000 * parts[part]:,.0f}" for part in PARTS)
        print(f"| {what} | {options.batch_size / total:,.0f} | {baseline / total:.1f} | {times} |", flush=True)


def median_of_steps(steps, count: int) -> dict[str, float]:
    """Seconds of each part of a step. `steps` does one at each turn, and yields the seconds of its parts."""
    next(steps)
    measured = [next(steps) for _ in range(count)]
    return {part: statistics.median(step[part] for step in measured) for part in PARTS}


class Clock:
    """Seconds since the last look, all work of the device done."""

    def __init__(self, device: torch.device):
        self.device, self.last = device, time.perf_counter()

    def lap(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        seconds, self.last = now - self.last, now
        return seconds


def published(faces: Faces, batch_size: int, device: torch.device):
    """The published loop, on the faces as JPEG files."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "images").mkdir()
        for i, image in enumerate(faces.images):
            Image.fromarray(image).save(Path(folder) / "images" / f"{i:05}.jpg", quality=95)
        pictures = ImageFolder(folder, Compose([Resize((64, 64)), RandomHorizontalFlip(), ToTensor()]))
        torch.manual_seed(0)
        vae, config = VAE().to(device), RECIPES["anime-vae"]
        optimizer = torch.optim.Adam(vae.parameters(), lr=config.learning_rate)
        while True:
            clock = Clock(device)
            for x, _ in DataLoader(pictures, batch_size, shuffle=True, drop_last=True):
                x = x.to(device)
                yield one_step(clock, vae, optimizer, x, config, contextlib.nullcontext(), loss_terms)


def ours(faces: Faces, batch_size: int, device: torch.device, precision: str, compiled: bool = False):
    """What `vaelib.train` does in a step, with a clock between the parts."""
    torch.manual_seed(0)
    config = RECIPES["anime-vae"]
    run = TrainingRun(VAE().to(device), faces, config, device=device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
    terms = torch.compile(loss_terms) if compiled else loss_terms
    images = near(device, faces.images)
    while True:
        clock = Clock(device)
        for rows in _batches(len(images), batch_size, images.device):
            x = _flip_half(take(images, rows, device))
            yield one_step(clock, run.vae, run.optimizer, x, config, autocast, terms)


def one_step(clock: Clock, vae, optimizer, x, config, autocast, terms) -> dict[str, float]:
    seconds = {"data": clock.lap()}
    with autocast:
        distortion, rate = terms(vae, x, config)
    loss = distortion + config.beta * rate
    seconds["forward"] = clock.lap()
    optimizer.zero_grad()
    loss.backward()
    seconds["backward"] = clock.lap()
    optimizer.step()
    seconds["optimiser"] = clock.lap()
    return seconds


if __name__ == "__main__":
    main()
