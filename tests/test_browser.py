"""The explorer in JupyterLab and Voilà, used as a person would, in Chromium. Screenshots stay in pytest's folder."""

import json
import re
import shutil
import time
from io import BytesIO

import numpy as np
import pytest
from browsing import HANG, ROOT, browser_page, missing, picture_in, run_all_cells, serve
from PIL import Image

from vaelib.drawn import draw_face

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing() or "all there"), pytest.mark.timeout(3000)]

SOURCE = """\
import torch
import vaelib

bundles = {name: vaelib.load_pretrained(name) for name in ("drawn-anime", "drawn-cartoon", "drawn-cartoon-sharp")}
vaelib.LatentExplorer(bundles, torch.Generator().manual_seed(0))
"""
HANDLE, TRACK = ".noUi-handle, .ui-slider-handle", ".noUi-target, .ui-slider"  # of ipywidgets 8, and of 7
CLIPPED = """box => [...box.querySelectorAll('.widget-label, .widget-readout, button, .widget-hbox, .widget-slider')]
    .filter(e => e.offsetParent && (e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1))
    .map(e => `${e.className}: ${e.textContent.slice(0, 30)}`)
    .concat([...box.querySelectorAll('select')].filter(e => {  // the longest choice, and some 20 pixels for the arrow
        const context = document.createElement('canvas').getContext('2d');
        context.font = getComputedStyle(e).font;
        const widths = [...e.options].map(option => context.measureText(option.text).width);
        return e.offsetParent && Math.max(...widths) + 20 > e.clientWidth;
    }).map(e => `select: ${e.textContent.slice(0, 30)}`))"""


def pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(file))).astype(int)


class Explorer:
    """The explorer in a page, and what to do with it."""

    def __init__(self, page, folder):
        self.page, self.folder = page, folder
        try:
            page.wait_for_selector("img.widget-image", timeout=HANG)
        except Exception:
            page.screenshot(path=folder / "no-explorer.png")
            raise
        page.locator("img.widget-image").first.scroll_into_view_if_needed()
        page.wait_for_timeout(2000)  # JupyterLab lays out what came into view, and moves everything else

    def photograph(self, name: str) -> None:
        self.page.locator("img.widget-image").first.scroll_into_view_if_needed()
        self.page.wait_for_timeout(300)
        self.page.screenshot(path=self.folder / f"{name}.png")

    def after(self, action) -> np.ndarray:
        """The picture, once `action` has changed it and it has come to rest."""
        before, patience_ends = picture_in(self.page), time.monotonic() + HANG / 1000
        action()
        while (now := picture_in(self.page)) == before:
            assert time.monotonic() < patience_ends, "the picture stayed as it was"
            self.page.wait_for_timeout(20)
        while (later := self._a_moment_later()) != now:
            assert time.monotonic() < patience_ends, "the picture does not come to rest"
            now = later
        return pixels(now)

    def _a_moment_later(self) -> bytes:
        self.page.wait_for_timeout(400)
        return picture_in(self.page)

    def press(self, text: str) -> None:
        whole = re.compile(rf"^\s*{re.escape(text)}\s*$")  # "Draw" is not "Draw a face"
        button = self.page.locator("button:visible", has_text=whole).first
        button.click(trial=True)  # it can be hit; but JupyterLab may move it away between a press and its release
        button.focus()
        button.evaluate("button => button.click()")

    def animate(self, frames: int) -> None:
        self.press("Animate")
        self.page.wait_for_selector("button.mod-active:has-text('Animate')")
        seen, patience_ends = {picture_in(self.page)}, time.monotonic() + HANG / 1000
        while len(seen) < frames:  # a busy kernel takes its time to show the first
            assert time.monotonic() < patience_ends, "nothing moves"
            self.page.wait_for_timeout(20)
            seen.add(picture_in(self.page))
        self.press("Animate")
        self.page.wait_for_selector("button:not(.mod-active):has-text('Animate')")

    def open(self, tab: str) -> None:
        self.page.locator(".lm-TabBar-tab.p-TabBar-tab, .widget-tab .lm-TabBar-tab", has_text=tab).first.click()
        self.page.wait_for_timeout(500)

    def row(self, name: str):
        """The row of an axis, a menu or another slider."""
        names = self.page.locator(".vaelib-name input:visible")
        slider = self.page.locator(".widget-slider:visible", has=self.page.get_by_text(name, exact=True))
        patience_ends = time.monotonic() + HANG / 1000
        while not slider.count():
            shown = names.evaluate_all("inputs => inputs.map(input => input.value)")  # at once: rows come and go
            if name in shown:
                return names.nth(shown.index(name)).locator("xpath=ancestor::*[contains(@class,'widget-vbox')][1]")
            assert time.monotonic() < patience_ends, f"there is no row {name}"
            self.page.wait_for_timeout(50)
        return slider.first

    def slider(self, name: str):
        row = self.row(name)
        return row.locator("xpath=descendant-or-self::*[contains(@class,'widget-slider')]").first

    def fill(self, field, text: str) -> None:
        field.fill(text)
        field.press("Enter")

    def drag(self, name: str, share: float) -> None:
        self.slider(name).scroll_into_view_if_needed()
        self.page.wait_for_timeout(300)
        handle, track = (self.slider(name).locator(part).bounding_box() for part in (HANDLE, TRACK))
        y = handle["y"] + handle["height"] / 2
        self.page.mouse.move(handle["x"] + handle["width"] / 2, y)
        self.page.mouse.down()
        self.page.mouse.move(track["x"] + track["width"] * share, y, steps=25)
        self.page.mouse.up()

    def nudge(self, name: str, times: int) -> None:
        self.slider(name).locator(HANDLE).focus()
        for _ in range(times):
            self.page.keyboard.press("ArrowRight")

    def reading(self, name: str) -> str:
        return self.slider(name).locator(".widget-readout").inner_text().replace("−", "-")

    def upload(self, button, content: bytes) -> None:
        with self.page.expect_file_chooser() as chooser:
            button.click()
        chooser.value.set_files({"name": "face.png", "mimeType": "image/png", "buffer": content})

    def drop(self, content: bytes) -> None:
        """Let go of a file over the picture."""
        files = self.page.evaluate_handle(
            """bytes => {
                const files = new DataTransfer();
                files.items.add(new File([new Uint8Array(bytes)], "face.png", {type: "image/png"}));
                return files;
            }""",
            list(content),
        )
        for kind in ("dragover", "drop"):
            self.page.locator("img.widget-image").first.dispatch_event(kind, {"dataTransfer": files})

    def download(self, suffix: str):
        """The path of the file behind the link under the picture."""
        link = self.page.locator(f"a[download$='.{suffix}']")
        link.wait_for(timeout=HANG)
        with self.page.expect_download() as download:
            link.click()
        return download.value.path()

    def clipped(self) -> list[str]:
        return (
            self.page.locator("img.widget-image")
            .first.locator("xpath=ancestor::*[contains(@class,'widget-vbox')][2]")
            .evaluate(CLIPPED)
        )


def as_png(array: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def far(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two pictures differ by more than a JPEG's rounding."""
    return np.abs(one - other).mean() > 2


@pytest.fixture
def notebook(tmp_path):
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None, "source": SOURCE}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path = tmp_path / "notebooks" / "explorer.ipynb"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("app", ["lab", "voila"])
def test_the_explorer_in_a_browser(notebook, tmp_path, app):
    with serve(notebook, tmp_path, app) as address, browser_page(1600, 1000) as page:
        page.goto(address, timeout=HANG)
        if app == "lab":
            run_all_cells(page)
        explorer = Explorer(page, tmp_path)
        explorer.photograph(f"{app}-1-opened")
        assert not explorer.clipped()
        mean_face = explorer.after(lambda: explorer.press("Reset"))

        dragged = explorer.after(lambda: explorer.drag("axis 4", share=0.9))
        assert far(dragged, mean_face) and 1 < float(explorer.reading("axis 4")) < 3
        nudged = explorer.after(lambda: explorer.nudge("axis 1", times=15))
        assert far(nudged, dragged) and explorer.reading("axis 1") == "1.5"
        assert not far(explorer.after(lambda: explorer.press("Undo")), dragged)
        drawn = explorer.after(lambda: explorer.press("Randomize"))
        assert far(drawn, dragged)
        explorer.photograph(f"{app}-2-randomized")

        code, seed = (page.locator(".widget-text:visible", has_text=name).locator("input") for name in ("code", "seed"))
        kept = code.input_value()
        animated = explorer.after(lambda: explorer.animate(frames=5))
        assert far(animated, drawn)
        assert not far(explorer.after(lambda: explorer.press("Reset")), mean_face)
        assert explorer.reading("axis 4") == "0.0"
        assert not far(explorer.after(lambda: explorer.fill(code, kept)), drawn)

        explorer.press("Save PNG")
        saved = Image.open(explorer.download("png"))
        assert (saved.format, saved.size) == ("PNG", (512, 512))
        assert np.abs(np.asarray(saved.resize((320, 320))).astype(int) - drawn).mean() < 4

        page.locator("input[type='number']:visible").first.fill("64")
        explorer.press("Record GIF")
        recorded = Image.open(explorer.download("gif"))
        assert (recorded.format, recorded.size, recorded.n_frames) == ("GIF", (64, 64), 118)

        face = draw_face("anime", size=256, hair_hue=0.1, background="plain", background_hue=0.3)
        shown = np.asarray(Image.fromarray(face).resize((320, 320))).astype(int)
        own = page.locator("button:has-text('Your face')")
        encoded = explorer.after(lambda: explorer.upload(own, as_png(face)))
        assert np.abs(encoded - shown).mean() < np.abs(drawn - shown).mean()
        assert far(explorer.after(lambda: explorer.drag("axis 1", share=0.9)), encoded)
        assert not far(explorer.after(lambda: explorer.drop(as_png(face))), encoded)
        assert far(explorer.after(lambda: explorer.press("Draw a face")), encoded)
        for _ in range(4):
            before = explorer.after(lambda: explorer.press("Undo"))
        assert not far(before, drawn)

        assert far(explorer.after(lambda: explorer.fill(seed, "4711")), drawn)
        numbered = picture_in(page)
        assert far(explorer.after(lambda: explorer.drag("spread", share=0.1)), pixels(numbered))
        explorer.fill(explorer.row("axis 2").locator(".vaelib-name input"), "night")
        explorer.row("night").locator("button").click()
        reading = explorer.reading("night")
        explorer.after(lambda: explorer.press("Randomize"))
        assert explorer.reading("night") == reading
        explorer.open("Grid")
        before = explorer.after(lambda: page.locator(".vaelib-face:visible").nth(3).click())
        explorer.press("Keep")
        assert far(explorer.after(lambda: explorer.press("Randomize")), before)
        assert not far(explorer.after(lambda: page.locator(".vaelib-face:visible").nth(16).click()), before)

        explorer.open("Ask")
        hair = page.locator(".widget-dropdown:visible", has=page.get_by_text("hair", exact=True))
        hair.locator("select").select_option(label="buns")
        explorer.press("Draw as asked")
        page.locator(".vaelib-face:visible").nth(15).wait_for()
        asked = explorer.after(lambda: page.locator(".vaelib-face:visible").nth(3).click())
        assert far(asked, before)

        explorer.open("Morph")
        uploads = page.locator("button:has-text('Upload'):visible")
        start = explorer.after(lambda: explorer.upload(uploads.first, as_png(face)))
        assert np.abs(start - shown).mean() < np.abs(drawn - shown).mean()
        assert far(explorer.after(lambda: explorer.press("Draw")), start)
        assert not far(explorer.after(lambda: explorer.upload(uploads.first, as_png(face))), start)  # the same again
        assert far(explorer.after(lambda: explorer.drag("way", share=1.0)), start)
        assert not far(explorer.after(lambda: explorer.press("Undo")), start)
        explorer.upload(uploads.last, b"this is no picture")
        page.wait_for_selector("text=this file is no picture", timeout=HANG)
        explorer.open("Attributes")
        explorer.press("Fit to faces")
        page.wait_for_selector("text=23 attributes fitted", timeout=HANG)
        page.wait_for_timeout(1000)
        dark = explorer.after(lambda: explorer.drag("skin", share=1.0))
        assert far(dark, drawn)
        hair = explorer.row("hair").locator("select")
        hair.select_option(label="buns")
        page.wait_for_timeout(2000)
        buns = pixels(picture_in(page))  # which the face may have had before
        assert far(explorer.after(lambda: hair.select_option(label="spiky")), buns)
        page.locator("input[placeholder^='find']").fill("gaze")
        page.wait_for_selector("text=1 of 23", timeout=HANG)
        assert explorer.reading("gaze") == "0.0"
        page.locator("input[placeholder^='find']").fill("")
        for width in (1600, 1280, 700):
            page.set_viewport_size({"width": width, "height": 1000})
            for tab in ("Attributes", "Morph", "Grid", "Ask", "Axes"):
                explorer.open(tab)
                explorer.photograph(f"{app}-{width}-{tab}")
                assert not explorer.clipped(), (width, tab)
        page.set_viewport_size({"width": 1600, "height": 1000})
        model = page.locator("select:has(option:text-is('drawn-cartoon'))")
        soft = explorer.after(lambda: model.select_option(label="drawn-cartoon"))
        assert far(explorer.after(lambda: explorer.press("sharp")), soft)
        assert not far(explorer.after(lambda: explorer.press("sharp")), soft)
        assert page.problems == []


def test_lesson_08_in_jupyterlab(tmp_path):
    notebook = tmp_path / "notebooks" / "08_explorer.ipynb"
    notebook.parent.mkdir()
    shutil.copy(ROOT / "notebooks" / notebook.name, notebook)
    with serve(notebook, tmp_path, "lab") as address, browser_page(1600, 1000) as page:
        page.goto(address, timeout=HANG)
        run_all_cells(page)
        explorer = Explorer(page, tmp_path)
        explorer.after(lambda: explorer.press("Reset"))  # the first face may lie where the slider is to go
        far_away = explorer.after(lambda: explorer.drag("axis 1", share=0.1))
        assert far(explorer.after(lambda: explorer.press("Randomize")), far_away)
        explorer.photograph("lesson-08")
        assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
        assert page.problems == []


def test_a_page_that_is_closed_ends_its_kernel(tmp_path):
    page_file = ROOT / "vaelib" / "app.ipynb"
    with serve(page_file, tmp_path, "voila") as address, browser_page() as page:
        page.goto(address, timeout=HANG)
        page.wait_for_selector("img.widget-image", timeout=HANG)
        page.goto("about:blank")
        patience_ends = time.monotonic() + HANG / 1000
        while "Kernel shutdown" not in (said := (tmp_path / "voila.log").read_text()):
            assert "xsrf" not in said and time.monotonic() < patience_ends, said
            page.wait_for_timeout(200)
