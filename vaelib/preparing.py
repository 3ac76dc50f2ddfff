"""Zips, tars or folders of pictures -> one uint8 array of distinct faces on disk, and a report.

    python -m vaelib prepare animefacedataset.zip
    python -m vaelib prepare my_pictures/ --name mine
    python -m vaelib prepare part1.zip part2.zip --name mine

Pictures are read straight from the archive: nothing is unpacked. The set goes to `faces/NAME-SIZE/` in the cache
folder, where `load_faces(NAME)` finds it: an array of images, one of family numbers and, written last, `manifest.json`.
Work that was stopped, by whatever means, goes on where it was; a second call finds nothing to do.
"""

import errno
import hashlib
import json
import os
import re
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from PIL import UnidentifiedImageError
from tqdm.auto import tqdm

from vaelib.families import NEAR, TooAlike, block_averages, link_families
from vaelib.pictures import open_picture, to_face
from vaelib.sources import Source, SourceFailed, digest_of, open_source, place_of, printable
from vaelib.storage import atomic_file, cache_folder, check_side, expand, explain_disk, locked, read_text

VERSION = 3  # raise it when the same source would give other bytes: sets prepared before are then prepared anew
REFUSED = "may not be read"
SEVERAL = " + "  # between the sources of one set
FEW_FAMILIES = 4  # so few that train or test would be of a single picture
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
    "anime": Layout(re.compile(r"(^|/)images(\.\w+)?/\d+_\d{4}\.jpg$"), crop=1.0, near=NEAR),
    # Google's own downloads have no folders by number, or other endings; its names alone, of 20 digits, tell them too.
    "cartoon": Layout(
        re.compile(r"(^|/)(cartoonset10+k[^/]*/(\d/)?cs\d+|cs\d{15,20})\.(jpg|png)$"), crop=0.7, near=0.0
    ),
}


@dataclass(frozen=True)
class Report:
    """What `prepare` made of a source; it is also the manifest of the prepared set.

    `read` pictures could be decoded; `kept` of them are distinct, the rest `duplicates`. Those kept make up `families`
    of pictures nearer than `near`, the largest of `largest_family` members. `alike` above 0 says that so many would
    have been one family, and near copies were let be. `unreadable` lists (file, reason) of pictures passed over, and
    `others` counts the files that are no pictures by name. `pixels` is a digest of the array, "" in older manifests.
    `images_path` is the array, uint8 (kept, size, size, 3), and `families_path` int64 (kept,).
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
    pixels: str = ""

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
            f"{SEVERAL.join(Path(source).name for source in self.source.split(SEVERAL))} -> {self.name!r}",
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
        if self.near and self.families < min(FEW_FAMILIES, self.kept):
            lines.append(
                "         which is too few to train and test on: near=0 (--near 0) takes near copies as different"
            )
        if self.others:
            lines.append(f"{self.others:>8,} other files, by their names no pictures")
        return "\n".join([*lines, f"written to {self.folder}"])

    def open_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """(images, families), memory-mapped. `ValueError` where they are not what this report says."""
        shape = (self.kept, self.size, self.size, 3)
        return open_array(self.images_path, shape, np.uint8), open_array(self.families_path, (self.kept,), np.int64)

    def is_complete(self) -> bool:
        """Whether the arrays are there, and what they should be, to the last pixel."""
        try:
            images, _ = self.open_arrays()
        except ValueError:
            return False
        return not self.pixels or self.pixels == _digest_of_pixels(images)


def open_array(path: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """The array in a .npy file, memory-mapped. `ValueError` unless it is of that shape and type."""
    try:
        array = np.load(path, mmap_mode="r")
    except Exception as error:  # whatever numpy makes of a header with a wrong bit
        raise ValueError(f"{path} is damaged ({error}); prepare the faces again, or delete its folder") from error
    whole = path.stat().st_size == array.offset + array.nbytes and array.flags.c_contiguous
    if array.shape != shape or array.dtype != dtype or not whole:
        raise ValueError(
            f"{path} is damaged (it holds {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}); prepare "
            "the faces again, or delete its folder"
        )
    return array


def _digest_of_pixels(images: np.ndarray) -> str:
    return hashlib.blake2b(memoryview(np.ascontiguousarray(images)).cast("B"), digest_size=16).hexdigest()


def prepare(
    source: str | Path | Sequence[str | Path],
    name: str | None = None,
    size: int = 64,
    crop: float | None = None,
    near: float | None = None,
    progress: bool = True,
) -> Report:
    """Turn a zip or tar file or a folder of pictures, or several, into one array of distinct faces, and say how.

    Each picture becomes RGB, its largest middle square times `crop` (0 to 1; default: what the layout asks for,
    else 1) is cut out and scaled to `size`×`size` pixels by Lanczos. Pictures equal in every resulting pixel are
    kept once, the first in file-name order. Near copies are all kept, and share a family: see `find_families`. `near`
    defaults to what the layout asks for, else to 0.07, unless that would make more than a quarter of all pictures one
    family: these are then taken to be alike without being copies, as with `near=0`, and the report says so.

    The two Kaggle archives are known by their layout and named `anime` and `cartoon`; anything else takes `name`, or
    the name of the (first) file or folder. Broken and unreasonable files become lines of the report. Where the same
    source, unchanged, was prepared before in the same way, and each pixel is still there, its report comes back.

    Raises `FileNotFoundError` if `source` is missing, `ValueError` if it is no zip or tar, holds no picture, holds none
    that can be read, if `name`, `size`, `crop` or `near` are out of range, or if no `name` is given and a set made from
    another source has the name; `OSError` where a disk is full or fails, or most pictures may not be read. What was
    done by then is not lost, and a set that was there before stays.
    """
    given = [source] if isinstance(source, str | Path) else source
    paths = [expand(path).resolve() for path in given]
    source, told_of = open_source(*paths), SEVERAL.join(map(str, paths))
    # A source's own name and that of the folder above count too: people point at the set, or at a folder in it.
    above = f"{place_of(paths[0])}/" if len(paths) == 1 else ""
    known, layout = recognise([above + file for file in source.files])
    if crop is None:
        crop = layout.crop if layout else 1.0
    if near is None and layout:
        near = layout.near
    check_side(size, len(source.files))
    if not 0 < crop <= 1:
        raise ValueError(f"got crop={crop}, expected a fraction of the picture, above 0 and at most 1")
    if near is not None and not near >= 0:
        raise ValueError(f"got near={near}, expected a distance between pictures, 0 or more, such as {NEAR}")
    digest = digest_of([VERSION, source.digest, size, crop, near])
    told, name = name, _checked(name) if name else known or _name_of(source.path)
    if done := _find(name, size, digest):
        return done
    folder = prepared_folder(name, size)
    with explain_disk(folder):
        folder.mkdir(exist_ok=True)
    need = f" ({folder} needs up to {len(source.files) * size * size * 3 / 1e6:,.0f} MB; the work goes on where it was)"
    with locked(folder / ".lock", f"the set {name!r}"), explain_disk(folder, need):
        if not told:
            _check_free(name, told_of, size, digest, known)
        if done := _find(name, size, digest):
            return done
        part = _Part(folder, digest, size, len(source.files))
        for n, results in enumerate(_decode_all(source, part.files, size, crop, progress), start=1):
            part.append(results)
            if n % CHECKPOINT == 0:
                part.checkpoint()
        part.checkpoint()
        if part.refused > part.read:
            part.remove()
            raise SourceFailed(
                errno.EIO,
                f"{part.refused} of the {len(source.files)} pictures in {source.path} may not be read, the first: "
                f"{printable(part.unreadable[0][0])}. Nothing was changed: look at the drive, or at who may read the "
                "files, and run it again",
            )
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
            source=told_of,
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
        return _publish(report, part, families)


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
        manifest = json.loads(read_text(folder / "manifest.json"))
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


def _is_name(name: str) -> bool:
    return bool(re.fullmatch(r"\w[\w .-]{0,99}", name))


def _checked(name: str) -> str:
    if not _is_name(name):
        raise ValueError(f"got name={name!r}, expected at most 100 letters and digits, such as my-faces")
    if _is_drawn(name):
        raise ValueError(f"got name={name!r}, expected another one: the built-in, drawn faces are called so")
    return name


def _is_drawn(name: str) -> bool:
    return name.startswith("drawn-") and name.removeprefix("drawn-") in LAYOUTS


def _name_of(path: Path) -> str:
    """The name of the file or folder, as a set's."""
    stem = path.name.removesuffix(".gz").removesuffix(".bz2").removesuffix(".xz") if path.is_file() else path.name
    return re.sub(r"\W+", "-", Path(stem).stem).strip("-").lower()[:100] or "faces"


def _find(name: str, size: int, digest: str) -> Report | None:
    """The report of a set that was made of the same in the same way, and is still whole."""
    done = read_report(name, size)
    return done if done and done.digest == digest and done.is_complete() else None


def _check_free(name: str, source: str, size: int, digest: str, known: str | None) -> None:
    """`ValueError` where other faces have that `name`, which nobody asked for."""
    other = read_report(name, size)
    if other and other.source != source and other.digest != digest:
        owner = f"those made from {other.source}"
    elif not known and (name in LAYOUTS or _is_drawn(name)):
        owner = "the built-in ones"
    else:
        return
    raise ValueError(
        f"{source} would be called {name!r}, like {owner}. Give these faces a name of their own, or this one to "
        "replace the others: name='…', or --name on the command line"
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
    tasks = (delayed(_decode)(contents(chunk), size, crop, os.getpid()) for chunk in chunks)
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
    except PermissionError:
        return REFUSED
    except OSError as error:
        if error.errno is None:  # of a broken archive
            return str(error) or type(error).__name__
        # A drive that fails, or went away, says nothing about the picture, and may be there again later.
        raise SourceFailed(
            error.errno,
            f"{printable(source.files[i])} was there a moment ago and can't be read now ({error.strerror}): is the "
            f"drive with {source.path} still there? Run it again: it goes on where it was",
        ) from error
    except Exception as error:  # a wrong checksum, a password: a line of the report
        return str(error) or type(error).__name__


def _fingerprint(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _decode(contents: list[bytes | str | None], size: int, crop: float, parent: int) -> list[bytes | str | None]:
    _end_with(parent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files: those that matter become reasons
        return [_decode_one(content, size, crop) if isinstance(content, bytes) else content for content in contents]


@cache
def _end_with(parent: int) -> None:
    """A process that decodes ends when the one it works for does, even if that was killed."""
    if os.name == "nt" or os.getpid() == parent:  # Windows: joblib ends it after some minutes
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _decode_one(content: bytes, size: int, crop: float) -> bytes | str:
    try:
        with open_picture(content) as image:
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
        for path in (self.array, self.journal):
            if path.is_symlink() or (path.exists() and path.stat().st_nlink > 1):  # not to be written through
                path.unlink()
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

    @property
    def refused(self) -> int:
        return sum(reason == REFUSED for _, reason in self.unreadable)

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


def _publish(report: Report, part: _Part, families: np.ndarray) -> Report:
    """Put the files in their places, the manifest last: until then the set that was there before counts."""
    with atomic_file(report.families_path) as path:
        np.save(path, families)
    part.finish(report.images_path)
    report = replace(report, pixels=_digest_of_pixels(report.open_arrays()[0]))
    manifest = asdict(report)
    del manifest["folder"]  # a cache folder may be moved
    with atomic_file(report.folder / "manifest.json") as path:
        path.write_text(json.dumps(manifest, indent=1))
    part.journal.unlink()
    for path in {*report.folder.glob("*-*.npy")} - {report.images_path, report.families_path}:
        with suppress(PermissionError):  # Windows, while somebody looks at the older faces
            path.unlink()
    return report
