"""Drag sliders, watch a face change: the published *Anime VAE* GUI, and much beside, in ipywidgets.

    bundle = vaelib.load_pretrained("drawn-anime")
    vaelib.LatentExplorer(bundle)               # last line of a cell: sliders, buttons, picture

What the explorer knows and does is in `vaelib.explorer_state`, what it shows in `vaelib.explorer_layout`;
`LatentExplorer` joins the two: it listens.
"""

import asyncio
import html
import itertools
import logging
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from time import monotonic
from weakref import WeakSet

import ipywidgets as widgets
import torch
from PIL import Image

from vaelib.explorer_codes import AXES, Draw, model_of
from vaelib.explorer_layout import KEPT_FACES, RECORDED_FRAMES, RECORDINGS, SHOWN_SIZE, ExplorerLayout
from vaelib.explorer_parts import SLIDER_STEP, AskPanel, AxisRow, GridPanel, MenuRow, columns, take_upload
from vaelib.explorer_state import ExplorerState, Morph, drawn_face, read_face, to_file
from vaelib.explorer_still import morph_still, still
from vaelib.faces import load_faces
from vaelib.latents import NamedAxes, fit_attributes_of
from vaelib.pretrained import Bundle

FRAME_SECONDS = 0.02
PAUSE_SECONDS = 0.005  # the least that the animation leaves to everything else in the kernel, per frame
FRAMES_PER_SLIDER_MOVE = 5  # moving twelve sliders at every frame is more than a browser keeps up with
PATIENCE_SECONDS = 1.0  # how long the animation waits for a browser that lags or has gone
ABSENT_SECONDS = 60.0  # after which a browser that lags counts as closed
SENT_SIZE = SHOWN_SIZE // 2  # is drawn, and the browser enlarges it
RECORDED_MOST = 2048  # pixels a side of a recording: 60 frames of 2048 make a file of 60 MB
RECORDED_SPEED, RECORDED_SECONDS = 2, 0.04  # as fast as on the page, at half its rate
SHARP = "-sharp"  # how the name ends of a model that shares its latents with the soft one
FITTED_FACES = 1000
LONGEST_WAIT = 0.1  # seconds until the next picture, however many events come meanwhile
EXPECTED = (ValueError, OSError, ModuleNotFoundError)  # errors that are about what somebody gave, and say what to do
log = logging.getLogger(__name__)

_EXPLORERS: "WeakSet[LatentExplorer]" = WeakSet()


class LatentExplorer(ExplorerLayout):
    """Sliders on the axes of a model's latent space, and the face they describe; morphs; things to keep.

    `models` is a bundle, or several by name. `attributes` (one `NamedAxes`, or by the same names; else the bundle's
    own, where it has any) are the sliders and menus of the second tab. Randomize draws from `generator`. It opens with
    a face drawn from the flow, where the bundle has one, else with the mean face.

    It displays itself as the last line of a cell, in Jupyter, Colab and Voilà; where there are no widgets the face is
    shown as a still picture. `state` and `morph` are what it shows of the model chosen; the ipywidgets it is made of
    are attributes too: `box` holds all the others. Only one explorer is animated at a time: a new one, such as the
    same cell's run again, stops the others.
    Source: the tkinter application of *Anime VAE* (its ranges, steps and speeds).
    """

    def __init__(
        self,
        models: Bundle | Mapping[str, Bundle],
        generator: torch.Generator | None = None,
        attributes: NamedAxes | Mapping[str, NamedAxes] | None = None,
    ):
        bundles = {models.name or models.card["faces"]: models} if isinstance(models, Bundle) else models
        if not bundles:
            raise ValueError("got no model, expected a bundle or several by name: see vaelib.load_pretrained")
        if not isinstance(attributes, Mapping):
            attributes = dict.fromkeys(bundles, attributes)
        self._bundles, self._attributes = bundles, attributes
        self._states: dict[str, tuple[ExplorerState, Morph]] = {}
        self._generator = generator
        self._task: asyncio.Task | None = None  # the animation, while it runs
        self._recording: asyncio.Task | None = None
        self._pending: asyncio.TimerHandle | None = None  # the picture that waits for more slider events
        self._stale = 0  # events that a picture which still waits will show
        self._free_at = 0.0  # when the kernel has had as much time for events as the last picture took
        self._moving_sliders = False
        self._has_browser = False
        self._answered_at = 0.0  # when the browser last did
        self._seeds = itertools.count(3)  # of the drawn faces to morph between
        self._grid: list = []  # the latents of the faces in the grid, drawn or encoded
        self._asked: list = []  # and of those drawn as asked
        self._kept: list[tuple[str, bytes]] = []  # codes, with their faces

        for other in list(_EXPLORERS):
            other.stop()
        _EXPLORERS.add(self)
        super().__init__(list(bundles))
        self._open(next(iter(bundles)))
        self._listen()
        self._show_kept()

    def __repr__(self) -> str:
        card = self.state.bundle.card
        return f"LatentExplorer({card['model']} of {card['faces']} faces, {len(self.state.bundle.axes)} axes)"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        """What IPython displays: the live widgets where a front end has them, else the picture, else the name."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        return {
            "text/plain": repr(self),
            "image/jpeg": b64encode(to_file(self._still(), "JPEG")).decode(),
            "application/vnd.jupyter.widget-view+json": view,
        }

    def _still(self) -> Image.Image:
        if self.scene is self.morph:
            return morph_still(self.morph)
        attributes = self._tab == "Attributes" and bool(self.attribute_rows)
        return still(self.state, attributes)

    def stop(self) -> None:
        """End the animation, if there is one."""
        if self._task:
            self._task.cancel()
            self._task = None
        with self._held():
            self.animate_button.value = False

    def _open(self, name: str) -> None:
        """Show the model called `name`, as it was left."""
        self._switch_to(name)
        with self._held():
            self.prior_choice.options = [AXES, *self.state.bundle.priors]
            self.prior_choice.value, self.spread_slider.value = self.state.prior, self.state.spread
        self._grid, self._asked = [], []
        self.ask_panel.offer(self.state.questions)
        self.ask_panel.faces.show([])
        self._show_axes()

    def _switch_to(self, name: str) -> None:
        if name not in self._states:
            bundle = self._bundles[name]
            state = ExplorerState(bundle, self._attributes.get(name) or bundle.attributes, name)
            state.begin()
            self._states[name] = state, Morph(bundle, state.decoder)
        self.state, self.morph = self._states[name]
        with self._held():
            self.sharp_button.value = name.endswith(SHARP)
            self.sharp_button.layout.display = None if self._partner in self._bundles else "none"
            self.model_choice.value = name

    @property
    def _partner(self) -> str:
        """The name of the model that shows the same latents softly, or sharply."""
        name = self.state.name
        return name.removesuffix(SHARP) if name.endswith(SHARP) else name + SHARP

    def _show_axes(self) -> None:
        state, count = self.state, len(self.state.bundle.axes)
        widths = [64] * count + [120] * (len(state.names) - count)
        self.axis_rows = [
            AxisRow(*each) for each in zip(state.names, state.strips(), state.limits, widths, strict=True)
        ]
        self.menu_rows = {
            label: MenuRow(label, state.menu_strip(label), choices, 120) for label, choices in state.menus.items()
        }
        for which, each in self._rows():
            each.lock.value = which in state.locked
            self._hear(each.lock, self._on_lock)
            self._hear(each.name, partial(self._on_name, each))
            if isinstance(each, AxisRow):
                self._hear(each.slider, self._on_slider)
            else:
                self._hear(each.menu, partial(self._on_choice, each))
        self.axes_panel.children = [columns([axis.box for axis in self.axis_rows[:count]])]
        self._show_attributes()
        self._show()

    def _show_attributes(self) -> None:
        self.attributes_panel.save.disabled = self.state.named() is None
        self.attributes_panel.show(self.attribute_rows, self.state.can_be_orthogonal)

    def _rows(self) -> list[tuple[int | str, AxisRow | MenuRow]]:
        """The rows with what `state.locked` calls them: an index, or a label."""
        return [*enumerate(self.axis_rows), *self.menu_rows.items()]

    @property
    def attribute_rows(self) -> list[AxisRow | MenuRow]:
        """The rows of the second tab."""
        return [*self.axis_rows[len(self.state.bundle.axes) :], *self.menu_rows.values()]

    @property
    def sliders(self) -> list[widgets.FloatSlider]:
        """The sliders of all axes, in the order of `state.weights`."""
        return [row.slider for row in self.axis_rows]

    @property
    def scene(self) -> ExplorerState | Morph:
        """What the picture shows: the morph on its tab, else the face at the sliders."""
        return self.morph if self._tab == "Morph" else self.state

    @property
    def _tab(self) -> str:
        return list(self._panels)[self.tabs.selected_index or 0]

    # ----------------------------------------------------------------------------------------------- listening

    def _listen(self) -> None:
        for widget, handler in (
            (self.randomize_button, self._on_randomize),
            (self.seed_field, self._on_seed),
            (self.upload, self._on_own_face),
            (self.draw_button, self._on_draw),
            (self.keep_button, self._on_keep),
            (self.grid_panel.new, self._on_new_faces),
            (self.grid_panel.vary, self._on_vary),
            *((face, partial(self._on_grid, place)) for place, face in enumerate(self.grid_panel.faces.buttons)),
            *((face, partial(self._on_kept, place)) for place, face in enumerate(self.grid_panel.kept.buttons)),
            (self.ask_panel.draw, self._on_ask),
            *((face, partial(self._on_asked, place)) for place, face in enumerate(self.ask_panel.faces.buttons)),
            (self.undo_button, self._on_undo),
            (self.reset_button, self._on_reset),
            (self.attributes_panel.fit, self._on_fit),
            (self.attributes_panel.save, self._on_save_attributes),
            (self.save_button, self._on_save),
            *((record, partial(self._on_record, kind)) for kind, record in self.record_buttons.items()),
            *((end.draw, partial(self._on_draw_end, side)) for side, end in enumerate(self.ends)),
            *((end.take, partial(self._on_take_end, side)) for side, end in enumerate(self.ends)),
            (self._echo, self._on_echo),
            (self.animate_button, self._on_animate),
            (self.model_choice, self._on_model),
            (self.sharp_button, self._on_sharp),
            (self.prior_choice, self._on_prior),
            (self.spread_slider, self._on_spread),
            (self.code_field, self._on_code),
            (self.morph_slider, self._on_morph),
            (self.spherical_box, self._on_morph),
            (self.attributes_panel.orthogonal, self._on_orthogonal),
            (self.attributes_panel.keep_off, self._on_keep_off),
            (self.attributes_panel.find, self._on_find),
            (self.attributes_panel.load, self._on_load),
            *((end.upload, partial(self._on_upload, side)) for side, end in enumerate(self.ends)),
        ):
            self._hear(widget, handler)
        self._hear(self.tabs, self._on_tab, "selected_index")
        self._hear(self.drop_target, self._on_drop, "dropped")

    def _hear(self, widget: widgets.Widget, handler: Callable, trait: str = "value") -> None:
        """The one way to a handler: `handler` gets a button's clicks, or the changes of another widget's `trait`.

        It is deaf to what the explorer itself sets, and what goes wrong in it is said beneath the picture.
        """

        def hear(event: dict | widgets.Button) -> None:
            if not self._moving_sliders:
                with self._complaints():
                    handler(event)

        if isinstance(widget, widgets.Button):
            widget.on_click(hear)
        else:
            widget.observe(hear, names=trait)

    def _start(self, work: Coroutine, then: Callable[[], None]) -> asyncio.Task:
        """The one way to a task: what goes wrong in `work` is said beneath the picture, then `then` is called."""

        def end(task: asyncio.Task) -> None:
            if not task.cancelled():
                then()
                if error := task.exception():
                    self._say_error(error)
                    raise error  # to the kernel's log

        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(end)
        return task

    @contextmanager
    def _complaints(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._say_error(error)
            if not isinstance(error, EXPECTED):  # a fault of the program: whoever looks for it needs all of it
                log.warning("an error in the explorer", exc_info=error)

    def _say_error(self, error: BaseException) -> None:
        told = str(error) if isinstance(error, EXPECTED) and str(error) else f"{type(error).__name__}: {error}"
        self._say(f'<span style="color: #b00020">{html.escape(told)}</span>')

    @contextmanager
    def _held(self):
        before, self._moving_sliders = self._moving_sliders, True
        try:
            yield
        finally:
            self._moving_sliders = before

    def _on_slider(self, change: dict) -> None:
        index, weight = self.sliders.index(change["owner"]), change["new"]
        # A browser sends back what a slider was set to, rounded to its steps: that is nobody's move.
        if abs(weight - self.state.weights[index]) > 0.6 * SLIDER_STEP:
            self.state.move(index, weight)
            self._draw_soon()

    def _on_lock(self, change: dict) -> None:
        self.state.locked = {which for which, row in self._rows() if row.lock.value}
        if self.attributes_panel.keep_off.value:
            self._on_keep_off(change)

    def _on_keep_off(self, change: dict) -> None:
        self.state.keep_off(self.state.locked if self.attributes_panel.keep_off.value else ())
        self._show_strips()
        self._draw()

    def _on_choice(self, row: MenuRow, change: dict) -> None:
        self.state.choose(row.name.value, row.choice)
        self._draw()

    def _on_name(self, row: AxisRow | MenuRow, change: dict) -> None:
        (which,) = [which for which, each in self._rows() if each is row]
        try:
            self.state.rename(which, change["new"])
            self._say("")
        finally:
            names = [*self.state.names, *self.state.menus]
            self.menu_rows = dict(zip(self.state.menus, self.menu_rows.values(), strict=True))
            with self._held():
                row.name.value = names[[each for _, each in self._rows()].index(row)]
        self.attributes_panel.save.disabled = self.state.named() is None

    def _on_find(self, change: dict) -> None:
        self._show_attributes()

    def _on_prior(self, change: dict) -> None:
        self.state.prior = self.prior_choice.value

    def _on_spread(self, change: dict) -> None:
        self.state.spread_out(round(self.spread_slider.value, 1))
        self._move_sliders()
        self._draw_soon()

    def _on_morph(self, change: dict) -> None:
        self.morph.move(self.morph_slider.value, self.spherical_box.value)
        self._draw_soon()

    def _on_model(self, change: dict) -> None:
        self.stop()
        self._open(change["new"])

    def _on_sharp(self, change: dict) -> None:
        self.stop()
        before, partner = self.state, self._partner
        try:
            self._switch_to(partner)
            self.state.follow(before)
        except ValueError:
            self._switch_to(before.name)
            raise
        self._show_strips()
        self._show()

    def _on_orthogonal(self, change: dict) -> None:
        self.state.remember()
        self.state.orthogonal = change["new"]
        self._show_strips()
        self._draw()

    def _show_strips(self) -> None:
        for axis, strip in zip(self.axis_rows, self.state.strips(), strict=True):
            axis.show(strip)
        for name, menu in self.menu_rows.items():
            menu.show(self.state.menu_strip(name))

    def _on_fit(self, button: widgets.Button) -> None:
        bundle = self.state.bundle
        faces = load_faces(bundle.card["faces"], bundle.image_size, count=FITTED_FACES, verbose=False)
        some = faces.select(range(min(FITTED_FACES, len(faces))))
        self._use(fit_attributes_of(bundle.vae, some))
        self._say(f"{len(self.attribute_rows)} attributes fitted to {len(some):,} {some.name} faces")

    def _on_load(self, change: dict) -> None:
        if content := take_upload(self.attributes_panel.load):
            attributes = NamedAxes.load(content)
            expected = self.state.bundle.axes.directions.shape[1:]
            if attributes.directions.shape[1:] != expected:
                shape = tuple(attributes.directions.shape[1:])
                raise ValueError(f"these axes are for latents of {shape}, the model's are {tuple(expected)}")
            self._use(attributes)
            self._say("")

    def _use(self, attributes: NamedAxes) -> None:
        self.stop()
        self.state.use(attributes)
        self._show_axes()

    def _on_tab(self, change: dict) -> None:
        self.stop()
        self.code_field.disabled = self.scene is self.morph
        if self._tab == "Grid" and not self._grid:
            self._show_grid(self.state.draws(16, self._generator))
        self._show()

    def _on_randomize(self, button: widgets.Button) -> None:
        if self.scene is self.morph:
            self.morph.draw_ends(next(self._seeds), next(self._seeds))
        else:
            self.state.randomize(self._generator)
        self._show()

    def _on_seed(self, change: dict) -> None:
        try:
            if text := change["new"].strip():
                if not text.isdecimal():
                    raise ValueError(f"got the seed {text!r}, expected a whole number such as 4711")
                self.stop()
                self.state.go_to(int(text))
                self._say("")
        finally:
            self._show()

    def _on_own_face(self, change: dict) -> None:
        if content := take_upload(self.upload):
            self._edit(read_face(content, self.state.bundle))

    def _on_drop(self, change: dict) -> None:
        if content := bytes(change["new"]):
            self.drop_target.dropped = b""  # else the same file, dropped again, would be no change
            self._edit(read_face(content, self.state.bundle))

    def _on_draw(self, button: widgets.Button) -> None:
        self._edit(drawn_face(self.state.bundle, next(self._seeds)))

    def _edit(self, picture: torch.Tensor) -> None:
        self.stop()
        self.state.encode(picture)
        with self._held():
            if self.scene is self.morph:
                self.tabs.selected_index = 0  # to the sliders
            self.code_field.disabled = False
        self._say("As the model sees it; the sliders and named axes work on it.")
        self._show()

    def _on_undo(self, button: widgets.Button) -> None:
        self.stop()
        self.scene.undo()
        self._show()

    def _on_reset(self, button: widgets.Button) -> None:
        self.stop()
        self.scene.reset()
        self._show()

    def _on_code(self, change: dict) -> None:
        self._restore(change["new"])

    def _restore(self, code: str) -> None:
        self.stop()
        try:
            name = model_of(code)
            if name in self._bundles and name != self.state.name:
                self._open(name)
            self.state.restore(code)
            self._say("")
        finally:
            self._show()

    # ------------------------------------------------------------------------------------------- grid

    def _on_new_faces(self, button: widgets.Button) -> None:
        self._show_grid(self.state.draws(16, self._generator))

    def _on_vary(self, button: widgets.Button) -> None:
        self._show_grid(self.state.variations(16, self._generator))

    def _on_grid(self, place: int, button: widgets.Button) -> None:
        self.stop()
        self.state.take(self._grid[place])
        self._show()
        self._show_grid(self.state.variations(16, self._generator))

    def _on_ask(self, button: widgets.Button) -> None:
        panel = self.ask_panel
        self._asked = self.state.ask(16, panel.asked, panel.guidance.value, self._generator)
        self._show_faces(panel, self._asked)

    def _on_asked(self, place: int, button: widgets.Button) -> None:
        self.stop()
        self.state.take(self._asked[place])
        self._show()

    def _show_grid(self, draws: list) -> None:
        self._grid = draws
        self._show_faces(self.grid_panel, draws)

    def _show_faces(self, panel: GridPanel | AskPanel, draws: list) -> None:
        panel.faces.show([_thumbnail(face) for face in self.state.faces(draws)])

    def _on_keep(self, button: widgets.Button) -> None:
        face = _thumbnail(self.state.picture(2 * self.state.bundle.image_size))
        self._kept = [*self._kept, (self.state.code, face)][-KEPT_FACES:]
        self._show_kept()

    def _show_kept(self) -> None:
        self.grid_panel.kept.show([face for _, face in self._kept])

    def _on_kept(self, place: int, button: widgets.Button) -> None:
        self._restore(self._kept[place][0])

    # ------------------------------------------------------------------------------------------- morphs

    def _on_draw_end(self, side: int, button: widgets.Button) -> None:
        self.morph.draw_end(side, next(self._seeds))
        self._show()

    def _on_take_end(self, side: int, button: widgets.Button) -> None:
        self.morph.set_end(side, self.state.face())
        self._show()

    def _on_upload(self, side: int, change: dict) -> None:
        if content := take_upload(self.ends[side].upload):
            self.morph.set_end(side, read_face(content, self.state.bundle))
            self._say("")
            self._show()

    # ------------------------------------------------------------------------------------------- keeping

    def _on_save(self, button: widgets.Button) -> None:
        size = self.size_field.value
        self._offer(self.scene.render(size), f"{self.state.name}-{size}.png", "image/png")

    def _on_record(self, kind: str, button: widgets.Button) -> None:
        if (size := self.size_field.value) > RECORDED_MOST:
            raise ValueError(f"got {size} pixels, expected at most {RECORDED_MOST} for a recording: choose fewer")
        usable = [record for record in self.record_buttons.values() if not record.disabled]

        def finish() -> None:
            self.progress.layout.visibility = "hidden"
            for record in usable:
                record.disabled = False

        for record in usable:
            record.disabled = True
        self.progress.value, self.progress.layout.visibility = 0, "visible"
        self._recording = self._start(self._record(kind, size), finish)

    async def _record(self, kind: str, size: int) -> None:
        encode, type_of_file = RECORDINGS[kind]
        name = f"{self.state.name}-{size}.{kind.lower()}"
        pictures = []  # small ones, enlarged as they are encoded
        own_size, speed = self.state.bundle.image_size, RECORDED_SPEED * self.speed_slider.value
        for picture in self.scene.frames(RECORDED_FRAMES, own_size, speed):
            pictures.append(picture)
            self.progress.value = len(pictures)
            await asyncio.sleep(PAUSE_SECONDS)
        self._offer(await asyncio.to_thread(encode, pictures, RECORDED_SECONDS, size=size), name, type_of_file)

    def _on_save_attributes(self, button: widgets.Button) -> None:
        self._offer(
            self.state.named().to_bytes(), f"{self.state.name}-attributes.safetensors", "application/octet-stream"
        )

    def _offer(self, content: bytes, name: str, kind: str) -> None:
        """A link that saves the file where the browser is, which need not be where the kernel is."""
        name = html.escape(name)
        self._say(
            f'<a download="{name}" href="data:{kind};base64,{b64encode(content).decode()}" '
            f'style="text-decoration: underline">Download {name}</a> ({len(content) / 1000:,.0f} kB)'
        )

    def _say(self, text: str) -> None:
        self.message.value = f'<div style="line-height: 1.3; overflow-wrap: anywhere">{text}</div>' if text else ""

    # ------------------------------------------------------------------------------------------- animation

    def _on_animate(self, change: dict) -> None:
        if change["new"]:
            self.scene.remember()
            self._task = self._start(self._animate(), self.stop)
        else:
            self.stop()
            self._move_sliders()
            self._show_code()

    async def _animate(self) -> None:
        self._answered_at = monotonic()
        for frame in itertools.count(1):
            started = monotonic()
            if started - self._answered_at > ABSENT_SECONDS:
                return  # nobody looks; and the kernel behind a closed page ends only if it is idle
            self.scene.step(self.speed_slider.value)
            if frame % FRAMES_PER_SLIDER_MOVE == 0:
                await self._browser_to_catch_up()
                self._move_sliders()
                self._tick.value = frame
            self._draw()
            await asyncio.sleep(max(PAUSE_SECONDS, FRAME_SECONDS - (monotonic() - started)))

    async def _browser_to_catch_up(self) -> None:
        # Else pictures queue up in a slow browser, and the animation goes on long after its button was released.
        patience_ends = monotonic() + PATIENCE_SECONDS
        while self._has_browser and self._echo.value != self._tick.value and monotonic() < patience_ends:
            await asyncio.sleep(PAUSE_SECONDS)

    def _on_echo(self, change: dict) -> None:
        self._has_browser, self._answered_at = True, monotonic()

    # --------------------------------------------------------------------------------------------- drawing

    def _show(self) -> None:
        """Show all that may have changed."""
        if self.attributes_panel.orthogonal.value != self.state.orthogonal:
            self._show_strips()
        for side, end in enumerate(self.ends):
            end.show(self.morph, side)
        self._move_sliders()
        self._draw()

    def _move_sliders(self) -> None:
        with self._held():  # else each slider would have its own picture drawn
            for axis, weight in zip(self.axis_rows, self.state.weights, strict=True):
                axis.show_weight(weight)
            for name, menu in self.menu_rows.items():
                menu.show_choice(self.state.chosen.get(name))
            self.spread_slider.value = self.state.spread
            self.morph_slider.value, self.spherical_box.value = self.morph.share, self.morph.spherical
            self.attributes_panel.orthogonal.value = self.state.orthogonal

    def _draw_soon(self) -> None:
        """Draw now; or, where events come faster than pictures can, one picture for several of them."""
        if self._pending:
            self._stale += 1
            return
        wait = self._free_at - monotonic()
        if wait > 0 and (loop := _running_loop()):
            self._pending = loop.call_later(wait, self._draw_pending)
        else:
            self._draw()

    def _draw_pending(self) -> None:
        with self._complaints():
            self._draw()

    def _draw(self) -> None:
        if self._pending:
            self._pending.cancel()
            self._pending = None
        started = monotonic()
        self.picture.value = self.scene.render(SENT_SIZE, "JPEG")
        if not self._task:
            self._show_code()
        # The more events were overtaken, the longer the next picture waits: a flood is worked off, not painted.
        took = monotonic() - started
        self._free_at = started + took + min(took * (1 + self._stale), LONGEST_WAIT)
        self._stale = 0

    def _show_code(self) -> None:
        with self._held():
            self.code_field.value = "" if self.scene is self.morph else self.state.code
            self.seed_field.value = str(self.state.draw.seed) if isinstance(self.state.draw, Draw) else ""


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _thumbnail(face: Image.Image) -> bytes:
    """A face for a button."""
    return to_file(face.resize((128, 128), Image.Resampling.LANCZOS), "JPEG")
