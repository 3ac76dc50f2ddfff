"""A zip or a folder of pictures -> one uint8 array of distinct faces on disk, and a report.

    python -m vaelib prepare animefacedataset.zip
    python -m vaelib prepare my_pictures/ --name mine

Pictures are read straight from the zip: nothing is unpacked. The array goes to `faces/NAME-SIZE.npy` in the cache
folder, where `load_faces(NAME)` finds it.
"""

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from vaelib.storage import atomic_file, cache_folder

PICTURE_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


@dataclass(frozen=True)
class Layout:
    """How a known data set names its files, and the middle part of each picture that holds the face."""

    pattern: re.Pattern
    crop: float


# The cartoons stand in a wide white margin: the middle 350 of 500 pixels hold the head and cut only the widest hair.
LAYOUTS = {
    "anime": Layout(re.compile(r"(^|/)images/\d+_\d{4}\.jpg$"), crop=1.0),
    "cartoon": Layout(re.compile(r"(^|/)cartoonset100k[^/]*/\d/cs\d+\.(jpg|png)$"), crop=0.7),
}


@dataclass(frozen=True)
class Report:
    """What `prepare` did: `read` pictures could be decoded, `kept` of them are distinct, the rest `duplicates`.

    `unreadable` lists (file, reason) of those that could not; `path` is the array, uint8 (kept, size, size, 3).
    """

    name: str
    source: str
    size: int
    crop: float
    read: int
    kept: int
    duplicates: int
    unreadable: list[tuple[str, str]]
    path: str

    def __str__(self) -> str:
        lines = [
            f"{self.source} -> {self.name!r}",
            f"{self.read:>8,} read",
            f"{self.kept:>8,} kept, each different, {self.size}×{self.size} pixels",
            f"{self.duplicates:>8,} duplicates left out",
            f"{len(self.unreadable):>8,} unreadable",
        ]
        lines += [f"         {file}: {reason}" for file, reason in self.unreadable[:5]]
        if len(self.unreadable) > 5:
            lines.append(f"         … and {len(self.unreadable) - 5:,} more")
        return "\n".join([*lines, f"written to {self.path}"])


def prepare(
    source: str | Path, name: str | None = None, size: int = 64, crop: float | None = None, progress: bool = True
) -> Report:
    """Turn a zip file or a folder of pictures into one array of distinct faces, and say what happened.

    Each picture becomes RGB, its largest middle square times `crop` (0 to 1; default: what the layout asks for,
    else 1) is cut out and scaled to `size`×`size` pixels by Lanczos. Pictures equal in every resulting pixel are
    kept once, the first in file-name order. The two Kaggle archives are known by their layout and named `anime` and
    `cartoon`; anything else takes `name`, or the name of the file or folder.

    Raises `FileNotFoundError` if `source` is missing, `ValueError` if it is no zip, holds no picture, holds none that
    can be read, or if `name`, `size` or `crop` are out of range. Nothing is left behind then.
    """
    source = Path(source).expanduser()
    if size < 1:
        raise ValueError(f"got size={size}, expected a positive number of pixels such as 64")
    files, read_bytes = _open_source(source)
    known, layout = recognise(files)
    name = name or known or re.sub(r"\W+", "-", source.resolve().stem).strip("-").lower()
    crop = layout.crop if crop is None and layout else 1.0 if crop is None else crop
    if not re.fullmatch(r"\w[\w .-]*", name):
        raise ValueError(f"got name={name!r}, expected letters and digits, such as my-faces")
    if not 0 < crop <= 1:
        raise ValueError(f"got crop={crop}, expected a fraction of the picture, above 0 and at most 1")

    path = prepared_path(name, size)
    unreadable: list[tuple[str, str]] = []
    seen: set[bytes] = set()
    read = 0
    with atomic_file(path) as part, open(part, "wb") as array:
        _write_header(array, len(files), size)
        for file, result in _decode_all(files, read_bytes, size, crop, progress):
            if isinstance(result, str):
                unreadable.append((file, result))
                continue
            read += 1
            digest = hashlib.blake2b(result, digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                array.write(result)
        if not seen:
            file, reason = unreadable[0]
            raise ValueError(f"none of the {len(files)} pictures in {source} can be read; the first, {file}: {reason}")
        array.seek(0)
        _write_header(array, len(seen), size)
    kept = len(seen)
    report = Report(name, source.name, size, crop, read, kept, read - kept, unreadable, str(path))
    with atomic_file(path.with_suffix(".json")) as part:
        part.write_text(json.dumps(asdict(report) | {"path": path.name}, indent=1))
    return report


def prepared_path(name: str, size: int) -> Path:
    """Where the array of prepared faces `name` lies, whether or not it is there yet."""
    return cache_folder("faces") / f"{name}-{size}.npy"


def recognise(files: list[str]) -> tuple[str | None, Layout | None]:
    """The known data set whose layout most of `files` follow, or (None, None)."""
    for name, layout in LAYOUTS.items():
        if sum(bool(layout.pattern.search(file)) for file in files) > len(files) / 2:
            return name, layout
    return None, None


def to_face(image: Image.Image, size: int, crop: float = 1.0) -> np.ndarray:
    """The middle square of `image` times `crop`, as RGB on white, uint8 (size, size, 3)."""
    side = min(image.size)
    # A JPEG can be decoded at 1/2, 1/4 or 1/8; twice the size we need leaves Lanczos enough to work with.
    needed = 2 * size / crop
    image.draft(None, (round(image.width / side * needed), round(image.height / side * needed)))
    image = ImageOps.exif_transpose(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode.startswith("I;16"):  # Pillow would clip 16-bit grey to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGB")
    width, height = image.size
    half = min(width, height) * crop / 2
    box = (width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half)
    if (width, height) == (size, size) and crop == 1:
        return np.asarray(image)
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS, box=box))


def _open_source(source: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """The pictures in a zip or folder, in name order, and a function that reads one."""
    if source.is_dir():
        files = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
        read_bytes = lambda file: (source / file).read_bytes()  # noqa: E731
    elif not source.exists():
        raise FileNotFoundError(f"{source} does not exist; expected a zip file or a folder of pictures")
    elif zipfile.is_zipfile(source):
        try:
            archive = zipfile.ZipFile(source)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{source} is a damaged zip file ({error}): download it again") from error
        files = [member.filename for member in archive.infolist() if not member.is_dir()]
        read_bytes = archive.read
    else:
        raise ValueError(
            f"{source} is neither a folder nor a zip file. If it came from the web, it may be an error page "
            "or an unfinished download: look at its size and download it again."
        )
    pictures = sorted(file for file in files if _is_picture_name(file))
    if not pictures:
        raise ValueError(
            f"{source} holds no pictures ({len(files)} other files); "
            f"expected names that end in {', '.join(sorted(PICTURE_ENDINGS))}"
        )
    return pictures, read_bytes


def _is_picture_name(file: str) -> bool:
    path = Path(file)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in PICTURE_ENDINGS and not hidden


def _decode_all(
    files: list[str], read_bytes: Callable[[str], bytes], size: int, crop: float, progress: bool
) -> Iterator[tuple[str, bytes | str]]:
    """Yield (file, pixels as bytes) in order, or (file, reason) where a file is no readable picture."""

    def decode(file: str) -> bytes | str:
        try:
            with Image.open(io.BytesIO(read_bytes(file))) as image:
                return to_face(image, size, crop).tobytes()
        except Exception as error:  # whatever a broken file provokes, it becomes a line of the report
            return "not a picture" if isinstance(error, Image.UnidentifiedImageError) else str(error)

    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(files), desc="prepare", unit="picture", disable=not progress) as bar,
    ):
        for start in range(0, len(files), 512):  # in chunks: memory stays flat however many pictures there are
            chunk = files[start : start + 512]
            yield from zip(chunk, pool.map(decode, chunk), strict=True)
            bar.update(len(chunk))


def _write_header(file, count: int, size: int) -> None:
    # numpy pads the header so that the first axis can grow or shrink in place.
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    np.lib.format.write_array_header_1_0(file, header)
