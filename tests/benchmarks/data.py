"""How fast are preparing, opening and drawing faces? `make benchmark` prints a table for the README.

Both sides of a comparison run in turn, in one process, on the same files; a figure is the median of the repeats.

    python tests/benchmarks/data.py                                    # on drawn stand-ins of both archives
    python tests/benchmarks/data.py --faces FOLDER_WITH_BOTH_ZIPS      # on Kaggle's
"""

import argparse
import datetime
import io
import itertools
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Resize, ToTensor

from vaelib.drawn import draw_face, draw_faces
from vaelib.faces import load_faces
from vaelib.pictures import to_face
from vaelib.preparing import LAYOUTS, prepare

ZIPS = {"anime": "animefacedataset.zip", "cartoon": "cartoon-faces-googles-cartoon-set.zip"}
PUBLISHED = {"anime": 63_565, "cartoon": 100_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, help=f"folder with {' and '.join(ZIPS.values())}")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        os.environ["VAELIB_CACHE"] = str(folder / "cache")
        zips = {name: options.faces / file for name, file in ZIPS.items()} if options.faces else draw_zips(folder)
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
        print(f"{datetime.date.today()}, {'Kaggle' if options.faces else 'drawn'} faces, median of {options.repeats}\n")
        print("| what | measured |\n| --- | --- |")
        for name, path in zips.items():
            compare_with_image_folder(name, path, folder, options.repeats)
        row("cartoon, decoded at 1/4 against in full", reduced_against_full(zips["cartoon"]))
        hundred_thousand(zips["anime"], folder)
        opening = median(lambda: load_faces("anime"), 20)
        row("`load_faces` of a prepared set", f"{1000 * opening:.1f} ms")
        for style in ("anime", "cartoon"):
            row(f"drawing {style} faces, one core", f"{200 / median(lambda: draw_faces(style, 200), 5):,.0f} faces/s")  # noqa: B023


def row(what: str, measured: str) -> None:
    print(f"| {what} | {measured} |", flush=True)


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median(work, repeats: int) -> float:
    return statistics.median(seconds(work) for _ in range(repeats))


def compare_with_image_folder(name: str, path: Path, folder: Path, repeats: int) -> None:
    """`prepare` against a usual pass over unpacked files: without workers, as published, and with one for each core."""
    with zipfile.ZipFile(path) as archive:
        count = sum(not member.is_dir() for member in archive.infolist())
        archive.extractall(folder / name)
    pictures = ImageFolder(folder / name, Compose([Resize((64, 64)), ToTensor()]))
    works = {f"`prepare`, {count:,} {name} pictures": lambda: prepare(path, f"{name}-{next(fresh)}", progress=False)}
    for workers in (0, os.cpu_count()):
        loader = DataLoader(pictures, batch_size=256, num_workers=workers)
        works[f"`ImageFolder`, `Resize`, `ToTensor`, {workers} workers: one pass"] = lambda loader=loader: list(
            map(len, loader)
        )
    fresh = itertools.count()
    took = {what: [] for what in works}
    for _ in range(repeats):
        for what, work in works.items():
            took[what].append(seconds(work))
    prepare(path, progress=False)
    ours = next(iter(took.values()))
    for what, times in took.items():
        ratio = statistics.median(usual / own for usual, own in zip(times, ours, strict=True))
        compared = "" if times is ours else f", **{ratio:.1f} times** as long"
        time_taken = statistics.median(times)
        row(what, f"{time_taken:.1f} s, {count / time_taken:,.0f} pictures/s{compared}")
    row(
        f"`prepare`, {PUBLISHED[name]:,} {name} pictures, extrapolated",
        f"{statistics.median(ours) / count * PUBLISHED[name]:.0f} s",
    )


def reduced_against_full(path: Path, sample: int = 500) -> str:
    crop = LAYOUTS["cartoon"].crop
    errors = []
    with zipfile.ZipFile(path) as archive:
        files = [file for file in archive.namelist() if file.endswith(".jpg")]
        for file in files[:: max(1, len(files) // sample)]:
            reduced = to_face(Image.open(archive.open(file)), 64, crop)
            whole = Image.open(archive.open(file)).convert("RGB")
            full = to_face(whole, 64, crop)  # converted already, so that it is not decoded again
            errors.append(np.square(np.asarray(reduced, float) - np.asarray(full, float)).mean())
    psnr = 10 * np.log10(255**2 / np.array(errors))
    return f"{psnr.mean():.1f} dB PSNR on average, {psnr.min():.1f} dB at worst, {len(psnr)} pictures"


def hundred_thousand(path: Path, folder: Path) -> None:
    """100,000 different pictures: those of an archive, mirrored and with their colours exchanged."""
    source = folder / "many.zip"
    with zipfile.ZipFile(path) as few, zipfile.ZipFile(source, "w") as many:
        files = [file for file in few.namelist() if file.endswith(".jpg")]
        variants = itertools.product(itertools.permutations(range(3)), (1, -1), files)
        for i, (colours, direction, file) in enumerate(itertools.islice(variants, 100_000)):
            face = np.asarray(Image.open(few.open(file)).convert("RGB"))[:, ::direction, list(colours)]
            many.writestr(f"{i:06}.jpg", jpeg(face))
    start = time.perf_counter()
    work = subprocess.Popen([sys.executable, "-m", "vaelib", "prepare", source], stdout=subprocess.PIPE, text=True)
    peak = 0
    while work.poll() is None:
        peak = max(peak, memory_of(work.pid))
        time.sleep(0.05)
    took = time.perf_counter() - start
    kept, families = (line.split()[0] for line in work.stdout if "kept" in line or "families" in line)
    row(f"`python -m vaelib prepare`, 100,000 pictures: {kept} distinct, {families} families", f"**{took:.0f} s**")
    row("its peak memory, all processes together", f"{peak / 1e6:,.0f} MB")


def memory_of(pid: int) -> int:
    """Resident bytes of a process and its children; what they share counts once."""
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        return sum(getattr(process.memory_full_info(), "pss", process.memory_info().rss) for process in family)
    except psutil.NoSuchProcess:
        return 0


def draw_zips(folder: Path) -> dict[str, Path]:
    """Stand-ins in the layout of the archives: small anime pictures, large cartoons in a white margin."""
    paths = {name: folder / file for name, file in ZIPS.items()}
    with zipfile.ZipFile(paths["anime"], "w") as archive:
        for i, face in enumerate(draw_faces("anime", 8000)[0]):
            archive.writestr(f"images/{i}_2005.jpg", jpeg(face))
    with zipfile.ZipFile(paths["cartoon"], "w") as archive:
        for i in range(1000):
            picture = np.full((500, 500, 3), 255, np.uint8)
            picture[95:405, 95:405] = draw_face("cartoon", 310, hair=HAIRS[i % len(HAIRS)], tilt=i / 125 - 4)
            archive.writestr(f"cartoonset100k_jpg/{i % 10}/cs{i}.jpg", jpeg(picture))
    return paths


HAIRS = ("swoop", "buzz", "spiky", "curly", "bob", "long", "wavy", "bun", "pigtails", "bald")


def jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
