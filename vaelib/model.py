"""The two networks: a fully convolutional VAE (the default) and one with a dense latent vector.

Both speak one interface: `encode(x) -> Posterior`, `decode(z) -> pictures`, `forward(x) -> (logits, posterior)`,
`latent_shape(image_size)`. Pictures are float in [0, 1] at the border; the encoder rescales for itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

MOST_CHANNELS = 100_000  # more would take terabytes


@dataclass(frozen=True)
class Posterior:
    """A diagonal Gaussian q(z|x).

    `mean` and `log_var` are float tensors of one shape: (B, C, H/32, W/32) from `VAE`, (B, D) from `DenseVAE`.
    `log_var` is the natural logarithm of the variance.
    """

    mean: Tensor
    log_var: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw z = mean + σ·ε with ε ~ N(0, 1), same shape as `mean` (the reparameterisation trick)."""
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return self.mean + (0.5 * self.log_var).exp() * noise


def memory_format(device: torch.device) -> torch.memory_format:
    """The layout in memory that convolutions are fastest in: channels last.

    But contiguous on Apple's GPU ("mps"), where PyTorch computes wrong gradients of batch norms that get channels last,
    weights or pictures (github.com/pytorch/pytorch/issues/175189).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


@contextmanager
def inference(vae: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode without gradients, then as it was before, whatever happens; hands out the model's device."""
    was_training = vae.training
    vae.eval()
    try:
        with torch.inference_mode():
            yield next(vae.parameters()).device
    finally:
        vae.train(was_training)


class _VAEBase(nn.Module):
    """What both networks share. A subclass sets `encoder` (x in [-1, 1] -> (B, 2·C, …)) and `decoder` (z -> logits)."""

    encoder: nn.Module
    decoder: nn.Module

    def encode(self, x: Tensor) -> Posterior:
        """Posterior q(z|x) of pictures `x`, float (B, 3, H, W) in [0, 1].

        Raises `ValueError` for another number of channels, integer pictures, or a size the network can't halve.
        """
        self._check_pictures(x)
        if memory_format(x.device) == torch.contiguous_format:
            x = x.contiguous()
        mean, log_var = self.encoder(2 * x - 1).float().chunk(2, dim=1)
        return Posterior(mean, log_var)

    def decode(self, z: Tensor) -> Tensor:
        """Pictures, float (B, 3, H, W) in [0, 1], from latents `z` shaped like `Posterior.mean`."""
        return self.decoder(z).float().sigmoid()

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Posterior]:
        """Encode, draw one latent, decode. Returns (logits (B, 3, H, W) float32, posterior)."""
        posterior = self.encode(x)
        return self.decoder(posterior.sample(generator)).float(), posterior

    def latent_shape(self, image_size: int) -> tuple[int, ...]:
        """Shape of one latent for square pictures of `image_size` pixels."""
        raise NotImplementedError

    @classmethod
    def _from_pretrained(cls, **options):
        # The mixin's own default keeps random weights, without a word, where a file has none by that name.
        return super()._from_pretrained(**{"strict": True} | options)

    def _check_pictures(self, x: Tensor) -> None:
        channels = self.image_channels
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"got pictures of shape {tuple(x.shape)}, expected (batch, {channels}, height, width)")
        if not x.is_floating_point():
            raise ValueError(f"got pictures of {x.dtype}, expected float in [0, 1]: divide uint8 pictures by 255")
        for side in x.shape[2:]:
            self.latent_shape(side)


class VAE(
    _VAEBase,
    PyTorchModelHubMixin,
    library_name="vaelib",
    license="mit",
    tags=["variational-autoencoder"],
):
    """The fully convolutional VAE of *Anime VAE*: 17,089,539 parameters with the defaults.

    Pictures float (B, 3, H, W) in [0, 1], latents (B, 128, H/32, W/32); any H and W that 2**depth divides.
    `ValueError` unless every width is at least 1.
    `save_pretrained` / `from_pretrained` / `push_to_hub` come from huggingface_hub (safetensors + config.json).
    Source: the layer table that *Anime VAE* publishes (wandb.ai/pierrotlc/animevae).
    """

    def __init__(self, image_channels: int = 3, base_channels: int = 20, depth: int = 5, latent_channels: int = 128):
        super().__init__()
        _check_widths(image_channels=image_channels, base_channels=base_channels, latent_channels=latent_channels)
        self.image_channels, self.depth, self.latent_channels = image_channels, depth, latent_channels
        self.encoder = Encoder(image_channels, base_channels, depth, latent_channels)
        self.decoder = Decoder(image_channels, base_channels, depth, latent_channels)

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        """(latent_channels, image_size / 2**depth, image_size / 2**depth). `ValueError` if that does not divide."""
        factor = 2**self.depth
        if image_size % factor or image_size < factor:
            raise ValueError(
                f"got a side of {image_size} pixels, expected a multiple of {factor}: "
                f"{self.depth} stages each halve the picture. Resize to {max(1, round(image_size / factor)) * factor}."
            )
        return self.latent_channels, image_size // factor, image_size // factor


class Encoder(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1] -> mean and log-variance, stacked: (B, 2·latent_channels, H/2^d, W/2^d)."""

    def __init__(self, image_channels: int, base_channels: int, depth: int, latent_channels: int):
        super().__init__()
        widths = [base_channels * 2**i for i in range(depth + 1)]  # 20, 40, 80, 160, 320, 640
        self.stem = _conv_block(image_channels, widths[0])
        self.stages = nn.Sequential(*(Downsample(narrow, wide) for narrow, wide in pairwise(widths)))
        self.head = nn.Conv2d(widths[-1], 2 * latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class Decoder(nn.Module):
    """Latents (B, latent_channels, h, w) -> logits of the pictures (B, 3, h·2^d, w·2^d); the encoder mirrored."""

    def __init__(self, image_channels: int, base_channels: int, depth: int, latent_channels: int):
        super().__init__()
        widths = [base_channels * 2**i for i in reversed(range(depth + 1))]  # 640, 320, 160, 80, 40, 20
        self.stem = _conv_block(latent_channels, widths[0])
        self.stages = nn.Sequential(*(Upsample(wide, narrow) for wide, narrow in pairwise(widths)))
        self.head = nn.Conv2d(widths[-1], image_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(z)))


class Residual(nn.Module):
    """x + LeakyReLU(BatchNorm(conv 3×3)), same shape. It starts as the identity: the norm's scale is 0 at first."""

    def __init__(self, channels: int):
        super().__init__()
        self.block = _conv_block(channels, channels)
        nn.init.zeros_(self.block[1].weight)  # learns faster (Goyal et al. 2017, section 5.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class Downsample(nn.Sequential):
    """(B, c_in, H, W) -> (B, c_out, H/2, W/2): a residual block, then a strided convolution."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__(
            Residual(c_in),
            nn.Conv2d(c_in, c_out, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.LeakyReLU(inplace=True),
        )


class Upsample(nn.Sequential):
    """(B, c_in, H, W) -> (B, c_out, 2H, 2W): a residual block, then a transposed convolution."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__(
            Residual(c_in),
            nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.LeakyReLU(inplace=True),
        )


def _check_widths(**widths: int) -> None:
    for name, width in widths.items():
        if not 1 <= width <= MOST_CHANNELS:
            raise ValueError(f"got {name}={width}, expected at least 1 and at most {MOST_CHANNELS:,}")


def _conv_block(c_in: int, c_out: int) -> nn.Sequential:
    # No bias before a batch norm: the norm subtracts it again.
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.LeakyReLU(inplace=True)
    )


class DenseVAE(
    _VAEBase,
    PyTorchModelHubMixin,
    library_name="vaelib",
    license="mit",
    tags=["variational-autoencoder"],
):
    """The dense-latent VAE of *VAE-Anime-Cartoon*: one vector for the whole picture.

    Pictures float (B, 3, S, S) in [0, 1] with S = `image_size`, latents (B, latent_dim). At the published 256 pixels
    and 200 dimensions: 3,521,328 + 1,085,859 trainable parameters. Unlike `VAE` it is tied to one picture size.
    Source: the Keras notebook of github.com/Shahriar-0/VAE-Anime-Cartoon, whose layers these are.
    """

    def __init__(self, image_channels: int = 3, image_size: int = 256, latent_dim: int = 200):
        super().__init__()
        if image_size % 32 or image_size < 32:
            raise ValueError(f"got image_size={image_size}, expected a multiple of 32, such as 64, 128 or 256")
        _check_widths(image_channels=image_channels, latent_dim=latent_dim)
        self.image_channels, self.image_size, self.latent_dim = image_channels, image_size, latent_dim
        before_head = 32 * (image_size // 16) ** 2
        start = image_size // 32
        self.encoder = nn.Sequential(
            *_dense_stage(nn.Conv2d, image_channels, 128),
            *_dense_stage(nn.Conv2d, 128, 128, dropout=0.2),
            *_dense_stage(nn.Conv2d, 128, 64, dropout=0.2),
            *_dense_stage(nn.Conv2d, 64, 32, dropout=0.2),
            nn.Flatten(),
            nn.Linear(before_head, 2 * latent_dim),  # the two published heads, side by side
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, 64 * start**2),
            nn.Unflatten(1, (64, start, start)),
            *_dense_stage(nn.ConvTranspose2d, 64, 32),
            *_dense_stage(nn.ConvTranspose2d, 32, 64, dropout=0.2),
            *_dense_stage(nn.ConvTranspose2d, 64, 128, dropout=0.2),
            *_dense_stage(nn.ConvTranspose2d, 128, 128, dropout=0.2),
            nn.ConvTranspose2d(128, image_channels, 3, stride=2, padding=1, output_padding=1),
        )

    def latent_shape(self, image_size: int) -> tuple[int]:
        """(latent_dim,). `ValueError` unless `image_size` is the one that the network was built for."""
        if image_size != self.image_size:
            raise ValueError(
                f"got a side of {image_size} pixels, expected {self.image_size}: a dense latent is tied to one size. "
                f"Build DenseVAE(image_size={image_size}) or resize the pictures."
            )
        return (self.latent_dim,)


def _dense_stage(conv: type[nn.Module], c_in: int, c_out: int, dropout: float = 0.0) -> list[nn.Module]:
    """A strided (transposed) convolution, batch norm, LeakyReLU and, where published, dropout."""
    extra = {"output_padding": 1} if conv is nn.ConvTranspose2d else {}
    layers = [
        conv(c_in, c_out, 3, stride=2, padding=1, **extra),
        nn.BatchNorm2d(c_out),
        nn.LeakyReLU(0.3),
    ]  # 0.3: Keras's slope
    return layers + [nn.Dropout(dropout)] * (dropout > 0)
