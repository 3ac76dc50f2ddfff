import numpy as np
import torch

import vaelib
from exercise_cases import Case
from vaelib.metrics import psnr, reconstruct
from vaelib.plots import decode

STYLES = ("anime", "cartoon")
BUNDLES = {style: vaelib.load_pretrained(f"drawn-{style}") for style in STYLES}
TESTS = {style: vaelib.Faces(vaelib.draw_faces(style, 100, seed=5)[0]) for style in STYLES}
CARTOONS, VAE = TESTS["cartoon"].batch(), BUNDLES["cartoon"].vae
QUALITY = {style: psnr(reconstruct(BUNDLES[style].vae, TESTS[style].batch()), TESTS[style].batch()) for style in STYLES}
FOREIGN, SWAPPED = (vaelib.evaluate(BUNDLES[a].vae, TESTS[b])["psnr"] for a, b in (STYLES, STYLES[::-1]))
NAMES = {"np": np, "torch": torch, "vaelib": vaelib, "psnr": psnr, "decode": decode}
NAMES |= {"bundles": BUNDLES, "tests": TESTS, "quality": QUALITY}


def cost_of_a_draw(seed: int) -> float:
    with torch.inference_mode():
        draw = VAE.decode(VAE.encode(CARTOONS).sample(torch.Generator().manual_seed(seed)))
    return (QUALITY["cartoon"] - psnr(draw, CARTOONS)).mean().item()


def whole_numbers(vae, x, step):
    k = (vae.encode(x).mean.detach() / step).round()
    return k, [torch.unique(column, return_counts=True)[1] / len(k) for column in k.flatten(1).T]


def entropy(shares) -> float:
    return -float((shares * shares.log()).sum())


def compress(vae, x, step):
    k, shares = whole_numbers(vae, x, step)
    return sum(map(entropy, shares)), psnr(decode(vae, step * k), x).mean()


def wrong_sum(change):
    return lambda vae, x, step: (change(*whole_numbers(vae, x, step)), compress(vae, x, step)[1])


CASES = {
    "gain": Case(
        right=[6.02, 6.0206, 20 * np.log10(2), torch.tensor(6.02), 6],
        wrong=[3.01, -6.02, 2, 0, float("nan"), "6.02", [6.02]],
        names=NAMES,
    ),
    "loss_in_db": Case(
        right=[cost_of_a_draw(1), np.float32(cost_of_a_draw(3)), torch.tensor(cost_of_a_draw(9))],
        wrong=[-cost_of_a_draw(1), 2 * cost_of_a_draw(1), 0.3 * cost_of_a_draw(1), 0, 0.3 + cost_of_a_draw(1), "0.05"],
        names=NAMES,
    ),
    "foreign": Case(
        right=[FOREIGN, round(FOREIGN, 1), np.float32(FOREIGN), torch.tensor(FOREIGN)],
        wrong=[SWAPPED, QUALITY["cartoon"].mean().item(), FOREIGN + 1, 0, "13.2", [FOREIGN]],
        names=NAMES,
    ),
    "compress": Case(
        right=[compress, lambda vae, x, step: tuple(map(float, compress(vae, x, step)))],
        wrong=[
            wrong_sum(lambda k, shares: sum(map(entropy, shares)) / np.log(2)),
            wrong_sum(lambda k, shares: sum(map(entropy, shares)) / len(shares)),
            wrong_sum(lambda k, shares: len(shares) * entropy(torch.unique(k, return_counts=True)[1] / k.numel())),
            wrong_sum(lambda k, shares: 0.0),
            lambda vae, x, step: (compress(vae, x, step)[0], 10.0),
            lambda vae, x, step: compress(vae, x, step)[0],
            lambda vae, x: compress(vae, x, 1),
            compress(VAE, CARTOONS[:8], 1.0),
            "compress",
        ],
        names=NAMES,
    ),
}
