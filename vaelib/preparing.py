"""A zip or a folder of pictures -> one uint8 array of distinct faces on disk, and a report.

    python -m vaelib prepare animefacedataset.zip
    python -m vaelib prepare my_pictures/ --name mine

Pictures are read straight from the zip: nothing is unpacked. The set goes to `faces/NAME-SIZE/` in the cache folder,
where `load_faces(NAME)` finds it: an array of images, one of family numbers and, written last, `manifest.json`. Work
that was stopped, by whatever means, goes on where it was; a second call finds nothing to do.
"""

import errno
import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from joblib import Parallel, delayed
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm.auto import tqdm

from vaelib.families import NEAR, TooAlike, block_averages, link_families
from vaelib.sources import Source, digest_of, open_source, printable
from vaelib.storage import atomic_file, cache_folder

VERSION = 3  # raise it when the same source would give other bytes: sets prepared before are then prepared anew
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # Pillow knows more, some of which start other programs
MAX_PIXELS = 64_000_000  # of one picture: decoded, they take 256 MB
CHUNK = 256  # pictures that go to a process at once,
CHUNK_BYTES = 16_000_000  # if their files are not larger than this together
CHECKPOINT = 8  # chunks between two entries in the journal
HEADER = 128  # bytes before the first face in an array, as numpy writes it


@dataclass(frozen=True)
class Layout:
    """A known data set: how it names its files, what part of each picture holds the face, what is a near copy."""

    pattern: re.Pattern
    crop: float
    near: float


# The cartoons stand in a wide white margin: the middle 350 of 500 pixels hold the head and cut only the widest hair.
# All are put together from the same few parts, so different ones are as near to each other as copies are elsewhere.
LAYOUTS = {
    "anime": Layout(re.compile(r"(^|/)images/\d+_\d{4}\.jpg$"), crop=1.0, near=NEAR),
    "cartoon": Layout(re.compile(r"(^|/)cartoonset100k[^/]*/\d/cs\d+\.(jpg|png)$"), crop=0.7, near=0.0),
}


@dataclass(frozen=True)
class Report:
    """What `prepare` made of a source; it is also the manifest of the prepared set.

    `read` pictures could be decoded; `kept` of them are distinct, the rest `duplicates`. Those kept make up `families`
    of pictures nearer than `near`, the largest of `largest_family` members. `alike` above 0 says that so many would
    have been one family, and near copies were let be. `unreadable` lists (file, reason) of pictures passed over, and
    `others` counts the files that are no pictures by name. `images_path` is the array, uint8 (kept, size, size, 3),
    and `families_path` int64 (kept,).
    """

    name: str
    source: str
    digest: str
    version: int
    size: int
    crop: float
    near: float
    read: int
    kept: int
    families: int
    largest_family: int
    alike: int
    others: int
    unreadable: list[tuple[str, str]]
    folder: Path

    @property
    def duplicates(self) -> int:
        return self.read - self.kept

    @property
    def images_path(self) -> Path:
        return self.folder / f"images-{self.digest}.npy"

    @property
    def families_path(self) -> Path:
        return self.folder / f"families-{self.digest}.npy"

    def __str__(self) -> str:
        lines = [
            f"{Path(self.source).name} -> {self.name!r}",
            f"{self.read:>8,} read",
            f"{self.duplicates:>8,} exact copies left out",
            f"{self.kept:>8,} kept, each different, {self.size}×{self.size} pixels",
            f"{self.families:>8,} families of near copies, the largest of {self.largest_family}",
            f"{len(self.unreadable):>8,} unreadable",
        ]
        if self.alike:
            lines[4] = f"{self.alike:>8,} of them are one family at near={NEAR}: taken to be alike, not copied"
        elif not self.near:
            lines[4] = "         near copies not looked for"
        lines += [f"         {printable(file)}: {reason}" for file, reason in self.unreadable[:5]]
        if len(self.unreadable) > 5:
            lines.append(f"         … and {len(self.unreadable) - 5:,} more")
        if self.others:
            lines.append(f"{self.others:>8,} other files, by their names no pictures")
        return "\n".join([*lines, f"written to {self.folder}"])

    def is_complete(self) -> bool:
        """Whether the arrays are there, of the length that they should have."""
        try:
            images, families = (np.load(path, mmap_mode="r") for path in (self.images_path, self.families_path))
        except (OSError, ValueError, EOFError):
            return False
        return len(images) == len(families) == self.kept


def prepare(
    source: str | Path,
    name: str | None = None,
    size: int = 64,
    crop: float | None = None,
    near: float | None = None,
    progress: bool = True,
) -> Report:
    """Turn a zip file or a folder of pictures into one array of distinct faces, and say what happened.

    Each picture becomes RGB, its largest middle square times `crop` (0 to 1; default: what the layout asks for,
    else 1) is cut out and scaled to `size`×`size` pixels by Lanczos. Pictures equal in every resulting pixel are
    kept once, the first in file-name order. Near copies are all kept, and share a family: see `find_families`. `near`
    defaults to what the layout asks for, else to 0.07, unless that would make more than a quarter of all pictures one
    family: these are then taken to be alike without being copies, as with `near=0`, and the report says so.

    The two Kaggle archives are known by their layout and named `anime` and `cartoon`; anything else takes `name`, or
    the name of the file or folder. Broken and unreasonable files become lines of the report. Where the same source,
    unchanged, was prepared before in the same way, its report comes back at once.

    Raises `FileNotFoundError` if `source` is missing, `ValueError` if it is no zip, holds no picture, holds none that
    can be read, if `name`, `size`, `crop` or `near` are out of range, or if no `name` is given and a set made from
    another source has the name; `OSError` where a disk is full or fails. What was done by then is not lost.
    """
    source = open_source(Path(source).expanduser().resolve())
    known, layout = recognise(source.files)
    if crop is None:
        crop = layout.crop if layout else 1.0
    if near is None and layout:
        near = layout.near
    if size < 1:
        raise ValueError(f"got size={size}, expected a positive number of pixels such as 64")
    if not 0 < crop <= 1:
        raise ValueError(f"got crop={crop}, expected a fraction of the picture, above 0 and at most 1")
    if near is not None and near < 0:
        raise ValueError(f"got near={near}, expected a distance between pictures, 0 or more, such as {NEAR}")
    digest = digest_of([VERSION, source.digest, size, crop, near])
    name = _checked(name) if name else _free_name(source.path, size, digest, known)
    folder = prepared_folder(name, size)
    folder.mkdir(exist_ok=True)
    with FileLock(folder / ".lock"), _explain_full_disk(folder, need=len(source.files) * size * size * 3):
        done = read_report(name, size)
        if done and done.digest == digest and done.is_complete():
            return done
        part = _Part(folder, digest, size, len(source.files))
        for n, results in enumerate(_decode_all(source, part.files, size, crop, progress), start=1):
            part.append(results)
            if n % CHECKPOINT == 0:
                part.checkpoint()
        part.checkpoint()
        if not part.kept:
            part.remove()
            file, reason = part.unreadable[0]
            raise ValueError(
                f"none of the {len(source.files)} pictures in {source.path} can be read; "
                f"the first, {printable(file)}: {reason}"
            )
        families, near, alike = _number_families(part.block_averages[: part.kept], near)
        report = Report(
            name=name,
            source=str(source.path),
            digest=digest,
            version=VERSION,
            size=size,
            crop=crop,
            near=near,
            read=part.read,
            kept=part.kept,
            families=int(families.max()) + 1,
            largest_family=_largest(families),
            alike=alike,
            others=source.others,
            unreadable=source.skipped + part.unreadable,
            folder=folder,
        )
        _publish(report, part, families)
    return report


def prepared_folder(name: str, size: int) -> Path:
    """Where the prepared faces `name` lie, whether or not they are there yet."""
    return cache_folder("faces") / f"{name}-{size}"


def prepared_names(size: int) -> list[str]:
    """The names of all prepared sets of that size."""
    manifests = cache_folder("faces").glob(f"*-{size}/manifest.json")
    return sorted(manifest.parent.name.removesuffix(f"-{size}") for manifest in manifests)


def read_report(name: str, size: int) -> Report | None:
    """The report of a prepared set; None where there is none, or none that this version of the module wrote."""
    if not _is_name(name):
        return None
    folder = prepared_folder(name, size)
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["unreadable"] = [(file, reason) for file, reason in manifest["unreadable"]]
        report = Report(**manifest, folder=folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return report if report.version == VERSION else None


def recognise(files: list[str]) -> tuple[str | None, Layout | None]:
    """The known data set whose layout most of `files` follow, or (None, None)."""
    for name, layout in LAYOUTS.items():
        if sum(bool(layout.pattern.search(file)) for file in files) > len(files) / 2:
            return name, layout
    return None, None


def to_face(image: Image.Image, size: int, crop: float = 1.0) -> Image.Image:
    """The middle square of `image` times `crop`, as RGB on white, `size`×`size`.

    A JPEG that is much larger is decoded at 1/2, 1/4 or 1/8, with at least 1.3 times the pixels that Lanczos has to
    deliver: 500×500 cartoons at 1/4. So an `image` that is not loaded yet changes. Raises `ValueError` where more than
    64 million pixels would have to be decoded.
    """
    needed = 1.3 * size / crop / min(image.size)
    image.draft(None, (int(image.width * needed), int(image.height * needed)))
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width:,}×{image.height:,} pixels, more than {MAX_PIXELS:,} in all")
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise ValueError("32 bits a pixel, of which nobody knows what is white")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if image.size == (size, size) and crop == 1:
        return image
    width, height = image.size
    half = min(width, height) * crop / 2
    box = (width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=box)


def _is_name(name: str) -> bool:
    return bool(re.fullmatch(r"\w[\w .-]{0,99}", name))


def _checked(name: str) -> str:
    if not _is_name(name):
        raise ValueError(f"got name={name!r}, expected at most 100 letters and digits, such as my-faces")
    return name


def _free_name(path: Path, size: int, digest: str, known: str | None) -> str:
    """The name of the known layout, or of the file or folder, unless other faces have it."""
    name = known or re.sub(r"\W+", "-", path.stem).strip("-").lower()[:100] or "faces"
    other = read_report(name, size)
    if other and other.source != str(path) and other.digest != digest:
        owner = f"those made from {other.source}"
    elif not known and name.removeprefix("drawn-") in LAYOUTS:
        owner = "the built-in ones"
    else:
        return name
    raise ValueError(
        f"{path} would be called {name!r}, like {owner}. Give these faces a name of their own, or this one to replace "
        "the others: name='…', or --name on the command line"
    )


def _number_families(blocks: np.ndarray, near: float | None) -> tuple[np.ndarray, float, int]:
    """Family numbers, the distance that was called near, and how many pictures were found alike and let be."""
    each_its_own = np.arange(len(blocks))
    if near is not None:
        return (link_families(blocks, near) if near else each_its_own), near, 0
    try:
        families = link_families(blocks, NEAR)
    except TooAlike:
        return each_its_own, 0.0, len(blocks)
    if _largest(families) > max(20, len(blocks) / 4):
        return each_its_own, 0.0, _largest(families)
    return families, NEAR, 0


def _largest(families: np.ndarray) -> int:
    return int(np.bincount(families).max())


# ------------------------------------------------------------------------------------------------- decoding


def _decode_all(
    source: Source, start: int, size: int, crop: float, progress: bool
) -> Iterator[list[tuple[str, bytes | str | None]]]:
    """Yield chunks in order, from picture `start` on: (file, its pixels), or the reason why there are none, or None.

    None stands for a file that repeats, byte for byte, one that was decoded: a fifth of the anime files.
    """
    chunks, decoded = _chunks(source.sizes, start), set()
    fingerprints: dict[range, list[bytes | None]] = {}

    def contents(chunk: range) -> list[bytes | str | None]:
        files = [_read(source, i) for i in chunk]
        marks = [_fingerprint(file) if isinstance(file, bytes) else None for file in files]
        fingerprints[chunk] = marks
        return [None if mark in decoded else file for mark, file in zip(marks, files, strict=True)]

    # Processes, since Pillow decodes one picture at a time in each. A few pictures are done before one has started.
    # Batches are ours: joblib's own would grow, and with them the memory.
    parallel = Parallel(n_jobs=-1 if len(chunks) > 2 else 1, batch_size=1, return_as="generator")
    tasks = (delayed(_decode)(contents(chunk), size, crop) for chunk in chunks)
    count = len(source.files)
    with tqdm(total=count, initial=start, desc="prepare", unit="picture", disable=not progress) as bar:
        try:
            for chunk, results in zip(chunks, parallel(tasks), strict=True):
                marks = fingerprints.pop(chunk)
                decoded |= {mark for mark, result in zip(marks, results, strict=True) if isinstance(result, bytes)}
                yield [(source.files[i], result) for i, result in zip(chunk, results, strict=True)]
                bar.update(len(chunk))
        except BrokenProcessPool as error:
            raise OSError(
                "a process that decodes pictures was ended, perhaps for want of memory: run it again"
            ) from error


def _chunks(sizes: list[int], start: int) -> list[range]:
    chunks, total = [], 0
    for i in range(start, len(sizes)):
        total += sizes[i]
        if i - start + 1 == CHUNK or total > CHUNK_BYTES or i + 1 == len(sizes):
            chunks.append(range(start, i + 1))
            start, total = i + 1, 0
    return chunks


def _read(source: Source, i: int) -> bytes | str:
    try:
        return source.read(i)
    except MemoryError:
        raise
    except Exception as error:  # a wrong checksum, a password, a file that has gone: a line of the report
        if getattr(error, "errno", None) not in (None, errno.ENOENT, errno.EACCES):
            raise  # but a disk that fails now may work later
        return str(error) or type(error).__name__


def _fingerprint(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _decode(contents: list[bytes | str | None], size: int, crop: float) -> list[bytes | str | None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files: those that matter become reasons
        return [_decode_one(content, size, crop) if isinstance(content, bytes) else content for content in contents]


def _decode_one(content: bytes, size: int, crop: float) -> bytes | str:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return to_face(image, size, crop).tobytes()
    except MemoryError:
        raise
    except UnidentifiedImageError:
        return "not a picture"
    except Exception as error:  # whatever a broken file provokes, it becomes a line of the report
        return str(error) or type(error).__name__


# ------------------------------------------------------------------------------------------------- on disk


class _Part:
    """A set on its way: the distinct faces so far in `part.npy`, and in `part.jsonl` a line on how far each step got.

    Opened again after work was stopped, it stands where the last whole line says, and cuts off what came after.
    """

    def __init__(self, folder: Path, digest: str, size: int, count: int):
        self.array, self.journal, self.size = folder / "part.npy", folder / "part.jsonl", size
        self.files = 0
        self.unreadable: list[tuple[str, str]] = []
        self.listed = 0  # of these, in the journal
        self.seen: set[bytes] = set()
        block_shape = block_averages(np.empty((0, size, size, 3), np.uint8)).shape[1:]
        self.block_averages = np.empty((count, *block_shape), np.float32)  # takes memory only as it is filled
        if not self._resume(digest):
            self.array.write_bytes(b"")
            self._write_header()
            self.journal.write_text(json.dumps(digest) + "\n")

    @property
    def read(self) -> int:
        return self.files - len(self.unreadable)

    @property
    def kept(self) -> int:
        return len(self.seen)

    def append(self, results: list[tuple[str, bytes | str | None]]) -> None:
        self.files += len(results)
        self.unreadable += [(file, reason) for file, reason in results if isinstance(reason, str)]
        with open(self.array, "ab") as file:
            file.write(self._add_new([face for _, face in results if isinstance(face, bytes)]))

    def checkpoint(self) -> None:
        """Make sure that the faces are on the disk, and only then let the journal say so."""
        _flush(self.array)
        step = [self.files, self.kept, self.unreadable[self.listed :]]
        with open(self.journal, "ab") as file:
            file.write(json.dumps(step).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.listed = len(self.unreadable)

    def finish(self, path: Path) -> None:
        self._write_header()
        _flush(self.array)
        os.replace(self.array, path)

    def remove(self) -> None:
        self.array.unlink(missing_ok=True)
        self.journal.unlink()

    def _add_new(self, faces: list[bytes]) -> bytes:
        """Take note of the faces that were not seen before, and return their pixels."""
        before, new = self.kept, []
        for face in faces:
            fingerprint = _fingerprint(face)
            if fingerprint not in self.seen:
                self.seen.add(fingerprint)
                new.append(face)
        pixels = b"".join(new)
        images = np.frombuffer(pixels, np.uint8).reshape(-1, self.size, self.size, 3)
        self.block_averages[before : self.kept] = block_averages(images)
        return pixels

    def _resume(self, digest: str) -> bool:
        if not (self.array.exists() and self.journal.exists()):
            return False
        lines = [line for line in self.journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        try:
            first, *steps = [json.loads(line) for line in lines]
        except ValueError:  # nothing, or what a power cut made of it
            return False
        files, kept, _ = steps[-1] if steps else (0, 0, [])
        face = self.size * self.size * 3
        if first != digest or self.array.stat().st_size < HEADER + kept * face:
            return False
        self.files = files
        self.unreadable = [(file, reason) for _, _, unreadable in steps for file, reason in unreadable]
        self.listed = len(self.unreadable)
        self.journal.write_bytes(b"".join(lines))
        with open(self.array, "rb+") as file:
            file.truncate(HEADER + kept * face)
            file.seek(HEADER)
            for start in range(0, kept, CHUNK):
                self._add_new([file.read(face) for _ in range(start, min(start + CHUNK, kept))])
        return True

    def _write_header(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.kept, self.size, self.size, 3)}
        with open(self.array, "rb+") as file:
            np.lib.format.write_array_header_1_0(file, header)  # padded, so that it fits whatever the count


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _publish(report: Report, part: _Part, families: np.ndarray) -> None:
    """Put the files in their places, the manifest last: until then the set that was there before counts."""
    with atomic_file(report.families_path) as path:
        np.save(path, families)
    part.finish(report.images_path)
    manifest = asdict(report)
    del manifest["folder"]  # a cache folder may be moved
    with atomic_file(report.folder / "manifest.json") as path:
        path.write_text(json.dumps(manifest, indent=1))
    part.journal.unlink()
    for path in {*report.folder.glob("*-*.npy")} - {report.images_path, report.families_path}:
        with suppress(PermissionError):  # Windows, while somebody looks at the older faces
            path.unlink()


@contextmanager
def _explain_full_disk(folder: Path, need: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(
            error.errno,
            f"the disk is full: {folder} needs up to {need / 1e6:,.0f} MB. Make room and run the same again: it goes "
            "on where it stopped. Or set VAELIB_CACHE to a folder on another disk",
        ) from error
