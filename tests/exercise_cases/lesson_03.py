import numpy as np
import torch
from torch import nn

import vaelib
from exercise_cases import Case
from vaelib.model import Downsample, Residual, Upsample

NAMES = {"np": np, "torch": torch, "nn": nn, "vaelib": vaelib}


class NoResidual(nn.Module):
    """The weights of a stage, but what was found is not added."""

    def __init__(self):
        super().__init__()
        self.stage = Upsample(40, 20)

    def forward(self, h):
        residual, *rest = self.stage
        return nn.Sequential(*rest)(residual.block(h))


def transposed(bias: bool) -> nn.Sequential:
    convolution = nn.ConvTranspose2d(40, 20, 4, stride=2, padding=1, bias=bias)
    return nn.Sequential(Residual(40), convolution, nn.BatchNorm2d(20), nn.LeakyReLU())


CASES = {
    "guess": Case(
        right=[4_827_999, 4.8e6, 4.5e6, np.float32(4.8e6), torch.tensor(5.0e6)],
        wrong=[17_089_539 / 2, 17_089_539 / 4 * 0.8, 4.8, 0, "4.8 million", [4.8e6]],
        names=NAMES,
    ),
    "finer": Case(
        right=[vaelib.VAE(depth=4, latent_channels=32), vaelib.VAE(base_channels=8, depth=4, latent_channels=32)],
        wrong=[vaelib.VAE(depth=4), vaelib.VAE(latent_channels=32), vaelib.VAE, (32, 4, 4), "VAE(depth=4)"],
        names=NAMES,
    ),
    "numbers": Case(
        right=[1920, 1920.0, np.int64(1920), torch.tensor(1920)],
        wrong=[15, 3840, 96 * 160 * 3, 0, "1920", [128, 3, 5]],
        names=NAMES,
    ),
    "field": Case(
        right=[31, 31.0, np.int64(31), torch.tensor(31)],
        wrong=[9, 16, 81, 0, "31 pixels", (31, 31)],
        names=NAMES,
    ),
    "grow": Case(
        right=[Upsample(40, 20), transposed(bias=False)],
        wrong=[transposed(bias=True), NoResidual(), Downsample(40, 20), nn.Identity(), Upsample, "Upsample", 27_320],
        names=NAMES,
    ),
}
