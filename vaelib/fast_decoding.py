"""A decoder that draws one face after the other, as fast as a CPU core can: what a slider needs.

decode = FastDecoder(bundle.vae)
faces = decode(z)                       # as bundle.vae.decode(z), in half the time for a batch of one
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

WIDE = 256  # channels from which a convolution, here of a few pixels, is faster as a matrix product


class FastDecoder:
    """The decoder of `vae`, copied as it is now and rearranged for inference on the CPU.

    Called with latents float (B, *latent_shape) it gives faces float32 (B, 3, H, W) in [0, 1], like `vae.decode` in
    evaluation mode, up to rounding.
    """

    def __init__(self, vae: nn.Module):
        decoder = copy.deepcopy(vae.decoder).cpu().float().eval().requires_grad_(False)
        for block in [module for module in decoder.modules() if isinstance(module, nn.Sequential)]:
            _fold_batch_norms(block)
            _multiply_where_wide(block)
        self._decoder = decoder.to(memory_format=torch.channels_last)

    def __call__(self, z: Tensor) -> Tensor:
        # One thread: a face is too little work to share, and the browser that shows it needs the other cores.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                return self._decoder(z).sigmoid()
        finally:
            torch.set_num_threads(threads)


def _fold_batch_norms(block: nn.Sequential) -> None:
    for i in range(len(block) - 1):
        conv, norm = block[i], block[i + 1]
        if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
            block[i] = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
            block[i + 1] = nn.Identity()


def _multiply_where_wide(block: nn.Sequential) -> None:
    for i, layer in enumerate(block):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.in_channels >= WIDE:
            block[i] = _Gathered(layer) if isinstance(layer, nn.Conv2d) else _Scattered(layer)


class _Product(nn.Module):
    """A convolution as one matrix product, its weights lying as they are read.

    Where there are few pixels the time goes into fetching the weights, megabytes of them.
    """

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, weight: Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight.contiguous(), requires_grad=False)  # (numbers in, numbers out)
        self.bias = conv.bias
        self.window = {"kernel_size": conv.kernel_size, "stride": conv.stride, "padding": conv.padding}


class _Gathered(_Product):
    """A 3×3 convolution: each pixel's neighbourhood, times the weights."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__(conv, conv.weight.flatten(1).T)  # (c_in·9, c_out)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, **self.window).transpose(1, 2)  # (B, h·w, c_in·9)
        return (patches @ self.weight + self.bias).transpose(1, 2).unflatten(2, x.shape[2:])


class _Scattered(_Product):
    """A 4×4 transposed convolution of stride 2: each pixel times the weights, and what overlaps is added up."""

    def __init__(self, conv: nn.ConvTranspose2d):
        super().__init__(conv, conv.weight.flatten(1))  # (c_in, c_out·16)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        patches = (x.flatten(2).transpose(1, 2) @ self.weight).transpose(1, 2)  # (B, c_out·16, h·w)
        return F.fold(patches, (2 * height, 2 * width), **self.window) + self.bias[:, None, None]
