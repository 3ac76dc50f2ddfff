"""A blind pick sheet: 40 pairs of faces from two models, in random order, as one page to vote on in a browser.

Each pair is one latent, drawn from the flow, decoded by both. Which side is whose is shuffled and not shown. After the
last click the page says how many were picked of each, and how often a coin would be as far from even.

    python tests/benchmarks/picks.py anime anime-sharp --out picks.html
"""

import argparse
import base64
import json
import random
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from vaelib.plots import decode, face_grid
from vaelib.pretrained import load_pretrained

PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>Which face is better?</title>
<style>
body { font: 18px sans-serif; text-align: center }
button { border: 3px solid #ddd; background: white; padding: 4px; margin: 8px; cursor: pointer }
button:hover, button:focus { border-color: #0072B2 }
img { width: 256px; display: block }
</style>
<h1>Which face is better?</h1><p id="count"></p>
<div id="pair"><button><img alt="left face"></button><button><img alt="right face"></button></div>
<p>Click one, or press the left or the right arrow key.</p>
<script>
const names = NAMES, pairs = PAIRS;  // each pair: [left picture, right picture, which model is at left]
let row = 0; const picked = [0, 0];
const images = document.querySelectorAll("img"), count = document.getElementById("count");
function show() {
  if (row === pairs.length) return finish();
  images.forEach((image, side) => image.src = "data:image/png;base64," + pairs[row][side]);
  count.textContent = `${row + 1} of ${pairs.length}`;
}
function pick(side) { if (row < pairs.length) { picked[side ^ pairs[row][2]]++; row++; show(); } }
function finish() {
  const n = pairs.length, most = Math.max(...picked);
  let tail = 0, term = Math.pow(0.5, n);
  for (let k = 0; k <= n; k++) { if (k >= most) tail += term; term *= (n - k) / (k + 1); }
  document.getElementById("pair").remove();
  count.textContent = `${names[0]}: ${picked[0]}, ${names[1]}: ${picked[1]} of ${n}. ` +
    `A coin is as far from even in ${(100 * Math.min(1, 2 * tail)).toPrecision(2)} % of all tries.`;
}
document.querySelectorAll("button").forEach((button, side) => button.onclick = () => pick(side));
document.onkeydown = event => { if (event.key === "ArrowLeft") pick(0); if (event.key === "ArrowRight") pick(1); };
show();
</script></html>
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs=2, metavar="MODEL", help="two that ship, or folders of runs")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--seed", type=int, help="of latents and order (default: another each time)")
    parser.add_argument("--out", type=Path, default=Path("picks.html"))
    options = parser.parse_args()
    options.out.write_text(sheet(options.models, options.pairs, options.seed), encoding="utf-8")
    print(f"{options.pairs} pairs in {options.out}: open it in a browser")


def sheet(models: list[str], pairs: int, seed: int | None = None) -> str:
    """The page, as HTML that needs nothing else."""
    seed = random.randrange(2**31) if seed is None else seed
    order = random.Random(seed)
    bundles = [load_pretrained(model) for model in models]
    faces = []
    for bundle in bundles:  # one seed: models that share their prior then decode the same latents
        z = bundle.priors["flow"].sample(pairs, torch.Generator().manual_seed(seed))
        faces.append(decode(bundle.vae, z))
    rows = []
    for pair in zip(*faces, strict=True):
        left = order.randrange(2)
        rows.append([as_png(pair[left]), as_png(pair[1 - left]), left])
    return PAGE.replace("NAMES", json.dumps(models)).replace("PAIRS", json.dumps(rows))


def as_png(face: Tensor) -> str:
    file = BytesIO()
    face_grid(face[None], columns=1, scale=4).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    main()
