"""Lesson 02: a rate in bits, a book's β, nats for a decibel, an ELBO with two peaks, and free bits to build."""

import math

import numpy as np
import torch

from exercise_cases import Case

GIVEN = {"math": math, "np": np, "torch": torch, "evidence": {"curved": torch.tensor(-2.3273, dtype=torch.float64)}}
NO_NUMBERS = ["many", [1, 2], (), {}, True]


def free_bits(nats, floor):
    return nats.clamp(min=floor).sum(1)


CASES = {
    "bits": Case(
        right=[192, 191.9, 133 / math.log(2), np.float32(191.88), torch.tensor(191.88)],
        wrong=[133, 92.2, 24, -192, float("nan"), *NO_NUMBERS],
        names=GIVEN,
    ),
    "beta_gdl": Case(
        right=[2.048, 2.05, 1024 / 500, np.float64(2.048), torch.tensor(2.05)],
        wrong=[500, 0.488, 0.24, 1, 6.144, *NO_NUMBERS],
        names=GIVEN,
    ),
    "saved": Case(
        right=[1414.7, 1415, -1414.7, np.float32(1414.7), torch.tensor(1414.7)],
        wrong=[2829.4, 614.4, 471.6, 1, *NO_NUMBERS],
        names=GIVEN,
    ),
    "two_peaks": Case(
        right=[-2.341, torch.tensor(-2.3414), np.float64(-2.3414), torch.tensor(-2.3414, dtype=torch.float64)],
        wrong=[0.014, -3.034, -1.65, 2.341, -2.4, *NO_NUMBERS],
        names=GIVEN,
    ),
    "free_bits": Case(
        right=[
            free_bits,
            lambda nats, floor: torch.maximum(nats, torch.tensor(floor)).sum(dim=1),
            lambda nats, floor: floor * nats.shape[1] + (nats - floor).relu().sum(1),
            lambda nats, floor: free_bits(nats, floor).tolist(),
        ],
        wrong=[
            lambda nats, floor: nats.sum(1),
            lambda nats, floor: nats.sum(1).clamp(min=floor),
            lambda nats, floor: (nats - floor).relu().sum(1),
            lambda nats, floor: free_bits(nats, floor).mean(),
            lambda nats, floor: nats.clamp(min=floor).sum(0),
            lambda nats: nats,
            lambda nats, floor: None,
            lambda nats, floor: "a lot",
            3.1,
            "clamp",
        ],
        names=GIVEN,
    ),
}
