import numpy as np
import torch

import vaelib
from exercise_cases import Case

CURVE = torch.tensor([[7000.0, 5.0], *10 * [[-1000.0, 165.0]]])  # 160 nats of rate for 8,000 of distortion
GREY = vaelib.Faces(np.full((8, 32, 32, 3), 128, np.uint8))  # what an untrained network answers: a high PSNR
NAMES = {"np": np, "torch": torch, "vaelib": vaelib}


def trained(image_size: int = 32) -> vaelib.DenseVAE:
    torch.manual_seed(0)
    return vaelib.DenseVAE(image_size=image_size)


def free_bits(kl, floor):
    return kl.sum((2, 3)).mean(0).clamp(min=floor).sum()


def by_loop(kl, floor):
    return sum(max(channel, floor) for channel in kl.mean(0).sum((1, 2)).tolist())


CASES = {
    "price": Case(
        right=[0.02, 0.0199, np.float32(0.02), torch.tensor(0.02)],
        wrong=[50, -0.02, 0.5, 160, 0, "0.02", [0.02]],
        names=NAMES | {"runs": {"anime": {"curve": CURVE}}},
    ),
    "sigma": Case(
        right=[1.24, 1.2394, (3072 / 2000) ** 0.5, np.float64(1.24), torch.tensor(1.24)],
        wrong=[9.9, 1.536, 0.716, 0, "1.24", [1.24]],
        names=NAMES,
    ),
    "dense": Case(
        right=[trained()],
        wrong=[trained(64), vaelib.VAE(), {"vae": trained()}, vaelib.DenseVAE, "DenseVAE", 14.6],
        names=NAMES | {"splits": {"cartoon": (GREY, GREY)}, "runs": {"cartoon": {"vae": trained()}}},
    ),
    "free_bits": Case(
        right=[free_bits, by_loop, lambda kl, floor: free_bits(kl, floor).item()],
        wrong=[
            lambda kl, floor: kl.sum((2, 3)).clamp(min=floor).sum(1).mean(),
            lambda kl, floor: kl.mean(0).clamp(min=floor).sum(),
            lambda kl, floor: kl.sum((1, 2, 3)).mean().clamp(min=floor),
            lambda kl, floor: free_bits(kl, floor) / 32,
            lambda kl, floor: kl,
            lambda kl: kl,
            free_bits(torch.rand(2, 3, 1, 1), 0.5),
            "clamp",
        ],
        names=NAMES,
    ),
}
