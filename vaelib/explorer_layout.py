"""What the explorer shows and where it stands: every widget, nothing that listens to one."""

from collections.abc import Sequence
from importlib.util import find_spec

import ipywidgets as widgets

from vaelib.explorer_codes import AXES
from vaelib.explorer_parts import (
    STYLE,
    AskPanel,
    AttributesPanel,
    DropTarget,
    GridPanel,
    MorphEnd,
    button,
    choice,
    label,
    row,
    setting,
)
from vaelib.plots import to_gif, to_mp4

SHOWN_SIZE = 640  # pixels on the page, where there is room for them
RECORDED_FRAMES = 60
RECORDINGS = {"GIF": (to_gif, "image/gif"), "MP4": (to_mp4, "video/mp4")}
KEPT_FACES = 6  # as many as stand in a row


class ExplorerLayout:
    """The widgets of an explorer of the `models` with these names; `box` holds all the others."""

    def __init__(self, models: Sequence[str]):
        self.model_choice = choice("model", list(models), width="240px")
        self.prior_choice = choice("draw from", [AXES], width="190px")
        self.spread_slider = setting("spread", 0.0, 3.0, step=0.1)
        self.speed_slider = setting("speed", 0.2, 4.0, step=0.2)
        self.sharp_button = button(
            widgets.ToggleButton, "sharp", "eye", "88px", "The same latent by the soft model or the sharp one"
        )
        settings = [self.model_choice, self.sharp_button, self.prior_choice, self.spread_slider, self.speed_slider]
        if len(models) == 1:
            del settings[0]
        # Never shown: the browser sends the number of the frame back when it has got that far.
        self._tick, self._echo = widgets.IntText(), widgets.IntText()
        self._link = widgets.jsdlink((self._tick, "value"), (self._echo, "value"))

        self.axes_panel, self.attributes_panel = widgets.VBox(), AttributesPanel()
        self.grid_panel, self.ask_panel = GridPanel(KEPT_FACES), AskPanel()
        self._panels = {
            "Axes": self.axes_panel,
            "Attributes": self.attributes_panel.box,
            "Morph": self._make_morph(),
            "Grid": self.grid_panel.box,
            "Ask": self.ask_panel.box,
        }
        self.tabs = widgets.Tab([*self._panels.values()], layout={"flex": "1 1 400px", "max_width": "790px"})
        self.tabs.add_class("vaelib-tabs")
        for index, title in enumerate(self._panels):
            self.tabs.set_title(index, title)
        # The picture at right, as published; on a narrow page, where the sliders do not fit beside it, above them.
        below = {"flex_flow": "row-reverse wrap", "justify_content": "flex-end", "align_items": "flex-start"}
        body = widgets.HBox([self._make_stage(), self.tabs], layout=below | {"grid_gap": "8px 16px"})
        style = widgets.HTML(f"<style>{STYLE}</style>", layout={"height": "0", "margin": "0"})
        width = {"width": "100%", "max_width": f"{790 + 16 + SHOWN_SIZE}px"}
        self.box = widgets.VBox([row(*settings, gap="4px 16px"), body, style], layout=width)

    def _make_stage(self) -> widgets.Widget:
        """The picture, and what to do with it."""
        wide = {"width": "100%", "margin": "2px 0"}
        self.picture = widgets.Image(format="jpeg", layout={"width": "100%", "margin": "0"})
        self.picture.add_class("vaelib-picture")
        self.drop_target = DropTarget(self.picture)
        self.randomize_button = button(widgets.Button, "Randomize", "random", "116px")
        self.seed_field = widgets.Text(
            description="seed", placeholder="none", continuous_update=False, style=label(34), layout={"width": "124px"}
        )
        self.animate_button = button(widgets.ToggleButton, "Animate", "play", "104px")
        self.upload = widgets.FileUpload(
            description="Your face", accept="image/*", multiple=False, layout={"width": "134px"}
        )
        self.draw_button = button(
            widgets.Button, "Draw a face", "paint-brush", "126px", "Drawn by the package, to edit"
        )
        self.keep_button = button(widgets.Button, "Keep", "heart", "84px", "In the strip of the Grid tab")
        self.undo_button = button(widgets.Button, "Undo", "undo", "84px")
        self.reset_button = button(widgets.Button, "Reset", "home", "84px", "To the mean face")
        self.size_field = widgets.BoundedIntText(
            512, min=16, max=4096, description="pixels", style=label(40), layout={"width": "110px"}
        )
        self.save_button = button(widgets.Button, "Save PNG", width="96px")
        self.record_buttons = {kind: button(widgets.Button, f"Record {kind}", "film", "124px") for kind in RECORDINGS}
        if find_spec("av") is None:
            mp4 = self.record_buttons["MP4"]
            mp4.disabled, mp4.tooltip = True, "Needs PyAV: pip install av"
        self.code_field = widgets.Text(
            description="code",
            placeholder="none between two faces",  # shown when empty
            continuous_update=False,
            style=label(34),
            layout=wide,
        )
        self.progress = widgets.IntProgress(
            max=RECORDED_FRAMES, layout=wide | {"height": "8px", "visibility": "hidden"}
        )
        self.message = widgets.HTML(
            "Drop a picture of a face on this one to edit it.", layout=wide | {"min_height": "32px"}
        )
        rows = [
            row(self.randomize_button, self.seed_field, self.animate_button, self.undo_button, self.reset_button),
            row(self.upload, self.draw_button, self.keep_button),
            row(self.size_field, self.save_button, *self.record_buttons.values()),
        ]
        return widgets.VBox(
            [self.picture, self.drop_target, *rows, self.code_field, self.progress, self.message],
            layout={"flex": "1 1 300px", "max_width": f"{SHOWN_SIZE}px"},
        )

    def _make_morph(self) -> widgets.Widget:
        self.ends = [MorphEnd("from"), MorphEnd("to")]
        self.morph_slider = widgets.FloatSlider(
            description="way", min=0, max=1, step=0.01, style=label(30), layout={"width": "420px"}
        )
        self.spherical_box = widgets.Checkbox(description="along an arc", indent=False, layout={"width": "130px"})
        ends = row(*(end.box for end in self.ends), gap="8px 28px")
        return widgets.VBox([ends, row(self.morph_slider, self.spherical_box)])
