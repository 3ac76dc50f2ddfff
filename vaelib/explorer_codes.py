"""Short texts that stand for a face of the explorer: where its latent came from, and numbers packed into letters."""

import base64
import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

AXES = "axes"  # draw the weights themselves from N(0, 1); the other choices are the bundle's priors
PICTURE = "picture"  # where a code says that its face was not drawn from a prior, but encoded
LATENT_STEPS = 16  # to 1: an encoded latent stands on this grid, from -8 to 8, so that a code can hold it
CHECK_LENGTH = 4


@dataclass(frozen=True)
class Draw:
    """A latent drawn from the bundle's prior called `prior`, or "axes", `spread` times as far from the mean face."""

    prior: str
    seed: int
    spread: float


@dataclass(frozen=True)
class Encoded:
    """A latent that a picture was encoded to: its numbers, row by row, each a signed byte that counts sixteenths."""

    steps: bytes

    @classmethod
    def of(cls, z: Tensor) -> "Encoded":
        """The nearest to latent `z`, float (*latent_shape)."""
        steps = (LATENT_STEPS * z).round().clamp(-128, 127).to(torch.int8)
        return cls(steps.flatten().numpy().tobytes())

    def latent(self, shape: tuple[int, ...]) -> Tensor:
        """The latent, float32 (1, *shape)."""
        steps = np.frombuffer(self.steps, np.int8).astype(np.float32)
        return torch.from_numpy(steps / LATENT_STEPS).reshape(1, *shape)


class Number:
    """Digits, each with the base that it is counted in, as one number: the last one pushed is the first to pop."""

    def __init__(self, value: int = 0):
        self.value = value

    def push(self, digit: int, base: int) -> None:
        self.value = self.value * base + digit

    def pop(self, base: int) -> int:
        self.value, digit = divmod(self.value, base)
        return digit

    def push_draw(self, draw: Draw | Encoded) -> None:
        if isinstance(draw, Encoded):
            for step in draw.steps:
                self.push(step, 256)
        elif draw.prior != AXES:  # whose weights say all
            self.push(draw.seed, 2**32)
            self.push(round(10 * draw.spread), 256)

    def pop_draw(self, prior: str, size: int) -> Draw | Encoded | None:
        """What `push_draw` pushed, for latents of `size` numbers."""
        if prior == PICTURE:
            return Encoded(self.pop(256**size).to_bytes(size))
        if prior == AXES:
            return None
        tenths = self.pop(256)
        return Draw(prior, self.pop(2**32), tenths / 10)


def write_code(version: str, model: str, prior: str, number: int, belongs_to: bytes) -> str:
    """A code such as `vae1:anime:flow:…`.

    Its last four letters tell a mistyped one, and whether it belongs to the same weights and attributes, `belongs_to`.
    """
    head = f"{version}:{model}:{prior}"
    body = _letters(number.to_bytes((number.bit_length() + 7) // 8 or 1)).rstrip("=")
    check = hashlib.blake2b(f"{head}:{body}:".encode() + belongs_to, digest_size=3).digest()
    return f"{head}:{body}{_letters(check)}"


def read_code(code: str) -> tuple[str, str, str, int | None]:
    """Version, model, prior and number of a code, None where that can't be read; `write_code` tells if it holds."""
    head, _, letters = code.strip().rpartition(":")
    head, _, prior = head.rpartition(":")
    version, _, model = head.partition(":")
    body = letters[:-CHECK_LENGTH]
    try:
        number = int.from_bytes(base64.b64decode(body + "=" * (-len(body) % 4), b"-_", validate=True))
    except ValueError:
        number = None
    return version, model, prior, number if body else None


def model_of(code: str) -> str:
    """The name of the model that a code is for; empty where it is no code."""
    return read_code(code)[1]


def _letters(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode()
