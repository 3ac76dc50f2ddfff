"""Write images/anim.gif, and images/app.png where Chromium and Voilà are: what README.md shows of the explorer."""

import sys
import tempfile
from pathlib import Path

import torch
from make_images import STYLES, side_by_side

from vaelib.explorer_state import ExplorerState
from vaelib.plots import to_gif
from vaelib.pretrained import load_pretrained

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
from browsing import browser_page, missing, serve  # noqa: E402


def animation(frames: int = 24, size: int = 128) -> bytes:
    """Animate, of the anime faces beside the cartoon faces, as a GIF of less than a megabyte."""
    walks = []
    for style in STYLES:
        state = ExplorerState(load_pretrained(f"{style}-sharp"))
        state.randomize(torch.Generator().manual_seed(9))
        walks.append(state.frames(frames, size, speed=4))
    return to_gif([side_by_side(faces, gap=0) for faces in zip(*walks, strict=True)], seconds=0.08)


def screenshot(path: Path) -> None:
    """The stand-alone page with the sharpened drawn anime faces, as it opens, and their attributes."""
    app = HERE.parent / "vaelib" / "app.ipynb"
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(app, Path(folder), "voila") as address,
        browser_page(1500, 830) as page,
    ):
        page.goto(address, timeout=300_000)
        page.wait_for_selector("img.widget-image", timeout=240_000)
        page.locator("select").first.select_option(label="drawn-anime-sharp")
        page.wait_for_timeout(3000)
        page.locator("[role=tab]:has-text('Attributes')").first.click()
        page.wait_for_timeout(1000)
        page.mouse.move(0, 0)
        page.screenshot(path=path)


def main() -> None:
    (HERE / "anim.gif").write_bytes(animation())
    print("images/anim.gif")
    if reason := missing():
        print(f"images/app.png left as it is: {reason}")
    else:
        screenshot(HERE / "app.png")
        print("images/app.png")


if __name__ == "__main__":
    main()
