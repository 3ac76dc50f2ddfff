"""How good are the faces? Reconstructions and samples of bundles against faces that they never saw.

Drawn faces are drawn anew with another seed; of prepared ones those count that `python -m vaelib train` held out. Half
of them judge; the other half gives the reconstructions, and says in the row "faces" how near two sets of real faces
are. There are as many samples. Lower SWD, Fréchet distance (FD) and KID are better. The first FD, precision and recall
are in the features of `vaelib.features`, which learned from drawn faces. The judge is EfficientNet-Lite1, which learned
from ImageNet's photographs and sees the pictures enlarged to 128 pixels; no loss here has used it (losses and
discriminators look with EfficientNet-Lite0). Neither FD is FID. KID is not multiplied by 10³.

    python tests/benchmarks/quality.py                          # the bundles that ship
    python tests/benchmarks/quality.py path/to/run path/to/run  # others
    python tests/benchmarks/quality.py anime-sharp --priors flow
"""

import argparse
import datetime

import torch

from vaelib.drawn import draw_faces
from vaelib.faces import Faces, load_faces
from vaelib.imagenet import judge_features
from vaelib.metrics import compare_features, evaluate, evaluate_samples, reconstruct
from vaelib.plots import decode
from vaelib.pretrained import Bundle, load_pretrained, shipped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", default=shipped(), help="names or folders (default: what ships)")
    parser.add_argument("--count", type=int, default=1000, help="unseen faces at most (default: %(default)s)")
    parser.add_argument("--priors", nargs="+", help="where samples come from (default: all priors of a bundle)")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {datetime.date.today()}\n")
    print(
        "| faces, recipe | what | N | PSNR, dB | SSIM | rate, nats | SWD × 10³ | FD | precision | recall |"
        " judge's FD | KID | precision | recall |"
    )
    print("| --- " * 14 + "|")
    for name in options.bundles:
        bundle = load_pretrained(name)
        try:
            unseen = unseen_faces(bundle, options.count)
        except FileNotFoundError as error:
            print(f"| {name} | left out: {error} |")
            continue
        judges, others = halves(unseen)
        seen = judge_features(judges.batch())
        label = f"{bundle.card['faces']}, {bundle.card['recipe']}"
        row(label, "faces", others.batch(), judges, seen)
        row(
            label,
            "reconstructions",
            reconstruct(bundle.vae, others.batch()),
            judges,
            seen,
            evaluate(bundle.vae, others),
        )
        for prior in options.priors or bundle.priors:
            z = bundle.priors[prior].sample(len(others), torch.Generator().manual_seed(0))
            row(
                label, f"samples, {prior}", torch.cat([decode(bundle.vae, some) for some in z.split(256)]), judges, seen
            )


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


def row(
    label: str, what: str, pictures: torch.Tensor, judges: Faces, seen: torch.Tensor, scores: dict | None = None
) -> None:
    """Print a row; `seen` is what the judge sees in the `judges`."""
    near = evaluate_samples(pictures, judges) | compare_features(judge_features(pictures), seen)
    left = "{psnr:.2f} | {ssim:.3f} | {rate:.0f}".format(**scores) if scores else "| | "
    right = "{swd:.1f} | {frechet:.1f} | {precision:.2f} | {recall:.2f}".format(**near)
    right += " | {judge_fd:.1f} | {judge_kid:.3f} | {judge_precision:.2f} | {judge_recall:.2f}".format(**near)
    print(f"| {label} | {what} | {len(pictures)} | {left} | {right} |", flush=True)


if __name__ == "__main__":
    main()
