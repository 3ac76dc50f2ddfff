"""A whole VAE in one file: faces in, new faces out. It needs PyTorch, and draws its faces with vaelib; bring your own.

    python -m vaelib.minimal                    # drawn anime faces; about a minute on one core
    python -m vaelib.minimal --style cartoon

It writes minimal.png: originals, their reconstructions, and faces that nobody drew.
"""

import argparse
import math

import torch
from torch import Tensor, nn
from torchvision.utils import save_image
from tqdm.auto import trange


class Down(nn.Sequential):  # (B, c_in, H, W) -> (B, c_out, H/2, W/2)
    def __init__(self, c_in: int, c_out: int):
        super().__init__(nn.Conv2d(c_in, c_out, 4, stride=2, padding=1), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.01))


class Up(nn.Sequential):  # (B, c_in, H, W) -> (B, c_out, 2H, 2W)
    def __init__(self, c_in: int, c_out: int):
        convolution = nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1)
        super().__init__(convolution, nn.BatchNorm2d(c_out), nn.LeakyReLU(0.01))


class VAE(nn.Module):
    def __init__(self, latents: int = 64, width: int = 16, size: int = 32):
        super().__init__()
        side, wide = size // 8, 4 * width
        self.encoder = nn.Sequential(
            Down(3, width), Down(width, 2 * width), Down(2 * width, wide),
            nn.Flatten(), nn.Linear(wide * side**2, 2 * latents),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(latents, wide * side**2), nn.Unflatten(1, (wide, side, side)), nn.LeakyReLU(0.01),
            Up(wide, 2 * width), Up(2 * width, width), Up(width, width), nn.Conv2d(width, 3, 3, padding=1),
        )  # fmt: skip

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder(2 * x - 1).chunk(2, dim=1)  # mean and log-variance of q(z|x), (B, latents) each

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z).sigmoid()  # pictures in [0, 1]

    def loss(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Distortion and rate of pictures x, (B, 3, H, W): nats per picture. Their sum is the negative ELBO."""
        mean, log_var = self.encode(x)
        z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        error = (self.decode(z) - x).square()
        variance = error.detach().mean()  # the σ² that is best for this batch: there is no weight to tune
        distortion = (error / (2 * variance) + 0.5 * torch.log(2 * math.pi * variance)).flatten(1).sum(1)
        rate = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(1)
        return distortion.mean(), rate.mean()


def train(vae: VAE, faces: Tensor, epochs: int = 8, batch_size: int = 64, learning_rate: float = 3e-3) -> VAE:
    """Train on `faces`, float (N, 3, H, W) in [0, 1]."""
    optimizer = torch.optim.Adam(vae.parameters())
    steps = epochs * (len(faces) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps)
    bar = trange(steps)
    for _ in bar:
        rows = torch.randint(len(faces), (batch_size,))
        distortion, rate = vae.loss(faces[rows])
        optimizer.zero_grad()
        (distortion + rate).backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(distortion=f"{distortion:.0f}", rate=f"{rate:.0f}")
    return vae.eval()


@torch.no_grad()
def latents(vae: VAE, faces: Tensor, count: int) -> Tensor:
    """z for new faces, from a Gaussian fitted to where the encoder puts faces; N(0, I) fits worse (lesson 06)."""
    means, log_vars = vae.encode(faces)
    covariance = means.T.cov() + log_vars.exp().mean(0).diag()
    return torch.distributions.MultivariateNormal(means.mean(0), covariance).sample((count,))


def main() -> None:
    from vaelib.faces import load_faces  # your own instead: any float tensor (N, 3, 32, 32) in [0, 1]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--style", choices=["anime", "cartoon"], default="anime")
    faces = load_faces(f"drawn-{parser.parse_args().style}", size=32, count=4000).batch()
    torch.manual_seed(0)
    vae = train(VAE(), faces[16:])
    with torch.no_grad():
        rows = [faces[:16], vae.decode(vae.encode(faces[:16])[0]), vae.decode(latents(vae, faces[16:], 32))]
    save_image(torch.cat(rows), "minimal.png", nrow=16)
    print("minimal.png: 16 faces that it never saw, their reconstructions, and 32 faces that nobody drew")


if __name__ == "__main__":
    main()
