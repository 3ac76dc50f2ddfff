import numpy as np
import torch

import vaelib
from exercise_cases import Case

ANIME = vaelib.load_faces("drawn-anime", count=40)
NAMES = {"np": np, "torch": torch, "anime": ANIME}


def smaller_bytes(images):
    numbers = {}
    keys = [min(image.tobytes(), image[:, ::-1].tobytes()) for image in images]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


def both_added(images):
    """The sum of a picture and its mirror image is the same for both; a list of numbers of its own."""
    sums = (images.astype(int) + images[:, :, ::-1]).reshape(len(images), -1)
    return np.unique(sums, axis=0, return_inverse=True)[1].ravel().tolist()


def equal_only(images):
    numbers = {}
    return np.array([numbers.setdefault(image.tobytes(), len(numbers)) for image in images])


def upside_down(images):
    numbers = {}
    keys = [min(image.tobytes(), image[::-1].tobytes()) for image in images]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


def number_of_families(images):
    return len(set(smaller_bytes(images)))


def one_for_all(images):
    return torch.zeros(len(images))


def of_nothing():
    return []


CASES = {
    "answer": Case(right=[2, 2.0, np.int64(2), torch.tensor(2)], wrong=[1, 0, 4096, "two", [0, 1]], names=NAMES),
    "mirror_families": Case(
        right=[smaller_bytes, both_added, lambda images: torch.from_numpy(smaller_bytes(images))],
        wrong=[equal_only, upside_down, number_of_families, one_for_all, of_nothing, np.arange(33), "families"],
        names=NAMES,
    ),
    "workers": Case(
        right=[6, 6.0, np.int64(6), torch.tensor(6)],
        wrong=[5, 8000 / 1500, 12_000_000, 0, "6", [6]],
        names=NAMES,
    ),
    "repeated": Case(
        right=[7, 7.0, np.int64(7), torch.tensor(7)],
        wrong=[37, 8, 0, 30, "7", [7]],
        names=NAMES,
    ),
}
