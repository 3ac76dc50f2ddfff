"""The pages that `make site` writes, in Chromium: they open, they hold together, and their explorer is the explorer."""

import base64
import functools
import http.server
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote, urlsplit

import browsing
import numpy as np
import pytest
import torch
from browsing import ROOT, browser_page
from PIL import Image

from vaelib.drawn import draw_face
from vaelib.explorer_state import Draw, ExplorerState, drawn_face, first_attributes
from vaelib.pretrained import load_pretrained, shipped

SOURCES = ROOT / "site" / "static"
NEEDED = [name for name in ("latex2mathml", "wasmtime", "nbconvert", "playwright") if find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(NEEDED), reason=f"needs the packages {', '.join(NEEDED)}: pip install 'vaelib[test,site]'"),
    pytest.mark.skipif(not browsing.CHROMIUM, reason="needs Chromium: apt-get install chromium"),
]
LATENTS = 50


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder that `make site` writes."""
    out = tmp_path_factory.mktemp("site") / "_site"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, ROOT / "site" / "build.py", "--out", out], env=environment, check=True)
    return out


@pytest.fixture(scope="module")
def address(site) -> str:
    """Where a plain file server shows it: not at the top, as on GitHub Pages."""
    handler = functools.partial(QuietHandler, directory=site.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{site.name}/"
        server.shutdown()


@pytest.fixture(scope="module")
def page(address):
    """A page in Chromium; `page.asked` are the addresses that it asked for."""
    with browser_page() as page:
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        yield page


@pytest.fixture
def explorer(page, address):
    """The explorer, its first model ready."""
    page.goto("about:blank")
    page.goto(f"{address}explorer.html")
    ready(page)
    return page


def ready(page) -> None:
    page.wait_for_selector("main[data-shown]")  # not wait_for_function: the page's policy forbids eval


def pages_of(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


class Links(HTMLParser):
    """What a page refers to, and the names that can be referred to on it."""

    def __init__(self, path: Path):
        super().__init__()
        self.targets, self.names, self.pictures = [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.targets += [found[name] for name in ("href", "src") if name in found]
        self.names |= {found["id"]} if "id" in found else set()
        if tag == "img":
            self.pictures.append(found)


# Pages


def test_every_lesson_and_every_other_text_has_its_page(site):
    notebooks = ROOT / "notebooks"
    sources = [*notebooks.glob("[0-9]*.ipynb"), *notebooks.glob("solutions/*.ipynb"), *notebooks.glob("*.md")]
    expected = {site / source.relative_to(notebooks).with_suffix(".html") for source in sources}
    assert expected | {site / name for name in ("index.html", "explorer.html", "results.html", "guide.html")} == {
        *pages_of(site)
    }


def test_links_and_anchors_hold(site):
    links = {path: Links(path) for path in pages_of(site)}
    for path, found in links.items():
        for target in found.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                assert parts.scheme in ("http", "https"), f"{path.name}: {target}"
                continue
            other = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert other.is_file(), f"{path.name} leads to {target}, which is not there"
            if parts.fragment:
                assert parts.fragment in links[other].names, f"{path.name}: {target} has no such heading"


def test_every_picture_says_what_it_shows_and_how_large_it_is(site):
    for path in pages_of(site):
        for picture in Links(path).pictures:
            assert picture.get("alt"), f"{path.name}: {picture}"
            if "pictures/" in picture["src"] and path.name != "index.html":
                assert picture["loading"] == "lazy" and int(picture["width"]) and int(picture["height"])


def test_pages_are_light(site):
    for path in pages_of(site):
        assert path.stat().st_size < 1_500_000, f"{path.name} before its pictures"
    ours = [path for path in SOURCES.iterdir() if path.suffix in (".js", ".css")]
    assert sum(len(path.read_text().splitlines()) for path in ours) <= 2500


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node.js")
@pytest.mark.parametrize("path", sorted(SOURCES.glob("*.js")), ids=lambda path: path.name)
def test_scripts_parse(path):
    subprocess.run(["node", "--check", "--input-type=module", "-"], input=path.read_bytes(), check=True)


def test_pages_open_without_errors_and_ask_no_other_host(site, address, page):
    page.problems.clear()
    page.asked.clear()
    for path in pages_of(site):
        page.goto(address + path.relative_to(site).as_posix(), wait_until="load")
        assert page.locator("meta[http-equiv='Content-Security-Policy']").count() == 1
    assert page.problems == []
    assert [url for url in page.asked if not url.startswith((address, "data:", "blob:"))] == []


def test_pages_fit_a_phone(site, address, page):
    page.set_viewport_size({"width": 360, "height": 740})
    try:
        for path in pages_of(site):
            page.goto(address + path.relative_to(site).as_posix())
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, path.name
    finally:
        page.set_viewport_size({"width": 1280, "height": 900})


def test_formulas_are_typeset(site, address, page):
    shown = 0
    for path in pages_of(site):
        if "<math" not in (text := path.read_text(encoding="utf-8")):
            continue
        page.goto(address + path.relative_to(site).as_posix())
        heights = page.eval_on_selector_all("math", "all => all.map(math => math.getBoundingClientRect().height)")
        prose = re.sub(r"<(pre|code|math)\b.*?</\1>", "", text, flags=re.DOTALL)
        assert min(heights) > 4 and "merror" not in text and 'mathvariant="double' not in text
        assert "$" not in prose.replace("${", "") and "\\" not in re.sub(r"<[^>]*>", "", prose), path.name
        shown += len(heights)
    assert shown > 100


def test_figures_follow_the_hand(site, address, page):
    page.goto(f"{address}02_maths.html")
    told = page.locator(".posterior output")
    page.locator(".posterior [name=mean]").fill("1.4")
    page.locator(".posterior [name=spread]").fill("0.2")
    assert told.text_content() == "ELBO −3.05, ceiling −2.33, gap 0.72 nats"  # the numbers that lesson 02 prints
    page.goto(f"{address}06_noise.html")
    before = faces = page.locator(".noise canvas").last.evaluate("it => it.toDataURL()")
    page.locator(".noise button").last.click()
    while faces == before:
        page.wait_for_timeout(50)
        faces = page.locator(".noise canvas").last.evaluate("it => it.toDataURL()")
    page.goto(f"{address}07_sharper.html")
    page.locator(".curtain input").first.fill("0.25")
    assert page.locator(".curtain .upper").first.evaluate("it => it.style.clipPath") == "inset(0px 75% 0px 0px)"


def test_a_drawn_face_turns_by_its_factors(site, address, page):
    page.goto(f"{address}01_faces.html")
    assert page.locator(".turned").count() == 2
    for style, turned in zip(("anime", "cartoon"), page.locator(".turned").all(), strict=True):
        assert (site / "pictures" / f"factors-{style}.webp").stat().st_size < 150_000
        turned.scroll_into_view_if_needed()
        turned.locator("output:not(:empty)").wait_for()
        hands, places = turned.locator("input").all(), (1, 2, 0)
        for hand, place in zip(hands, places, strict=True):
            hand.fill(str(place))
        values = {hand.get_attribute("name"): json.loads(hand.get_attribute("data-values")) for hand in hands}
        chosen = {name: values[name][place] for name, place in zip(values, places, strict=True)}
        told = ", ".join(f"{name}={json.dumps(value)}" for name, value in chosen.items())
        assert turned.locator("output").text_content() == f'draw_face("{style}", {told})'
        shown = turned.locator("canvas").evaluate("it => it.toDataURL()").partition(",")[2]
        face = np.asarray(Image.open(BytesIO(base64.b64decode(shown))).convert("RGB").resize((96, 96)), float)
        faces = [dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())]
        assert min(faces, key=lambda factors: np.abs(draw_face(style, 96, **factors) - face).mean()) == chosen


def test_the_plane_follows_sigma_and_the_pointer(site, address, page):
    data = site / "data"
    models = json.loads((data / "plane.json").read_text(encoding="utf-8"))["models"]
    assert sum(path.stat().st_size for path in data.iterdir()) < 600_000
    page.goto(f"{address}02_maths.html")
    figure, seen = page.locator(".plane"), []
    figure.scroll_into_view_if_needed()
    for i, model in enumerate(models):
        figure.locator("input").fill(str(i))
        distortion = f"{model['distortion']:,.0f} nats".replace("-", "−")
        figure.locator("[data-of=distortion] output", has_text=distortion).wait_for()
        mosaic, face = (canvas.evaluate("it => it.toDataURL()") for canvas in figure.locator("canvas").all())
        seen += [mosaic, face, figure.locator(".cloud").last.get_attribute("d")]
    assert len(set(seen)) == 3 * len(models)
    figure.locator("input").fill("3")
    figure.locator("[data-of=rate] output", has_text=f"{models[3]['rate']:.1f} nats").wait_for()
    face, field = figure.locator(".beside canvas"), figure.locator(".field")
    faces = [face.evaluate("it => it.toDataURL()")]
    for action in (
        lambda: field.hover(position={"x": 12, "y": 12}),
        lambda: field.hover(position={"x": 12, "y": 300}),
        lambda: field.press("ArrowRight"),
    ):
        action()
        faces.append(face.evaluate("it => it.toDataURL()"))
    assert len(set(faces)) == 4


def test_the_film_of_a_training_runs_with_its_curves(site, address, page):
    film = json.loads((site / "data" / "training.json").read_text(encoding="utf-8"))
    page.goto(f"{address}04_training.html")
    figure = page.locator(".training")
    figure.scroll_into_view_if_needed()
    marks, faces = set(), set()
    for i in range(len(film["steps"])):
        figure.locator("input").fill(str(i))
        figure.locator("output", has_text=re.compile(f"^{film['steps'][i]}$")).wait_for()
        told = figure.locator(".told").all_text_contents()
        expected = [f"held out {curve['held out'][i]:,} nats".replace("-", "−") for curve in film["curves"].values()]
        assert told == expected
        marks.add(figure.locator("circle").first.get_attribute("cx"))
        faces.add(figure.locator("canvas").evaluate("it => it.toDataURL()"))
    assert len(marks) == len(film["steps"])
    assert len(faces) > len(film["steps"]) / 2  # the first ones are all grey


# The explorer


def test_faces_equal_those_of_the_package(explorer, site):
    worst = {}
    for name in shipped():
        bundle = load_pretrained(name)
        generator = torch.Generator().manual_seed(3)
        weights = torch.randn(LATENTS, len(bundle.axes), generator=generator)
        rest = 0.5 * torch.randn(LATENTS, *bundle.axes.mean.shape, generator=generator)
        z = bundle.axes.latents(weights) + rest
        with torch.inference_mode():
            expected = 255 * bundle.vae.decode(z).permute(0, 2, 3, 1).numpy()
        faces = explorer.evaluate(
            """async ([name, latents]) => {
                const { Client } = await import(new URL("client.js", location.href).href);
                const folder = new URL("models/", location.href);
                const { models } = await (await fetch(new URL("models.json", folder))).json();
                const model = models.find((each) => each.name === name), client = new Client(folder, () => {});
                await client.load(model);
                const faces = [];
                for (const latent of latents) {
                    const { data } = await client.decode(model, Float32Array.from(latent));
                    faces.push(btoa(String.fromCharCode.apply(null, data)));
                }
                return faces;
            }""",
            [name, z.flatten(1).tolist()],
        )
        side = bundle.image_size
        shown = np.stack([np.frombuffer(base64.b64decode(face), np.uint8) for face in faces])
        worst[name] = np.abs(shown.reshape(LATENTS, side, side, 4)[..., :3] - expected).max()
    assert max(worst.values()) <= 1, worst


def face_on(page) -> np.ndarray:
    """The face as it was decoded: the stage's picture, reduced to the model's own size."""
    data = page.evaluate(
        """() => {
            const small = new OffscreenCanvas(64, 64).getContext("2d");
            small.drawImage(document.querySelector("#face"), 0, 0, 64, 64);
            return Array.from(small.getImageData(0, 0, 64, 64).data);
        }"""
    )
    return np.array(data, np.uint8).reshape(64, 64, 4)[..., :3]


def state_of(name: str) -> ExplorerState:
    bundle = load_pretrained(name)
    return ExplorerState(bundle, first_attributes(bundle.attributes), name)


def first_model(site: Path) -> str:
    return json.loads((site / "models" / "models.json").read_text(encoding="utf-8"))["models"][0]["name"]


@pytest.mark.parametrize("kind", ["axes", "attributes", "right angles", "drawn", "picture"])
def test_a_code_from_python_opens_on_the_page_and_comes_back(kind, site, address, page):
    state = state_of(first_model(site))
    state.randomize(torch.Generator().manual_seed(5))
    if kind == "drawn":
        state.draw = Draw("mixture", 7, 0.8)
    elif kind == "picture":
        state.encode(drawn_face(state.bundle, 3))
        state.move(2, -1.7)
    elif kind != "axes":
        state.move(len(state.bundle.axes), 1.25)
        state.orthogonal = kind == "right angles"
    page.goto("about:blank")
    page.goto(f"{address}explorer.html#{state.code}")
    ready(page)
    assert page.input_value("#code") == state.code
    weights = page.eval_on_selector_all(".axis input", "all => all.map(input => input.valueAsNumber)")
    assert weights == pytest.approx(state.weights)
    expected = 255 * state.face().permute(1, 2, 0).numpy()
    assert np.abs(face_on(page) - expected).mean() < 6  # enlarged and reduced again


def test_a_face_made_on_the_page_opens_in_python(explorer, site):
    state = state_of(first_model(site))
    for prior in explorer.eval_on_selector_all("#prior option", "all => all.map(option => option.value)"):
        explorer.select_option("#prior", prior)
        before = explorer.input_value("#code")
        explorer.click("#randomize")
        explorer.wait_for_selector(f'main:not([data-shown="{before}"])')
        state.restore(explorer.input_value("#code"))
        weights = explorer.eval_on_selector_all(".axis input", "all => all.map(input => input.valueAsNumber)")
        assert weights == pytest.approx(state.weights)
        assert state.code == explorer.input_value("#code") == urlsplit(explorer.url).fragment
        assert (state.draw.prior if state.draw else "axes") == prior


def test_sliders_keys_and_buttons_change_the_face(explorer):
    def changed_by(action) -> bool:
        before, painted = face_on(explorer), explorer.get_attribute("main", "data-painted")
        action()
        explorer.wait_for_selector(f'main:not([data-painted="{painted}"])')
        return (face_on(explorer) != before).any()

    def slide():
        explorer.locator(".axis input").first.focus()
        for _ in range(40):
            explorer.keyboard.press("ArrowRight")

    assert changed_by(slide)
    assert changed_by(lambda: explorer.keyboard.press("r"))
    assert changed_by(lambda: explorer.keyboard.press("0"))
    assert changed_by(lambda: explorer.keyboard.press("u"))
    assert changed_by(lambda: explorer.locator(".gallery button").nth(3).click())
    assert changed_by(lambda: explorer.click("#animate"))
    explorer.click("#animate")
    explorer.click("#tab-morph")
    assert changed_by(lambda: explorer.locator("#share").fill("1"))
    with explorer.expect_download() as download:
        explorer.click("#save")
    assert download.value.suggested_filename.endswith(".png")


def test_a_locked_axis_stays(explorer):
    explorer.locator(".axis .lock").nth(2).click()
    before = explorer.locator(".axis input").nth(2).input_value()
    explorer.select_option("#prior", "axes")
    for _ in range(5):
        explorer.click("#randomize")
    assert explorer.locator(".axis input").nth(2).input_value() == before


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_damaged_weights_are_refused(damage, site, address, page):
    name = first_model(site)
    content = bytearray((site / "models" / f"{name}.safetensors").read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    content[len(content) // 2 - 1] ^= 1
    answer = {"status": 404} if damage == "missing" else {"body": bytes(content)}
    pattern = re.compile(rf"/{name}\.safetensors")
    page.goto("about:blank")
    page.route(pattern, lambda route: route.fulfill(**answer))
    try:
        page.goto(f"{address}explorer.html")
        page.wait_for_selector("#message.error")
        assert f"The weights of {name} are damaged or out of reach" in page.inner_text("#message")
        assert page.is_disabled("#randomize")
    finally:
        page.unroute(pattern)
        page.problems.clear()


@pytest.mark.parametrize(
    "code, said",
    [
        ("nonsense", "no code of a face"),
        ("vae1:{name}:axes:AAAAAAAAAA", "mistyped"),
        ("vae1:nobody:axes:AAAAAAAAAA", 'model "nobody"'),
        ("{drawn}", "open the code in a notebook"),
    ],
)
def test_a_wrong_code_is_refused(code, said, explorer, site):
    state = state_of(first_model(site))
    state.draw = Draw("flow", 2**31, 1.0)
    before = face_on(explorer)
    explorer.fill("#code", code.format(name=state.name, drawn=state.code))
    explorer.press("#code", "Enter")
    explorer.wait_for_selector("#message.error")
    assert said in explorer.inner_text("#message")
    assert (face_on(explorer) == before).all()


def test_the_pages_know_where_make_publish_put_the_project(tmp_path):
    code = (
        "import sys, pathlib; sys.path[:0] = ['site', 'notebooks']; import build, publish; "
        "readme = publish.publish_page(pathlib.Path('README.md').read_text(), 'owner/faces.vae'); "
        "build.ROOT = pathlib.Path(sys.argv[1]); (build.ROOT / 'README.md').write_text(readme); "
        "print(build._repository())"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "owner/faces.vae\n"
