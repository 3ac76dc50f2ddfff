import _thread
import errno
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
from PIL import Image
from test_pictures import BLUE, GREEN, RED, WHITE, encoded, middle, noise, to_face

from vaelib import preparing
from vaelib.faces import load_faces
from vaelib.preparing import prepare, prepared_folder, read_report, recognise


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def messy() -> dict[str, bytes]:
    """Three different pictures, one of them twice, two broken files, and things that are no pictures."""
    jpeg = encoded(noise(3, 200, 200), "jpg")
    return {
        "b/two.PNG": encoded(noise(2)),
        "a.png": encoded(noise(1)),
        "c/copy of a.bmp": encoded(noise(1), "bmp"),
        "d.jpg": jpeg,
        "text.jpg": b"these are not the pixels you are looking for",
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "readme.txt": b"hello",
        ".hidden.png": encoded(noise(4)),
        ".thumbnails/e.png": encoded(noise(5)),
        "__MACOSX/._a.png": b"resource fork",
    }


def test_counts_and_reasons(tmp_path, empty_cache, messy):
    report = prepare(write_folder(tmp_path / "My Faces!", messy), size=32, progress=False)
    assert (report.read, report.kept, report.duplicates) == (4, 3, 1)
    assert report.name == "my-faces"
    reasons = dict(report.unreadable)
    assert reasons["text.jpg"] == "not a picture"
    assert "truncated" in reasons["truncated.jpg"]
    assert len(reasons) == 2

    text = str(report)
    for part in ("4 read", "3 kept", "1 exact copies", "2 unreadable", "text.jpg: not a picture", str(report.folder)):
        assert part in text
    assert json.loads((report.folder / "manifest.json").read_text())["kept"] == 3


def test_the_array_holds_each_distinct_picture_once_in_name_order(tmp_path, empty_cache, messy):
    report = prepare(write_folder(tmp_path / "mine", messy), size=80, progress=False)
    array = np.load(report.images_path, mmap_mode="r")
    assert array.shape == (3, 80, 80, 3) and array.dtype == np.uint8
    np.testing.assert_array_equal(array[0], np.asarray(noise(1)))  # a.png; its copy comes later
    np.testing.assert_array_equal(array[1], np.asarray(noise(2)))  # b/two.PNG
    assert report.images_path.parent == prepared_folder("mine", 80)
    assert len(load_faces("mine", size=80)) == 3


def test_zip_and_folder_give_the_same_bytes(tmp_path, empty_cache, messy):
    folder = prepare(write_folder(tmp_path / "folder", messy), size=32, progress=False)
    archive = prepare(write_zip(tmp_path / "archive.zip", messy), size=32, progress=False)
    assert folder.images_path.read_bytes() == archive.images_path.read_bytes()
    assert folder.unreadable == archive.unreadable
    assert archive.name == "archive"


def test_more_pictures_than_one_chunk(tmp_path, empty_cache):
    files = {f"{i:04}.png": encoded(Image.new("RGB", (4, 4), (i % 256, i // 256, 0))) for i in range(1100)}
    report = prepare(write_zip(tmp_path / "many.zip", files), size=4, progress=False)
    array = np.load(report.images_path)
    assert array.shape == (1100, 4, 4, 3)
    np.testing.assert_array_equal(array[:, 0, 0, 0] + 256 * array[:, 0, 0, 1].astype(int), np.arange(1100))


def test_files_that_repeat_one_are_read_but_not_decoded_again(tmp_path, empty_cache, monkeypatch):
    decoded, decode_one = [], preparing._decode_one
    monkeypatch.setattr(preparing, "_decode_one", lambda *a: decoded.append(a) or decode_one(*a))
    monkeypatch.setattr(preparing, "CHUNK", 8)
    files = {f"{i:03}.png": encoded(noise(i % 20)) for i in range(100)} | {f"x{i}.png": b"broken" for i in range(20)}
    with joblib.parallel_config("sequential"):
        report = prepare(write_zip(tmp_path / "many.zip", files), progress=False)
    assert (report.read, report.kept, report.duplicates) == (100, 20, 80)
    assert report.unreadable == [(f"x{i}.png", "not a picture") for i in sorted(range(20), key=str)]
    assert len(decoded) < 60, "each of the 20 once, or twice where the first is still on its way"
    np.testing.assert_array_equal(np.load(report.images_path), [to_face(noise(i), 64) for i in range(20)])


# --------------------------------------------------------------------------------------- the two Kaggle archives


def test_known_layouts():
    anime, _ = recognise(["images/12345_2011.jpg", "images/6_2000.jpg", "stray.png"])
    nested, _ = recognise(["versions/3/images/12345_2011.jpg"])
    cartoon, layout = recognise(["cartoonset100k_jpg/0/cs11502169095236683120.jpg"])
    assert (anime, nested, cartoon) == ("anime", "anime", "cartoon")
    assert layout.crop < 1
    assert recognise(["images/face.jpg", "photos/12345_2011.jpg", "0/cs1.jpg"]) == (None, None)


def test_an_archive_is_named_and_cropped_by_its_layout(tmp_path, empty_cache):
    picture = Image.new("RGB", (500, 500), WHITE)
    picture.paste(GREEN, (75, 75, 425, 425))
    cartoon = write_zip(tmp_path / "downloaded.zip", {"cartoonset100k_jpg/0/cs1.jpg": encoded(picture, "jpg")})
    report = prepare(cartoon, progress=False)
    assert (report.name, report.crop) == ("cartoon", 0.7)
    assert (load_faces("cartoon").images[0, 2:-2, 2:-2, 1] > 250).all() and load_faces("cartoon").images[
        0, 32, 32, 0
    ] < 5

    report = prepare(cartoon, name="mine", crop=1.0, progress=False)
    assert (report.name, report.crop) == ("mine", 1.0)
    assert load_faces("mine").images[0, 2, 2].tolist() == [255, 255, 255]

    anime = write_zip(tmp_path / "other.zip", {"images/1_2000.jpg": encoded(noise(1), "jpg")})
    assert (prepare(anime, progress=False).name, prepare(anime, progress=False).crop) == ("anime", 1.0)


def test_real_anime_faces(real_prepared):
    report = real_prepared["anime"]
    assert (report.name, report.read, report.kept, report.unreadable) == ("anime", 24_735, 18_969, [])
    assert report.duplicates == 24_735 - 18_969
    array = np.load(report.images_path, mmap_mode="r")
    assert array.shape == (18_969, 64, 64, 3)
    assert len(np.unique(array.reshape(len(array), -1).view("V12288"))) == 18_969


def test_real_cartoon_faces_fill_the_picture(real_prepared):
    report = real_prepared["cartoon"]
    assert (report.name, report.read, report.kept, report.unreadable) == ("cartoon", 7_000, 7_000, [])
    array = np.load(report.images_path, mmap_mode="r")
    inked = (array < 240).any(3)  # (N, 64, 64): what is not the white margin
    rows, columns = inked.any(2).sum(1), inked.any(1).sum(1)
    assert np.median(rows) > 0.85 * 64 and np.median(columns) > 0.75 * 64, "heads should fill the picture"
    cut = inked[:, :, 0].any(1) | inked[:, :, -1].any(1)
    assert cut.mean() < 0.1, "few heads should reach the sides"


# ------------------------------------------------------------------------------------------------- bad input


def folder_without_pictures(tmp_path):
    return write_folder(tmp_path / "empty", {"notes.txt": b"none here"})


def zip_without_pictures(tmp_path):
    return write_zip(tmp_path / "empty.zip", {"notes.txt": b"none here"})


def error_page(tmp_path):
    (tmp_path / "faces.zip").write_text("<html>404: no such data set</html>")
    return tmp_path / "faces.zip"


def unfinished_download(tmp_path):
    path = write_zip(tmp_path / "faces.zip", {f"{i}.png": encoded(noise(i)) for i in range(4)})
    path.write_bytes(path.read_bytes()[:-200])
    return path


def zip_with_a_damaged_list(tmp_path):
    path = write_zip(tmp_path / "faces.zip", {"1.png": encoded(noise(1))})
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"XXXX"))
    return path


def only_unreadable(tmp_path):
    return write_folder(tmp_path / "broken", {"a.jpg": b"text", "b.png": b"more text"})


@pytest.mark.parametrize(
    "make, message",
    [
        (folder_without_pictures, "holds no pictures.*expected names that end in .*.jpg"),
        (zip_without_pictures, "holds no pictures"),
        (error_page, "neither a folder nor a zip file.*download it again"),
        (unfinished_download, "neither a folder nor a zip file.*download it again"),
        (zip_with_a_damaged_list, "damaged zip file.*download it again"),
        (only_unreadable, "none of the 2 pictures .* can be read; the first, a.jpg: not a picture"),
    ],
)
def test_bad_sources_say_what_to_do_and_leave_nothing(tmp_path, empty_cache, make, message):
    with pytest.raises(ValueError, match=message):
        prepare(make(tmp_path), progress=False)
    assert [path for path in empty_cache.rglob("*") if path.is_file() and path.name != ".lock"] == []


def test_a_missing_source(tmp_path, empty_cache):
    with pytest.raises(FileNotFoundError, match=r"nowhere.zip does not exist; expected a zip file or a folder"):
        prepare(tmp_path / "nowhere.zip", progress=False)


@pytest.mark.parametrize(
    "options",
    [
        *({"size": 0}, {"size": -64}, {"size": 60000}, {"crop": 0}, {"crop": 1.5}, {"near": -0.1}),
        *({"near": float("nan")}, {"name": "a/b"}, {"name": "../up"}, {"name": "drawn-anime"}),
    ],
)
def test_bad_options(tmp_path, empty_cache, options):
    source = write_folder(tmp_path / "mine", {"a.png": encoded(noise(1))})
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"got {name}={value!r}, expected"):
        prepare(source, **options, progress=False)


def test_a_failed_second_time_keeps_the_first_array(tmp_path, empty_cache):
    good = write_folder(tmp_path / "mine", {"a.png": encoded(noise(1))})
    report = prepare(good, progress=False)
    before = {path: path.read_bytes() for path in report.folder.iterdir()}
    (good / "a.png").write_bytes(b"overwritten by accident")
    with pytest.raises(ValueError, match="none of the 1 pictures"):
        prepare(good, progress=False)
    assert {path: path.read_bytes() for path in report.folder.iterdir()} == before


def test_a_damaged_member_of_a_zip_is_one_line_of_the_report(tmp_path, empty_cache):
    image = noise(7)
    path = write_zip(tmp_path / "faces.zip", {"good.bmp": encoded(noise(1), "bmp"), "bad.bmp": encoded(image, "bmp")})
    content = bytearray(path.read_bytes())
    content[content.find(b"bad.bmp") + 5000] ^= 0xFF
    path.write_bytes(content)
    report = prepare(path, progress=False)
    assert (report.read, report.kept) == (1, 1)
    assert report.unreadable[0][0] == "bad.bmp" and "CRC" in report.unreadable[0][1]


# ----------------------------------------------------------------------------------------------- odd pictures


def test_a_picture_of_one_pixel_is_a_face_of_one_colour(tmp_path, empty_cache):
    report = prepare(write_folder(tmp_path / "mine", {"a.png": encoded(Image.new("RGB", (1, 1), RED))}), progress=False)
    assert (np.load(report.images_path) == RED).all()


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tiff"])
def test_of_an_animation_the_first_frame_counts(tmp_path, empty_cache, ending):
    frames = [Image.new("RGB", (64, 64), colour) for colour in (RED, BLUE, GREEN)]
    content = encoded(frames[0], ending, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(content)).n_frames == 3
    report = prepare(write_folder(tmp_path / "mine", {f"a.{ending}": content}), progress=False)
    red, green, blue = middle(np.load(report.images_path)[0])
    assert red > 250 and green < 5 and blue < 5


def test_huge_pictures_are_listed_and_huge_jpegs_are_read_small(tmp_path, empty_cache):
    files = {
        "20000.png": encoded(Image.new("1", (20_000, 20_000))),
        "9000.png": encoded(Image.new("1", (9_000, 9_000))),
        "9000.jpg": encoded(Image.new("L", (9_000, 9_000), 90), "jpg"),
    }
    report = prepare(write_folder(tmp_path / "mine", files), progress=False)
    reasons = dict(report.unreadable)
    assert reasons["9000.png"] == "9,000×9,000 pixels, more than 64,000,000 in all"
    assert "exceeds limit" in reasons["20000.png"]
    assert (np.load(report.images_path) == 90).all() and report.kept == 1


def test_what_only_calls_itself_a_picture_starts_no_other_program(tmp_path, empty_cache):
    """Pillow would hand a PostScript file to Ghostscript."""
    files = {"a.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "b.png": encoded(noise(1))}
    report = prepare(write_folder(tmp_path / "mine", files), progress=False)
    assert report.unreadable == [("a.jpg", "not a picture")]


# ------------------------------------------------------------------------------------------------- near copies


def brightened(image: Image.Image, by: int = 6) -> Image.Image:
    return image.point(lambda value: value + by)


def test_near_copies_are_kept_and_share_a_family(tmp_path, empty_cache):
    files = {f"{i}.png": encoded(noise(i)) for i in range(30)}
    files |= {f"{i}-brighter.png": encoded(brightened(noise(i))) for i in range(3)}
    report = prepare(write_folder(tmp_path / "mine", files), size=80, progress=False)
    assert (report.kept, report.families, report.largest_family, report.near) == (33, 30, 2, 0.07)
    families = np.load(report.families_path)
    names = sorted(files)
    assert families[names.index("1.png")] == families[names.index("1-brighter.png")]
    assert "30 families of near copies, the largest of 2" in str(report)


@pytest.fixture
def alike(tmp_path) -> Path:
    """40 pictures of which each is near to all others, though none is a copy."""
    pictures = [Image.fromarray(np.asarray(noise(i)) // 32 + np.uint8(100)) for i in range(40)]
    return write_folder(tmp_path / "alike", {f"{i}.png": encoded(picture) for i, picture in enumerate(pictures)})


def test_pictures_that_are_all_alike_are_no_family(alike, empty_cache):
    report = prepare(alike, progress=False)
    assert (report.families, report.near) == (40, 0.0)
    assert (report.alike, report.largest_family) == (40, 1)
    assert "40 of them are one family at near=0.07: taken to be alike, not copied" in str(report)


def test_many_copies_of_few_artworks_are_families(tmp_path, empty_cache):
    """Ten drawings, each 25 times a little brighter: a quarter of all in one family would be too many, not a tenth."""
    files = {f"{i}-{k}.png": encoded(brightened(noise(i), k)) for i in range(10) for k in range(25)}
    report = prepare(write_folder(tmp_path / "mine", files), size=80, progress=False)
    assert (report.kept, report.families, report.largest_family, report.alike) == (250, 10, 25, 0)


def test_who_asks_for_near_copies_gets_them(alike, empty_cache):
    assert prepare(alike, near=0.07, progress=False).families == 1
    assert prepare(alike, near=0.0, progress=False).families == 40


# --------------------------------------------------------------------------------------------- stopped, repeated


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def test_the_second_call_does_nothing_and_says_the_same(tmp_path, empty_cache, messy):
    source = write_zip(tmp_path / "archive.zip", messy)
    report = prepare(source, progress=False)
    before = state(report.folder)
    assert prepare(source, progress=False) == report
    assert state(report.folder) == before


@pytest.mark.parametrize("change", ["source", "crop", "near"])
def test_a_change_is_noticed(tmp_path, empty_cache, change):
    files = {f"{i}.png": encoded(noise(i)) for i in range(4)}
    report = prepare(write_folder(tmp_path / "mine", files), progress=False)
    options = {"crop": {"crop": 0.5}, "near": {"near": 0.01}}.get(change, {})
    if change == "source":
        (tmp_path / "mine" / "2.png").write_bytes(encoded(noise(5)))
    again = prepare(tmp_path / "mine", **options, progress=False)
    assert again.digest != report.digest
    assert {path.name for path in again.folder.glob("*.npy")} == {again.images_path.name, again.families_path.name}
    if change == "source":
        np.testing.assert_array_equal(np.load(again.images_path)[2], to_face(noise(5), 64))


def test_another_source_does_not_take_a_name_unasked(tmp_path, empty_cache):
    first = prepare(write_folder(tmp_path / "a" / "mine", {"1.png": encoded(noise(1))}), progress=False)
    other = write_folder(tmp_path / "b" / "mine", {"1.png": encoded(noise(2))})
    with pytest.raises(ValueError, match=r"would be called 'mine', like those made from .*a.mine\. .*--name"):
        prepare(other, progress=False)
    assert prepare(other, name="other", progress=False).name == "other"
    np.testing.assert_array_equal(np.load(first.images_path)[0], to_face(noise(1), 64))
    prepare(other, name="mine", progress=False)
    np.testing.assert_array_equal(load_faces("mine").images[0], to_face(noise(2), 64))


def test_a_known_layout_is_not_replaced_unasked(tmp_path, empty_cache):
    first = write_zip(tmp_path / "first.zip", {f"images/{i}_2000.jpg": encoded(noise(i), "jpg") for i in range(5)})
    other = write_zip(tmp_path / "other.zip", {"images/9_2001.jpg": encoded(noise(9), "jpg")})
    report = prepare(first, progress=False)
    with pytest.raises(ValueError, match=r"would be called 'anime', like those made from .*first.zip"):
        prepare(other, progress=False)
    assert len(load_faces("anime")) == 5
    moved = first.rename(tmp_path / "moved.zip")
    assert prepare(moved, progress=False) == report, "the same file in another place"
    assert prepare(other, "anime", progress=False).kept == 1


def test_a_zip_that_was_mended_is_noticed(tmp_path, empty_cache):
    good = write_zip(tmp_path / "faces.zip", {f"{i}.bmp": encoded(noise(i), "bmp") for i in range(3)}).read_bytes()
    damaged = bytearray(good)
    damaged[5000] ^= 1
    (tmp_path / "faces.zip").write_bytes(damaged)
    assert prepare(tmp_path / "faces.zip", progress=False).kept == 2
    (tmp_path / "faces.zip").write_bytes(good)
    assert prepare(tmp_path / "faces.zip", progress=False).kept == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 99}', '{"version": 3, "unreadable": 7}', "\0" * 40])
def test_a_foreign_manifest_is_none(tmp_path, empty_cache, messy, content):
    report = prepare(write_zip(tmp_path / "archive.zip", messy), progress=False)
    (report.folder / "manifest.json").write_text(content)
    assert read_report("archive", 64) is None
    assert prepare(tmp_path / "archive.zip", progress=False) == report


@pytest.mark.parametrize("content", ["", "\0" * 40 + "\n", "{\n", "[1, 2, 3]\n"])
def test_a_foreign_journal_is_none(tmp_path, empty_cache, messy, content):
    folder = prepared_folder("archive", 64)
    folder.mkdir()
    (folder / "part.npy").write_bytes(b"left over")
    (folder / "part.jsonl").write_text(content)
    assert prepare(write_zip(tmp_path / "archive.zip", messy), progress=False).kept == 3


def test_an_interrupted_call_goes_on_where_it_was(tmp_path, empty_cache, monkeypatch):
    """What was read before the interruption is not read again: meanwhile the first pictures changed unnoticed."""
    monkeypatch.setattr(preparing, "CHUNK", 8)
    monkeypatch.setattr(preparing, "CHECKPOINT", 1)
    folder = write_folder(tmp_path / "mine", {f"{i:03}.png": encoded(noise(i)) for i in range(200)})
    journal = prepared_folder("mine", 64) / "part.jsonl"
    watcher = threading.Thread(target=interrupt_after, args=(journal, 3))
    with pytest.raises(KeyboardInterrupt), joblib.parallel_config("sequential"):
        watcher.start()
        prepare(folder, progress=False)
    done = len(journal.read_bytes().splitlines()) - 1
    assert 3 <= done < 25

    for path in sorted(folder.iterdir())[:8]:
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        path.write_bytes(b"x" * path.stat().st_size)
        os.utime(path, ns=times)
    report = prepare(folder, progress=False)
    assert (report.read, report.kept, report.unreadable) == (200, 200, [])
    np.testing.assert_array_equal(np.load(report.images_path), [to_face(noise(i), 64) for i in range(200)])


def interrupt_after(journal: Path, steps: int) -> None:
    while not journal.exists() or journal.read_bytes().count(b"\n") <= steps:
        time.sleep(0.001)
    _thread.interrupt_main()


KILLED_AT_RANDOM = """
import os, random, signal, sys, time
import joblib, scipy.sparse.csgraph, scipy.spatial, sklearn.decomposition
from vaelib import preparing

source, expected, seed = sys.argv[1], open(sys.argv[2], "rb").read(), sys.argv[3]
preparing.CHUNK, preparing.CHECKPOINT = 8, 2
folder = preparing.prepared_folder("mine", 64)

def start():
    pid = os.fork()
    if pid == 0:
        with joblib.parallel_config("sequential"):
            preparing.prepare(source, "mine", progress=False)
        os._exit(0)
    return pid

begin = time.monotonic()
os.waitpid(start(), 0)
whole = time.monotonic() - begin
choose, kills, finished = random.Random(seed), 0, 0
while kills < 20:
    for path in folder.iterdir() if (folder / "manifest.json").exists() else []:
        path.unlink()
    pid = start()
    time.sleep(choose.uniform(0, whole))
    os.kill(pid, signal.SIGKILL)
    killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    kills += killed
    if report := preparing.read_report("mine", 64):
        finished += 1
        assert report.images_path.read_bytes() == expected, "a wrong array"
os.waitpid(start(), 0)
assert preparing.read_report("mine", 64).images_path.read_bytes() == expected, "another array"
print(kills, "killed,", finished, "finished")
"""

KILLED_WHILE_PUBLISHING = """
import os, signal, sys
import joblib
from vaelib import preparing

source, expected, folder = sys.argv[1], open(sys.argv[2], "rb").read(), preparing.prepared_folder("mine", 64)

def prepare(kill_at):
    calls, steps = 0, {name: getattr(os, name) for name in ("replace", "unlink", "fsync")}
    def counting(step):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments, **options)
        return call
    for name, step in steps.items():
        setattr(os, name, counting(step))
    with joblib.parallel_config("sequential"):
        preparing.prepare(source, "mine", progress=False)

kill_at = 0
while True:
    kill_at += 1
    pid = os.fork()
    if pid == 0:
        prepare(kill_at)
        os._exit(0)
    killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    if report := preparing.read_report("mine", 64):
        assert report.images_path.read_bytes() == expected, "a wrong array"
    if not killed:
        break
    for path in folder.iterdir() if kill_at % 2 else []:  # half of the times from the beginning
        path.unlink()
assert preparing.read_report("mine", 64).is_complete()
print(kill_at - 1, "kills")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_between_any_two_steps_on_the_disk_leaves_no_wrong_array(tmp_path, empty_cache):
    source = write_zip(tmp_path / "faces.zip", {f"{i}.png": encoded(noise(i, 64, 64)) for i in range(8)})
    whole = prepare(source, "whole", progress=False)
    command = [sys.executable, "-c", KILLED_WHILE_PUBLISHING, str(source), str(whole.images_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= 8
    np.testing.assert_array_equal(np.load(read_report("mine", 64).families_path), np.load(whole.families_path))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, to start twenty times in a few seconds")
def test_twenty_kills_leave_no_wrong_array(tmp_path, empty_cache):
    files = {f"{i:03}.png": encoded(noise(i % 150, 64, 64)) for i in range(200)} | {"broken.png": b"no picture"}
    source = write_zip(tmp_path / "faces.zip", files)
    whole = prepare(source, "whole", progress=False)
    assert (whole.read, whole.kept, len(whole.unreadable)) == (200, 150, 1)
    arguments = [str(source), str(whole.images_path), "0"]
    done = subprocess.run([sys.executable, "-c", KILLED_AT_RANDOM, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kills, finished = re.match(r"(\d+) killed, (\d+) finished", done.stdout).groups()
    assert int(kills) == 20 and int(finished) > 0
    assert read_report("mine", 64).unreadable == [("broken.png", "not a picture")]
    assert np.array_equal(np.load(read_report("mine", 64).families_path), np.load(whole.families_path))


def test_two_at_once_do_not_meet(tmp_path, empty_cache, messy):
    source = write_zip(tmp_path / "archive.zip", messy)
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: prepare(source, size=32, progress=False), range(4)))
    assert all(report == reports[0] for report in reports)
    assert len(load_faces("archive", size=32)) == 3


def test_a_disk_that_fails_for_a_moment_is_no_unreadable_picture(tmp_path, empty_cache, monkeypatch):
    folder = write_folder(tmp_path / "mine", {f"{i}.png": encoded(noise(i)) for i in range(4)})
    read = Path.read_bytes

    def failing(path):
        if path.name == "2.png":
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(OSError, match=r"2.png was there a moment ago and can't be read now .Input/output error."):
        prepare(folder, progress=False)
    monkeypatch.undo()
    monkeypatch.setenv("VAELIB_CACHE", str(empty_cache))
    assert prepare(folder, progress=False).kept == 4


def test_a_disk_that_takes_no_more_is_explained_and_nothing_is_lost(tmp_path, empty_cache, messy):
    resource = pytest.importorskip("resource", reason="no file size limit on Windows")
    source = write_zip(tmp_path / "archive.zip", messy)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error instead of the end
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        with pytest.raises(OSError, match=r"larger than is allowed there.*archive-64 needs up to 0 MB.*VAELIB_CACHE"):
            prepare(source, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert prepare(source, progress=False).kept == 3


@pytest.mark.parametrize("errno_of_drive", [errno.EIO, errno.ENOENT, errno.ESTALE, errno.ENODEV])
def test_a_drive_that_goes_away_replaces_no_complete_set(tmp_path, empty_cache, monkeypatch, errno_of_drive):
    folder = write_folder(tmp_path / "mine", {f"{i}.png": encoded(noise(i)) for i in range(4)})
    complete = prepare(folder, progress=False)
    write_folder(folder, {f"{i}.png": encoded(noise(i)) for i in range(4, 10)})
    read = Path.read_bytes

    def failing(path):
        if path.suffix == ".png" and int(path.stem) > 5:
            raise OSError(errno_of_drive, "the drive is gone")
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        with pytest.raises(OSError, match=r"6.png was there a moment ago and can't be read now .*goes on where it was"):
            prepare(folder, progress=False)
    assert read_report("mine", 64) == complete and complete.is_complete()
    assert prepare(folder, progress=False).kept == 10


def test_a_drive_that_gives_less_than_it_promised_is_no_broken_picture(tmp_path, empty_cache, monkeypatch):
    folder = write_folder(tmp_path / "mine", {f"{i}.png": encoded(noise(i)) for i in range(4)})
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"" if path.name == "2.png" else read(path))
    with pytest.raises(OSError, match=r"2.png was there a moment ago and can't be read now \(0 of [\d,]+ bytes came\)"):
        prepare(folder, progress=False)


def test_a_source_of_which_most_may_not_be_read_replaces_nothing(tmp_path, empty_cache, monkeypatch):
    folder = write_folder(tmp_path / "mine", {f"{i}.png": encoded(noise(i)) for i in range(4)})
    complete = prepare(folder, progress=False)
    write_folder(folder, {"4.png": encoded(noise(4))})
    read = Path.read_bytes

    def refuse(path):
        if path.suffix == ".png" and int(path.stem) > 1:
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(
            OSError, match=r"3 of the 5 pictures in .* may not be read, the first: 2.png. Nothing was ch"
        ):
            prepare(folder, progress=False)
    assert read_report("mine", 64) == complete and complete.is_complete()
    assert prepare(folder, progress=False).kept == 5, "and the next call reads them again"


def test_two_that_would_take_one_name_at_once(tmp_path, empty_cache):
    sources = [write_folder(tmp_path / f"{i}" / "mine", {"a.png": encoded(noise(i))}) for i in range(2)]

    def outcome(source):
        try:
            return prepare(source, progress=False).source
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        first, second = sorted(pool.map(outcome, sources), key=len)
    assert first in map(str, sources) and f"would be called 'mine', like those made from {first}" in second
    assert read_report("mine", 64).source == first


@pytest.mark.parametrize("what", ["images_path", "families_path"])
def test_any_wrong_bit_in_a_header_is_damage(tmp_path, empty_cache, what):
    report = prepare(write_folder(tmp_path / "mine", {f"{i}.png": encoded(noise(i)) for i in range(3)}), progress=False)
    path, images = getattr(report, what), np.array(load_faces("mine").images)
    content, opened = path.read_bytes(), 0
    header = 10 + int.from_bytes(content[8:10], "little")
    for bit in range(8 * header):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            faces = load_faces("mine")
            assert np.array_equal(faces.images, images) and faces.families.tolist() == [0, 1, 2]
            opened += 1  # a bit of the padding
        except ValueError as error:
            assert "is damaged" in str(error) and "prepare the faces again" in str(error)
    assert opened < 4 * header


def test_an_array_with_more_behind_it_is_damage(tmp_path, empty_cache):
    report = prepare(write_folder(tmp_path / "mine", {"a.png": encoded(noise(1))}), progress=False)
    report.images_path.write_bytes(report.images_path.read_bytes() + bytes(500))
    with pytest.raises(ValueError, match="is damaged"):
        load_faces("mine")


def test_a_wrong_pixel_is_noticed_by_the_next_prepare(tmp_path, empty_cache):
    folder = write_folder(tmp_path / "mine", {"a.png": encoded(noise(1))})
    report = prepare(folder, progress=False)
    content = report.images_path.read_bytes()
    report.images_path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not report.is_complete()
    assert prepare(folder, progress=False) == report
    assert report.images_path.read_bytes() == content


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_workers_end_with_the_one_they_work_for(tmp_path, empty_cache):
    psutil = pytest.importorskip("psutil")
    code = """
import os, signal
from joblib import Parallel, delayed
from vaelib.preparing import _decode
def work(parent):
    _decode([], 8, 1.0, parent)
    return os.getpid()
print(*Parallel(n_jobs=2)(delayed(work)(os.getpid()) for _ in range(8)), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    workers = [psutil.Process(int(pid)) for pid in set(killed.stdout.split()) if psutil.pid_exists(int(pid))]
    assert killed.returncode == -9 and killed.stdout.split()
    assert not psutil.wait_procs(workers, timeout=600)[1]


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_link_in_the_cache_is_not_written_through(tmp_path, empty_cache, link):
    folder = prepared_folder("mine", 64)
    folder.mkdir()
    (tmp_path / "precious").write_text("data")
    for name in ("part.npy", "part.jsonl"):
        link(folder / name, tmp_path / "precious")
    assert prepare(write_folder(tmp_path / "mine", {"a.png": encoded(noise(1))}), progress=False).kept == 1
    assert (tmp_path / "precious").read_text() == "data"


@pytest.fixture
def nobody(tmp_path_factory):
    """Root may read and write everything: what may not be is only seen as somebody else."""
    if os.name == "nt":
        pytest.skip("Windows has other rights")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    was = os.geteuid()
    yield folder, (lambda: os.seteuid(65534) if was == 0 else None)
    os.seteuid(was)
    subprocess.run(["chmod", "-R", "u+rwx", folder])
    shutil.rmtree(folder)


def test_a_complete_set_in_a_cache_that_can_only_be_read(nobody, monkeypatch):
    folder, become_nobody = nobody
    monkeypatch.setenv("VAELIB_CACHE", str(folder / "cache"))
    source = write_folder(folder / "mine", {f"{i}.png": encoded(noise(i)) for i in range(3)})
    report = prepare(source, progress=False)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    become_nobody()
    assert prepare(source, progress=False) == report
    assert len(load_faces("mine")) == len(load_faces(source, verbose=False)) == 3
    with pytest.raises(OSError, match=r"can't write .*that is not allowed.*VAELIB_CACHE"):
        prepare(source, "other", progress=False)


def test_a_folder_that_may_not_be_opened_is_a_line_of_the_report(nobody, monkeypatch, empty_cache):
    folder, become_nobody = nobody
    files = {"open/1.png": encoded(noise(1)), "closed/2.png": encoded(noise(2)), "3.png": encoded(noise(3))}
    write_folder(folder, files)
    (folder / "closed").chmod(0o000)
    cache = folder / "cache"
    cache.mkdir(mode=0o777)
    cache.chmod(0o777)
    monkeypatch.setenv("VAELIB_CACHE", str(cache))
    become_nobody()
    report = prepare(folder, "mine", progress=False)
    assert report.kept == 2 and report.unreadable == [("closed", "may not be opened")]


# ------------------------------------------------------------------------------------------------------- metadata


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"eXIf", b"nonsense"),
        chunk(b"tEXt", b"exif\0b'Exif"),
        chunk(b"tEXt", b"xmp\0x"),
        chunk(b"tEXt", b"transparency\0yes"),
        chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  3\nzz"),
        chunk(b"tEXt", b"dpi\0x") + chunk(b"tEXt", b"gamma\0x") + chunk(b"tEXt", b"icc_profile\0x"),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2_000_000))),
        chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(2_000_000))),
        chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(3_000_000))),
        chunk(b"zTXt", b"a\0\0no zlib stream"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_no_picture_is_given_up_for_its_metadata(extra, mode):
    png = encoded(Image.new("RGB", (80, 80), RED).convert(mode))
    face = preparing._decode_one(png[:33] + extra + png[33:], 64, 1.0)
    assert np.frombuffer(face, np.uint8).reshape(64, 64, 3)[32, 32].tolist() == [255, 0, 0]


def test_a_webp_with_broken_exif():
    webp = encoded(Image.new("RGB", (80, 80), RED), "webp", exif=b"Exif\0\0nonsense", lossless=True)
    assert isinstance(preparing._decode_one(webp, 64, 1.0), bytes)


# --------------------------------------------------------------------------------------- known from wherever, alike


@pytest.mark.parametrize("inner", ["", "cartoonset100k_jpg", "cartoonset100k_jpg/0"])
def test_a_known_set_is_known_from_inside(tmp_path, empty_cache, inner):
    files = {f"cartoonset100k_jpg/0/cs{i}.jpg": encoded(noise(i), "jpg") for i in range(3)}
    report = prepare(write_folder(tmp_path / "unpacked", files) / inner, progress=False)
    assert (report.name, report.crop, report.near) == ("cartoon", 0.7, 0.0)


def test_other_ways_to_the_known_sets(tmp_path, empty_cache):
    anime = write_folder(tmp_path / "images", {f"{i}_2000.jpg": encoded(noise(i), "jpg") for i in range(3)})
    assert prepare(anime, progress=False).name == "anime"
    names = ["cartoonset100k_jpg\\0\\cs1.jpg", "cartoonset10k/cs2.png", "cs11502169095236683120.png"]
    for i, name in enumerate(names):
        source = write_zip(tmp_path / f"{i}.zip", {name: encoded(noise(i))})
        assert prepare(source, f"mine {i}", progress=False).crop == 0.7


def test_few_pictures_that_are_all_alike_say_how_to_go_on(tmp_path, empty_cache):
    shot = np.asarray(noise(0)).copy()
    files = {}
    for i in range(10):
        shot[0, 0] = i
        files[f"{i}.png"] = encoded(Image.fromarray(shot))
    folder = write_folder(tmp_path / "shot", files)
    report = prepare(folder, progress=False)
    assert "1 families of near copies" in str(report)
    assert "too few to train and test on: near=0 (--near 0) takes near copies as different" in str(report)
    with pytest.raises(ValueError, match=r"of which 1 are different, .*Near copies count as one.*--near 0"):
        load_faces("shot").split()
    kept = prepare(folder, near=0, progress=False).kept
    assert [len(part) for part in load_faces("shot").split()] == [kept - 1, 1]


def test_several_sources_are_one_set(tmp_path, empty_cache):
    parts = [write_zip(tmp_path / f"part{i}.zip", {"a.png": encoded(noise(i))}) for i in range(2)]
    report = prepare([*parts, write_folder(tmp_path / "more", {"b.png": encoded(noise(2))})], "mine", progress=False)
    assert (report.kept, report.name) == (3, "mine")
    assert prepare(parts, progress=False).name == "part0"
    with pytest.raises(ValueError, match=r"would be called 'part0', like those made from .*part0.zip . .*part1.zip"):
        prepare(parts[0], progress=False)
    empty = write_zip(tmp_path / "empty.zip", {"readme.txt": b"hello"})
    report = prepare([*parts, empty], "mine", progress=False)
    assert [reason for _, reason in report.unreadable] == ["holds no pictures"]


def test_parts_of_a_known_set_are_known_together(tmp_path, empty_cache):
    files = {f"cartoonset100k_jpg/{i}/cs{i}.jpg": encoded(noise(i), "jpg") for i in range(2)}
    folder = write_folder(tmp_path, files) / "cartoonset100k_jpg"
    assert prepare([folder / "0", folder / "1"], progress=False).name == "cartoon"
    names = {"cartoonset100k_jpg.zip": "0/cs0.jpg", "images.zip": "0_2000.jpg"}
    for archive, name in names.items():
        source = write_zip(tmp_path / archive, {name: encoded(noise(1), "jpg")})
        assert prepare(source, f"my {archive[0]}", progress=False).near == (0.0 if archive[0] == "c" else 0.07)


def test_a_set_called_like_the_drawn_faces_does_not_hide_them(tmp_path, empty_cache):
    report = prepare(write_folder(tmp_path / "mine", {"a.png": encoded(noise(1))}), progress=False)
    report.folder.rename(report.folder.with_name("drawn-anime-64"))  # as an earlier version allowed
    assert load_faces("drawn-anime", count=3).labels
