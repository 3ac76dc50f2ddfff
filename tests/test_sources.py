"""Archives that mean harm: nothing leaves the cache folder, nothing fills the memory, everything is reported."""

import io
import os
import shutil
import stat
import struct
import tarfile
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
    assert (report.kept, report.others) == (2, 0)
    assert report.unreadable == [("./d.heic", "a format that is not read here: convert it to PNG or JPEG")]
    assert "./d.heic: a format that is not read here" in str(report)


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


# ------------------------------------------------------------------------------------------------ folders and links


def test_links_are_followed_and_those_that_lead_nowhere_are_told(tmp_path, empty_cache):
    mine, part = tmp_path / "mine", tmp_path / "part"
    for folder in (mine, part):
        folder.mkdir()
    for i in range(3):
        (part / f"{i}.png").write_bytes(picture(i))
    (mine / "9.png").write_bytes(picture(9))
    (mine / "part").symlink_to(part)
    (mine / "8.png").symlink_to(part / "2.png")
    (mine / "gone.png").symlink_to(tmp_path / "gone.png")
    (part / "back").symlink_to(mine)
    (part / "self.png").symlink_to(part / "self.png")
    report = prepare(mine, size=32, progress=False)
    assert (report.read, report.kept) == (5, 4)
    nowhere = "a link that leads nowhere"
    assert report.unreadable == [("gone.png", nowhere), ("part/self.png", nowhere)]


def test_archives_in_a_folder_are_read_too(tmp_path, empty_cache):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").write_bytes(picture(0))
    write_zip(tmp_path / "mine" / "part1.zip", [("b.png", picture(1))])
    (tmp_path / "mine" / "broken.zip").write_bytes(b"PK but no more")
    report = prepare(tmp_path / "mine", size=32, progress=False)
    assert report.kept == 2
    ((name, reason),) = report.unreadable
    assert name == "broken.zip" and "a zip without its end" in reason


# ------------------------------------------------------------------------------------------------- other archives


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w:gz", **facts) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for fact, value in facts.items():
                setattr(info, fact, value)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("ending, mode", [(".tar", "w"), (".tgz", "w:gz"), (".tar.bz2", "w:bz2"), (".tar.xz", "w:xz")])
def test_tars_are_read(tmp_path, empty_cache, ending, mode):
    members = [("faces/b.png", picture(2)), ("faces/a.png", picture(1)), ("readme.txt", b"hello")]
    report = prepare(write_tar(tmp_path / f"my{ending}", members, mode), size=32, progress=False)
    assert (report.kept, report.others, report.unreadable, report.name) == (2, 1, [], "my")


def test_many_pictures_in_a_compressed_tar(tmp_path, empty_cache):
    members = [(f"{i}.png", picture(i)) for i in range(600)]
    assert prepare(write_tar(tmp_path / "my.tgz", members), size=8, progress=False).kept == 600


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png"])
def test_a_tars_names_lead_nowhere(tmp_path, empty_cache, name):
    source = write_tar(tmp_path / "my.tar", [("good.png", picture(1)), (name, picture(2))], "w")
    report = prepare(source, size=32, progress=False)
    assert (report.kept, report.unreadable) == (1, [(name, "its name leads out of the folder")])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_tars_links_are_told(tmp_path, empty_cache, kind):
    path = write_tar(tmp_path / "my.tar", [("good.png", picture(1))], "w")
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link)
    assert prepare(path, size=32, progress=False).unreadable == [("link.png", "a link")]


def test_a_tars_header_beyond_reason_is_not_read(tmp_path, empty_cache):
    path = tmp_path / "my.tar"
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 50_000_000_000
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(ValueError, match=r"a header of 50,000,000,000 bytes|neither a folder nor a zip file nor a tar"):
        prepare(path, progress=False)


def test_an_unfinished_tar(tmp_path, empty_cache):
    path = write_tar(tmp_path / "my.tgz", [(f"{i}.png", picture(i)) for i in range(20)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"my.tgz is a damaged tar archive .*download it again"):
        prepare(path, progress=False)


def test_a_zip_of_zips(tmp_path, empty_cache):
    inner = [write_zip(tmp_path / f"{i}.zip", [("a.png", picture(i))]) for i in range(2)]
    nested = write_zip(tmp_path / "nested.zip", [("0.zip", inner[0].read_bytes())])
    members = [(path.name, path.read_bytes()) for path in (*inner, nested)]
    report = prepare(write_zip(tmp_path / "faces.zip", [("top.png", picture(5)), *members]), size=32, progress=False)
    assert report.kept == 3
    assert report.unreadable == [("nested.zip/0.zip", "an archive in an archive in an archive: unpack it")]


@pytest.mark.parametrize(
    "content, told",
    [
        (b"7z\xbc\xaf\x27\x1c and more", "but a 7z archive: unpack it and prepare the folder"),
        (b"Rar!\x1a\x07\x01 and more", "but a RAR archive: unpack it"),
        (b"\x28\xb5\x2f\xfd and more", "but a Zstandard archive: unpack it"),
        (b"\x89PNG\r\n\x1a\n and more", "but a single picture: prepare the folder that holds it"),
        (b"\xff\xd8\xff\xe0 and more", "but a single picture"),
        (b"PK\x03\x04 and more", "but a part of a split zip, or a zip without its end: download it again, or join"),
        (b"\x1f\x8b and more", "but compressed, but no tar archive"),
        (b"<html>", "and perhaps an error page or an unfinished download"),
    ],
)
def test_what_is_no_zip_is_called_by_its_name(tmp_path, empty_cache, content, told):
    (tmp_path / "faces.zip").write_bytes(content)
    with pytest.raises(ValueError, match=f"is neither a folder nor a zip file nor a tar, {told}"):
        prepare(tmp_path / "faces.zip", progress=False)


def test_a_zip_without_its_beginning(tmp_path, empty_cache):
    path = write_zip(tmp_path / "faces.zip", [(f"{i}.png", picture(i)) for i in range(3)])
    path.write_bytes(path.read_bytes()[10:])
    with pytest.raises(ValueError, match=r"is a damaged zip file .*: download it again"):
        prepare(path, progress=False)


def test_the_last_part_of_a_split_zip(tmp_path, empty_cache):
    path = write_zip(tmp_path / "faces.zip", [("a.png", picture(1))])
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x05\x06") + 4] = 3  # the number of the part that the end stands in, counted from 0
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is the last of 4 parts of a split zip: join them"):
        prepare(path, progress=False)


def test_a_locked_member_is_told(tmp_path, empty_cache):
    path = write_zip(tmp_path / "faces.zip", [("a.png", picture(1)), ("b.png", picture(2))])
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    report = prepare(path, size=32, progress=False)
    assert (report.kept, report.unreadable) == (1, [("b.png", "locked with a password")])


def test_a_zip_at_the_end_of_a_tar_is_not_the_whole(tmp_path, empty_cache):
    inner = write_zip(tmp_path / "part.zip", [("z.png", picture(9))]).read_bytes()
    members = [*((f"{i}.png", picture(i)) for i in range(6)), ("part.zip", inner)]
    report = prepare(write_tar(tmp_path / "my.tar", members, "w"), size=32, progress=False)
    assert (report.kept, report.unreadable) == (6, [("part.zip", "an archive in a tar: unpack it")])


def test_a_zip_in_another_archive_is_not_the_whole(tmp_path, empty_cache):
    inner = write_zip(tmp_path / "part.zip", [("z.png", picture(9))]).read_bytes()
    (tmp_path / "my.rar").write_bytes(b"Rar!\x1a\x07\x01\x00" + inner)
    with pytest.raises(ValueError, match="but a RAR archive"):
        prepare(tmp_path / "my.rar", progress=False)


def test_an_archive_in_an_archive_that_swells_is_not_unpacked(tmp_path, empty_cache):
    source = write_zip(tmp_path / "faces.zip", [("a.png", picture(1)), ("bomb.zip", bytes(60_000_000))])
    ((name, reason),) = prepare(source, size=32, progress=False).unreadable
    assert name == "bomb.zip" and reason.startswith("60,000,000 bytes, more than")


def test_archives_beyond_what_can_be_open_are_told(tmp_path, empty_cache, monkeypatch):
    monkeypatch.setattr("vaelib.sources.MAX_ARCHIVES", 2)
    (tmp_path / "mine").mkdir()
    for i in range(4):
        write_zip(tmp_path / "mine" / f"{i}.zip", [("a.png", picture(i))])
    report = prepare(tmp_path / "mine", size=32, progress=False)
    assert report.kept == 2 and len(report.unreadable) == 2


def test_pictures_and_archives_that_are_not_read_are_told(tmp_path, empty_cache):
    names = ["a.dng", "b.rar", "c.tar.zst", "d.xcf"]
    source = write_zip(
        tmp_path / "faces.zip", [("ok.png", picture(1)), ("notes.txt", b""), *((n, b"x") for n in names)]
    )
    report = prepare(source, size=32, progress=False)
    assert report.others == 1 and [name for name, _ in report.unreadable] == names
