"""The pictures in zips, tars and folders, whoever made them: what can be read, and why the rest is passed over.

Nothing is unpacked but an archive in an archive, to a temporary file without a name; so no name, link or bomb can reach
the disk. What is unreasonable is listed.
"""

import errno
import hashlib
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

PICTURE_ENDINGS = (".apng", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp")
# Pictures all the same, and so told apart from files that are none.
UNREAD_ENDINGS = (
    *(
        ".arw",
        ".avif",
        ".cr2",
        ".dib",
        ".dng",
        ".eps",
        ".exr",
        ".hdr",
        ".heic",
        ".heif",
        ".ico",
        ".j2k",
        ".jp2",
        ".jpf",
    ),
    *(".jpx", ".jxl", ".kra", ".nef", ".pbm", ".pgm", ".pnm", ".ppm", ".psd", ".svg", ".tga", ".xcf"),
)
UNREAD_ARCHIVE_ENDINGS = (".001", ".7z", ".lz4", ".rar", ".z01", ".zst")
ARCHIVE_ENDINGS = (".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
MAX_FILE_BYTES = 100_000_000
MAX_LIST_BYTES = 32_000_000  # of the list of files in a zip, which Python reads whole and 15 times as large
MAX_ARCHIVES = 100  # in one folder or archive: each stays open as long as it is read from
MAX_RATIO = 20  # of an archive in an archive, unpacked, to what it takes there: pictures are hardly compressed
MAX_TAR_BYTES = 200_000_000_000  # that a compressed tar may unpack to: all of it is read to list it
MAX_NAME_BYTES = 1_000_000  # of a name in a tar, with all that a member's extended header holds
PASSWORD = 0x1  # a zip member's flag
COMPRESSED = (
    "compressed, but no tar archive, or one without its end: download it again, or unpack it and prepare the folder"
)
KINDS = (
    {  # by the first bytes: what is neither a folder nor an archive that is read here, and what to do about it
        b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it and prepare the folder",
        b"Rar!": "a RAR archive: unpack it and prepare the folder",
        b"\x28\xb5\x2f\xfd": "a Zstandard archive: unpack it and prepare the folder",
        b"\x04\x22\x4d\x18": "an LZ4 archive: unpack it and prepare the folder",
        b"%PDF": "a PDF file: export its pictures and prepare their folder",
        b"PK": "a part of a split zip, or a zip without its end: download it again, or join all parts "
        "(zip -s 0 SET.zip --out WHOLE.zip)",
    }
    | dict.fromkeys(
        (
            b"\xff\xd8\xff",
            b"\x89PNG",
            b"GIF8",
            b"BM",
            b"RIFF",
            b"II*\x00",
            b"MM\x00*",
            b"\0\0\0\x0cjP",
            b"<svg",
            b"<?xml",
        ),
        "a single picture: prepare the folder that holds it and the others",
    )
    | dict.fromkeys((b"\x1f\x8b", b"BZh", b"\xfd7zXZ"), COMPRESSED)
)
OTHER_ARCHIVES = (b"7z", b"Rar!", b"\x28\xb5\x2f\xfd")  # which may hold a zip that would be taken for the whole


@dataclass(frozen=True)
class Source:
    """Pictures: `files` are their names, `sizes` their bytes, and `read(i)` returns the i-th.

    They come in the order of their names; those of a compressed tar as they lie there, since it can only be read from
    front to back. `skipped` lists (file, reason) of pictures passed over, `others` counts the files that are no
    pictures by name. `digest` comes from names, sizes and times of change, in an archive from its own time too.
    """

    path: Path
    files: list[str]
    sizes: list[int]
    skipped: list[tuple[str, str]]
    others: int
    digest: str
    read: Callable[[int], bytes]


class SourceFailed(OSError):
    """A source that can't be read at this moment, as of a drive that went away: no picture's fault."""


def open_source(*paths: Path) -> Source:
    """Look into folders and archives (zip, tar), at any depth, and into the archives in them.

    Raises `FileNotFoundError` if one is missing, `ValueError` for another kind of file, a damaged or unreasonable
    archive, or where no picture is left, `SourceFailed` where a disk fails.
    """
    found = [_open(path) for path in paths]
    if len(found) == 1:
        source = found[0]
    else:
        source = _join(paths[0], [(place_of(path), part) for path, part in zip(paths, found, strict=True)])
        empty = [path for path, part in zip(paths, found, strict=True) if not part.files]
        source.skipped.extend((place_of(path), "holds no pictures") for path in empty)
    if not source.files:
        passed_over = "".join(f"; {printable(file)}: {reason}" for file, reason in source.skipped[:1])
        raise ValueError(
            f"{', '.join(map(str, paths))} holds no pictures, expected names that end in "
            f"{', '.join(PICTURE_ENDINGS)}{passed_over}"
        )
    return source


def place_of(path: Path) -> str:
    """The end of a path, which tells it from others and a known data set from any."""
    return "/".join(path.parts[-2:])


def digest_of(facts: Iterable) -> str:
    return hashlib.blake2b(repr(list(facts)).encode(errors="surrogateescape"), digest_size=8).hexdigest()


def printable(name: str) -> str:
    """A file's name without what a terminal would obey or could not show."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _open(path: Path) -> Source:
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a zip file or a folder of pictures")
    return _open_archive(path, open(path, "rb"))


def _open_archive(path: Path, file: BinaryIO, inner: bool = False) -> Source:
    """A zip or tar called `path`, whose content is `file`; `inner` where it lies in another archive."""
    file.seek(0)
    first = file.read(262)
    is_tar = first[257:] == b"ustar"  # a zip that lies last in it would be taken for the whole
    if not is_tar and not first.startswith(OTHER_ARCHIVES) and zipfile.is_zipfile(file):
        return _open_zip(path, file, inner)
    file.seek(0)
    try:
        archive = tarfile.open(fileobj=file, mode="r:*", tarinfo=_BoundedTarInfo)  # noqa: SIM115
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError):
        first = b"\x89PNG" if first[4:8] == b"ftyp" else first  # AVIF, HEIC: a picture, too
        known = next((told for start, told in KINDS.items() if first.startswith(start)), None)
        told = (
            f"but {known}"
            if known
            else ("and perhaps an error page or an unfinished download: look at its size and download it again")
        )
        raise ValueError(f"{path} is neither a folder nor a zip file nor a tar, {told}") from None
    return _open_tar(path, archive)


def _join(path: Path, parts: list[tuple[str, Source]]) -> Source:
    """Several sources as one; each file's name begins with its source's, unless that is empty."""
    places = [(part, i) for _, part in parts for i in range(len(part.files))]

    def named(name: str, file: str) -> str:
        return f"{name}/{file}" if name else file

    return Source(
        path,
        [named(name, file) for name, part in parts for file in part.files],
        [size for _, part in parts for size in part.sizes],
        [(named(name, file), reason) for name, part in parts for file, reason in part.skipped],
        sum(part.others for _, part in parts),
        digest_of(part.digest for _, part in parts),
        read=lambda i: places[i][0].read(places[i][1]),
    )


def _with_inner(outer: Source, names: list[str], open_inner: Callable[[str], Source]) -> Source:
    """`outer` and the archives called `names` in it; one that can't be opened is a line among those skipped."""
    parts = [("", outer)]
    outer.skipped.extend(
        (name, f"one of more than {MAX_ARCHIVES} archives: unpack it") for name in names[MAX_ARCHIVES:]
    )
    for name in names[:MAX_ARCHIVES]:
        try:
            parts.append((name, open_inner(name)))
        except ValueError as error:
            outer.skipped.append((name, str(error)))
    return _join(outer.path, parts) if len(parts) > 1 else outer


# ------------------------------------------------------------------------------------------------- folders


def _open_folder(path: Path) -> Source:
    """All below `path`, links followed; a folder that is reached twice, as by a link back, is read once."""
    paths, skipped, reached = {}, [], set()

    def pass_over(error: OSError) -> None:
        name = Path(error.filename).relative_to(path).as_posix()
        if Path(error.filename).is_symlink() and not Path(error.filename).exists():
            skipped.append((name, "a link that leads nowhere"))
        elif error.errno in (errno.EACCES, errno.EPERM):
            skipped.append((name, "may not be opened"))
        else:
            raise SourceFailed(error.errno, f"{error.filename} can't be read ({error.strerror}): try again later")

    for folder, folders, names in os.walk(path, onerror=pass_over, followlinks=True):
        facts = os.stat(folder)
        if (facts.st_dev, facts.st_ino) in reached:
            folders.clear()
            continue
        reached.add((facts.st_dev, facts.st_ino))
        for file in (Path(folder, name) for name in names):
            try:
                facts = file.stat()
            except OSError as error:
                pass_over(error)
            else:
                if stat.S_ISREG(facts.st_mode):
                    paths[file.relative_to(path).as_posix()] = file, facts

    found = {name: paths[name][1] for name in sorted(paths) if _is_picture(name)}
    archives = [name for name in sorted(paths) if _is_archive(name)]
    too_large = {name: reason for name, facts in found.items() if (reason := _too_large(facts.st_size))}
    files = [name for name in found if name not in too_large]
    unread = _unread(sorted(paths))

    def read(i: int) -> bytes:
        content, size = paths[files[i]][0].read_bytes(), found[files[i]].st_size
        if len(content) < size:
            raise OSError(errno.EIO, f"{len(content):,} of {size:,} bytes came")
        return content

    source = Source(
        path,
        files,
        [found[name].st_size for name in files],
        list(too_large.items()) + unread + sorted(skipped),
        len(paths) - len(found) - len(unread) - len(archives),
        digest_of((name, facts.st_size, facts.st_mtime_ns) for name, facts in found.items()),
        read,
    )
    return _with_inner(source, archives, lambda name: _open(paths[name][0]))


# ------------------------------------------------------------------------------------------------- zip


def _open_zip(path: Path, file: BinaryIO, inner: bool) -> Source:
    size, part = _end_of_zip(file)
    if size > MAX_LIST_BYTES:
        raise ValueError(
            f"{path} lists its files in {size:,} bytes, expected at most {MAX_LIST_BYTES:,}, enough for some 500,000: "
            "unpack it and prepare the folder"
        )
    if part:
        raise ValueError(
            f"{path} is the last of {part + 1} parts of a split zip: join them (zip -s 0 {path.name} --out WHOLE.zip), "
            "or unpack them and prepare the folder"
        )
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is a damaged zip file ({error}): download it again, or pack it anew") from error
    members = [member for member in archive.infolist() if not member.is_dir()]
    if any(member.header_offset < 0 for member in members):
        raise ValueError(f"{path} is a damaged zip file (its beginning is missing): download it again, or pack it anew")
    pictures = sorted((m for m in members if _is_picture(m.filename)), key=lambda member: member.filename)
    archives = {_slashes(m.filename): m for m in members if _is_archive(m.filename)}
    unread = _unread(_slashes(member.filename) for member in members)
    last = {member.filename: member for member in pictures}
    kept, skipped = [], []
    for member in pictures:
        if reason := _reason_to_skip(member, last):
            skipped.append((member.filename, reason))
        else:
            kept.append(member)

    def read(i: int) -> bytes:
        with archive.open(kept[i]) as content:
            return content.read(kept[i].file_size)  # without a number, a member that lies about its size is inflated

    def open_inner(name: str) -> Source:
        member = archives[name]
        most = MAX_RATIO * member.compress_size + MAX_NAME_BYTES
        if inner or (reason := _reason_to_skip(member, {member.filename: member}, most)):
            raise ValueError("an archive in an archive in an archive: unpack it" if inner else reason)
        copy = TemporaryFile()  # noqa: SIM115 (open as long as it is read from)
        try:
            with archive.open(member) as content:
                shutil.copyfileobj(content, copy)
        except (zipfile.BadZipFile, RuntimeError, zlib.error, EOFError) as error:
            raise ValueError(f"damaged: {error}") from error
        return _open_archive(Path(name), copy, inner=True)

    source = Source(
        path,
        [_slashes(member.filename) for member in kept],
        [member.file_size for member in kept],
        skipped + unread,
        len(members) - len(pictures) - len(unread) - len(archives),
        digest_of([*_times(path), *((m.filename, m.file_size, m.CRC) for m in pictures)]),
        read,
    )
    return _with_inner(source, sorted(archives), open_inner)


def _end_of_zip(file: BinaryIO) -> tuple[int, int]:
    """Bytes that `ZipFile` will read as the list of files, and the number of the part that this is, 0 for the only."""
    # Not public, but the very record that ZipFile goes by, which a reading of our own might miss.
    end = zipfile._EndRecData(file)
    return end[zipfile._ECD_SIZE], end[zipfile._ECD_DISK_NUMBER]


def _reason_to_skip(
    member: zipfile.ZipInfo, last: dict[str, zipfile.ZipInfo], most: int = MAX_FILE_BYTES
) -> str | None:
    name = member.filename
    if _leads_out(name):
        return "its name leads out of the folder"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "a link"
    if last[name] is not member:  # as when unpacking: the last one counts
        return "another file of this name comes later"
    if member.flag_bits & PASSWORD:
        return "locked with a password"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "compressed in an unusual way"  # which Python inflates without bounds
    return _too_large(member.file_size, most)


# ------------------------------------------------------------------------------------------------- tar


class _BoundedTarInfo(tarfile.TarInfo):
    """Refuses names and extended headers beyond reason, which tarfile reads whole."""

    def _proc_member(self, archive: tarfile.TarFile):
        plain = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE)
        if self.type not in plain and self.size > MAX_NAME_BYTES:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes, expected at most {MAX_NAME_BYTES:,}")
        return super()._proc_member(archive)


def _open_tar(path: Path, archive: tarfile.TarFile) -> Source:
    try:
        members = []
        for member in archive:
            members.append(member)
            if member.offset_data + member.size > MAX_TAR_BYTES:
                raise ValueError(
                    f"{path} unpacks to more than {MAX_TAR_BYTES:,} bytes: unpack it and prepare the folder"
                )
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is a damaged tar archive ({error}): download it again, or pack it anew") from error
    members = [member for member in members if not member.isdir()]
    pictures = [member for member in members if _is_picture(member.name)]
    unread = _unread(member.name for member in members)
    archives = [(m.name, "an archive in a tar: unpack it") for m in members if _is_archive(m.name)]
    last = {member.name: member for member in pictures}
    reasons = [_reason_to_skip_in_tar(member, last) for member in pictures]
    kept = [member for member, reason in zip(pictures, reasons, strict=True) if not reason]

    def read(i: int) -> bytes:
        return archive.extractfile(kept[i]).read()

    return Source(
        path,
        [member.name for member in kept],
        [member.size for member in kept],
        [(m.name, reason) for m, reason in zip(pictures, reasons, strict=True) if reason] + unread + archives,
        len(members) - len(pictures) - len(unread) - len(archives),
        digest_of([*_times(path), *((m.name, m.size, m.mtime) for m in pictures)]),
        read,
    )


def _reason_to_skip_in_tar(member: tarfile.TarInfo, last: dict[str, tarfile.TarInfo]) -> str | None:
    if member.issym() or member.islnk():
        return "a link"
    if not member.isreg() or _leads_out(member.name):
        return "its name leads out of the folder" if member.isreg() else "no ordinary file"
    try:
        tarfile.data_filter(member, os.path.abspath("."))  # what Python itself would not unpack
    except tarfile.FilterError as error:
        return str(error)
    if last[member.name] is not member:
        return "another file of this name comes later"
    return _too_large(member.size)


# ------------------------------------------------------------------------------------------------- names


def _unread(names: Iterable[str]) -> list[tuple[str, str]]:
    """What a person would call a picture, or an archive of them, and is not read here."""
    return [
        (name, reason)
        for name in names
        for endings, reason in (
            (UNREAD_ENDINGS, "a format that is not read here: convert it to PNG or JPEG"),
            (UNREAD_ARCHIVE_ENDINGS, "an archive that is not read here: unpack it"),
        )
        if _is_picture(name, endings)
    ]


def _times(path: Path) -> tuple[int, ...]:
    """Size and time of change of an archive; nothing for one inside another, which has neither."""
    facts = path.stat() if path.is_absolute() else None
    return (facts.st_size, facts.st_mtime_ns) if facts else ()


def _slashes(name: str) -> str:
    """Windows PowerShell packs names with backslashes."""
    return name.replace("\\", "/")


def _leads_out(name: str) -> bool:
    return bool(name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name))


def _too_large(size: int, most: int = MAX_FILE_BYTES) -> str | None:
    return f"{size:,} bytes, more than {most:,}" if size > most else None


def _is_picture(name: str, endings: tuple[str, ...] = PICTURE_ENDINGS) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) and part not in (".", "..") for part in re.split(r"[/\\]", name))
    return name.lower().endswith(endings) and not hidden


def _is_archive(name: str) -> bool:
    return _is_picture(name, ARCHIVE_ENDINGS)
