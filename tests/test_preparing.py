import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaelib.faces import load_faces
from vaelib.preparing import prepare, prepared_path, recognise, to_face

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, ending: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, {"jpg": "jpeg"}.get(ending, ending), **options)
    return buffer.getvalue()


def noise(seed: int, width: int = 80, height: int = 80) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


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
    for part in ("4 read", "3 kept", "1 duplicates", "2 unreadable", "text.jpg: not a picture", report.path):
        assert part in text
    assert json.loads(Path(report.path).with_suffix(".json").read_text())["kept"] == 3


def test_the_array_holds_each_distinct_picture_once_in_name_order(tmp_path, empty_cache, messy):
    report = prepare(write_folder(tmp_path / "mine", messy), size=80, progress=False)
    array = np.load(report.path, mmap_mode="r")
    assert array.shape == (3, 80, 80, 3) and array.dtype == np.uint8
    np.testing.assert_array_equal(array[0], np.asarray(noise(1)))  # a.png; its copy comes later
    np.testing.assert_array_equal(array[1], np.asarray(noise(2)))  # b/two.PNG
    assert Path(report.path) == prepared_path("mine", 80)
    assert len(load_faces("mine", size=80)) == 3


def test_zip_and_folder_give_the_same_bytes(tmp_path, empty_cache, messy):
    folder = prepare(write_folder(tmp_path / "folder", messy), size=32, progress=False)
    archive = prepare(write_zip(tmp_path / "archive.zip", messy), size=32, progress=False)
    assert Path(folder.path).read_bytes() == Path(archive.path).read_bytes()
    assert folder.unreadable == archive.unreadable
    assert archive.name == "archive"


def test_more_pictures_than_one_chunk(tmp_path, empty_cache):
    files = {f"{i:04}.png": encoded(Image.new("RGB", (4, 4), (i % 256, i // 256, 0))) for i in range(1100)}
    report = prepare(write_zip(tmp_path / "many.zip", files), size=4, progress=False)
    array = np.load(report.path)
    assert array.shape == (1100, 4, 4, 3)
    np.testing.assert_array_equal(array[:, 0, 0, 0] + 256 * array[:, 0, 0, 1].astype(int), np.arange(1100))


# ------------------------------------------------------------------------------------------------ one picture


def middle(face: np.ndarray) -> tuple[int, ...]:
    """The colour in the middle, away from what scaling does at an edge."""
    assert face.dtype == np.uint8 and face.shape[2] == 3
    return tuple(face[len(face) // 2, len(face) // 2].tolist())


def test_transparent_pixels_become_white():
    assert middle(to_face(Image.new("RGBA", (64, 64), (255, 0, 0, 0)), 32)) == WHITE
    assert middle(to_face(Image.new("RGBA", (64, 64), (255, 0, 0, 255)), 32)) == RED
    assert middle(to_face(Image.new("RGBA", (64, 64), (255, 0, 0, 51)), 32)) == (255, 204, 204)
    assert middle(to_face(Image.new("LA", (64, 64), (0, 0)), 32)) == WHITE


def test_a_palette_keeps_its_colours_and_its_transparency():
    image = Image.new("RGB", (64, 64), GREEN)
    image.paste(BLUE, (0, 0, 64, 8))
    picture = Image.open(io.BytesIO(encoded(image.quantize(4))))
    assert picture.mode == "P"
    assert middle(to_face(picture, 32)) == GREEN

    index = image.quantize(4).getpixel((32, 32))
    picture = Image.open(io.BytesIO(encoded(image.quantize(4), transparency=index)))
    assert middle(to_face(picture, 32)) == WHITE


@pytest.mark.parametrize("mode, colour", [("L", 100), ("1", 1), ("CMYK", (0, 0, 0, 155))])
def test_other_modes_become_rgb(mode, colour):
    ending = "tiff" if mode == "CMYK" else "png"
    picture = Image.open(io.BytesIO(encoded(Image.new(mode, (64, 64), colour), ending)))
    red, green, blue = middle(to_face(picture, 32))
    assert red == green == blue == (255 if mode == "1" else 100)


def test_sixteen_bit_grey_keeps_its_grey():
    grey = Image.fromarray(np.full((64, 64), 128 * 257, np.uint16))
    picture = Image.open(io.BytesIO(encoded(grey)))
    assert middle(to_face(picture, 32)) == (128, 128, 128)


def test_the_middle_square_is_kept():
    wide = Image.new("RGB", (300, 100), RED)
    wide.paste(GREEN, (100, 0, 200, 100))
    tall = wide.rotate(90, expand=True)
    for image in (wide, tall):
        assert (to_face(image, 32)[4:-4, 4:-4] == GREEN).all()


def test_crop_keeps_the_middle_part():
    image = Image.new("RGB", (100, 100), RED)
    image.paste(GREEN, (25, 25, 75, 75))
    assert (to_face(image, 32, crop=0.5)[4:-4, 4:-4] == GREEN).all()
    greenish = to_face(image, 32)[:, :, 1] > 127
    assert greenish.mean() == 0.25


def test_a_picture_of_the_right_size_is_kept_as_it_is():
    np.testing.assert_array_equal(to_face(noise(1, 32, 32), 32), np.asarray(noise(1, 32, 32)))


def test_scaling_is_lanczos_on_the_whole_picture():
    expected = noise(1, 96, 96).resize((32, 32), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(to_face(noise(1, 96, 96), 32), np.asarray(expected))


def test_a_large_jpeg_decoded_at_reduced_size_looks_the_same():
    gradient = np.linspace(0, 255, 1000).astype(np.uint8)
    pixels = np.stack(
        [np.tile(gradient, (800, 1)), np.tile(gradient[:800, None], (1, 1000)), np.full((800, 1000), 90)], 2
    )
    image = Image.fromarray(pixels.astype(np.uint8))
    picture = Image.open(io.BytesIO(encoded(image, "jpg", quality=95)))
    reduced = to_face(picture, 64, crop=0.7)
    assert picture.size[0] < 1000, "the draft mode should have been used"
    assert np.abs(reduced.astype(int) - to_face(image, 64, crop=0.7)).max() <= 6


def test_a_photo_is_turned_as_its_exif_says():
    image = Image.new("RGB", (64, 64), RED)
    image.paste(BLUE, (0, 0, 64, 32))  # blue above red
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    face = to_face(Image.open(io.BytesIO(encoded(image, exif=exif))), 32)
    assert tuple(face[4, 16]) == RED and tuple(face[28, 16]) == BLUE


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
    array = np.load(report.path, mmap_mode="r")
    assert array.shape == (18_969, 64, 64, 3)
    assert len(np.unique(array.reshape(len(array), -1).view("V12288"))) == 18_969


def test_real_cartoon_faces_fill_the_picture(real_prepared):
    report = real_prepared["cartoon"]
    assert (report.name, report.read, report.kept, report.unreadable) == ("cartoon", 7_000, 7_000, [])
    array = np.load(report.path, mmap_mode="r")
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
    assert [path for path in empty_cache.rglob("*") if path.is_file()] == []


def test_a_missing_source(tmp_path, empty_cache):
    with pytest.raises(FileNotFoundError, match=r"nowhere.zip does not exist; expected a zip file or a folder"):
        prepare(tmp_path / "nowhere.zip", progress=False)


@pytest.mark.parametrize(
    "options", [{"size": 0}, {"size": -64}, {"crop": 0}, {"crop": 1.5}, {"name": "a/b"}, {"name": "../up"}]
)
def test_bad_options(tmp_path, empty_cache, options):
    source = write_folder(tmp_path / "mine", {"a.png": encoded(noise(1))})
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"got {name}={value!r}, expected"):
        prepare(source, **options, progress=False)


def test_a_failed_second_time_keeps_the_first_array(tmp_path, empty_cache):
    good = write_folder(tmp_path / "mine", {"a.png": encoded(noise(1))})
    path = Path(prepare(good, progress=False).path)
    before = path.read_bytes()
    (good / "a.png").write_bytes(b"overwritten by accident")
    with pytest.raises(ValueError, match="none of the 1 pictures"):
        prepare(good, progress=False)
    assert path.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} == {"mine-64.npy", "mine-64.json"}


def test_a_damaged_member_of_a_zip_is_one_line_of_the_report(tmp_path, empty_cache):
    image = noise(7)
    path = write_zip(tmp_path / "faces.zip", {"good.bmp": encoded(noise(1), "bmp"), "bad.bmp": encoded(image, "bmp")})
    content = bytearray(path.read_bytes())
    content[content.find(b"bad.bmp") + 5000] ^= 0xFF
    path.write_bytes(content)
    report = prepare(path, progress=False)
    assert (report.read, report.kept) == (1, 1)
    assert report.unreadable[0][0] == "bad.bmp" and "CRC" in report.unreadable[0][1]
