"""Where files live, and how they are read and written: whole, or not at all."""

import errno
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

import platformdirs
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

MAX_TEXT_BYTES = 4_000_000  # of a card, a config, a manifest
MAX_HEADER_BYTES = 8_000_000  # of a safetensors file, which lists its tensors: some 80,000
MAX_SIDE = 4096  # pixels of a picture
MAX_SET_BYTES = 1_000_000_000_000  # of all faces of a set
NO_WRITING = {
    errno.ENOSPC: "the disk is full",
    errno.EFBIG: "the file would be larger than is allowed there",
    errno.EROFS: "that disk can only be read",
    errno.EACCES: "that is not allowed",
    errno.EPERM: "that is not allowed",
    errno.ELOOP: "it is a link to another place",
} | ({errno.EDQUOT: "your share of the disk is used up"} if hasattr(errno, "EDQUOT") else {})


def cache_folder(*parts: str) -> Path:
    """A folder under `VAELIB_CACHE` (default: the platform's cache folder), made if missing."""
    root = os.environ.get("VAELIB_CACHE") or _platform_cache()
    folder = expand(root).joinpath(*parts)
    if str(folder).startswith("~"):
        raise ValueError(f"got VAELIB_CACHE={root!r}, expected a folder: there is no such home folder")
    with explain_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _platform_cache() -> str:
    try:
        return platformdirs.user_cache_dir("vaelib", appauthor=False)
    except RuntimeError as error:
        raise ValueError("this user has no home folder to keep a cache in: set VAELIB_CACHE to a folder") from error


def expand(path: str | Path) -> Path:
    """`path` with ~ for the home folder; as it is where there is no such home, or a file of that very name."""
    path = Path(path)
    if path.exists():
        return path
    try:
        return path.expanduser()
    except RuntimeError:  # ~name of nobody, or no home folder at all
        return path


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Hand out a temporary path beside `path`; on success fsync it and rename it to `path`, on error remove it.

    A crash at any moment leaves `path` either as it was or complete. The folder must exist. What a process that was
    killed left in it goes.
    """
    path = Path(path)
    _sweep(path.parent)
    part = path.parent / f"{_prefix()}{os.getpid()}-{token_hex(4)}-{path.name}"  # numpy and Pillow go by the ending
    try:
        with explain_disk(path.parent):
            yield part
            put(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """A folder in `folder` for files that are not complete, gone afterwards: `put` gives them their places."""
    _sweep(folder)
    with explain_disk(folder), TemporaryDirectory(prefix=f"{_prefix()}{os.getpid()}-", dir=folder) as part:
        yield Path(part)


def put(part: Path, path: Path) -> None:
    """Make sure that a complete file is on the disk, and only then give it its name."""
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def _prefix() -> str:
    return f".part-{socket.gethostname()}-"


def _sweep(folder: Path) -> None:
    for left in folder.glob(".part-*"):
        process = left.name.removeprefix(_prefix()).removeprefix(".part-").partition("-")[0]  # or an earlier version's
        if process.isdigit() and not _is_running(int(process)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name == "nt":  # where asking would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`. After a second of waiting for another process it says for `what`."""
    lock = FileLock(path)
    with explain_disk(path.parent):
        try:
            lock.acquire(timeout=1)
        except Timeout:
            tqdm.write(f"{what} is in the hands of another process: waiting until that ends (lock file {path})")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def explain_disk(folder: Path, need: str = "") -> Iterator[None]:
    """An `OSError` of a disk on which nothing can be written says so, and what can be done.

    safetensors has errors of its own, with the system's number in their text.
    """
    try:
        yield
    except Exception as error:
        told = re.search(r"os error (\d+)", str(error)) if type(error).__name__ == "SafetensorError" else None
        number = int(told[1]) if told else getattr(error, "errno", None) if isinstance(error, OSError) else None
        if number not in NO_WRITING or "VAELIB_CACHE" in str(error):
            raise
        where = getattr(error, "filename", None) or folder
        raise OSError(
            number,
            f"can't write {where}: {NO_WRITING[number]}{need}. Mend that and run the same again, or choose another "
            "folder: VAELIB_CACHE for the cache, --folder for a run",
        ) from error


def check_side(size: int, count: int = 1) -> None:
    """`ValueError` unless pictures of `size` pixels a side are possible, with the bytes that `count` of them take."""
    if size < 1:
        raise ValueError(f"got size={size}, expected a positive number of pixels such as 64")
    need = 3 * size**2 * max(1, count)
    if size > MAX_SIDE or need > MAX_SET_BYTES:
        raise ValueError(
            f"got size={size}, expected at most {MAX_SIDE:,} pixels, and {MAX_SET_BYTES / 1e9:,.0f} GB in all: "
            f"{max(1, count):,} faces of that side would take {need / 1e9:,.1f} GB"
        )


def read_text(path: Path, most: int = MAX_TEXT_BYTES) -> str:
    """The UTF-8 text of an ordinary file of at most `most` bytes. `ValueError` for any other, `OSError` if it fails."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no ordinary file, expected one with text")
    with open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path} is larger than {most:,} bytes, too large for a file of settings")
    return content.decode()


def check_header(content: bytes, title: object) -> None:
    """`ValueError` where `content`, the first bytes of a safetensors file, announces a list of tensors beyond reason.

    To read a list of 100 MB, which safetensors allows, takes minutes.
    """
    length = int.from_bytes(content[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"{title} lists its tensors in {length:,} bytes, expected at most {MAX_HEADER_BYTES:,}")


def read_tensors(path: Path) -> dict:
    """The tensors of a safetensors file, by name. `ValueError` for a list beyond reason, else as safetensors does."""
    from safetensors.torch import load_file

    with open(path, "rb") as file:
        check_header(file.read(8), path)
    return load_file(path)


def checked_tensor(name: str, tensor, shape: tuple[int, ...]):
    """`tensor` as float32. `ValueError`, with its `name`, unless it has `shape` and holds finite real numbers."""
    real = tensor.is_floating_point()
    if not real or tuple(tensor.shape) != tuple(shape) or not tensor.isfinite().all():
        kind = str(tensor.dtype).removeprefix("torch.")
        infinite = int((~tensor.isfinite()).sum()) if real else 0
        raise ValueError(
            f"{name}: got {kind} {tuple(tensor.shape)}, {infinite} of its numbers not finite; expected finite real "
            f"numbers {tuple(shape)}"
        )
    return tensor.float()
