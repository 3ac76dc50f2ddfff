import math
from types import SimpleNamespace

import numpy as np
import torch

import vaelib
from exercise_cases import Case
from vaelib.asking import Questions
from vaelib.priors import ConditionalFlow, GaussianPrior, VelocityField

NAMES = {"np": np, "torch": torch, "math": math, "vaelib": vaelib}
LABELS = {"hair": np.array(["long", "bald"] * 4)}


def bent_flow() -> ConditionalFlow:
    """A flow over 128 numbers that has learned nothing, but bends the way from noise to latents."""
    torch.manual_seed(0)
    questions = Questions.of(LABELS)
    network = VelocityField(torch.ones(128), width=8, depth=1, asked=2).requires_grad_(False)
    network.write.weight.normal_(std=0.1)
    network.spread.fill_(0.9)
    network.center.fill_(0.1)
    return ConditionalFlow(GaussianPrior(torch.zeros(32, 2, 2), 2 * torch.eye(128)), network, questions=questions)


FLOW = bent_flow()
NOISE = torch.randn(8, 128, generator=torch.Generator().manual_seed(1))
FIRST = FLOW.gaussian.unwhiten(FLOW.network.flow(NOISE, 64, FLOW.questions.code(LABELS, 8)))
UNSEEN = SimpleNamespace(select=lambda rows: None)
STAND_IN = SimpleNamespace(encode_faces=lambda vae, faces: SimpleNamespace(mean=FIRST))

CASES = {
    "chance": Case(
        right=[14.25, 14, np.float64(12.5), torch.tensor(16.0)],
        wrong=[0.1425, 57, 100, 0, "14 %", [14.25]],
        names=NAMES,
    ),
    "push": Case(
        right=[
            lambda wanted, unwanted, g: unwanted + g * (wanted - unwanted),
            lambda wanted, unwanted, g: torch.lerp(unwanted, wanted, g),
            lambda wanted, unwanted, g: (1 - g) * unwanted + g * wanted,
        ],
        wrong=[
            lambda wanted, unwanted, g: unwanted + g * wanted,
            lambda wanted, unwanted, g: wanted + g * (unwanted - wanted),
            lambda wanted, unwanted, g: wanted + g * (wanted - unwanted),
            lambda wanted, unwanted, g: wanted,
            lambda wanted, unwanted, g: 3,
            lambda wanted: wanted,
            torch.zeros(2, 2),
            "unwanted + g * (wanted - unwanted)",
        ],
        names=NAMES,
    ),
    "sigma": Case(
        right=[0.7071, 2**0.5 / 2, np.float32(0.707), torch.tensor(0.71)],
        wrong=[2**0.5, 0.5, 1, 7e-7, 0, "0.71", [0.71]],
        names=NAMES,
    ),
    "found": Case(
        right=[NOISE, NOISE.double()],
        wrong=[FLOW.gaussian.whiten(FIRST), torch.randn(8, 128), FIRST, NOISE[:4], NOISE.numpy(), "noise", 3.0],
        names=NAMES
        | {"vaelib": STAND_IN, "bundle": SimpleNamespace(vae=None), "unseen": UNSEEN, "flow": FLOW}
        | {"labels": LABELS, "TOLD": ("hair",)},
    ),
}
