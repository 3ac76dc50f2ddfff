"""The pictures in a zip or a folder, whoever made it: what can be read, and why the rest is passed over.

Nothing is unpacked, so no name, link or bomb in an archive can reach the disk; what is unreasonable is listed.
"""

import hashlib
import re
import stat
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

PICTURE_ENDINGS = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_FILE_BYTES = 100_000_000
MAX_LIST_BYTES = 32_000_000  # of the list of files in a zip, which Python reads whole and 15 times as large


@dataclass(frozen=True)
class Source:
    """Pictures in name order: `files` are their names, `sizes` their bytes, and `read(i)` returns the i-th.

    `skipped` lists (file, reason) of pictures passed over, `others` counts the files that are no pictures by name.
    `digest` comes from names, sizes and times of change, in a zip from its own time too.
    """

    path: Path
    files: list[str]
    sizes: list[int]
    skipped: list[tuple[str, str]]
    others: int
    digest: str
    read: Callable[[int], bytes]


def open_source(path: Path) -> Source:
    """Look into a zip or a folder, at any depth.

    Raises `FileNotFoundError` if there is none, `ValueError` for another kind of file, a damaged or unreasonable zip,
    or where no picture is left.
    """
    if path.is_dir():
        source = _open_folder(path)
    elif not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a zip file or a folder of pictures")
    elif zipfile.is_zipfile(path):
        source = _open_zip(path)
    else:
        raise ValueError(
            f"{path} is neither a folder nor a zip file. If it came from the web, it may be an error page "
            "or an unfinished download: look at its size and download it again."
        )
    if not source.files:
        passed_over = "".join(f"; {printable(file)}: {reason}" for file, reason in source.skipped[:1])
        raise ValueError(
            f"{path} holds no pictures, expected names that end in {', '.join(PICTURE_ENDINGS)}{passed_over}"
        )
    return source


def digest_of(facts: Iterable) -> str:
    return hashlib.blake2b(repr(list(facts)).encode(errors="surrogateescape"), digest_size=8).hexdigest()


def printable(name: str) -> str:
    """A file's name without what a terminal would obey or could not show."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _open_folder(path: Path) -> Source:
    paths = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    found = {name: paths[name].stat() for name in sorted(paths) if _is_picture(name)}
    too_large = {name: reason for name, facts in found.items() if (reason := _too_large(facts.st_size))}
    files = [name for name in found if name not in too_large]
    return Source(
        path,
        files,
        [found[name].st_size for name in files],
        list(too_large.items()),
        len(paths) - len(found),
        digest_of((name, facts.st_size, facts.st_mtime_ns) for name, facts in found.items()),
        read=lambda i: paths[files[i]].read_bytes(),
    )


def _open_zip(path: Path) -> Source:
    if (size := _size_of_list(path)) > MAX_LIST_BYTES:
        raise ValueError(
            f"{path} lists its files in {size:,} bytes, expected at most {MAX_LIST_BYTES:,}, enough for some 500,000: "
            "unpack it and prepare the folder"
        )
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is a damaged zip file ({error}): download it again, or pack it anew") from error
    members = [member for member in archive.infolist() if not member.is_dir()]
    pictures = sorted((m for m in members if _is_picture(m.filename)), key=lambda member: member.filename)
    last = {member.filename: member for member in pictures}
    kept, skipped = [], []
    for member in pictures:
        if reason := _reason_to_skip(member, last):
            skipped.append((member.filename, reason))
        else:
            kept.append(member)

    def read(i: int) -> bytes:
        with archive.open(kept[i]) as file:
            return file.read(kept[i].file_size)  # without a number, a member that lies about its size is inflated

    facts = path.stat()
    return Source(
        path,
        [member.filename for member in kept],
        [member.file_size for member in kept],
        skipped,
        len(members) - len(pictures),
        digest_of([facts.st_size, facts.st_mtime_ns, *((m.filename, m.file_size, m.CRC) for m in pictures)]),
        read,
    )


def _size_of_list(path: Path) -> int:
    """Bytes that `ZipFile` will read as the list of files."""
    with open(path, "rb") as file:
        # Not public, but the very number that ZipFile goes by, which a reading of our own might miss.
        return zipfile._EndRecData(file)[zipfile._ECD_SIZE]


def _reason_to_skip(member: zipfile.ZipInfo, last: dict[str, zipfile.ZipInfo]) -> str | None:
    name = member.filename
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
        return "its name leads out of the folder"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "a link"
    if last[name] is not member:  # as when unpacking: the last one counts
        return "another file of this name comes later"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "compressed in an unusual way"  # which Python inflates without bounds
    return _too_large(member.file_size)


def _too_large(size: int) -> str | None:
    return f"{size:,} bytes, more than {MAX_FILE_BYTES:,}" if size > MAX_FILE_BYTES else None


def _is_picture(name: str) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) and part not in (".", "..") for part in re.split(r"[/\\]", name))
    return name.lower().endswith(PICTURE_ENDINGS) and not hidden
