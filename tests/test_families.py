import io

import numpy as np
import pytest
from PIL import Image

from vaelib.drawn import draw_faces
from vaelib.families import NEAR, TooAlike, block_averages, find_families


def same_groups(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two numberings put the same pictures together, whatever the numbers."""
    return np.array_equal(a[:, None] == a, b[:, None] == b)


def brute_force(images: np.ndarray, near: float) -> np.ndarray:
    """Compare all pairs by their 16×16 block averages, then spread the smallest number along chains of copies."""
    count, side = len(images), images.shape[1] // 16
    blocks = (images / 255.0).reshape(count, 16, side, 16, side, 3).mean((2, 4)).reshape(count, -1)
    linked = np.sqrt(np.square(blocks[:, None] - blocks).mean(2)) < near
    family = np.arange(count)
    for _ in range(count):
        family = np.array([family[row].min() for row in linked])
    return family


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("near", [0.05, NEAR, 0.15])
def test_all_pairs_are_found(size, near):
    """Noise of every strength on a few pictures: distances fall on both sides of the threshold, and chain."""
    rng = np.random.default_rng(0)
    originals = draw_faces("anime", 40, size)[0]
    shifts = rng.normal(0, 40, (120, 8, 8, 3)).repeat(size // 8, 1).repeat(size // 8, 2) * rng.random((120, 1, 1, 1))
    images = np.clip(originals[rng.integers(0, 40, 120)] + shifts, 0, 255).astype(np.uint8)
    expected = brute_force(images, near)
    assert 1 < len(set(expected)) < 120
    assert same_groups(find_families(images, near), expected)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def cropped(image: np.ndarray, left: int, right: int) -> np.ndarray:
    side = image.shape[0]
    box = (left, left, side - right, side - right)
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS, box=box))


def test_the_same_artwork_compressed_or_cropped_is_one_family():
    originals = draw_faces("anime", 200)[0]
    for change in (lambda x: x, lambda x: jpeg(x, 20), lambda x: cropped(x, 1, 0), lambda x: cropped(x, 1, 1)):
        families = find_families(np.concatenate([originals, [change(image) for image in originals]]))
        assert (families[:200] == families[200:]).mean() > 0.95, "nearly every pair should be found"
        assert len(set(families[:200])) == 200, "no two different faces should meet"


def test_families_are_counted_from_0_and_int64():
    families = find_families(draw_faces("anime", 10)[0])
    assert families.dtype == np.int64 and sorted(families) == list(range(10))


def test_near_0_means_equal_in_every_byte():
    images = draw_faces("anime", 4)[0][[0, 1, 2, 3, 0, 1]]
    images[5, 0, 0, 0] ^= 1
    assert same_groups(find_families(images, near=0), np.array([0, 1, 2, 3, 0, 5]))


@pytest.mark.parametrize("count", [0, 1])
def test_few_pictures(count):
    assert find_families(np.zeros((count, 64, 64, 3), np.uint8)).tolist() == [0] * count


@pytest.mark.parametrize("shape", [(3, 8, 8, 3), (3, 50, 50, 3), (3, 48, 80, 3), (3, 32, 9, 3), (3, 1, 1, 3)])
def test_any_size(shape):
    images = np.zeros(shape, np.uint8)
    images[1] = 255
    assert same_groups(find_families(images), np.array([0, 1, 0]))


@pytest.mark.parametrize("shape", [(2, 31, 31, 3), (2, 63, 63, 3), (2, 50, 64, 3), (2, 40, 24, 3)])
def test_every_pixel_counts(shape):
    """Two pictures that differ in the bottom right corner only."""
    images = np.full(shape, 255, np.uint8)
    images[1, -8:, -8:] = 0
    assert find_families(images).tolist() == [0, 1]


def test_block_averages_are_means():
    images = np.random.default_rng(0).integers(0, 256, (3, 50, 37, 3), dtype=np.uint8)
    blocks = block_averages(images)
    assert blocks.shape == (3, 16, 16, 3) and blocks.dtype == np.float32
    np.testing.assert_allclose(blocks[:, 0, 0], images[:, :3, :2].mean((1, 2)) / 255, rtol=1e-6)  # 50 / 16, 37 / 16
    np.testing.assert_allclose(blocks[:, 15, 15], images[:, 46:, 34:].mean((1, 2)) / 255, rtol=1e-6)
    white = np.full((1, 8192, 32, 3), 255, np.uint8)
    assert (block_averages(white) == 1).all(), "large sums should not overflow"


def test_pictures_that_are_all_alike_do_not_fill_the_memory():
    with pytest.raises(TooAlike, match=r"7,000 pictures so alike that near=0.07 joins some 24,500,000 pairs"):
        find_families(np.zeros((7000, 4, 4, 3), np.uint8))


def test_a_negative_distance():
    with pytest.raises(ValueError, match="got near=-1, expected a distance"):
        find_families(np.zeros((2, 4, 4, 3), np.uint8), near=-1)


def test_real_anime_faces(real_prepared):
    report = real_prepared["anime"]
    families = np.load(report.families_path)
    assert families.shape == (18_969,)
    assert (report.families, report.largest_family) == (17_944, 7)
    alone = np.bincount(families)[families] == 1
    assert 0.09 < 1 - alone.mean() < 0.12, "about a tenth of the anime faces have a near copy"
