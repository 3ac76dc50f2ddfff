"""How good are the faces? Reconstructions and samples of bundles against faces that they never saw.

Drawn faces are drawn anew with another seed; of prepared ones those count that `python -m vaelib train` held out. Half
of them judge; the other half gives the reconstructions, and says in the row "faces" how near two sets of real faces
are. There are as many samples. Lower SWD and Fréchet distance are better; the Fréchet distance is in the features of
`vaelib.features`, so it is not FID.

    python tests/benchmarks/quality.py                          # the bundles that ship
    python tests/benchmarks/quality.py path/to/run path/to/run  # and others
"""

import argparse
import datetime

import torch

from vaelib.drawn import draw_faces
from vaelib.faces import Faces, load_faces
from vaelib.metrics import evaluate, evaluate_samples, reconstruct
from vaelib.plots import decode
from vaelib.pretrained import Bundle, load_pretrained, shipped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", default=shipped(), help="names or folders (default: what ships)")
    parser.add_argument("--count", type=int, default=1000, help="unseen faces at most (default: %(default)s)")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {datetime.date.today()}\n")
    print("| faces, recipe | what | N | PSNR, dB | SSIM | rate, nats | SWD × 10³ | Fréchet | precision | recall |")
    print("| --- " * 10 + "|")
    for name in options.bundles:
        bundle = load_pretrained(name)
        try:
            unseen = unseen_faces(bundle, options.count)
        except FileNotFoundError as error:
            print(f"| {name} | left out: {error} |")
            continue
        judges, others = halves(unseen)
        label = f"{bundle.card['faces']}, {bundle.card['recipe']}"
        row(label, "faces", others.batch(), judges)
        row(label, "reconstructions", reconstruct(bundle.vae, others.batch()), judges, evaluate(bundle.vae, others))
        for prior in bundle.priors:
            z = bundle.priors[prior].sample(len(others), torch.Generator().manual_seed(0))
            row(label, f"samples, {prior}", torch.cat([decode(bundle.vae, some) for some in z.split(256)]), judges)


def unseen_faces(bundle: Bundle, count: int) -> Faces:
    """Up to `count` faces that the bundle was not trained on. `FileNotFoundError` where its faces are not prepared."""
    name, size = bundle.card["faces"], bundle.image_size
    if name.startswith("drawn-"):
        return Faces(draw_faces(name.removeprefix("drawn-"), count, size, seed=5)[0], name)
    faces = load_faces(name, size, verbose=False)
    if faces.name != name:
        raise FileNotFoundError(f"the {name} faces are not here: python -m vaelib download {name}")
    _, test = faces.split()
    return test.select(range(min(count, len(test))))


def halves(faces: Faces) -> tuple[Faces, Faces]:
    half = len(faces) // 2
    return faces.select(range(half)), faces.select(range(half, 2 * half))


def row(label: str, what: str, pictures: torch.Tensor, judges: Faces, scores: dict | None = None) -> None:
    near = evaluate_samples(pictures, judges)
    left = "{psnr:.2f} | {ssim:.3f} | {rate:.0f}".format(**scores) if scores else "| | "
    right = "{swd:.1f} | {frechet:.1f} | {precision:.2f} | {recall:.2f}".format(**near)
    print(f"| {label} | {what} | {len(pictures)} | {left} | {right} |", flush=True)


if __name__ == "__main__":
    main()
