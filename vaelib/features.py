"""Features to compare faces by: a small network that learned to tell the factors behind drawn faces.

    features = face_features(pictures)      # float32 (N, 64), from pictures float (N, 3, H, W) in [0, 1]

What FID gets from Inception, 64 numbers in which faces that look alike are near each other, here comes from weights
that ship with the package: no download, and the network has seen nothing but drawn faces. They are written by

    python -m vaelib.features               # some 6 minutes on one core
"""

import itertools
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, interpolate, mse_loss
from tqdm.auto import tqdm

from vaelib.drawn import FACTORS, Factor, draw_faces
from vaelib.faces import to_float
from vaelib.storage import atomic_file

SIZE, FEATURES = 64, 64
WEIGHTS = Path(__file__).parent / "weights" / "face-features"
# A blurred face shows the same factors, yet must not look the same to a metric: so how blurred it is, is one more.
TOLD = {style: {**factors, "blur": Factor("blur", 0.0)} for style, factors in FACTORS.items()}


class FactorNet(nn.Module):
    """Pictures float (B, 3, 64, 64) in [0, 1] -> features (B, 64); `heads[style]` reads that style's factors off them.

    The heads are linear, so what they tell lies open in the features, where a Gaussian can see it.
    """

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *_stage(3, 24), *_stage(24, 48), *_stage(48, 96), *_stage(96, 128),
            nn.Flatten(),  # and no average over places: a tilt or a gaze is a matter of where
            nn.Linear(128 * (SIZE // 16) ** 2, FEATURES, bias=False),
            nn.BatchNorm1d(FEATURES, affine=False),  # one unit is the spread over drawn faces
        )  # fmt: skip
        self.heads = nn.ModuleDict(
            {style: nn.Linear(FEATURES, sum(map(_width, told.values()))) for style, told in TOLD.items()}
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(2 * x - 1)

    def maps(self, x: Tensor) -> list[Tensor]:
        """What each of the four stages makes of pictures (B, 3, H, W): (B, 24, H/2, W/2) to (B, 128, H/16, W/16)."""
        maps, x = [], 2 * x - 1
        for layer in itertools.takewhile(lambda layer: not isinstance(layer, nn.Flatten), self.body):
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                maps.append(x)
        return maps

    def tell(self, features: Tensor, style: str) -> dict[str, Tensor]:
        """What the head reads of each factor: logits (B, choices), or the number (B, 1), or (B, 2) for a hue."""
        told = TOLD[style]
        parts = self.heads[style](features).split([_width(factor) for factor in told.values()], 1)
        return dict(zip(told, parts, strict=True))


def _stage(c_in: int, c_out: int) -> list[nn.Module]:
    """(B, c_in, H, W) -> (B, c_out, H/2, W/2)."""
    conv = nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(c_out), nn.LeakyReLU(0.1, inplace=True)]


def _width(factor: Factor) -> int:
    return len(factor.choices) or 1 + factor.is_hue


def face_features(pictures: Tensor, batch_size: int = 256) -> Tensor:
    """Features of pictures, float32 (N, 64) on the CPU; about 1 wide in each direction over drawn faces.

    `pictures` is float (N, 3, H, W) in [0, 1]; another size than 64×64 is resized to it (bilinear, antialiased).
    Raises `ValueError` for damaged weights.
    """
    net = load_factor_net()
    with torch.inference_mode():
        return torch.cat([net(_resized(x.cpu().float())) for x in pictures.split(batch_size)])


def read_labels(pictures: Tensor, style: str) -> dict[str, np.ndarray]:
    """What the network that ships takes for the factors of pictures, in the form of the labels of `draw_faces`.

    `pictures` is float (N, 3, H, W) in [0, 1], resized as for `face_features`; `style` is "anime" or "cartoon". How
    often it is right of drawn faces stands in weights/face-features/scores.json. Raises `ValueError` for another style.
    """
    if style not in TOLD:
        raise ValueError(f"style={style!r} is not one of {', '.join(TOLD)}")
    features = face_features(pictures)
    with torch.inference_mode():
        told = load_factor_net().tell(features, style)
    return {name: _label(factor, told[name]) for name, factor in FACTORS[style].items()}


def _label(factor: Factor, told: Tensor) -> np.ndarray:
    """The inverse of `_targets` for one factor."""
    if factor.choices:
        return np.array(factor.choices)[told.argmax(1).numpy()]
    if factor.is_hue:
        return (torch.atan2(told[:, 1], told[:, 0]) / (2 * torch.pi) % 1).numpy()
    return (factor.low + (factor.high - factor.low) * (told[:, 0] / 12**0.5 + 0.5)).numpy()


def _resized(x: Tensor) -> Tensor:
    same = x.shape[2:] == (SIZE, SIZE)
    return x if same else interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)


@lru_cache(1)
def load_factor_net() -> FactorNet:
    """The network that ships, in eval mode, for looking only: copy it to change or move it."""
    with torch.random.fork_rng(devices=[]):  # the first look takes no random numbers from whoever asks
        net = FactorNet()
    try:
        net.load_state_dict(load_file(WEIGHTS / "model.safetensors"))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ValueError(f"the weights in {WEIGHTS} are damaged ({error}): install vaelib again") from error
    return net.eval().requires_grad_(False)


# ---------------------------------------------------------------------------------------------- training


def train_features(count: int = 6000, epochs: int = 20, batch_size: int = 64, seed: int = 0) -> FactorNet:
    """Train a `FactorNet` on `count` drawn faces of each style, `batch_size` of each in a step."""
    torch.manual_seed(seed)
    images, targets = {}, {}
    for style in FACTORS:
        drawn, labels = draw_faces(style, count, SIZE, seed)
        images[style], targets[style] = torch.from_numpy(drawn), _targets(style, labels)
    net = FactorNet().train()
    steps = epochs * (count // batch_size)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in tqdm(range(epochs), "features", unit="epoch"):
        for rows in torch.randperm(count)[: count // batch_size * batch_size].split(batch_size):
            batch = {style: _augment(to_float(images[style][rows])) for style in FACTORS}
            features = net(torch.cat([x for x, _ in batch.values()])).chunk(len(batch))
            loss = 0
            for (style, (_, blur)), seen in zip(batch.items(), features, strict=True):
                known = {name: values[rows] for name, values in targets[style].items()} | {"blur": blur}
                losses = [_loss(told, known[name]) for name, told in net.tell(seen, style).items()]
                loss = loss + sum(losses)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def _targets(style: str, labels: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Labels as the heads learn them: a choice's index int64 (N,); a number with variance 1, (N, 1); a hue's angle."""
    targets = {}
    for name, values in labels.items():
        factor = FACTORS[style][name]
        if factor.choices:
            targets[name] = torch.tensor([factor.choices.index(value) for value in values])
        elif factor.is_hue:
            angle = 2 * torch.pi * torch.from_numpy(values)
            targets[name] = 2**0.5 * torch.stack([angle.cos(), angle.sin()], 1)
        else:
            unit = (torch.from_numpy(values) - factor.low) / (factor.high - factor.low)
            targets[name] = _standardised(unit)[:, None]
    return targets


def _standardised(unit: Tensor) -> Tensor:
    """Uniform numbers in [0, 1] -> mean 0, variance 1."""
    return 12**0.5 * (unit - 0.5)


def _augment(x: Tensor) -> tuple[Tensor, Tensor]:
    """Shift, scale, tint and blur each picture by its own amounts; also returns the blur, (B, 1), as a target."""

    def amount(low: float, high: float) -> Tensor:
        return torch.empty(len(x), 1, 1, 1).uniform_(low, high)

    turn = amount(0.92, 1.08)[..., 0] * torch.eye(2)
    moved = torch.cat([turn, torch.empty(len(x), 2, 1).uniform_(-0.08, 0.08)], 2)
    x = grid_sample(x, affine_grid(moved, x.shape, align_corners=False), padding_mode="reflection", align_corners=False)
    grey = x.mean(1, keepdim=True)
    x = grey + amount(0.7, 1.3) * (x - grey)
    x = (0.5 + amount(0.8, 1.2) * (x - 0.5) + amount(-0.1, 0.1)).clamp(0, 1)
    blur = amount(0, 1)
    coarse = interpolate(x, scale_factor=0.25, mode="bilinear", antialias=True)
    blurred = interpolate(coarse, scale_factor=4, mode="bilinear")
    return x.lerp(blurred, blur), _standardised(blur[:, 0, 0])


def _loss(told: Tensor, target: Tensor) -> Tensor:
    return mse_loss(told, target) if target.is_floating_point() else cross_entropy(told, target)


def score(net: FactorNet, style: str, count: int = 1000, seed: int = 1) -> dict[str, float]:
    """How well a net tells the factors of `count` unseen drawn faces: the share of right choices, or R² of a number."""
    images, labels = draw_faces(style, count, SIZE, seed)
    with torch.inference_mode():
        told = net.tell(net(to_float(torch.from_numpy(images))), style)
    scores = {}
    for name, target in _targets(style, labels).items():
        right = (told[name].argmax(1) == target).float() if not target.is_floating_point() else None
        scores[name] = (1 - mse_loss(told[name], target) / target.var() if right is None else right.mean()).item()
    return scores


def main() -> None:
    """Train on drawn faces, print what the network tells of unseen ones, and write the weights that ship."""
    net = train_features()
    scores = {style: score(net, style) for style in FACTORS}
    for style, found in scores.items():
        print(style, *(f"{name} {value:.2f}" for name, value in found.items()))
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in net.state_dict().items()}
    with atomic_file(WEIGHTS / "model.safetensors") as path:
        save_file(halves, path)
    with atomic_file(WEIGHTS / "scores.json") as path:
        path.write_text(json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main()
