"""Past the blur: train the decoder of a VAE on, with more to answer for than the error of each pixel.

    bundle = load_pretrained("anime")
    run = sharpen(bundle.vae, faces, SharpenConfig(epochs=6))
    sharp = replace(bundle, vae=run.model)

Only the decoder changes. The encoder stays as it is, and with it the rate, the latents, the priors fitted to them and
their axes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad, relu
from torch.nn.utils.parametrizations import spectral_norm

from vaelib.checkpoints import optimizer_state, part_of, set_optimizer_state
from vaelib.drawn import draw_faces
from vaelib.faces import Faces
from vaelib.imagenet import SIDE, load_lite, resized
from vaelib.losses import kl_divergence, optimal_gaussian_nll
from vaelib.metrics import laplacian_pyramid, smoothed
from vaelib.priors import FlowPrior
from vaelib.recipes import SharpenConfig
from vaelib.training import TrainingRun, make_optimizer, seeded, start

TEST_SEED = 6  # of drawn faces that no model is trained on


def pyramid_nll(x_hat: Tensor, x: Tensor) -> Tensor:
    """-log likelihood of the levels of a Laplacian pyramid, in nats (B,), for pictures (B, C, H, W) in [0, 1].

    Each level's error is Laplacian, log 2b + |error| / b, with the scale b that is best over the batch. So edges, small
    beside the rest of the error, count by their own scale. All levels together count as much as the pixels do.
    """
    levels = zip(laplacian_pyramid(x_hat), laplacian_pyramid(x), strict=True)
    errors = [(a - b).abs().flatten(1) for a, b in levels]
    scales = [error.detach().mean().clamp(min=1e-3) for error in errors]
    nats = [(error / scale + (2 * scale).log()).mean(1) for error, scale in zip(errors, scales, strict=True)]
    return x[0].numel() * torch.stack(nats).mean(0)


def feature_nll(maps_hat: Sequence[Tensor], maps: Sequence[Tensor], pixel_values: int) -> Tensor:
    """-log likelihood of feature maps, in nats (B,): Gaussian, σ of each layer the best over the batch.

    `maps` are what the layers of a network make of pictures, (B, …) each, `maps_hat` of their reconstructions. All
    together count as much as `pixel_values` pixel values do.
    """
    errors = [(a - b).square().flatten(1) for a, b in zip(maps_hat, maps, strict=True)]
    variances = [error.detach().mean().clamp(min=1e-6) for error in errors]
    nats = [
        0.5 * (error / variance + (2 * torch.pi * variance).log()).mean(1)
        for error, variance in zip(errors, variances, strict=True)
    ]
    return pixel_values * torch.stack(nats).mean(0)


def unit_maps(x: Tensor) -> list[Tensor]:
    """What EfficientNet-Lite0 sees in pictures (B, 3, H, W) in [0, 1] enlarged to 128×128: of each of its first five
    stages, the channels at every place as a vector of length 1, as LPIPS compares them (Zhang et al. 2018)."""
    return [normalize(seen.float(), dim=1) for seen in _lite0_maps(x)]


def _lite0_maps(x: Tensor) -> list[Tensor]:
    return load_lite("lite0", x.device).maps(resized(x, SIDE))


def crowd_features(x: Tensor) -> Tensor:
    """What EfficientNet-Lite0 sees in pictures (B, 3, H, W) in [0, 1], as numbers (B, 512) that say nothing of where:
    the mean and the standard deviation over all places of each channel of its second to fifth stage."""
    maps = [seen.float() for seen in _lite0_maps(x)[1:]]
    return torch.cat([seen.mean((2, 3)) for seen in maps] + [(seen.var((2, 3)) + 1e-6).sqrt() for seen in maps], 1)


def shifted(x: Tensor, most: int = 8) -> Tensor:
    """Pictures (B, C, H, W), all shifted alike by up to `most` pixels each way, at random; mirrored where nothing was.
    Against patterns tied to the grid of pixels, such as stripes: a network with strides sees only some of it."""
    top, left = torch.randint(2 * most + 1, (2,)).tolist()
    height, width = x.shape[2:]
    return pad(x, 4 * (most,), mode="reflect")[:, :, top : top + height, left : left + width]


def softened(x: Tensor) -> Tensor:
    """Pictures (B, C, H, W), as float, each pixel with its neighbours by 1/4, 1/2, 1/4 each way; a checkerboard turns
    grey. Real pictures have a fine grain, another in each; asked for it, a decoder draws one weave over all."""
    return smoothed(x.float(), (1, 2, 1))


class KernelWitness:
    """Says which way a set of decoded pictures lies from the real ones; nothing in it is learned.

    It remembers the features of the last `size` real and decoded pictures, float (N, D) and (M, D). Called with
    features (B, D) it returns (B,): how much more alike they are to the real ones than to the decoded ones, by KID's
    kernel k(a, b) = (a·b / D + 1)³ and in units of each feature's spread among the real ones. Its mean over the real
    ones less its mean over the decoded ones is the squared kernel distance (MMD²) of the two sets.
    Sources: Gretton et al. 2012; as a loss Li, Swersky & Zemel 2015, in pretrained features Santos et al. 2019.
    """

    def __init__(self, size: int = 2048):
        self.size = size
        self.real = self.decoded = torch.empty(0)

    @property
    def ready(self) -> bool:
        """Whether it has seen a quarter of what it can remember, so that chance matters little."""
        return min(len(self.real), len(self.decoded)) >= self.size // 4

    def remember(self, real: Tensor, decoded: Tensor) -> None:
        self.real, self.decoded = (
            torch.cat([old.to(new), new.detach()])[-self.size :]
            for old, new in ((self.real, real), (self.decoded, decoded))
        )

    def __call__(self, seen: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.real, 0)
        real, decoded, seen = ((some - mean) / deviation.clamp(min=1e-6) for some in (self.real, self.decoded, seen))
        real, decoded = (((seen @ some.T) / seen.shape[1] + 1).pow(3).mean(1) for some in (real, decoded))
        return real - decoded


def augment(x: Tensor) -> Tensor:
    """Each picture (B, 3, H, W) brighter or darker, greyer or more colourful, shifted by up to an eighth, and with a
    square of half its side blank; gradients pass. A discriminator that sees real and decoded pictures only so cannot
    learn the training faces by heart (DiffAugment; Zhao et al. 2020)."""
    count, _, height, width = x.shape

    def amount(low: float, high: float) -> Tensor:
        return torch.empty(count, 1, 1, 1, device=x.device).uniform_(low, high)

    x = x + amount(-0.25, 0.25)
    grey = x.mean(1, keepdim=True)
    x = grey + amount(0, 2) * (x - grey)
    middle = x.mean((1, 2, 3), keepdim=True)
    x = middle + amount(0.5, 1.5) * (x - middle)
    rows, columns = (torch.arange(side, device=x.device) for side in (height, width))
    down, right = (amount(-0.125, 0.125).mul(side).round().long().flatten() for side in (height, width))
    wide = pad(x, (width // 8, width // 8, height // 8, height // 8))
    down, right = down[:, None] + height // 8 + rows, right[:, None] + width // 8 + columns
    picture = torch.arange(count, device=x.device)[:, None, None]
    x = wide.permute(0, 2, 3, 1)[picture, down[:, :, None], right[:, None]].permute(0, 3, 1, 2)
    top, left = (amount(0, 1).view(count, 1) for _ in range(2))
    blank = [
        ((place + 0.5) / side - middle).abs() < 0.25
        for place, side, middle in ((rows, height, top), (columns, width, left))
    ]
    return x * ~(blank[0][:, None, :, None] & blank[1][:, None, None])


class PatchDiscriminator(nn.Sequential):
    """Pictures (B, 3, H, W) in [0, 1] -> a number for each patch of 40×40 pixels, (B, 1, H/8, W/8): high looks real.

    No patch holds a whole picture of 64×64, so what it judges is how edges and strands are drawn. It halves by
    averages: strided convolutions would hand the decoder gradients with a grid in them, and it would draw that grid.
    Spectral norms keep it smooth (Miyato et al. 2018). Source of the idea: Isola et al. 2017.
    """

    def __init__(self, width: int = 20):
        widths = [3] + [width * 2**i for i in range(4)]
        layers = []
        for narrow, wide in pairwise(widths):
            halve = [nn.AvgPool2d(2)] if narrow > 3 else []
            layers += [spectral_norm(nn.Conv2d(narrow, wide, 3, padding=1)), nn.LeakyReLU(0.2), *halve]
        super().__init__(*layers, spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1)))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x - 1).float()


class ProjectedDiscriminator(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] -> numbers (B, N), high looks real, by what EfficientNet-Lite0 sees in them.

    That network is no part of this one and stays as it is; small heads on its third, fourth and fifth stage learn to
    judge. Pictures are enlarged to 128×128, twice as large where they have 64. Source: Sauer et al. 2021.
    """

    STAGES: ClassVar = {2: 40, 3: 80, 4: 112}  # which, and their channels

    def __init__(self, width: int = 64):
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(channels, width, 1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, width, 3, padding=1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, 1, 1)),
            )
            for channels in self.STAGES.values()
        )

    def forward(self, x: Tensor) -> Tensor:
        maps = _lite0_maps(x)
        told = [head(maps[stage]).float().flatten(1) for stage, head in zip(self.STAGES, self.heads, strict=True)]
        return torch.cat(told, 1)


DISCRIMINATORS = {
    "patch": [PatchDiscriminator],
    "projected": [ProjectedDiscriminator],
    "both": [PatchDiscriminator, ProjectedDiscriminator],
}


@dataclass
class SharpeningRun(TrainingRun):
    """A decoder in training on, perhaps against discriminators: else a `TrainingRun`, with `resume()` and checkpoints.

    A history entry's `told_apart` is the share of patches, real and decoded, that the discriminators placed right in
    that epoch: ½ when they can't tell, 1 when they always can. `maps` makes a list of feature maps of pictures
    (B, 3, H, W) in [0, 1]; `unit_maps` by default. Whatever compares sets, the witness and the discriminators, also
    sees what is decoded from samples of `prior`.
    """

    maps: Callable[[Tensor], Sequence[Tensor]] | None = None
    prior: FlowPrior | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.processes > 1:
            raise ValueError(f"got {self.processes} processes, expected one: a decoder is sharpened on one device")
        self.optimizer = make_optimizer(self.vae.decoder, self.config)
        with seeded(self.config.seed):
            self.discriminators = nn.ModuleList(kind() for kind in DISCRIMINATORS[self.config.discriminator])
        # A short memory of gradients, as usual where two networks train against each other.
        self.judging = torch.optim.Adam(
            self.discriminators.parameters(), self.config.judge_rate, betas=(0.5, 0.9), fused=True
        )
        self.decoder = torch.compile(self.vae.decoder) if self.config.compile else self.vae.decoder
        self.maps = self.maps or unit_maps
        self.told_apart: list[Tensor] = []
        self.witness = KernelWitness()

    def _move(self, device: torch.device, layout: torch.memory_format) -> None:
        super()._move(device, layout)
        self.discriminators.to(device, memory_format=layout)

    def _train_epoch(self, *args) -> dict[str, float]:
        self.told_apart.clear()
        entry = super()._train_epoch(*args)
        return entry | ({"told_apart": torch.stack(self.told_apart).mean().item()} if self.told_apart else {})

    def _step(self, network: nn.Module, x: Tensor, beta: float) -> Tensor:
        self.vae.encoder.eval()  # else its batch norms would move
        with torch.no_grad():
            posterior = self.vae.encode(x)
            z = posterior.sample()
            if self.prior and (self.config.matching or self.config.adversarial):
                z = torch.cat([z, self.prior.sample(len(x)).to(z)])  # faces of nobody, for what compares sets
        with self._autocast():
            logits = self.decoder(z)
            # The gradients meet at the picture, where they are compared, and go on through the decoder as one.
            shown = logits.detach().float().requires_grad_()
            distortion = optimal_gaussian_nll(shown[: len(x)], x).mean()
            (gradient,) = torch.autograd.grad(distortion + self._extra_terms(shown[: len(x)].sigmoid(), x), shown)
            pulls = [
                share * self._pull(score, shown, gradient, len(x)) for score, share in self._scores(x, shown.sigmoid())
            ]
        self.optimizer.zero_grad()
        logits.backward(sum(pulls, gradient).to(logits.dtype))
        self._update()
        if self.config.adversarial:
            with self._autocast():
                self._judge(x, shown.detach().sigmoid())
        return torch.stack([distortion.detach(), kl_divergence(posterior).mean()])

    def _extra_terms(self, x_hat: Tensor, x: Tensor) -> Tensor | float:
        total = 0.0
        if self.config.pyramid:
            total = total + self.config.pyramid * pyramid_nll(x_hat, x).mean()
        if self.config.features:
            with torch.no_grad():
                maps = self.maps(x)
            total = total + self.config.features * feature_nll(self.maps(x_hat), maps, x[0].numel()).mean()
        return total

    def _scores(self, x: Tensor, x_hat: Tensor) -> list[tuple[Tensor, float]]:
        """What the decoded pictures should score high in, and how hard each is to pull; the witness remembers them."""
        scores = []
        if self.config.matching:
            seen = crowd_features(softened(shifted(x_hat)))
            if self.witness.ready:
                scores.append((self.witness(seen).mean(), self.config.matching))
            with torch.no_grad():
                self.witness.remember(crowd_features(softened(shifted(x))), seen)
        if self.config.adversarial and self._judged() >= self.config.head_start:
            share = self.config.adversarial / len(self.discriminators)
            scores += [(discriminator(self._seen(x_hat)).mean(), share) for discriminator in self.discriminators]
        return scores

    def _pull(self, score: Tensor, shown: Tensor, gradient: Tensor, count: int) -> Tensor:
        """The gradient towards a higher score: at the `count` reconstructions as long as `gradient`, that of all terms
        that compare picture with picture, and at the samples by the same factor."""
        (pull,) = torch.autograd.grad(-score, shown, retain_graph=True)
        return gradient[:count].norm() / pull[:count].norm().clamp(min=1e-12) * pull

    def _seen(self, x: Tensor) -> Tensor:
        return augment(x) if self.config.augment else x

    def _judged(self) -> int:
        """How many steps the discriminators have made."""
        return max((int(moments["step"]) for moments in self.judging.state.values()), default=0)

    def _judge(self, x: Tensor, x_hat: Tensor) -> None:
        """One step of each discriminator: hinge loss, real above 1, decoded below -1 (Lim & Ye 2017)."""
        self.judging.zero_grad()
        for discriminator in self.discriminators:
            real, decoded = discriminator(self._seen(x)), discriminator(self._seen(x_hat))
            (relu(1 - real).mean() + relu(1 + decoded).mean()).backward()
            self.told_apart.append(((real > 0).float().mean() + (decoded < 0).float().mean()).detach() / 2)
        self.judging.step()

    def _state(self) -> dict[str, Tensor]:
        state = super()._state() | optimizer_state(self.judging, "judging.")
        state |= {"witness.real": self.witness.real, "witness.decoded": self.witness.decoded}
        return state | {f"discriminators.{name}": value for name, value in self.discriminators.state_dict().items()}

    def _set_state(self, state: dict[str, Tensor]) -> None:
        super()._set_state(state)
        self.discriminators.load_state_dict(part_of(state, "discriminators."))
        set_optimizer_state(self.judging, part_of(state, "judging."))
        self.witness.real, self.witness.decoded = state["witness.real"], state["witness.decoded"]


def sharpen(
    vae: nn.Module,
    faces: Faces,
    config: SharpenConfig | None = None,
    *,
    prior: FlowPrior | None = None,
    maps: Callable[[Tensor], Sequence[Tensor]] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    **options,
) -> SharpeningRun:
    """Train the decoder of a trained `vae` on, by `config`, and return the run: `run.model` is the sharpened VAE.

    `folder`, `resume`, the other `options` (test, on_epoch, device, trackers) and the errors are those of `train`.
    With `matching` or `adversarial`, faces decoded from `prior` are compared with real ones beside the reconstructions.
    `maps`, such as torchvision's VGG under `create_feature_extractor`, replaces the network that `features` looks with.
    Source of the discriminator's weight: Esser, Rombach & Ommer 2021, who compare gradients at the last layer.
    """
    folder = Path(folder) if folder else None
    run = SharpeningRun(vae, faces, config or SharpenConfig(), folder=folder, prior=prior, maps=maps, **options)
    return start(run, resume)


def split_for_sharpening(faces: Faces) -> tuple[Faces, Faces]:
    """(train, test), no test face one that a base model was trained on, however many faces that run had.

    Prepared faces are split as for the base. A split of more or fewer drawn faces is another one, so the test faces are
    drawn with a seed of their own.
    """
    if faces.origin != "drawn":
        return faces.split()
    style, count = faces.name.removeprefix("drawn-"), min(1000, max(1, len(faces) // 10))
    images, labels = draw_faces(style, count, faces.images.shape[1], seed=TEST_SEED)
    return faces, replace(faces, images=images, labels=labels, families=np.arange(count))
