"""Drag sliders, watch a face change: the published *Anime VAE* GUI, in ipywidgets.

    bundle = vaelib.load_pretrained("drawn-anime")
    vaelib.LatentExplorer(bundle)               # last line of a cell: sliders, buttons, picture

`ExplorerState` is all that the explorer knows and does, without a browser; `LatentExplorer` shows it and listens.
"""

import asyncio
import itertools
from base64 import b64encode
from io import BytesIO
from time import monotonic

import ipywidgets as widgets
import torch
from PIL import Image
from torchvision.transforms.functional import to_pil_image

from vaelib.plots import decode
from vaelib.pretrained import Bundle

LIMIT = 3.0  # sliders go from -3 to 3 σ
SLIDER_STEP = 0.1
ANIMATION_STEP = 0.05  # per frame and axis
FRAME_SECONDS = 0.02
PAUSE_SECONDS = 0.005  # the least that the animation leaves to everything else in the kernel, per frame
FRAMES_PER_SLIDER_MOVE = 5  # moving twelve sliders at every frame is more than a browser keeps up with
PATIENCE_SECONDS = 1.0  # how long the animation waits for a browser that lags or has gone
SHOWN_SIZE = 256  # pixels on the page; half of that is drawn, and the browser enlarges it: a third of the bytes


class ExplorerState:
    """A point in a bundle's PCA space, and the face that stands there.

    `weights` holds one float per axis, in standard deviations from the mean, from -3 to 3: at first all 0, the mean
    face. `directions` holds the way in which each moves when animated, 1 or -1.
    """

    def __init__(self, bundle: Bundle):
        self.bundle = bundle
        self.directions = [1 if axis % 2 == 0 else -1 for axis in range(len(bundle.axes))]
        self.reset()

    def reset(self) -> None:
        """Go to the mean face: every weight 0."""
        self.weights = [0.0] * len(self.bundle.axes)

    def randomize(self, generator: torch.Generator | None = None) -> None:
        """Draw every weight from N(0, 1), clipped to ±3 and rounded to 0.1, and every direction by a coin."""
        drawn = torch.randn(len(self.weights), generator=generator).clamp(-LIMIT, LIMIT)
        coins = torch.randint(2, (len(self.weights),), generator=generator)
        self.weights = [round(weight, 1) for weight in drawn.tolist()]
        self.directions = (2 * coins - 1).tolist()

    def step(self) -> None:
        """One frame of the animation: each weight moves 0.05 in its own direction and bounces at ±3."""
        for axis, weight in enumerate(self.weights):
            if abs(weight + ANIMATION_STEP * self.directions[axis]) > LIMIT:
                self.directions[axis] *= -1
        moved = zip(self.weights, self.directions, strict=True)
        self.weights = [round(weight + ANIMATION_STEP * way, 2) for weight, way in moved]  # no drift off the grid

    def render(self, size: int = SHOWN_SIZE) -> bytes:
        """The face at `weights` as a PNG of `size`×`size` pixels. Raises `ValueError` for a wrong number of weights."""
        z = self.bundle.axes.latents(torch.tensor([self.weights]))
        picture = to_pil_image(decode(self.bundle.vae, z)[0]).resize((size, size), Image.Resampling.LANCZOS)
        file = BytesIO()
        picture.save(file, "PNG", compress_level=1)  # as fast as it gets, for a slightly larger file
        return file.getvalue()


class LatentExplorer:
    """Twelve sliders on the PCA axes of a `bundle`, Randomize, Animate, Reset, and the face they describe.

    It displays itself as the last line of a cell, in Jupyter, Colab and Voilà; where there are no widgets the face is
    shown as a still picture. `state` is what it shows; `box`, `sliders`, `picture` and the three buttons are the
    ipywidgets it is made of. Randomize draws from `generator`.
    Source: the tkinter application of *Anime VAE* (its ranges, steps and speeds).
    """

    def __init__(self, bundle: Bundle, generator: torch.Generator | None = None):
        self.state = ExplorerState(bundle)
        self._generator = generator
        self._task = None  # the animation, while it runs
        self._moving_sliders = False
        self._has_browser = False
        self.sliders = [_slider(f"axis {number}") for number in range(1, len(bundle.axes) + 1)]
        self.randomize_button = _button(widgets.Button, "Randomize", "random")
        self.animate_button = _button(widgets.ToggleButton, "Animate", "play")
        self.reset_button = _button(widgets.Button, "Reset", "undo")
        self.picture = widgets.Image(format="png", width=SHOWN_SIZE, height=SHOWN_SIZE)
        self.box = self._lay_out()
        self._echo = widgets.FloatText()  # never shown: the browser sends back where the first slider stands
        self._link = widgets.jsdlink((self.sliders[0], "value"), (self._echo, "value"))
        self._draw()

        for slider in self.sliders:
            slider.observe(self._on_slider, names="value")
        self.randomize_button.on_click(self._on_randomize)
        self.animate_button.observe(self._on_animate, names="value")
        self.reset_button.on_click(self._on_reset)
        self._echo.observe(self._on_echo, names="value")

    def __repr__(self) -> str:
        card = self.state.bundle.card
        return f"LatentExplorer({card['model']} of {card['faces']} faces, {len(self.sliders)} axes)"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        """What IPython displays: the live widgets where a front end has them, else the picture, else the name."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        return {
            "text/plain": repr(self),
            "image/png": b64encode(self.state.render()).decode(),
            "application/vnd.jupyter.widget-view+json": view,
        }

    def _lay_out(self) -> widgets.Box:
        half = (len(self.sliders) + 1) // 2
        wrap = {"flex_flow": "row wrap"}  # on a narrow page, what does not fit goes below
        columns = widgets.HBox([widgets.VBox(self.sliders[:half]), widgets.VBox(self.sliders[half:])], layout=wrap)
        buttons = widgets.HBox([self.randomize_button, self.animate_button, self.reset_button], layout=wrap)
        return widgets.HBox([widgets.VBox([columns, buttons]), self.picture], layout=wrap)

    def _on_slider(self, change: dict) -> None:
        if not self._moving_sliders:
            self.state.weights[self.sliders.index(change["owner"])] = change["new"]
            self._draw()

    def _on_randomize(self, button: widgets.Button) -> None:
        self.state.randomize(self._generator)
        self._show()

    def _on_reset(self, button: widgets.Button) -> None:
        self.animate_button.value = False
        self.state.reset()
        self._show()

    def _on_animate(self, change: dict) -> None:
        if change["new"]:
            self._task = asyncio.get_running_loop().create_task(self._animate())
            self._task.add_done_callback(self._on_animation_end)
        elif self._task:
            self._task.cancel()
            self._move_sliders()

    async def _animate(self) -> None:
        for frame in itertools.count(1):
            started = monotonic()
            self.state.step()
            if frame % FRAMES_PER_SLIDER_MOVE == 0:
                await self._browser_to_catch_up()
                self._move_sliders()
            self._draw()
            await asyncio.sleep(max(PAUSE_SECONDS, FRAME_SECONDS - (monotonic() - started)))

    async def _browser_to_catch_up(self) -> None:
        # Else pictures queue up in a slow browser, and the animation goes on long after its button was released.
        patience_ends = monotonic() + PATIENCE_SECONDS
        while self._has_browser and self._echo.value != self.sliders[0].value and monotonic() < patience_ends:
            await asyncio.sleep(PAUSE_SECONDS)

    def _on_echo(self, change: dict) -> None:
        self._has_browser = True

    def _on_animation_end(self, task: asyncio.Task) -> None:
        if not task.cancelled():  # an error stopped it: release the button, and let the error be seen
            self.animate_button.value = False
            task.result()

    def _show(self) -> None:
        self._move_sliders()
        self._draw()

    def _move_sliders(self) -> None:
        self._moving_sliders = True  # else each slider would have its own picture drawn
        try:
            for slider, weight in zip(self.sliders, self.state.weights, strict=True):
                slider.value = weight
        finally:
            self._moving_sliders = False

    def _draw(self) -> None:
        self.picture.value = self.state.render(SHOWN_SIZE // 2)


def _slider(description: str) -> widgets.FloatSlider:
    return widgets.FloatSlider(
        description=description,
        min=-LIMIT,
        max=LIMIT,
        step=SLIDER_STEP,
        readout_format=".1f",
        style={"description_width": "50px"},
        layout={"width": "270px"},
    )


def _button(kind: type[widgets.Widget], description: str, icon: str) -> widgets.Widget:
    return kind(description=description, icon=icon, layout={"width": "110px"})
