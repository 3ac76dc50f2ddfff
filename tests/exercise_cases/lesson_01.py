import numpy as np
import torch

import vaelib
from exercise_cases import Case
from vaelib.drawn import draw_face

ANIME = vaelib.load_faces("drawn-anime", count=200)
NAMES = {"np": np, "torch": torch, "drawn": {"anime": ANIME}}
MEAN = float(ANIME.batch().mean())


def face(number: int) -> np.ndarray:
    return draw_face("anime", **{name: values[number] for name, values in ANIME.labels.items()})


def deal(families, fraction, seed):
    different = np.unique(families)
    chosen = np.random.default_rng(seed).permutation(different)[: round(fraction * len(different))]
    return np.isin(families, chosen)


def deal_with_torch(families, fraction, seed):
    different = torch.from_numpy(families).unique()
    order = torch.randperm(len(different), generator=torch.Generator().manual_seed(seed))
    return torch.isin(torch.from_numpy(families), different[order[: int(fraction * len(different))]])


def deal_to_a_list(families, fraction, seed):
    return deal(families, fraction, seed).tolist()


def deal_faces(families, fraction, seed):
    return np.random.default_rng(seed).permutation(len(families)) < fraction * len(families)


def deal_numbers(families, fraction, seed):
    return np.flatnonzero(deal(families, fraction, seed))


def deal_training(families, fraction, seed):
    return ~deal(families, fraction, seed)


def deal_without_a_seed(families, fraction, seed):
    return deal(families, fraction, 0)


def deal_less(families, fraction):
    return deal(families, fraction, 0)


CASES = {
    "grey": Case(
        right=[MEAN, round(MEAN, 3), np.float32(MEAN), np.float64(MEAN), torch.tensor(MEAN)],
        wrong=[float(np.median(ANIME.images)) / 255, 0.5, 0, 255 * MEAN, float("nan"), "0.59", [MEAN], ANIME.batch],
        names=NAMES,
    ),
    "redrawn": Case(
        right=[face(123), ANIME.images[123], torch.from_numpy(face(123))],
        wrong=[face(124), draw_face("anime"), face(123)[None], face(123) / 255, 123, "face 123", [1, [2]]],
        names=NAMES,
    ),
    "fraction": Case(
        right=[0.9, 0.90, np.float64(0.9), np.float32(0.897), torch.tensor(0.9), 9 / 10],
        wrong=[0.1, 0.5, 0.39, 1, 90, "0.9", [0.9]],
        names=NAMES,
    ),
    "deal": Case(
        right=[deal, deal_with_torch, deal_to_a_list],
        wrong=[
            deal_faces,
            deal_numbers,
            deal_training,
            deal_without_a_seed,
            deal_less,
            deal(np.arange(9), 0.1, 0),
            "f",
        ],
        names=NAMES,
    ),
}
