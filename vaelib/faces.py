"""`Faces`: pictures in one uint8 array, their labels, and a split that does not leak. `load_faces(name)` opens them."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaelib import drawn
from vaelib.families import find_families
from vaelib.preparing import Report, open_array, prepare, prepared_names, read_report
from vaelib.sources import ARCHIVE_ENDINGS
from vaelib.storage import atomic_file, cache_folder, check_side

DRAWN_COUNT = 4000


@dataclass(frozen=True, eq=False)
class Faces:
    """Pictures of one size with, where known, what they show.

    `images` is uint8 (N, H, W, 3), perhaps memory-mapped; `labels` maps a factor's name to an array of N values;
    `origin` is "prepared" (from pictures) or "drawn" (by `vaelib.drawn`). `families` is int64 (N,): faces that are
    copies of one picture, exact or near, have the same number; where it is not given, exact copies are looked for.
    """

    images: np.ndarray
    name: str = "faces"
    origin: str = "prepared"
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    families: np.ndarray = None

    def __post_init__(self):
        shape, dtype = self.images.shape, self.images.dtype
        if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8:
            raise ValueError(f"got images of {dtype} with shape {shape}, expected uint8 (N, H, W, 3)")
        for factor, values in self.labels.items():
            if len(values) != len(self.images):
                raise ValueError(f"got {len(values)} labels {factor!r} for {len(self.images)} images")
        if self.families is None:
            object.__setattr__(self, "families", find_families(self.images, near=0))
        elif len(self.families) != len(self.images):
            raise ValueError(f"got {len(self.families)} family numbers for {len(self.images)} images")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        height, width = self.images.shape[1:3]
        return f"Faces({self.name!r}, {self.origin}: {len(self):,} of {width}×{height} pixels)"

    def select(self, rows: Sequence[int] | np.ndarray) -> "Faces":
        """The faces at `rows` (integers or a boolean mask), in that order."""
        labels = {factor: values[rows] for factor, values in self.labels.items()}
        return Faces(self.images[rows], self.name, self.origin, labels, self.families[rows])

    def split(self, test_fraction: float | None = None, seed: int = 42) -> tuple["Faces", "Faces"]:
        """(train, test), at random by family: copies of one picture, exact or near, never stand on both sides.

        About `test_fraction` of the families, at least one, go to test: by default a tenth, or what makes about 1,000
        faces, where that is less. The same seed gives the same split.
        Raises `ValueError` unless 0 < test_fraction < 1 and there are two different faces.
        """
        if test_fraction is None:
            test_fraction = min(0.1, 1000 / max(1, len(self)))  # more to test on would only cost time
        if not 0 < test_fraction < 1:
            raise ValueError(f"got test_fraction={test_fraction}, expected a number between 0 and 1, such as 0.1")
        families = np.unique(self.families)
        count = len(families)
        if count < 2:
            raise ValueError(
                f"got {len(self)} faces of which {count} are different, expected at least 2 to split"
                + (". Near copies count as one: near=0 (--near 0) takes each as different" if count < len(self) else "")
            )
        test_count = min(max(1, round(count * test_fraction)), count - 1)
        chosen = np.random.default_rng(seed).permutation(families)[:test_count]
        in_test = np.isin(self.families, chosen)
        return self.select(~in_test), self.select(in_test)

    def batch(self, rows: Sequence[int] | slice | np.ndarray = slice(None)) -> Tensor:
        """The faces at `rows` as the models take them: float32 (B, 3, H, W) in [0, 1]."""
        rows = list(rows) if isinstance(rows, range) else rows
        return to_float(torch.from_numpy(np.array(self.images[rows])))


def to_float(images: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [0, 1], channels last in memory, on the same device."""
    return images.permute(0, 3, 1, 2).float() / 255


def load_faces(name: str | Path = "anime", size: int = 64, count: int = DRAWN_COUNT, verbose: bool = True) -> Faces:
    """Open the faces called `name`, memory-mapped: what `vaelib.prepare` made, else drawn stand-ins.

    "anime" and "cartoon" are the Kaggle faces where they are prepared; where not, `count` faces are drawn in that
    style, and a printed line says so. "drawn-anime" and "drawn-cartoon" are always drawn; they carry labels and are
    kept in the cache folder. Any other name is that of a prepared set. A path of a zip or a folder of pictures (a
    `Path`, or a text with a slash or that ends in .zip, such as "./pictures") is prepared; where it was, and has not
    changed, it is only opened.

    Raises `FileNotFoundError` for a name that is none of these, `ValueError` for a damaged array, and what `prepare`
    raises.
    """
    if _is_path(name):
        return _open_prepared(prepare(name, size=size, progress=verbose))
    style = name.removeprefix("drawn-")
    built_in = style != name and style in drawn.FACTORS
    if not built_in and (report := read_report(name, size)):
        return _open_prepared(report)
    if style in drawn.FACTORS:
        if name == style and verbose:
            resize = "" if size == 64 else f" --size {size}"
            print(f"{count:,} drawn {name} faces stand in. For Kaggle's: python -m vaelib download {name}{resize}")
        return _load_drawn(style, size, count)
    known = sorted({*prepared_names(size), *drawn.FACTORS, *(f"drawn-{style}" for style in drawn.FACTORS)})
    raise FileNotFoundError(
        f"no faces called {name!r} at {size} pixels; there are: {', '.join(known)}. "
        f"Make them with: python -m vaelib prepare PICTURES --name {name} --size {size}, or give a path: './{name}'"
    )


def _is_path(name: str | Path) -> bool:
    return isinstance(name, Path) or "/" in name or os.sep in name or name.lower().endswith(ARCHIVE_ENDINGS)


def _open_prepared(report: Report) -> Faces:
    images, families = report.open_arrays()
    return Faces(images, report.name, families=np.array(families))


def _load_drawn(style: str, size: int, count: int) -> Faces:
    check_side(size, count)
    # Drawing is slower than reading; the code's digest in the name makes a new version draw anew.
    code = b"".join(path.read_bytes() for path in sorted(Path(drawn.__file__).parent.glob("drawn*.py")))
    version = hashlib.blake2b(code, digest_size=4).hexdigest()
    path = cache_folder("drawn") / f"{style}-{size}-{count}-{version}.npy"
    labels_path = path.with_suffix(".npz")
    if not (path.exists() and labels_path.exists()):
        images, labels = drawn.draw_faces(style, count, size)
        with atomic_file(labels_path) as part:
            np.savez(part, **labels)
        with atomic_file(path) as part:
            np.save(part, images)
    with np.load(labels_path) as labels:
        images = open_array(path, (count, size, size, 3), np.uint8)
        return Faces(images, f"drawn-{style}", "drawn", dict(labels), families=np.arange(len(images)))
