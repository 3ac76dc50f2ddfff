"""The pieces that the explorer is put together from: rows, panels, buttons with faces. Plain ipywidgets, 7 or 8."""

from base64 import b64encode
from collections.abc import Sequence

import anywidget
import ipywidgets as widgets
import traitlets
from PIL import Image
from torchvision.transforms.functional import to_pil_image

from vaelib.asking import Questions
from vaelib.drawn import Factor
from vaelib.explorer_state import Morph, to_file

SLIDER_STEP = 0.1
AS_IT_IS = "as it is"  # the first entry of a menu
ANY = "any"  # what is not asked for
# In OKLCH, and on the drawn faces' own circle, which runs fast through olive.
HUES = {"red": 0.07, "orange": 0.19, "yellow": 0.32, "green": 0.39}
HUES |= {"teal": 0.5, "blue": 0.68, "violet": 0.82, "pink": 0.97}
AMOUNTS = {"very low": 0.05, "low": 0.25, "middle": 0.5, "high": 0.75, "very high": 0.95}  # parts of a range
ROWS_SHOWN = 12  # of the attributes
# What people ask for first; the others follow by name.
USEFUL = ("glasses", "accessory", "smile", "hair", "tilt", "skin", "mouth", "beard", "eyes", "background", "blush")
FACE_BUTTON = "vaelib-face"
STYLE = f"""
.{FACE_BUTTON} {{border-radius: 4px; padding: 0; background-color: #ddd}}
.vaelib-name input {{background: transparent !important; text-align: right; padding: 0 2px !important}}
.vaelib-name input:not(:hover, :focus) {{border-color: transparent !important}}
.vaelib-picture {{width: 100%; height: auto}}
.vaelib-picture.vaelib-over {{outline: 4px dashed #1976d2; outline-offset: -4px}}
.vaelib-tabs .lm-TabBar-tab, .vaelib-tabs .p-TabBar-tab {{flex: 0 1 auto !important; min-width: 0 !important}}
"""


class _Row:
    """What a row has beside its control: a name to change in place, a strip of faces, a lock."""

    def __init__(self, name: str, strip: Image.Image, name_width: int, control: widgets.Widget):
        self.lock = widgets.ToggleButton(
            tooltip="Randomize and Animate leave this as it is",
            layout={"width": "32px", "margin": f"2px 6px 2px {name_width - 36}px", "padding": "0"},
        )
        traitlets.dlink((self.lock, "value"), (self.lock, "icon"), lambda locked: "lock" if locked else "unlock")
        self.name = widgets.Text(name, continuous_update=False, layout={"width": f"{name_width}px"})
        self.name.add_class("vaelib-name")
        # As wide as a slider's track and a face more, so that each face stands over the weight that it has.
        width = min(strip.width / strip.height * 34, 238 if strip.width / strip.height > 5 else 172)
        height = width * strip.height / strip.width
        self.strip = widgets.Image(format="jpeg", layout={"width": f"{width:.0f}px", "height": f"{height:.0f}px"})
        named = widgets.HBox([self.name, self.strip], layout={"flex_flow": "row wrap"})  # one under the other if narrow
        self.box = widgets.VBox([named, widgets.HBox([self.lock, control])])
        self.show(strip)

    def show(self, strip: Image.Image) -> None:
        self.strip.value = to_file(strip, "JPEG")


class AxisRow(_Row):
    """A slider under a strip of faces that shows what it does."""

    def __init__(self, name: str, strip: Image.Image, limits: tuple[float, float], name_width: int):
        low, high = limits
        self.slider = widgets.FloatSlider(
            min=low, max=high, step=SLIDER_STEP, readout_format=".1f", layout={"width": "230px"}
        )
        super().__init__(name, strip, name_width, self.slider)

    def matches(self, text: str) -> bool:
        return text in self.name.value.lower()

    def show_weight(self, weight: float) -> None:
        """Set the slider; a face from farther out, as of a code, makes it longer."""
        self.slider.min, self.slider.max = min(self.slider.min, weight), max(self.slider.max, weight)
        self.slider.value = weight


class MenuRow(_Row):
    """A menu under the faces of its choices."""

    def __init__(self, name: str, strip: Image.Image, choices: Sequence[str], name_width: int):
        self.menu = widgets.Dropdown(options=[AS_IT_IS, *choices], layout={"width": "176px"})
        super().__init__(name, strip, name_width, self.menu)

    def matches(self, text: str) -> bool:
        return any(text in word.lower() for word in (self.name.value, *self.menu.options[1:]))

    @property
    def choice(self) -> str | None:
        return None if self.menu.value == AS_IT_IS else self.menu.value

    def show_choice(self, choice: str | None) -> None:
        self.menu.value = choice or AS_IT_IS


def by_use(row: AxisRow | MenuRow) -> tuple[int, str]:
    """What to sort rows by: what most people look for first, then by name; and last the tints, "hair: red"."""
    return _place(row.name.value)


def _place(name: str) -> tuple[int, str]:
    place = next((place for place, word in enumerate(USEFUL) if name.startswith(word)), len(USEFUL))
    return place + len(USEFUL) * (": " in name), name


class AttributesPanel:
    """What stands above the attributes: where they come from, where they go, which of them to show."""

    def __init__(self):
        self.fit = button(
            widgets.Button, "Fit to faces", width="100px", tooltip="Find the axes of a thousand labelled faces"
        )
        self.load = widgets.FileUpload(description="Load", accept=".safetensors", layout={"width": "104px"})
        self.save = button(
            widgets.Button, "Save", width="64px", tooltip="Keep these, and the axes that you named, as a file for Load"
        )
        self.find = widgets.Text(placeholder="find: glasses, smile, …", layout={"width": "180px"})
        self.orthogonal = widgets.Checkbox(
            description="at right angles to each other", indent=False, layout={"width": "210px"}
        )
        self.keep_off = widgets.Checkbox(
            description="at right angles to what is locked", indent=False, layout={"width": "230px"}
        )
        self._note = widgets.HTML(
            "Axes with names come from faces with labels: fit them to a thousand (which takes some seconds), "
            "or load what was saved."
        )
        self._count = widgets.HTML()
        self.box = widgets.VBox()

    def show(self, rows: list[AxisRow | MenuRow], can_be_orthogonal: bool) -> None:
        """Put the rows in that fit to what is looked for; where there are none at all, say how to get some."""
        self.orthogonal.disabled = not can_be_orthogonal
        self.keep_off.disabled = not rows
        text = self.find.value.strip().lower()
        found = [row for row in sorted(rows, key=by_use) if row.matches(text)]
        self._count.value = f"{len(found[:ROWS_SHOWN])} of {len(rows)}" if rows else ""
        below = columns([each.box for each in found[:ROWS_SHOWN]]) if rows else self._note
        first = row(self.fit, self.load, self.save, self.find, self._count, gap="4px 8px")
        self.box.children = [first, row(self.orthogonal, self.keep_off, gap="4px 8px"), below]


class FaceButtons:
    """Faces to click on, as many as are shown."""

    def __init__(self, count: int, size: int, tooltip: str):
        self.buttons = [
            widgets.Button(tooltip=tooltip, layout={"width": f"{size}px", "height": f"{size}px", "margin": "2px"})
            for _ in range(count)
        ]
        for each in self.buttons:
            each.add_class(FACE_BUTTON)
            each.add_class(f"{FACE_BUTTON}-{each.model_id}")
        self._style = widgets.HTML(layout={"height": "0", "margin": "0"})
        faces = widgets.HBox(self.buttons, layout={"flex_flow": "row wrap"})
        self.box = widgets.VBox([faces, self._style])

    def show(self, faces: Sequence[bytes]) -> None:
        """Put these pictures, JPEGs, on the buttons."""
        rules = [
            f".{FACE_BUTTON}-{each.model_id} {{background: url(data:image/jpeg;base64,{b64encode(face).decode()}) "
            "center / cover !important}"
            for each, face in zip(self.buttons, faces, strict=False)
        ]
        self._style.value = f"<style>{''.join(rules)}</style>"
        for place, each in enumerate(self.buttons):
            each.layout.display = None if place < len(faces) else "none"


class GridPanel:
    """Sixteen faces to choose from, and a strip of those that were kept."""

    def __init__(self, kept: int):
        self.new = button(widgets.Button, "New faces", "random", "120px", "A draw each, as Randomize makes them")
        self.vary = button(widgets.Button, "Variations", "clone", "120px", "Of the face at the right")
        self.faces = FaceButtons(16, 128, "Take this face, and show variations of it")
        self.faces.box.layout.max_width = "540px"
        self.kept = FaceButtons(kept, 80, "Go back to this face")
        note = widgets.HTML(
            "Click on a face: it is yours, and the others become variations of it. <b>Keep</b> puts it here:"
        )
        self.box = widgets.VBox([row(self.new, self.vary), self.faces.box, note, self.kept.box])


class AskPanel:
    """A menu for each thing that can be asked for, how hard to insist, and sixteen faces drawn as asked."""

    def __init__(self):
        self.draw = button(widgets.Button, "Draw as asked", "random", "150px")
        self.guidance = setting("guidance", 0.0, 4.0, step=0.5)
        self.guidance.value = 2.0
        self.faces = FaceButtons(16, 128, "Take this face to the sliders")
        self.faces.box.layout.max_width = "540px"
        self.menus: dict[str, widgets.Dropdown] = {}
        self.box = widgets.VBox()

    def offer(self, questions: Questions | None) -> None:
        """A menu for each of these, every one at "any"; where there are none, say why."""
        factors = sorted(questions.factors.values(), key=lambda factor: _place(factor.name)) if questions else []
        self.menus = {factor.name: _question(factor) for factor in factors}
        if questions:
            menus = widgets.HBox([*self.menus.values()], layout={"flex_flow": "row wrap", "grid_gap": "0 8px"})
            self.box.children = [menus, row(self.draw, self.guidance), self.faces.box]
        else:
            self.box.children = [widgets.HTML("The flow of this model has learned no labels to be asked for.")]

    @property
    def asked(self) -> dict[str, object]:
        """What is asked for, by name; what is at "any" is left out."""
        return {name: menu.value for name, menu in self.menus.items() if menu.value != ANY}


def _question(factor: Factor) -> widgets.Dropdown:
    if factor.choices:
        values = {choice: choice for choice in factor.choices}
    elif factor.is_hue:
        values = HUES
    else:
        values = {amount: factor.low + part * (factor.high - factor.low) for amount, part in AMOUNTS.items()}
    menu = choice(factor.name.replace("_", " "), [(ANY, ANY), *values.items()], "244px")
    menu.style = label(112)
    return menu


class MorphEnd:
    """One end of a morph: the picture, what the model makes of it, and three ways to choose another."""

    def __init__(self, title: str):
        self.original, self.reconstruction = (widgets.Image(format="jpeg", width=140, height=140) for _ in range(2))
        self.draw = button(widgets.Button, "Draw", "paint-brush", "80px", "A new face, drawn by the package")
        self.take = button(widgets.Button, "Sliders", "sliders", "88px", "The face at the sliders of the other tabs")
        self.upload = widgets.FileUpload(accept="image/*", multiple=False, layout={"width": "116px"})
        heading = widgets.HTML(f"<b>{title}</b> · picture and reconstruction")
        pictures = row(self.original, self.reconstruction)
        self.box = widgets.VBox([heading, pictures, row(self.draw, self.take, self.upload)])
        self._shown = None

    def show(self, morph: Morph, side: int) -> None:
        """Show the end's picture and reconstruction, unless they are shown."""
        if morph.latents[side] is self._shown:
            return
        self._shown = morph.latents[side]
        for widget, face in ((self.original, morph.pictures[side]), (self.reconstruction, morph.reconstruction(side))):
            widget.value = to_file(to_pil_image(face), "JPEG")


class DropTarget(anywidget.AnyWidget):
    """Makes `picture` take a file that is dropped on it: its bytes are then in `dropped`. Shows nothing itself."""

    picture = traitlets.Unicode().tag(sync=True)  # a class of its own, among all explorers on a page
    dropped = traitlets.Any(b"").tag(sync=True)  # bytes, or a memoryview of them
    _esm = """
    export default {
      initialize({ model }) {
        const ended = new AbortController();
        const on = (kind, act) => document.addEventListener(kind, event => {
          const picture = event.target.closest?.("." + model.get("picture"));
          if (picture) {
            event.preventDefault();  // else the browser opens the file in place of the page
            act(picture.classList, event.dataTransfer);
          }
        }, { signal: ended.signal });
        on("dragover", classes => classes.add("vaelib-over"));
        on("dragleave", classes => classes.remove("vaelib-over"));
        on("drop", async (classes, { files }) => {
          classes.remove("vaelib-over");
          if (files.length) {
            model.set("dropped", new DataView(await files[0].arrayBuffer()));
            model.save_changes();
          }
        });
        return () => ended.abort();
      }
    };
    """

    def __init__(self, picture: widgets.Image):
        name = f"vaelib-picture-{picture.model_id}"
        picture.add_class(name)
        super().__init__(picture=name, layout={"display": "none"})


def take_upload(field: widgets.FileUpload) -> bytes | None:
    """The file in `field`, which then is empty: else the same file, chosen again, would be no change, and go unseen."""
    content = uploaded(field.value)
    field.set_trait("value", type(field.value)())
    return content


def uploaded(files: dict | tuple) -> bytes | None:
    """What a FileUpload holds: ipywidgets 8 keeps a tuple of files, 7 a dict of them by name. The last one counts."""
    files = list(files.values() if isinstance(files, dict) else files)
    return bytes(files[-1]["content"]) if files else None


def row(*children: widgets.Widget, gap: str = "4px") -> widgets.HBox:
    """Side by side; what does not fit on a narrow page goes below."""
    return widgets.HBox(children, layout={"flex_flow": "row wrap", "align_items": "center", "grid_gap": gap})


def columns(rows: list[widgets.Widget]) -> widgets.HBox:
    """Two columns, filled one after the other."""
    half = (len(rows) + 1) // 2
    both = row(widgets.VBox(rows[:half]), widgets.VBox(rows[half:]), gap="4px 12px")
    both.layout.justify_content = "space-around"
    return both


def label(width: int) -> dict:
    """The style of a widget whose label takes `width` pixels."""
    return {"description_width": f"{width}px"}


def choice(description: str, options: list[str] | list[tuple[str, object]], width: str) -> widgets.Dropdown:
    return widgets.Dropdown(
        options=options, description=description, style={"description_width": "initial"}, layout={"width": width}
    )


def setting(description: str, low: float, high: float, step: float) -> widgets.FloatSlider:
    return widgets.FloatSlider(
        1.0,
        min=low,
        max=high,
        step=step,
        description=description,
        readout_format=".1f",
        style={"description_width": "initial"},
        layout={"width": "230px"},
    )


def button(
    kind: type[widgets.Widget], description: str, icon: str = "", width: str = "156px", tooltip: str = ""
) -> widgets.Widget:
    return kind(description=description, icon=icon, tooltip=tooltip, layout={"width": width})
