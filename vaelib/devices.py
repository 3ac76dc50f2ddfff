"""Where and how to compute: which device, which number format, and pictures near to it."""

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from vaelib.faces import to_float
from vaelib.model import memory_format


def default_device(best: torch.device | None = None) -> torch.device:
    """Where to train unless told: `best` (default: the fastest that is here), but not Apple's GPU ("mps"), which has to
    be named: nobody has compared its results with a CPU's."""
    if best is None:
        best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    return torch.device("cpu") if best.type == "mps" else best


def describe_device(device: torch.device) -> str:
    """What `device` is, and why it was taken, in a few words for a log."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu" and torch.backends.mps.is_available():
        return "cpu (Apple's GPU was not compared with it: --device mps takes it)"
    if device.type == "cpu" and not torch.cuda.is_available():
        return "cpu (PyTorch finds no GPU here)"
    return str(device)


def find_device(name: str | torch.device) -> torch.device:
    """The device called `name`, such as "cpu", "cuda:1" or "mps". `ValueError` if this computer has none such.

    Warns that nobody has compared results on Apple's GPU.
    """
    try:
        torch.empty(0, device=name).cpu()
    except (RuntimeError, AssertionError) as error:  # what torch raises for an unknown or a missing one
        there = ["cpu"]
        if torch.accelerator.is_available():
            kind = torch.accelerator.current_accelerator()
            there += [f"{kind}:{index}" for index in range(torch.accelerator.device_count())]
        raise ValueError(f"got device {str(name)!r}, expected one that is here: {', '.join(there)}") from error
    device = torch.device(name)
    if device.type == "mps":
        warnings.warn("nobody has compared training on Apple's GPU with a CPU's: look at the faces", stacklevel=2)
    return device


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format of a `TrainConfig`'s `precision`: "auto" is bfloat16 where the hardware computes in it."""
    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # A CPU without these instructions emulates bfloat16, at half the speed of float32.
        instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        fast = device.type == "cpu" and instructions
    return torch.bfloat16 if fast else torch.float32


def layout_of(network: nn.Module) -> torch.memory_format:
    weights = [value for value in network.parameters() if value.ndim == 4 and not value.is_contiguous()]
    return torch.channels_last if weights else torch.contiguous_format


def near(device: torch.device, images: np.ndarray) -> Tensor:
    """The pictures, still bytes: on the device where half of its free memory holds them, else where they are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes
        pictures = torch.from_numpy(images)
    if device.type == "cuda" and images.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return pictures
    return pictures.to(device)


def take(images: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """The pictures at `rows`, both on one device, as float (B, 3, H, W) in [0, 1] on the device to train on."""
    batch = images[rows]
    if batch.device.type == "cpu" and device.type == "cuda":
        batch = batch.pin_memory()  # so that the copy does not hold up the step before
    return to_float(batch.to(device, non_blocking=True)).contiguous(memory_format=memory_format(device))
