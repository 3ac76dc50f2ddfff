"""Where files live, and how they are written: whole, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


def cache_folder(*parts: str) -> Path:
    """A folder under `VAELIB_CACHE` (default: the platform's cache folder), made if missing."""
    root = os.environ.get("VAELIB_CACHE") or platformdirs.user_cache_dir("vaelib", appauthor=False)
    folder = Path(root).expanduser().joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Hand out a temporary path beside `path`; on success fsync it and rename it to `path`, on error remove it.

    A crash at any moment leaves `path` either as it was or complete. The folder must exist.
    """
    path = Path(path)
    # Named after the process, so that two that write the same file do not meet; the ending stays, since
    # numpy and Pillow choose a format by it.
    part = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
