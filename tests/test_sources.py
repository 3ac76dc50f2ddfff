"""Archives that mean harm: nothing leaves the cache folder, nothing fills the memory, everything is reported."""

import io
import os
import shutil
import stat
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaelib.preparing import prepare
from vaelib.sources import MAX_FILE_BYTES, open_source, printable


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def write_zip(path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def files_outside(cache: Path, root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if cache not in path.parents and path != cache}


@pytest.mark.parametrize(
    "name", ["../evil.png", "a/../../evil.png", "/tmp/evil.png", "C:/evil.png", "..\\evil.png", "\\\\host\\evil.png"]
)
def test_a_name_that_leads_out_is_passed_over(tmp_path, empty_cache, name):
    source = write_zip(tmp_path / "faces.zip", [("good.png", picture(1)), (name, picture(2))])
    before = files_outside(empty_cache, tmp_path)
    report = prepare(source, size=32, progress=False)
    assert (report.kept, report.unreadable) == (1, [(name, "its name leads out of the folder")])
    assert files_outside(empty_cache, tmp_path) == before


def test_a_link_is_passed_over(tmp_path, empty_cache):
    link = zipfile.ZipInfo("passwords.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    source = write_zip(tmp_path / "faces.zip", [("good.png", picture(1)), (link, b"/etc/passwd")])
    report = prepare(source, size=32, progress=False)
    assert (report.kept, report.unreadable) == (1, [("passwords.png", "a link")])


def test_a_bomb_is_not_inflated(tmp_path, empty_cache):
    source = write_zip(tmp_path / "faces.zip", [("bomb.png", bytes(MAX_FILE_BYTES + 1)), ("good.png", picture(1))])
    assert source.stat().st_size < 200_000
    tracemalloc.start()
    report = prepare(source, size=32, progress=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.kept == 1
    assert report.unreadable == [("bomb.png", "100,000,001 bytes, more than 100,000,000")]
    assert peak < 20_000_000


@pytest.mark.parametrize(
    "method, reason",
    [
        (zipfile.ZIP_DEFLATED, "Bad CRC-32"),
        (zipfile.ZIP_BZIP2, "compressed in an unusual way"),
        (zipfile.ZIP_LZMA, "compressed in an unusual way"),
    ],
)
def test_a_member_that_lies_about_its_size_is_not_inflated(tmp_path, empty_cache, method, reason):
    source = tmp_path / "faces.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("good.png", picture(1))
        archive.writestr("liar.png", bytes(80_000_000), method)
    content, size = source.read_bytes(), struct.pack("<I", 80_000_000)
    assert content.count(size) >= 2  # in the list and beside the member
    source.write_bytes(content.replace(size, struct.pack("<I", 1000)))
    tracemalloc.start()
    report = prepare(source, size=32, progress=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    ((file, why),) = report.unreadable
    assert (report.kept, file) == (1, "liar.png") and reason in why
    assert peak < 20_000_000


def test_large_files_go_to_the_processes_few_at_a_time(tmp_path, empty_cache):
    """A thousand members of 3 MB each, all under the limit for one, in a zip of a few MB."""
    source = write_zip(tmp_path / "faces.zip", [(f"{i:04}.png", bytes(3_000_000)) for i in range(200)])
    tracemalloc.start()
    with pytest.raises(ValueError, match="none of the 200 pictures"):
        prepare(source, size=32, progress=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300_000_000


def zip_of_a_million(path: Path, size_said: int) -> Path:
    """One small file, listed a million times; `size_said` stands where the size does not fit."""
    name, content = b"0.png", b"x"
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 0, 0x8CDC1683, 1, 1, len(name), 0) + name + content
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0x8CDC1683, 1, 1, len(name), 0, 0, 0, 0, 0, 0)
    count, size, start = 1_000_000, 1_000_000 * len(entry + name), len(local)
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, start + size, 1)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 2**16 - 1, 2**16 - 1, size_said, 2**32 - 1, 0)
    path.write_bytes(local + (entry + name) * count + end64 + locator + end)
    return path


@pytest.mark.parametrize("size_said", [2**32 - 1, 100])
def test_a_million_tiny_members_are_refused_unread(tmp_path, empty_cache, size_said):
    source = zip_of_a_million(tmp_path / "faces.zip", size_said)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"lists its files in 51,000,000 bytes, .* unpack it and prepare the folder"):
        prepare(source, progress=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_many_members_that_are_no_pictures_are_lines_of_the_report(tmp_path, empty_cache):
    source = write_zip(tmp_path / "faces.zip", [(f"{i}.png", b"x") for i in range(600)] + [("ok.png", picture(1))])
    report = prepare(source, size=32, progress=False)
    assert (report.kept, len(report.unreadable)) == (1, 600)
    assert "… and 595 more" in str(report)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_files_of_one_name_the_last_counts(tmp_path, empty_cache):
    source = write_zip(tmp_path / "faces.zip", [("a.png", picture(1)), ("a.png", picture(2))])
    report = prepare(source, size=32, progress=False)
    assert report.unreadable == [("a.png", "another file of this name comes later")]
    np.testing.assert_array_equal(np.load(report.images_path)[0], np.asarray(Image.open(io.BytesIO(picture(2)))))


def test_a_locked_member_is_a_line_of_the_report(tmp_path, empty_cache):
    source = write_zip(tmp_path / "faces.zip", [("a.png", picture(1)), ("b.png", picture(2))])
    content = bytearray(source.read_bytes())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag that says "encrypted", in both headers
        content[content.index(signature) + at] |= 1
    source.write_bytes(content)
    report = prepare(source, size=32, progress=False)
    assert report.kept == 1
    ((file, reason),) = report.unreadable
    assert file == "a.png" and "password" in reason


@pytest.mark.parametrize("raw", ["gesicht-ä.png", "顔.png", "\x1b[31mred\x07.png"])
def test_odd_names_are_read_and_cannot_steer_a_terminal(tmp_path, empty_cache, raw):
    source = write_zip(tmp_path / "faces.zip", [(raw, picture(1)), ("broken " + raw, b"no picture")])
    report = prepare(source, size=32, progress=False)
    assert (report.kept, report.unreadable) == (1, [("broken " + raw, "not a picture")])
    assert "\x1b" not in str(report) and "\x07" not in str(report)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_is_not_unicode(tmp_path, empty_cache):
    folder = tmp_path / "faces"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")).write_bytes(picture(1))
    Path(os.fsdecode(os.fsencode(folder) + b"/t\xe9xt.png")).write_bytes(b"no picture")
    report = prepare(folder, size=32, progress=False)
    assert report.kept == 1
    assert str(report).encode()
    assert prepare(folder, size=32, progress=False) == report, "the manifest should keep the name"


def test_a_name_in_no_encoding_refuses_the_zip(tmp_path, empty_cache):
    source = write_zip(tmp_path / "faces.zip", [("a.png", picture(1)), ("ää.png", picture(2))])
    source.write_bytes(source.read_bytes().replace("ää".encode(), b"\xff\xfe\xfd\xfc"))  # the flag says UTF-8
    with pytest.raises(ValueError, match=r"faces.zip is a damaged zip file .* pack it anew"):
        prepare(source, progress=False)


def test_names_as_tar_writes_them(tmp_path, empty_cache):
    source = write_zip(tmp_path / "faces.zip", [("./a.png", picture(1)), ("./b/c.jfif", picture(2)), ("./d.heic", b"")])
    report = prepare(source, size=32, progress=False)
    assert (report.kept, report.others) == (2, 1)
    assert "1 other files, by their names no pictures" in str(report)


def test_printable():
    assert printable("a/face ä 顔.png") == "a/face ä 顔.png"
    assert printable("\x1b[2J\n\udce9") == "\\x1b[2J\\n\\udce9"


def test_a_zip_whose_pictures_are_all_refused_says_why(tmp_path):
    source = write_zip(tmp_path / "faces.zip", [("../a.png", picture(1))])
    with pytest.raises(ValueError, match=r"holds no pictures, .*; \.\./a.png: its name leads out of the folder"):
        open_source(source)


def test_a_source_lists_its_pictures_in_name_order_and_reads_them(tmp_path):
    members = [("b/2.PNG", picture(2)), ("a.png", picture(1)), ("b/notes.txt", b""), (".a.png", b""), ("b/.c.png", b"")]
    source = open_source(write_zip(tmp_path / "faces.zip", members))
    assert source.files == ["a.png", "b/2.PNG"]
    assert [source.read(i) for i in range(2)] == [picture(1), picture(2)]


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_the_digest_follows_the_pictures(tmp_path, kind):
    def digest(*pictures: bytes) -> str:
        members = [(f"{i}.png", content) for i, content in enumerate(pictures)]
        if kind == "zip":
            path = write_zip(tmp_path / "faces.zip", members)
            os.utime(path, (0, 0))
            return open_source(path).digest
        folder = tmp_path / "faces"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in members:
            (folder / name).write_bytes(content)
            os.utime(folder / name, (0, zlib.crc32(content)))  # another picture, another time
        return open_source(folder).digest

    assert digest(picture(1), picture(2)) == digest(picture(1), picture(2))
    assert digest(picture(1), picture(3)) != digest(picture(1), picture(2))
    assert digest(picture(1), picture(2), picture(3)) != digest(picture(1), picture(2))
