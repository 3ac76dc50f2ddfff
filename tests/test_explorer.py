"""The explorer's widgets without a browser: setting a value or clicking a button calls what a person's hand would."""

import ast
import asyncio
import html
import re
import sys
from base64 import b64decode
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pytest
import torch
import traitlets
from jupyter_client.manager import run_kernel
from PIL import Image

from vaelib.drawn import draw_face
from vaelib.explorer import LatentExplorer
from vaelib.explorer_layout import RECORDINGS
from vaelib.explorer_state import ExplorerState, drawn_face
from vaelib.faces import Faces
from vaelib.latents import NamedAxes, PCAAxes, fit_attributes
from vaelib.model import VAE, DenseVAE, Posterior
from vaelib.pretrained import Bundle, load_pretrained, make_bundle
from vaelib.priors import fit_flow

SHOWN = (320, "JPEG")  # what `render` is asked for


@pytest.fixture
def explorer(bundle):
    return LatentExplorer(bundle, torch.Generator().manual_seed(0))


@pytest.fixture
def renders(explorer, monkeypatch):
    """A list that grows by one with each picture drawn."""
    drawn, render = [], explorer.state.render
    monkeypatch.setattr(explorer.state, "render", lambda *size: drawn.append(render(*size)) or drawn[-1])
    return drawn


def pixels(file):
    return np.asarray(Image.open(BytesIO(file))).astype(int)


def values(explorer):
    return [slider.value for slider in explorer.sliders]


def names(explorer):
    """What the attributes' sliders are called."""
    return [row.name.value for row in explorer.axis_rows[len(explorer.state.bundle.axes) :]]


def downloaded(explorer) -> tuple[str, bytes]:
    """Name and content of the file that the link under the picture saves."""
    name, content = re.search(r'download="(.*?)" href="data:[\w/-]+;base64,(.*?)"', explorer.message.value).groups()
    return name, b64decode(content)


def upload(field: widgets.FileUpload, content: bytes, name: str = "face.png") -> None:
    """What the browser does, in ipywidgets 7 and 8."""
    if widgets.__version__.startswith("7"):
        field.metadata, field.data = [{"name": name}], [content]
        field._counter += 1
    else:
        now = datetime.now(UTC)
        file = {"name": name, "type": "", "size": len(content), "last_modified": now, "content": memoryview(content)}
        field.value = (file,)


def as_png(array: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


# ------------------------------------------------------------------------------------- sliders and buttons


def test_twelve_sliders_go_from_limit_to_limit(explorer):
    assert len(explorer.sliders) == 12
    assert [(slider.min, slider.max) for slider in explorer.sliders] == explorer.state.limits
    assert {(slider.step, slider.value) for slider in explorer.sliders} == {(0.1, 0)}
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
    assert [explorer.picture.value] == renders == [expected.render(*SHOWN)]


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

    explorer._echo.value = 1  # a browser has answered once, and now is busy
    asyncio.run(animate(frames=4, then_wait=0.5))
    assert len(renders) == 4  # until the sliders are to move

    traitlets.dlink((explorer._tick, "value"), (explorer._echo, "value"))  # it answers again, as its link does
    asyncio.run(asyncio.wait_for(animate(frames=24), 600))


def test_the_animation_ends_when_the_browser_has_gone(explorer, monkeypatch):
    """Else the kernel behind a page that was closed is never idle, and never ends."""
    monkeypatch.setattr("vaelib.explorer.ABSENT_SECONDS", 0.1)

    async def animate():
        explorer.animate_button.value = True
        while explorer.animate_button.value:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(animate(), 600))
    assert "color" not in explorer.message.value  # no error


def test_locks_keep_sliders_and_undo_goes_back(explorer):
    explorer.sliders[2].value = 1.5
    assert explorer.axis_rows[2].lock.icon == "unlock"
    explorer.axis_rows[2].lock.value = True
    assert explorer.axis_rows[2].lock.icon == "lock"
    face = explorer.picture.value
    explorer.randomize_button.click()
    assert values(explorer)[2] == 1.5 and any(values(explorer)[3:])
    explorer.undo_button.click()
    assert values(explorer) == [0, 0, 1.5, *[0] * 9]
    assert explorer.picture.value == face


def test_faces_can_be_drawn_from_elsewhere(bundle, explorer):
    assert explorer.prior_choice.options == ("axes", *bundle.priors)
    explorer.prior_choice.value, explorer.spread_slider.value = "wide", 0.5
    explorer.randomize_button.click()
    draw = explorer.state.draw
    assert (draw.prior, draw.spread) == ("wide", 0.5)
    explorer.reset_button.click()
    assert explorer.state.draw is None


def test_speed_is_how_far_a_frame_goes(explorer, renders):
    async def animate():
        explorer.speed_slider.value = 4.0
        explorer.animate_button.value = True
        while len(renders) < 3:
            await asyncio.sleep(0.001)
        explorer.animate_button.value = False

    asyncio.run(animate())
    assert {abs(weight) for weight in explorer.state.weights} == {0.6}


def test_a_flood_of_events_draws_few_pictures_and_ends_on_the_last(explorer, renders):
    async def flood():
        for event in range(500):
            explorer.sliders[0].value = event % 60 / 10
            if event % 10 == 0:
                await asyncio.sleep(0)  # the kernel takes the next message
        explorer.sliders[0].value = 1.7
        await asyncio.sleep(0.2)

    asyncio.run(flood())
    assert 1 <= len(renders) < 250
    assert explorer.state.weights[0] == 1.7
    assert explorer.picture.value == explorer.state.render(*SHOWN)


def test_a_flood_of_messages_in_a_real_kernel_ends_on_the_last():
    """500 messages such as the browser sends, at once: they share pictures, and nothing is left to do afterwards."""
    build = """
import vaelib
explorer = vaelib.LatentExplorer(vaelib.load_pretrained("drawn-anime"))
drawn, render = [], explorer.state.render
explorer.state.render = lambda *size: drawn.append(1) or render(*size)
print(explorer.sliders[0].model_id)
"""
    after = """
import asyncio
await asyncio.sleep(0.5)
print(len(drawn), explorer.state.weights[0], explorer.picture.value == render(320, "JPEG"))
"""
    root = Path(__file__).parents[1]
    with run_kernel(kernel_name="python3", cwd=str(root)) as client:
        slider = output_of(client, build)
        for event in range(500):
            state = {"value": 1.7 if event == 499 else event % 60 / 20}
            data = {"method": "update", "state": state, "buffer_paths": []}
            client.shell_channel.send(client.session.msg("comm_msg", {"comm_id": slider, "data": data}))
        drawn, weight, same = output_of(client, after).split()
    assert 1 <= int(drawn) < 400
    assert (weight, same) == ("1.7", "True")


def output_of(client, code: str) -> str:
    printed = []
    reply = client.execute_interactive(code, timeout=600, output_hook=lambda said: printed.append(said["content"]))
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(content.get("text", "") for content in printed).strip()


def test_a_new_explorer_stops_the_animation_of_others(bundle, explorer):
    async def run_the_cell_again():
        explorer.animate_button.value = True
        await asyncio.sleep(0.05)
        again = LatentExplorer(bundle)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        again.animate_button.value = True
        await asyncio.sleep(0.05)
        assert any(again.state.weights)
        again.stop()

    asyncio.run(run_the_cell_again())
    assert not explorer.animate_button.value


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

    def fail(*size):
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

    asyncio.run(asyncio.wait_for(animate(), 600))
    assert [str(error) for error in errors] == ["no memory left"]
    assert "no memory left" in explorer.message.value, "whoever looks at the page sees it too"


# ------------------------------------------------------------------------------------- errors, few latents, large ones


def test_every_handler_is_heard_through_the_one_way_that_tells_errors():
    """So that none can be added whose errors nobody sees."""
    tree = ast.parse(Path(sys.modules[LatentExplorer.__module__].__file__).read_text())
    calls = {"observe": [], "on_click": [], "create_task": []}
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute) and node.attr in calls:
                calls[node.attr].append(function.name)
    assert calls == {"observe": ["_hear"], "on_click": ["_hear"], "create_task": ["_start"]}


def test_faces_that_are_not_here_are_told(explorer, monkeypatch, empty_cache):
    """A run of somebody else's: its faces are in their cache."""
    monkeypatch.setitem(explorer.state.bundle.card, "faces", "theirs")
    explorer.attributes_panel.fit.click()
    assert "no faces called &#x27;theirs&#x27; at 64 pixels" in explorer.message.value


@pytest.mark.parametrize("error", [MemoryError("16 GB"), KeyError("gone"), OSError("no space left")])
def test_an_error_behind_any_button_is_told(explorer, monkeypatch, error, caplog):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(explorer.state, "render", fail)
    for button in (explorer.save_button, explorer.reset_button, explorer.randomize_button):
        explorer.message.value = ""
        button.click()
        assert html.escape(str(error)) in explorer.message.value
    faults = [record for record in caplog.records if record.exc_info]
    assert bool(faults) == (not isinstance(error, OSError)), "the traceback of a fault is in the log"


@pytest.mark.parametrize("kind", ["GIF", "MP4"])
def test_an_error_in_a_recording_is_told_and_frees_the_buttons(explorer, monkeypatch, kind):
    def fail(*arguments, **options):
        raise MemoryError("no room for the film")

    async def record():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        monkeypatch.setitem(RECORDINGS, kind, (fail, "image/gif"))
        explorer.record_buttons[kind].click()
        while explorer.record_buttons["GIF"].disabled:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(record(), 600))
    assert "no room for the film" in explorer.message.value
    assert explorer.progress.layout.visibility == "hidden"


def test_a_recording_too_large_to_hold_says_so(explorer):
    explorer.size_field.value = 4096
    explorer.record_buttons["GIF"].click()
    assert "got 4096 pixels, expected at most 2048 for a recording" in explorer.message.value
    assert not explorer.record_buttons["GIF"].disabled


@pytest.mark.parametrize("network", [DenseVAE(image_size=32, latent_dim=2), VAE(base_channels=2, latent_channels=1)])
def test_a_model_of_few_latents_opens(network):
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    bundle = make_bundle(network, Faces(images), {})
    explorer = LatentExplorer(bundle)
    count = bundle.axes.directions[0].numel()
    assert len(explorer.sliders) == len(bundle.axes) + 4 and len(bundle.axes) <= count
    assert explorer.attributes_panel.orthogonal.disabled, (
        f"four axes have no room for right angles in {count} dimensions"
    )
    explorer.sliders[-1].value = 1.0
    code = explorer.code_field.value
    explorer.reset_button.click()
    explorer.code_field.value = code
    assert explorer.sliders[-1].value == 1.0 and not explorer.message.value


def test_it_displays_as_widgets_with_a_still_picture_beside(explorer):
    bundle = explorer._repr_mimebundle_()
    page = Image.open(BytesIO(b64decode(bundle["image/jpeg"])))
    face = np.asarray(explorer.state.picture(384)).astype(int)
    shown = np.asarray(page)[12 : 12 + 384, page.width - 396 : page.width - 12]
    assert np.abs(shown - face).mean() < 2, "the face, but for a JPEG's rounding"
    assert page.width > 2 * 384, "and beside the face what the axes do"
    explorer.tabs.selected_index = 2
    assert b64decode(explorer._repr_mimebundle_()["image/jpeg"]) != b64decode(bundle["image/jpeg"])
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.box.model_id
    assert bundle["text/plain"] == repr(explorer) == "LatentExplorer(VAE of drawn-anime faces, 12 axes)"


# ------------------------------------------------------------------------------------------------- models


@pytest.fixture
def several(bundle):
    small = Bundle(bundle.vae, bundle.axes, bundle.card | {"faces": "drawn-cartoon"})
    return LatentExplorer({"one": bundle, "two": small}, torch.Generator().manual_seed(0))


def test_each_model_is_left_as_it_was(several):
    several.randomize_button.click()
    one = values(several)
    several.model_choice.value = "two"
    assert values(several) == [0] * 12 and several.state.name == "two"
    several.sliders[0].value = 1.0
    several.model_choice.value = "one"
    assert values(several) == one
    several.model_choice.value = "two"
    assert values(several) == [1.0, *[0] * 11]


def test_models_may_have_different_numbers_of_axes(bundle):
    axes = bundle.axes
    three = PCAAxes(axes.mean, axes.directions[:3], axes.scales[:3], axes.explained[:3])
    explorer = LatentExplorer({"many": bundle, "few": Bundle(bundle.vae, three, bundle.card)})
    explorer.model_choice.value = "few"
    assert len(explorer.sliders) == 3
    explorer.sliders[2].value = 1.0
    assert explorer.state.weights == [0, 0, 1.0]


def test_no_model_is_refused():
    with pytest.raises(ValueError, match="got no model, expected a bundle or several by name"):
        LatentExplorer({})


# --------------------------------------------------------------------------------------------- attributes


@pytest.fixture
def attributes(bundle):
    directions = torch.nn.functional.normalize(torch.ones(2, 32) + 2 * torch.eye(2, 32)).reshape(2, 8, 2, 2)
    return NamedAxes(("smile", "skin"), directions, torch.ones(2))


def test_attributes_are_sliders_with_names(bundle, attributes):
    explorer = LatentExplorer(bundle, attributes=attributes)
    assert names(explorer) == ["smile", "skin"]
    before = explorer.picture.value
    explorer.sliders[13].value = 2.0
    assert explorer.state.weights[13] == 2.0 and explorer.picture.value != before
    fitted, strip = explorer.picture.value, explorer.axis_rows[13].strip.value
    explorer.attributes_panel.orthogonal.value = True
    assert explorer.picture.value != fitted and explorer.axis_rows[13].strip.value != strip
    code = explorer.code_field.value
    explorer.reset_button.click()
    explorer.attributes_panel.orthogonal.value = False
    explorer.code_field.value = code  # it says at which angles they stood
    assert explorer.attributes_panel.orthogonal.value and explorer.state.weights[13] == 2.0
    explorer.undo_button.click()
    assert not explorer.attributes_panel.orthogonal.value and explorer.axis_rows[13].strip.value == strip


def test_a_bundle_may_bring_attributes_of_its_own(bundle, attributes):
    own = replace(bundle, attributes=attributes)
    assert names(LatentExplorer(own)) == ["smile", "skin"]
    assert names(LatentExplorer(own, attributes=attributes.pick("skin"))) == ["skin"]


def test_attributes_can_be_fitted_saved_and_loaded(bundle, explorer):
    assert len(explorer.sliders) == 12 and explorer.attributes_panel.save.disabled
    explorer.attributes_panel.fit.click()
    fitted = names(explorer)
    assert "23 attributes fitted to 1,000 drawn-anime faces" in explorer.message.value
    assert len(fitted) == 17 and list(explorer.menu_rows) == list(explorer.state.menus) and len(explorer.menu_rows) == 6
    explorer.attributes_panel.save.click()
    name, content = downloaded(explorer)
    assert name == "drawn-anime-attributes.safetensors"

    other = LatentExplorer(bundle)
    upload(other.attributes_panel.load, content, name)
    assert names(other) == fitted and other.state.menus == explorer.state.menus
    assert not other.attributes_panel.save.disabled


@pytest.fixture(scope="module")
def labelled(bundle) -> NamedAxes:
    """Attributes with a menu of hair styles, and fourteen numbers."""
    rng = np.random.default_rng(0)
    labels = {f"label {letter}": rng.uniform(-1, 1, 400) for letter in "abcdefghijklm"} | {
        "smile": rng.uniform(0, 1, 400)
    }
    labels["hair"] = rng.choice(["bald", "long", "spiky"], 400)
    z = 0.1 * rng.normal(size=(400, 32))
    for place, values in enumerate(labels.values()):
        z[:, place] += 1.0 * (values == "long") - (values == "bald") if values.dtype.kind == "U" else values
    return fit_attributes(torch.from_numpy(z).float().reshape(400, 8, 2, 2), labels)


@pytest.fixture
def with_menu(bundle, labelled):
    return LatentExplorer(bundle, torch.Generator().manual_seed(0), labelled)


def test_a_menu_swaps_one_choice_for_another(with_menu):
    menu, before = with_menu.menu_rows["hair"].menu, with_menu.picture.value
    assert menu.options == ("as it is", "bald", "long", "spiky") and menu.value == "as it is"
    menu.value = "bald"
    bald = with_menu.picture.value
    menu.value = "long"
    assert with_menu.state.chosen == {"hair": "long"} and with_menu.picture.value != bald
    code = with_menu.code_field.value
    with_menu.undo_button.click()
    assert menu.value == "bald" and with_menu.picture.value == bald
    with_menu.undo_button.click()
    assert menu.value == "as it is" and with_menu.picture.value == before
    with_menu.code_field.value = code
    assert menu.value == "long"
    with_menu.menu_rows["hair"].lock.value = True
    with_menu.randomize_button.click()
    assert menu.value == "long"
    menu.value = "as it is"
    assert not with_menu.state.chosen


def test_twelve_attributes_are_shown_and_all_can_be_found(with_menu):
    def shown():
        both = with_menu.attributes_panel.box.children[-1].children
        return [row.children[0].children[0].value for column in both for row in column.children]

    assert shown() == ["smile", "hair", *(f"label {letter}" for letter in "abcdefghij")]
    with_menu.attributes_panel.find.value = "SPIKY "
    assert shown() == ["hair"]
    with_menu.attributes_panel.find.value = "label m"
    assert shown() == ["label m"]
    with_menu.attributes_panel.find.value = "beard"
    assert shown() == []


def test_what_is_locked_keeps_the_others_off_on_request(with_menu):
    with_menu.axis_rows[14].lock.value = True
    assert with_menu.state.kept_off == frozenset()
    with_menu.attributes_panel.keep_off.value = True
    assert with_menu.state.kept_off == {14}
    with_menu.menu_rows["hair"].lock.value = True
    assert with_menu.state.kept_off == {14, "hair"}
    with_menu.attributes_panel.keep_off.value = False
    assert with_menu.state.kept_off == frozenset() and with_menu.state.locked == {14, "hair"}


def test_axes_are_named_in_place_and_saved(bundle, with_menu):
    with_menu.axis_rows[2].name.value = "night"
    with_menu.menu_rows["hair"].name.value = "style"
    assert with_menu.state.names[2] == "night" and list(with_menu.menu_rows) == ["style"]
    with_menu.menu_rows["style"].menu.value = "long"
    assert with_menu.state.chosen == {"style": "long"}
    with_menu.axis_rows[3].name.value = "night"
    assert "expected one that no other axis has" in with_menu.message.value
    assert with_menu.axis_rows[3].name.value == "axis 4"
    with_menu.attributes_panel.save.click()
    other = LatentExplorer(bundle)
    upload(other.attributes_panel.load, downloaded(with_menu)[1], "mine.safetensors")
    assert "night" in names(other) and list(other.menu_rows) == ["style"]


def test_an_axis_that_was_named_can_be_saved_alone(explorer):
    assert explorer.attributes_panel.save.disabled
    explorer.axis_rows[0].name.value = "tilt"
    explorer.attributes_panel.save.click()
    assert NamedAxes.load(downloaded(explorer)[1]).names == ("tilt",)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"no axes", "the file holds no named axes"),
        (NamedAxes(("a",), torch.ones(1, 5), torch.ones(1)).to_bytes(), "these axes are for latents of (5,)"),
    ],
)
def test_bad_axes_are_explained(explorer, content, message):
    upload(explorer.attributes_panel.load, content)
    assert message in explorer.message.value
    assert len(explorer.sliders) == 12


# ---------------------------------------------------------------------------------- seeds, the grid, soft and sharp


def test_a_seed_can_be_typed_and_spread_draws_at_once(explorer):
    explorer.prior_choice.value = "normal"
    explorer.seed_field.value = "4711"
    first, weights = explorer.picture.value, values(explorer)
    explorer.randomize_button.click()
    assert explorer.seed_field.value == str(explorer.state.draw.seed) != "4711"
    explorer.seed_field.value = "4711"
    assert explorer.picture.value == first
    explorer.spread_slider.value = 0.5
    assert explorer.picture.value != first and explorer.state.draw.seed == 4711
    assert np.abs(values(explorer)).sum() < np.abs(weights).sum()
    explorer.undo_button.click()
    assert explorer.picture.value == first and explorer.spread_slider.value == 1.0
    explorer.seed_field.value = "many"
    assert "got the seed &#x27;many&#x27;" in explorer.message.value and explorer.seed_field.value == "4711"


def test_a_face_of_the_grid_is_taken_and_varied(explorer):
    explorer.tabs.selected_index = 3
    style = explorer.grid_panel.faces._style
    first = style.value
    explorer.grid_panel.faces.buttons[5].click()
    assert explorer.state.draw is not None and style.value != first
    assert explorer.picture.value == explorer.state.render(*SHOWN)
    taken = explorer.state.latent()
    explorer.grid_panel.faces.buttons[2].click()
    assert 0 < (explorer.state.latent() - taken).norm() < taken.norm()
    explorer.grid_panel.new.click()
    explorer.grid_panel.vary.click()
    explorer.undo_button.click()
    assert torch.equal(explorer.state.latent(), taken)


def test_faces_are_drawn_as_asked(bundle):
    labels = {"mood": np.array(["calm", "glad"] * 30), "shade": np.linspace(0, 1, 60), "eye_hue": np.linspace(0, 1, 60)}
    shape = bundle.vae.latent_shape(bundle.image_size)
    means = torch.zeros(60, *shape)
    means[:, 0] = torch.from_numpy(np.where(labels["mood"] == "glad", 3.0, -3.0)).float().view(-1, 1, 1)
    flow = fit_flow(Posterior(means, torch.zeros_like(means)), steps=300, width=32, depth=1, labels=labels)
    explorer = LatentExplorer(replace(bundle, fitted={"flow": flow}), torch.Generator().manual_seed(0))
    panel = explorer.ask_panel
    assert [name for name, _ in panel.menus["eye_hue"].options][:3] == ["any", "red", "orange"]
    assert dict(panel.menus["shade"].options)["middle"] == pytest.approx(0.5)
    assert {menu.label for menu in panel.menus.values()} == {"any"} and not panel.asked
    panel.draw.click()
    assert {bool(z.latent(shape)[0, 0].mean() > 0) for z in explorer._asked} == {True, False}
    panel.menus["mood"].value = "glad"
    panel.draw.click()
    assert all(z.latent(shape)[0, 0].mean() > 0 for z in explorer._asked)
    panel.faces.buttons[4].click()
    assert explorer.state.draw == explorer._asked[4] and explorer.picture.value == explorer.state.render(*SHOWN)


def test_a_flow_without_labels_can_not_be_asked(explorer):
    assert not explorer.ask_panel.menus
    assert "has learned no labels" in explorer.ask_panel.box.children[0].value


def test_faces_that_were_kept_come_back(several):
    several.randomize_button.click()
    first = several.picture.value
    several.keep_button.click()
    several.model_choice.value = "two"
    several.randomize_button.click()
    for _ in range(3):
        several.keep_button.click()
    shown = [face.layout.display for face in several.grid_panel.kept.buttons]
    assert shown == [None] * 4 + ["none"] * 2
    several.grid_panel.kept.buttons[0].click()
    assert several.model_choice.value == "one" and several.picture.value == first


def test_a_switch_goes_from_soft_to_sharp_with_the_same_latent(bundle):
    explorer = LatentExplorer({"soft": bundle, "soft-sharp": replace(bundle), "other": bundle})
    explorer.randomize_button.click()
    z = explorer.state.latent()
    explorer.sharp_button.value = True
    assert explorer.model_choice.value == explorer.state.name == "soft-sharp" and torch.equal(
        explorer.state.latent(), z
    )
    explorer.sliders[0].value = 1.0
    z = explorer.state.latent()
    explorer.sharp_button.value = False
    assert explorer.state.name == "soft" and torch.equal(explorer.state.latent(), z)
    explorer.model_choice.value = "other"
    assert explorer.sharp_button.layout.display == "none"


def test_models_with_latents_of_their_own_are_not_switched(bundle):
    axes = replace(bundle.axes, directions=-bundle.axes.directions)
    explorer = LatentExplorer({"soft": bundle, "soft-sharp": replace(bundle, axes=axes)})
    explorer.sharp_button.value = True
    assert "have latents of their own" in explorer.message.value
    assert explorer.state.name == "soft" and not explorer.sharp_button.value


def test_a_model_that_ships_is_called_by_its_name():
    explorer = LatentExplorer(load_pretrained("drawn-anime-sharp"))
    assert explorer.state.name == "drawn-anime-sharp" and ":drawn-anime-sharp:flow:" in explorer.code_field.value
    soft = ExplorerState(load_pretrained("drawn-anime"))
    soft.go_to(5)
    explorer.code_field.value = soft.code  # as codes of the sharp one were called
    assert torch.equal(explorer.state.latent(), soft.latent()) and not explorer.message.value


# ------------------------------------------------------------------------------------------------- morphs


@pytest.fixture
def morphing(explorer):
    explorer.tabs.selected_index = 2
    return explorer


def test_the_picture_follows_the_tab(explorer):
    face = explorer.picture.value
    explorer.tabs.selected_index = 2
    assert explorer.picture.value == explorer.morph.render(*SHOWN) != face
    assert explorer.code_field.disabled and explorer.code_field.value == ""
    explorer.tabs.selected_index = 1
    assert explorer.picture.value == face
    assert explorer.code_field.value == explorer.state.code


def test_the_way_between_two_faces(morphing):
    seen = {morphing.picture.value}
    for way in (0.5, 1.0):
        morphing.morph_slider.value = way
        seen.add(morphing.picture.value)
    morphing.morph_slider.value = 0.5
    morphing.spherical_box.value = True
    seen.add(morphing.picture.value)
    assert len(seen) == 4
    assert morphing.morph.spherical


def test_an_uploaded_picture_becomes_an_end(morphing):
    face = draw_face("anime", hair="buns", hair_hue=0.1)
    before = morphing.picture.value
    upload(morphing.ends[0].upload, as_png(face))
    assert np.abs((255 * morphing.morph.pictures[0]).permute(1, 2, 0).numpy() - face).max() < 1
    assert np.abs(pixels(morphing.ends[0].original.value) - face).mean() < 4
    assert morphing.picture.value == morphing.morph.render(*SHOWN) != before
    assert morphing.message.value == ""


def test_the_same_picture_can_be_uploaded_again(morphing):
    face = as_png(draw_face("anime", hair="buns"))
    upload(morphing.ends[0].upload, face)
    uploaded = morphing.ends[0].original.value
    morphing.ends[0].draw.click()
    assert morphing.ends[0].original.value != uploaded
    upload(morphing.ends[0].upload, face)
    assert morphing.ends[0].original.value == uploaded


def test_undo_and_reset_of_a_morph(morphing):
    first = morphing.picture.value
    morphing.ends[0].draw.click()
    second = morphing.picture.value
    for way in (0.2, 0.4, 0.6):  # one drag
        morphing.morph_slider.value = way
    morphing.spherical_box.value = True
    seen = []
    for _ in range(3):
        morphing.undo_button.click()
        seen.append((morphing.morph_slider.value, morphing.spherical_box.value, morphing.picture.value))
    assert [each[:2] for each in seen] == [(0.6, False), (0, False), (0, False)]
    assert [each[2] for each in seen[1:]] == [second, first]

    morphing.randomize_button.click()
    morphing.morph_slider.value = 0.5
    morphing.reset_button.click()
    assert (morphing.picture.value, morphing.morph_slider.value) == (first, 0)
    morphing.undo_button.click()
    assert morphing.morph_slider.value == 0.5
    assert morphing.state.weights == [0] * 12


def test_a_bad_upload_is_explained_and_changes_nothing(morphing):
    before = morphing.picture.value
    upload(morphing.ends[1].upload, b"<script>alert(1)</script>", "face.txt")
    assert "this file is no picture" in morphing.message.value
    assert morphing.picture.value == before
    upload(morphing.ends[1].upload, as_png(draw_face("anime")))
    assert morphing.message.value == ""


def test_an_end_can_be_drawn_or_taken_from_the_sliders(morphing):
    first = morphing.ends[0].original.value
    morphing.ends[0].draw.click()
    second = morphing.ends[0].original.value
    morphing.ends[0].take.click()
    third = morphing.ends[0].original.value
    assert len({first, second, third}) == 3
    assert torch.equal(morphing.morph.pictures[0], morphing.state.face())
    other = morphing.ends[1].original.value
    morphing.randomize_button.click()
    assert morphing.ends[1].original.value != other


def test_a_morph_is_animated_there_and_back(morphing):
    async def animate():
        morphing.speed_slider.value = 4.0
        morphing.animate_button.value = True
        while morphing.morph_slider.value < 0.5:
            await asyncio.sleep(0.001)
        morphing.animate_button.value = False

    asyncio.run(asyncio.wait_for(animate(), 600))
    assert morphing.morph.share >= 0.5 and morphing.state.weights == [0] * 12


# ----------------------------------------------------------------------------------------- things to keep


def test_save_offers_a_png_of_any_size(explorer):
    explorer.randomize_button.click()
    explorer.size_field.value = 300
    explorer.save_button.click()
    name, content = downloaded(explorer)
    assert name == "drawn-anime-300.png"
    assert content == explorer.state.render(300)


@pytest.mark.parametrize("kind", ["GIF", "MP4"])
def test_record_offers_an_animation_and_leaves_the_face(explorer, kind):
    if kind == "MP4":
        av = pytest.importorskip("av")
    button = explorer.record_buttons[kind]

    async def record():
        explorer.size_field.value = 48
        button.click()
        await asyncio.sleep(0.02)
        assert button.disabled and explorer.progress.layout.visibility == "visible"
        while button.disabled:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(record(), 600))
    name, content = downloaded(explorer)
    assert name == f"drawn-anime-48.{kind.lower()}"
    if kind == "GIF":
        gif = Image.open(BytesIO(content))
        assert (gif.size, gif.n_frames) == ((48, 48), 118)
    else:
        with av.open(BytesIO(content)) as film:
            frames = [np.asarray(frame.to_image().convert("L")).astype(int) for frame in film.decode(video=0)]
        assert np.shape(frames) == (118, 48, 48)
        assert np.abs(frames[0] - np.asarray(explorer.state.picture(48).convert("L"))).mean() < 8
    assert explorer.progress.layout.visibility == "hidden"
    assert values(explorer) == [0] * 12


def test_a_code_brings_a_face_back_and_its_model_with_it(several):
    several.model_choice.value = "two"
    several.randomize_button.click()
    weights, code = values(several), several.code_field.value
    several.model_choice.value = "one"
    several.code_field.value = f" {code} "
    assert (several.model_choice.value, several.state.name) == ("two", "two")
    assert values(several) == weights
    assert several.code_field.value == code


def test_a_bad_code_is_explained(explorer):
    explorer.sliders[0].value = 1.0
    code, face = explorer.code_field.value, explorer.picture.value
    explorer.code_field.value = "<b>"
    assert "got &#x27;&lt;b&gt;&#x27;, expected a code such as vae1:drawn-anime" in explorer.message.value
    assert (explorer.code_field.value, explorer.picture.value) == (code, face)
    explorer.code_field.value = code
    assert explorer.code_field.value == code


def test_what_a_browser_sends_back_is_no_move(explorer):
    """It rounds what a slider was set to: -0.3 becomes -0.2999999999999998, which must not need an Undo of its own."""
    explorer.randomize_button.click()
    code, shown = explorer.code_field.value, explorer.picture.value
    for slider in explorer.sliders:
        slider.value = slider.min + round((slider.value - slider.min) / slider.step) * slider.step + 1e-12
    assert (explorer.code_field.value, explorer.picture.value) == (code, shown)
    explorer.undo_button.click()
    assert not any(explorer.state.weights)


# ---------------------------------------------------------------------------------------------- a face of your own


def test_an_uploaded_face_stands_at_the_sliders_and_can_be_edited(explorer):
    explorer.tabs.selected_index = 2
    face = drawn_face(explorer.state.bundle, 9)
    upload(explorer.upload, as_png((255 * face).byte().permute(1, 2, 0).numpy()))
    assert explorer.tabs.selected_index != 2 and explorer.scene is explorer.state
    assert any(slider.value for slider in explorer.sliders)
    assert ":picture:" in explorer.code_field.value
    before = explorer.picture.value
    explorer.sliders[0].value = -explorer.sliders[0].value or 2.0
    assert explorer.picture.value != before
    explorer.undo_button.click()
    explorer.undo_button.click()
    assert not any(slider.value for slider in explorer.sliders)


def test_a_face_can_be_dropped_on_the_picture_and_dropped_again(explorer):
    face = as_png((255 * drawn_face(explorer.state.bundle, 9)).byte().permute(1, 2, 0).numpy())
    explorer.drop_target.dropped = memoryview(face)
    code, shown = explorer.code_field.value, explorer.picture.value
    assert ":picture:" in code
    explorer.undo_button.click()
    explorer.drop_target.dropped = memoryview(face)
    assert (explorer.code_field.value, explorer.picture.value) == (code, shown)


def test_a_file_that_is_no_face_changes_nothing(explorer):
    explorer.sliders[1].value = 1.0
    code = explorer.code_field.value
    upload(explorer.upload, b"no picture")
    assert "this file is no picture" in explorer.message.value
    explorer.message.value = ""
    explorer.drop_target.dropped = b"no picture either"
    assert "this file is no picture" in explorer.message.value
    assert explorer.code_field.value == code


def test_drawn_faces_to_edit_differ_from_click_to_click(explorer):
    explorer.draw_button.click()
    first = explorer.code_field.value
    explorer.draw_button.click()
    assert ":picture:" in first and explorer.code_field.value not in ("", first)
    code, shown = explorer.code_field.value, explorer.picture.value
    explorer.reset_button.click()
    explorer.code_field.value = code
    assert explorer.picture.value == shown
