"""Another choice of a label, such as another hair style, for a latent: the new one comes in, the old one goes.

attributes = fit_attributes(latents, labels)                    # its `swaps` are these
z = attributes.swaps.swap(z, "hair", "pigtails")
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from vaelib.storage import checked_tensor

MOST_CHOICES = 20  # a label with more of them makes no menu
READER_PENALTY, SLOPE_PENALTY = 1.0, 30.0  # of the ridge regressions, for columns of unit variance


@dataclass(frozen=True)
class Swaps:
    """What each choice of a label stands for in a latent, given the rest of the face.

    A hair style adds something else to a latent where the hair is pink or the head tilted. So the K columns of all
    labels are read off a latent of D numbers first, x = `readers` (K, D) · z + `offsets` (K,), and choice c then
    stands for `bases[c]` (D,) + x · `slopes[c]` (K, D). All float32. `choices` lists for each c its label, its name
    and the column that says how much a face has of it.
    """

    choices: tuple[tuple[str, str, int], ...]
    readers: Tensor
    offsets: Tensor
    bases: Tensor
    slopes: Tensor

    @property
    def menus(self) -> dict[str, list[str]]:
        """The names of the choices, by label."""
        menus: dict[str, list[str]] = {}
        for label, name, _ in self.choices:
            menus.setdefault(label, []).append(name)
        return menus

    def swap(self, z: Tensor, label: str, choice: str) -> Tensor:
        """Latents `z` (B, *latent_shape) with `choice` for `label` in place of the one that is read off each of them.

        Raises `ValueError` for a choice that is not there.
        """
        rows = [c for c, (each, _, _) in enumerate(self.choices) if each == label]
        names = [self.choices[c][1] for c in rows]
        if choice not in names:
            raise ValueError(f"got {label}={choice}, expected one of the choices {self.menus}")
        x = z.flatten(1) @ self.readers.T + self.offsets
        own = x[:, [self.choices[c][2] for c in rows]].argmax(1)
        stands_for = self.bases[rows] + torch.einsum("bk,ckd->bcd", x, self.slopes[rows])
        step = stands_for[:, names.index(choice)] - stands_for[torch.arange(len(z)), own]
        return z + step.reshape(z.shape)

    def renamed(self, label: str, new: str) -> "Swaps":
        """The same, with another name for a label."""
        choices = tuple((new if each == label else each, name, column) for each, name, column in self.choices)
        return replace(self, choices=choices)

    def to_tensors(self) -> dict[str, Tensor]:
        """As `from_tensors` reads them; the largest, which hold any number, as bfloat16."""
        choices = torch.frombuffer(bytearray(json.dumps(self.choices).encode()), dtype=torch.uint8)
        floats = {"readers": self.readers, "offsets": self.offsets, "bases": self.bases}
        return {"choices": choices, **floats, "slopes": self.slopes.bfloat16()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], size: int) -> "Swaps":
        """From what `to_tensors` gave, for latents of `size` numbers. Raises `ValueError` or `KeyError` otherwise."""
        choices = tuple(
            (str(label), str(name), int(k)) for label, name, k in json.loads(bytes(tensors["choices"].tolist()))
        )
        columns = len(tensors["offsets"])
        if not choices or not all(0 <= column < columns for _, _, column in choices):
            raise ValueError(f"its choices are {choices}")
        count = len(choices)
        shapes = {
            "readers": (columns, size),
            "offsets": (columns,),
            "bases": (count, size),
            "slopes": (count, columns, size),
        }
        return cls(choices, **{name: checked_tensor(name, tensors[name], shape) for name, shape in shapes.items()})


def fit_swaps(latents: Tensor, columns: dict[str, np.ndarray], texts: Sequence[str]) -> Swaps | None:
    """From latents, float (N, *latent_shape), and the `columns` of their labels, (N,) each, that vary.

    `texts` are the labels whose columns are choices, "hair=long" of the text "hair". None where they are none. Ridge
    regressions (scikit-learn's): of the columns on the latents, of the latents on the columns, and for each choice of
    what that leaves, on the columns again, among the faces that have the choice.
    """
    menus = {label: [name for name in columns if name.startswith(f"{label}=")] for label in texts}
    chosen = [
        (label, name) for label, names in menus.items() if 1 < len(names) <= MOST_CHOICES for name in sorted(names)
    ]
    if not chosen:
        return None
    z = latents.flatten(1).double().numpy()
    raw = np.stack(list(columns.values()), 1)
    mean, scale = raw.mean(0), raw.std(0)
    x = (raw - mean) / scale
    reader = Ridge(READER_PENALTY).fit(z, x)
    all_together = Ridge(READER_PENALTY).fit(x, z)
    left_over = z - all_together.predict(x)
    bases, slopes = [], []
    for _, name in chosen:
        column = list(columns).index(name)
        has = columns[name] > 0.5
        own = Ridge(SLOPE_PENALTY).fit(x[has], left_over[has])
        slope = own.coef_.T / scale[:, None]  # (K, D), for columns as they are
        bases.append(own.intercept_ + all_together.coef_[:, column] / scale[column] - mean @ slope)
        slopes.append(slope)
    floats = {
        "readers": reader.coef_ * scale[:, None],
        "offsets": reader.intercept_ * scale + mean,
        "bases": np.stack(bases),
        "slopes": np.stack(slopes),
    }
    choices = tuple((label, name.partition("=")[2], list(columns).index(name)) for label, name in chosen)
    return Swaps(
        choices, **{name: torch.from_numpy(np.ascontiguousarray(value)).float() for name, value in floats.items()}
    )
