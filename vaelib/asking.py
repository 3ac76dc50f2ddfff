"""What faces can be asked for: their labels as numbers that a network can listen to.

questions = Questions.of(faces.labels)
code = questions.code({"hair": "pigtails", "smile": 0.8})    # float32 (1, width): 0 where nothing is asked
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from vaelib.drawn import Factor

ALL_DROPPED = 0.1  # of the faces lose all labels in training, so that the network also learns to be asked for nothing


@dataclass(frozen=True)
class Questions:
    """The labels that can be asked for, by name, each a `Factor` with its choices, or the range of its numbers.

    A code has a column for each choice, 1 or 0; for a number its place in the range, with variance 1 where all places
    are as frequent, and a 1 that says that it was asked; for a name that ends in "hue" cosine, sine and that 1. Nothing
    asked is 0 in all columns of a label, so that any subset can be.
    """

    factors: dict[str, Factor]

    @classmethod
    def of(cls, labels: Mapping[str, np.ndarray]) -> "Questions":
        """What `labels`, arrays of N texts or numbers by name, allow to ask; those that do not vary are left out.

        Raises `ValueError` where a number is not finite or no label varies.
        """
        factors = {name: _factor(name, np.asarray(values)) for name, values in labels.items()}
        varying = {name: factor for name, factor in factors.items() if factor}
        if not varying:
            raise ValueError(f"got no label that varies, so nothing can be asked; there were: {', '.join(labels)}")
        return cls(varying)

    def code(self, asked: Mapping[str, object], count: int = 1) -> Tensor:
        """The code of `asked`, float32 (count, width): each value is one for all faces, or an array of one for each.

        Raises `ValueError` for an unknown label, a value that is none of its choices or out of its range, or another
        number of values than `count`.
        """
        if unknown := sorted(map(str, asked.keys() - self.factors.keys())):
            raise ValueError(f"can't ask for {', '.join(unknown)}; these can be asked for: {', '.join(self.factors)}")
        parts = [
            _columns(factor, asked[name], count) if name in asked else torch.zeros(count, _width(factor))
            for name, factor in self.factors.items()
        ]
        return torch.cat(parts, dim=1)

    def drop(self, code: Tensor, generator: torch.Generator) -> Tensor:
        """`code` (B, width) as training shows it: of each face's labels a share is left, from none to all."""
        left = torch.rand(len(code), 1, generator=generator) * (
            torch.rand(len(code), 1, generator=generator) >= ALL_DROPPED
        )
        kept = torch.rand(len(code), len(self.factors), generator=generator) < left
        return code * kept[:, self.label_of]

    @cached_property
    def label_of(self) -> Tensor:
        """Which label each column of a code belongs to, int64 (width,)."""
        widths = torch.tensor([_width(factor) for factor in self.factors.values()])
        return torch.arange(len(widths)).repeat_interleave(widths)

    def to_tensor(self) -> Tensor:
        """The questions as JSON in uint8, for safetensors: `from_tensor` reads it."""
        stored = [[factor.name, factor.choices, factor.low, factor.high] for factor in self.factors.values()]
        return torch.frombuffer(bytearray(json.dumps(stored).encode()), dtype=torch.uint8).clone()

    @classmethod
    def from_tensor(cls, tensor: Tensor) -> "Questions":
        """The inverse of `to_tensor`. Raises `ValueError` or `TypeError` for anything else."""
        factors = {}
        for name, choices, low, high in json.loads(bytes(tensor.tolist())):
            if not isinstance(name, str) or not all(isinstance(choice, str) for choice in choices) or not low < high:
                raise ValueError(f"got the label {name!r} with the choices {choices} from {low} to {high}")
            factors[name] = Factor(name, low, tuple(choices), low=low, high=high)
        return cls(factors)


def _factor(name: str, values: np.ndarray) -> Factor | None:
    """What can be asked of one label; None where it does not vary."""
    if values.dtype.kind in "USO":
        choices = tuple(sorted({*map(str, values.tolist())}))
        return Factor(name, choices[0], choices) if len(choices) > 1 else None
    if not np.isfinite(values).all():
        raise ValueError(f"got labels {name!r} that are not all finite numbers. Leave out those faces")
    if (hue := Factor(name, 0.0)).is_hue:
        return hue
    if not len(values) or not (spread := float(values.max()) - float(values.min())) > 1e-6:
        return None
    low, high = (float(f"{edge:.3g}") for edge in (values.min() - spread / 100, values.max() + spread / 100))
    return Factor(name, low, low=low, high=high)


def _width(factor: Factor) -> int:
    return len(factor.choices) or 2 + factor.is_hue


def _columns(factor: Factor, value: object, count: int) -> Tensor:
    """The columns of one label, float32 (count, width)."""
    values = np.asarray(value)
    if values.shape not in ((), (count,)):
        raise ValueError(f"{factor.name}: got values of shape {values.shape}, expected one, or one for each of {count}")
    checked = [factor.check(one) for one in values.reshape(-1).tolist()]
    if factor.choices:
        columns = torch.eye(len(factor.choices))[[factor.choices.index(one) for one in checked]]
    else:
        place = (torch.tensor(checked) - factor.low) / (factor.high - factor.low)
        angle = 2 * torch.pi * place
        numbers = [angle.cos(), angle.sin()] if factor.is_hue else [12**0.5 * (place - 0.5)]
        columns = torch.stack([*numbers, torch.ones_like(place)], dim=1)
    return columns.expand(count, -1)
