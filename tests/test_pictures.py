import io

import numpy as np
import pytest
from PIL import Image

from vaelib import pictures

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, ending: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, {"jpg": "jpeg"}.get(ending, ending), **options)
    return buffer.getvalue()


def to_face(image: Image.Image, size: int, crop: float = 1.0) -> np.ndarray:
    return np.asarray(pictures.to_face(image, size, crop))


def noise(seed: int, width: int = 80, height: int = 80) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


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


@pytest.mark.parametrize("pixels", [np.full((64, 64), 0.5, np.float32), np.full((64, 64), 200, np.int32)])
def test_32_bit_grey_is_refused_rather_than_black(pixels):
    picture = Image.open(io.BytesIO(encoded(Image.fromarray(pixels), "tiff")))
    with pytest.raises(ValueError, match="32 bits a pixel"):
        to_face(picture, 32)


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


def test_a_reduced_picture_has_pixels_to_spare():
    picture = Image.open(io.BytesIO(encoded(noise(1, 500, 500), "jpg")))
    to_face(picture, 64, crop=0.7)
    assert picture.size == (125, 125), "of which the crop keeps 87.5, 1.37 times 64"


def test_a_photo_is_turned_as_its_exif_says():
    image = Image.new("RGB", (64, 64), RED)
    image.paste(BLUE, (0, 0, 64, 32))  # blue above red
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    face = to_face(Image.open(io.BytesIO(encoded(image, exif=exif))), 32)
    assert tuple(face[4, 16]) == RED and tuple(face[28, 16]) == BLUE


def test_a_jpeg_for_print_keeps_its_colours():
    picture = Image.open(io.BytesIO(encoded(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "jpg")))
    red, green, blue = middle(to_face(picture, 32))
    assert picture.mode == "CMYK" and red > 230 and green < 50 and blue < 50
