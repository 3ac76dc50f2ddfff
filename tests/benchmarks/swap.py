"""How often does a face have the hair style that the explorer's menu asks for, and does the rest of it stay?

Drawn faces that no model saw are encoded, each gets another hair style at random, and the factor network that ships
(`vaelib.features`) reads both decoded pictures, with the old style and the new. A factor is unchanged where it reads
the same choice off both, or numbers (a hue: points on the circle) less than one standard deviation apart. As a limit
to compare with, the same faces are drawn again with the new style and only encoded and decoded.

    python tests/benchmarks/swap.py                        # some 2 minutes
    python tests/benchmarks/swap.py drawn-anime-sharp --label fringe
"""

import argparse
import datetime

import numpy as np
import torch
from torch import Tensor

from vaelib.drawn import FACTORS, draw_face, draw_faces
from vaelib.faces import Faces
from vaelib.features import load_factor_net
from vaelib.latents import encode_faces, fit_attributes
from vaelib.plots import decode
from vaelib.pretrained import Bundle, load_pretrained
from vaelib.swaps import Swaps

FITTED_SEED, TESTED_SEED = 18, 19  # of the drawn faces; the models saw those of seed 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["drawn-cartoon", "drawn-anime"])
    parser.add_argument("--label", default="hair", help="(default: %(default)s)")
    parser.add_argument("--count", type=int, default=300, help="faces (default: %(default)s)")
    parser.add_argument("--fitted", type=int, default=2000, help="faces to fit the swaps to (default: %(default)s)")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {datetime.date.today()}, {options.label}, {options.count} faces, in per cent\n")
    print("| model | asked for, is there | others unchanged | least unchanged | drawn anew: there | unchanged |")
    print("| --- | --- | --- | --- | --- | --- |")
    by_choice = {}
    for name in options.models:
        bundle = load_pretrained(name)
        style = bundle.card["faces"].removeprefix("drawn-")
        images, labels = draw_faces(style, options.count, bundle.image_size, TESTED_SEED)
        targets = other_choices(style, options.label, labels[options.label])
        before = encode_faces(bundle.vae, Faces(images)).mean
        swaps = fitted_swaps(bundle, style, options.fitted)
        after = torch.cat(
            [
                swaps.swap(z[None], options.label.replace("_", " "), choice)
                for z, choice in zip(before, targets, strict=True)
            ]
        )
        anew = encode_faces(bundle.vae, drawn_anew(style, labels, options.label, targets, bundle.image_size)).mean
        plain = read(bundle, before, style)
        there, unchanged = compare(plain, read(bundle, after, style), options.label, targets)
        limit, limits = compare(plain, read(bundle, anew, style), options.label, targets)
        least = min(unchanged, key=unchanged.get)
        kept, kept_anew = (100 * np.mean([*shares.values()]) for shares in (unchanged, limits))
        print(
            f"| {name} | {100 * there.mean():.1f} | {kept:.1f} | {least} {100 * unchanged[least]:.0f} "
            f"| {100 * limit.mean():.1f} | {kept_anew:.1f} |"
        )
        by_choice[name] = {choice: there[targets == choice].mean() for choice in np.unique(targets)}
    for name, shares in by_choice.items():
        print(f"\n{name}: {', '.join(f'{choice} {share:.0%}' for choice, share in shares.items())}")


def other_choices(style: str, label: str, own: np.ndarray) -> np.ndarray:
    """For each face a choice that it does not have."""
    choices = FACTORS[style][label].choices
    steps = np.random.default_rng(0).integers(1, len(choices), len(own))
    return np.array(
        [choices[(choices.index(mine) + step) % len(choices)] for mine, step in zip(own, steps, strict=True)]
    )


def fitted_swaps(bundle: Bundle, style: str, count: int) -> Swaps:
    images, labels = draw_faces(style, count, bundle.image_size, FITTED_SEED)
    return fit_attributes(encode_faces(bundle.vae, Faces(images)).mean, labels).swaps


def drawn_anew(style: str, labels: dict, label: str, targets: np.ndarray, size: int) -> Faces:
    faces = []
    for row, target in enumerate(targets):
        factors = {name: values[row].item() for name, values in labels.items()} | {label: target.item()}
        faces.append(draw_face(style, size, **factors))
    return Faces(np.stack(faces))


def read(bundle: Bundle, z: Tensor, style: str) -> dict[str, Tensor]:
    net = load_factor_net()
    with torch.inference_mode():
        told = net.tell(net(decode(bundle.vae, z)), style)
    return {name: told[name] for name in FACTORS[style]}


def compare(plain: dict[str, Tensor], swapped: dict[str, Tensor], label: str, targets: np.ndarray):
    """For each face, whether it has what was asked for; for each other factor, the share of faces that kept it."""
    (factors,) = [factors for factors in FACTORS.values() if factors.keys() == plain.keys()]
    there = np.array(factors[label].choices)[swapped[label].argmax(1)] == targets
    unchanged = {}
    for name in factors.keys() - {label}:
        if factors[name].choices:
            same = plain[name].argmax(1) == swapped[name].argmax(1)
        else:
            same = (plain[name] - swapped[name]).norm(dim=1) < 1
        unchanged[name] = same.float().mean().item()
    return there, unchanged


if __name__ == "__main__":
    main()
