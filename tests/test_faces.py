from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaelib import drawn
from vaelib.faces import Faces, load_faces, to_float
from vaelib.preparing import prepare, prepared_folder


def with_copies(count: int, seed: int = 0) -> Faces:
    """`count` small pictures, of which many repeat another; the label is the number of the original."""
    rng = np.random.default_rng(seed)
    originals = rng.integers(0, 256, (count // 3, 4, 4, 3), dtype=np.uint8)
    which = rng.integers(0, len(originals), count)
    return Faces(originals[which], labels={"original": which})


def contents(faces: Faces) -> set[bytes]:
    return {image.tobytes() for image in faces.images}


def test_families_are_the_equal_pictures():
    faces = with_copies(60)
    assert faces.families.shape == (60,) and faces.families.dtype == np.int64
    for i in range(60):
        for j in range(60):
            same = np.array_equal(faces.images[i], faces.images[j])
            assert (faces.families[i] == faces.families[j]) == same


@pytest.mark.parametrize("seed", range(10))
def test_split_never_parts_copies_and_loses_none(seed):
    faces = with_copies(300, seed)
    train, test = faces.split(test_fraction=0.2, seed=seed)
    assert not contents(train) & contents(test)
    assert len(train) + len(test) == 300
    assert contents(train) | contents(test) == contents(faces)


def test_split_takes_the_fraction_of_the_distinct_faces():
    faces = with_copies(3000)
    distinct = len(contents(faces))
    for fraction in (0.05, 0.1, 0.5):
        _, test = faces.split(fraction)
        assert len(contents(test)) == round(fraction * distinct)


@pytest.mark.parametrize(("count", "in_test"), [(50, 5), (9_990, 999), (40_000, 1_000)])
def test_a_tenth_is_kept_out_but_no_more_than_a_thousand(count, in_test):
    train, test = Faces(np.arange(3 * count, dtype=np.uint32).view(np.uint8).reshape(count, 2, 2, 3)).split()
    assert (len(train), len(test)) == (count - in_test, in_test)


def test_split_is_the_same_for_the_same_seed():
    faces = with_copies(200)
    for first, second in zip(faces.split(seed=1), faces.split(seed=1), strict=True):
        np.testing.assert_array_equal(first.images, second.images)
    assert contents(faces.split(seed=1)[1]) != contents(faces.split(seed=2)[1])


def test_split_keeps_order_and_labels():
    train, test = with_copies(90).split()
    originals = with_copies(90)
    for part in (train, test):
        for image, original in zip(part.images, part.labels["original"], strict=True):
            row = list(originals.labels["original"]).index(original)
            np.testing.assert_array_equal(image, originals.images[row])


def test_split_leaves_a_face_on_each_side():
    two = Faces(np.stack([np.zeros((4, 4, 3), np.uint8), np.ones((4, 4, 3), np.uint8)]))
    for fraction in (0.001, 0.999):
        assert [len(part) for part in two.split(fraction)] == [1, 1]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 20])
def test_split_wants_a_fraction(fraction):
    with pytest.raises(ValueError, match=f"got test_fraction={fraction}, expected a number between 0 and 1"):
        with_copies(9).split(fraction)


def test_split_wants_two_different_faces():
    with pytest.raises(ValueError, match="got 5 faces of which 1 are different, expected at least 2"):
        Faces(np.zeros((5, 4, 4, 3), np.uint8)).split()
    with pytest.raises(ValueError, match="got 0 faces of which 0 are different"):
        Faces(np.zeros((0, 4, 4, 3), np.uint8)).split()


def test_select_by_rows_and_by_mask():
    faces = with_copies(6)
    rows = faces.select([4, 1])
    np.testing.assert_array_equal(rows.images, faces.images[[4, 1]])
    np.testing.assert_array_equal(rows.labels["original"], faces.labels["original"][[4, 1]])
    mask = faces.labels["original"] == faces.labels["original"][0]
    assert len(faces.select(mask)) == mask.sum()


@pytest.mark.parametrize("rows", [slice(1, 4), [1, 2, 3], range(1, 4), np.array([1, 2, 3])])
def test_batch_is_float_channels_first_between_0_and_1(rows):
    faces = with_copies(6)
    batch = faces.batch(rows)
    assert batch.dtype == torch.float32 and batch.shape == (3, 3, 4, 4)
    np.testing.assert_array_equal(batch.numpy(), faces.images[1:4].transpose(0, 3, 1, 2) / np.float32(255))
    assert faces.batch().shape == (6, 3, 4, 4)


def test_to_float_spans_0_to_1_and_is_channels_last():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(2, 4, 4, 3).contiguous()
    x = to_float(images)
    assert x[0, :, 0, 0].tolist() == [0.0, pytest.approx(0.2), 1.0]
    assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((2, 3, 4, 4), np.uint8),
        np.zeros((2, 4, 4, 1), np.uint8),
    ],
)
def test_faces_wants_uint8_pictures(images):
    with pytest.raises(ValueError, match=r"expected uint8 \(N, H, W, 3\)"):
        Faces(images)


def test_faces_wants_a_label_for_each():
    with pytest.raises(ValueError, match="got 1 labels 'hair' for 2 images"):
        Faces(np.zeros((2, 4, 4, 3), np.uint8), labels={"hair": np.zeros(1)})


def test_faces_wants_a_family_for_each():
    with pytest.raises(ValueError, match="got 1 family numbers for 2 images"):
        Faces(np.zeros((2, 4, 4, 3), np.uint8), families=np.zeros(1, int))


def test_repr_says_what_it_is():
    faces = Faces(np.zeros((2000, 4, 6, 3), np.uint8), "mine")
    assert repr(faces) == "Faces('mine', prepared: 2,000 of 6×4 pixels)"
    assert len(faces) == 2000


# --------------------------------------------------------------------------------------------------- load_faces


def write_pictures(folder: Path, size: int = 64, count: int = 3) -> np.ndarray:
    """A folder of noise, and what it should become: uint8 (count, size, size, 3)."""
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
    return images


def write_prepared(folder: Path, name: str, size: int = 64) -> np.ndarray:
    images = write_pictures(folder / f"{name}-{size}", size)
    prepare(folder / f"{name}-{size}", name, size, progress=False)
    return images


@pytest.mark.parametrize("style", ["anime", "cartoon"])
def test_stand_ins_are_announced(empty_cache, capsys, style):
    faces = load_faces(style, count=4)
    assert (faces.name, faces.origin, faces.images.shape) == (f"drawn-{style}", "drawn", (4, 64, 64, 3))
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert f"4 drawn {style} faces stand in." in said
    assert f"python -m vaelib download {style}" in said

    load_faces(style, count=4, verbose=False)
    assert capsys.readouterr().out == ""
    load_faces(style, size=32, count=4)
    assert f"python -m vaelib download {style} --size 32\n" in capsys.readouterr().out


@pytest.mark.parametrize("style", ["anime", "cartoon"])
def test_drawn_faces_by_name(empty_cache, capsys, style):
    faces = load_faces(f"drawn-{style}", size=32, count=5)
    assert capsys.readouterr().out == "", "who asks for drawn faces needs no word about it"
    images, labels = drawn.draw_faces(style, 5, 32)
    np.testing.assert_array_equal(faces.images, images)
    assert list(faces.labels) == list(labels)
    for factor, values in labels.items():
        np.testing.assert_array_equal(faces.labels[factor], values)


def test_drawn_faces_are_kept_and_memory_mapped(empty_cache):
    first = load_faces("drawn-anime", size=32, count=5)
    kept = {path: path.stat().st_mtime_ns for path in (empty_cache / "drawn").iterdir()}
    again = load_faces("drawn-anime", size=32, count=5)
    assert {path: path.stat().st_mtime_ns for path in (empty_cache / "drawn").iterdir()} == kept
    assert isinstance(again.images, np.memmap)
    np.testing.assert_array_equal(first.images, again.images)


def test_prepared_faces_win(empty_cache, tmp_path, capsys):
    images = write_prepared(tmp_path, "anime")
    faces = load_faces("anime")
    assert (faces.name, faces.origin) == ("anime", "prepared")
    np.testing.assert_array_equal(faces.images, images)
    assert capsys.readouterr().out == ""
    assert load_faces("drawn-anime", count=2).origin == "drawn"
    assert load_faces("anime", size=32, count=2).origin == "drawn", "only 64 pixels are prepared"


@pytest.mark.parametrize("kind", [str, Path])
def test_the_path_of_a_folder_is_prepared_once(empty_cache, tmp_path, kind):
    images = write_pictures(tmp_path / "My pictures")
    faces = load_faces(kind(tmp_path / "My pictures"), verbose=False)
    assert repr(faces) == "Faces('my-pictures', prepared: 3 of 64×64 pixels)"
    np.testing.assert_array_equal(faces.images, images)
    kept = {path: path.stat().st_mtime_ns for path in prepared_folder("my-pictures", 64).iterdir()}
    load_faces(kind(tmp_path / "My pictures"), verbose=False)
    assert {path: path.stat().st_mtime_ns for path in prepared_folder("my-pictures", 64).iterdir()} == kept
    np.testing.assert_array_equal(load_faces("my-pictures").images, images)


def test_a_folder_of_the_name_of_a_style_is_not_taken_for_it(empty_cache, tmp_path, monkeypatch):
    write_pictures(tmp_path / "anime")
    monkeypatch.chdir(tmp_path)
    assert load_faces("anime", count=2, verbose=False).origin == "drawn"
    with pytest.raises(ValueError, match="would be called 'anime', like the built-in ones"):
        load_faces("./anime", verbose=False)


def test_a_relative_path_follows_the_folder_and_what_is_in_it(empty_cache, tmp_path, monkeypatch):
    for place in ("here", "there"):
        write_pictures(tmp_path / place / "pics")
    monkeypatch.chdir(tmp_path / "here")
    assert len(load_faces("./pics", verbose=False)) == 3
    Image.new("RGB", (64, 64)).save("pics/new.png")
    assert len(load_faces("pics/", verbose=False)) == 4
    assert len(load_faces("pics")) == 4, "once prepared, it goes by its name too"
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(ValueError, match=f"like those made from {tmp_path / 'here' / 'pics'}"):
        load_faces("./pics", verbose=False)


@pytest.mark.parametrize("name", ["", "x" * 300, "../up", "/nowhere/at/all"])
def test_no_name_and_no_path(empty_cache, name):
    with pytest.raises(FileNotFoundError):
        load_faces(name)


def test_families_come_with_the_faces(empty_cache, tmp_path):
    images = write_pictures(tmp_path / "pictures", count=30)
    brighter = np.clip(images[:10].astype(int) + 4, 0, 255).astype(np.uint8)  # an RMS of 4/255 = 0.016
    for i, image in enumerate(brighter):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i}-brighter.png")
    faces = load_faces(tmp_path / "pictures", verbose=False)
    assert len(faces) == 40 and len(set(faces.families)) == 30
    for seed in range(5):
        train, test = faces.split(0.3, seed)
        assert not set(train.families) & set(test.families)
        assert len(set(test.families)) == 9


def test_an_unknown_name_lists_the_known_ones(empty_cache, tmp_path):
    write_prepared(tmp_path, "mine")
    write_prepared(tmp_path, "small", size=32)
    prepared_folder("stopped", 64).mkdir()
    with pytest.raises(FileNotFoundError, match="no faces called 'yours' at 64 pixels") as error:
        load_faces("yours")
    assert "there are: anime, cartoon, drawn-anime, drawn-cartoon, mine. " in str(error.value)
    assert "python -m vaelib prepare PICTURES --name yours --size 64, or give a path: './yours'" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not an array at all", "half", None])
@pytest.mark.parametrize("which", ["images", "families"])
def test_a_damaged_array(empty_cache, tmp_path, content, which):
    images = write_prepared(tmp_path, "mine")
    (path,) = prepared_folder("mine", 64).glob(f"{which}-*.npy")
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "half" else content)
    with pytest.raises(ValueError, match=rf"{which}-\w+.npy is damaged .*; prepare the faces again"):
        load_faces("mine")
    prepare(tmp_path / "mine-64", "mine", progress=False)
    np.testing.assert_array_equal(load_faces("mine").images, images)


def test_no_file_of_the_package_is_the_cache(empty_cache):
    load_faces("drawn-anime", size=32, count=1)
    assert all(empty_cache in path.parents for path in Path(empty_cache).rglob("*.npy"))
    assert len(list(empty_cache.rglob("*.npy"))) == 1
