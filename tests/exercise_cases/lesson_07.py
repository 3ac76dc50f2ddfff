import math

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, interpolate

import vaelib
from exercise_cases import Case
from vaelib.imagenet import judge_features
from vaelib.metrics import kernel_distance, reconstruct

S = math.sin(math.pi / 3) / (math.pi / 3)
NAME = "drawn-cartoon"
FACES = vaelib.Faces(vaelib.draw_faces("cartoon", 200, seed=5)[0]).batch()
MODELS = {name: {NAME: vaelib.load_pretrained(name)} for name in (NAME, f"{NAME}-sharp")}
SOFT = reconstruct(MODELS[NAME][NAME].vae, FACES)


def levels(x):
    small = avg_pool2d(x, 2)
    yield x - interpolate(small, scale_factor=2)
    yield small


def score(x_hat, x, seen):
    return vaelib.psnr(x_hat, x).mean().item(), kernel_distance(judge_features(x_hat), seen)


def with_first_level_times(factor):
    return SOFT + (factor - 1) * next(levels(SOFT))


FACTOR = (next(levels(FACES)).std() / next(levels(SOFT)).std()).item()
NAMES = {"math": math, "np": np, "torch": torch, "s": S}

CASES = {
    "radius": Case(
        right=[0.955, 0.95493, np.float32(0.955), torch.tensor(0.955)],
        wrong=[S, math.cos(math.pi / 6), 0.5, 30, "0.955", [0.955]],
        names=NAMES,
    ),
    "filtered": Case(
        right=[with_first_level_times(FACTOR), with_first_level_times(FACTOR).numpy()],
        wrong=[SOFT, FACES, with_first_level_times(2 * FACTOR), SOFT * FACTOR, SOFT[:8], FACTOR, "filtered", [SOFT]],
        names=NAMES
        | {"levels": levels, "reconstruct": reconstruct, "judge_features": judge_features, "score": score}
        | {"bundles": MODELS[NAME], "sharp": MODELS[f"{NAME}-sharp"], "tests": {NAME: FACES}},
    ),
    "half": Case(
        right=[21.5, np.float64(21.51), torch.tensor(21.5)],
        wrong=[21.0, 21.2, 20.8, 0.5, "21.5", [21.5]],
        names=NAMES | {"curves": {"drawn-anime": [(21.2, 0.4), (21.5, 0.3), (20.8, 0.2)]}},
    ),
    "errors": Case(
        right=[[0.318, 0.32, 0.336, 0.4, 0.9], torch.tensor([0.318, 0.32, 0.336, 0.4, 0.9])],
        wrong=[
            [0.1, 0.32, 0.336, 0.4, 0.9],
            [0.318, 0.32, 0.9, 0.4, 0.9],
            [0.318, 0.32, 0.336, 0.4, 0.1],
            [0.318, 0.32],
            0.3,
            "five",
            [[0.3]] * 5,
        ],
        names=NAMES,
    ),
}
