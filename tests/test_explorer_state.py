"""What the explorer does, without a browser."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaelib.drawn import draw_face
from vaelib.explorer_codes import model_of
from vaelib.explorer_state import ExplorerState, Morph, drawn_face, read_face
from vaelib.latents import NamedAxes, fit_attributes, fit_pca
from vaelib.pretrained import Bundle, load_pretrained


@pytest.fixture
def state(bundle):
    return ExplorerState(bundle)


@pytest.fixture
def attributes(bundle) -> NamedAxes:
    """Two directions at 60° to each other."""
    one, other = torch.zeros(2, *bundle.axes.mean.shape)
    one[0, 0, 0], other[0, 0, 0], other[1, 0, 0] = 1, 0.5, 0.75**0.5
    return NamedAxes(("smile", "skin"), torch.stack([one, other]), torch.tensor([1.0, 2.0]))


@pytest.fixture
def with_attributes(bundle, attributes):
    return ExplorerState(bundle, attributes)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def pixels(file):
    return np.asarray(Image.open(BytesIO(file))).astype(int)


# --------------------------------------------------------------------------------------------- the picture


def test_a_state_starts_at_the_mean_face(bundle, state):
    mean_face = bundle.vae.decode(bundle.axes.mean[None])[0].detach()
    expected = (255 * mean_face).byte().permute(1, 2, 0).numpy()
    assert state.weights == [0.0] * 12
    assert np.abs(pixels(state.render(64)) - expected).max() <= 1


def test_render_decodes_the_point_at_the_weights(bundle, state):
    state.weights = [1.5, -2.0, *[0.5] * 10]
    axes = bundle.axes
    z = axes.mean + sum(w * scale * v for w, scale, v in zip(state.weights, axes.scales, axes.directions, strict=True))
    expected = (255 * bundle.vae.decode(z[None])[0].detach()).byte().permute(1, 2, 0).numpy()
    assert np.abs(pixels(state.render(64)) - expected).max() <= 1


def test_render_gives_a_file_of_the_size_asked_for(state):
    for format, size in (("PNG", 96), ("JPEG", 200), ("PNG", 1024)):
        picture = Image.open(BytesIO(state.render(size, format)))
        assert (picture.format, picture.mode, picture.size) == (format, "RGB", (size, size))


def test_a_jpeg_shows_what_the_png_shows(state):
    state.randomize(seeded(0))
    assert np.abs(pixels(state.render(160, "JPEG")) - pixels(state.render(160))).mean() < 3


def test_the_same_weights_give_the_same_bytes(bundle, state):
    first = state.render()
    state.move(0, 2.0)
    assert np.abs(pixels(state.render()) - pixels(first)).mean() > 2  # grey levels of 255, and no rounding error
    state.move(0, 0.0)
    assert state.render() == first == ExplorerState(bundle).render()


def test_a_wrong_number_of_weights_is_refused(state):
    state.weights = [0.0] * 11
    with pytest.raises(ValueError, match=r"\(1, 11\), expected \(batch, 12\)"):
        state.render()


def test_a_strip_shows_what_its_axis_does(state):
    strips = state.strips(side=64)
    assert len(strips) == 12 and {strip.size for strip in strips} == {(5 * 64, 64)}
    for place, weight in enumerate(np.linspace(*state.limits[3], 5)):
        state.weights[3] = float(weight)
        shown = np.asarray(strips[3])[:, 64 * place : 64 * place + 64].astype(int)
        assert np.abs(shown - pixels(state.render(64))).max() <= 1


# --------------------------------------------------------------------------------------- randomize, step, undo


def test_randomize_is_repeatable_and_stays_on_the_sliders(bundle):
    one, other = ExplorerState(bundle), ExplorerState(bundle)
    seen = []
    for seed in range(200):
        one.randomize(seeded(seed))
        other.randomize(seeded(seed))
        assert (one.weights, one.directions) == (other.weights, other.directions)
        seen += one.weights
    assert all(weight == round(weight, 1) for weight in seen)
    assert (min(seen), max(seen)) == (-3, 3)  # 2,400 draws reach beyond ±3, and are clipped
    assert np.std(seen) == pytest.approx(1, abs=0.05)
    assert np.mean(seen) == pytest.approx(0, abs=0.05)


def test_spread_is_the_distance_from_the_mean_face(state):
    state.spread = 0.5
    state.randomize(seeded(0))
    near = state.weights
    state.spread = 1.0
    state.randomize(seeded(0))
    np.testing.assert_allclose(np.multiply(2, near), state.weights, atol=0.11)
    for state.prior in ("axes", "normal"):
        state.spread = 0.0
        state.randomize(seeded(0))
        torch.testing.assert_close(state.latent(), state.bundle.axes.mean[None], atol=1e-5, rtol=0)


@pytest.mark.parametrize("prior", ["normal", "wide", "exponential"])
def test_a_face_can_be_drawn_from_any_prior(bundle, state, prior):
    state.prior = prior
    state.randomize(seeded(1))
    z = bundle.priors[prior].sample(1, seeded(state.draw.seed))
    rounding = bundle.axes.weights(state.latent() - z + bundle.axes.mean)
    inside = bundle.axes.weights(z).abs() < 3  # beyond, the sliders end
    assert rounding[inside].abs().max() <= 0.051
    axes = bundle.axes.directions.flatten(1)
    left_over = (state.latent() - z).flatten(1)
    torch.testing.assert_close(left_over - left_over @ axes.T @ axes, torch.zeros_like(left_over), atol=1e-4, rtol=0)


def test_what_is_locked_stays(with_attributes):
    state = with_attributes
    state.weights = [2.5] * 12 + [1.0, -1.0]
    state.locked = {3, 12}
    state.randomize(seeded(0))
    assert state.weights[3] == 2.5 and state.weights[12] == 1.0 and state.weights[13] == 0.0
    assert [weight for i, weight in enumerate(state.weights) if i not in state.locked].count(2.5) <= 1
    for _ in range(5):
        state.step()
    assert state.weights[3] == 2.5


def test_step_moves_each_weight_in_its_own_direction_and_bounces_at_its_limits(state):
    state.limits = [(-3.0, 3.0)] * 5 + [(-1.0, 2.0)] * 7
    state.weights = [0.0, 2.95, -2.95, 3.0, -3.0, -1.0, *[0.0] * 6]
    state.directions = [1, 1, -1, 1, -1, *[-1] * 7]
    state.step()
    assert state.weights == [0.05, 3.0, -3.0, 2.95, -2.95, -0.95, *[-0.05] * 6]
    state.step()
    assert state.weights == [0.1, 2.95, -2.95, 2.9, -2.9, -0.9, *[-0.1] * 6]
    assert state.directions == [1, -1, 1, -1, 1, 1, *[-1] * 6]
    state.step(speed=4)
    assert state.weights[:3] == [0.3, 2.75, -2.75]


@pytest.mark.parametrize("speed", [0.2, 1.0, 3.6])
def test_a_long_animation_stays_in_range(state, speed):
    for _ in range(300):
        state.step(speed)
        assert all(low <= weight <= high for weight, (low, high) in zip(state.weights, state.limits, strict=True))


def test_at_the_published_speed_the_animation_comes_back(state):
    state.limits = [(-3.0, 3.0)] * 12
    start = list(state.weights)
    for _ in range(240):  # 12 σ there and back, in steps of 0.05
        state.step()
    assert state.weights == start


def test_limits_are_those_of_the_faces_or_three(bundle, state):
    for (low, high), (first, last) in zip(state.limits, bundle.axes.limits.tolist(), strict=True):
        assert low <= first < low + 0.11 and high - 0.11 < last <= high
    old = replace(bundle, axes=replace(bundle.axes, limits=None))
    assert ExplorerState(old).limits == [(-3.0, 3.0)] * 12


def test_a_seed_is_a_face(bundle, state):
    state.randomize(seeded(0))
    other = ExplorerState(bundle)
    other.go_to(state.draw.seed)
    assert other.weights == state.weights
    with pytest.raises(ValueError, match="got the seed -1, expected a whole number from 0 to 4294967295"):
        state.go_to(-1)


def test_spread_draws_the_present_face_anew_with_the_same_noise(bundle, state):
    for state.prior in ("axes", "normal"):
        state.spread = 1.0
        state.go_to(7)
        z = state.latent()
        state.move(2, round(state.weights[2] + 0.5, 1))
        for spread in (0.8, 0.5):  # a drag
            state.spread_out(spread)
        moved = state.bundle.axes.scales[2] * state.bundle.axes.directions[2] / 2
        expected = bundle.axes.mean + 0.5 * (z - bundle.axes.mean) + moved
        rounding = bundle.axes.weights(state.latent() - expected + bundle.axes.mean)
        assert rounding.abs().max() < 0.11
        state.undo()
        assert state.draw.spread == 1.0


def test_variations_are_near_and_draws_are_not(bundle, state):
    state.prior = "normal"
    state.go_to(3)
    assert len(state.faces(state.draws(3, seeded(0)))) == 3
    z = state.latent()

    def distance(draws):
        other = ExplorerState(bundle)
        return np.mean([(other.take(draw) or other.latent() - z).norm().item() for draw in draws])

    assert distance(state.variations(6, seeded(0))) < 0.5 * distance(state.draws(6, seeded(0)))


def test_it_begins_with_a_face_from_the_flow(bundle, state):
    state.begin()
    assert state.draw is None, "this bundle has no flow"
    state = ExplorerState(load_pretrained("drawn-anime"))
    state.begin()
    assert state.draw.prior == state.prior == "flow"
    start = state.weights
    state.undo()
    assert state.weights == start


def test_undo_takes_back_one_change_after_the_other(state):
    faces = [state.render()]
    state.move(0, 1.0)
    state.move(0, 2.0)  # the same slider, further: one change
    faces.append(state.render())
    state.prior = "wide"
    state.randomize(seeded(0))
    faces.append(state.render())
    state.reset()
    for face in reversed(faces):
        state.undo()
        assert state.render() == face
    state.undo()
    assert state.render() == faces[0]


def test_frames_show_the_animation_and_leave_the_state(state):
    state.randomize(seeded(0))
    before = list(state.weights), list(state.directions)
    frames = list(state.frames(3, size=64, speed=2))
    assert (state.weights, state.directions) == before
    for frame in frames:
        assert np.array_equal(np.asarray(frame), pixels(state.render(64)))
        state.step(2)


# -------------------------------------------------------------------------------------------------- attributes


def test_attributes_add_to_the_axes(bundle, attributes, with_attributes):
    state = with_attributes
    assert state.names[10:] == ["axis 11", "axis 12", "smile", "skin"]
    state.weights[0], state.weights[13] = 1.0, -1.5
    weights = torch.zeros(1, 12)
    weights[0, 0] = 1
    expected = bundle.axes.latents(weights) + attributes.offsets(torch.tensor([[0, -1.5]]))
    torch.testing.assert_close(state.latent(), expected)
    state.orthogonal = True
    expected = bundle.axes.latents(weights) + attributes.orthogonal().offsets(torch.tensor([[0, -1.5]]))
    torch.testing.assert_close(state.latent(), expected)


# ------------------------------------------------------------------------------------------------------- menus


@pytest.fixture(scope="module")
def fitted(bundle) -> NamedAxes:
    """Attributes of which one, hair, is a menu: each style is a number of the latent."""
    rng = np.random.default_rng(0)
    hair, smile = rng.choice(["bald", "long", "spiky"], 600), rng.uniform(-1, 1, 600)
    z = 0.1 * rng.normal(size=(600, 32))
    for place, style in enumerate(("bald", "long", "spiky")):
        z[:, place] += 3 * (hair == style)
    z[:, 5] += 2 * smile
    z[:, 0] += smile
    return fit_attributes(torch.from_numpy(z).float().reshape(600, 8, 2, 2), {"hair": hair, "smile": smile})


@pytest.fixture
def with_menu(bundle, fitted):
    return ExplorerState(bundle, fitted)


def test_choices_are_a_menu_and_numbers_have_sliders(with_menu, fitted):
    assert with_menu.names[12:] == ["smile"] and with_menu.menus == {"hair": ["bald", "long", "spiky"]}
    assert with_menu.limits[12] == (-1.8, 1.7) or with_menu.limits[12] == (-1.8, 1.8)
    face = with_menu.latent()
    with_menu.choose("hair", "spiky")
    torch.testing.assert_close(with_menu.latent(), fitted.swaps.swap(face, "hair", "spiky"))
    with_menu.move(0, 1.0)  # the menu holds while the face changes under it
    axes = with_menu.bundle.axes
    moved = axes.latents(torch.tensor([[1.0] + 11 * [0.0]]))
    torch.testing.assert_close(with_menu.latent(), fitted.swaps.swap(moved, "hair", "spiky"))
    with_menu.choose("hair", None)
    torch.testing.assert_close(with_menu.latent(), moved)
    with_menu.undo()
    assert with_menu.chosen == {"hair": "spiky"}
    assert with_menu.menu_strip("hair", side=16).size == (48, 16)


def test_a_locked_menu_stays(with_menu):
    with_menu.choose("hair", "long")
    with_menu.randomize(seeded(0))
    assert with_menu.chosen == {}
    with_menu.choose("hair", "long")
    with_menu.locked = {"hair"}
    with_menu.randomize(seeded(1))
    assert with_menu.chosen == {"hair": "long"}


def test_what_is_locked_can_keep_the_attributes_off(with_menu):
    state = with_menu
    hair = state.attributes.pick("hair=bald", "hair=long", "hair=spiky").directions.flatten(1)
    start = state.latent()
    state.move(12, 1.0)
    assert ((state.latent() - start).flatten(1) @ hair.T).abs().max() > 0.1  # a smile goes a bit the way of bald hair
    state.keep_off({"hair"})
    assert ((state.latent() - start).flatten(1) @ hair.T).abs().max() < 1e-4
    state.keep_off({12})
    state.choose("hair", "long")
    smile = state.attributes.pick("smile").directions.flatten(1)
    moved = state.attributes.pick("smile").offsets(torch.ones(1, 1))
    assert ((state.latent() - start - moved).flatten(1) @ smile.T).abs().max() < 1e-4
    state.keep_off({3})
    assert ((state.latent() - start).flatten(1) @ state.bundle.axes.directions[3].flatten()).abs().max() < 1e-4


def test_names_are_given_and_kept(with_menu, fitted):
    state = with_menu
    state.move(12, 1.0)
    state.choose("hair", "long")
    face, code = state.latent(), state.code
    for which, name in ((12, "grin"), (2, " night "), ("hair", "style")):
        state.rename(which, name)
    assert state.names[2] == "night" and state.names[12] == "grin" and list(state.menus) == ["style"]
    torch.testing.assert_close(state.latent(), face)
    assert state.code == code, "codes go by place"
    again = NamedAxes.load(state.named().to_bytes())
    assert set(again.names) == {"grin", "night", "style=bald", "style=long", "style=spiky"}
    other = ExplorerState(state.bundle, again)
    other.choose("style", "long")
    other.move(other.names.index("night"), 1.0)
    state.reset()
    state.choose("style", "long")
    state.move(2, 1.0)
    assert (other.latent() - state.latent()).abs().max() < 0.05
    for bad in ("", "grin", "a=b"):
        with pytest.raises(ValueError, match="expected one that no other axis has"):
            state.rename(0, bad)


def test_the_sharp_model_follows_the_soft_one(bundle, with_menu):
    sharp = ExplorerState(bundle, name="sharp")
    with_menu.choose("hair", "long")
    with_menu.randomize(seeded(0))
    sharp.follow(with_menu)
    assert torch.equal(sharp.latent(), with_menu.latent()) and sharp.name == "sharp"
    sharp.undo()
    assert sharp.chosen == {"hair": "long"}
    stranger = ExplorerState(replace(bundle, axes=fit_pca(torch.randn(50, 8, 2, 2, generator=seeded(1)))), name="x")
    with pytest.raises(ValueError, match="'sharp' and 'x' have latents of their own"):
        sharp.follow(stranger)


# ------------------------------------------------------------------------------------------------------- codes


@pytest.mark.parametrize("prior", ["axes", "wide"])
def test_a_code_restores_the_very_face(bundle, attributes, prior):
    state = ExplorerState(bundle, attributes)
    state.prior, state.spread = prior, 1.3
    for seed in range(20):
        state.randomize(seeded(seed))
        state.step()
        if seed % 2:
            state.move(12, 1.7)
            state.orthogonal = seed % 4 == 1
        other = ExplorerState(bundle, attributes)
        other.restore(f"  {state.code}\n")
        assert other.render() == state.render()
        assert other.code == state.code
        assert len(state.code) < 70
        other.undo()
        assert other.weights == [0.0] * 14


def test_a_code_without_attributes_needs_none(bundle, state, with_attributes):
    state.randomize(seeded(0))
    with_attributes.restore(state.code)
    assert with_attributes.code == state.code
    with_attributes.move(13, 1.0)
    with pytest.raises(ValueError, match="mistyped, or belongs to other weights or attributes of 'drawn-anime'"):
        state.restore(with_attributes.code)


def test_a_code_holds_what_is_chosen_and_kept_off(bundle, fitted, with_menu):
    with_menu.randomize(seeded(2))
    with_menu.choose("hair", "bald")
    with_menu.move(12, -0.7)
    for kept_off in ((), {"hair"}, {0, 12}):
        with_menu.keep_off(kept_off)
        other = ExplorerState(bundle, fitted)
        other.restore(with_menu.code)
        assert torch.equal(other.latent(), with_menu.latent()) and other.code == with_menu.code
        assert (other.chosen, other.kept_off) == ({"hair": "bald"}, frozenset(kept_off))
    assert with_menu.code.startswith("vae2:drawn-anime:axes:") and len(with_menu.code) < 60


@pytest.mark.parametrize("at_right_angles", [False, True])
def test_codes_from_before_there_were_menus_bring_their_face_back(bundle, fitted, with_menu, at_right_angles):
    """Choices had sliders then, as they have now where the axes come without swaps."""
    before = ExplorerState(bundle, fitted.pick(*fitted.names))
    before.randomize(seeded(3))
    before.move(before.names.index("hair=long"), 1.5)
    before.orthogonal = at_right_angles
    assert before.code.startswith("vae1:")
    with_menu.restore(before.code)
    assert (with_menu.latent() - before.latent()).abs().max() <= 0.5 / 16 + 1e-5  # the grid of an encoded face


def test_codes_stay_what_they_are():
    """Codes that people have kept: a new version of the package reads them as before."""
    state = ExplorerState(load_pretrained("drawn-anime"))
    head = "vae1:drawn-anime:axes:"
    state.weights = [-3.0] * 11 + [-2.99]
    assert state.code.startswith(f"{head}Aw")  # 1 in hundredths, times 3 for the kind
    assert model_of(state.code) == "drawn-anime"


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda code: "", "got '', expected a code such as vae1:drawn-anime:axes:"),
        (lambda code: "hello", "got 'hello', expected a code such as"),
        (lambda code: code.replace("vae1", "vae9"), "expected a code such as vae1"),
        (lambda code: code.replace("drawn-anime", "cartoon"), "is for the model 'cartoon', and this is 'drawn-anime'"),
        (lambda code: code.replace("axes", "learned"), "needs the prior 'learned', and 'drawn-anime' has axes, normal"),
        (lambda code: code[:-6] + ("A" if code[-6] != "A" else "B") + code[-5:], "is mistyped, or belongs to other"),
        (lambda code: code[:-1], "is mistyped, or belongs to other"),
        (lambda code: code[:-8] + "é" + code[-7:], "is mistyped, or belongs to other"),
        (lambda code: code[: code.rindex(":") + 3], "is mistyped, or belongs to other"),
    ],
)
def test_bad_codes_are_explained_and_change_nothing(state, spoil, message):
    state.randomize(seeded(0))
    weights, code = list(state.weights), state.code
    with pytest.raises(ValueError, match=re.escape(message)):
        state.restore(spoil(code))
    assert state.weights == weights


def test_a_code_for_other_weights_of_the_model_is_refused(bundle, state):
    state.randomize(seeded(0))
    retrained = Bundle(bundle.vae, fit_pca(torch.randn(50, *bundle.axes.mean.shape)), bundle.card)
    with pytest.raises(ValueError, match="other weights"):
        ExplorerState(retrained).restore(state.code)


def test_another_process_restores_the_same_face():
    state = ExplorerState(load_pretrained("drawn-cartoon"))
    state.prior = "normal"
    state.randomize(seeded(5))
    code = (
        "import json, sys; from vaelib.explorer_codes import *; from vaelib.explorer_state import *;"
        "from vaelib.pretrained import load_pretrained;"
        "state = ExplorerState(load_pretrained(model_of(sys.argv[1]))); state.restore(sys.argv[1]);"
        "print(json.dumps(state.latent().flatten().tolist()))"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, state.code], capture_output=True, text=True, cwd=root, check=True
    )
    np.testing.assert_allclose(json.loads(done.stdout), state.latent().flatten(), atol=1e-6)


# ------------------------------------------------------------------------------------------------------ morphs


@pytest.fixture
def morph(bundle):
    return Morph(bundle)


def test_a_morph_goes_from_one_reconstruction_to_the_other(bundle, morph):
    start, end = morph.pictures
    assert start.shape == (3, 64, 64) and not torch.equal(start, end)
    for share, picture in ((0.0, start), (1.0, end)):
        morph.share = share
        with torch.no_grad():
            expected = bundle.vae.decode(bundle.vae.encode(picture[None]).mean)[0]
        torch.testing.assert_close(morph.face(), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(morph.reconstruction(int(share)), expected, atol=1e-5, rtol=0)
    morph.share = 0.5
    torch.testing.assert_close(morph.latent()[0], (morph.latents[0] + morph.latents[1]) / 2)


def test_a_morph_can_follow_the_arc(morph):
    morph.share = 0.5
    line = morph.latent()
    morph.spherical = True
    lengths = [latent.norm().item() for latent in morph.latents]
    assert morph.latent().norm().item() == pytest.approx(sum(lengths) / 2, rel=1e-4)
    assert line.norm().item() < sum(lengths) / 2


def test_an_animated_morph_goes_there_and_back(morph):
    shares = []
    for _ in range(200):
        morph.step()
        shares.append(morph.share)
    assert shares[:2] == [0.01, 0.02] and max(shares) == 1.0 and shares[-1] == 0.0


def test_morph_frames_leave_the_morph(morph):
    list(morph.frames(5, size=32, speed=3))
    assert morph.share == 0.0


def as_file(array, format="PNG", **options) -> bytes:
    file = BytesIO()
    Image.fromarray(array).save(file, format, **options)
    return file.getvalue()


def test_an_uploaded_picture_is_cropped_and_scaled_as_the_data_set_was(bundle):
    face = draw_face("anime", size=64)
    np.testing.assert_array_equal((255 * read_face(as_file(face), bundle)).permute(1, 2, 0).round(), face)

    wide = np.full((80, 200, 3), 255, np.uint8)
    wide[:, 60:140] = (200, 30, 30)
    assert (255 * read_face(as_file(wide), bundle)).flatten(1).mean(1).tolist() == pytest.approx([200, 30, 30], abs=1)

    framed = np.full((100, 100, 3), 255, np.uint8)
    framed[15:85, 15:85] = 0  # Google's cartoons stand in a white margin, which `prepare` cuts off
    cartoon = Bundle(bundle.vae, bundle.axes, bundle.card | {"faces": "cartoon"})
    assert read_face(as_file(framed), bundle).max() == 1
    assert read_face(as_file(framed), cartoon)[:, 2:-2, 2:-2].max() < 0.05


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "this file is no picture: choose one of JPEG, PNG"),
        (b"hello", "this file is no picture: choose one of JPEG, PNG"),
        (as_file(draw_face("anime"))[:900], "this picture can't be read"),
        (as_file(np.zeros((1, 9000), np.uint8).repeat(8000, 0), "PNG"), "more than 64,000,000 in all"),
    ],
    ids=["empty", "text", "cut off", "huge"],
)
def test_bad_files_are_explained(bundle, content, message):
    with pytest.raises(ValueError, match=message):
        read_face(content, bundle)


def test_pictures_of_any_kind_are_read(bundle):
    rng = np.random.default_rng(0)
    kinds = [
        as_file(rng.integers(0, 255, (90, 70), np.uint8)),
        as_file(rng.integers(0, 255, (90, 70, 4), np.uint8)),
        as_file(rng.integers(0, 255, (300, 200, 3), np.uint8), "JPEG"),
        as_file(rng.integers(0, 255, (40, 40, 3), np.uint8), "WEBP"),
        as_file(rng.integers(0, 255, (40, 40), np.uint8), "GIF"),
    ]
    for content in kinds:
        face = read_face(content, bundle)
        assert face.shape == (3, 64, 64) and 0 <= face.min() <= face.max() <= 1


# ------------------------------------------------------------------------------------------- a face that is encoded


def test_an_encoded_face_is_shown_as_the_model_reconstructs_it():
    bundle = load_pretrained("drawn-anime")
    state, picture = ExplorerState(bundle), drawn_face(bundle, 5)
    state.encode(picture)
    with torch.no_grad():
        expected = bundle.vae.decode(bundle.vae.encode(picture[None]).mean)[0]
    assert (state.face() - expected).abs().mean() < 0.005  # its latent stands on a grid of sixteenths
    assert any(state.weights) and all(weight == round(weight, 1) and abs(weight) <= 3 for weight in state.weights)


def test_sliders_and_attributes_work_on_an_encoded_face(bundle, with_attributes):
    state = with_attributes
    state.encode(drawn_face(bundle, 5))
    z, weight = state.latent(), state.weights[0]
    state.move(0, weight + 1)
    torch.testing.assert_close(state.latent() - z, bundle.axes.scales[0] * bundle.axes.directions[:1])
    state.move(0, weight)
    state.move(12, 1.5)
    torch.testing.assert_close(state.latent() - z, 1.5 * state.attributes.directions[:1])
    state.undo()
    state.undo()
    state.undo()
    assert state.draw is None and not any(state.weights)


def test_a_code_holds_an_encoded_face_to_the_last_bit(bundle, attributes):
    state, other = ExplorerState(bundle, attributes), ExplorerState(bundle, attributes)
    state.encode(drawn_face(bundle, 5))
    state.move(3, -2.5)
    state.move(13, 0.5)
    assert ":picture:" in state.code
    other.restore(state.code)
    assert torch.equal(other.latent(), state.latent()) and other.code == state.code
    with pytest.raises(ValueError, match="mistyped"):
        other.restore(state.code[:40] + ("A" if state.code[40] != "A" else "B") + state.code[41:])


def test_taking_a_draw_is_what_randomize_does(bundle):
    one, other = (ExplorerState(bundle) for _ in range(2))
    one.prior = "mixture" if "mixture" in bundle.priors else next(iter(bundle.priors))
    one.randomize(seeded(3))
    other.take(one.draw)
    assert other.code == one.code
