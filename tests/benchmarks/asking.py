"""Does a face have what it was asked for? Accuracy by label, recall and precision, against guidance.

A flow prior is fitted to latents and labels of drawn faces and asked for five things at once, with values as frequent
as on drawn faces. The network of `vaelib.features` reads what the decoded faces show: a choice is as asked or not, a
number is as asked within 15 % of its range (by chance: some 28 %). The row "reconstructions" is the most that can be
expected: the same reading of reconstructed faces whose labels are known. Precision and recall compare the features of
samples with those of reconstructions, so that the decoder's blur does not count.

    python tests/benchmarks/asking.py                                   # drawn-cartoon, three seeds
    python tests/benchmarks/asking.py path/to/run --labels hair tilt    # others
    python tests/benchmarks/asking.py --fitted                          # the flow that the bundle carries
"""

import argparse
import datetime
import sys
import time

import numpy as np
import torch

from vaelib.drawn import FACTORS, Factor, draw_faces
from vaelib.faces import Faces, load_faces
from vaelib.features import face_features, read_labels
from vaelib.latents import encode_faces
from vaelib.metrics import precision_recall, reconstruct
from vaelib.plots import decode
from vaelib.pretrained import load_pretrained
from vaelib.priors import fit_flow

FIVE = {
    "cartoon": ["hair", "hair_colour", "skin", "face_shape", "tilt"],
    "anime": ["hair", "fringe", "hair_light", "background", "tilt"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", default="drawn-cartoon", help="name or folder (default: %(default)s)")
    parser.add_argument(
        "--labels", nargs="+", help="what is asked for (default: the five that reconstructions show best)"
    )
    parser.add_argument(
        "--faces", type=int, default=20_000, help="drawn faces, less those held out (default: %(default)s)"
    )
    parser.add_argument("--count", type=int, default=1000, help="faces asked for (default: %(default)s)")
    parser.add_argument("--guidance", nargs="+", type=float, default=[0, 1, 2, 3, 5])
    parser.add_argument("--seeds", type=int, default=3, help="flows to fit (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3000, help="steps of a fit (default: %(default)s)")
    parser.add_argument("--width", type=int, default=384, help="units of a layer (default: %(default)s)")
    parser.add_argument("--told", nargs="+", help="labels that the fit is told (default: all)")
    parser.add_argument("--fitted", action="store_true", help="ask the bundle's own flow instead of fitting any")
    options = parser.parse_args()
    bundle = load_pretrained(options.bundle)
    style = bundle.card["faces"].removeprefix("drawn-")
    names = options.labels or FIVE[style]
    images, labels = draw_faces(style, options.count, bundle.image_size, seed=5)
    asked = {name: labels[name] for name in names}
    faces = reconstruct(bundle.vae, Faces(images).batch())
    seen = face_features(faces)
    print(f"torch {torch.__version__}, {datetime.date.today()}, {' '.join(sys.argv[1:])}\n")
    print("| flow | guidance | " + " | ".join(names) + " | precision | recall |")
    print("| --- " * (len(names) + 4) + "|")
    row("reconstructions", "", accuracy(faces, asked, style), {})
    for name, prior in flows(bundle, options):
        for guidance in options.guidance:
            z = prior.sample(options.count, torch.Generator().manual_seed(1), asked, guidance)
            faces = torch.cat([decode(bundle.vae, some) for some in z.split(256)])
            near = precision_recall(face_features(faces), seen)
            row(name, f"{guidance:g}", accuracy(faces, asked, style), near)


def flows(bundle, options):
    """The flows to ask, each with a name for its rows."""
    if options.fitted:
        yield "fitted", bundle.priors["flow"]
        return
    train, _ = load_faces(bundle.card["faces"], bundle.image_size, options.faces).split()
    posterior = encode_faces(bundle.vae, train)
    labels = {name: train.labels[name] for name in options.told or train.labels}
    for seed in range(options.seeds):
        start = time.process_time()
        prior = fit_flow(posterior, options.steps, options.width, seed=seed, progress=False, labels=labels)
        yield f"seed {seed}, {time.process_time() - start:.0f} s of CPU", prior


def accuracy(faces: torch.Tensor, asked: dict[str, np.ndarray], style: str) -> dict[str, float]:
    """For each label the share of faces that show what was asked, in per cent."""
    read = read_labels(faces, style)
    return {name: 100 * as_asked(FACTORS[style][name], read[name], values).mean() for name, values in asked.items()}


def as_asked(factor: Factor, read: np.ndarray, asked: np.ndarray) -> np.ndarray:
    if factor.choices:
        return read == asked
    distance = abs(read - asked)
    if factor.is_hue:
        distance = np.minimum(distance, 1 - distance)
    return distance < 0.15 * (factor.high - factor.low)


def row(name: str, guidance: str, shares: dict[str, float], near: dict[str, float]) -> None:
    cells = [f"{share:.1f}" for share in shares.values()] + [f"{value:.2f}" for value in near.values()] or [""]
    print(f"| {name} | {guidance} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
