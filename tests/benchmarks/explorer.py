"""How fast does the explorer answer a hand on a slider, or a picture that is dropped on the face?

Two parts, each for `anime` (17,089,539 parameters): what a frame costs in the kernel, and how long it takes in a
browser from a moved slider, or from a dropped picture of 512 pixels, to a new face painted.

    python tests/benchmarks/explorer.py                # both; the second needs Chromium and Voilà
    python tests/benchmarks/explorer.py --app lab      # in JupyterLab instead
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from vaelib.drawn import draw_faces
from vaelib.explorer import SENT_SIZE
from vaelib.explorer_state import ExplorerState, to_file
from vaelib.fast_decoding import FastDecoder
from vaelib.model import inference
from vaelib.pretrained import Bundle, load_pretrained

sys.path.insert(0, str(Path(__file__).parents[1]))
from browsing import browser_page, missing, run_all_cells, serve

# In the page: move the slider of the first axis by a key, or drop a picture on the face, and wait until the face that
# follows is painted.
MEASURE = """async ({count, what, faces}) => {
    const handle = document.querySelector('.widget-tab .noUi-handle');
    const image = document.querySelector('img.widget-image');
    const painted = () => new Promise(done => requestAnimationFrame(() => {  // called before a frame is painted
        const channel = new MessageChannel();  // what waits here is called right after it
        channel.port1.onmessage = done;
        channel.port2.postMessage('');
    }));
    const act = {
        slider: i => {
            const key = Math.floor(i / 10) % 2 ? 'ArrowLeft' : 'ArrowRight';
            handle.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
        },
        drop: i => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(faces[i % 2])], 'face.png', {type: 'image/png'}));
            image.dispatchEvent(new DragEvent('drop', {dataTransfer: files, bubbles: true, cancelable: true}));
        },
    }[what];
    const times = [];
    for (let i = 0; i < count; i++) {
        await new Promise(done => setTimeout(done, what == 'drop' ? 1500 : 120));
        const loaded = new Promise((done, failed) => {
            image.addEventListener('load', done, {once: true});
            setTimeout(() => failed('no new picture within 10 s'), 10000);
        });
        const start = performance.now();
        act(i);
        await loaded;
        const at = performance.now() - start;
        await painted();
        times.push([at, performance.now() - start]);
    }
    return times;
}"""
DROPPED = 20  # pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--app", choices=["voila", "lab", "none"], default="voila", help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=100, help="(default: %(default)s)")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f}, torch {torch.__version__}, {options.repeats} times each")
    print("\n| | median, ms | 95 %, ms | least, ms |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        bundle = load_pretrained("anime")
        for name, times in in_the_kernel(bundle, options.repeats).items():
            print(row(name, times))
        if options.app == "none":
            return
        if missing():
            print(f"\nno browser: {missing()}")
            return
        for what, times in in_a_browser(Path(folder), options).items():
            arrived, painted = zip(*times, strict=True)
            print(row(f"{what} to picture loaded, {options.app}", arrived))
            print(row(f"{what} to picture painted, {options.app}", painted))


def in_the_kernel(bundle: Bundle, repeats: int) -> dict[str, list[float]]:
    """Milliseconds by what was done, taken in turn so that all see the same machine."""
    state = ExplorerState(bundle)
    state.randomize(torch.Generator().manual_seed(0))
    z, picture = state.latent(), state.picture(SENT_SIZE)
    fast = FastDecoder(bundle.vae)

    def plain() -> None:
        with inference(bundle.vae):
            bundle.vae.decode(z)

    parts: dict[str, Callable] = {
        "decode, the model as it is, one thread": one_thread(plain),
        "decode, the model as it is, all threads": plain,
        "decode, FastDecoder": lambda: fast(z),
        f"a PNG of {SENT_SIZE} pixels": lambda: to_file(picture, "PNG"),
        f"a JPEG of {SENT_SIZE} pixels": lambda: to_file(picture, "JPEG"),
        "a frame: decode, enlarge, JPEG": lambda: state.render(SENT_SIZE, "JPEG"),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(repeats):
        for name, part in parts.items():
            part()  # warm: in use, one frame follows the other
            started = time.perf_counter()
            part()
            times[name].append(1000 * (time.perf_counter() - started))
    return times


def one_thread(part: Callable) -> Callable:
    def run() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        part()
        torch.set_num_threads(threads)

    return run


def in_a_browser(folder: Path, options: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds from an arrow key, or a dropped file, to the next picture, loaded and on the screen."""
    source = 'import vaelib\nvaelib.LatentExplorer(vaelib.load_pretrained("anime"))'
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None, "source": source}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = folder / "notebooks" / "explorer.ipynb"
    notebook.parent.mkdir()
    notebook.write_text(
        json.dumps({"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})
    )
    with serve(notebook, folder, options.app) as address, browser_page(1600, 1000) as page:
        page.goto(address, timeout=300_000)
        if options.app == "lab":
            run_all_cells(page)
        page.wait_for_selector("img.widget-image", timeout=240_000)
        page.wait_for_timeout(3000)
        page.evaluate(MEASURE, {"count": 20, "what": "slider"})  # to warm up; ten steps there, ten back
        moved = page.evaluate(MEASURE, {"count": options.repeats, "what": "slider"})
        faces = [list(to_file(Image.fromarray(face))) for face in draw_faces("anime", 2, 512)[0]]
        dropped = page.evaluate(MEASURE, {"count": DROPPED, "what": "drop", "faces": faces})
        return {"slider moved": moved, "picture dropped": dropped}


def row(name: str, times: list[float]) -> str:
    late = statistics.quantiles(times, n=20)[-1]
    return f"| {name} | {statistics.median(times):.1f} | {late:.1f} | {min(times):.1f} |"


if __name__ == "__main__":
    main()
