"""Drawn faces: labelled, reproducible, the same picture at every size."""

import numpy as np
import pytest

from vaelib.drawn import FACTORS, draw_face, draw_faces, sample_factors

STYLES = ["anime", "cartoon"]
EVERY_FACTOR = [(style, name) for style in STYLES for name in FACTORS[style]]

# Factors that show only beside something else: the colour of the glasses needs glasses.
COMPANIONS = {("cartoon", "glasses_hue"): {"glasses": "round"}}


def values_of(factor):
    """Every choice, or three numbers short of the upper end: hues go round, so that 0 and 1 look the same."""
    return factor.choices or np.linspace(factor.low, factor.high, 4)[:3].tolist()


@pytest.mark.parametrize("style", STYLES)
def test_a_style_has_at_least_twelve_factors_of_both_kinds(style):
    factors = FACTORS[style].values()
    assert len(factors) >= 12
    assert any(factor.choices for factor in factors) and not all(factor.choices for factor in factors)
    assert len(FACTORS[style]["hair"].choices) >= 6


@pytest.mark.parametrize("style", STYLES)
def test_same_seed_same_bytes(style):
    first, first_labels = draw_faces(style, 8, seed=3)
    again, again_labels = draw_faces(style, 8, seed=3)
    other, _ = draw_faces(style, 8, seed=4)
    assert first.tobytes() == again.tobytes()
    assert all((first_labels[name] == again_labels[name]).all() for name in FACTORS[style])
    assert all((a != b).any() for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("style", STYLES)
def test_a_longer_set_begins_with_the_shorter_one(style):
    few, few_labels = draw_faces(style, 4)
    many, many_labels = draw_faces(style, 12)
    assert (many[:4] == few).all()
    assert all((many_labels[name][:4] == few_labels[name]).all() for name in FACTORS[style])


@pytest.mark.parametrize("style", STYLES)
def test_images_and_labels_have_the_documented_form(style):
    images, labels = draw_faces(style, 30, size=32)
    assert images.shape == (30, 32, 32, 3) and images.dtype == np.uint8
    assert list(labels) == list(FACTORS[style])
    for name, factor in FACTORS[style].items():
        assert labels[name].shape == (30,)
        if factor.choices:
            assert labels[name].dtype.kind == "U" and set(labels[name]) <= set(factor.choices)
        else:
            assert labels[name].dtype == np.float32
            assert factor.low <= labels[name].min() < labels[name].max() <= factor.high


@pytest.mark.parametrize("style", STYLES)
def test_no_faces_is_an_empty_set(style):
    images, labels = draw_faces(style, 0)
    assert images.shape == (0, 64, 64, 3)
    assert {len(label) for label in labels.values()} == {0}


@pytest.mark.parametrize("style", STYLES)
def test_labels_redraw_their_face(style):
    images, labels = draw_faces(style, 5, seed=1)
    for i, image in enumerate(images):
        assert (draw_face(style, **{name: label[i] for name, label in labels.items()}) == image).all()


@pytest.mark.parametrize(("style", "name"), EVERY_FACTOR)
def test_each_value_of_a_factor_gives_another_picture(style, name):
    others = COMPANIONS.get((style, name), {})
    values = values_of(FACTORS[style][name])
    pictures = [draw_face(style, **others, **{name: value}).astype(int) for value in values]
    for i, picture in enumerate(pictures):
        for other in pictures[:i]:
            visible = np.abs(picture - other).max(-1) > 12  # pixels where a person could see the difference
            assert visible.sum() >= 8


@pytest.mark.parametrize(("style", "name"), EVERY_FACTOR)
def test_the_default_of_a_factor_is_one_of_its_values(style, name):
    factor = FACTORS[style][name]
    assert factor.default in factor.choices if factor.choices else factor.low <= factor.default <= factor.high
    assert (draw_face(style, **{name: factor.default}) == draw_face(style)).all()


@pytest.mark.parametrize("style", STYLES)
def test_the_size_does_not_change_the_picture(style):
    small = draw_faces(style, 4, size=64)[0].astype(float)
    large = draw_faces(style, 4, size=128)[0].astype(float)
    reduced = large.reshape(4, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(small - reduced).mean() < 3
    assert np.abs(small - reduced[::-1]).mean() > 20  # what the same measure says of two different faces


@pytest.mark.parametrize("style", STYLES)
def test_edges_are_antialiased(style):
    colours = np.unique(draw_face(style, tilt=5).reshape(-1, 3), axis=0)
    assert len(colours) > 100  # the flat colours are about twenty, the rest lie between them


def test_styles_differ():
    anime, cartoon = (draw_faces(style, 10)[0] for style in STYLES)
    corners = cartoon[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 255).mean() > 0.95  # cartoon heads stand on white
    assert np.abs(anime.astype(int).mean(0) - cartoon.mean(0)).mean() > 20


@pytest.mark.parametrize("style", STYLES)
def test_faces_fill_the_picture(style):
    images, _ = draw_faces(style, 20)
    inked = (images < 250).any(-1)
    heights = inked.any(2).sum(1)
    assert heights.min() >= 50


@pytest.mark.parametrize("style", STYLES)
def test_factors_are_drawn_independently(style):
    count = 800
    drawn = [sample_factors(style, [0, i]) for i in range(count)]
    columns = []
    for name, factor in FACTORS[style].items():
        values = [factors[name] for factors in drawn]
        columns.append([factor.choices.index(value) for value in values] if factor.choices else values)
        if factor.choices:
            assert set(values) == set(factor.choices)
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 5 / np.sqrt(count)


def test_weights_make_choices_rarer():
    beards = [sample_factors("cartoon", [1, i])["beard"] for i in range(1000)]
    assert beards.count("none") / 1000 == pytest.approx(0.6, abs=0.06)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: draw_face("manga"), ["manga", "anime", "cartoon"]),
        (lambda: sample_factors("manga", 0), ["manga", "anime"]),
        (lambda: draw_faces("manga", 3), ["manga", "anime"]),
        (lambda: draw_face("anime", beard="full"), ["beard", "hair", "tilt"]),
        (lambda: draw_face("cartoon", glasses="monocle"), ["glasses", "monocle", "round"]),
        (lambda: draw_face("anime", smile=2.0), ["smile", "2.0", "1.0"]),
        (lambda: draw_face("anime", smile=float("nan")), ["smile", "nan"]),
        (lambda: draw_face("anime", smile="wide"), ["smile", "wide"]),
        (lambda: draw_face("anime", size=0), ["size", "0", "8"]),
        (lambda: draw_faces("anime", 2, size=64.5), ["size", "64.5"]),
        (lambda: draw_faces("anime", -1), ["count", "-1"]),
    ],
)
def test_errors_say_what_was_given_and_what_is_allowed(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert all(word in str(error.value) for word in words)
