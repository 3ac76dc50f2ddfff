"""How much do copies flatter a model that only remembers? Measured on the archive of anime faces.

    python tests/benchmarks/leaks.py animefacedataset.zip

The "model" answers with the nearest training face. A tenth of the faces is the test set, by three kinds of split. In
the first row a copy is an exact one, in the other two a near one.
"""

import argparse
import io
import os
import tempfile
import zipfile

import numpy as np
import torch
from PIL import Image

from vaelib.faces import Faces, load_faces
from vaelib.preparing import prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", help="the anime archive, with its copies")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as cache:
        os.environ["VAELIB_CACHE"] = cache  # not the reader's own
        compare(options.archive, options.seeds)


def compare(archive: str, seeds: int) -> None:
    distinct = load_faces(prepare(archive).name)
    everything = all_files(archive)
    print("| split | test faces with a copy in training | error of remembering |\n| --- | --- | --- |")
    measure(
        "at random, all files",
        Faces(everything.images, families=np.arange(len(everything))),
        everything.families,
        seeds,
    )
    exact = Faces(distinct.images, families=np.arange(len(distinct)))
    measure("exact copies kept together", exact, distinct.families, seeds)
    measure("near copies kept together", distinct, distinct.families, seeds)


def all_files(archive: str) -> Faces:
    with zipfile.ZipFile(archive) as opened:
        names = [name for name in opened.namelist() if name.endswith(".jpg")]
        images = np.stack([np.asarray(Image.open(io.BytesIO(opened.read(name))).convert("RGB")) for name in names])
    return Faces(images)


def measure(name: str, faces: Faces, families: np.ndarray, seeds: int) -> None:
    leaked, errors = [], []
    for seed in range(seeds):
        rows = Faces(faces.images, families=faces.families, labels={"family": families})
        train, test = rows.split(0.1, seed)
        leaked.append(np.isin(test.labels["family"], train.labels["family"]).mean())
        errors.append(error_of_memory(train, test))
    print(f"| {name} | {np.mean(leaked):.0%} | {np.mean(errors):.3f} ± {np.std(errors):.3f} |", flush=True)


def error_of_memory(train: Faces, test: Faces) -> float:
    """Root mean squared error of answering each test face with the nearest training face."""
    known = train.batch().flatten(1)
    squared = [
        torch.cdist(test.batch(slice(i, i + 256)).flatten(1), known).min(1).values.square()
        for i in range(0, len(test), 256)
    ]
    return (torch.cat(squared).mean() / known.shape[1]).sqrt().item()


if __name__ == "__main__":
    main()
