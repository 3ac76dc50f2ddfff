"""The explorer without a browser: setting a slider's value or clicking a button calls what a person's hand would."""

import asyncio
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from vaelib.explorer import ExplorerState, LatentExplorer
from vaelib.latents import fit_pca
from vaelib.model import VAE
from vaelib.pretrained import Bundle


@pytest.fixture(scope="module")
@torch.no_grad()
def bundle() -> Bundle:
    """A tiny untrained decoder, which draws coloured spots, and axes of unit length, which move many of them."""
    torch.manual_seed(0)
    vae = VAE(base_channels=4, latent_channels=8)
    for parameter in vae.parameters():
        parameter *= 3  # more contrast
    latents = torch.randn(100, *vae.latent_shape(64))
    for _ in range(20):
        vae.decode(latents)  # lets the batch norms see what comes
    return Bundle(vae.eval(), fit_pca(latents), {"model": "VAE", "image_size": 64, "faces": "drawn-anime"})


@pytest.fixture
def state(bundle):
    return ExplorerState(bundle)


@pytest.fixture
def explorer(bundle):
    return LatentExplorer(bundle, torch.Generator().manual_seed(0))


@pytest.fixture
def renders(explorer, monkeypatch):
    """A list that grows by one with each picture drawn."""
    drawn, render = [], explorer.state.render
    monkeypatch.setattr(explorer.state, "render", lambda size: drawn.append(render(size)) or drawn[-1])
    return drawn


def pixels(png):
    return np.asarray(Image.open(BytesIO(png))).astype(int)


def values(explorer):
    return [slider.value for slider in explorer.sliders]


# ---------------------------------------------------------------------------------------------- the state


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


def test_render_gives_a_png_of_the_size_asked_for(state):
    picture = Image.open(BytesIO(state.render(size=96)))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (96, 96))


def test_the_same_weights_give_the_same_bytes(bundle, state):
    first = state.render()
    state.weights[0] = 2.0
    assert np.abs(pixels(state.render()) - pixels(first)).mean() > 2  # grey levels of 255, and no rounding error
    state.weights[0] = 0.0
    assert state.render() == first == ExplorerState(bundle).render()


def test_a_wrong_number_of_weights_is_refused(state):
    state.weights = [0.0] * 11
    with pytest.raises(ValueError, match=r"\(1, 11\), expected \(batch, 12\)"):
        state.render()


def test_randomize_is_repeatable_and_stays_on_the_sliders(bundle):
    one, other = ExplorerState(bundle), ExplorerState(bundle)
    seen = []
    for seed in range(200):
        one.randomize(torch.Generator().manual_seed(seed))
        other.randomize(torch.Generator().manual_seed(seed))
        assert (one.weights, one.directions) == (other.weights, other.directions)
        seen += one.weights
    assert all(weight == round(weight, 1) for weight in seen)
    assert (min(seen), max(seen)) == (-3, 3)  # 2,400 draws reach beyond ±3, and are clipped
    assert np.std(seen) == pytest.approx(1, abs=0.05)
    assert np.mean(seen) == pytest.approx(0, abs=0.05)


def test_step_moves_each_weight_in_its_own_direction_and_bounces(state):
    state.weights = [0.0, 2.95, -2.95, 3.0, -3.0, *[0.0] * 7]
    state.directions = [1, 1, -1, 1, -1, *[-1] * 7]
    state.step()
    assert state.weights == [0.05, 3.0, -3.0, 2.95, -2.95, *[-0.05] * 7]
    state.step()
    assert state.weights == [0.1, 2.95, -2.95, 2.9, -2.9, *[-0.1] * 7]
    assert state.directions == [1, -1, 1, -1, 1, *[-1] * 7]


def test_a_long_animation_stays_in_range_and_comes_back(state):
    start = list(state.weights)
    for _ in range(240):  # 12 σ there and back, in steps of 0.05
        state.step()
        assert max(map(abs, state.weights)) <= 3
    assert state.weights == start


# ---------------------------------------------------------------------------------------------- the view


def test_twelve_sliders_go_from_minus_three_to_three(explorer):
    assert len(explorer.sliders) == 12
    assert {(slider.min, slider.max, slider.step, slider.value) for slider in explorer.sliders} == {(-3, 3, 0.1, 0)}
    assert all(slider.readout for slider in explorer.sliders)


def test_moving_a_slider_changes_the_picture(explorer, renders):
    before = explorer.picture.value
    explorer.sliders[3].value = 2.0
    assert explorer.state.weights == [0, 0, 0, 2, *[0] * 8]
    assert explorer.picture.value == renders[0] != before
    explorer.sliders[3].value = 0.0
    assert explorer.picture.value == before


def test_randomize_moves_every_slider_and_draws_once(bundle, explorer, renders):
    expected = ExplorerState(bundle)
    expected.randomize(torch.Generator().manual_seed(0))
    explorer.randomize_button.click()
    assert values(explorer) == explorer.state.weights == expected.weights
    assert [explorer.picture.value] == renders == [expected.render(128)]


def test_reset_goes_back_to_the_mean_face_and_draws_once(explorer, renders):
    mean_face = explorer.picture.value
    explorer.randomize_button.click()
    explorer.reset_button.click()
    assert values(explorer) == [0] * 12
    assert explorer.picture.value == mean_face
    assert len(renders) == 2


def test_animate_moves_the_sliders_until_it_is_released(explorer, renders):
    async def animate():
        explorer.animate_button.value = True
        while len(renders) < 7:
            await asyncio.sleep(0.001)
        explorer.animate_button.value = False
        await asyncio.sleep(0.1)

    asyncio.run(animate())
    assert len(renders) == 7  # none after it was released
    assert {abs(weight) for weight in explorer.state.weights} == {0.35}
    assert values(explorer) == explorer.state.weights
    assert explorer.picture.value == renders[-1]


def test_the_animation_waits_for_a_browser_that_lags(explorer, renders):
    async def animate(frames, then_wait=0.0):
        explorer.animate_button.value = True
        while len(renders) < frames:
            await asyncio.sleep(0.001)
        await asyncio.sleep(then_wait)
        explorer.animate_button.value = False

    explorer._echo.value = 1.0  # a browser has answered once, and now is busy
    asyncio.run(animate(frames=4, then_wait=0.5))
    assert len(renders) == 4  # until the sliders are to move

    traitlets.dlink((explorer.sliders[0], "value"), (explorer._echo, "value"))  # it answers again, as its link does
    asyncio.run(asyncio.wait_for(animate(frames=24), 3))


def test_pressing_animate_often_leaves_one_animation(explorer, renders):
    async def press():
        for _ in range(5):
            explorer.animate_button.value = True
            explorer.animate_button.value = False
        explorer.animate_button.value = True
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 2  # this one and the animation
        while len(renders) < 3:
            await asyncio.sleep(0.001)
        explorer.reset_button.click()
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(press())
    assert not explorer.animate_button.value
    assert values(explorer) == [0] * 12


def test_an_error_stops_the_animation_and_is_reported(explorer, monkeypatch):
    errors = []

    def fail(size):
        raise OSError("no memory left")

    async def animate():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context["exception"]))
        monkeypatch.setattr(explorer.state, "render", fail)
        explorer.animate_button.value = True
        while explorer.animate_button.value:
            await asyncio.sleep(0.001)
        monkeypatch.undo()
        explorer.animate_button.value = True  # and it can be started again
        before = explorer.picture.value
        while explorer.picture.value == before:
            await asyncio.sleep(0.001)
        explorer.animate_button.value = False

    asyncio.run(asyncio.wait_for(animate(), 10))
    assert [str(error) for error in errors] == ["no memory left"]


def test_it_displays_as_widgets_with_a_still_picture_beside(explorer):
    bundle = explorer._repr_mimebundle_()
    assert b64decode(bundle["image/png"]) == explorer.state.render()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.box.model_id
    assert bundle["text/plain"] == repr(explorer) == "LatentExplorer(VAE of drawn-anime faces, 12 axes)"
