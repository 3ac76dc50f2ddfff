"""The tutorial as a folder of static pages, with the explorer alive in it: `make site`.

    python site/build.py                write the pages to _site
    python site/build.py --serve        and show them at http://127.0.0.1:8000

Lessons come from notebooks/*.ipynb, with the outputs they carry, other pages from *.md, faces and weights from the
models that ship. Nothing on a page asks another host for anything.
"""

import argparse
import base64
import functools
import http.server
import json
import re
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import nbformat
import wasmtime
from factors import write_factors
from kernel import wat
from models import write_models
from nbconvert.filters import ansi2html
from prose import Pictures, Prose, code, local_link

HERE = Path(__file__).parent
ROOT = HERE.parent
PAGES = {"README.md": "index.html", "RESULTS.md": "results.html", "GUIDE.md": "guide.html"}
MENU = ("glossary.html", "results.html", "guide.html")  # in the bar; other texts are linked where they are needed
ON_START = ("start", "the-lessons")  # sections of README.md that the start page has in its own words
FIGURES = {  # that a hand moves: each beneath the text whose heading has this word, else beneath the introduction
    "faces.html": {"factors.html.j2": "factors"},
    "maths.html": {"posterior.html.j2": "ELBO", "plane.html.j2": "sets itself"},
    "training.html": {"training.html.j2": "curves"},
    "noise.html": {"noise.html.j2": "noise"},
    "sharper.html": {"curtain.html.j2": "blur"},
}
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'"
)


@dataclass
class Page:
    """A page of the site: `path` on it, made of `source`, a path in the repository."""

    path: str
    source: str
    title: str = ""
    promise: str = ""  # the sentence beneath the title, as text
    body: str = ""
    headings: list = field(default_factory=list)
    picture: str = ""  # for link previews and the map of lessons, a path on the site
    alt: str = ""
    formulas: int = 0
    moves: bool = False  # whether it holds a figure that a hand moves

    @property
    def root(self) -> str:
        return "../" * self.path.count("/")

    @property
    def name(self) -> str:
        """The title without the number."""
        return re.sub(r"^\d+ · ", "", self.title)

    @property
    def number(self) -> str:
        """The lesson's, "01"; empty for other pages."""
        return found[1] if (found := re.match(r"(\d+)_", Path(self.path).name)) else ""


class Site:
    """Collects the pages, then writes them into `out`."""

    def __init__(self, out: Path, earlier: Path):
        self.out, self.earlier = out, earlier
        self.pictures = Pictures(out / "pictures")
        self.repository = _repository()
        self.environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        kinds = ("[0-9]*.ipynb", "solutions/[0-9]*.ipynb", "*.md")
        paths = [path for kind in kinds for path in sorted((ROOT / "notebooks").glob(kind))]
        sources = [path.relative_to(ROOT).as_posix() for path in paths]
        self.pages = {source: self._path(source) for source in sources}
        self.pages |= PAGES

    @staticmethod
    def _path(source: str) -> str:
        return source.removeprefix("notebooks/").rpartition(".")[0] + ".html"

    def build(self) -> None:
        self.models = write_models(self.out / "models", self.earlier / "models")
        self.shown = {"models": self.models, "turned": write_factors(self.out / "pictures")}  # by figures
        for name in ("plane", "training"):
            self.shown[name] = json.loads((HERE / "data" / f"{name}.json").read_text(encoding="utf-8"))
        sources = [source for source in self.pages if source != "README.md"]
        made = [self.lesson(source) if source.endswith(".ipynb") else self.text(source) for source in sources]
        lessons = [page for page in made if page.number and "/" not in page.path]
        others = [page for page in made if page not in lessons]
        menu = [page for name in MENU for page in others if page.path == name]
        texts = [page for page in others if "/" not in page.path and page not in menu]
        self.statics()
        shared = {"lessons": lessons, "menu": menu, "texts": texts, "policy": POLICY}
        shared |= {"repository": self.repository, "models": self.models}
        row = [None, *lessons, None]
        for before, page, after in zip(row, lessons, row[2:], strict=False):
            self.write("lesson.html.j2", page, **shared, previous=before, next=after)
        for page in others:
            self.write("lesson.html.j2", page, **shared, previous=None, next=None)
        start = Page("index.html", "README.md", "vaelib", picture=self.preview())
        start.promise = "Learn variational autoencoders by making anime and cartoon faces."
        self.write("start.html.j2", start, **shared, films=[model for model in self.models if "film" in model])
        explorer = Page("explorer.html", "README.md", "Explorer", picture=start.picture)
        explorer.promise = "Drag a slider and the face follows: the decoder of a VAE, running in your browser."
        self.write("explorer.html.j2", explorer, **shared)

    def write(self, template: str, page: Page, **values) -> None:
        path = self.out / page.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.environment.get_template(template).render(page=page, **values), encoding="utf-8")

    def prose(self, page: Page) -> Prose:
        def link(url: str) -> str:
            target = local_link(url, page.source, self.pages, self.repository)
            start, _, section = target.partition("#")
            if not start.endswith(self.pages["README.md"]) or section in ("", *ON_START):
                return target
            return start

        def picture(url: str, alt: str) -> str:
            if "//" in url:
                return ""  # a badge from another host
            return self.pictures.tag((ROOT / page.source).parent.joinpath(url).read_bytes(), alt, page.root)

        return Prose(link, picture)

    def lesson(self, source: str) -> Page:
        page = Page(self.pages[source], source)
        prose, cells = self.prose(page), []
        for cell in nbformat.read(ROOT / source, as_version=4).cells:
            if cell.cell_type == "markdown":
                cells.append({"kind": "prose", "html": prose.convert(cell.source)})
            elif cell.cell_type == "code" and cell.source.strip():
                outputs = [self.output(output, cell, page) for output in cell.outputs]
                outputs = [shown for shown in outputs if shown]
                set_up = "ModuleNotFoundError" in cell.source and "import vaelib" in cell.source
                cells.append({"kind": "code", "html": code(cell.source), "outputs": _joined(outputs), "set_up": set_up})
        figures = FIGURES.get(page.path.partition("_")[2], {}) if "/" not in page.path else {}
        page.moves = bool(figures)
        for figure, word in figures.items():
            _insert(cells, figure, word)
        template = self.environment.get_template("cells.html.j2")
        page.body = _wide_tables(template.render(cells=cells, root=page.root, **self.shown))
        return self.finish(page, prose)

    def output(self, output: dict, cell: dict, page: Page) -> dict | None:
        """One output of a cell, as the richest of its forms that a page can show."""
        if output.output_type == "stream":
            return {"kind": "text", "html": ansi2html(output.text)} if output.name == "stdout" else None
        if output.output_type == "error":
            return {"kind": "text", "html": ansi2html("\n".join(output.traceback))}
        data = output.data
        for kind in ("image/png", "image/jpeg", "image/gif"):
            if kind in data:
                alt = output.metadata.get(kind, {}).get("alt") or cell.metadata.get("alt", "")
                content = base64.b64decode(data[kind])
                if not page.picture:
                    page.picture, page.alt = f"pictures/{self.pictures.write(content)[0]}", alt
                return {"kind": "picture", "html": self.pictures.tag(content, alt, page.root)}
        if "application/vnd.jupyter.widget-view+json" in data:
            return None  # a progress bar
        if "text/html" in data:
            return {"kind": "html", "html": data["text/html"]}
        return {"kind": "text", "html": ansi2html(data["text/plain"])} if "text/plain" in data else None

    def text(self, source: str) -> Page:
        page = Page(self.pages[source], source)
        prose = self.prose(page)
        body = prose.convert((ROOT / source).read_text(encoding="utf-8"))
        page.body = f'<section class="prose">{_wide_tables(body)}</section>'
        return self.finish(page, prose)

    def finish(self, page: Page, prose: Prose) -> Page:
        page.headings, page.formulas = prose.headings, prose.formulas
        title = next((text for level, _, text in prose.headings if level == 1), Path(page.path).stem)
        page.title = _text(title)
        first = re.search(r"</h1>\s*<p>(.*?)</p>", page.body, re.DOTALL)
        page.promise = _text(first[1]) if first else ""
        if page.number and (shown := next((ROOT / "images").glob(f"lesson-{page.number}.*"), None)):
            page.picture = f"pictures/{self.pictures.write(shown.read_bytes())[0]}"
            readme = (ROOT / "README.md").read_text(encoding="utf-8")
            alt = re.search(rf'<img src="images/{shown.name}"[^>]*alt="([^"]*)"', readme)
            page.alt = alt[1] if alt else page.alt
        return page

    def preview(self) -> str:
        return f"pictures/{self.pictures.write((ROOT / 'images' / 'faces.jpg').read_bytes())[0]}"

    def statics(self) -> None:
        for path in (HERE / "static").iterdir():
            shutil.copy2(path, self.out / path.name)
        shutil.copytree(HERE / "data", self.out / "data")
        (self.out / "kernel.wasm").write_bytes(wasmtime.wat2wasm(wat()))
        (self.out / ".nojekyll").touch()


def _repository() -> str:
    """Where `make publish` says that the project lives on GitHub: "owner/name", or empty."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(
        r"^git clone (?:--depth 1 )?https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?(?:\s|$)", readme, re.MULTILINE
    )
    return found[1] if found else ""


def _text(markup: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", "", markup).split())


def _joined(outputs: list[dict]) -> list[dict]:
    """Texts that follow each other as one."""
    joined = []
    for output in outputs:
        if joined and output["kind"] == joined[-1]["kind"] == "text":
            joined[-1] = {"kind": "text", "html": joined[-1]["html"] + output["html"]}
        else:
            joined.append(output)
    return joined


def _insert(cells: list[dict], figure: str, word: str) -> None:
    headings = [re.search("<h2.*?</h2>", cell.get("html", "")) for cell in cells]
    after = next((i for i, found in enumerate(headings) if found and word in found[0]), 0)
    cells.insert(after + 1, {"kind": "figure", "name": figure})


def _wide_tables(body: str) -> str:
    """A table that is wider than the page scrolls by itself."""
    return body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")


def build(out: Path) -> None:
    """Write the site into the folder `out`, in place of what was there."""
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    Site(part, ROOT / "_site").build()
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


def serve(folder: Path, port: int) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"http://127.0.0.1:{port}  (Ctrl-C ends it)")
        server.serve_forever()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Write the tutorial as static pages.")
    parser.add_argument("--out", type=Path, default=ROOT / "_site", help="the folder to write (default: _site)")
    parser.add_argument("--serve", action="store_true", help="then serve it on this machine")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(arguments)
    started = time.monotonic()
    build(options.out)
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(f"{options.out}: {size / 1e6:.1f} MB in {time.monotonic() - started:.0f} s")
    if options.serve:
        serve(options.out, options.port)


if __name__ == "__main__":
    main(sys.argv[1:])
