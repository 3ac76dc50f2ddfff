"""The pieces that the explorer is put together from: rows, buttons, one end of a morph. Plain ipywidgets, 7 or 8."""

import ipywidgets as widgets
from PIL import Image
from torchvision.transforms.functional import to_pil_image

from vaelib.explorer_state import LIMIT, Morph, to_file

SLIDER_STEP = 0.1


class AxisRow:
    """A slider under a strip of faces that shows what it does, and a button that locks it."""

    def __init__(self, name: str, strip: Image.Image, label_width: int):
        margin = f"4px 7px 0 {label_width - 58}px"
        self.lock = widgets.ToggleButton(
            description="lock",
            tooltip="Randomize and Animate leave this axis as it is",
            layout={"width": "48px", "margin": margin},
        )
        # As wide as the slider's track and a face more, so that each face stands over the weight that it has.
        self.strip = widgets.Image(format="jpeg", layout={"width": "172px", "height": "34px"})
        self.slider = widgets.FloatSlider(
            description=name,
            min=-LIMIT,
            max=LIMIT,
            step=SLIDER_STEP,
            readout_format=".1f",
            style=label(label_width),
            layout={"width": f"{label_width + 234}px"},
        )
        self.box = widgets.VBox([widgets.HBox([self.lock, self.strip]), self.slider])
        self.show(strip)

    def show(self, strip: Image.Image) -> None:
        self.strip.value = to_file(strip, "JPEG")


class AttributesPanel:
    """What stands above the sliders of the attributes: where they come from, where they go."""

    def __init__(self):
        self.fit = button(
            widgets.Button, "Fit to faces", width="100px", tooltip="Find the axes of a thousand labelled faces"
        )
        self.load = widgets.FileUpload(description="Load", accept=".safetensors", layout={"width": "104px"})
        self.save = button(widgets.Button, "Save", width="64px", tooltip="Keep these axes as a file, for Load")
        self.orthogonal = widgets.Checkbox(
            description="at right angles to each other", indent=False, layout={"width": "220px"}
        )
        self._note = widgets.HTML(
            "Axes with names come from faces with labels: fit them to a thousand (which takes some seconds), "
            "or load what was saved."
        )
        self.box = widgets.VBox()

    def show(self, rows: list[AxisRow], can_be_orthogonal: bool) -> None:
        """Put the sliders in; where there are none, say how to get some."""
        self.save.disabled, self.orthogonal.disabled = not rows, not can_be_orthogonal
        below = columns([each.box for each in rows]) if rows else self._note
        self.box.children = [row(self.fit, self.load, self.save, self.orthogonal, gap="4px 8px"), below]


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
        if morph.latents[side] is self._shown:
            return
        self._shown = morph.latents[side]
        for widget, face in ((self.original, morph.pictures[side]), (self.reconstruction, morph.reconstruction(side))):
            widget.value = to_file(to_pil_image(face), "JPEG")


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


def choice(description: str, options: list[str], width: str) -> widgets.Dropdown:
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
